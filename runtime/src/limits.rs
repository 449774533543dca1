//! Calls that are ended when their time is up, and calls that nothing from outside ends.
//!
//! - A limit unwinds its tasklet to its own frame and nowhere else: a panic, a kill or an outer limit passes through.

use std::{
    panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind},
    time::Duration,
};

use crate::{
    current::with,
    error::{Elapsed, NO_UNWINDING, Refused},
    scheduler::{OnReturn, Scheduler},
};

/// Calls `f`, and ends it when `duration` has passed: it unwinds out of the call in which it waits then, its destructors
/// run, and this returns [`Elapsed`].
///
/// Every call that waits is covered: sockets, names, channels, locks, `join`, `sleep`, `offload`, and whatever is built
/// upon them. A call that has what it waited for is not undone: `f` goes on with it until its next call that may wait. One
/// that computes and never waits is not ended. From then on no call inside `f` waits any more: destructors cannot hold it
/// up, and one that catches the unwinding has every further call refused with [`Refused::Elapsed`], until this returns.
/// When `f` returns a value all the same, this gives the value.
///
/// As any unwinding, it aborts the process where it comes to an `extern "C"` frame: wait in a [`shield`] below one.
///
/// Timeouts nest: the earliest ends what is inside of it, and `Elapsed` says which one it was. A
/// [`shield`](crate::shield) inside `f` is not ended; a [`scope`](crate::scope()) inside ends its tasklets.
///
/// # Panics
/// In a program built with `panic = "abort"`, where nothing can be unwound.
///
/// ```
/// # use pila_runtime as pila;
/// use std::time::Duration;
///
/// let channel = pila::Channel::<u32>::new();
/// let late = pila::timeout(Duration::from_millis(5), || channel.receive());
/// assert_eq!(late.unwrap_err().limit(), Duration::from_millis(5));
///
/// let in_time = pila::timeout(Duration::from_secs(5), || 6 * 7);
/// assert_eq!(in_time, Ok(42));
/// ```
#[doc(alias = "deadline")]
#[track_caller]
pub fn timeout<T>(duration: Duration, f: impl FnOnce() -> T) -> Result<T, Elapsed> {
    if cfg!(panic = "abort") {
        panic!("timeout cannot end its closure: {NO_UNWINDING}");
    }
    let elapsed = Elapsed { limit: duration, place: Location::caller() };
    let frame = with(|scheduler| {
        let deadline = scheduler.deadline_in(duration);
        scheduler.begin_limit(Refused::Elapsed(elapsed), deadline)
    });
    let Some(frame) = frame else { return Ok(f()) };
    let result = catch_unwind(AssertUnwindSafe(f));
    with(|scheduler| scheduler.end_frame(frame));
    match result {
        Ok(value) => Ok(value),
        Err(payload) if Scheduler::is_for(&payload, frame) => Err(elapsed),
        Err(payload) => resume_unwind(payload),
    }
}

/// Calls `f`, during which neither a kill nor a [`timeout`] around it ends the tasklet: its calls wait as ever. For
/// clean-up that has to wait: to say goodbye to a peer, to give something back.
///
/// What came meanwhile is raised at the first call after `f` that may wait. A tasklet that caught its kill can wait in a
/// shield; one that unwinds cannot, for nothing waits while it unwinds. A timeout that is set inside `f` ends what is
/// inside of it.
///
/// ```
/// # use pila_runtime as pila;
/// use std::time::Duration;
/// use pila::{JoinError, TaskletError};
///
/// let tasklet = pila::tasklet(|| {
///     pila::shield(|| pila::sleep(Duration::from_millis(1)));
///     pila::sleep(Duration::MAX);
/// });
/// pila::schedule();
/// assert!(matches!(tasklet.kill(), Err(TaskletError::Pending(_))));
/// assert!(matches!(tasklet.join(), Err(JoinError::Killed)));
/// ```
pub fn shield<T>(f: impl FnOnce() -> T) -> T {
    let frame = with(Scheduler::begin_shield);
    let _ended = OnReturn(|| {
        if let Some(frame) = frame {
            with(|scheduler| scheduler.end_frame(frame));
        }
    });
    f()
}
