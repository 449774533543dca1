//! What a scheduler knows, and the steps that move a tasklet from one state to another.
//!
//! - Nothing here switches or runs code of the user: each step is done when it returns.
//! - `parked` and `outside` count tasklets in the state `Parked`, and those of them that time or a socket can wake.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use slab::Slab;

use crate::{
    census::{self, User},
    context::{Context, Owner, prefetch},
    frame::{Frames, Strike},
    report::{Occasion, Report},
    run_queue::{Position, RunQueue},
    scheduler::{Payload, root},
    scopes::{Member, Scopes},
    stack::{self, SizeClass, StackPool},
    table::{self, Flags, Job, Key, MAIN, Stand, State, Task, Wake},
    timer::{Fired, TimerQueue},
    wake::{TaskletId, Ticket, Waiting},
};

/// Switches after which the loop looks outside although tasklets can run.
pub(crate) const TURNS: u32 = 61;
/// Stacks in use from which on it pays to load ahead, for most of them will be cold, and how far ahead each part is loaded.
const PREFETCH_FROM: usize = 2048;
const PREFETCH_STAND: usize = 16;
const PREFETCH_STACK: usize = 8;

/// What the scheduler knows.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) tasks: Slab<Task>,
    /// By the same index.
    pub(crate) stands: Vec<Stand>,
    pub(crate) queue: RunQueue,
    pub(crate) timers: TimerQueue,
    pub(crate) stacks: StackPool,
    /// The tasklet that runs.
    pub(crate) current: u32,
    /// The number of the next tasklet, of the next wait and of the next channel.
    pub(crate) next_id: u64,
    pub(crate) next_sequence: u64,
    pub(crate) next_channel: u32,
    pub(crate) next_lock: u32,
    /// The calls that can be ended early, and those that put an ending off.
    pub(crate) frames: Frames,
    pub(crate) scopes: Scopes,
    /// Who holds each lock that someone waits for, by its number; one of them, when several do.
    pub(crate) holders: BTreeMap<u32, Key>,
    /// Switches left until the loop looks outside.
    pub(crate) turns_left: u32,
    /// Those in `run`, the innermost last.
    pub(crate) runners: Vec<u32>,
    /// Those whose turn came while no stack could be had, first come first.
    pub(crate) starved: VecDeque<u32>,
    /// Parked tasklets, and those of them that something outside can wake.
    pub(crate) parked: usize,
    pub(crate) outside: usize,
    /// Those that have let another run and go on right after it: for them a stack that is freed meanwhile is kept.
    pub(crate) killers: u32,
    /// Tasklets that have a stack.
    pub(crate) started: usize,
    /// How the last one that ran made way.
    pub(crate) last: Last,
    /// A panic that nobody holds a handle for, and who is to have it.
    pub(crate) raised: Option<(u32, Payload)>,
    /// Jobs that never ran: their closures are the user's, so main or `run` drops them.
    pub(crate) leftovers: Vec<Rc<dyn Job>>,
    /// What the calls of every tasklet have to mind: whether someone watches.
    pub(crate) seen: Flags,
    /// Kept for its memory, between two looks at the timers.
    pub(crate) fired: Vec<Fired>,
    /// The clock's zero, and the nanoseconds since then when it was last read.
    pub(crate) epoch: Option<Instant>,
    pub(crate) now: u64,
    pub(crate) totals: Totals,
}

/// How a tasklet made way for the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Last {
    Ended,
    Parked(Ticket),
    Paused(Key),
}

/// Whose turn it is.
#[derive(Debug)]
pub(crate) enum Turn {
    Main(Flags),
    Enter(Context, Flags),
    /// Of one that found no stack.
    NoStack,
}

/// Where the one that makes way wants to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Caller {
    InTheRing,
    Paused,
}

/// Counters that only grow.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Totals {
    pub(crate) finished: usize,
    pub(crate) no_stack: usize,
    pub(crate) unread_panics: usize,
}

