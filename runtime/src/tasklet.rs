//! Tasklets as their users see them: making them, holding them, joining them.
//!
//! - A tasklet belongs to its thread; a handle names it and owns nothing but, in [`Tasklet`], its result.

use std::{
    error::Error, fmt, io, marker::PhantomData, ops::Deref, panic::Location, rc::Rc, sync::Arc,
};

use crate::{
    current::with,
    ending::When,
    error::{JoinError, Refused, TaskletError, Thrown},
    packet::{Outcome, Packet},
    report::{Occasion, Report, Who},
    scheduler::{Birth, Status},
    stack::SizeClass,
    state::{Caller, Summary},
    table::{Job, Key, Task},
    wake::{TaskletId, Ticket},
};

/// Closures of more bytes than this are boxed.
const LARGE_CLOSURE: usize = 4096;

/// Creates a tasklet that runs `f` and puts it at the tail of the run queue. Dropping what it returns detaches it.
///
/// Nothing runs until the caller waits or yields: [`run`], [`schedule`], [`Tasklet::join`], any blocking call. The
/// tasklet takes a stack of 256 KiB, of which only touched pages count, when it first runs; [`Builder`] gives others. A
/// result of more than some 16 KiB passes over that stack several times: better return it in a `Box`.
///
/// Stackless: `tasklet(f)(args)`.
///
/// ```
/// # use pila_runtime as pila;
/// use std::{cell::Cell, rc::Rc};
///
/// let sum = Rc::new(Cell::new(0));
/// for i in 1..=100 {
///     let sum = sum.clone();
///     pila::tasklet(move || sum.set(sum.get() + i));
/// }
/// pila::run();
/// assert_eq!(sum.get(), 5050);
/// ```
#[doc(alias = "spawn")]
#[doc(alias = "go")]
#[inline]
#[track_caller]
pub fn tasklet<F, T>(f: F) -> Tasklet<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    Tasklet::create(f, SizeClass::DEFAULT, None, Birth::Queued)
}

/// Runs until no tasklet can run and nothing outside (time, a socket) can wake one. Says what it did and left.
///
/// May be called from main and from any tasklet; the innermost returns first. Whoever inserts a caller of `run` into the
/// run queue ends that run when the caller's turn comes. Tasklets that are left blocked or paused live on, and a later
/// `run` goes on with them.
///
/// Stackless: `stackless.run()`.
///
/// # Panics
/// With the panic of a tasklet whose handle was dropped before it panicked. The other tasklets keep their places.
///
/// ```
/// # use pila_runtime as pila;
/// let channel = pila::Channel::new();
/// let theirs = channel.clone();
/// pila::tasklet(move || theirs.send("never received"));
/// let summary = pila::run();
/// assert_eq!(summary.blocked, 1);
/// assert_eq!(channel.receive().unwrap(), "never received");
/// ```
pub fn run() -> Summary {
    // No tail call: a dump that is taken meanwhile names it.
    std::hint::black_box(with(|scheduler| scheduler.run()))
}

/// Everyone of this thread that waits or is paused: who [`run`] has left, what each waits for, since when, and where it was
/// created. `println!` tells it, thousands that wait alike in a line or two. [`dump`](crate::dump) has their backtraces too.
///
/// ```
/// # use pila_runtime as pila;
/// let replies = pila::Channel::<u32>::new();
/// for _ in 0..1000 {
///     let replies = replies.clone();
///     pila::tasklet(move || replies.receive());
/// }
/// assert_eq!(pila::run().blocked, 1000);
/// let left = pila::leftovers();
/// println!("{left}");
/// // prints, with how long they have waited when that is a millisecond or more:
/// // 1000 tasklets wait:
/// //   #1, #2, #3 and 997 more, created at src/main.rs:4:5: waits for a sender on channel 1 (created at src/main.rs:1:15)
/// assert_eq!(left.waiters().len(), 1000);
/// # replies.close();
/// # pila::run();
/// # assert_eq!(pila::leftovers().to_string(), "nobody waits");
/// ```
#[must_use]
pub fn leftovers() -> Report {
    with(|scheduler| scheduler.core.borrow().report(Occasion::Asked))
}

