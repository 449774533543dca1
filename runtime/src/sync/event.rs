//! A flag to wait for.
//!
//! - Nobody waits while it is set. Who was woken by a `set` goes on, also when it was cleared again meanwhile.

use std::{cell::Cell, fmt, panic::Location, time::Duration};

use crate::{
    current::with,
    scheduler::Scheduler,
    sync::{
        error::WaitError,
        line::{self, Awaited, Line, Patience, Turn},
    },
    wake::{LockKind, Waiting},
};

/// Lets tasklets wait until something has happened, once or again.
///
/// ```
/// # use pila_runtime as pila;
/// use std::rc::Rc;
/// use pila::sync::Event;
///
/// let ready = Rc::new(Event::new());
/// let theirs = ready.clone();
/// pila::tasklet(move || theirs.set());
/// ready.wait()?;
/// ready.wait()?; // it stays set
/// # Ok::<(), pila::sync::WaitError>(())
/// ```
pub struct Event {
    line: Line<()>,
    is_set: Cell<bool>,
}

impl Event {
    /// An event that is not set.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// assert!(!pila::sync::Event::new().is_set());
    /// ```
    #[must_use]
    #[track_caller]
    pub fn new() -> Event {
        let line = Line::new(LockKind::Event, Location::caller());
        Event { line, is_set: Cell::new(false) }
    }

    /// Sets it and wakes all who wait. Does not switch.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let event = pila::sync::Event::new();
    /// event.set();
    /// assert!(event.is_set());
    /// ```
    pub fn set(&self) {
        self.is_set.set(true);
        with(|scheduler| while self.line.serve(scheduler).is_some() {});
    }

    /// Clears it: later calls wait again.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let event = pila::sync::Event::new();
    /// event.set();
    /// event.clear();
    /// assert!(!event.is_set());
    /// ```
    pub fn clear(&self) {
        self.is_set.set(false);
    }

    /// Whether it is set.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let event = pila::sync::Event::new();
    /// assert!(!event.is_set());
    /// event.set();
    /// assert!(event.is_set());
    /// ```
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.is_set.get()
    }

    /// Waits until it is set. Returns at once when it is.
    ///
    /// # Errors
    /// [`WaitError::Deadlock`] when nobody could ever set it; [`WaitError::Refused`] when it is not set and the caller
    /// may not wait; [`WaitError::Thrown`].
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let event = pila::sync::Event::new();
    /// assert!(event.wait().unwrap_err().to_string().contains("waits for event 1"));
    /// ```
    pub fn wait(&self) -> Result<(), WaitError> {
        self.wait_with(Patience::Endless).map(|set| debug_assert!(set))
    }

    /// As [`wait`](Event::wait), but no longer than `timeout`. False when the time was up.
    ///
    /// # Errors
    /// As [`wait`](Event::wait).
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let event = pila::sync::Event::new();
    /// assert!(!event.wait_timeout(std::time::Duration::from_millis(1))?);
    /// # Ok::<(), pila::sync::WaitError>(())
    /// ```
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool, WaitError> {
        self.wait_with(Patience::For(timeout))
    }

    fn wait_with(&self, patience: Patience) -> Result<bool, WaitError> {
        if self.is_set.get() {
            return Ok(true);
        }
        let woken = with(|scheduler| line::wait(self, scheduler, (), patience, || ()));
        match woken {
            Ok(()) => Ok(true),
            Err(interrupt) => WaitError::unless_timeout(interrupt).map(|()| false),
        }
    }
}

impl Awaited for Event {
    type Want = ();

    fn line(&self) -> &Line<()> {
        &self.line
    }

    fn waiting(&self, (): ()) -> Waiting {
        Waiting::Event(self.line.id())
    }

    // All were woken together: there is nothing to pass on.
    fn left(&self, _: &Scheduler, (): (), _: Turn) {}
}

impl Default for Event {
    #[track_caller]
    fn default() -> Event {
        Event::new()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut event = f.debug_struct("Event");
        event.field("is_set", &self.is_set.get());
        event.field("waiters", &with(|scheduler| self.line.len(scheduler))).finish()
    }
}
