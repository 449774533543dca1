//! The scheduler of one thread: the table of tasklets, the loop, and what happens when nobody can run.
//!
//! - The loop runs on the thread's native stack, in whatever call main blocks in. It runs no code of the user but by
//!   entering a tasklet, and never while the thread unwinds.
//! - `core` is borrowed for moments only, never across a switch and never while code of the user runs.
//! - Main is in the ring like any tasklet; its turn ends the loop.
//! - `outside` counts the parked tasklets that time, a socket or another thread can wake. When it is zero and the queue
//!   is empty, nothing can happen any more: `resolve` says who goes on then.

mod attend;
mod handles;
mod outside;
pub(crate) mod root;
mod run;
mod stacks;
mod stint;
mod trace;
mod turns;
mod vigil;

pub(crate) use trace::Errand;
pub(crate) use turns::Wait;

use std::{
    any::Any,
    cell::{Cell, OnceCell, RefCell},
    io, mem,
    panic::{AssertUnwindSafe, Location, catch_unwind},
    rc::Rc,
    sync::Arc,
    task::Waker,
    time::Duration,
};

use slab::Slab;

use crate::{
    backtrace::Tracer,
    census,
    context::Switch,
    driver::{Driver, Idle},
    error::Refused,
    mailbox::{Heir, Mailbox},
    overflow::{self, AlternateStack, Who},
    packets::Packets,
    roster::Member,
    stack::SizeClass,
    state::{Core, Turn},
    table::{Flags, Job, Key, LiveFlags, MAIN, Stand, State},
    thread_end,
    wake::{TaskletId, Ticket},
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
    pub(crate) flags: LiveFlags,
    /// Called at the end of the thread.
    at_end: fn(),
    /// Says who runs, to whoever tells of an overflow.
    who: Who,
    /// What overflows are told on, from the first use of the scheduler on.
    alternate: RefCell<Option<AlternateStack>>,
    /// How many markers of the thread's end were registered.
    markers: Cell<u32>,
    /// Whether tasklets ran after the last marker.
    uncovered: Cell<bool>,
    /// Called by a tasklet that has been switched to, when someone watches.
    switched: Cell<Option<fn(&Scheduler)>>,
    /// Whether a callback runs: the tasklet it runs on goes unseen.
    unseen: Cell<bool>,
    /// How much may be done without waiting before the loop looks outside again.
    stint: Cell<u32>,
    /// Kept for its memory, between two looks outside.
    woken: RefCell<Vec<Ticket>>,
    /// What tasklets trace themselves with, while they are asked to.
    tracer: RefCell<Option<Tracer>>,
    /// What the tasklet that runs wants done on the native stack.
    errand: RefCell<Option<Errand>>,
    /// What tasklets that have ended leave for those to come.
    pub(crate) packets: RefCell<Packets>,
    /// The wakers of waits that only clones of them can end, each with the number of its wait; and how many such waits
    /// there are, with those whose waker was let go.
    vigils: RefCell<Slab<(u64, Waker)>>,
    vigil_count: Cell<usize>,
    /// How this thread is known to those who look at all threads, once there are any.
    member: OnceCell<Arc<Member>>,
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
    /// `at_end` is called when the thread ends and passes on to [`end`](Self::end), `who` when a stack overflows and passes
    /// on to [`who_overflows`](Self::who_overflows).
    pub(crate) const fn new(at_end: fn(), who: Who) -> Scheduler {
        Scheduler {
            core: RefCell::new(Core::new()),
            switch: Switch::new(),
            driver: RefCell::new(None),
            idle: RefCell::new(Idle::new()),
            mailbox: RefCell::new(None),
            heirs: RefCell::new(Slab::new()),
            flags: LiveFlags::new(Flags::NONE),
            at_end,
            who,
            alternate: RefCell::new(None),
            markers: Cell::new(0),
            uncovered: Cell::new(false),
            switched: Cell::new(None),
            unseen: Cell::new(false),
            stint: Cell::new(stint::STINT),
            woken: RefCell::new(Vec::new()),
            tracer: RefCell::new(None),
            errand: RefCell::new(None),
            packets: RefCell::new(Packets::new()),
            vigils: RefCell::new(Slab::new()),
            vigil_count: Cell::new(0),
            member: OnceCell::new(),
        }
    }

    pub(crate) fn switch(&self) -> &Switch {
        &self.switch
    }

    /// Whether a call may wait now, if it has to.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Refused> {
        if self.is_refused() {
            return Err(self.refuse());
        }
        Ok(())
    }

    /// Whether nothing may wait: the thread or the tasklet that runs is being ended, or it unwinds.
    #[inline]
    pub(crate) fn is_refused(&self) -> bool {
        self.flags.get().any(Flags::ENDING) || std::thread::panicking()
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
        let rare = core.tasks[core.current as usize].rare.as_ref();
        let guard = rare.and_then(|rare| rare.no_switch);
        Refused::NoSwitch(guard.expect("the flag is up while a guard is in force").0)
    }

    /// Whether the thread's thread-locals are being destroyed.
    pub(crate) fn has_ended(&self) -> bool {
        self.flags.get().any(Flags::ENDED)
    }

    /// Makes a tasklet. When nothing may start any more the job is handed back.
    // What most have no need of is left out where this is inlined.
    #[inline(always)]
    pub(crate) fn create(
        &self,
        job: Rc<dyn Job>,
        class: SizeClass,
        name: Option<Arc<str>>,
        created: &'static Location<'static>,
        birth: Birth,
        scope: Option<u32>,
    ) -> Result<Key, (Rc<dyn Job>, Refused)> {
        if let Some(refused) = scope.and_then(|scope| self.refuses_another(scope)) {
            return Err((job, refused));
        }
        let key = self.add(job, class, created, birth)?;
        if name.is_some() || scope.is_some() {
            self.settle(key, name, scope);
        }
        Ok(key)
    }

    /// Why `scope` can have no other tasklet: it, or the one that runs, is being ended.
    fn refuses_another(&self, scope: u32) -> Option<Refused> {
        if self.has_ended() {
            return Some(Refused::ThreadEnded);
        }
        if self.is_refused() {
            return Some(self.refusal());
        }
        self.core.borrow_mut().scopes.get(scope).ending.then_some(Refused::ScopeEnds)
    }

    #[inline(never)]
    fn add(
        &self,
        job: Rc<dyn Job>,
        class: SizeClass,
        created: &'static Location<'static>,
        birth: Birth,
    ) -> Result<Key, (Rc<dyn Job>, Refused)> {
        if self.has_ended() {
            return Err((job, Refused::ThreadEnded));
        }
        let mut core = self.core.borrow_mut();
        self.settle_in(&mut core);
        let id = TaskletId(core.next_id);
        core.next_id += 1;
        let (since, flags) = (core.now, core.seen);
        let stand = Stand { context: None, state: State::Paused, flags, class };
        let index = core.insert(stand, |task| {
            (task.id, task.job, task.since) = (id, Some(job), since);
            task.created = created;
        });
        if birth == Birth::Queued {
            core.enqueue(index);
        }
        Ok(Key { index, id })
    }

    /// Gives a new tasklet its name and its scope.
    fn settle(&self, key: Key, name: Option<Arc<str>>, scope: Option<u32>) {
        let mut core = self.core.borrow_mut();
        let member = scope.map(|scope| core.scopes.join(scope, key));
        let task = &mut core.tasks[key.index as usize];
        task.member = member;
        if name.is_some() {
            task.rare().name = name;
        }
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

    /// Makes sure that main has its slot, and that the thread's end and overflows will be seen.
    #[inline(always)]
    pub(crate) fn settle_in(&self, core: &mut Core) {
        if core.tasks.is_empty() {
            self.settle_in_first(core);
        }
    }

    #[cold]
    fn settle_in_first(&self, core: &mut Core) {
        core.add_main();
        self.mark();
        self.introduce();
        *self.alternate.borrow_mut() = overflow::watch(self.who);
        if census::is_wanted() {
            core.stacks.count();
        }
    }

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
            self.flags.set(core.stands[MAIN as usize].flags);
        }
        if core.started > 0 {
            self.mark();
        }
    }

    /// Makes sure that the end of the thread is seen before any thread-local that exists now is gone.
    fn mark(&self) {
        let markers = self.markers.get();
        let look_instead = markers >= thread_end::MAX_MARKERS && thread_end::can_see();
        self.uncovered.set(look_instead);
        if !look_instead {
            self.markers.set(markers.saturating_add(1));
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
            match core.next() {
                Turn::Enter(context, flags) => {
                    self.flags.set(flags);
                    self.switch.load(Some(context));
                }
                Turn::Main(flags) => return self.flags.set(flags),
                Turn::NoStack => continue,
            }
            drop(core);
            let finished = self.switch.enter();
            core = self.core.borrow_mut();
            if let Some(context) = finished {
                core.finish(context);
            }
        }
    }

    /// What a tasklet does before it leaves: it has the next one entered, if that has a stack and nothing else is due.
    // Done here, the work lies outside of the two mispredicted jumps of a switch, and passes while they are resolved. Not
    // inlined, for a call that has returned before the switch does not disturb the return-address predictor.
    #[inline(never)]
    pub(crate) fn choose(&self) {
        self.choose_with(&mut self.core.borrow_mut());
    }

    #[inline(always)]
    pub(crate) fn choose_with(&self, core: &mut Core) {
        let me = core.current as usize;
        let next = core.next_started().map(|(context, flags)| {
            self.flags.set(flags);
            context
        });
        core.stands[me].context = self.switch.load(next);
    }

    /// Leaks what is suspended, drops the rest, and refuses all waiting from now on.
    pub(crate) fn end(&self) {
        if self.flags.replace(Flags::ENDED).any(Flags::ENDED) {
            return;
        }
        self.count_stacks_in_use();
        let core = mem::replace(&mut *self.core.borrow_mut(), Core::new());
        let driver = self.driver.try_borrow_mut().ok().and_then(|mut driver| driver.take());
        self.leave_to_others();
        let Core { tasks, stacks, leftovers, raised, scopes, .. } = core;
        // What found no stack in a scope borrows from what is suspended.
        mem::forget(scopes);
        if stacks.is_in_use() {
            stacks.leak();
        }
        // Dropping a context leaks it. A closure that never started may panic, which must not reach the C library.
        for (_, mut task) in tasks {
            let mut locals =
                task.rare.as_mut().map(|rare| mem::take(&mut rare.locals)).unwrap_or_default();
            if task.id == TaskletId::MAIN {
                while let Some(value) = locals.take_last() {
                    drop_quietly(value);
                }
            }
            mem::forget(locals);
            // It may borrow from what is suspended and leaked, and that from a thread-local.
            if let Some(job) = task.job.take_if(|job| job.is_scoped()) {
                mem::forget(job);
            }
            drop_quietly(task);
        }
        leftovers.into_iter().for_each(drop_quietly);
        drop_quietly(raised);
        drop_quietly(driver);
        drop(self.alternate.take());
        self.forget_packets();
    }

    /// Gives back the memory of the packets that were kept.
    pub(crate) fn forget_packets(&self) {
        self.packets.replace(Packets::new());
    }

    /// Lets other threads know that nobody here is going to wake up.
    fn leave_to_others(&self) {
        if let Some(member) = self.member.get() {
            member.leave();
        }
        if let Some(mailbox) = self.mailbox.take() {
            mailbox.close();
        }
        for (_, (heir, number)) in self.heirs.take() {
            heir.thread_ended(number);
            drop_quietly(heir);
        }
        drop_quietly((self.idle.take(), self.vigils.take()));
    }
}

/// Drops `value`; a panic of its destructor ends here, after its message was printed.
pub(crate) fn drop_quietly<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        mem::forget(payload);
    }
}

/// Calls its function when it goes, by any road.
pub(crate) struct OnReturn<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnReturn<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
