//! Tasklets that are stopped together.
//!
//! - A tasklet is a member from its creation until it has left its stack for the last time, or its closure, never started,
//!   is dropped. So when a stop has seen the last one go, every destructor has run.
//! - A stop goes through its steps whatever happens meanwhile: a panic that main gets is kept and raised when all is over.

use std::{
    cell::{Cell, RefCell},
    fmt, io,
    panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use slab::Slab;

use crate::{
    current::with,
    ending::{is_kill, is_strike},
    error::{Interrupt, JoinError, NO_UNWINDING, Refused, TaskletError},
    frame::FrameKey,
    herald::StopUnderWay,
    report::Who,
    scheduler::{Birth, Payload, Scheduler, drop_quietly},
    stack::SizeClass,
    table::{Job, Key},
    tasklet::{Builder, Handle, Tasklet, current},
    wake::{TaskletId, Ticket, Waiting},
};

/// Tasklets that are stopped together: given time to end, then killed, and reported if they go on all the same. Clones
/// share the group.
///
/// What a member starts with [`tasklet`](crate::tasklet) is no member.
///
/// ```
/// # use pila_runtime as pila;
/// use std::time::Duration;
///
/// let group = pila::Group::new();
/// for milliseconds in [1, 2, u64::MAX] {
///     group.tasklet(move || pila::sleep(Duration::from_millis(milliseconds)));
/// }
/// let stopped = group.stop(Duration::from_millis(200));
/// assert_eq!(stopped.to_string(), "2 ended by themselves, 1 killed, 0 still alive");
/// ```
#[derive(Clone, Default)]
pub struct Group {
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Those that have not ended. `None` for one that is being created.
    members: RefCell<Slab<Option<Handle>>>,
    /// Set by the first stop, for good.
    stopping: Cell<bool>,
    /// The calls of `until_stop` that have not returned.
    calls: RefCell<Slab<Call>>,
    /// The stops that are under way.
    stops: RefCell<Slab<Stop>>,
}

impl Group {
    /// A group without members.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// assert!(pila::Group::new().is_empty());
    /// ```
    #[must_use]
    pub fn new() -> Group {
        Group::default()
    }

    /// Creates a tasklet of the group, as [`tasklet`](crate::tasklet) does.
    ///
    /// Once the group is being stopped, `f` is dropped, and [`join`](Tasklet::join) gives [`JoinError::Refused`] with
    /// [`Refused::Stopping`].
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use std::time::Duration;
    ///
    /// let group = pila::Group::new();
    /// assert_eq!(group.tasklet(|| 6 * 7).join().unwrap(), 42);
    /// group.stop(Duration::ZERO);
    /// let late = group.tasklet(|| 6 * 7).join().unwrap_err();
    /// assert_eq!(late.to_string(), "the group is being stopped: it begins nothing and waits for nothing any more");
    /// ```
    #[doc(alias = "spawn")]
    #[track_caller]
    pub fn tasklet<F, T>(&self, f: F) -> Tasklet<T>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        self.create(f, SizeClass::DEFAULT, None)
    }

    /// As [`tasklet`](Group::tasklet), with the name and the stack size of `builder`.
    ///
    /// # Errors
    /// As [`Builder::tasklet`].
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let group = pila::Group::new();
    /// let named = group.tasklet_with(pila::Builder::new().name("reaper"), || ())?;
    /// assert_eq!(named.name(), Some("reaper"));
    /// # pila::run();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn tasklet_with<F, T>(&self, builder: Builder, f: F) -> io::Result<Tasklet<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let (class, name) = builder.settle()?;
        Ok(self.create(f, class, name))
    }

    #[track_caller]
    fn create<F, T>(&self, f: F, class: SizeClass, name: Option<Arc<str>>) -> Tasklet<T>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        if self.is_stopping() {
            return Tasklet::refused(f, name, Refused::Stopping);
        }
        let place = self.shared.members.borrow_mut().insert(None);
        let _membership = Membership { shared: self.shared.clone(), place };
        let enrol = |job| Rc::new(Member { job: Cell::new(Some(job)), _membership }) as Rc<dyn Job>;
        let tasklet = Tasklet::create_as(f, class, name, Birth::Queued, enrol);
        // At the end of the thread there is none, and its membership has ended.
        if let Some(member) = self.shared.members.borrow_mut().get_mut(place) {
            *member = Some(tasklet.handle());
        }
        tasklet
    }

    /// How many members have not ended.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let group = pila::Group::new();
    /// group.tasklet(|| ());
    /// assert_eq!(group.len(), 1);
    /// pila::run();
    /// assert_eq!(group.len(), 0);
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.members.borrow().len()
    }

    /// Whether all members have ended.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let group = pila::Group::new();
    /// group.tasklet(|| ());
    /// assert!(!group.is_empty());
    /// # pila::run();
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the group is being stopped, or has been.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let group = pila::Group::new();
    /// assert!(!group.is_stopping());
    /// group.stop(std::time::Duration::ZERO);
    /// assert!(group.is_stopping());
    /// ```
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.shared.stopping.get()
    }

    /// Calls `f`, and ends it when the group is stopped: it unwinds out of the call in which it waits then, its destructors
    /// run, and this gives `None`. When the group is being stopped already, `f` is not called.
    ///
    /// It is a [`timeout`](crate::timeout) that strikes at the stop, with all that is said there: every call that waits is
    /// covered, one that has what it waited for is not undone, and what `f` gives all the same is given. So a connection
    /// that was accepted is not lost. Bytes that `f` itself has put somewhere are gone with it: end a read of a whole
    /// message so only where half of one is not wanted either.
    ///
    /// The caller need not be a member.
    ///
    /// # Panics
    /// In a program built with `panic = "abort"`, where nothing can be unwound.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use std::time::Duration;
    ///
    /// let (group, work) = (pila::Group::new(), pila::Channel::<u32>::new());
    /// let (ours, theirs) = (group.clone(), work.clone());
    /// let worker = group.tasklet(move || {
    ///     let mut sum = 0;
    ///     while let Some(number) = ours.until_stop(|| theirs.receive()) {
    ///         sum += number.unwrap();
    ///     }
    ///     sum
    /// });
    /// work.send_all([1, 2, 3]).unwrap();
    /// assert_eq!(group.stop(Duration::from_secs(1)).ended, 1);
    /// assert_eq!(worker.join().unwrap(), 6);
    /// ```
    #[track_caller]
    pub fn until_stop<T>(&self, f: impl FnOnce() -> T) -> Option<T> {
        if cfg!(panic = "abort") {
            panic!("until_stop cannot end its closure: {NO_UNWINDING}");
        }
        if self.is_stopping() {
            return None;
        }
        let frame = with(|scheduler| scheduler.begin_limit(Refused::Stopping, None));
        let Some(frame) = frame else { return Some(f()) };
        let call = Call { caller: with(|scheduler| scheduler.current().0), frame };
        let place = self.shared.calls.borrow_mut().insert(call);
        let result = catch_unwind(AssertUnwindSafe(f));
        let call = self.shared.calls.borrow_mut().remove(place);
        with(|scheduler| scheduler.end_frame(call.frame));
        match result {
            Ok(value) => Some(value),
            Err(payload) if Scheduler::is_for(&payload, frame) => None,
            Err(payload) => resume_unwind(payload),
        }
    }

    /// Stops the group:
    ///
    /// 1. It takes no new tasklets, and whoever is in [`until_stop`](Group::until_stop) returns from there.
    /// 2. Waits until all its tasklets have ended, for `grace` at most.
    /// 3. Kills those that have not, as [`Handle::kill`] does, so that their destructors run.
    /// 4. Says how many ended in which way, and who is alive all the same.
    ///
    /// A caller that is a member itself is left out. A caller that may not wait goes on to the third step at once.
    ///
    /// When the process was asked to end by a signal that [`signals`](crate::signals) received, a second one while this is
    /// under way ends the process at once, with a line on stderr and the status that shells give to one that a signal
    /// ended: 130 for Ctrl-C.
    ///
    /// # Panics
    /// When all is over, with the first panic of a tasklet that nobody holds the handle of, when it is main that calls.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use std::{panic::catch_unwind, time::Duration};
    ///
    /// let group = pila::Group::new();
    /// group.tasklet(|| {
    ///     while catch_unwind(|| pila::sleep(Duration::MAX)).is_err() || true {} // will not be told
    /// });
    /// let stopped = group.stop(Duration::from_millis(1));
    /// assert!(stopped.to_string().starts_with("0 ended by themselves, 0 killed, 1 still alive: #1 (created at "));
    /// ```
    #[doc(alias = "shutdown")]
    #[doc(alias = "drain")]
    pub fn stop(&self, grace: Duration) -> Stopped {
        let _under_way = StopUnderWay::begin();
        self.shared.stopping.set(true);
        self.shared.strike_calls();
        let stopping = Stopping::begin(&self.shared);
        let members = self.shared.to_stop();
        let mut panic = None;
        stopping.wait(grace, &mut panic);
        let (mut killed, mut alive) = (Vec::new(), Vec::new());
        for member in self.shared.to_stop() {
            // It may have ended with one before it.
            if member.is_alive() {
                let error = keep_panic(&mut panic, || member.kill().err()).flatten();
                match member.is_alive() {
                    true => alive.push(Survivor::new(&member, error)),
                    false => killed.push(member.id()),
                }
            }
        }
        drop(stopping);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
        let was_killed = |member: &Handle| killed.binary_search(&member.id()).is_ok();
        let has_ended = |member: &&Handle| !member.is_alive() && !was_killed(member);
        let ended = members.iter().filter(has_ended).count();
        Stopped { ended, killed: killed.len(), alive }
    }
}

