//! Waiting, with a mutex given up, until what the mutex protects has changed.
//!
//! - Giving the mutex up and joining the line is one step: nobody runs in between.
//! - A wait that fails leaves its caller without the mutex. So it never has to wait once more only to fail.
//! - One that was notified but could not get the mutex passes the notification on.

use std::{fmt, mem, panic::Location, time::Duration};

use crate::{
    driver,
    sync::{
        error::{LockError, WaitError},
        line::Patience,
        mutex::MutexGuard,
        signal::Signal,
    },
    wake::LockKind,
};

/// Lets tasklets wait until a value in a [`Mutex`](super::Mutex) is as they need it.
///
/// A wait takes the guard, so there is none without the mutex. There are no spurious wake-ups, but others may have had
/// the mutex between the notification and the return.
///
/// ```
/// # use pila_runtime as pila;
/// use std::rc::Rc;
/// use pila::sync::{Condvar, Mutex};
///
/// let shared = Rc::new((Mutex::new(Vec::new()), Condvar::new()));
/// let theirs = shared.clone();
/// let consumer = pila::tasklet(move || {
///     let (items, added) = &*theirs;
///     let mut items = added.wait_while(items.lock().unwrap(), |items| items.is_empty()).unwrap();
///     items.pop()
/// });
/// pila::schedule();
/// shared.0.lock()?.push("item");
/// shared.1.notify_one();
/// assert_eq!(consumer.join().unwrap(), Some("item"));
/// # Ok::<(), pila::sync::LockError>(())
/// ```
#[doc(alias = "Condition")]
pub struct Condvar {
    signal: Signal,
}

impl Condvar {
    /// A condition variable for which nobody waits.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::sync::{Condvar, Mutex};
    ///
    /// let mutex = Mutex::new(7);
    /// let nobody_notifies = Condvar::new();
    /// let seven = nobody_notifies.wait_while(mutex.lock().unwrap(), |value| *value != 7)?;
    /// assert_eq!(*seven, 7);
    /// assert!(nobody_notifies.wait(seven).is_err());
    /// # Ok::<(), pila::sync::WaitError>(())
    /// ```
    #[must_use]
    #[track_caller]
    pub fn new() -> Condvar {
        Condvar { signal: Signal::of_kind(LockKind::Condvar, Location::caller()) }
    }

