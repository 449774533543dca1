//! One socket, and its registrations with the pollers of the threads that wait on it.
//!
//! - The call is tried first, unless the poller said that it would block: then the tasklet parks at once.
//! - A socket is registered when it first has to wait, not when it is made: `connect` always waits, and a
//!   connection that is served at once never needs to be.
//! - The first thread that waits is at home: its bits are looked at before any lock. Other threads have
//!   registrations of their own, found under a lock when they have to wait.
//! - No descriptor leaves the source, closed or given away, before its registrations have ended.
//! - A call that would succeed at once lets others go first now and then: it takes from the thread's stint.
//!
//! A call that succeeds at once costs its system call, three loads and a store. A wait adds one lock; the first one
//! adds an `epoll_ctl`, and closing another.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use pila_runtime::park::{self, Interrupt, Waiting};

use crate::budget;
use crate::first::{Enlisted, Interest};
use crate::poller::{Kind, Poller, Registration};
use crate::readiness::{Direction, Readiness, Ready};
use crate::settings::{self, Settings};
use crate::syscall;

/// What a tasklet waits to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Accept,
    Connect,
    Read,
    Write,
    /// To hear of the end of the process with this number, from a descriptor that stands for it.
    WaitForChild(u32),
}

impl Operation {
    /// What the socket is that it is done with.
    fn kind(self) -> Kind {
        match self {
            Self::Accept => Kind::Listener,
            // Who hears of a child's end may close its pipes.
            Self::Connect | Self::Read | Self::Write | Self::WaitForChild(_) => Kind::Connection,
        }
    }

    pub(crate) fn direction(self) -> Direction {
        match self {
            Self::Accept | Self::Read | Self::WaitForChild(_) => Direction::Read,
            Self::Connect | Self::Write => Direction::Write,
        }
    }

    fn waiting(self, socket: RawFd) -> Waiting {
        match self {
            Self::Accept => Waiting::Accept(socket),
            Self::Connect => Waiting::Connect(socket),
            Self::Read => Waiting::Read(socket),
            Self::Write => Waiting::Write(socket),
            Self::WaitForChild(pid) => Waiting::Child(pid),
        }
    }
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Ready,
    Deadline,
}

/// How long to sleep before trying again what the system gives no sign of, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// A socket that parks its callers.
#[derive(Debug)]
pub(crate) struct Source<S: AsFd> {
    /// The socket; `None` only while `into_inner` gives it away, or it is being closed.
    io: Option<S>,
    /// The registration of the first thread that had to wait.
    home: OnceLock<Arc<Registration>>,
    /// Those of all others.
    away: Mutex<Vec<Arc<Registration>>>,
    /// Stands in until there is a home: remembers that a short call has emptied or filled the socket.
    /// Losing an update between threads costs a call and no more.
    early: Readiness,
    /// Made when a setting first differs from its default, or when there is somebody to share it with.
    settings: OnceLock<Arc<Settings>>,
}

impl<S: AsFd> Source<S> {
    pub(crate) fn new(io: S) -> Self {
        Self {
            io: Some(io),
            home: OnceLock::new(),
            away: Mutex::default(),
            early: Readiness::new(Ready::READ.and(Ready::WRITE)),
            settings: OnceLock::new(),
        }
    }

    /// A source for a socket that somebody else made, with the timeouts it came with.
    pub(crate) fn adopt(io: S) -> Self {
        let source = Self::new(io);
        source.settings.get_or_init(|| Arc::new(Settings::of(source.as_fd())));
        source
    }

    pub(crate) fn io(&self) -> &S {
        self.io.as_ref().expect("only into_inner and drop take it")
    }

    /// A source for `duplicate`, a second descriptor of the same socket, with the same settings.
    pub(crate) fn share(&self, duplicate: S) -> Self {
        let source = Self::new(duplicate);
        source.settings.get_or_init(|| Arc::clone(self.settings()));
        source
    }

    /// A source for a connection that `listener` has accepted.
    pub(crate) fn accepted<L: AsFd>(io: S, listener: &Source<L>) -> Self {
        let source = Self::new(io);
        if let Some(settings) = listener.settings.get().and_then(|settings| settings.inherited()) {
            source.settings.get_or_init(|| Arc::new(settings));
        }
        source
    }