impl Shared {
    /// Ends the calls of `until_stop`, but those around the caller.
    fn strike_calls(&self) {
        with(|scheduler| {
            let mut core = scheduler.core.borrow_mut();
            let current = core.current_key();
            for (_, Call { caller, frame }) in &*self.calls.borrow() {
                if *caller != current {
                    core.strike(caller.index, frame.number);
                }
            }
        });
    }

    /// Whom a stop has to see ended: the members but those that are in `stop` themselves, the oldest first.
    fn to_stop(&self) -> Vec<Handle> {
        let (members, stops) = (self.members.borrow(), self.stops.borrow());
        let is_stopped =
            |member: &&Handle| stops.iter().all(|(_, stop)| stop.caller != member.id());
        let mut to_stop: Vec<Handle> = members
            .iter()
            .filter_map(|(_, member)| member.as_ref())
            .filter(is_stopped)
            .cloned()
            .collect();
        to_stop.sort_unstable_by_key(|member| member.id());
        to_stop
    }
}

/// A call of `until_stop`.
struct Call {
    caller: Key,
    /// The limit that a stop strikes.
    frame: FrameKey,
}

/// A call of `stop`.
struct Stop {
    caller: TaskletId,
    /// Its wait for the others to end.
    ticket: Option<Ticket>,
}

