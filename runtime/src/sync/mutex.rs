//! A value for one tasklet at a time.
//!
//! - While it is unlocked nobody is in line: unlocking hands it to the first, who is its owner from then on, before it
//!   has run.
//! - The value is borrowed exactly while a guard lives.

use std::{
    cell::{Cell, RefCell, RefMut},
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

/// Keeps a value that one tasklet at a time may use, also while it waits for something else.
///
/// It goes to those who wait in the order of their coming. A guard may be dropped while its tasklet unwinds: there is
/// no poisoning. The tasklet that locked it stays its [`owner`](Mutex::owner) when the guard is moved to another, which
/// then unlocks it.
///
/// ```
/// # use pila_runtime as pila;
/// use std::{rc::Rc, time::Duration};
/// use pila::sync::Mutex;
///
/// let log = Rc::new(Mutex::new(Vec::new()));
/// for name in ["first", "second"] {
///     let log = log.clone();
///     pila::tasklet(move || {
///         let mut log = log.lock().unwrap();
///         log.push(name);
///         pila::sleep(Duration::from_millis(1));
///         log.push(name);
///     });
/// }
/// pila::run();
/// assert_eq!(*log.lock().unwrap(), ["first", "first", "second", "second"]);
/// ```
pub struct Mutex<T: ?Sized> {
    lock: Lock,
    value: RefCell<T>,
}

/// A mutex but for its value.
struct Lock {
    /// Those who wait, each with its own key: the next owner's.
    line: Line<Key>,
    owner: Cell<Option<Key>>,
}

impl<T> Mutex<T> {
    /// An unlocked mutex.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let mutex = pila::sync::Mutex::new(7);
    /// assert_eq!(*mutex.try_lock()?, 7);
    /// # Ok::<(), pila::sync::LockError>(())
    /// ```
    #[must_use]
    #[track_caller]
    pub fn new(value: T) -> Mutex<T> {
        let line = Line::new(LockKind::Mutex, Location::caller());
        Mutex { lock: Lock { line, owner: Cell::new(None) }, value: RefCell::new(value) }
    }

    /// The value, when nobody needs the mutex any more.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// assert_eq!(pila::sync::Mutex::new(7).into_inner(), 7);
    /// ```
    #[must_use]
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Locks it, waiting for those who came before.
    ///
    /// # Errors
    /// [`LockError::AlreadyLocked`] when the caller has locked it itself; [`LockError::Deadlock`] when nobody could
    /// ever unlock it; [`LockError::Refused`] when it is locked and the caller may not wait; [`LockError::Thrown`].
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let mutex = pila::sync::Mutex::new(0);
    /// *mutex.lock()? += 1;
    /// assert_eq!(*mutex.lock()?, 1);
    /// # Ok::<(), pila::sync::LockError>(())
    /// ```
    #[doc(alias = "acquire")]
    pub fn lock(&self) -> Result<MutexGuard<'_, T>, LockError> {
        self.lock_with(Patience::Endless)
    }

    /// Locks it if it is unlocked. Never waits.
    ///
    /// # Errors
    /// As [`lock`](Mutex::lock), and [`LockError::Timeout`] when another tasklet has locked it.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let mutex = pila::sync::Mutex::new(());
    /// let guard = mutex.try_lock()?;
    /// assert!(mutex.try_lock().is_err());
    /// # Ok::<(), pila::sync::LockError>(())
    /// ```
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T>, LockError> {
        self.lock_with(Patience::None)
    }

    /// As [`lock`](Mutex::lock), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As [`lock`](Mutex::lock), and [`LockError::Timeout`] when the time is up.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use std::{rc::Rc, time::Duration};
    /// use pila::sync::{LockError, Mutex};
    ///
    /// let mutex = Rc::new(Mutex::new(()));
    /// let _guard = mutex.lock()?;
    /// let theirs = mutex.clone();
    /// let other = pila::tasklet(move || theirs.lock_timeout(Duration::from_millis(1)).map(drop));
    /// assert!(matches!(other.join().unwrap(), Err(LockError::Timeout)));
    /// # Ok::<(), LockError>(())
    /// ```
    pub fn lock_timeout(&self, timeout: Duration) -> Result<MutexGuard<'_, T>, LockError> {
        self.lock_with(Patience::For(timeout))
    }

    /// The value, which nobody else can be using.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let mut mutex = pila::sync::Mutex::new(1);
    /// *mutex.get_mut() += 1;
    /// assert_eq!(mutex.into_inner(), 2);
    /// ```
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Whether it is locked.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let mutex = pila::sync::Mutex::new(());
    /// let guard = mutex.lock().unwrap();
    /// assert!(mutex.is_locked());
    /// drop(guard);
    /// assert!(!mutex.is_locked());
    /// ```
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.lock.owner.get().is_some()
    }

    /// The tasklet that has locked it: from the moment it was its turn, and until the guard is dropped by whomever.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let mutex = pila::sync::Mutex::new(());
    /// assert!(mutex.owner().is_none());
    /// let guard = mutex.lock().unwrap();
    /// assert!(mutex.owner().unwrap().is_current());
    /// ```
    #[must_use]
    pub fn owner(&self) -> Option<Handle> {
        self.lock.owner.get().map(Handle::of_key)
    }

    fn lock_with(&self, patience: Patience) -> Result<MutexGuard<'_, T>, LockError> {
        with(|scheduler| self.lock.acquire(scheduler, patience))?;
        let hold = Hold(&self.lock);
        Ok(MutexGuard { value: self.value.borrow_mut(), mutex: self, _hold: hold })
    }
}