    /// Gives up the socket, which no poller knows any more.
    pub(crate) fn into_inner(mut self) -> S {
        self.end_registrations();
        self.io.take().expect("only into_inner and drop take it")
    }

    /// Makes `call`, which must never block, as often as it takes, waiting in between.
    #[inline]
    pub(crate) fn run<T>(
        &self,
        operation: Operation,
        mut call: impl FnMut(&S) -> io::Result<T>,
    ) -> io::Result<T> {
        let hint = self.hint().is_ready(operation.direction());
        if hint {
            self.pace();
            match call(self.io()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
        self.run_waiting(operation, hint, call)
    }

    #[cold]
    fn run_waiting<T>(
        &self,
        operation: Operation,
        tried: bool,
        mut call: impl FnMut(&S) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.is_nonblocking() {
            // Without a wait there is no harvest, so a clear bit would stay clear for ever.
            return call(self.io());
        }
        let direction = operation.direction();
        let deadline = self.deadline(direction);
        let away;
        let registration = match self.home.get() {
            Some(home) if home.is_here() => {
                if tried {
                    home.readiness().clear(direction);
                }
                home
            }
            // To register may take a wait: what its bits say is younger than the call that was tried.
            _ => {
                away = self.register(operation, deadline)?;
                &away
            }
        };
        loop {
            if registration.readiness().is_ready(direction) {
                self.pace();
            } else if self.wait(registration, operation, deadline)? == Ended::Deadline {
                // A busy thread may be past the deadline before it has seen what came in time.
                return call(self.io());
            }
            match call(self.io()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    registration.readiness().clear(direction);
                }
                done => return done,
            }
        }
    }

    /// Lets others go first when the thread's stint is used up, and takes from it what a call costs that need not wait.
    #[inline]
    fn pace(&self) {
        if park::is_spent() && !self.is_nonblocking() {
            park::make_way();
        }
        park::spend(1);
    }

    /// As [`run`](Self::run), for what stays `WouldBlock` after the socket was shut for receiving, though it wakes who waits
    /// and no longer blocks who would: datagrams, and connections to accept. Gives what `shut` gives then.
    pub(crate) fn run_until_shut<T>(
        &self,
        operation: Operation,
        mut call: impl FnMut(&S) -> io::Result<T>,
        shut: impl Fn() -> io::Result<T>,
    ) -> io::Result<T> {
        self.run(operation, |io| match call(io) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.may_be_shut() => {
                if syscall::is_shut(io.as_fd())? {
                    shut()
                } else {
                    Err(error)
                }
            }
            done => done,
        })
    }

    /// Whether it is worth asking. Who has not waited yet is told by the event that ends the first wait.
    fn may_be_shut(&self) -> bool {
        let home = self.home.get();
        let told = |home: &Arc<Registration>| !home.is_here() || home.readiness().is_inexact();
        home.is_some_and(told) && !self.is_nonblocking()
    }

    /// Makes `call`, which must never block, as often as it takes. For what the system gives no sign of, as room in the
    /// queue of somebody else's socket: in between the tasklet sleeps, ever longer.
    pub(crate) fn run_unannounced<T>(
        &self,
        operation: Operation,
        mut call: impl FnMut(&S) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut deadline = None;
        let mut pause = FIRST_PAUSE;
        self.pace();
        loop {
            match call(self.io()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let end = *deadline.get_or_insert_with(|| self.deadline(operation.direction()));
                    if self.is_nonblocking() || end.is_some_and(|end| end <= Instant::now()) {
                        return Err(error);
                    }
                    let next = Instant::now() + pause;
                    self.sleep(operation, end.map_or(next, |end| next.min(end)))?;
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
                done => return done,
            }
        }
    }

    fn sleep(&self, operation: Operation, until: Instant) -> io::Result<()> {
        let nobody_knows_it = park::begin()?;
        let waiting = operation.waiting(self.as_raw_fd());
        match park::wait(nobody_knows_it, waiting, Some(until)) {
            Ok(()) | Err(Interrupt::Deadline) => Ok(()),
            Err(interrupt) => Err(interrupt.into()),
        }
    }