/// Lets every other tasklet in the run queue have a turn. Returns at once when there is none, or when the caller may
/// not wait: it unwinds from a panic, or its thread is ending.
///
/// Stackless: `stackless.schedule()`.
///
/// ```
/// # use pila_runtime as pila;
/// pila::tasklet(|| println!("first"));
/// pila::schedule();
/// println!("second");
/// ```
#[doc(alias = "yield_now")]
#[inline(always)]
pub fn schedule() {
    with(|scheduler| scheduler.schedule());
}

/// Leaves the run queue until someone [`insert`](Handle::insert)s the caller. Main alone goes on at once.
///
/// Stackless: `stackless.schedule_remove()`.
///
/// # Panics
/// With the report of the deadlock, when the caller is the last that can run and main is blocked.
///
/// ```
/// # use pila_runtime as pila;
/// let sleeper = pila::tasklet(|| {
///     pila::schedule_remove();
///     "awake"
/// });
/// pila::run();
/// assert!(sleeper.is_paused());
/// sleeper.insert().unwrap();
/// assert_eq!(sleeper.join().unwrap(), "awake");
/// ```
pub fn schedule_remove() {
    with(|scheduler| scheduler.schedule_remove());
}

/// The tasklet that runs. On a thread's native stack that is main.
///
/// Stackless: `stackless.getcurrent()`.
///
/// ```
/// # use pila_runtime as pila;
/// assert!(pila::current().is_main());
/// ```
#[must_use]
pub fn current() -> Handle {
    let (key, name) = with(|scheduler| scheduler.current());
    Handle { key, name, on_its_thread: PhantomData }
}

/// The main tasklet of this thread: whatever runs on the thread's native stack.
///
/// Stackless: `stackless.getmain()`.
///
/// ```
/// # use pila_runtime as pila;
/// assert_eq!(pila::main_tasklet().id().get(), 0);
/// ```
#[must_use]
pub fn main_tasklet() -> Handle {
    let key = Key { index: crate::table::MAIN, id: TaskletId::MAIN };
    Handle { key, name: Some("main".into()), on_its_thread: PhantomData }
}

/// How many tasklets are in the run ring, the caller included. Those that are blocked or paused are not.
///
/// Stackless: `stackless.getruncount()`.
///
/// ```
/// # use pila_runtime as pila;
/// pila::tasklet(|| ());
/// assert_eq!(pila::run_count(), 2);
/// # pila::run();
/// ```
#[must_use]
pub fn run_count() -> usize {
    with(|scheduler| scheduler.run_count())
}

/// Names a tasklet of this thread, alive or not. Cheap to clone; keeps nothing alive.
///
/// ```
/// # use pila_runtime as pila;
/// let tasklet = pila::tasklet(|| ());
/// let handle = (*tasklet).clone();
/// assert!(handle.is_alive() && handle.is_scheduled());
/// pila::run();
/// assert!(!handle.is_alive());
/// ```
#[derive(Clone)]
pub struct Handle {
    key: Key,
    name: Option<Arc<str>>,
    /// A key means something on one thread only.
    on_its_thread: PhantomData<*const ()>,
}

impl Handle {
    /// Puts a paused tasklet at the tail of the run queue. One that is in it stays where it is.
    ///
    /// # Errors
    /// [`TaskletError::Dead`] when it has ended, [`TaskletError::Blocked`] when it waits for something.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// # use pila::Tasklet;
    /// let tasklet = Tasklet::bind(|| 42);
    /// tasklet.insert().unwrap();
    /// assert_eq!(tasklet.join().unwrap(), 42);
    /// ```
    pub fn insert(&self) -> Result<(), TaskletError> {
        with(|scheduler| scheduler.insert(self.key, || self.who()))
    }

