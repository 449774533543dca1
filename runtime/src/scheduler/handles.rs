//! What handles ask about a tasklet and do to it without ending it.

use std::{panic::Location, sync::Arc};

use super::{Scheduler, Status};
use crate::{
    error::TaskletError,
    report::Who,
    state::{Caller, Core},
    table::{Flags, Key, State, Task},
    wake::TaskletId,
};

impl Scheduler {
    pub(crate) fn current(&self) -> (Key, Option<Arc<str>>) {
        let mut core = self.core.borrow_mut();
        if !self.has_ended() {
            self.settle_in(&mut core);
        }
        let task = core.tasks.get(core.current as usize);
        (core.current_key(), task.and_then(Task::name))
    }

    pub(crate) fn current_key(&self) -> Key {
        self.core.borrow().current_key()
    }

    pub(crate) fn run_count(&self) -> usize {
        let core = self.core.borrow();
        // The one that runs is in the ring; the loop asks nobody to count.
        core.queue.len() + 1
    }

    pub(crate) fn status(&self, key: Key) -> Status {
        let core = self.core.borrow();
        let Some(state) = core.state(key) else {
            // Main is there before the table is.
            return if key.id == TaskletId::MAIN { Status::Current } else { Status::Dead };
        };
        match state {
            State::Queued(_) | State::Starved => Status::Scheduled,
            State::Running => Status::Current,
            State::Parked(_) => Status::Blocked,
            State::Paused => Status::Paused,
        }
    }

    /// Puts a paused tasklet at the tail; one that is in the queue stays where it is.
    pub(crate) fn insert(&self, key: Key, who: impl FnOnce() -> Who) -> Result<(), TaskletError> {
        match self.status(key) {
            Status::Dead => Err(TaskletError::Dead(who())),
            Status::Blocked => Err(TaskletError::Blocked(who())),
            Status::Scheduled | Status::Current => Ok(()),
            Status::Paused => {
                self.core.borrow_mut().enqueue(key.index);
                Ok(())
            }
        }
    }

    /// Takes a tasklet out of the run queue.
    pub(crate) fn remove(&self, key: Key, who: impl FnOnce() -> Who) -> Result<(), TaskletError> {
        match self.status(key) {
            Status::Blocked => Err(TaskletError::Blocked(who())),
            Status::Current => Err(TaskletError::Current(who())),
            Status::Dead | Status::Paused => Ok(()),
            Status::Scheduled => {
                self.core.borrow_mut().pause(key.index);
                Ok(())
            }
        }
    }

    /// Whether blocking calls of `key`'s tasklet fail. False when it has ended.
    pub(crate) fn block_trap(&self, key: Key) -> bool {
        let core = self.core.borrow();
        let flags = core.stands.get(key.index as usize).map_or(Flags::NONE, |stand| stand.flags);
        core.find(key).is_some() && flags.any(Flags::BLOCK_TRAP)
    }

    /// False when the tasklet has ended.
    pub(crate) fn set_block_trap(&self, key: Key, trapped: bool) -> bool {
        let change = |flags: Flags| match trapped {
            true => flags.with(Flags::BLOCK_TRAP),
            false => flags.without(Flags::BLOCK_TRAP),
        };
        self.change_flags(key, change)
    }

    /// Begins a `no_switch` guard of the tasklet that runs.
    pub(crate) fn forbid_switches(&self, place: &'static Location<'static>) -> Key {
        let (key, _) = self.current();
        let changed = self.change_flags(key, |flags| flags.with(Flags::NO_SWITCH));
        if changed {
            let mut core = self.core.borrow_mut();
            let guards = &mut core.tasks[key.index as usize].rare().no_switch;
            *guards = Some(guards.map_or((place, 1), |(first, count)| (first, count + 1)));
        }
        key
    }

    /// Ends a `no_switch` guard of `key`'s tasklet.
    pub(crate) fn allow_switches(&self, key: Key) {
        let mut core = self.core.borrow_mut();
        if core.find(key).is_none() {
            return;
        }
        let rare = core.tasks[key.index as usize].rare();
        rare.no_switch =
            rare.no_switch.and_then(|(first, count)| Some((first, count.checked_sub(1)?)));
        if rare.no_switch.is_none_or(|(_, count)| count == 0) {
            rare.no_switch = None;
            drop(core);
            self.change_flags(key, |flags| flags.without(Flags::NO_SWITCH));
        }
    }

    /// Begins or ends to show every tasklet what `seen` stands for.
    pub(crate) fn observe(&self, seen: Flags, begin: bool, switched: fn(&Scheduler)) {
        if self.has_ended() {
            return;
        }
        self.switched.set(Some(switched));
        let mut core = self.core.borrow_mut();
        self.settle_in(&mut core);
        let change = |flags: Flags| if begin { flags.with(seen) } else { flags.without(seen) };
        core.seen = change(core.seen);
        let current = core.current as usize;
        for (index, stand) in core.stands.iter_mut().enumerate() {
            // A callback that sets another is not seen by it.
            if !(self.unseen.get() && index == current) {
                stand.flags = change(stand.flags);
            }
        }
        self.flags.set(core.stands[current].flags);
    }

    /// Lets the tasklet that runs go unseen, while a callback runs on it.
    pub(crate) fn pause_observers(&self) {
        self.unseen.set(true);
        let (key, _) = self.current();
        self.change_flags(key, |flags| flags.without(Flags::SEEN));
    }

    /// Ends what [`pause_observers`](Self::pause_observers) began.
    pub(crate) fn resume_observers(&self) {
        self.unseen.set(false);
        let (key, _) = self.current();
        let seen = self.core.borrow().seen;
        self.change_flags(key, |flags| flags.with(seen));
    }

    pub(super) fn change_flags(&self, key: Key, change: impl FnOnce(Flags) -> Flags) -> bool {
        let mut core = self.core.borrow_mut();
        if !self.has_ended() {
            self.settle_in(&mut core);
        }
        if core.find(key).is_none() {
            return false;
        }
        let flags = change(core.stands[key.index as usize].flags);
        core.stands[key.index as usize].flags = flags;
        if key.index == core.current {
            self.flags.set(flags);
        }
        true
    }

    /// Runs `key`'s tasklet now. What is between it and the caller in the ring is passed over.
    pub(crate) fn run_now(
        &self,
        key: Key,
        caller: Caller,
        who: impl Fn() -> Who,
    ) -> Result<(), TaskletError> {
        match self.status(key) {
            Status::Dead => return Err(TaskletError::Dead(who())),
            Status::Blocked => return Err(TaskletError::Blocked(who())),
            Status::Current => return Ok(()),
            Status::Scheduled | Status::Paused => {}
        }
        self.check_switch().map_err(|refused| TaskletError::Refused(who(), refused))?;
        {
            let mut core = self.core.borrow_mut();
            match core.stands[key.index as usize].state {
                State::Queued(position) => {
                    core.make_way(caller, Core::enqueue_current);
                    core.rotate_to(position);
                }
                State::Starved => core.make_way(caller, Core::enqueue_current),
                State::Paused | State::Parked(_) | State::Running => {
                    core.make_way(caller, |core| core.enqueue_front(core.current));
                    core.enqueue_front(key.index);
                }
            }
        }
        self.leave();
        if caller == Caller::Paused {
            // Whoever has put it back, somebody or a deadlock: its next pause has an end of its own.
            let wake = self.core.borrow_mut().take_own_wake();
            drop(wake);
            self.raise_strike();
        }
        Ok(())
    }
}
