//! Notifications without a lock.
//!
//! - A notification is for those who wait when it is given; nothing is kept for later.

use std::{fmt, panic::Location, time::Duration};

use crate::{
    current::with,
    scheduler::Scheduler,
    sync::{
        error::WaitError,
        line::{self, Awaited, Line, Patience, Turn},
    },
    wake::{LockKind, Waiting},
};

/// Wakes those who wait for it, one or many, and remembers nothing: a condition variable without a mutex.
///
/// Between two waits a tasklet is alone on its thread, so it may look at what it shares with others, find that it has
/// to wait, and wait: no notification gets lost in between. With a mutex to give up meanwhile, use
/// [`Condvar`](super::Condvar).
///
/// Stacklesslib: `NLCondition`.
///
/// ```
/// # use pila_runtime as pila;
/// use std::{cell::Cell, rc::Rc};
/// use pila::sync::Signal;
///
/// let (jobs, signal) = (Rc::new(Cell::new(0)), Rc::new(Signal::new()));
/// let (their_jobs, theirs) = (jobs.clone(), signal.clone());
/// let worker = pila::tasklet(move || {
///     while their_jobs.get() == 0 {
///         theirs.wait().unwrap();
///     }
/// });
/// pila::schedule();
/// jobs.set(1);
/// signal.notify_one();
/// worker.join().unwrap();
/// ```
#[doc(alias = "NLCondition")]
pub struct Signal {
    line: Line<()>,
}

impl Signal {
    /// A signal for which nobody waits.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let signal = pila::sync::Signal::new();
    /// assert_eq!(signal.notify(usize::MAX), 0);
    /// assert!(signal.wait().is_err()); // nobody is left who could notify
    /// ```
    #[must_use]
    #[track_caller]
    pub fn new() -> Signal {
        Signal::of_kind(LockKind::Signal, Location::caller())
    }

    pub(super) fn of_kind(kind: LockKind, created: &'static Location<'static>) -> Signal {
        Signal { line: Line::new(kind, created) }
    }

    /// Waits for a notification. There are no spurious ones.
    ///
    /// # Errors
    /// [`WaitError::Deadlock`] when nobody could ever give one; [`WaitError::Refused`]; [`WaitError::Thrown`].
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let signal = std::rc::Rc::new(pila::sync::Signal::new());
    /// let theirs = signal.clone();
    /// pila::tasklet(move || theirs.notify_one());
    /// signal.wait()?;
    /// # Ok::<(), pila::sync::WaitError>(())
    /// ```
    pub fn wait(&self) -> Result<(), WaitError> {
        self.wait_with(Patience::Endless, || ()).map(|notified| debug_assert!(notified))
    }

    /// As [`wait`](Signal::wait), but no longer than `timeout`. False when the time was up.
    ///
    /// # Errors
    /// As [`wait`](Signal::wait).
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let signal = pila::sync::Signal::new();
    /// assert!(!signal.wait_timeout(std::time::Duration::from_millis(1))?);
    /// # Ok::<(), pila::sync::WaitError>(())
    /// ```
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool, WaitError> {
        self.wait_with(Patience::For(timeout), || ())
    }

    /// Wakes the first that waits, if there is one.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// pila::sync::Signal::new().notify_one();
    /// ```
    pub fn notify_one(&self) {
        self.notify(1);
    }

    /// Wakes all that wait.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// pila::sync::Signal::new().notify_all();
    /// ```
    pub fn notify_all(&self) {
        self.notify(usize::MAX);
    }

    /// Wakes the first `count` that wait, and says how many those were.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// assert_eq!(pila::sync::Signal::new().notify(3), 0);
    /// ```
    pub fn notify(&self, count: usize) -> usize {
        with(|scheduler| (0..count).take_while(|_| self.line.serve(scheduler).is_some()).count())
    }

    /// Waits, calling `before` when its place in line is sure. False when the time was up.
    pub(super) fn wait_with(
        &self,
        patience: Patience,
        before: impl FnOnce(),
    ) -> Result<bool, WaitError> {
        let woken = with(|scheduler| line::wait(self, scheduler, (), patience, before));
        match woken {
            Ok(()) => Ok(true),
            Err(interrupt) => WaitError::unless_timeout(interrupt).map(|()| false),
        }
    }
}

impl Awaited for Signal {
    type Want = ();

    fn line(&self) -> &Line<()> {
        &self.line
    }

    fn waiting(&self, (): ()) -> Waiting {
        Waiting::Notification(self.line.id())
    }

    fn left(&self, scheduler: &Scheduler, (): (), turn: Turn) {
        match turn {
            Turn::Unused => drop(self.line.serve(scheduler)),
            Turn::NotCome => {}
        }
    }
}

impl Default for Signal {
    #[track_caller]
    fn default() -> Signal {
        Signal::new()
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiters = with(|scheduler| self.line.len(scheduler));
        f.debug_struct("Signal").field("waiters", &waiters).finish()
    }
}
