//! A place where a number of tasklets meet before any of them goes on.
//!
//! - One that leaves before all are there breaks the barrier: the others would wait for it in vain.
//! - Nobody waits at a broken barrier.

use std::{cell::Cell, fmt, panic::Location, time::Duration};

use crate::{
    current::with,
    scheduler::Scheduler,
    sync::{
        error::BarrierError,
        line::{self, Awaited, Line, Patience, Turn},
    },
    wake::{LockKind, Waiting},
};

/// Makes tasklets wait for one another: all go on when the last has come. It can be used again and again.
///
/// When one that waits is killed, has an error thrown into it or waits no longer than a timeout, the barrier is broken
/// for all until it is [`reset`](Barrier::reset), as Python's `threading.Barrier`.
///
/// ```
/// # use pila_runtime as pila;
/// use std::rc::Rc;
/// use pila::sync::Barrier;
///
/// let barrier = Rc::new(Barrier::new(3));
/// for _ in 0..2 {
///     let barrier = barrier.clone();
///     pila::tasklet(move || barrier.wait());
/// }
/// pila::schedule();
/// assert!(barrier.wait()?.is_leader());
/// # Ok::<(), pila::sync::BarrierError>(())
/// ```
pub struct Barrier {
    /// Those who have come, each with a place for how it went.
    line: Line<Meeting>,
    parties: usize,
    /// How many have come and not left, those included whose wait is over but who do not know yet.
    arrived: Cell<usize>,
    is_broken: Cell<bool>,
    /// Counts meetings, held or not: one that learns late that its wait is over breaks none but its own.
    meeting: Cell<u64>,
}

/// How a meeting went, for one that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Meeting {
    /// The one of this number.
    Awaited(u64),
    Held,
    Broken,
}

impl Barrier {
    /// A barrier at which `parties` tasklets meet. With none or one, nobody waits.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::sync::Barrier;
    ///
    /// assert!(Barrier::new(0).wait()?.is_leader());
    /// assert!(Barrier::new(2).wait().is_err()); // alone: a deadlock
    /// # Ok::<(), pila::sync::BarrierError>(())
    /// ```
    #[must_use]
    #[track_caller]
    pub fn new(parties: usize) -> Barrier {
        let line = Line::new(LockKind::Barrier, Location::caller());
        let (arrived, is_broken, meeting) = (Cell::new(0), Cell::new(false), Cell::new(0));
        Barrier { line, parties, arrived, is_broken, meeting }
    }

    /// Waits until all have come. The last does not wait, and is the leader.
    ///
    /// # Errors
    /// [`BarrierError::Broken`] when the barrier is broken, or breaks meanwhile; [`BarrierError::Deadlock`] when nobody
    /// is left who could come and [`BarrierError::Thrown`], both of which break it; [`BarrierError::Refused`] when it
    /// would have to wait and may not.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// assert!(pila::sync::Barrier::new(1).wait()?.is_leader());
    /// # Ok::<(), pila::sync::BarrierError>(())
    /// ```
    pub fn wait(&self) -> Result<BarrierWaitResult, BarrierError> {
        with(|scheduler| self.wait_with(scheduler, Patience::Endless))
    }

    /// As [`wait`](Barrier::wait), but waits no longer than `timeout`, and then breaks the barrier.
    ///
    /// # Errors
    /// As [`wait`](Barrier::wait), and [`BarrierError::Timeout`] when the time is up.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::sync::{Barrier, BarrierError};
    ///
    /// let barrier = Barrier::new(2);
    /// let alone = barrier.wait_timeout(std::time::Duration::from_millis(1));
    /// assert!(matches!(alone, Err(BarrierError::Timeout)));
    /// assert!(barrier.is_broken());
    /// ```
    pub fn wait_timeout(&self, timeout: Duration) -> Result<BarrierWaitResult, BarrierError> {
        with(|scheduler| self.wait_with(scheduler, Patience::For(timeout)))
    }

    /// Breaks it: all who wait and all who come get [`BarrierError::Broken`].
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let barrier = pila::sync::Barrier::new(2);
    /// barrier.abort();
    /// assert!(barrier.is_broken());
    /// ```
    pub fn abort(&self) {
        self.is_broken.set(true);
        self.dismiss(Meeting::Broken);
    }