/// How [`run`](crate::run) ended: what it did and what it leaves behind. [`dump`](crate::dump) names those that are left.
///
/// ```
/// # use pila_runtime as pila;
/// pila::tasklet(|| ());
/// let nobody_sends = pila::Channel::<()>::new();
/// pila::tasklet(move || nobody_sends.receive());
/// let summary = pila::run();
/// assert_eq!((summary.finished, summary.blocked), (1, 1));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// Tasklets that ended during the run.
    pub finished: usize,
    /// Tasklets that wait, and will for ever unless someone outside `run` wakes them.
    pub blocked: usize,
    /// Tasklets that were never inserted or have been removed from the run queue.
    pub paused: usize,
    /// Tasklets that ended without starting during the run, for no stack could be had.
    pub no_stack: usize,
    /// Panics during the run whose holders dropped them unread.
    pub unread_panics: usize,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Summary { finished, blocked, paused, no_stack, unread_panics } = self;
        write!(f, "{finished} finished, {blocked} still blocked, {paused} paused")?;
        write!(f, ", {no_stack} without a stack, {unread_panics} unread panics")
    }
}

impl Core {
    pub(crate) const fn new() -> Core {
        Core {
            tasks: Slab::new(),
            stands: Vec::new(),
            queue: RunQueue::new(),
            timers: TimerQueue::new(),
            stacks: StackPool::new(),
            current: MAIN,
            next_id: 1,
            next_sequence: 0,
            next_channel: 0,
            next_lock: 0,
            frames: Frames::new(),
            scopes: Scopes::new(),
            holders: BTreeMap::new(),
            turns_left: TURNS,
            runners: Vec::new(),
            starved: VecDeque::new(),
            parked: 0,
            outside: 0,
            killers: 0,
            started: 0,
            last: Last::Ended,
            raised: None,
            leftovers: Vec::new(),
            seen: Flags::NONE,
            fired: Vec::new(),
            epoch: None,
            now: 0,
            totals: Totals { finished: 0, no_stack: 0, unread_panics: 0 },
        }
    }

    /// Everyone that waits.
    pub(crate) fn report(&self, occasion: Occasion) -> Report {
        table::report(occasion, &self.tasks, &self.stands, &self.holders, self.now)
    }

    #[cold]
    pub(crate) fn add_main(&mut self) {
        // A ticket that strays to another thread must not fit a wait there.
        static THREADS: AtomicU64 = AtomicU64::new(0);
        self.next_sequence = THREADS.fetch_add(1, Ordering::Relaxed) << 40;
        let stand = Stand {
            context: None,
            state: State::Running,
            flags: self.seen,
            class: SizeClass::DEFAULT,
        };
        let index = self.insert(stand, |task| task.rare().name = Some("main".into()));
        debug_assert_eq!(index, MAIN);
    }

    /// Gives a tasklet a slot, which `fill` fills in where it lies.
    #[inline(always)]
    pub(crate) fn insert(&mut self, stand: Stand, fill: impl FnOnce(&mut Task)) -> u32 {
        let entry = self.tasks.vacant_entry();
        let index = entry.key();
        fill(entry.insert(Task::NEW));
        match self.stands.get_mut(index) {
            Some(place) => *place = stand,
            None => self.stands.push(stand),
        }
        index as u32
    }

    pub(crate) fn state(&self, key: Key) -> Option<State> {
        self.find(key).map(|_| self.stands[key.index as usize].state)
    }

    pub(crate) fn find(&self, key: Key) -> Option<&Task> {
        self.tasks.get(key.index as usize).filter(|task| task.id == key.id)
    }

    pub(crate) fn current_key(&self) -> Key {
        let id = self.tasks.get(self.current as usize).map_or(TaskletId::MAIN, |task| task.id);
        Key { index: self.current, id }
    }

    // Moving tasklets.

    #[inline]
    pub(crate) fn enqueue(&mut self, index: u32) {
        let position = self.queue.push_back(index);
        self.stands[index as usize].state = State::Queued(position);
    }

    #[inline]
    pub(crate) fn enqueue_front(&mut self, index: u32) {
        let position = self.queue.push_front(index);
        self.stands[index as usize].state = State::Queued(position);
    }

    #[inline]
    pub(crate) fn enqueue_current(&mut self) {
        self.enqueue(self.current);
    }

    /// Puts the one that runs where it wants to be; `stay` puts it into the ring.
    pub(crate) fn make_way(&mut self, caller: Caller, stay: impl FnOnce(&mut Core)) {
        match caller {
            Caller::InTheRing => stay(self),
            Caller::Paused => {
                self.last = Last::Paused(self.current_key());
                self.pause_current();
            }
        }
    }

