//! A number of permits, for as many tasklets at a time.
//!
//! - Nobody is in line whose wish could be granted: the first in line is granted as soon as enough permits are free,
//!   and nobody passes it by.
//! - `free` and `granted` together never exceed `max`.

use std::{cell::Cell, fmt, mem, panic::Location, time::Duration};

use crate::{
    current::with,
    scheduler::Scheduler,
    sync::{
        error::{AcquireError, TooManyPermits},
        line::{self, Awaited, Line, Patience, Turn},
    },
    wake::{LockKind, Waiting},
};

/// Hands out permits, and makes tasklets wait when there are none.
///
/// ```
/// # use pila_runtime as pila;
/// use std::{rc::Rc, time::Duration};
/// use pila::sync::Semaphore;
///
/// let connections = Rc::new(Semaphore::new(10));
/// for _ in 0..1000 {
///     let connections = connections.clone();
///     pila::tasklet(move || {
///         let _permit = connections.acquire().unwrap();
///         pila::sleep(Duration::from_micros(10)); // ten at a time
///     });
/// }
/// pila::run();
/// assert_eq!(connections.available_permits(), 10);
/// ```
#[doc(alias = "BoundedSemaphore")]
pub struct Semaphore {
    /// Those who wait, each with how many permits it wants.
    line: Line<usize>,
    free: Cell<usize>,
    /// Those that come back when a [`Permit`] is dropped.
    granted: Cell<usize>,
    max: usize,
}

impl Semaphore {
    /// A semaphore with `permits` free permits, to which any number can be added.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let semaphore = pila::sync::Semaphore::new(2);
    /// assert_eq!(semaphore.available_permits(), 2);
    /// semaphore.release(5)?;
    /// assert_eq!(semaphore.available_permits(), 7);
    /// # Ok::<(), pila::sync::TooManyPermits>(())
    /// ```
    #[must_use]
    #[track_caller]
    pub fn new(permits: usize) -> Semaphore {
        Semaphore::bounded(permits, usize::MAX)
    }

    /// A semaphore with `permits` free permits that never has more than `max`.
    ///
    /// # Panics
    /// When `permits` is more than `max`.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let semaphore = pila::sync::Semaphore::bounded(1, 2);
    /// semaphore.release(1)?;
    /// assert!(semaphore.release(1).is_err());
    /// # Ok::<(), pila::sync::TooManyPermits>(())
    /// ```
    #[must_use]
    #[track_caller]
    pub fn bounded(permits: usize, max: usize) -> Semaphore {
        assert!(permits <= max, "a semaphore of at most {max} permits cannot have {permits}");
        let line = Line::new(LockKind::Semaphore, Location::caller());
        Semaphore { line, free: Cell::new(permits), granted: Cell::new(0), max }
    }