    /// Takes the tasklet out of the run queue: it is paused until inserted. One that is not in it stays as it is.
    ///
    /// # Errors
    /// [`TaskletError::Blocked`] when it waits for something, [`TaskletError::Current`] when it is the caller.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let tasklet = pila::tasklet(|| ());
    /// tasklet.remove().unwrap();
    /// assert!(tasklet.is_paused());
    /// assert_eq!(pila::run().paused, 1);
    /// ```
    pub fn remove(&self) -> Result<(), TaskletError> {
        with(|scheduler| scheduler.remove(self.key, || self.who()))
    }

    /// Runs the tasklet now. The caller stays in the ring; those between the two in it are passed over for this round.
    ///
    /// Stackless: `tasklet.run()`.
    ///
    /// # Errors
    /// [`TaskletError::Dead`] when it has ended, [`TaskletError::Blocked`] when it waits for something,
    /// [`TaskletError::Refused`] when the caller may not switch.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let first = pila::tasklet(|| println!("second"));
    /// let second = pila::tasklet(|| println!("first"));
    /// second.run().unwrap();
    /// assert!(first.is_alive() && !second.is_alive());
    /// # pila::run();
    /// ```
    pub fn run(&self) -> Result<(), TaskletError> {
        with(|scheduler| scheduler.run_now(self.key, Caller::InTheRing, || self.who()))
    }

    /// Runs the tasklet now and pauses the caller until someone inserts it.
    ///
    /// Stackless: `tasklet.switch()`.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let main = pila::current();
    /// let tasklet = pila::tasklet(move || {
    ///     assert!(main.is_paused());
    ///     main.insert().unwrap();
    /// });
    /// tasklet.switch().unwrap();
    /// ```
    pub fn switch(&self) -> Result<(), TaskletError> {
        with(|scheduler| scheduler.run_now(self.key, Caller::Paused, || self.who()))
    }

    /// Ends the tasklet: it unwinds out of the call in which it waits, its destructors run, and this returns, before
    /// anyone else has run. One that never started is dropped. One that has ended stays as it is.
    ///
    /// From the kill on no call of the tasklet waits: calls that would fail, those without a `Result` return at once.
    /// Its [`join`](Tasklet::join) gives [`JoinError::Killed`]. A tasklet that kills itself does not return from here, but
    /// for one that unwinds. As any unwinding, it aborts the process where it comes to an `extern "C"` frame: wait in a
    /// [`shield`](crate::shield) below one.
    ///
    /// Stackless: `tasklet.kill()`, which lets others run first.
    ///
    /// # Errors
    /// [`TaskletError::StillAlive`] when it caught the kill and goes on; [`TaskletError::Pending`] when the caller
    /// unwinds and cannot wait for it; [`TaskletError::Main`]; [`TaskletError::Refused`] inside a `no_switch` guard;
    /// [`TaskletError::CannotUnwind`] when it has started, in a program built with `panic = "abort"`.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::JoinError;
    ///
    /// let tasklet = pila::tasklet(|| pila::sleep(std::time::Duration::MAX));
    /// pila::schedule();
    /// tasklet.kill().unwrap();
    /// assert!(matches!(tasklet.join(), Err(JoinError::Killed)));
    /// ```
    pub fn kill(&self) -> Result<(), TaskletError> {
        with(|scheduler| scheduler.kill(self.key, When::Now, || self.who()))
    }

    /// As [`kill`](Self::kill), but the tasklet ends at its next turn. One that is blocked or paused goes to the tail.
    ///
    /// # Errors
    /// [`TaskletError::Main`]; [`TaskletError::Pending`] when a shield puts it off; [`TaskletError::CannotUnwind`].
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let tasklet = pila::tasklet(|| unreachable!());
    /// tasklet.kill_later().unwrap();
    /// assert!(tasklet.is_alive());
    /// pila::run();
    /// assert!(!tasklet.is_alive());
    /// ```
    pub fn kill_later(&self) -> Result<(), TaskletError> {
        with(|scheduler| scheduler.kill(self.key, When::Later, || self.who()))
    }