/// A call of `stop` that is under way.
struct Stopping<'a> {
    shared: &'a Shared,
    place: usize,
}

impl Stopping<'_> {
    fn begin(shared: &Shared) -> Stopping<'_> {
        let stop = Stop { caller: current().id(), ticket: None };
        Stopping { shared, place: shared.stops.borrow_mut().insert(stop) }
    }

    /// Waits until all have ended, for `grace` at most. Keeps the first panic that comes meanwhile.
    fn wait(&self, grace: Duration, panic: &mut Option<Payload>) {
        let deadline = with(|scheduler| scheduler.deadline_in(grace));
        while !grace.is_zero() && !self.shared.to_stop().is_empty() {
            let waited = keep_panic(panic, || {
                with(|scheduler| {
                    let ticket = scheduler.begin_sleep().map_err(Interrupt::Refused)?;
                    self.shared.stops.borrow_mut()[self.place].ticket = Some(ticket);
                    scheduler.wait(ticket, &Waiting::Group, deadline)
                })
            });
            // After a panic of another tasklet it goes on.
            if let Some(Err(_)) = waited {
                return;
            }
        }
    }
}

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.shared.stops.borrow_mut().remove(self.place);
    }
}

/// Calls `f`. None when it panicked, the first time with what is kept.
fn keep_panic<T>(kept: &mut Option<Payload>, f: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => Some(value),
        // The caller itself is being ended.
        Err(payload) if is_kill(&*payload) || is_strike(&*payload) => resume_unwind(payload),
        Err(payload) => {
            if let Some(second) = kept.replace(payload) {
                let second = kept.replace(second).expect("it was just kept");
                with(|scheduler| scheduler.panic_was_not_read());
                drop_quietly(second);
            }
            None
        }
    }
}

/// What a tasklet of a group was made to do.
struct Member {
    /// Taken when it runs.
    job: Cell<Option<Rc<dyn Job>>>,
    /// Ends with this: after all that the job does.
    _membership: Membership,
}

