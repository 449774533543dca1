//! A value for many readers or one writer at a time.
//!
//! - Readers and writers stand in one line. Nobody is in line who could be let in.
//! - A tasklet that reads may read again at once, for who waits behind it waits for its first reading too.
//! - The value is borrowed exactly while a guard lives.

use std::{
    cell::{Cell, Ref, RefCell, RefMut},
    collections::BTreeMap,
    fmt,
    ops::{Deref, DerefMut},
    panic::Location,
    time::Duration,
};

use crate::{
    current::with,
    scheduler::Scheduler,
    sync::{
        error::LockError,
        line::{self, Awaited, Line, Patience, Turn},
    },
    table::Key,
    tasklet::Handle,
    wake::{LockKind, Waiting},
};

/// Keeps a value that many tasklets may read or one may write, also while they wait for something else.
///
/// It goes to those who wait in the order of their coming, readers that follow one another together: a reader that
/// comes after a writer waits for it, so that neither kind starves. There is no poisoning.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::sync::RwLock;
///
/// let table = RwLock::new(vec![1, 2]);
/// {
///     let (mine, also_mine) = (table.read()?, table.read()?);
///     assert_eq!(mine.len() + also_mine.len(), 4);
/// }
/// table.write()?.push(3);
/// assert_eq!(*table.read()?, [1, 2, 3]);
/// # Ok::<(), pila::sync::LockError>(())
/// ```
pub struct RwLock<T: ?Sized> {
    lock: Lock,
    value: RefCell<T>,
}

/// A lock but for its value.
struct Lock {
    line: Line<Want>,
    writer: Cell<Option<Key>>,
    /// Those who read, each with how many times.
    readers: RefCell<BTreeMap<Key, usize>>,
}

/// Who wants to do what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Want {
    key: Key,
    mode: Mode,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Read,
    Write,
}

impl<T> RwLock<T> {
    /// An unlocked lock.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let lock = pila::sync::RwLock::new(7);
    /// assert_eq!(*lock.try_write()?, 7);
    /// # Ok::<(), pila::sync::LockError>(())
    /// ```
    #[must_use]
    #[track_caller]
    pub fn new(value: T) -> RwLock<T> {
        let line = Line::new(LockKind::RwLock, Location::caller());
        let lock = Lock { line, writer: Cell::new(None), readers: RefCell::default() };
        RwLock { lock, value: RefCell::new(value) }
    }

    /// The value, when nobody needs the lock any more.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// assert_eq!(pila::sync::RwLock::new(7).into_inner(), 7);
    /// ```
    #[must_use]
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Locks it for reading, waiting for writers that came before. A tasklet that reads already does not wait.
    ///
    /// # Errors
    /// [`LockError::AlreadyLocked`] when the caller itself writes; [`LockError::Deadlock`] when nobody could ever
    /// unlock it; [`LockError::Refused`] when it would have to wait and may not; [`LockError::Thrown`].
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let lock = pila::sync::RwLock::new(7);
    /// assert_eq!(*lock.read()?, 7);
    /// # Ok::<(), pila::sync::LockError>(())
    /// ```
    pub fn read(&self) -> Result<RwLockReadGuard<'_, T>, LockError> {
        self.read_with(Patience::Endless)
    }

    /// Locks it for reading if nobody writes or waits to. Never waits.
    ///
    /// # Errors
    /// As [`read`](RwLock::read), and [`LockError::Timeout`] when it would have to wait.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let lock = pila::sync::RwLock::new(7);
    /// let writer = lock.write()?;
    /// assert!(lock.try_read().is_err());
    /// # Ok::<(), pila::sync::LockError>(())
    /// ```
    pub fn try_read(&self) -> Result<RwLockReadGuard<'_, T>, LockError> {
        self.read_with(Patience::None)
    }

    /// As [`read`](RwLock::read), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As [`read`](RwLock::read), and [`LockError::Timeout`] when the time is up.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let lock = pila::sync::RwLock::new(7);
    /// assert_eq!(*lock.read_timeout(std::time::Duration::from_secs(1))?, 7);
    /// # Ok::<(), pila::sync::LockError>(())
    /// ```
    pub fn read_timeout(&self, timeout: Duration) -> Result<RwLockReadGuard<'_, T>, LockError> {
        self.read_with(Patience::For(timeout))
    }

    /// Locks it for writing, waiting for all who came before.
    ///
    /// # Errors
    /// [`LockError::AlreadyLocked`] when the caller itself reads or writes; else as [`read`](RwLock::read).
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let lock = pila::sync::RwLock::new(7);
    /// *lock.write()? += 1;
    /// let reader = lock.read()?;
    /// assert!(lock.write().is_err());
    /// # Ok::<(), pila::sync::LockError>(())
    /// ```
    pub fn write(&self) -> Result<RwLockWriteGuard<'_, T>, LockError> {
        self.write_with(Patience::Endless)
    }

    /// Locks it for writing if nobody uses it. Never waits.
    ///
    /// # Errors
    /// As [`write`](RwLock::write), and [`LockError::Timeout`] when it would have to wait.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let lock = pila::sync::RwLock::new(7);
    /// *lock.try_write()? += 1;
    /// # Ok::<(), pila::sync::LockError>(())
    /// ```
    pub fn try_write(&self) -> Result<RwLockWriteGuard<'_, T>, LockError> {
        self.write_with(Patience::None)
    }

    /// As [`write`](RwLock::write), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As [`write`](RwLock::write), and [`LockError::Timeout`] when the time is up.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let lock = pila::sync::RwLock::new(7);
    /// *lock.write_timeout(std::time::Duration::from_secs(1))? += 1;
    /// # Ok::<(), pila::sync::LockError>(())
    /// ```
    pub fn write_timeout(&self, timeout: Duration) -> Result<RwLockWriteGuard<'_, T>, LockError> {
        self.write_with(Patience::For(timeout))
    }

    /// The value, which nobody else can be using.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let mut lock = pila::sync::RwLock::new(1);
    /// *lock.get_mut() += 1;
    /// assert_eq!(lock.into_inner(), 2);
    /// ```
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    fn read_with(&self, patience: Patience) -> Result<RwLockReadGuard<'_, T>, LockError> {
        let want = with(|scheduler| self.lock.acquire(scheduler, Mode::Read, patience))?;
        let hold = Hold { lock: &self.lock, want };
        Ok(RwLockReadGuard { value: self.value.borrow(), _hold: hold })
    }

    fn write_with(&self, patience: Patience) -> Result<RwLockWriteGuard<'_, T>, LockError> {
        let want = with(|scheduler| self.lock.acquire(scheduler, Mode::Write, patience))?;
        let hold = Hold { lock: &self.lock, want };
        Ok(RwLockWriteGuard { value: self.value.borrow_mut(), _hold: hold })
    }
}