    /// Makes the call in which the tasklet waits return `error`; it runs at once, the caller next.
    ///
    /// The call gives the error in a variant `Thrown`; sockets give it as the source of an `io::Error`.
    ///
    /// Stackless: `tasklet.throw(error)`.
    ///
    /// # Errors
    /// [`TaskletError::Dead`]; [`TaskletError::CannotThrow`] when it waits in no call that returns a `Result`;
    /// [`TaskletError::Refused`] when the caller may not switch.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::{Channel, ReceiveError};
    ///
    /// let tasklet = pila::tasklet(|| Channel::<()>::new().receive());
    /// pila::run();
    /// tasklet.throw("give up").unwrap();
    /// assert!(matches!(tasklet.join().unwrap(), Err(ReceiveError::Thrown(error)) if error.to_string() == "give up"));
    /// ```
    pub fn throw(
        &self,
        error: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Result<(), TaskletError> {
        let error = Thrown::new(error.into());
        with(|scheduler| scheduler.throw(self.key, error, When::Now, || self.who()))
    }

    /// As [`throw`](Self::throw), but the tasklet goes to the tail of the run queue.
    ///
    /// # Errors
    /// As [`throw`](Self::throw), but never `Refused`.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let channel = pila::Channel::new();
    /// let tasklet = pila::tasklet(move || channel.send(1).is_err());
    /// pila::run();
    /// tasklet.throw_later("too late").unwrap();
    /// assert!(tasklet.join().unwrap());
    /// ```
    pub fn throw_later(
        &self,
        error: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Result<(), TaskletError> {
        let error = Thrown::new(error.into());
        with(|scheduler| scheduler.throw(self.key, error, When::Later, || self.who()))
    }

    /// With `true`, calls of the tasklet that would block fail with [`Refused::BlockTrap`] instead. Sleeping is exempt.
    ///
    /// Stackless: `tasklet.block_trap`.
    ///
    /// # Errors
    /// [`TaskletError::Dead`].
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::{ReceiveError, Refused};
    ///
    /// pila::current().set_block_trap(true).unwrap();
    /// let refused = pila::Channel::<()>::new().receive();
    /// assert!(matches!(refused, Err(ReceiveError::Refused(Refused::BlockTrap))));
    /// ```
    pub fn set_block_trap(&self, trapped: bool) -> Result<(), TaskletError> {
        match with(|scheduler| scheduler.set_block_trap(self.key, trapped)) {
            true => Ok(()),
            false => Err(TaskletError::Dead(self.who())),
        }
    }

    /// Whether calls of it that would block fail.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let tasklet = pila::tasklet(|| ());
    /// assert!(!tasklet.block_trap());
    /// tasklet.set_block_trap(true).unwrap();
    /// assert!(tasklet.block_trap());
    /// # pila::run();
    /// ```
    #[must_use]
    pub fn block_trap(&self) -> bool {
        with(|scheduler| scheduler.block_trap(self.key))
    }

    /// Whether it has not ended.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let tasklet = pila::tasklet(|| ());
    /// assert!(tasklet.is_alive());
    /// pila::run();
    /// assert!(!tasklet.is_alive());
    /// ```
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.status() != Status::Dead
    }

    /// Whether it waits for something: a channel, a socket, time, another's end.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let tasklet = pila::tasklet(|| pila::Channel::<()>::new().receive());
    /// assert!(!tasklet.is_blocked());
    /// pila::run();
    /// assert!(tasklet.is_blocked());
    /// ```
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.status() == Status::Blocked
    }

    /// Whether it runs, is in the run queue, or is blocked: as in Stackless, everything alive but not paused.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let tasklet = pila::tasklet(|| ());
    /// assert!(tasklet.is_scheduled() && pila::current().is_scheduled());
    /// tasklet.remove().unwrap();
    /// assert!(!tasklet.is_scheduled());
    /// ```
    #[must_use]
    pub fn is_scheduled(&self) -> bool {
        matches!(self.status(), Status::Scheduled | Status::Current | Status::Blocked)
    }