    pub(crate) fn pause_current(&mut self) {
        self.stands[self.current as usize].state = State::Paused;
        self.tasks[self.current as usize].since = self.now;
    }

    /// Takes one that is scheduled out of wherever it waits for its turn.
    pub(crate) fn pause(&mut self, index: u32) {
        match self.stands[index as usize].state {
            State::Queued(position) => self.queue.remove(position),
            _ => self.starved.retain(|&starved| starved != index),
        }
        self.stands[index as usize].state = State::Paused;
        self.tasks[index as usize].since = self.now;
        if self.queue.needs_compacting() {
            self.queue.compact(|index, position| set_position(&mut self.stands, index, position));
        }
    }

    /// Takes one that does not run out of wherever it is; a wait or a pause ends with `wake`.
    pub(crate) fn take_out(&mut self, index: u32, wake: Wake) {
        match self.stands[index as usize].state {
            State::Parked(sequence) => {
                self.unpark(Ticket { index, sequence }, wake);
            }
            State::Queued(_) | State::Starved => self.pause(index),
            // What was thrown into the wait that it comes from is its own to drop.
            State::Paused if self.stands[index as usize].flags.any(Flags::INTERRUPTED) => {}
            State::Paused => self.set_wake(index, wake),
            State::Running => {}
        }
    }

    /// Lets main go on, wherever it is, after the loop was left by a panic.
    pub(crate) fn resume_main(&mut self) {
        self.take_out(MAIN, Wake::Unparked);
        self.stands[MAIN as usize].state = State::Running;
        self.current = MAIN;
    }

    pub(crate) fn rotate_to(&mut self, position: Position) {
        self.queue
            .rotate_to(position, |index, position| set_position(&mut self.stands, index, position));
    }

    /// Whether the loop is due to look outside, counting this as a switch.
    pub(crate) fn turn_is_over(&mut self) -> bool {
        self.turns_left = self.turns_left.saturating_sub(1);
        self.turns_left == 0
    }

    // Waiting.

    #[inline]
    pub(crate) fn park(&mut self, ticket: Ticket, waiting: &Waiting, deadline: Option<u64>) {
        let stand = &mut self.stands[ticket.index as usize];
        assert!(stand.state == State::Running, "a ticket serves the tasklet it was made for");
        stand.state = State::Parked(ticket.sequence);
        // Not every wait that was ended by something else is asked how it ended.
        stand.flags = stand.flags.without(Flags::DISAPPOINTED);
        let task = &mut self.tasks[ticket.index as usize];
        (task.waiting, task.since) = (*waiting, self.now);
        if waiting.on_outside() || deadline.is_some() || self.frames.has_deadline(task.frame) {
            stand.flags = stand.flags.with(Flags::OUTSIDE);
            task.timer = deadline.map(|deadline| self.timers.insert(deadline, ticket));
            self.outside += 1;
        }
        self.parked += 1;
        self.last = Last::Parked(ticket);
    }

    /// As [`park`](Self::park), for a wait of the one that runs for another tasklet, with a ticket made just now.
    #[inline(always)]
    pub(crate) fn park_current(&mut self, ticket: Ticket, waiting: &Waiting) {
        let task = &mut self.tasks[self.current as usize];
        if task.frame.is_some() {
            return self.park(ticket, waiting, None);
        }
        (task.waiting, task.since) = (*waiting, self.now);
        let stand = &mut self.stands[self.current as usize];
        stand.state = State::Parked(ticket.sequence);
        stand.flags = stand.flags.without(Flags::DISAPPOINTED);
        self.parked += 1;
        self.last = Last::Parked(ticket);
    }

    #[inline]
    pub(crate) fn is_parked(&self, ticket: Ticket) -> bool {
        // A slot whose tasklet has ended says so.
        let stand = self.stands.get(ticket.index as usize);
        stand.is_some_and(|stand| stand.state == State::Parked(ticket.sequence))
    }

    /// Takes how the last wait of the tasklet that runs ended. None when its thread has.
    pub(crate) fn take_own_wake(&mut self) -> Option<Wake> {
        let task = self.tasks.get_mut(self.current as usize)?;
        let stand = &mut self.stands[self.current as usize];
        stand.flags = stand.flags.without(Flags::INTERRUPTED);
        Some(mem::replace(&mut task.wake, Wake::Unparked))
    }

