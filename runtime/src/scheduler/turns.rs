//! How the tasklet that runs makes way: it yields, pauses, waits, hands over; and how those that wait are woken.
//!
//! - Whoever makes way first puts itself where it wants to be found, then leaves. Between the two nothing else happens.

use std::{mem, sync::Arc};

use super::{OnReturn, Scheduler, drop_quietly};
use crate::{
    current,
    error::{Interrupt, Refused},
    state::{Caller, Core},
    table::{Flags, Key, Wake},
    wake::{Ticket, Waiting},
};

/// A wait under way, of the tasklet that runs. When it unwinds, what ended it is dropped: it may carry a value of the user's,
/// which must not be left for the loop to drop.
#[derive(Debug)]
pub(crate) struct Wait(());

impl Wait {
    /// How it ended.
    #[inline(always)]
    pub(crate) fn end(self, scheduler: &Scheduler) -> Result<(), Interrupt> {
        mem::forget(self);
        match scheduler.flags.get().any(Flags::DISAPPOINTED.with(Flags::ENDED)) {
            true => scheduler.how_it_ended(),
            false => Ok(()),
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let wake = current::with(|scheduler| scheduler.core.borrow_mut().take_own_wake());
        drop_quietly(wake);
    }
}

impl Scheduler {
    /// How the wait ended that the tasklet that runs comes from.
    fn how_it_ended(&self) -> Result<(), Interrupt> {
        if self.flags.get().any(Flags::LATE) {
            return Err(Interrupt::Deadline);
        }
        match self.core.borrow_mut().take_own_wake() {
            Some(Wake::Unparked) => Ok(()),
            Some(Wake::Deadlock(report)) => Err(Interrupt::Deadlock(*report)),
            Some(Wake::Thrown(error)) => Err(Interrupt::Thrown(*error)),
            None => Err(Interrupt::Refused(Refused::ThreadEnded)),
        }
    }

    /// Lets everyone else in the ring have a turn.
    #[inline(always)]
    pub(crate) fn schedule(&self) {
        if self.goes_to_the_tail() {
            self.leave_to_chosen();
        }
    }

    /// Puts the one that runs at the tail, unless it has nobody to make way for or may not wait.
    // Not inlined: a call that has returned before the switch does not disturb the return-address predictor, and what
    // is left of `schedule` is small enough to be inlined all the way into the caller.
    #[inline(never)]
    pub(super) fn goes_to_the_tail(&self) -> bool {
        let against = Flags::ENDING.with(Flags::NO_SWITCH);
        if self.switch.is_inside() && !self.flags.get().any(against) && !std::thread::panicking() {
            let load = |context, flags| {
                self.flags.set(flags);
                self.switch.load(Some(context))
            };
            let is_done = self.core.borrow_mut().take_turns(load);
            match is_done {
                Some(false) => return true,
                Some(true) => return self.load_ahead(),
                None => {}
            }
        }
        self.goes_to_the_tail_with_care()
    }

    /// True, for its caller to give.
    #[inline(never)]
    fn load_ahead(&self) -> bool {
        self.core.borrow().load_stands_and_stacks();
        true
    }

    #[inline(never)]
    fn goes_to_the_tail_with_care(&self) -> bool {
        if self.check().is_err() {
            return false;
        }
        let mut core = self.core.borrow_mut();
        if core.queue.is_empty() {
            // Looking outside is a switch as well: whoever is woken runs first.
            if self.flags.get().any(Flags::NO_SWITCH) || !core.turn_is_over() {
                return false;
            }
            self.settle_in(&mut core);
        }
        if self.flags.get().any(Flags::NO_SWITCH) {
            drop(core);
            panic!("schedule: {}", self.no_switch_guard());
        }
        core.enqueue_current();
        if self.switch.is_inside() {
            self.choose_with(&mut core);
        }
        true
    }

    /// Leaves the run queue. On a deadlock, panics with the report.
    pub(crate) fn schedule_remove(&self) {
        match self.check_switch() {
            Ok(()) => {}
            Err(guard @ Refused::NoSwitch(_)) => panic!("schedule_remove: {guard}"),
            Err(_) => return,
        }
        {
            let mut core = self.core.borrow_mut();
            self.settle_in(&mut core);
            core.make_way(Caller::Paused, |_| {});
        }
        self.leave();
        let wake = self.core.borrow_mut().take_own_wake();
        self.raise_strike();
        if let Some(Wake::Deadlock(report)) = wake {
            panic!("the last runnable tasklet left the run queue while main is blocked: {report}");
        }
    }

