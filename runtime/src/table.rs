//! The table of tasklets: each one's state, and what to do at its turn.
//!
//! - Slot 0 is main's for as long as the table has anyone. A slot is reused; the [`TaskletId`] in it tells for whom.
//! - A tasklet is in the run queue exactly when its state says `Queued`, with its position there.
//! - What a switch touches of a tasklet is its [`Stand`], 32 bytes apart from the rest.

use std::{
    any::Any,
    collections::BTreeMap,
    panic::Location,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use slab::Slab;

use crate::{
    context::Context,
    error::{JoinError, Thrown},
    frame::Innermost,
    locals::{Found, Locals},
    report::{Occasion, Report, Waiter, Who},
    run_queue::Position,
    scopes::Member,
    stack::SizeClass,
    timer::TimerKey,
    wake::{TaskletId, Waiting},
};

/// The slot of main.
pub(crate) const MAIN: u32 = 0;

/// A tasklet's slot and its number, which says whether the slot is still its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) id: TaskletId,
}

/// Where a tasklet stands: all that a switch reads and writes.
#[derive(Debug)]
pub(crate) struct Stand {
    /// Where it goes on at its turn. The loop has it while the tasklet runs; main and what never started have none.
    pub(crate) context: Option<Context>,
    pub(crate) state: State,
    /// What its calls have to mind.
    pub(crate) flags: Flags,
    /// The size of stack it gets when it starts.
    pub(crate) class: SizeClass,
}

/// A tasklet.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) id: TaskletId,
    /// What it does when it starts.
    pub(crate) job: Option<Rc<dyn Job>>,
    /// How its last wait ended, if its flags say `INTERRUPTED`; taken by the wait when it goes on.
    pub(crate) wake: Wake,
    /// What it waits for while it is parked, and since when in nanoseconds of the scheduler's clock.
    pub(crate) waiting: Waiting,
    pub(crate) since: u64,
    pub(crate) created: &'static Location<'static>,
    /// The deadline of its wait.
    pub(crate) timer: Option<TimerKey>,
    /// The innermost call of it that can be ended early, or that puts an ending off.
    pub(crate) frame: Innermost,
    /// Its place in the scope that it must not outlive.
    pub(crate) member: Option<Member>,
    /// Whether its values of task-local variables are dropped: it can have none any more.
    pub(crate) locals_over: bool,
    /// What most have none of. Apart, for a task is moved into the table and out of it: under 128 bytes that is cheap.
    pub(crate) rare: Option<Box<Rare>>,
}

/// What only few tasklets have.
#[derive(Default, Debug)]
pub(crate) struct Rare {
    pub(crate) name: Option<Arc<str>>,
    /// Its own values of task-local variables.
    pub(crate) locals: Locals,
    /// Where the `no_switch` guard was made that is in force, and how many are.
    pub(crate) no_switch: Option<(&'static Location<'static>, u32)>,
    /// How many calls were refused to it since it was killed.
    pub(crate) refusals: u32,
}

/// What the calls of a tasklet have to mind, as bits. The scheduler keeps a copy of those of the one that runs.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Flags(u16);

impl Flags {
    pub(crate) const NONE: Flags = Flags(0);
    /// It was killed, and no shield hides it: none of its calls waits any more.
    pub(crate) const KILLED: Flags = Flags(1);
    /// It is being ended and does not know yet: it unwinds when it goes on.
    pub(crate) const UNWIND: Flags = Flags(2);
    /// It may not switch.
    pub(crate) const NO_SWITCH: Flags = Flags(4);
    /// It may not be blocked.
    pub(crate) const BLOCK_TRAP: Flags = Flags(8);
    /// Its thread is ending.
    pub(crate) const ENDED: Flags = Flags(16);

    /// Someone watches switches.
    pub(crate) const SWITCHES_SEEN: Flags = Flags(32);
    /// Someone watches channels.
    pub(crate) const CHANNELS_SEEN: Flags = Flags(64);

    /// Both of the above.
    pub(crate) const SEEN: Flags = Flags(32 | 64);
    /// A limit around what it does was struck, and no shield hides it: none of its calls waits until the limit's end.
    pub(crate) const STRUCK: Flags = Flags(128);
    /// It is being ended and does not know yet: it unwinds at its next call that may wait.
    pub(crate) const RAISE: Flags = Flags(256);
    /// What refuses every call that may wait.
    pub(crate) const ENDING: Flags = Flags(1 | 16 | 128);
    /// It was killed at some time, whatever hides it.
    pub(crate) const DOOMED: Flags = Flags(512);
    /// Its last wait ended for another reason than what it waited for or its deadline, which its task says.
    pub(crate) const INTERRUPTED: Flags = Flags(1 << 10);
    /// The deadline of its last wait has passed.
    pub(crate) const LATE: Flags = Flags(1 << 12);
    /// Its last wait ended otherwise than it hoped.
    pub(crate) const DISAPPOINTED: Flags = Flags(1 << 10 | 1 << 12);
    /// It is parked and something outside can end that.
    pub(crate) const OUTSIDE: Flags = Flags(1 << 11);

    /// It was switched to for nothing but to show where it is. Never among a tasklet's own.
    pub(crate) const TRACE: Flags = Flags(1 << 14);

    #[inline]
    pub(crate) const fn any(self, others: Flags) -> bool {
        self.0 & others.0 != 0
    }

    #[inline]
    pub(crate) const fn with(self, others: Flags) -> Flags {
        Flags(self.0 | others.0)
    }