    /// Takes a permit, waiting for those who came before and for one to be free.
    ///
    /// # Errors
    /// [`AcquireError::Deadlock`] when nobody could ever give one; [`AcquireError::Refused`] when it would have to
    /// wait and may not; [`AcquireError::Thrown`].
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let semaphore = pila::sync::Semaphore::new(1);
    /// let permit = semaphore.acquire()?;
    /// assert_eq!(semaphore.available_permits(), 0);
    /// drop(permit);
    /// assert_eq!(semaphore.available_permits(), 1);
    /// # Ok::<(), pila::sync::AcquireError>(())
    /// ```
    pub fn acquire(&self) -> Result<Permit<'_>, AcquireError> {
        self.acquire_with(1, Patience::Endless)
    }

    /// As [`acquire`](Semaphore::acquire), `permits` at once. One that wants many is not passed by those who want few.
    ///
    /// # Errors
    /// As [`acquire`](Semaphore::acquire), and [`AcquireError::TooMany`] when there can never be as many.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let semaphore = pila::sync::Semaphore::new(3);
    /// let permits = semaphore.acquire_many(2)?;
    /// assert_eq!((permits.count(), semaphore.available_permits()), (2, 1));
    /// # Ok::<(), pila::sync::AcquireError>(())
    /// ```
    pub fn acquire_many(&self, permits: usize) -> Result<Permit<'_>, AcquireError> {
        self.acquire_with(permits, Patience::Endless)
    }

    /// Takes a permit if one is free and nobody waits. Never waits.
    ///
    /// # Errors
    /// [`AcquireError::Timeout`] when it would have to wait.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// assert!(pila::sync::Semaphore::new(0).try_acquire().is_err());
    /// ```
    pub fn try_acquire(&self) -> Result<Permit<'_>, AcquireError> {
        self.acquire_with(1, Patience::None)
    }

    /// As [`try_acquire`](Semaphore::try_acquire), `permits` at once.
    ///
    /// # Errors
    /// As [`try_acquire`](Semaphore::try_acquire), and [`AcquireError::TooMany`] when there can never be as many.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// assert!(pila::sync::Semaphore::new(2).try_acquire_many(3).is_err());
    /// ```
    pub fn try_acquire_many(&self, permits: usize) -> Result<Permit<'_>, AcquireError> {
        self.acquire_with(permits, Patience::None)
    }

    /// As [`acquire`](Semaphore::acquire), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As [`acquire`](Semaphore::acquire), and [`AcquireError::Timeout`] when the time is up.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::sync::{AcquireError, Semaphore};
    ///
    /// let semaphore = Semaphore::new(0);
    /// let late = semaphore.acquire_timeout(std::time::Duration::from_millis(1));
    /// assert!(matches!(late, Err(AcquireError::Timeout)));
    /// ```
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit<'_>, AcquireError> {
        self.acquire_with(1, Patience::For(timeout))
    }

    /// As [`acquire_many`](Semaphore::acquire_many), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As [`acquire_many`](Semaphore::acquire_many), and [`AcquireError::Timeout`] when the time is up.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let semaphore = pila::sync::Semaphore::new(2);
    /// let permits = semaphore.acquire_many_timeout(2, std::time::Duration::from_millis(1))?;
    /// # Ok::<(), pila::sync::AcquireError>(())
    /// ```
    pub fn acquire_many_timeout(
        &self,
        permits: usize,
        timeout: Duration,
    ) -> Result<Permit<'_>, AcquireError> {
        self.acquire_with(permits, Patience::For(timeout))
    }

    /// Adds `permits`: new ones, or those of a [`Permit`] that was [forgotten](Permit::forget).
    ///
    /// # Errors
    /// [`TooManyPermits`], with nothing changed, when the semaphore would have more than it can, those included that
    /// are granted at the moment.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let semaphore = pila::sync::Semaphore::new(0);
    /// semaphore.release(2)?;
    /// assert_eq!(semaphore.available_permits(), 2);
    /// # Ok::<(), pila::sync::TooManyPermits>(())
    /// ```
    #[doc(alias = "add_permits")]
    pub fn release(&self, permits: usize) -> Result<(), TooManyPermits> {
        let room = self.max - self.free.get() - self.granted.get();
        if permits > room {
            return Err(TooManyPermits { excess: permits - room, max: self.max });
        }
        self.free.set(self.free.get() + permits);
        with(|scheduler| self.grant_all_that_can_be(scheduler));
        Ok(())
    }

    /// How many permits are free.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// assert_eq!(pila::sync::Semaphore::new(3).available_permits(), 3);
    /// ```
    #[must_use]
    pub fn available_permits(&self) -> usize {
        self.free.get()
    }

    fn acquire_with(&self, count: usize, patience: Patience) -> Result<Permit<'_>, AcquireError> {
        if count > self.max {
            return Err(AcquireError::TooMany { wanted: count, max: self.max });
        }
        with(|scheduler| {
            if count <= self.free.get() && self.line.is_empty(scheduler) {
                self.grant(count);
            } else {
                line::wait(self, scheduler, count, patience, || ())?;
            }
            Ok(Permit { semaphore: self, count })
        })
    }

    fn grant(&self, count: usize) {
        self.free.set(self.free.get() - count);
        self.granted.set(self.granted.get() + count);
    }

    fn give_back(&self, scheduler: &Scheduler, count: usize) {
        self.granted.set(self.granted.get() - count);
        self.free.set(self.free.get() + count);
        self.grant_all_that_can_be(scheduler);
    }

    fn grant_all_that_can_be(&self, scheduler: &Scheduler) {
        while let Some(count) = self.line.serve_if(scheduler, |count| *count <= self.free.get()) {
            self.grant(count);
        }
    }
}

impl Awaited for Semaphore {
    type Want = usize;

    fn line(&self) -> &Line<usize> {
        &self.line
    }

    fn waiting(&self, _: usize) -> Waiting {
        Waiting::Permits(self.line.id())
    }

    fn left(&self, scheduler: &Scheduler, count: usize, turn: Turn) {
        match turn {
            Turn::Unused => self.give_back(scheduler, count),
            Turn::NotCome => self.grant_all_that_can_be(scheduler),
        }
    }
}

/// Permits of a semaphore. Dropping it gives them back, and never switches.
///
/// ```
/// # use pila_runtime as pila;
/// let semaphore = pila::sync::Semaphore::new(1);
/// semaphore.acquire()?.forget();
/// assert_eq!(semaphore.available_permits(), 0);
/// # Ok::<(), pila::sync::AcquireError>(())
/// ```
#[must_use = "the permits are given back as soon as this is dropped"]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
    count: usize,
}

impl Permit<'_> {
    /// How many permits these are.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let semaphore = pila::sync::Semaphore::new(5);
    /// let permit = semaphore.acquire_many(3)?;
    /// assert_eq!(permit.count(), 3);
    /// # drop(permit);
    /// # Ok::<(), pila::sync::AcquireError>(())
    /// ```
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Keeps them from coming back: whoever should give them back calls [`Semaphore::release`].
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let semaphore = pila::sync::Semaphore::bounded(1, 1);
    /// semaphore.acquire().unwrap().forget();
    /// semaphore.release(1).unwrap();
    /// assert_eq!(semaphore.available_permits(), 1);
    /// ```
    pub fn forget(self) {
        let granted = &self.semaphore.granted;
        granted.set(granted.get() - self.count);
        mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        with(|scheduler| self.semaphore.give_back(scheduler, self.count));
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("count", &self.count).finish()
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut semaphore = f.debug_struct("Semaphore");
        semaphore.field("available_permits", &self.free.get());
        semaphore.field("waiters", &with(|scheduler| self.line.len(scheduler))).finish()
    }
}