impl Member {
    fn with_job<T>(&self, f: impl FnOnce(&Rc<dyn Job>) -> T) -> T {
        let job = self.job.take().expect("it has not run");
        let value = f(&job);
        self.job.set(Some(job));
        value
    }
}

impl Job for Member {
    fn run(self: Rc<Self>) {
        let job = self.job.take().expect("a tasklet starts once");
        job.run();
    }

    fn refuse(&self, error: JoinError) {
        self.with_job(|job| job.refuse(error));
    }

    fn drop_closure(&self) {
        self.with_job(|job| job.drop_closure());
    }

    fn is_scoped(&self) -> bool {
        false
    }

    fn is_held(self: Rc<Self>) -> bool {
        self.with_job(|job| job.clone().is_held())
    }
}

/// A place among the members of a group.
struct Membership {
    shared: Rc<Shared>,
    place: usize,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let member = self.shared.members.borrow_mut().remove(self.place);
        drop(member);
        let mut stops = self.shared.stops.borrow_mut();
        // Those that stop may be members themselves.
        if self.shared.members.borrow().len() > stops.len() {
            return;
        }
        for (_, stop) in stops.iter_mut() {
            if let Some(ticket) = stop.ticket.take() {
                with(|scheduler| scheduler.unpark(ticket));
            }
        }
    }
}

/// What [`Group::stop`] did. `Display` gives it as a line for a log.
///
/// ```
/// # use pila_runtime as pila;
/// use std::time::Duration;
///
/// let group = pila::Group::new();
/// group.tasklet(|| ());
/// group.tasklet(|| pila::sleep(Duration::MAX));
/// let pila::Stopped { ended, killed, alive, .. } = group.stop(Duration::from_millis(10));
/// assert_eq!((ended, killed, alive.len()), (1, 1, 0));
/// ```
#[derive(Clone, Debug)]
#[must_use = "it says who is still alive"]
#[non_exhaustive]
pub struct Stopped {
    /// Members that ended by themselves, in the time that they were given.
    pub ended: usize,
    /// Members that were killed, and have ended.
    pub killed: usize,
    /// Members that go on although they were killed, the oldest first.
    pub alive: Vec<Survivor>,
}

/// A tasklet that goes on although it was killed.
///
/// ```
/// # use pila_runtime as pila;
/// use std::{panic::catch_unwind, time::Duration};
///
/// let group = pila::Group::new();
/// let stubborn = group.tasklet_with(pila::Builder::new().name("stubborn"), || {
///     loop {
///         let _ = catch_unwind(|| pila::sleep(Duration::MAX));
///     }
/// })?;
/// # let _: &pila::Tasklet<()> = &stubborn;
/// pila::schedule();
/// let stopped = group.stop(Duration::ZERO);
/// let survivor: &pila::Survivor = &stopped.alive[0];
/// assert_eq!(survivor.who.id, stubborn.id());
/// assert!(survivor.to_string().starts_with("'stubborn' (#1, created at "));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Survivor {
    /// Which one.
    pub who: Who,
    /// Where it was created.
    pub created: &'static Location<'static>,
    /// What [`Handle::kill`] said.
    pub error: TaskletError,
}

impl Survivor {
    fn new(member: &Handle, error: Option<TaskletError>) -> Survivor {
        let error = error.unwrap_or_else(|| TaskletError::StillAlive(member.who()));
        let created = member.created().expect("it is alive");
        Survivor { who: member.who(), created, error }
    }
}

impl fmt::Display for Survivor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Who { id, name } = &self.who;
        match name {
            Some(name) => write!(f, "'{name}' ({id}, created at {})", self.created),
            None => write!(f, "{id} (created at {})", self.created),
        }
    }
}

/// Survivors that a line names before it only counts them.
const NAMED: usize = 3;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stopped { ended, killed, alive } = self;
        write!(f, "{ended} ended by themselves, {killed} killed, {} still alive", alive.len())?;
        for (place, survivor) in alive.iter().take(NAMED).enumerate() {
            write!(f, "{} {survivor}", if place == 0 { ":" } else { "," })?;
        }
        match alive.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut group = f.debug_struct("Group");
        group.field("members", &self.len()).field("is_stopping", &self.is_stopping()).finish()
    }
}