    /// Says how the last wait of a tasklet ended.
    pub(crate) fn set_wake(&mut self, index: u32, wake: Wake) {
        let is_other = !matches!(wake, Wake::Unparked);
        let stand = &mut self.stands[index as usize];
        stand.flags = stand.flags.set(Flags::INTERRUPTED, is_other);
        self.tasks[index as usize].wake = wake;
    }

    /// Ends the wait of `ticket`; the caller puts the tasklet into the queue.
    pub(crate) fn unpark(&mut self, ticket: Ticket, wake: Wake) -> bool {
        let is_over = self.unpark_well(ticket);
        if is_over {
            self.set_wake(ticket.index, wake);
        }
        is_over
    }

    /// As [`unpark`](Self::unpark), for its deadline, which has fired. Touches nothing but the tasklet's stand.
    fn unpark_late(&mut self, ticket: Ticket) -> bool {
        if !self.is_parked(ticket) {
            return false;
        }
        let stand = &mut self.stands[ticket.index as usize];
        stand.flags = stand.flags.without(Flags::OUTSIDE).with(Flags::LATE);
        self.parked -= 1;
        self.outside -= 1;
        true
    }

    /// As [`unpark`](Self::unpark), for what it waits for.
    #[inline(always)]
    pub(crate) fn unpark_well(&mut self, ticket: Ticket) -> bool {
        let Some(stand) = self.stands.get_mut(ticket.index as usize) else { return false };
        // A slot whose tasklet has ended is not parked.
        if stand.state != State::Parked(ticket.sequence) {
            return false;
        }
        self.parked -= 1;
        if stand.flags.any(Flags::OUTSIDE) {
            self.end_outside_wait(ticket.index);
        }
        true
    }

    fn end_outside_wait(&mut self, index: u32) {
        let stand = &mut self.stands[index as usize];
        stand.flags = stand.flags.without(Flags::OUTSIDE);
        self.outside -= 1;
        if let Some(timer) = self.tasks[index as usize].timer {
            self.timers.cancel(timer);
        }
    }

    /// Ends the wait of `ticket` for another reason than what it waits for.
    pub(crate) fn interrupt(&mut self, ticket: Ticket, wake: Wake) {
        if self.unpark(ticket, wake) {
            self.enqueue(ticket.index);
        }
    }

    // The loop's steps.

    /// Takes the next one out of the queue, which has one.
    #[inline]
    pub(crate) fn next(&mut self) -> Turn {
        self.turns_left -= 1;
        let index = self.queue.pop_front().expect("the loop asks a queue that is not empty");
        let stand = &mut self.stands[index as usize];
        stand.state = State::Running;
        self.current = index;
        let Some(context) = stand.context.take() else {
            return self.start(index);
        };
        let flags = stand.flags;
        self.load_ahead();
        Turn::Enter(context, flags)
    }

    /// Takes the next one out of the queue if it has a stack already and the loop is not due to look outside.
    #[inline(always)]
    pub(crate) fn next_started(&mut self) -> Option<(Context, Flags)> {
        if self.turns_left == 0 {
            return None;
        }
        let index = self.queue.front()?;
        let stand = &mut self.stands[index as usize];
        let context = stand.context.take()?;
        self.turns_left -= 1;
        stand.state = State::Running;
        self.current = index;
        let flags = stand.flags;
        self.queue.drop_front();
        self.load_ahead();
        Some((context, flags))
    }

    /// Takes the next one as [`next_started`](Self::next_started), which is given to `load`, and puts the one that runs at the
    /// tail, with the context that `load` gives for it. None, and nothing done, where that takes more than a few steps;
    /// otherwise whether the caller is to [load ahead](Self::load_stands_and_stacks).
    // Nothing in here can panic: on a path that can unwind the registers have to be saved, which is a fifth of the work.
    #[inline(always)]
    pub(crate) fn take_turns(
        &mut self,
        load: impl FnOnce(Context, Flags) -> Option<Context>,
    ) -> Option<bool> {
        if self.turns_left == 0 {
            return None;
        }
        let index = self.queue.whole_front()?;
        let next = self.stands.get_mut(index as usize)?;
        let context = next.context.take()?;
        next.state = State::Running;
        let flags = next.flags;
        let position = self.queue.exchange(self.current);
        if let Some(mine) = self.stands.get_mut(self.current as usize) {
            mine.state = State::Queued(position);
            mine.context = load(context, flags);
        }
        self.turns_left -= 1;
        self.current = index;
        Some(self.started >= PREFETCH_FROM)
    }