    /// Those of `others` that are among these.
    #[inline]
    pub(crate) const fn only(self, others: Flags) -> Flags {
        Flags(self.0 & others.0)
    }

    /// With `others` when `there`, and without them otherwise.
    #[inline]
    pub(crate) const fn set(self, others: Flags, there: bool) -> Flags {
        if there { self.with(others) } else { self.without(others) }
    }

    #[inline]
    pub(crate) const fn without(self, others: Flags) -> Flags {
        Flags(self.0 & !others.0)
    }
}

/// The scheduler's copy of the flags of the one that runs, and a mark that the next switch wipes out.
///
/// The mark costs nothing: a switch writes the flags anyway. It is for the stall watch, whose signal may interrupt its
/// thread at any instruction; hence atomic.
#[derive(Debug)]
pub(crate) struct LiveFlags(AtomicU16);

impl LiveFlags {
    const MARK: u16 = 1 << 15;

    pub(crate) const fn new(flags: Flags) -> LiveFlags {
        LiveFlags(AtomicU16::new(flags.0))
    }

    #[inline]
    pub(crate) fn get(&self) -> Flags {
        Flags(self.0.load(Ordering::Relaxed) & !Self::MARK)
    }

    /// Wipes out the mark.
    #[inline]
    pub(crate) fn set(&self, flags: Flags) {
        self.0.store(flags.0, Ordering::Relaxed);
    }

    pub(crate) fn replace(&self, flags: Flags) -> Flags {
        let before = self.get();
        self.set(flags);
        before
    }

    /// Sets the mark. Whether it was still there.
    pub(crate) fn mark(&self) -> bool {
        self.0.fetch_or(Self::MARK, Ordering::Relaxed) & Self::MARK != 0
    }
}

/// Where a tasklet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// In the run queue.
    Queued(Position),
    /// It is the one that runs.
    Running,
    /// In the wait of this number.
    Parked(u64),
    /// In neither: it waits to be inserted, or in `run`.
    Paused,
    /// Its turn came while no stack could be had.
    Starved,
}

/// What a tasklet was made to do.
pub(crate) trait Job {
    /// Does it, on a stack of its own. Never unwinds.
    fn run(self: Rc<Self>);

    /// Tells whoever joins that it will never run. Runs no code of the user.
    fn refuse(&self, error: JoinError);

    /// Drops the closure of one that will never run.
    fn drop_closure(&self);

    /// Whether it may borrow from a frame that its thread's end leaks: then it has to be leaked too.
    fn is_scoped(&self) -> bool;

    /// Whether somebody holds its handle.
    fn is_held(self: Rc<Self>) -> bool;
}

/// How a wait ended.
#[derive(Debug)]
pub(crate) enum Wake {
    /// For what it waited for.
    Unparked,
    /// Nothing could have ended it.
    Deadlock(Box<Report>),
    /// Another tasklet threw this into it.
    Thrown(Box<Thrown>),
}

const _: () = assert!(size_of::<Task>() <= 128);

impl Task {
    /// One that does nothing yet. A new one is copied from here and then filled in: one that is made on the stack and then
    /// moved, in larger pieces than it was made of, costs some 5 ns more.
    pub(crate) const NEW: Task = Task {
        id: TaskletId::MAIN,
        job: None,
        wake: Wake::Unparked,
        waiting: Waiting::Insert,
        since: 0,
        created: Location::caller(),
        timer: None,
        frame: None,
        member: None,
        locals_over: false,
        rare: None,
    };

    pub(crate) fn who(&self) -> Who {
        Who { id: self.id, name: self.name() }
    }

    pub(crate) fn name(&self) -> Option<Arc<str>> {
        self.rare.as_ref().and_then(|rare| rare.name.clone())
    }

    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(crate) fn find_local(&self, key: usize) -> Found {
        match &self.rare {
            _ if self.locals_over => Found::Gone,
            Some(rare) => rare.locals.find(key),
            None => Found::Missing,
        }
    }

    /// Takes the youngest of its task-local values. When there is none left, none can be added any more.
    #[inline]
    pub(crate) fn take_last_local(&mut self) -> Option<Rc<dyn Any>> {
        let last = self.rare.as_mut().and_then(|rare| rare.locals.take_last());
        self.locals_over = last.is_none();
        last
    }
}

/// Everyone in `tasks` that waits, at time `now`, by number. `holders` tells who holds which lock.
pub(crate) fn report(
    occasion: Occasion,
    tasks: &Slab<Task>,
    stands: &[Stand],
    holders: &BTreeMap<u32, Key>,
    now: u64,
) -> Report {
    let who = |key: &Key| match tasks.get(key.index as usize) {
        Some(task) if task.id == key.id => task.who(),
        _ => Who { id: key.id, name: None },
    };
    let mut waiters: Vec<Waiter> = tasks
        .iter()
        .filter_map(|(index, task)| {
            let waiting = match stands[index].state {
                State::Parked(_) => task.waiting,
                State::Paused => Waiting::Insert,
                State::Queued(_) | State::Running | State::Starved => return None,
            };
            let since = std::time::Duration::from_nanos(now.saturating_sub(task.since));
            let holder = waiting.lock().and_then(|lock| holders.get(&lock.number)).map(who);
            Some(Waiter { who: task.who(), created: task.created, waiting, holder, since })
        })
        .collect();
    waiters.sort_unstable_by_key(|waiter| waiter.who.id);
    Report { waiters: waiters.into(), occasion }
}

impl std::fmt::Debug for dyn Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}
