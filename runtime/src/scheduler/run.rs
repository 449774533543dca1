//! `run`, and panics that nobody holds a handle for, which end in it.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
};

use super::{OnReturn, Payload, Scheduler, drop_quietly};
use crate::{
    state::Summary,
    table::{Flags, Job, MAIN, State, Wake},
    wake::Ticket,
};

impl Scheduler {
    /// Sends a panic that nobody holds a handle for to the scope of the tasklet that runs, else to the innermost `run`, or
    /// to main, which runs next.
    pub(crate) fn raise(&self, payload: Payload) {
        let mut core = self.core.borrow_mut();
        let current = core.current as usize;
        if let Some(member) = core.tasks[current].member {
            drop(core);
            return self.fail_scope(member, payload);
        }
        let target = core.runners.last().copied().unwrap_or(MAIN);
        // Whoever gets it runs before anyone else can panic, unless it is the panic of an observer or a killer.
        let unread = core.raised.replace((target, payload));
        core.totals.unread_panics += usize::from(unread.is_some());
        match core.stands[target as usize].state {
            State::Queued(position) => core.rotate_to(position),
            State::Parked(sequence) => {
                core.unpark(Ticket { index: target, sequence }, Wake::Unparked);
                core.enqueue_front(target);
            }
            State::Paused => core.enqueue_front(target),
            State::Running | State::Starved => {
                unreachable!("a tasklet that ends is not its own target")
            }
        }
        drop(core);
        // Its destructor is the user's, and whoever raises may have no way to unwind.
        drop_quietly(unread);
    }

    /// As [`raise`](Self::raise), from a tasklet that goes on; raises it here when it is for the caller.
    pub(crate) fn raise_now(&self, payload: Payload) {
        let is_for_caller = {
            let core = self.core.borrow();
            core.runners.last().copied().unwrap_or(MAIN) == core.current
        };
        if is_for_caller {
            resume_unwind(payload);
        }
        self.raise(payload);
    }

    /// Counts a panic that its holder never read.
    pub(crate) fn panic_was_not_read(&self) {
        self.core.borrow_mut().totals.unread_panics += 1;
    }

    /// Runs until nothing can run and nothing outside can wake anyone.
    pub(crate) fn run(&self) -> Summary {
        if self.check().is_err() {
            return Summary::default();
        }
        let (me, before) = {
            let mut core = self.core.borrow_mut();
            self.settle_in(&mut core);
            (core.current, core.totals)
        };
        if self.core.borrow().has_work() {
            if let Err(guard) = self.check_switch() {
                panic!("run: {guard}");
            }
            {
                let mut core = self.core.borrow_mut();
                core.pause_current();
                core.runners.push(me);
            }
            let _innermost = OnReturn(|| self.leave_run(me));
            self.leave();
            self.raise_strike();
            self.raise_here();
        } else {
            // A panic may have been sent here while another went out.
            self.raise_here();
        }
        self.core.borrow().summary(before)
    }

    /// Takes `me` off the list of runners. A panic that was sent to it while it was being killed goes to the next.
    fn leave_run(&self, me: u32) {
        let mut core = self.core.borrow_mut();
        core.leave_run(me);
        // Main is never killed: what is raised in it stays for it, whatever road it leaves by.
        let raised = core.raised.take_if(|(target, _)| *target == me && me != MAIN);
        drop(core);
        if let Some((_, payload)) = raised {
            self.raise(payload);
        }
    }

    /// Raises the panic that was sent to the tasklet that runs, and drops what jobs that never ran left.
    pub(super) fn raise_here(&self) {
        let mut core = self.core.borrow_mut();
        let me = core.current;
        let raised = core.raised.take_if(|(target, _)| *target == me);
        let leftovers = mem::take(&mut core.leftovers);
        drop(core);
        if !leftovers.is_empty() {
            let dropped = catch_unwind(AssertUnwindSafe(|| self.drop_leftovers(leftovers)));
            if let Err(payload) = dropped {
                // One after the other: what was sent here is raised next.
                let mut core = self.core.borrow_mut();
                core.raised = core.raised.take().or(raised);
                drop(core);
                resume_unwind(payload);
            }
        }
        if let Some((_, payload)) = raised {
            resume_unwind(payload);
        }
    }

    /// They are of different tasklets: what one of them raises must not meet what the next one does.
    fn drop_one_by_one(&self, leftovers: Vec<Rc<dyn Job>>) {
        let mut leftovers = leftovers.into_iter();
        while let Some(job) = leftovers.next() {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(job))) {
                drop(self.core.borrow_mut().leftovers.splice(..0, leftovers));
                resume_unwind(payload);
            }
        }
    }

    /// Drops closures that never ran. They may wait, while how the caller's own wait ended is not known to it yet.
    pub(super) fn drop_leftovers(&self, leftovers: Vec<Rc<dyn Job>>) {
        let me = self.core.borrow().current;
        let late = self.flags.get().any(Flags::LATE);
        let wake = self.core.borrow_mut().take_own_wake();
        self.put_off_unwinding(|| self.drop_one_by_one(leftovers));
        let mut core = self.core.borrow_mut();
        if let Some(wake) = wake.filter(|_| core.tasks.contains(me as usize)) {
            core.set_wake(me, wake);
            let stand = &mut core.stands[me as usize];
            stand.flags = stand.flags.set(Flags::LATE, late);
            self.flags.set(stand.flags);
        }
    }
}