    /// As [`next_started`](Self::next_started), for one that was just woken and that nobody is to come before. The one that
    /// runs goes to the tail.
    #[inline(always)]
    pub(crate) fn next_is(&mut self, index: u32) -> Option<(Context, Flags)> {
        if self.turns_left == 0 {
            return None;
        }
        let stand = &mut self.stands[index as usize];
        let context = stand.context.take()?;
        let flags = stand.flags;
        stand.state = State::Running;
        self.turns_left -= 1;
        self.enqueue_current();
        self.current = index;
        Some((context, flags))
    }

    /// Gives one that has not started a stack. Main needs none.
    #[inline]
    fn start(&mut self, index: u32) -> Turn {
        let (task, stand) = (&mut self.tasks[index as usize], &mut self.stands[index as usize]);
        let flags = stand.flags;
        let Some(job) = task.job.take() else {
            return Turn::Main(flags);
        };
        let Ok(stack) = self.stacks.take(stand.class) else {
            (stand.state, task.job) = (State::Starved, Some(job));
            self.starved.push_back(index);
            return Turn::NoStack;
        };
        self.started += 1;
        let owner = Owner { id: task.id, created: task.created };
        Turn::Enter(Context::new(stack, owner, move |entrance| root::work(&entrance, job)), flags)
    }

    /// Starts to load what the tasklets a few places behind the front are going to touch.
    #[inline(always)]
    pub(crate) fn load_ahead(&self) {
        if self.started >= PREFETCH_FROM {
            self.load_stands_and_stacks();
        }
    }

    #[inline(never)]
    pub(crate) fn load_stands_and_stacks(&self) {
        if let Some(stand) = self.stand_ahead(PREFETCH_STAND) {
            prefetch(stand);
        }
        if let Some(Stand { context: Some(context), .. }) = self.stand_ahead(PREFETCH_STACK) {
            context.prefetch();
        }
    }

    #[inline]
    fn stand_ahead(&self, places: usize) -> Option<&Stand> {
        self.stands.get(self.queue.peek(places)? as usize)
    }

    /// Takes one that has ended out of the table.
    #[inline]
    pub(crate) fn remove(&mut self, index: u32) -> Task {
        // No ticket, and no key that was not compared, finds it any more.
        self.stands[index as usize].state = State::Paused;
        self.tasks.remove(index as usize)
    }

    /// Removes the one that ran, which has finished, and frees its stack.
    #[inline]
    pub(crate) fn finish(&mut self, context: Context) {
        // The stack goes back here, on the loop's stack: a tasklet cannot free the one it stands on.
        let stack = context.finish();
        if self.stacks.is_counted() {
            self.count_stack(self.current, stack.bottom().addr().get());
        }
        self.stacks.give(stack);
        self.started -= 1;
        self.bury_current();
        if self.killers == 0 {
            self.feed_starved();
        }
    }

    /// Removes the one that runs, which has done its job, and makes its stack that of the next in the queue, if that one has
    /// not started. None, and nothing done, when there is anything else to decide.
    #[inline]
    pub(crate) fn relieve(&mut self) -> Option<(Rc<dyn Job>, Owner, Flags)> {
        let is_awaited = self.killers > 0 || !self.starved.is_empty() || self.stacks.is_counted();
        if is_awaited || self.turns_left == 0 {
            return None;
        }
        let index = self.queue.front()?;
        let class = self.stands[self.current as usize].class;
        let stand = &mut self.stands[index as usize];
        if stand.class != class {
            return None;
        }
        let task = &mut self.tasks[index as usize];
        // Main has none, nor has one that has started.
        let job = task.job.take()?;
        let owner = Owner { id: task.id, created: task.created };
        stand.state = State::Running;
        let flags = stand.flags;
        self.queue.drop_front();
        self.turns_left -= 1;
        self.bury_current();
        self.current = index;
        Some((job, owner, flags))
    }

