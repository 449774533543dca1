//! Ending a tasklet, or a part of what it does, from outside: kill, limits that strike, and errors thrown into calls.
//!
//! - A kill or a strike is raised once, as an unwind out of the call in which the victim waits. From then on no call of it
//!   waits: destructors that run meanwhile cannot be held up, so an ending ends.
//! - The victim of a kill runs at once and the killer next, with nobody in between.
//! - One that never started has no stack to unwind: its closure is dropped by the killer.
//! - Nothing is suspended while it unwinds. A killer that unwinds, or is being ended itself, marks its victim and goes on.
//! - What a wait has brought is not thrown away by a strike: the victim goes on with it until its next call that may wait.

use std::{any::Any, panic::resume_unwind};

use crate::{
    error::{JoinError, Refused, TaskletError, Thrown},
    frame::FrameKey,
    report::Who,
    scheduler::{OnReturn, Payload, Scheduler, Status, drop_quietly},
    scopes::Member,
    table::{Flags, Key, State, Wake},
    wake::{TaskletId, Ticket, Waiting},
};

/// Refused calls after which a tasklet that caught its ending lets others run.
const PATIENCE: u32 = 1000;

/// What unwinds a killed tasklet.
struct Kill;

/// What unwinds a tasklet to the frame of this number.
struct Struck(u64);

/// What a tasklet that was killed ends with when nothing of it has to unwind.
pub(crate) fn kill_payload() -> Payload {
    Box::new(Kill)
}

/// Whether `payload` is a kill and not a panic.
pub(crate) fn is_kill(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Kill>()
}