    /// Makes it as new. Those who wait get [`BarrierError::Broken`].
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let barrier = pila::sync::Barrier::new(2);
    /// barrier.abort();
    /// barrier.reset();
    /// assert!(!barrier.is_broken());
    /// ```
    pub fn reset(&self) {
        self.dismiss(Meeting::Broken);
        self.is_broken.set(false);
    }

    /// Whether it is broken.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let barrier = pila::sync::Barrier::new(2);
    /// assert!(!barrier.is_broken());
    /// barrier.wait().unwrap_err(); // nobody else can come
    /// assert!(barrier.is_broken());
    /// ```
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.is_broken.get()
    }

    /// How many meet here.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// assert_eq!(pila::sync::Barrier::new(3).parties(), 3);
    /// ```
    #[must_use]
    pub fn parties(&self) -> usize {
        self.parties
    }

    /// How many wait.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// assert_eq!(pila::sync::Barrier::new(2).waiters(), 0);
    /// ```
    #[must_use]
    #[doc(alias = "n_waiting")]
    pub fn waiters(&self) -> usize {
        with(|scheduler| self.line.len(scheduler))
    }

    fn wait_with(
        &self,
        scheduler: &Scheduler,
        patience: Patience,
    ) -> Result<BarrierWaitResult, BarrierError> {
        if self.is_broken.get() {
            return Err(BarrierError::Broken);
        }
        if self.arrived.get() + 1 >= self.parties {
            return self.lead(scheduler);
        }
        let come = || self.arrived.set(self.arrived.get() + 1);
        let meeting = Meeting::Awaited(self.meeting.get());
        match line::wait(self, scheduler, meeting, patience, come)? {
            Meeting::Held => Ok(BarrierWaitResult { is_leader: false }),
            Meeting::Broken => Err(BarrierError::Broken),
            Meeting::Awaited(_) => unreachable!("one that is woken is told how it went"),
        }
    }

    /// The last has come.
    fn lead(&self, scheduler: &Scheduler) -> Result<BarrierWaitResult, BarrierError> {
        // One whose wait has just ended for another reason is not there any more, though it has not run yet.
        if self.line.len(scheduler) < self.arrived.get() {
            self.abort();
            return Err(BarrierError::Broken);
        }
        self.dismiss(Meeting::Held);
        Ok(BarrierWaitResult { is_leader: true })
    }

    fn dismiss(&self, meeting: Meeting) {
        self.arrived.set(0);
        self.meeting.set(self.meeting.get() + 1);
        with(|scheduler| while self.line.answer(scheduler, meeting) {});
    }
}

impl Awaited for Barrier {
    type Want = Meeting;

    fn line(&self) -> &Line<Meeting> {
        &self.line
    }

    fn waiting(&self, _: Meeting) -> Waiting {
        Waiting::Barrier(self.line.id())
    }

    fn left(&self, _: &Scheduler, meeting: Meeting, _: Turn) {
        if meeting == Meeting::Awaited(self.meeting.get()) {
            self.abort();
        }
    }
}

/// How a meeting at a barrier went, for one of those who met.
///
/// ```
/// # use pila_runtime as pila;
/// let met = pila::sync::Barrier::new(1).wait()?;
/// assert!(met.is_leader());
/// # Ok::<(), pila::sync::BarrierError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarrierWaitResult {
    is_leader: bool,
}

impl BarrierWaitResult {
    /// Whether it was the last to come: exactly one of those who met.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use std::rc::Rc;
    /// use pila::sync::Barrier;
    ///
    /// let barrier = Rc::new(Barrier::new(2));
    /// let theirs = barrier.clone();
    /// let first = pila::tasklet(move || theirs.wait().unwrap().is_leader());
    /// pila::schedule();
    /// assert!(barrier.wait().unwrap().is_leader());
    /// assert!(!first.join().unwrap());
    /// ```
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.is_leader
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut barrier = f.debug_struct("Barrier");
        barrier.field("parties", &self.parties).field("waiters", &self.waiters());
        barrier.field("is_broken", &self.is_broken.get()).finish()
    }
}
