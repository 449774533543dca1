//! The scheduler of one thread: the table of tasklets, the loop, and what happens when nobody can run.
//!
//! - The loop runs on the thread's native stack, in whatever call main blocks in. It runs no code of the user but by
//!   entering a tasklet, and never while the thread unwinds.
//! - `core` is borrowed for moments only, never across a switch and never while code of the user runs.
//! - Main is in the ring like any tasklet; its turn ends the loop.
//! - `outside` counts the parked tasklets that time, a socket or another thread can wake. When it is zero and the queue
//!   is empty, nothing can happen any more: `resolve` says who goes on then.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    io, mem,
    panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use slab::Slab;

use crate::{
    context::{Left, Switch},
    driver::{AlreadyInstalled, Driver, Idle, Notify},
    error::{Interrupt, JoinError, Refused, TaskletError},
    locals::Locals,
    mailbox::{Heir, Mailbox},
    report::Who,
    stack::SizeClass,
    state::{Caller, Core, Last, Summary, TURNS, Turn},
    table::{self, Flags, Job, Key, MAIN, State, Task, Wake},
    thread_end,
    wake::{TaskletId, Ticket, Waiting},
};

/// A panic on its way to someone.
pub(crate) type Payload = Box<dyn Any + Send>;

/// The longest wait of a driver that other threads cannot notify, when they may have to.
const BLIND_WAIT: Duration = Duration::from_millis(1);

/// One thread's scheduler.
#[derive(Debug)]
pub(crate) struct Scheduler {
    pub(crate) core: RefCell<Core>,
    switch: Switch,
    /// Time and news from outside; `None` stands for [`Idle`]. Apart from `core`, for it is asked while others look.
    driver: RefCell<Option<Box<dyn Driver>>>,
    /// The driver that every thread starts with.
    idle: RefCell<Idle>,
    /// What other threads post to, from the first time that one may have to.
    mailbox: RefCell<Option<Arc<Mailbox>>>,
    /// Who is told when the thread ends, each with its number for the wait that ends with it.
    heirs: RefCell<Slab<(Arc<dyn Heir>, u64)>>,
    /// What the calls of the tasklet that runs have to mind. `ENDED` once the thread's end has begun.
    pub(crate) flags: Cell<Flags>,
    /// Called at the end of the thread.
    at_end: fn(),
    /// How many markers of the thread's end were registered.
    markers: Cell<u32>,
    /// Whether tasklets ran after the last marker.
    uncovered: Cell<bool>,
    /// Called by a tasklet that has been switched to, when someone watches.
    switched: Cell<Option<fn(&Scheduler)>>,
    /// Kept for its memory, between two looks outside.
    woken: RefCell<Vec<Ticket>>,
}

/// Whether a new tasklet goes into the run queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Birth {
    Queued,
    Paused,
}

/// What a handle can ask of a live tasklet's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Status {
    Dead,
    Scheduled,
    Current,
    Blocked,
    Paused,
}

impl Scheduler {
    /// `at_end` is called when the thread ends and passes on to [`end`](Self::end).
    pub(crate) const fn new(at_end: fn()) -> Scheduler {
        Scheduler {
            core: RefCell::new(Core::new()),
            switch: Switch::new(),
            driver: RefCell::new(None),
            idle: RefCell::new(Idle::new()),
            mailbox: RefCell::new(None),
            heirs: RefCell::new(Slab::new()),
            flags: Cell::new(Flags::NONE),
            at_end,
            markers: Cell::new(0),
            uncovered: Cell::new(false),
            switched: Cell::new(None),
            woken: RefCell::new(Vec::new()),
        }
    }

    pub(crate) fn switch(&self) -> &Switch {
        &self.switch
    }