/// Whether `payload` unwinds to a frame of pila.
pub(crate) fn is_strike(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Struck>()
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
        let is_unstarted = self.core.borrow().tasks[key.index as usize].job.is_some();
        if !is_unstarted && cfg!(panic = "abort") {
            return Err(TaskletError::CannotUnwind(who()));
        }
        if status == Status::Current {
            let unwinds = std::thread::panicking();
            // What it unwinds from now may be caught before it has ended.
            let news = if unwinds { Flags::RAISE } else { Flags::NONE };
            if !self.mark_killed(key, news) || unwinds {
                return Err(TaskletError::Pending(who()));
            }
            resume_unwind(Box::new(Kill));
        }
        if when == When::Now && is_unstarted {
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
        if !self.mark_killed(key, Flags::UNWIND) {
            return Err(TaskletError::Pending(who()));
        }
        if when == When::Later || refused.is_some() {
            self.make_runnable(key);
            return if refused.is_some() { Err(TaskletError::Pending(who())) } else { Ok(()) };
        }
        self.run_next(key, Wake::Unparked);
        self.has_ended_by_now(key, who)
    }

    fn has_ended_by_now(&self, key: Key, who: impl Fn() -> Who) -> Result<(), TaskletError> {
        let core = self.core.borrow();
        match core.find(key) {
            None => Ok(()),
            // It sees the tasklets of its scope ended first.
            Some(_) if core.waits_for_scope(key.index) => Err(TaskletError::Pending(who())),
            Some(_) => Err(TaskletError::StillAlive(who())),
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
            _ => self.core.borrow().stands[key.index as usize].state,
        };
        let State::Parked(sequence) = state else {
            return Err(TaskletError::CannotThrow(who()));
        };
        if matches!(
            self.core.borrow().tasks[key.index as usize].waiting,
            Waiting::Sleep | Waiting::Insert | Waiting::Scope | Waiting::Group
        ) {
            return Err(TaskletError::CannotThrow(who()));
        }
        match when {
            When::Later => {
                let ticket = Ticket { index: key.index, sequence };
                self.core.borrow_mut().interrupt(ticket, Wake::Thrown(Box::new(error)));
            }
            When::Now => {
                self.check_switch().map_err(|refused| TaskletError::Refused(who(), refused))?;
                self.run_next(key, Wake::Thrown(Box::new(error)));
            }
        }
        Ok(())
    }

    /// Unwinds the tasklet that runs, which is being ended: out of all it does when it was killed, else to the outermost
    /// limit that was struck.
    #[cold]
    pub(crate) fn unwind(&self) -> ! {
        let mut core = self.core.borrow_mut();
        let current = core.current as usize;
        let flags = core.stands[current].flags.without(Flags::UNWIND.with(Flags::RAISE));
        core.stands[current].flags = flags;
        let struck = core.frames.struck(core.tasks[current].frame);
        drop(core);
        self.flags.set(flags);
        match struck {
            Some((number, _)) if !flags.any(Flags::KILLED) => {
                resume_unwind(Box::new(Struck(number)))
            }
            _ => resume_unwind(Box::new(Kill)),
        }
    }

    /// Unwinds one that was struck while a call of its own had it paused.
    pub(crate) fn raise_strike(&self) {
        if self.flags.get().any(Flags::RAISE) {
            self.unwind();
        }
    }

    /// Why the tasklet that runs may not wait. Unwinds it instead, if it does not know yet that it is being ended.
    #[cold]
    pub(crate) fn refuse(&self) -> Refused {
        if self.flags.get().any(Flags::RAISE) && !std::thread::panicking() {
            self.unwind();
        }
        self.refusal()
    }

    /// Why the tasklet that runs may not wait. One that caught its ending and goes on asking lets others run now and
    /// then, so that it stops nobody.
    #[cold]
    pub(crate) fn refusal(&self) -> Refused {
        let flags = self.flags.get();
        if flags.any(Flags::ENDED) {
            return Refused::ThreadEnded;
        }
        let unwinds = std::thread::panicking();
        let mut core = self.core.borrow_mut();
        let current = core.current as usize;
        let struck = core.frames.struck(core.tasks[current].frame);
        let refused = match struck {
            _ if flags.any(Flags::KILLED) => Refused::Killed,
            Some((_, why)) => why,
            None => return Refused::Unwinding,
        };
        let refusals = &mut core.tasks[current].rare().refusals;
        *refusals += 1;
        if refusals.is_multiple_of(PATIENCE) && !unwinds && !flags.any(Flags::NO_SWITCH) {
            core.enqueue_current();
            drop(core);
            self.leave();
        }
        refused
    }

    /// Marks a tasklet as killed. False when a shield protects it: then it ends some time after that.
    fn mark_killed(&self, key: Key, news: Flags) -> bool {
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let (task, stand) = (&core.tasks[key.index as usize], &mut core.stands[key.index as usize]);
        // One that was killed before is not raised at twice.
        let already = stand.flags.any(Flags::DOOMED);
        stand.flags = stand.flags.with(Flags::DOOMED);
        let shielded = match already {
            true => core.frames.is_shielded(task.frame),
            false => core.frames.keep_kill(task.frame),
        };
        if !shielded {
            let news = if already { Flags::NONE } else { news };
            stand.flags = stand.flags.with(Flags::KILLED.with(news));
        }
        if key.index == core.current {
            self.flags.set(stand.flags);
        }
        !shielded
    }

    fn kill_unstarted(&self, key: Key) {
        let mut core = self.core.borrow_mut();
        core.take_out(key.index, Wake::Unparked);
        let task = core.remove(key.index);
        core.totals.finished += 1;
        drop(core);
        let job = task.job.expect("only one that has not started is ended here");
        job.refuse(JoinError::Killed);
        // The scope goes on only when nothing of the closure is left, whatever road its destructor takes.
        let _left = OnReturn(|| {
            if let Some(member) = task.member {
                self.core.borrow_mut().leave_scope(member);
            }
        });
        job.drop_closure();
    }

    /// Runs `key`'s tasklet, whatever it does, and then the caller, with nobody in between.
    fn run_next(&self, key: Key, wake: Wake) {
        let mut core = self.core.borrow_mut();
        core.take_out(key.index, wake);
        let current = core.current;
        core.enqueue_front(current);
        core.enqueue_front(key.index);
        core.killers += 1;
        drop(core);
        let _back = OnReturn(|| {
            let mut core = self.core.borrow_mut();
            core.killers = core.killers.saturating_sub(1);
            if core.killers == 0 {
                core.feed_starved();
            }
        });
        self.leave();
    }

    /// Puts `key`'s tasklet at the tail, unless it is in the queue already.
    fn make_runnable(&self, key: Key) {
        let mut core = self.core.borrow_mut();
        let state = core.stands[key.index as usize].state;
        if !matches!(state, State::Queued(_) | State::Starved) {
            core.take_out(key.index, Wake::Unparked);
            core.enqueue(key.index);
        }
    }

    /// Ends a tasklet of a scope that waits for its end, though the caller may be being ended itself. One that has been
    /// killed before, or is shielded, goes its own way.
    pub(crate) fn end_child(&self, key: Key) {
        let core = self.core.borrow();
        let Some(task) = core.find(key) else { return };
        let flags = core.stands[key.index as usize].flags;
        let (is_unstarted, is_doomed) = (task.job.is_some(), flags.any(Flags::DOOMED));
        drop(core);
        if is_unstarted {
            return self.kill_unstarted(key);
        }
        if self.mark_killed(key, Flags::UNWIND) && !is_doomed {
            self.run_next(key, Wake::Unparked);
        }
    }

    // Limits and shields.

    /// Begins a call of the tasklet that runs that can be ended with `why`, in time if there is a `deadline`. None when the
    /// thread has ended.
    pub(crate) fn begin_limit(&self, why: Refused, deadline: Option<u64>) -> Option<FrameKey> {
        if self.has_ended() {
            return None;
        }
        let mut core = self.core.borrow_mut();
        self.settle_in(&mut core);
        let core = &mut *core;
        core.next_sequence += 1;
        let ticket = Ticket { index: core.current, sequence: core.next_sequence };
        let timer = deadline.map(|deadline| core.timers.insert(deadline, ticket));
        let task = &mut core.tasks[core.current as usize];
        let key = core.frames.add_limit(task.frame, ticket.sequence, why, timer);
        task.frame = Some(key.place);
        Some(key)
    }

    /// Begins a call of the tasklet that runs during which nothing from outside of it ends it. None when the thread has
    /// ended.
    pub(crate) fn begin_shield(&self) -> Option<FrameKey> {
        if self.has_ended() {
            return None;
        }
        let mut core = self.core.borrow_mut();
        self.settle_in(&mut core);
        let core = &mut *core;
        core.next_sequence += 1;
        // A panic may have come before it could unwind.
        let raise = core.stands[core.current as usize].flags.any(Flags::RAISE.with(Flags::UNWIND));
        let task = &mut core.tasks[core.current as usize];
        let key = core.frames.add_shield(task.frame, core.next_sequence, raise);
        task.frame = Some(key.place);
        let current = core.current;
        self.flags.set(core.settle_flags(current));
        Some(key)
    }

    /// Ends the innermost of these calls.
    pub(crate) fn end_frame(&self, key: FrameKey) {
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let Some(task) = core.tasks.get_mut(core.current as usize) else { return };
        let ended = core.frames.end(task.frame, key);
        task.frame = ended.outer;
        let flags = &mut core.stands[core.current as usize].flags;
        if ended.raise {
            *flags = flags.with(Flags::RAISE);
        }
        if let Some(timer) = ended.timer {
            core.timers.cancel(timer);
        }
        if ended.was_shield || flags.any(Flags::STRUCK) {
            let current = core.current;
            self.flags.set(core.settle_flags(current));
        }
    }

    /// Whether `payload` is what unwinds to the frame of `key`.
    pub(crate) fn is_for(payload: &Payload, key: FrameKey) -> bool {
        payload.downcast_ref().is_some_and(|Struck(number)| *number == key.number)
    }

    /// Notes the panic of a scope's tasklet, which ends the scope.
    pub(crate) fn fail_scope(&self, member: Member, payload: Payload) {
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let scope = core.scopes.get(member.scope);
        let unread = match scope.panic {
            None => {
                scope.panic = Some(payload);
                None
            }
            Some(_) => Some(payload),
        };
        let (owner, frame) = (scope.owner, scope.frame);
        core.totals.unread_panics += usize::from(unread.is_some());
        core.strike(owner.index, frame.number);
        drop_quietly(unread);
    }
}