    /// Hands out the ticket for a wait of the tasklet that runs.
    #[inline]
    pub(crate) fn begin(&self) -> Result<Ticket, Refused> {
        self.may_wait()?;
        Ok(self.ticket())
    }

    /// Whether a call may wait for another tasklet now.
    #[inline(always)]
    pub(crate) fn may_wait(&self) -> Result<(), Refused> {
        let against = Flags::ENDING.with(Flags::NO_SWITCH).with(Flags::BLOCK_TRAP);
        match self.flags.get().any(against) || std::thread::panicking() {
            true => self.asked_whether_it_may_wait(),
            false => Ok(()),
        }
    }

    #[cold]
    fn asked_whether_it_may_wait(&self) -> Result<(), Refused> {
        self.check_switch()?;
        self.may_block()
    }

    #[inline]
    pub(crate) fn ticket(&self) -> Ticket {
        self.next_ticket(&mut self.core.borrow_mut())
    }

    #[inline(always)]
    fn next_ticket(&self, core: &mut Core) -> Ticket {
        self.settle_in(core);
        core.next_sequence += 1;
        Ticket { index: core.current, sequence: core.next_sequence }
    }

    /// As [`begin`](Self::begin), for a wait that is not for another tasklet: the block trap does not mind it.
    pub(crate) fn begin_sleep(&self) -> Result<Ticket, Refused> {
        self.check_switch()?;
        Ok(self.ticket())
    }

    /// Whether a call may block, as far as the block trap is concerned.
    #[inline]
    pub(crate) fn may_block(&self) -> Result<(), Refused> {
        match self.flags.get().any(Flags::BLOCK_TRAP) {
            true => Err(Refused::BlockTrap),
            false => Ok(()),
        }
    }

    /// Whether a channel's operation has to look for what speaks against it, and for who watches.
    #[inline(always)]
    pub(crate) fn minds_channels(&self) -> bool {
        let reasons = Flags::ENDING.with(Flags::NO_SWITCH).with(Flags::BLOCK_TRAP);
        self.flags.get().any(reasons.with(Flags::CHANNELS_SEEN)) || std::thread::panicking()
    }

    #[inline]
    pub(crate) fn is_forbidden_to_switch(&self) -> bool {
        self.flags.get().any(Flags::NO_SWITCH)
    }

    /// Whether the wait of `ticket` goes on.
    pub(crate) fn is_parked(&self, ticket: Ticket) -> bool {
        self.core.borrow().is_parked(ticket)
    }

    /// Who waits with `ticket`.
    pub(crate) fn waiter(&self, ticket: Ticket) -> Option<(Key, Option<Arc<str>>)> {
        let core = self.core.borrow();
        let task = core.tasks.get(ticket.index as usize).filter(|_| core.is_parked(ticket))?;
        Some((Key { index: ticket.index, id: task.id }, task.name()))
    }

    /// Waits until `ticket` is used or `deadline`, in nanoseconds of the scheduler's clock, has passed.
    #[inline]
    pub(crate) fn wait(
        &self,
        ticket: Ticket,
        waiting: &Waiting,
        deadline: Option<u64>,
    ) -> Result<(), Interrupt> {
        let wait = self.begin_wait(ticket, waiting, deadline);
        self.leave_to_chosen();
        wait.end(self)
    }

    /// Begins to wait. The caller has to [`leave_to_chosen`](Self::leave_to_chosen), and then to end the wait.
    #[inline]
    pub(crate) fn begin_wait(
        &self,
        ticket: Ticket,
        waiting: &Waiting,
        deadline: Option<u64>,
    ) -> Wait {
        let mut core = self.core.borrow_mut();
        core.park(ticket, waiting, deadline);
        if self.switch.is_inside() {
            self.choose_with(&mut core);
        }
        Wait(())
    }

    /// As [`begin`](Self::begin) and [`begin_wait`](Self::begin_wait), for one that [may wait](Self::may_wait). Before it
    /// leaves, it puts the ticket where it is going to be used.
    #[inline(always)]
    pub(crate) fn begin_own_wait(&self, waiting: &Waiting) -> (Ticket, Wait) {
        let mut core = self.core.borrow_mut();
        let ticket = self.next_ticket(&mut core);
        core.park_current(ticket, waiting);
        if self.switch.is_inside() {
            self.choose_with(&mut core);
        }
        (ticket, Wait(()))
    }