    /// Unlocks the mutex, waits for a notification, and locks the mutex again.
    ///
    /// # Errors
    /// The mutex is then unlocked. [`WaitError::Deadlock`] when nobody could ever end the wait;
    /// [`WaitError::Refused`]; [`WaitError::Thrown`].
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::sync::{Condvar, Mutex, WaitError};
    ///
    /// let mutex = Mutex::new(());
    /// let nobody_notifies = Condvar::new().wait(mutex.lock()?);
    /// assert!(matches!(nobody_notifies, Err(WaitError::Deadlock(_))));
    /// assert!(!mutex.is_locked());
    /// # Ok::<(), pila::sync::LockError>(())
    /// ```
    pub fn wait<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
    ) -> Result<MutexGuard<'a, T>, WaitError> {
        self.wait_with(guard, Patience::Endless).map(|(guard, _)| guard)
    }

    /// As [`wait`](Condvar::wait), but waits for a notification no longer than `timeout`, and says whether that was
    /// it. The mutex is locked again in either case, however long that takes.
    ///
    /// # Errors
    /// As [`wait`](Condvar::wait).
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::sync::{Condvar, Mutex};
    ///
    /// let mutex = Mutex::new(7);
    /// let guard = mutex.lock().unwrap();
    /// let (guard, result) =
    ///     Condvar::new().wait_timeout(guard, std::time::Duration::from_millis(1))?;
    /// assert!(result.timed_out() && *guard == 7);
    /// # Ok::<(), pila::sync::WaitError>(())
    /// ```
    pub fn wait_timeout<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> Result<(MutexGuard<'a, T>, WaitTimeoutResult), WaitError> {
        self.wait_with(guard, Patience::For(timeout))
    }

    /// Waits as long as `condition` holds, asking it first and after every notification.
    ///
    /// # Errors
    /// As [`wait`](Condvar::wait).
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::sync::{Condvar, Mutex};
    ///
    /// let mutex = Mutex::new(7);
    /// let guard = Condvar::new().wait_while(mutex.lock().unwrap(), |value| *value != 7)?;
    /// assert_eq!(*guard, 7);
    /// # Ok::<(), pila::sync::WaitError>(())
    /// ```
    #[doc(alias = "wait_for")]
    pub fn wait_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> Result<MutexGuard<'a, T>, WaitError> {
        while condition(&mut *guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// As [`wait_while`](Condvar::wait_while), but for all its waits together no longer than `timeout`. The result says
    /// whether the condition still holds.
    ///
    /// # Errors
    /// As [`wait`](Condvar::wait).
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::sync::{Condvar, Mutex};
    ///
    /// let mutex = Mutex::new(7);
    /// let (_guard, result) = Condvar::new().wait_timeout_while(
    ///     mutex.lock().unwrap(),
    ///     std::time::Duration::from_millis(1),
    ///     |value| *value == 7,
    /// )?;
    /// assert!(result.timed_out());
    /// # Ok::<(), pila::sync::WaitError>(())
    /// ```
    pub fn wait_timeout_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> Result<(MutexGuard<'a, T>, WaitTimeoutResult), WaitError> {
        let start = driver::now();
        loop {
            if !condition(&mut *guard) {
                return Ok((guard, WaitTimeoutResult(false)));
            }
            let Some(left) = timeout.checked_sub(driver::now() - start).filter(|t| !t.is_zero())
            else {
                return Ok((guard, WaitTimeoutResult(true)));
            };
            guard = self.wait_timeout(guard, left)?.0;
        }
    }

    /// Wakes the first that waits, if there is one. It goes on once it has the mutex.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// pila::sync::Condvar::new().notify_one();
    /// ```
    pub fn notify_one(&self) {
        self.signal.notify_one();
    }

    /// Wakes all that wait. They go on one after the other, as they get the mutex.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// pila::sync::Condvar::new().notify_all();
    /// ```
    pub fn notify_all(&self) {
        self.signal.notify_all();
    }

    /// Wakes the first `count` that wait, and says how many those were.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// assert_eq!(pila::sync::Condvar::new().notify(3), 0);
    /// ```
    pub fn notify(&self, count: usize) -> usize {
        self.signal.notify(count)
    }

    fn wait_with<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        patience: Patience,
    ) -> Result<(MutexGuard<'a, T>, WaitTimeoutResult), WaitError> {
        let mutex = guard.mutex();
        let notified = self.signal.wait_with(patience, || drop(guard))?;
        let passed_on = notified.then_some(PassOn(&self.signal));
        let guard = mutex.lock().map_err(|error| match error {
            LockError::Deadlock(report) => WaitError::Deadlock(report),
            LockError::Refused(refused) => WaitError::Refused(refused),
            LockError::Thrown(error) => WaitError::Thrown(error),
            LockError::Timeout | LockError::AlreadyLocked { .. } => {
                unreachable!("one that waited has not locked it, and waits without a deadline")
            }
        })?;
        mem::forget(passed_on);
        Ok((guard, WaitTimeoutResult(!notified)))
    }
}

/// A notification that goes to the next when dropped.
struct PassOn<'a>(&'a Signal);

impl Drop for PassOn<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Whether a wait ended because its time was up.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::sync::{Condvar, Mutex};
///
/// let mutex = Mutex::new(());
/// let guard = mutex.lock().unwrap();
/// let (_guard, result) = Condvar::new().wait_timeout(guard, std::time::Duration::ZERO)?;
/// assert!(result.timed_out());
/// # Ok::<(), pila::sync::WaitError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether the time was up.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use std::{rc::Rc, time::Duration};
    /// use pila::sync::{Condvar, Mutex};
    ///
    /// let (mutex, condvar) = (Mutex::new(()), Rc::new(Condvar::new()));
    /// let theirs = condvar.clone();
    /// pila::tasklet(move || theirs.notify_one());
    /// let guard = mutex.lock().unwrap();
    /// let (_guard, result) = condvar.wait_timeout(guard, Duration::from_secs(60))?;
    /// assert!(!result.timed_out());
    /// # Ok::<(), pila::sync::WaitError>(())
    /// ```
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Default for Condvar {
    #[track_caller]
    fn default() -> Condvar {
        Condvar::new()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condvar").field(&self.signal).finish()
    }
}
