//! Which scheduler this thread has.
//!
//! - The scheduler lives in the thread's static storage and has no destructor, so a reference to it is good for as
//!   long as the thread runs code of the user, its thread-locals' destructors included. That alone makes it right
//!   for a call that switches to be made inside [`with`].
//! - One look-up a call: whoever has the scheduler passes it on.

use std::{fmt, mem::ManuallyDrop, time::Instant};

use crate::{
    driver::{AlreadyInstalled, Driver},
    scheduler::Scheduler,
    stack::Slot,
};

thread_local! {
    static SCHEDULER: ManuallyDrop<Scheduler> =
        const { ManuallyDrop::new(Scheduler::new(|| with(Scheduler::end), who_overflows)) };
}

/// Calls `f` with the scheduler of the calling thread.
#[inline(always)]
pub(crate) fn with<R>(f: impl FnOnce(&Scheduler) -> R) -> R {
    SCHEDULER.with(|scheduler| f(scheduler))
}

fn who_overflows(slot: &Slot, stack_pointer: Option<usize>, text: &mut dyn fmt::Write) -> bool {
    with(|scheduler| scheduler.who_overflows(slot, stack_pointer, text))
}

/// Gives the calling thread's scheduler `driver` in place of the one that every thread starts with.
///
/// # Errors
/// [`AlreadyInstalled`] when the thread has another one already, or is ending.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::driver::{self, AlreadyInstalled, VirtualClock};
///
/// driver::install(Box::new(VirtualClock::new()))?;
/// let again = driver::install(Box::new(VirtualClock::new()));
/// assert_eq!(again, Err(AlreadyInstalled));
/// # Ok::<(), AlreadyInstalled>(())
/// ```
pub fn install(driver: Box<dyn Driver>) -> Result<(), AlreadyInstalled> {
    with(|scheduler| scheduler.install(driver))
}

/// The time on the clock of the calling thread's driver, which is what deadlines are measured on.
///
/// ```
/// # use pila_runtime as pila;
/// use std::time::Duration;
///
/// let start = pila::driver::now();
/// pila::sleep(Duration::from_millis(1));
/// assert!(pila::driver::now() - start >= Duration::from_millis(1));
/// ```
#[must_use]
pub fn now() -> Instant {
    with(Scheduler::clock)
}
