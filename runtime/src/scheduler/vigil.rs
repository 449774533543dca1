//! Waits that nothing can end but clones of a waker.
//!
//! - The tasklet that waits has the waker itself too, or it would have to be made anew after each wait. So the last clone that
//!   others have goes unnoticed.
//! - That matters only when the loop is about to sleep and all who could wake up are in such waits. Then it lets their own
//!   wakers go. The last clone, which may be dropped there or later on any thread, wakes its tasklet, and that one finds
//!   out what its future waits for now; or that it waits for nothing, and then there may be a deadlock to tell.

use std::{mem, task::Waker};

use super::Scheduler;
use crate::{
    error::Interrupt,
    wake::{Ticket, Waiting},
};

/// One such wait.
struct Vigil<'a> {
    scheduler: &'a Scheduler,
    key: usize,
    /// Tells whether the place is still its own.
    number: u64,
}

impl Vigil<'_> {
    fn end(&self) -> Option<Waker> {
        let mut vigils = self.scheduler.vigils.borrow_mut();
        let is_own = vigils.get(self.key).is_some_and(|(number, _)| *number == self.number);
        is_own.then(|| vigils.remove(self.key).1)
    }
}

impl Drop for Vigil<'_> {
    fn drop(&mut self) {
        let count = &self.scheduler.vigil_count;
        count.set(count.get().saturating_sub(1));
        drop(self.end());
    }
}

impl Scheduler {
    /// As [`wait`](Self::wait), for what nothing can end but clones of `waker`. Gives it back, unless it was let go.
    pub(crate) fn wait_for_waker(
        &self,
        ticket: Ticket,
        waiting: &Waiting,
        waker: Waker,
    ) -> (Result<(), Interrupt>, Option<Waker>) {
        let key = self.vigils.borrow_mut().insert((ticket.sequence, waker));
        self.vigil_count.set(self.vigil_count.get() + 1);
        let vigil = Vigil { scheduler: self, key, number: ticket.sequence };
        let ended = self.wait(ticket, waiting, None);
        (ended, vigil.end())
    }

    /// Lets go of the wakers that tasklets of this thread keep for themselves, if clones of them are all that could end
    /// anybody's wait. Whether that has woken somebody.
    pub(super) fn let_go(&self) -> bool {
        let core = self.core.borrow();
        let is_all = core.outside == self.vigil_count.get() && core.timers.is_empty();
        drop(core);
        if !is_all || self.vigils.borrow().is_empty() {
            return false;
        }
        let vigils = mem::take(&mut *self.vigils.borrow_mut());
        drop(vigils);
        !self.core.borrow().queue.is_empty()
    }
}