    /// Whether it is alive and waits to be inserted, or for its own `run` to end.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let tasklet = pila::Tasklet::bind(|| ());
    /// assert!(tasklet.is_paused());
    /// tasklet.insert().unwrap();
    /// assert!(!tasklet.is_paused());
    /// # pila::run();
    /// ```
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.status() == Status::Paused
    }

    /// Whether it is the caller.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let tasklet = pila::tasklet(|| pila::current().is_current());
    /// assert!(!tasklet.is_current());
    /// assert!(tasklet.join().unwrap());
    /// ```
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.status() == Status::Current
    }

    /// Whether it is the thread's main tasklet.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// assert!(pila::current().is_main());
    /// assert!(!pila::tasklet(|| pila::current().is_main()).join().unwrap());
    /// ```
    #[must_use]
    pub fn is_main(&self) -> bool {
        self.key.id == TaskletId::MAIN
    }

    /// Its number.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let tasklet = pila::tasklet(|| pila::current().id());
    /// let id = tasklet.id();
    /// assert_ne!(id, pila::main_tasklet().id());
    /// assert_eq!(tasklet.join().unwrap(), id);
    /// ```
    #[must_use]
    pub fn id(&self) -> TaskletId {
        self.key.id
    }

    /// The name it was given.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// assert_eq!(pila::main_tasklet().name(), Some("main"));
    /// assert_eq!(pila::tasklet(|| ()).name(), None);
    /// # pila::run();
    /// ```
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(crate) fn new(key: Key, name: Option<Arc<str>>) -> Handle {
        Handle { key, name, on_its_thread: PhantomData }
    }

    /// The one that waits with `ticket`, if its wait goes on.
    pub(crate) fn of_waiter(ticket: Ticket) -> Option<Handle> {
        let (key, name) = with(|scheduler| scheduler.waiter(ticket))?;
        Some(Handle { key, name, on_its_thread: PhantomData })
    }

    /// Names the tasklet of `key`, by its name too while it lives.
    pub(crate) fn of_key(key: Key) -> Handle {
        if key.id == TaskletId::MAIN {
            return main_tasklet();
        }
        let name = with(|scheduler| scheduler.core.borrow().find(key).and_then(Task::name));
        Handle { key, name, on_its_thread: PhantomData }
    }

    fn status(&self) -> Status {
        with(|scheduler| scheduler.status(self.key))
    }

    /// Where it was created, while it lives.
    pub(crate) fn created(&self) -> Option<&'static Location<'static>> {
        with(|scheduler| scheduler.core.borrow().find(self.key).map(|task| task.created))
    }

    pub(crate) fn who(&self) -> Who {
        Who { id: self.key.id, name: self.name.clone() }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut handle = f.debug_struct("Handle");
        handle.field("id", &self.id()).field("name", &self.name()).field("status", &self.status());
        handle.finish()
    }
}

/// A tasklet whose result can be had. Dropping it detaches the tasklet, which runs on.
///
/// Dereferences to [`Handle`].
///
/// ```
/// # use pila_runtime as pila;
/// let tasklet: pila::Tasklet<i32> = pila::tasklet(|| 42);
/// assert!(tasklet.is_scheduled()); // a method of `Handle`
/// assert_eq!(tasklet.join().unwrap(), 42);
///
/// drop(pila::tasklet(|| ())); // runs all the same
/// assert_eq!(pila::run().finished, 1);
/// ```
pub struct Tasklet<T> {
    handle: Handle,
    /// Until this is dropped.
    outcome: Option<Rc<dyn Outcome<T>>>,
}