    /// Wakes the wait of `ticket`: it goes to the tail. False when that wait is over.
    #[inline(always)]
    pub(crate) fn unpark(&self, ticket: Ticket) -> bool {
        let mut core = self.core.borrow_mut();
        if !core.unpark_well(ticket) {
            return false;
        }
        core.enqueue(ticket.index);
        true
    }

    /// Wakes the wait of `ticket` and makes it next, the caller last. False when that wait is over.
    ///
    /// When true, the caller has to [`leave_to_chosen`](Self::leave_to_chosen).
    #[inline(always)]
    pub(crate) fn hand_over(&self, ticket: Ticket) -> bool {
        let mut core = self.core.borrow_mut();
        if !core.unpark_well(ticket) {
            return false;
        }
        let me = core.current as usize;
        if self.switch.is_inside()
            && let Some((context, flags)) = core.next_is(ticket.index)
        {
            self.flags.set(flags);
            core.stands[me].context = self.switch.load(Some(context));
            return true;
        }
        self.put_at_the_front(&mut core, ticket.index);
        true
    }

    #[cold]
    fn put_at_the_front(&self, core: &mut Core, index: u32) {
        core.enqueue_front(index);
        core.enqueue_current();
        if self.switch.is_inside() {
            self.choose_with(core);
        }
    }

    /// Wakes the wait of `ticket` and puts it, then the caller, at the tail. False when that wait is over.
    ///
    /// When true, the caller has to [`leave_to_chosen`](Self::leave_to_chosen).
    #[inline(never)]
    pub(crate) fn schedule_all(&self, ticket: Ticket) -> bool {
        let mut core = self.core.borrow_mut();
        if !core.unpark_well(ticket) {
            return false;
        }
        core.enqueue(ticket.index);
        core.enqueue_current();
        if self.switch.is_inside() {
            self.choose_with(&mut core);
        }
        true
    }

    /// The first half of [`leave`](Self::leave): after it, only [`leave_to_chosen`](Self::leave_to_chosen) may follow.
    #[inline]
    pub(crate) fn prepare_to_leave(&self) {
        if self.switch.is_inside() {
            self.choose();
        }
    }

    /// Makes way. The caller has already put itself where it wants to be found.
    #[inline(always)]
    pub(crate) fn leave(&self) {
        self.prepare_to_leave();
        self.leave_to_chosen();
    }

    /// Makes way for the one that was chosen.
    #[inline(always)]
    pub(crate) fn leave_to_chosen(&self) {
        if !self.switch.leave() {
            self.leave_main();
        }
        if self.flags.get().any(Flags::UNWIND.with(Flags::SWITCHES_SEEN).with(Flags::TRACE)) {
            self.arrive();
        }
    }

    /// As [`arrive`](Self::arrive), for one that starts. True when it was killed before: nothing of it has to unwind, and
    /// its closure's destructors run as those of one that ends.
    #[cold]
    pub(crate) fn arrive_killed(&self) -> bool {
        let (key, _) = self.current();
        let killed = self.flags.get().any(Flags::UNWIND);
        self.change_flags(key, |flags| flags.without(Flags::UNWIND));
        self.arrive();
        killed
    }

    /// What the tasklet that has just been switched to does before it goes on.
    #[cold]
    pub(crate) fn arrive(&self) {
        self.show_calls();
        if let (true, Some(switched)) =
            (self.flags.get().any(Flags::SWITCHES_SEEN), self.switched.get())
        {
            self.put_off_unwinding(|| switched(self));
        }
        if self.flags.get().any(Flags::UNWIND) {
            self.unwind();
        }
    }

    /// Calls `f`, which is the user's, before the tasklet that runs has been told how its wait ended. What ends it is raised
    /// after that: raised within, it could be caught there, and the wait would seem to have ended well.
    pub(super) fn put_off_unwinding(&self, f: impl FnOnce()) {
        let (key, news) = (self.current_key(), Flags::UNWIND.with(Flags::RAISE));
        let put_off = self.flags.get().only(news);
        self.change_flags(key, |flags| flags.without(news));
        let _raised_later = OnReturn(|| {
            self.change_flags(key, |flags| flags.with(put_off));
        });
        f();
    }
}