    /// Takes the one that has run out of the table for ever.
    #[inline(always)]
    fn bury_current(&mut self) {
        let task = &mut self.tasks[self.current as usize];
        let (member, job, rare) = (task.member, task.job.take(), task.rare.take());
        let wake = mem::replace(&mut task.wake, Wake::Unparked);
        // With nothing left in it that has a destructor, it stays where it is: to move it out, in large pieces, would wait
        // for the small ones that were written into it just now.
        mem::forget(self.remove(self.current));
        drop(job);
        drop(wake);
        drop(rare);
        if let Some(member) = member {
            self.leave_scope(member);
        }
        self.totals.finished += 1;
        self.last = Last::Ended;
    }

    /// Counts how deep the stack that `address` lies in was used, for a tasklet.
    #[cold]
    pub(crate) fn count_stack(&self, index: u32, address: usize) {
        if let Some(slot) = stack::slot_at(address) {
            census::count(self.tasks[index as usize].created, User::Tasklet, &slot);
        }
    }

    /// Gives the first that waits for a stack another turn, if there is a stack. True when it did.
    #[inline]
    pub(crate) fn feed_starved(&mut self) -> bool {
        !self.starved.is_empty() && self.feed_first_starved()
    }

    #[cold]
    fn feed_first_starved(&mut self) -> bool {
        // Nobody comes before the one that a panic is raised in.
        if self.raised.is_some() {
            return false;
        }
        let Some(&index) = self.starved.front() else {
            return false;
        };
        if self.stacks.check(self.stands[index as usize].class).is_err() {
            return false;
        }
        self.starved.pop_front();
        self.enqueue_front(index);
        true
    }

    /// Gives back the memory of free stacks, and the room that the tables do not need. Gives the bytes of the stacks.
    pub(crate) fn trim(&mut self) -> usize {
        self.tasks.shrink_to_fit();
        let needed = self.tasks.iter().next_back().map_or(0, |(last, _)| last + 1);
        self.stands.truncate(needed);
        self.stands.shrink_to_fit();
        self.frames.shrink();
        self.queue.shrink();
        self.timers.shrink();
        self.starved.shrink_to_fit();
        self.fired = Vec::new();
        self.stacks.trim()
    }

    /// Wakes those the driver names, then those whose deadline is not after `now`.
    pub(crate) fn hear(&mut self, now: Instant, woken: &[Ticket]) {
        for &ticket in woken {
            self.interrupt(ticket, Wake::Unparked);
        }
        self.now = self.nanoseconds(now);
        let mut fired = mem::take(&mut self.fired);
        self.timers.expire(self.now, &mut fired);
        for place in 0..fired.len() {
            let Fired { ticket, .. } = fired[place];
            if let Some(ahead) = fired.get(place + PREFETCH_STAND) {
                self.stands.get(ahead.ticket.index as usize).inspect(|stand| prefetch(*stand));
            }
            if self.unpark_late(ticket) {
                self.enqueue(ticket.index);
            } else {
                self.strike(ticket.index, ticket.sequence);
            }
        }
        fired.clear();
        self.fired = fired;
    }

    // Ending things.

    /// Ends what goes on inside the limit of this number: its tasklet unwinds when it goes on, if it waits, and otherwise
    /// at its next call that may wait, so that nothing it was handed is lost.
    pub(crate) fn strike(&mut self, index: u32, number: u64) {
        let Some(task) = self.tasks.get(index as usize) else { return };
        let strike = self.frames.strike(task.frame, number);
        if strike != Strike::Raise {
            return;
        }
        let stand = &mut self.stands[index as usize];
        // What was killed is being ended already.
        let news = if stand.flags.any(Flags::KILLED) { Flags::NONE } else { Flags::RAISE };
        stand.flags = stand.flags.with(Flags::STRUCK.with(news));
        match stand.state {
            _ if news == Flags::NONE => {}
            State::Parked(_) => {
                stand.flags = stand.flags.with(Flags::UNWIND);
                self.take_out(index, Wake::Unparked);
                self.enqueue(index);
            }
            // One that was taken out of the queue may have been handed something; one that left it asks when it is back.
            State::Paused => self.enqueue(index),
            State::Queued(_) | State::Running | State::Starved => {}
        }
    }