impl Lock {
    fn acquire(
        &self,
        scheduler: &Scheduler,
        mode: Mode,
        patience: Patience,
    ) -> Result<Want, LockError> {
        let want = Want { key: scheduler.core.borrow().current_key(), mode };
        let reads = self.readers.borrow().contains_key(&want.key);
        if self.writer.get() == Some(want.key) || (reads && mode == Mode::Write) {
            let who = Handle::of_key(want.key).who();
            return Err(LockError::AlreadyLocked { who, lock: self.line.id() });
        }
        if reads || (self.has_room_for(mode) && self.line.is_empty(scheduler)) {
            self.let_in(want);
            return Ok(want);
        }
        Ok(line::wait(self, scheduler, want, patience, || ())?)
    }

    fn has_room_for(&self, mode: Mode) -> bool {
        let written = self.writer.get().is_some();
        match mode {
            Mode::Read => !written,
            Mode::Write => !written && self.readers.borrow().is_empty(),
        }
    }

    fn let_in(&self, want: Want) {
        match want.mode {
            Mode::Read => *self.readers.borrow_mut().entry(want.key).or_default() += 1,
            Mode::Write => self.writer.set(Some(want.key)),
        }
    }

    fn release(&self, scheduler: &Scheduler, want: Want) {
        match want.mode {
            Mode::Read => self.stop_reading(want.key),
            Mode::Write => self.writer.set(None),
        }
        self.let_in_all_who_may(scheduler);
    }

    fn stop_reading(&self, key: Key) {
        let mut readers = self.readers.borrow_mut();
        let times = readers.get_mut(&key).expect("one that reads is counted");
        *times -= 1;
        if *times == 0 {
            readers.remove(&key);
        }
    }

    fn let_in_all_who_may(&self, scheduler: &Scheduler) {
        while let Some(want) = self.line.serve_if(scheduler, |want| self.has_room_for(want.mode)) {
            self.let_in(want);
        }
        self.note_holder(scheduler);
    }
}

impl Awaited for Lock {
    type Want = Want;

    fn line(&self) -> &Line<Want> {
        &self.line
    }

    fn waiting(&self, want: Want) -> Waiting {
        match want.mode {
            Mode::Read => Waiting::ReadLock(self.line.id()),
            Mode::Write => Waiting::WriteLock(self.line.id()),
        }
    }

    fn left(&self, scheduler: &Scheduler, want: Want, turn: Turn) {
        match turn {
            Turn::Unused => self.release(scheduler, want),
            Turn::NotCome => self.let_in_all_who_may(scheduler),
        }
    }

    fn note_holder(&self, scheduler: &Scheduler) {
        let reader = || self.readers.borrow().keys().next().copied();
        self.line.note_holder(scheduler, self.writer.get().or_else(reader));
    }
}

/// Unlocks when dropped.
struct Hold<'a> {
    lock: &'a Lock,
    want: Want,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        with(|scheduler| self.lock.release(scheduler, self.want));
    }
}

/// The reading of a lock's value. Dropping it unlocks, and never switches.
///
/// ```
/// # use pila_runtime as pila;
/// let lock = pila::sync::RwLock::new("text");
/// let guard = lock.read()?;
/// assert_eq!(guard.len(), 4);
/// # Ok::<(), pila::sync::LockError>(())
/// ```
#[must_use = "the lock is given up as soon as the guard is dropped"]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    // Before `_hold`: who comes next finds the value free.
    value: Ref<'a, T>,
    _hold: Hold<'a>,
}

/// The writing of a lock's value. Dropping it unlocks, and never switches.
///
/// ```
/// # use pila_runtime as pila;
/// let lock = pila::sync::RwLock::new(String::new());
/// let mut guard = lock.write()?;
/// guard.push_str("text");
/// # Ok::<(), pila::sync::LockError>(())
/// ```
#[must_use = "the lock is given up as soon as the guard is dropped"]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    // Before `_hold`: who comes next finds the value free.
    value: RefMut<'a, T>,
    _hold: Hold<'a>,
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lock = f.debug_struct("RwLock");
        match self.value.try_borrow() {
            Ok(value) => lock.field("value", &&*value),
            Err(_) => lock.field("value", &format_args!("<locked>")),
        };
        lock.field("readers", &self.lock.readers.borrow().len()).finish_non_exhaustive()
    }
}

impl<T: Default> Default for RwLock<T> {
    #[track_caller]
    fn default() -> RwLock<T> {
        RwLock::new(T::default())
    }
}

impl<T> From<T> for RwLock<T> {
    #[track_caller]
    fn from(value: T) -> RwLock<T> {
        RwLock::new(value)
    }
}