    /// Makes `call` once, if it is worth trying. After a `WouldBlock` it is not, until the poller has news: so wait for
    /// [`interest`](Self::interest) before the next attempt.
    pub(crate) fn attempt<T>(
        &self,
        operation: Operation,
        call: impl FnOnce(&S) -> io::Result<T>,
    ) -> io::Result<T> {
        let away;
        let readiness = match self.home.get() {
            Some(home) if !home.is_here() => {
                away = self.register(operation, None)?;
                away.readiness()
            }
            _ => self.hint(),
        };
        if !readiness.is_ready(operation.direction()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        call(self.io()).inspect_err(|error| {
            if error.kind() == io::ErrorKind::WouldBlock {
                readiness.clear(operation.direction());
            }
        })
    }

    /// `operation` as something to wait for together with others.
    pub(crate) fn interest(&self, operation: Operation) -> io::Result<Interest> {
        Ok(Interest::new(self.register(operation, None)?, operation.direction()))
    }

    /// Waits once, for `operation` to be worth trying. For calls that are not made again, as `connect`.
    pub(crate) fn wait_once(
        &self,
        operation: Operation,
        deadline: Option<Instant>,
    ) -> io::Result<Ended> {
        let registration = self.register(operation, deadline)?;
        if registration.readiness().is_ready(operation.direction()) {
            return Ok(Ended::Ready);
        }
        self.wait(&registration, operation, deadline)
    }

    /// Waits until `operation` is worth trying on one of `sources`.
    pub(crate) fn wait_for_one_of(
        sources: &[&Self],
        operation: Operation,
        deadline: Option<Instant>,
    ) -> io::Result<Ended> {
        let registrations: Vec<_> = sources
            .iter()
            .map(|source| source.register(operation, deadline))
            .collect::<io::Result<_>>()?;
        let direction = operation.direction();
        if registrations.iter().any(|registration| registration.readiness().is_ready(direction)) {
            return Ok(Ended::Ready);
        }
        let ticket = park::begin()?;
        let enlist = |registration| Enlisted::new(registration, direction, ticket);
        let _enlisted: Vec<_> = registrations.iter().map(|it| enlist(it)).collect();
        let last = sources.last().expect("there is one to wait for").as_raw_fd();
        match park::wait(ticket, operation.waiting(last), deadline) {
            Ok(()) => Ok(Ended::Ready),
            Err(Interrupt::Deadline) => Ok(Ended::Deadline),
            Err(interrupt) => Err(interrupt.into()),
        }
    }

    /// Whether the calling thread's poller has said that `operation` is worth trying.
    pub(crate) fn is_ready(&self, operation: Operation) -> bool {
        let here = self.home.get().filter(|home| home.is_here());
        here.is_some_and(|home| home.readiness().is_ready(operation.direction()))
    }

    fn wait(
        &self,
        registration: &Registration,
        operation: Operation,
        deadline: Option<Instant>,
    ) -> io::Result<Ended> {
        let direction = operation.direction();
        let ticket = park::begin()?;
        let enlisted = Enlisted::new(registration, direction, ticket);
        match park::wait(ticket, operation.waiting(self.as_raw_fd()), deadline) {
            Ok(()) => {
                // The poller took the ticket off its list when it woke us.
                std::mem::forget(enlisted);
                Ok(Ended::Ready)
            }
            Err(Interrupt::Deadline) => Ok(Ended::Deadline),
            Err(interrupt) => Err(interrupt.into()),
        }
    }

    /// A stream did less than it was asked: it is empty, or full. Saves the call that would only say so.
    #[inline]
    pub(crate) fn exhaust(&self, direction: Direction) {
        match self.home.get() {
            None => self.early.exhaust(direction),
            Some(home) if home.is_here() => home.readiness().exhaust(direction),
            Some(_) => {}
        }
    }

    fn hint(&self) -> &Readiness {
        self.home.get().map_or(&self.early, |home| home.readiness())
    }

    /// The calling thread's registration, made if need be. Waits for the descriptors of the thread's poller if there are
    /// none left and it has no poller yet.
    pub(crate) fn register(
        &self,
        operation: Operation,
        deadline: Option<Instant>,
    ) -> io::Result<Arc<Registration>> {
        if !Poller::is_here() {
            // Not under the lock, for it may wait.
            budget::obtain(deadline, Poller::prepare)?;
        }
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = self.home.get().into_iter().chain(&*away).find(|at| at.is_here()) {
            return Ok(Arc::clone(here));
        }
        let registration = Poller::here()?.register(self.as_fd(), operation.kind())?;
        if self.home.set(Arc::clone(&registration)).is_err() {
            // Threads come and go, and a listener outlives them.
            away.retain(|other| !other.is_stale());
            away.push(Arc::clone(&registration));
        }
        Ok(registration)
    }

    fn end_registrations(&mut self) {
        let away = self.away.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (Some(io), home) = (&self.io, self.home.take()) else { return };
        for registration in home.into_iter().chain(away.drain(..)) {
            registration.end(io.as_fd());
        }
    }
}

/// The settings that std keeps in the kernel, where they mean nothing to calls that never block.
impl<S: AsFd> Source<S> {
    fn settings(&self) -> &Arc<Settings> {
        self.settings.get_or_init(Arc::default)
    }