    /// Works out what hides and what ends the calls of a tasklet, after its frames have changed.
    pub(crate) fn settle_flags(&mut self, index: u32) -> Flags {
        let (task, stand) = (&self.tasks[index as usize], &mut self.stands[index as usize]);
        let shielded = self.frames.is_shielded(task.frame);
        let struck = self.frames.struck(task.frame).is_some();
        let killed = stand.flags.any(Flags::DOOMED) && !shielded;
        let flags = stand.flags.set(Flags::KILLED, killed).set(Flags::STRUCK, struck);
        // With nothing left that ends it, there is nothing left to raise.
        stand.flags = match killed || struck {
            true => flags,
            false => flags.without(Flags::RAISE.with(Flags::UNWIND)),
        };
        stand.flags
    }

    /// Takes one that has ended off its scope's list; the scope's owner goes on after the last.
    pub(crate) fn leave_scope(&mut self, member: Member) {
        if let Some(waiter) = self.scopes.leave(member) {
            self.interrupt(waiter, Wake::Unparked);
        }
    }

    /// Who is told of a deadlock in which `index` made way last: the owner of the outermost scope that waits for it, who
    /// can end everyone in it. One that has done so already cannot go on either: then it is one of those it waits for.
    pub(crate) fn responsible(&self, index: u32) -> u32 {
        let mut told = index;
        while let Some(member) = self.tasks[told as usize].member {
            let (owner, ending) = self.scopes.owner(member);
            if ending || !self.waits_for_scope(owner.index) {
                break;
            }
            told = owner.index;
        }
        while self.waits_for_scope(told) {
            let key = Key { index: told, id: self.tasks[told as usize].id };
            let Some(survivor) = self.scopes.survivors(key).next() else { break };
            told = survivor.index;
        }
        told
    }

    pub(crate) fn waits_for_scope(&self, index: u32) -> bool {
        let is_parked = matches!(self.stands[index as usize].state, State::Parked(_));
        is_parked && self.tasks[index as usize].waiting == Waiting::Scope
    }

    /// Whether a limit is going to wake one that is paused, other than by `run`.
    pub(crate) fn has_paused_limit(&self) -> bool {
        !self.timers.is_empty()
            && self.tasks.iter().any(|(index, task)| {
                self.stands[index].state == State::Paused
                    && self.frames.has_deadline(task.frame)
                    && !self.runners.contains(&(index as u32))
            })
    }

    pub(crate) fn nanoseconds(&mut self, instant: Instant) -> u64 {
        let epoch = *self.epoch.get_or_insert(instant);
        u64::try_from(instant.saturating_duration_since(epoch).as_nanos()).unwrap_or(u64::MAX)
    }

    // Run.

    pub(crate) fn has_work(&self) -> bool {
        let can_go_on = !self.queue.is_empty() || !self.starved.is_empty();
        can_go_on || self.outside > 0 || self.has_paused_limit()
    }

    /// Takes `me` off the list of runners. Those inside its run return from theirs when their turn comes.
    pub(crate) fn leave_run(&mut self, me: u32) {
        // An outer run that ended has taken it off already.
        if !self.runners.contains(&me) {
            return;
        }
        while let Some(runner) = self.runners.pop() {
            if runner == me {
                return;
            }
            if self.stands[runner as usize].state == State::Paused {
                self.enqueue(runner);
            }
        }
    }

    pub(crate) fn summary(&self, before: Totals) -> Summary {
        let paused = |&&runner: &&u32| self.stands[runner as usize].state == State::Paused;
        let runners = self.runners.iter().filter(paused).count();
        let scheduled = self.queue.len() + self.starved.len() + 1;
        Summary {
            finished: self.totals.finished.saturating_sub(before.finished),
            blocked: self.parked,
            // Saturating, for at the end of a thread there is not even the one that runs.
            paused: self.tasks.len().saturating_sub(self.parked + scheduled + runners),
            no_stack: self.totals.no_stack.saturating_sub(before.no_stack),
            unread_panics: self.totals.unread_panics.saturating_sub(before.unread_panics),
        }
    }
}

#[inline]
fn set_position(stands: &mut [Stand], index: u32, position: Position) {
    stands[index as usize].state = State::Queued(position);
}
