//! What a thread does for those who look at it from outside: it joins the roster, and answers.

use std::sync::Arc;

use super::Scheduler;
use crate::{
    dump_signal, panic_hook,
    roster::{self, Member},
    stall, stall_signal,
};

impl Scheduler {
    /// When the thread first uses its scheduler.
    #[cold]
    pub(super) fn introduce(&self) {
        panic_hook::install();
        stall::watch_if_told_to();
        if roster::is_open() {
            self.join();
        }
    }

    /// Does what somebody outside wants of this thread.
    #[inline]
    pub(super) fn attend(&self) {
        if roster::is_open() {
            self.answer();
        }
    }

    /// Lets this thread be looked at.
    pub(crate) fn join(&self) -> Option<&Arc<Member>> {
        if self.has_ended() {
            return None;
        }
        Some(self.member.get_or_init(|| roster::join(stall_signal::thread_number())))
    }

    /// How this thread is known, if it has joined.
    pub(crate) fn member(&self) -> Option<&Arc<Member>> {
        self.member.get()
    }

    /// On the native stack.
    #[cold]
    fn answer(&self) {
        let Some(member) = self.join() else { return };
        if dump_signal::is_awaited() {
            member.can_be_asked(|| self.mailbox());
        }
        match member.take_wanted() {
            0 => {}
            wanted => dump_signal::answer(self, wanted),
        }
    }
}