    /// Whether a call may wait now, if it has to.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Refused> {
        if self.flags.get().any(Flags::ENDED.with(Flags::KILLED)) || std::thread::panicking() {
            return Err(self.refuse());
        }
        Ok(())
    }

    /// Whether a call may switch to another tasklet now.
    #[inline]
    pub(crate) fn check_switch(&self) -> Result<(), Refused> {
        self.check()?;
        if self.flags.get().any(Flags::NO_SWITCH) {
            return Err(self.no_switch_guard());
        }
        Ok(())
    }

    #[cold]
    fn no_switch_guard(&self) -> Refused {
        let core = self.core.borrow();
        let guard = core.tasks[core.current as usize].no_switch;
        Refused::NoSwitch(guard.expect("the flag is up while a guard is in force").0)
    }

    /// Whether the thread's thread-locals are being destroyed.
    fn has_ended(&self) -> bool {
        self.flags.get().any(Flags::ENDED)
    }

    // Tasklets come into being.

    /// Makes a tasklet. When the thread has ended the job is handed back.
    #[inline]
    pub(crate) fn create(
        &self,
        job: Rc<dyn Job>,
        class: SizeClass,
        name: Option<Arc<str>>,
        created: &'static Location<'static>,
        birth: Birth,
    ) -> Result<Key, Rc<dyn Job>> {
        if self.has_ended() {
            return Err(job);
        }
        let mut core = self.core.borrow_mut();
        self.settle_in(&mut core);
        let id = TaskletId(core.next_id);
        core.next_id += 1;
        let (since, flags) = (core.now, core.seen);
        let index = core.tasks.insert(Task {
            id,
            state: State::Paused,
            context: None,
            job: Some(job),
            wake: Wake::Unparked,
            waiting: Waiting::Insert,
            outside: false,
            flags,
            timer: None,
            no_switch: None,
            refusals: 0,
            locals: Locals::default(),
            since,
            created,
            name,
            class,
        }) as u32;
        if birth == Birth::Queued {
            core.enqueue(index);
        }
        Ok(Key { index, id })
    }

    /// The class for stacks of `size`, of which one could be had at this moment.
    pub(crate) fn stack_class(&self, size: Option<usize>) -> io::Result<SizeClass> {
        let mut core = self.core.borrow_mut();
        let class = size.map_or(Ok(SizeClass::DEFAULT), |size| core.stacks.class(size))?;
        core.stacks.check(class)?;
        Ok(class)
    }

    /// Counts a new channel.
    pub(crate) fn next_channel(&self) -> u32 {
        let mut core = self.core.borrow_mut();
        core.next_channel += 1;
        core.next_channel
    }

    /// Makes sure that main has its slot and the thread's end will be seen.
    #[inline]
    fn settle_in(&self, core: &mut Core) {
        if core.tasks.is_empty() {
            core.add_main();
            self.mark();
        }
    }

    // Tasklets make way.

    /// Lets everyone else in the ring have a turn.
    #[inline(always)]
    pub(crate) fn schedule(&self) {
        if self.goes_to_the_tail() {
            self.leave();
        }
    }

    /// Puts the one that runs at the tail, unless it has nobody to make way for or may not wait.
    // Not inlined: a call that has returned before the switch does not disturb the return-address predictor, and what
    // is left of `schedule` is small enough to be inlined all the way into the caller.
    #[inline(never)]
    fn goes_to_the_tail(&self) -> bool {
        if self.check().is_err() {
            return false;
        }
        let mut core = self.core.borrow_mut();
        if core.queue.is_empty() {
            if !core.turn_is_over() {
                return false;
            }
            self.settle_in(&mut core);
        }
        if self.flags.get().any(Flags::NO_SWITCH) {
            drop(core);
            panic!("schedule: {}", self.no_switch_guard());
        }
        core.enqueue_current();
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
            let key = core.current_key();
            core.pause_current();
            core.last = Last::Paused(key);
        }
        self.leave();
        let mut core = self.core.borrow_mut();
        let current = core.current as usize;
        let wake =
            core.tasks.get_mut(current).map(|task| mem::replace(&mut task.wake, Wake::Unparked));
        drop(core);
        if let Some(Wake::Deadlock(report)) = wake {
            panic!("the last runnable tasklet left the run queue while main is blocked: {report}");
        }
    }

    /// Hands out the ticket for a wait of the tasklet that runs.
    #[inline]
    pub(crate) fn begin(&self) -> Result<Ticket, Refused> {
        self.check_switch()?;
        self.may_block()?;
        let mut core = self.core.borrow_mut();
        self.settle_in(&mut core);
        core.next_sequence += 1;
        Ok(Ticket { index: core.current, sequence: core.next_sequence })
    }

    /// As [`begin`](Self::begin), for a wait that is not for another tasklet: the block trap does not mind it.
    pub(crate) fn begin_sleep(&self) -> Result<Ticket, Refused> {
        let flags = self.flags.get();
        self.flags.set(flags.without(Flags::BLOCK_TRAP));
        let ticket = self.begin();
        self.flags.set(flags);
        ticket
    }

    /// Whether a call may block, as far as the block trap is concerned.
    #[inline]
    pub(crate) fn may_block(&self) -> Result<(), Refused> {
        match self.flags.get().any(Flags::BLOCK_TRAP) {
            true => Err(Refused::BlockTrap),
            false => Ok(()),
        }
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
        Some((Key { index: ticket.index, id: task.id }, task.name.clone()))
    }

    /// Waits until `ticket` is used or `deadline`, in nanoseconds of the scheduler's clock, has passed.
    #[inline]
    pub(crate) fn wait(
        &self,
        ticket: Ticket,
        waiting: Waiting,
        deadline: Option<u64>,
    ) -> Result<(), Interrupt> {
        self.core.borrow_mut().park(ticket, waiting, deadline);
        self.leave();
        let mut core = self.core.borrow_mut();
        let Some(task) = core.tasks.get_mut(ticket.index as usize) else {
            return Err(Interrupt::Refused(Refused::ThreadEnded));
        };
        match mem::replace(&mut task.wake, Wake::Unparked) {
            Wake::Unparked => Ok(()),
            Wake::Deadline => Err(Interrupt::Deadline),
            Wake::Deadlock(report) => Err(Interrupt::Deadlock(report)),
            Wake::Thrown(error) => Err(Interrupt::Thrown(error)),
        }
    }

    /// Wakes the wait of `ticket`: it goes to the tail. False when that wait is over.
    #[inline]
    pub(crate) fn unpark(&self, ticket: Ticket) -> bool {
        let mut core = self.core.borrow_mut();
        if !core.unpark(ticket, Wake::Unparked) {
            return false;
        }
        core.enqueue(ticket.index);
        true
    }

    /// Wakes the wait of `ticket` and makes it next, the caller last. False when that wait is over.
    ///
    /// When true, the caller has to [`leave`](Self::leave).
    #[inline]
    pub(crate) fn hand_over(&self, ticket: Ticket) -> bool {
        let mut core = self.core.borrow_mut();
        if !core.unpark(ticket, Wake::Unparked) {
            return false;
        }
        core.enqueue_front(ticket.index);
        core.enqueue_current();
        true
    }

    /// Wakes the wait of `ticket` and puts it, then the caller, at the tail. False when that wait is over.
    ///
    /// When true, the caller has to [`leave`](Self::leave).
    pub(crate) fn schedule_all(&self, ticket: Ticket) -> bool {
        let mut core = self.core.borrow_mut();
        if !core.unpark(ticket, Wake::Unparked) {
            return false;
        }
        core.enqueue(ticket.index);
        core.enqueue_current();
        true
    }

    /// Makes way. The caller has already put itself where it wants to be found.
    #[inline(always)]
    pub(crate) fn leave(&self) {
        if !self.switch.leave() {
            self.leave_main();
        }
        if self.flags.get().any(Flags::UNWIND.with(Flags::SWITCHES_SEEN)) {
            self.arrive();
        }
    }

    /// What the tasklet that has just been switched to does before it goes on.
    #[cold]
    pub(crate) fn arrive(&self) {
        if let (true, Some(switched)) =
            (self.flags.get().any(Flags::SWITCHES_SEEN), self.switched.get())
        {
            switched(self);
        }
        if self.flags.get().any(Flags::UNWIND) {
            self.unwind();
        }
    }

    // Handles.

    pub(crate) fn current(&self) -> (Key, Option<Arc<str>>) {
        let mut core = self.core.borrow_mut();
        if !self.has_ended() {
            self.settle_in(&mut core);
        }
        let task = core.tasks.get(core.current as usize);
        (core.current_key(), task.and_then(|task| task.name.clone()))
    }

    pub(crate) fn run_count(&self) -> usize {
        let core = self.core.borrow();
        // The one that runs is in the ring; the loop asks nobody to count.
        core.queue.len() + 1
    }

    pub(crate) fn status(&self, key: Key) -> Status {
        let core = self.core.borrow();
        let Some(task) = core.find(key) else {
            // Main is there before the table is.
            return if key.id == TaskletId::MAIN { Status::Current } else { Status::Dead };
        };
        match task.state {
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
        core.find(key).is_some_and(|task| task.flags.any(Flags::BLOCK_TRAP))
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
            let guards = &mut self.core.borrow_mut().tasks[key.index as usize].no_switch;
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
        let task = &mut core.tasks[key.index as usize];
        task.no_switch =
            task.no_switch.and_then(|(first, count)| Some((first, count.checked_sub(1)?)));
        if task.no_switch.is_none_or(|(_, count)| count == 0) {
            task.no_switch = None;
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
        for (_, task) in &mut core.tasks {
            task.flags = change(task.flags);
        }
        self.flags.set(change(self.flags.get()));
    }

    /// Lets the tasklet that runs go unseen; gives what it was seen by.
    pub(crate) fn pause_observers(&self) -> Flags {
        let seen = self.core.borrow().seen;
        let (key, _) = self.current();
        self.change_flags(key, |flags| flags.without(seen));
        seen
    }

    /// Ends what [`pause_observers`](Self::pause_observers) began.
    pub(crate) fn resume_observers(&self, seen: Flags) {
        let (key, _) = self.current();
        let still = self.core.borrow().seen;
        self.change_flags(key, |flags| flags.with(seen.common(still)));
    }

    fn change_flags(&self, key: Key, change: impl FnOnce(Flags) -> Flags) -> bool {
        let mut core = self.core.borrow_mut();
        if !self.has_ended() {
            self.settle_in(&mut core);
        }
        if core.find(key).is_none() {
            return false;
        }
        let flags = change(core.tasks[key.index as usize].flags);
        core.tasks[key.index as usize].flags = flags;
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
            match core.tasks[key.index as usize].state {
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
        Ok(())
    }

    // The end of a tasklet.

    /// Sends a panic that nobody holds a handle for to the innermost `run`, or to main, which runs next.
    pub(crate) fn raise(&self, payload: Payload) {
        let mut core = self.core.borrow_mut();
        let target = core.runners.last().copied().unwrap_or(MAIN);
        // Whoever gets it runs before anyone else can panic, unless it is the panic of an observer or a killer.
        let unread = core.raised.replace((target, payload));
        core.totals.unread_panics += usize::from(unread.is_some());
        match core.tasks[target as usize].state {
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
        // Its destructor is the user's.
        drop(unread);
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

    // Run.

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
            let _innermost = OnReturn(|| self.core.borrow_mut().leave_run(me));
            self.leave();
            self.raise_here();
        }
        self.core.borrow().summary(before)
    }

    /// Raises the panic that was sent to the tasklet that runs, and drops what jobs that never ran left.
    fn raise_here(&self) {
        let mut core = self.core.borrow_mut();
        let me = core.current;
        let raised = core.raised.take_if(|(target, _)| *target == me);
        let leftovers = mem::take(&mut core.leftovers);
        drop(core);
        if !leftovers.is_empty() {
            self.drop_leftovers(leftovers);
        }
        if let Some((_, payload)) = raised {
            resume_unwind(payload);
        }
    }

    /// Drops closures that never ran. They may wait, while how the caller's own wait ended is not known to it yet.
    fn drop_leftovers(&self, leftovers: Vec<Rc<dyn Job>>) {
        let me = self.core.borrow().current as usize;
        let take = |wake| {
            let mut core = self.core.borrow_mut();
            core.tasks.get_mut(me).map_or(Wake::Unparked, |task| mem::replace(&mut task.wake, wake))
        };
        let wake = take(Wake::Unparked);
        drop(leftovers);
        take(wake);
    }

    // The loop.

    /// Runs the loop until main's turn.
    #[cold]
    #[inline(never)]
    fn leave_main(&self) {
        if self.uncovered.get() && thread_end::in_destructor() {
            self.end();
            return;
        }
        {
            // By any road: a driver is somebody else's code and may panic.
            let _hand_back = OnReturn(|| self.hand_back());
            self.run_until_main();
        }
        self.raise_here();
    }

    /// Main goes on, on the native stack.
    fn hand_back(&self) {
        let mut core = self.core.borrow_mut();
        if std::thread::panicking() {
            core.resume_main();
            self.flags.set(core.tasks[MAIN as usize].flags);
        }
        if core.started > 0 {
            self.mark();
        }
    }

    /// Makes sure that the end of the thread is seen before any thread-local that exists now is gone.
    fn mark(&self) {
        let markers = self.markers.get();
        self.uncovered.set(markers >= thread_end::MAX_MARKERS);
        if !self.uncovered.get() {
            self.markers.set(markers + 1);
            thread_end::register(self.at_end);
        }
    }

    fn run_until_main(&self) {
        let mut core = self.core.borrow_mut();
        loop {
            if core.turns_left == 0 || core.queue.is_empty() {
                drop(core);
                self.look_outside();
                core = self.core.borrow_mut();
                continue;
            }
            let (index, mut context) = match core.next() {
                Turn::Enter(index, context, flags) => {
                    self.flags.set(flags);
                    (index, context)
                }
                Turn::Main(flags) => return self.flags.set(flags),
                Turn::NoStack => continue,
            };
            drop(core);
            let left = context.enter(&self.switch);
            core = self.core.borrow_mut();
            match left {
                Left::Suspended => core.tasks[index as usize].context = Some(context),
                Left::Finished => core.finish(index, context),
            }
        }
    }

    /// Hears the news from outside, waiting for some if nobody can run.
    #[cold]
    fn look_outside(&self) {
        let mut core = self.core.borrow_mut();
        core.turns_left = TURNS;
        if core.queue.is_empty() && core.feed_starved() {
            return;
        }
        let (runnable, outside) = (!core.queue.is_empty(), core.outside > 0);
        let news = self.has_news();
        let quiet = core.timers.is_empty() && self.driver.borrow().is_none() && !news;
        drop(core);
        match (runnable, outside || news) {
            (true, _) if quiet => {}
            (true, _) => self.wait_outside(Some(Duration::ZERO)),
            (false, true) => self.wait_outside(self.until_next_deadline()),
            (false, false) => self.resolve(),
        }
    }

    fn wait_outside(&self, timeout: Option<Duration>) {
        let mut woken = mem::take(&mut *self.woken.borrow_mut());
        let timeout = self.collect_before_wait(timeout, &mut woken);
        let now = {
            let (mut driver, mut idle) = (self.driver.borrow_mut(), self.idle.borrow_mut());
            let driver: &mut dyn Driver = match &mut *driver {
                Some(driver) => &mut **driver,
                None => &mut *idle,
            };
            match driver.wait(timeout, &mut woken) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    panic!("the driver can no longer wait for news from outside: {error}")
                }
                _ => driver.now(),
            }
        };
        if let Some(mailbox) = &*self.mailbox.borrow()
            && (timeout != Some(Duration::ZERO) || mailbox.has_news())
        {
            mailbox.collect(&mut woken);
        }
        self.core.borrow_mut().hear(now, &woken);
        woken.clear();
        self.woken.replace(woken);
    }

    fn has_news(&self) -> bool {
        self.mailbox.borrow().as_ref().is_some_and(|mailbox| mailbox.has_news())
    }

    /// Takes what other threads have posted and says how long the driver may wait after that.
    fn collect_before_wait(
        &self,
        timeout: Option<Duration>,
        woken: &mut Vec<Ticket>,
    ) -> Option<Duration> {
        let mailbox = self.mailbox.borrow();
        let Some(mailbox) = mailbox.as_ref().filter(|_| timeout != Some(Duration::ZERO)) else {
            return timeout;
        };
        let can_be_notified = mailbox.collect_before_wait(woken);
        if !woken.is_empty() {
            return Some(Duration::ZERO);
        }
        match can_be_notified {
            true => timeout,
            false => Some(timeout.map_or(BLIND_WAIT, |timeout| timeout.min(BLIND_WAIT))),
        }
    }

    /// What other threads post to. Only for a thread that has settled in, so that its end will be seen.
    pub(crate) fn mailbox(&self) -> Arc<Mailbox> {
        if self.has_ended() {
            let closed = Mailbox::new(None);
            closed.close();
            return Arc::new(closed);
        }
        let mut mailbox = self.mailbox.borrow_mut();
        let mailbox = mailbox.get_or_insert_with(|| Arc::new(Mailbox::new(self.notifier())));
        mailbox.clone()
    }

    pub(crate) fn is_own(&self, mailbox: &Arc<Mailbox>) -> bool {
        self.mailbox.borrow().as_ref().is_some_and(|own| Arc::ptr_eq(own, mailbox))
    }

    fn notifier(&self) -> Option<Arc<dyn Notify>> {
        match &*self.driver.borrow() {
            Some(driver) => driver.notifier(),
            None => self.idle.borrow().notifier(),
        }
    }

    /// Has `heir` told of the thread's end, until [`disinherit`](Self::disinherit).
    pub(crate) fn inherit(&self, heir: Arc<dyn Heir>, number: u64) -> usize {
        self.heirs.borrow_mut().insert((heir, number))
    }

    pub(crate) fn disinherit(&self, key: usize) {
        let heir = self.heirs.borrow_mut().try_remove(key);
        drop(heir);
    }

    /// How long the driver may wait: until the next deadline, if there is one.
    fn until_next_deadline(&self) -> Option<Duration> {
        let next = self.core.borrow().timers.next_deadline()?;
        Some(Duration::from_nanos(next.saturating_sub(self.now())))
    }

    /// Decides who goes on when nobody can and nothing outside can change that: someone who waits for a stack ends
    /// without one; else the innermost `run` returns; else main goes on, unless it is blocked: then the one that made
    /// way last is told, or main when that one has ended.
    #[cold]
    fn resolve(&self) {
        let mut core = self.core.borrow_mut();
        if let Some(index) = core.starved.pop_front() {
            drop(core);
            return self.end_without_stack(index);
        }
        if let Some(&runner) = core.runners.last() {
            return core.enqueue(runner);
        }
        let State::Parked(sequence) = core.tasks[MAIN as usize].state else {
            return core.enqueue(MAIN);
        };
        let wake = Wake::Deadlock(table::report(&core.tasks, &core.holders, core.now));
        match core.last {
            Last::Paused(key) if core.find(key).is_some_and(|task| task.state == State::Paused) => {
                core.tasks[key.index as usize].wake = wake;
                core.enqueue(key.index);
            }
            Last::Parked(ticket) if core.is_parked(ticket) => core.interrupt(ticket, wake),
            Last::Paused(_) | Last::Parked(_) | Last::Ended => {
                core.interrupt(Ticket { index: MAIN, sequence }, wake);
            }
        }
    }

    /// Ends one that never started, for no stack can be had and none will be freed.
    fn end_without_stack(&self, index: u32) {
        let mut core = self.core.borrow_mut();
        let class = core.tasks[index as usize].class;
        let Err(error) = core.stacks.check(class) else {
            return core.enqueue(index);
        };
        let task = core.tasks.remove(index as usize);
        core.totals.no_stack += 1;
        core.last = Last::Ended;
        let job = task.job.expect("only what never started lacks a stack");
        drop(core);
        job.refuse(JoinError::NoStack(error.into()));
        self.core.borrow_mut().leftovers.push(job);
    }

    // Time.

    /// The time, in nanoseconds of the scheduler's clock.
    pub(crate) fn now(&self) -> u64 {
        let now = self.clock();
        self.core.borrow_mut().nanoseconds(now)
    }

    /// The driver's clock.
    pub(crate) fn clock(&self) -> Instant {
        self.driver.borrow().as_ref().map_or_else(Instant::now, |driver| driver.now())
    }

    /// `duration` from now, in nanoseconds of the scheduler's clock.
    pub(crate) fn deadline_in(&self, duration: Duration) -> u64 {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.now().saturating_add(nanoseconds)
    }

    /// `instant` in nanoseconds of the scheduler's clock.
    pub(crate) fn nanoseconds(&self, instant: Instant) -> u64 {
        // The epoch must not lie after the first instant that is asked about.
        if self.core.borrow().epoch.is_none() {
            self.now();
        }
        self.core.borrow_mut().nanoseconds(instant)
    }

    pub(crate) fn install(&self, driver: Box<dyn Driver>) -> Result<(), AlreadyInstalled> {
        let mut place = self.driver.borrow_mut();
        if place.is_some() || self.has_ended() {
            return Err(AlreadyInstalled);
        }
        // The driver must end with its thread, even when no tasklet ever ran on it.
        self.settle_in(&mut self.core.borrow_mut());
        if let Some(mailbox) = &*self.mailbox.borrow() {
            mailbox.set_notifier(driver.notifier());
        }
        *place = Some(driver);
        Ok(())
    }

    // The end of the thread.

    /// Leaks what is suspended, drops the rest, and refuses all waiting from now on.
    pub(crate) fn end(&self) {
        if self.flags.replace(Flags::ENDED).any(Flags::ENDED) {
            return;
        }
        let core = mem::replace(&mut *self.core.borrow_mut(), Core::new());
        let driver = self.driver.borrow_mut().take();
        self.leave_to_others();
        let Core { tasks, stacks, started, leftovers, raised, .. } = core;
        if started > 0 {
            stacks.leak();
        }
        // Dropping a context leaks it. A closure that never started may panic, which must not reach the C library.
        for (_, mut task) in tasks {
            let mut locals = mem::take(&mut task.locals);
            if task.id == TaskletId::MAIN {
                while let Some(value) = locals.take_last() {
                    drop_quietly(value);
                }
            }
            mem::forget(locals);
            drop_quietly(task);
        }
        drop_quietly((leftovers, raised));
        drop_quietly(driver);
    }

    /// Lets other threads know that nobody here is going to wake up.
    fn leave_to_others(&self) {
        if let Some(mailbox) = self.mailbox.take() {
            mailbox.close();
        }
        for (_, (heir, number)) in self.heirs.take() {
            heir.thread_ended(number);
            drop_quietly(heir);
        }
        drop_quietly(self.idle.take());
    }
}

/// Drops `value`; a panic of its destructor ends here, after its message was printed.
pub(crate) fn drop_quietly<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        mem::forget(payload);
    }
}

/// Calls its function when it goes, by any road.
struct OnReturn<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnReturn<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
