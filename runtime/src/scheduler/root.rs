//! The root of a stack: what is first called on it, and returns last.
//!
//! - The stack of a tasklet that has ended goes to the next one in the queue without a switch, when that one has not started:
//!   it is the stack that the pool would have given it. So in a row of short tasklets each costs what a call does.

use std::rc::Rc;

use super::Scheduler;
use crate::{context::Entrance, current::with, table::Job};

/// Does `job`, then those of the tasklets that come to have this stack.
pub(crate) fn work(entrance: &Entrance<'_>, mut job: Rc<dyn Job>) {
    with(|scheduler| {
        scheduler.switch.arrive(entrance);
        loop {
            job.run();
            match scheduler.hand_stack_on() {
                Some(next) => job = next,
                None => return,
            }
        }
    });
}

impl Scheduler {
    /// Ends the tasklet that runs, which has done its job, and begins the next one on its stack. None when the loop has to
    /// do both.
    #[inline]
    fn hand_stack_on(&self) -> Option<Rc<dyn Job>> {
        let (job, owner, flags) = self.core.borrow_mut().relieve()?;
        self.flags.set(flags);
        self.switch.rename(owner);
        Some(job)
    }
}