impl<T: 'static> Tasklet<T> {
    /// Creates a tasklet that is paused: it is not in the run queue until [`insert`](Handle::insert)ed.
    ///
    /// Stackless: `tasklet().bind(f, args)`.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// # use pila::Tasklet;
    /// let tasklet = Tasklet::bind(|| ());
    /// assert!(tasklet.is_paused());
    /// assert_eq!(pila::run().finished, 0);
    /// ```
    #[track_caller]
    pub fn bind<F: FnOnce() -> T + 'static>(f: F) -> Tasklet<T> {
        Tasklet::create(f, SizeClass::DEFAULT, None, Birth::Paused)
    }

    #[inline]
    #[track_caller]
    fn create<F>(f: F, class: SizeClass, name: Option<Arc<str>>, birth: Birth) -> Tasklet<T>
    where
        F: FnOnce() -> T + 'static,
    {
        Tasklet::create_as(f, class, name, birth, |job| job)
    }

    /// As `create`, with `wrap` around its job.
    #[inline]
    #[track_caller]
    pub(crate) fn create_as<F>(
        f: F,
        class: SizeClass,
        name: Option<Arc<str>>,
        birth: Birth,
        wrap: impl FnOnce(Rc<dyn Job>) -> Rc<dyn Job>,
    ) -> Tasklet<T>
    where
        F: FnOnce() -> T + 'static,
    {
        // Every call on the way to the closure may copy it, onto a stack that is not large.
        if size_of::<F>() > LARGE_CLOSURE {
            let f: Box<dyn FnOnce() -> T> = Box::new(f);
            return Tasklet::create_as(f, class, name, birth, wrap);
        }
        let created = Location::caller();
        with(|scheduler| {
            let packet = Packet::kept_or_new(scheduler, f);
            let job = wrap(packet.clone());
            let key = scheduler.create(job, class, name.clone(), created, birth, None);
            Tasklet { handle: Handle::new(packet.settle(key), name), outcome: Some(packet) }
        })
    }

    /// One that never is: `f` is dropped, and whoever joins it is told why.
    pub(crate) fn refused<F>(f: F, name: Option<Arc<str>>, refused: Refused) -> Tasklet<T>
    where
        F: FnOnce() -> T + 'static,
    {
        let packet = Rc::new(Packet::<F, T, false>::new(f, drop));
        let key = packet.settle(Err((packet.clone(), refused)));
        Tasklet { handle: Handle::new(key, name), outcome: Some(packet) }
    }

    /// A handle to keep when this is joined or dropped.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let tasklet = pila::tasklet(|| 42);
    /// let handle = tasklet.handle();
    /// assert_eq!(tasklet.join().unwrap(), 42);
    /// assert!(!handle.is_alive());
    /// ```
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until the tasklet has ended and gives its result.
    ///
    /// # Errors
    /// [`JoinError::Panicked`] with the panic that ended it; [`JoinError::Deadlock`] when nothing can ever end it;
    /// [`JoinError::NoStack`] when it could not start; [`JoinError::Refused`] when the caller may not wait and the
    /// tasklet has not ended.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let tasklet = pila::tasklet(|| 6 * 7);
    /// assert_eq!(tasklet.join().unwrap(), 42);
    ///
    /// let tasklet = pila::tasklet(|| panic!("no way"));
    /// assert_eq!(tasklet.join().unwrap_err().to_string(), "the tasklet panicked: no way");
    /// ```
    pub fn join(self) -> Result<T, JoinError> {
        let outcome = self.outcome.as_ref().expect("it has not been dropped");
        outcome.slot().join(self.id())
    }
}

impl<T> Deref for Tasklet<T> {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl<T> fmt::Debug for Tasklet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tasklet").field(&self.handle).finish()
    }
}

impl<T> Drop for Tasklet<T> {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome.take() {
            outcome.let_go();
        }
    }
}

/// Makes tasklets with a name and a stack size of your choice, and says when there is no stack to be had.
///
/// ```
/// # use pila_runtime as pila;
/// let tasklet = pila::Builder::new()
///     .name("deep")
///     .stack_size(8 << 20)
///     .tasklet(|| pila::current().name().map(str::to_owned))?;
/// assert_eq!(tasklet.join().unwrap().as_deref(), Some("deep"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Default, Debug)]
pub struct Builder {
    name: Option<Arc<str>>,
    stack_size: Option<usize>,
}