    /// Later calls in `direction` wait for no longer than `timeout`.
    pub(crate) fn set_timeout(
        &self,
        direction: Direction,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            // As std has it.
            let message = "cannot set a 0 duration timeout";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        self.settings().set_timeout(self.as_fd(), direction, timeout)
    }

    /// How long a call in `direction` may wait, as the kernel rounds it.
    pub(crate) fn timeout(&self, direction: Direction) -> io::Result<Option<Duration>> {
        if let Some(settings) = self.settings.get() {
            settings.settle(self.as_fd())?;
        }
        settings::told(self.as_fd(), direction)
    }

    /// Somebody is about to see the descriptor, who may keep its number and look at the socket whenever he likes. False when
    /// that is nothing new.
    pub(crate) fn show(&self) -> bool {
        self.settings().show(self.as_fd())
    }

    /// The socket is shown, and has to be nonblocking to others as long as it is ours.
    pub(crate) fn need_flag(&self) {
        self.settings().need_flag();
    }

    /// Has the kernel know what it was not told.
    pub(crate) fn settle(&self) {
        if let Some(settings) = self.settings.get() {
            // It takes any timeout of a socket that is open.
            settings.settle(self.as_fd()).ok();
        }
    }

    /// Whether others may have the descriptor.
    pub(crate) fn is_watched(&self) -> bool {
        self.settings.get().is_some_and(|settings| settings.is_watched())
    }

    /// Whether there are clones of it.
    pub(crate) fn is_shared(&self) -> bool {
        self.settings.get().is_some_and(|settings| Arc::strong_count(settings) > 1)
    }

    /// When a call in `direction` that begins now is out of time.
    pub(crate) fn deadline(&self, direction: Direction) -> Option<Instant> {
        let timeout = self.settings.get()?.timeout(self.as_fd(), direction)?;
        // A deadline that does not fit is never reached.
        Instant::now().checked_add(timeout)
    }

    /// Later calls fail with `WouldBlock` instead of waiting, or wait again.
    pub(crate) fn set_nonblocking(&self, nonblocking: bool) {
        if nonblocking || self.settings.get().is_some() {
            self.settings().set_nonblocking(nonblocking);
        }
    }

    /// Whether calls fail instead of waiting.
    pub(crate) fn is_nonblocking(&self) -> bool {
        self.settings.get().is_some_and(|settings| settings.is_nonblocking())
    }
}

impl<S: AsFd> AsFd for Source<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io().as_fd()
    }
}

impl<S: AsFd> AsRawFd for Source<S> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<S: AsFd> Drop for Source<S> {
    fn drop(&mut self) {
        self.end_registrations();
        if let Some(io) = self.io.take() {
            if let Some(settings) = self.settings.take()
                && settings.needs_flag()
                && Arc::strong_count(&settings) == 1
            {
                syscall::set_nonblocking(io.as_fd(), settings.is_nonblocking());
            }
            drop(io);
            budget::freed();
        }
    }
}
