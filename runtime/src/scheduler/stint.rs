//! The stint: how much may be done without waiting before the loop looks outside.
//!
//! - One stint for all tasklets of the thread. It begins anew whenever the loop looks outside, which it does by itself as
//!   long as somebody waits or switches now and then; so it is used up only by those who do neither.
//! - Whoever finds it used up makes way *before* it does anything: what ends it there takes nothing that it has in hand.

use super::Scheduler;

/// How much there is in a stint.
pub(crate) const STINT: u32 = 128;

impl Scheduler {
    #[inline]
    pub(crate) fn is_spent(&self) -> bool {
        self.stint.get() == 0
    }

    #[inline]
    pub(crate) fn spend(&self, units: u32) {
        self.stint.set(self.stint.get().saturating_sub(units));
    }

    /// Has the loop look outside and lets everyone else who can run have a turn, also those who can run only since then.
    #[cold]
    #[inline(never)]
    pub(crate) fn make_way(&self) {
        if self.check_switch().is_err() {
            return;
        }
        let was_alone = self.core.borrow().queue.is_empty();
        self.look_again();
        // Those who were woken have come behind it.
        if was_alone && !self.core.borrow().queue.is_empty() && self.check_switch().is_ok() {
            self.core.borrow_mut().enqueue_current();
            self.leave();
        }
    }

    /// Goes to the tail, and has the loop look outside before anyone's turn.
    fn look_again(&self) {
        {
            let mut core = self.core.borrow_mut();
            if core.tasks.is_empty() {
                // Nothing was ever asked of this thread's scheduler: there is nobody to make way for.
                return self.stint.set(STINT);
            }
            core.turns_left = 0;
            core.enqueue_current();
        }
        self.leave();
    }
}