impl Builder {
    /// A tasklet without a name and with a stack of 256 KiB.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let tasklet = pila::Builder::new().tasklet(|| 42)?;
    /// assert_eq!(tasklet.name(), None);
    /// assert_eq!(tasklet.join().unwrap(), 42);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Gives it a name, for messages: reports, dumps, and the line that follows the message of a panic in it.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let tasklet = pila::Builder::new().name("mail-17").tasklet(|| ())?;
    /// assert_eq!(tasklet.name(), Some("mail-17"));
    /// # pila::run();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Gives it a stack of at least `bytes`: the next power of two, 32 KiB or more. Only touched pages take memory.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let large = pila::Builder::new().stack_size(8 << 20).tasklet(|| {
    ///     let megabyte = std::hint::black_box([1u8; 1 << 20]);
    ///     megabyte.iter().map(|&byte| usize::from(byte)).sum::<usize>()
    /// })?;
    /// assert_eq!(large.join().unwrap(), 1 << 20);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> Builder {
        self.stack_size = Some(bytes);
        self
    }

    /// Creates the tasklet, as [`tasklet`] does.
    ///
    /// # Errors
    /// When no stack could be had at this moment: the message says how many are in use, what the system refused and
    /// which limit to raise. `InvalidInput` for a stack of over 1 TiB.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let builder = pila::Builder::new();
    /// let tasklet = builder.clone().tasklet(|| 42)?;
    /// assert!(tasklet.is_scheduled());
    /// assert_eq!(tasklet.join().unwrap(), 42);
    ///
    /// let too_large = builder.stack_size(usize::MAX).tasklet(|| 42);
    /// assert_eq!(too_large.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "spawn")]
    #[track_caller]
    pub fn tasklet<F, T>(self, f: F) -> io::Result<Tasklet<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        self.create(f, Birth::Queued)
    }

    /// Creates the tasklet paused, as [`Tasklet::bind`] does.
    ///
    /// # Errors
    /// As [`Builder::tasklet`].
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let tasklet = pila::Builder::new().name("later").bind(|| 42)?;
    /// assert!(tasklet.is_paused());
    /// tasklet.insert().unwrap();
    /// assert_eq!(tasklet.join().unwrap(), 42);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn bind<F, T>(self, f: F) -> io::Result<Tasklet<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        self.create(f, Birth::Paused)
    }

    #[track_caller]
    fn create<F, T>(self, f: F, birth: Birth) -> io::Result<Tasklet<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let (class, name) = self.settle()?;
        Ok(Tasklet::create(f, class, name, birth))
    }

    /// What a new tasklet gets.
    pub(crate) fn settle(self) -> io::Result<(SizeClass, Option<Arc<str>>)> {
        let class = with(|scheduler| scheduler.stack_class(self.stack_size))?;
        Ok((class, self.name))
    }
}

/// A tasklet of a scope as its creator gets it: how it is named, and where its result will be.
pub(crate) struct Scoped<'scope, T> {
    pub(crate) handle: Handle,
    pub(crate) outcome: Rc<dyn Outcome<T> + 'scope>,
}

/// Creates a tasklet of `scope` that runs `f`. `lengthen` is [`scope`](crate::scope())'s promise that no tasklet of it is
/// left when what `f` borrows goes.
#[track_caller]
pub(crate) fn create_scoped<'scope, F, T>(
    scope: u32,
    f: F,
    (class, name, birth): (SizeClass, Option<Arc<str>>, Birth),
    lengthen: impl FnOnce(Rc<dyn Job + 'scope>) -> Rc<dyn Job>,
) -> Scoped<'scope, T>
where
    F: FnOnce() -> T + 'scope,
    T: 'scope,
{
    if size_of::<F>() > LARGE_CLOSURE {
        let f: Box<dyn FnOnce() -> T + 'scope> = Box::new(f);
        return create_scoped(scope, f, (class, name, birth), lengthen);
    }
    let created = Location::caller();
    let packet = Rc::new(Packet::<F, T, true>::new(f, drop));
    let job = lengthen(packet.clone());
    let key =
        with(|scheduler| scheduler.create(job, class, name.clone(), created, birth, Some(scope)));
    Scoped { handle: Handle::new(packet.settle(key), name), outcome: packet }
}
