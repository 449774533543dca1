//! Ending a tasklet from outside: kill, and errors thrown into its calls.
//!
//! - A kill is raised once, as an unwind out of the call in which the victim makes way. From then on no call of it
//!   waits: destructors that run meanwhile cannot be held up, so a kill ends.
//! - The victim runs at once and the killer next, with nobody in between.
//! - One that never started has no stack to unwind: its closure is dropped by the killer.
//! - Nothing is suspended while it unwinds. A killer that unwinds, or was killed itself, marks its victim and goes on.

use std::{any::Any, panic::resume_unwind};

use crate::{
    error::{JoinError, Refused, TaskletError, Thrown},
    report::Who,
    scheduler::{Scheduler, Status},
    table::{Flags, Key, State, Wake},
    wake::{TaskletId, Ticket, Waiting},
};

/// Refused calls after which a tasklet that caught its kill lets others run.
const PATIENCE: u32 = 1000;

/// What unwinds a killed tasklet.
struct Killed;

/// Whether `payload` is a kill and not a panic.
pub(crate) fn is_kill(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Killed>()
}

/// When a kill or an error reaches its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    Now,
    /// At the target's next turn.
    Later,
}

impl Scheduler {
    /// Ends a tasklet.
    pub(crate) fn kill(
        &self,
        key: Key,
        when: When,
        who: impl Fn() -> Who,
    ) -> Result<(), TaskletError> {
        if key.id == TaskletId::MAIN {
            return Err(TaskletError::Main(who()));
        }
        let status = self.status(key);
        if status == Status::Dead {
            return Ok(());
        }
        if status == Status::Current {
            self.mark_killed(key, Flags::KILLED);
            if !std::thread::panicking() {
                resume_unwind(Box::new(Killed));
            }
            return Ok(());
        }
        if when == When::Now && self.core.borrow().tasks[key.index as usize].job.is_some() {
            self.kill_unstarted(key);
            return Ok(());
        }
        let refused = match when {
            When::Now => self.check_switch().err(),
            When::Later => None,
        };
        if let Some(refused @ Refused::NoSwitch(_)) = refused {
            return Err(TaskletError::Refused(who(), refused));
        }
        self.mark_killed(key, Flags::KILLED.with(Flags::UNWIND));
        if when == When::Later || refused.is_some() {
            self.make_runnable(key);
            return if refused.is_some() { Err(TaskletError::Pending(who())) } else { Ok(()) };
        }
        self.run_next(key, Wake::Unparked);
        self.leave();
        match self.status(key) {
            Status::Dead => Ok(()),
            _ => Err(TaskletError::StillAlive(who())),
        }
    }

    /// Makes the call in which a tasklet waits return `error`.
    pub(crate) fn throw(
        &self,
        key: Key,
        error: Thrown,
        when: When,
        who: impl Fn() -> Who,
    ) -> Result<(), TaskletError> {
        let state = match self.status(key) {
            Status::Dead => return Err(TaskletError::Dead(who())),
            _ => self.core.borrow().tasks[key.index as usize].state,
        };
        let State::Parked(sequence) = state else {
            return Err(TaskletError::CannotThrow(who()));
        };
        if matches!(
            self.core.borrow().tasks[key.index as usize].waiting,
            Waiting::Sleep | Waiting::Insert
        ) {
            return Err(TaskletError::CannotThrow(who()));
        }
        match when {
            When::Later => {
                let ticket = Ticket { index: key.index, sequence };
                self.core.borrow_mut().interrupt(ticket, Wake::Thrown(error));
            }
            When::Now => {
                self.check_switch().map_err(|refused| TaskletError::Refused(who(), refused))?;
                self.run_next(key, Wake::Thrown(error));
                self.leave();
            }
        }
        Ok(())
    }

    /// Unwinds the tasklet that runs, which was killed while it waited.
    #[cold]
    pub(crate) fn unwind(&self) {
        let mut core = self.core.borrow_mut();
        let current = core.current as usize;
        let flags = core.tasks[current].flags.without(Flags::UNWIND);
        core.tasks[current].flags = flags;
        drop(core);
        self.flags.set(flags);
        resume_unwind(Box::new(Killed));
    }

    /// Why the tasklet that runs may not wait. One that caught its kill and goes on asking lets others run now and
    /// then, so that it stops nobody.
    #[cold]
    pub(crate) fn refuse(&self) -> Refused {
        if self.flags.get().any(Flags::ENDED) {
            return Refused::ThreadEnded;
        }
        if std::thread::panicking() {
            return Refused::Unwinding;
        }
        let mut core = self.core.borrow_mut();
        let current = core.current as usize;
        core.tasks[current].refusals += 1;
        if core.tasks[current].refusals.is_multiple_of(PATIENCE)
            && !self.flags.get().any(Flags::NO_SWITCH)
        {
            core.enqueue_current();
            drop(core);
            self.leave();
        }
        Refused::Killed
    }

    fn mark_killed(&self, key: Key, flags: Flags) {
        let mut core = self.core.borrow_mut();
        let task = &mut core.tasks[key.index as usize];
        // One that was killed before is not raised at twice.
        let already = task.flags.any(Flags::KILLED);
        task.flags = task.flags.with(if already { Flags::KILLED } else { flags });
        if key.index == core.current {
            self.flags.set(core.tasks[key.index as usize].flags);
        }
    }

    fn kill_unstarted(&self, key: Key) {
        let mut core = self.core.borrow_mut();
        core.take_out(key.index, Wake::Unparked);
        let task = core.tasks.remove(key.index as usize);
        core.totals.finished += 1;
        drop(core);
        let job = task.job.expect("only one that has not started is ended here");
        job.refuse(JoinError::Killed);
        job.drop_closure();
    }

    /// Makes `key`'s tasklet next, whatever it does, and the caller the one after it.
    fn run_next(&self, key: Key, wake: Wake) {
        let mut core = self.core.borrow_mut();
        core.take_out(key.index, wake);
        let current = core.current;
        core.enqueue_front(current);
        core.enqueue_front(key.index);
    }

    /// Puts `key`'s tasklet at the tail, unless it is in the queue already.
    fn make_runnable(&self, key: Key) {
        let mut core = self.core.borrow_mut();
        let state = core.tasks[key.index as usize].state;
        if !matches!(state, State::Queued(_) | State::Starved) {
            core.take_out(key.index, Wake::Unparked);
            core.enqueue(key.index);
        }
    }
}