impl Lock {
    fn acquire(&self, scheduler: &Scheduler, patience: Patience) -> Result<(), LockError> {
        let me = scheduler.core.borrow().current_key();
        let Some(owner) = self.owner.get() else {
            self.owner.set(Some(me));
            return Ok(());
        };
        if owner == me {
            let who = Handle::of_key(me).who();
            return Err(LockError::AlreadyLocked { who, lock: self.line.id() });
        }
        line::wait(self, scheduler, me, patience, || ())?;
        Ok(())
    }

    fn release(&self, scheduler: &Scheduler) {
        self.owner.set(self.line.serve(scheduler));
        if self.owner.get().is_some() {
            self.note_holder(scheduler);
        }
    }
}

impl Awaited for Lock {
    type Want = Key;

    fn line(&self) -> &Line<Key> {
        &self.line
    }

    fn waiting(&self, _: Key) -> Waiting {
        Waiting::Lock(self.line.id())
    }

    fn left(&self, scheduler: &Scheduler, _: Key, turn: Turn) {
        match turn {
            Turn::Unused => self.release(scheduler),
            Turn::NotCome => {}
        }
    }

    fn note_holder(&self, scheduler: &Scheduler) {
        self.line.note_holder(scheduler, self.owner.get());
    }
}

/// Unlocks when dropped.
struct Hold<'a>(&'a Lock);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        with(|scheduler| self.0.release(scheduler));
    }
}

/// The use of a mutex's value. Dropping it unlocks the mutex, and never switches.
///
/// ```
/// # use pila_runtime as pila;
/// let mutex = pila::sync::Mutex::new(vec![1]);
/// let mut guard = mutex.lock()?;
/// guard.push(2);
/// assert_eq!(guard.len(), 2);
/// # Ok::<(), pila::sync::LockError>(())
/// ```
#[must_use = "the mutex is unlocked as soon as the guard is dropped"]
pub struct MutexGuard<'a, T: ?Sized> {
    // Before `_hold`: who comes next finds the value free.
    value: RefMut<'a, T>,
    mutex: &'a Mutex<T>,
    _hold: Hold<'a>,
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    pub(super) fn mutex(&self) -> &'a Mutex<T> {
        self.mutex
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut mutex = f.debug_struct("Mutex");
        match self.value.try_borrow() {
            Ok(value) => mutex.field("value", &&*value),
            Err(_) => mutex.field("value", &format_args!("<locked>")),
        };
        mutex.field("owner", &self.owner()).finish()
    }
}

impl<T: Default> Default for Mutex<T> {
    #[track_caller]
    fn default() -> Mutex<T> {
        Mutex::new(T::default())
    }
}

impl<T> From<T> for Mutex<T> {
    #[track_caller]
    fn from(value: T) -> Mutex<T> {
        Mutex::new(value)
    }
}
