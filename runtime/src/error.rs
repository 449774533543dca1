//! What can go wrong: one small type for each operation.
//!
//! - Every error is `Send + Sync + 'static`, says what happened to whom, and hands back what was not delivered.

use std::{
    any::Any,
    error::Error,
    fmt, io,
    panic::Location,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::report::{Report, Who};

/// Why nothing that runs can be ended.
pub(crate) const NO_UNWINDING: &str = "nothing unwinds in a program built with panic = \"abort\"; \
    build it with panic = \"unwind\"";

/// Why a blocking call was refused at once, without waiting.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::{Refused, TaskletError};
///
/// let other = pila::tasklet(|| ());
/// let guard = pila::no_switch();
/// assert!(matches!(other.run(), Err(TaskletError::Refused(_, Refused::NoSwitch(_)))));
/// # drop(guard);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Refused {
    /// The tasklet unwinds from a panic: were it to wait, `std::thread::panicking()` would hold for all others.
    Unwinding,
    /// The thread is ending: its thread-locals are being destroyed.
    ThreadEnded,
    /// The tasklet was killed, caught the kill and went on: none of its calls waits any more.
    Killed,
    /// This [`timeout`](crate::timeout) has passed: no call inside of it waits any more.
    Elapsed(Elapsed),
    /// A tasklet of the [`scope`](crate::scope) panicked: no call of the scope's closure waits any more.
    ScopeEnds,
    /// A [`no_switch`](crate::no_switch) guard, made at this place, is in force; or a callback runs that was set there.
    NoSwitch(&'static Location<'static>),
    /// The tasklet may not be blocked: [`Handle::set_block_trap`](crate::Handle::set_block_trap).
    BlockTrap,
    /// The [`Group`](crate::Group) is being stopped.
    Stopping,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::Unwinding => "a tasklet that unwinds from a panic cannot wait",
            Refused::ThreadEnded => "the thread is ending: no tasklet of it can wait any more",
            Refused::Killed => "the tasklet was killed: none of its calls waits any more",
            Refused::ScopeEnds => "a tasklet of the scope panicked: its closure waits no more",
            Refused::Elapsed(elapsed) => return elapsed.fmt(f),
            Refused::BlockTrap => "this tasklet does not like to be blocked",
            Refused::Stopping => {
                "the group is being stopped: it begins nothing and waits for nothing any more"
            }
            Refused::NoSwitch(place) => {
                return write!(f, "the no_switch guard made at {place} forbids to switch");
            }
        })
    }
}

impl std::error::Error for Refused {
    /// [`Killed`] or [`Elapsed`], if that is why.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Refused::Killed => Some(&Killed),
            Refused::Elapsed(elapsed) => Some(elapsed),
            _ => None,
        }
    }
}

impl Refused {
    /// Whether the tasklet is being ended, or a part of it, so that a call of it may be left out.
    pub(crate) fn is_ending(self) -> bool {
        !matches!(self, Refused::NoSwitch(_) | Refused::BlockTrap)
    }
}

/// The source of an `io::Error` in a tasklet that was killed, caught the kill and goes on.
///
/// ```
/// # use pila_runtime as pila;
/// use std::{error::Error, io, panic::{AssertUnwindSafe, catch_unwind}};
/// use pila::{Killed, park};
///
/// let stubborn = pila::tasklet(|| {
///     let _ = catch_unwind(|| pila::schedule_remove());
///     let refused: io::Error = park::begin().unwrap_err().into();
///     refused.source().is_some_and(|source| source.is::<Killed>())
/// });
/// pila::run();
/// stubborn.kill().unwrap();
/// # let _ = AssertUnwindSafe(());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Killed;

impl fmt::Display for Killed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the tasklet was killed")
    }
}

impl Error for Killed {}

/// A [`timeout`](crate::timeout) that has passed: which one.
///
/// As an `io::Error` it is `TimedOut`, so `?` passes it on where sockets are used.
///
/// ```
/// # use pila_runtime as pila;
/// use std::{io, time::Duration};
///
/// let elapsed = pila::timeout(Duration::from_millis(5), || pila::sleep(Duration::MAX)).unwrap_err();
/// assert_eq!(elapsed.limit(), Duration::from_millis(5));
/// assert!(elapsed.to_string().starts_with("the timeout of 5ms set at "));
/// assert_eq!(io::Error::from(elapsed).kind(), io::ErrorKind::TimedOut);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elapsed {
    pub(crate) limit: Duration,
    pub(crate) place: &'static Location<'static>,
}

impl Elapsed {
    /// How long it gave.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use std::time::Duration;
    ///
    /// let inner = || pila::timeout(Duration::from_secs(9), || pila::sleep(Duration::MAX));
    /// let elapsed = pila::timeout(Duration::from_millis(1), inner).unwrap_err();
    /// assert_eq!(elapsed.limit(), Duration::from_millis(1));
    /// ```
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Where it was set.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use std::time::Duration;
    ///
    /// let elapsed = pila::timeout(Duration::ZERO, || pila::sleep(Duration::MAX)).unwrap_err();
    /// assert_eq!(elapsed.place().line(), line!() - 1);
    /// ```
    #[must_use]
    pub fn place(&self) -> &'static Location<'static> {
        self.place
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the timeout of {:?} set at {} has passed", self.limit, self.place)
    }
}

impl Error for Elapsed {}

impl From<Elapsed> for io::Error {
    /// `TimedOut`.
    fn from(elapsed: Elapsed) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, elapsed)
    }
}

/// An error that one tasklet sent or threw to another.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::{Channel, ReceiveError};
///
/// let channel = Channel::<u32>::new();
/// let theirs = channel.clone();
/// pila::tasklet(move || theirs.send_error("no more numbers"));
/// let Err(ReceiveError::Sent(error)) = channel.receive() else { unreachable!() };
/// assert_eq!(error.to_string(), "no more numbers");
/// ```
#[derive(Clone)]
pub struct Thrown(Arc<dyn Error + Send + Sync>);

impl Thrown {
    pub(crate) fn new(error: Box<dyn Error + Send + Sync>) -> Thrown {
        Thrown(error.into())
    }

    /// The error itself.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::{Channel, ReceiveError};
    ///
    /// let channel = Channel::<u32>::new();
    /// let theirs = channel.clone();
    /// pila::tasklet(move || theirs.send_error(std::fmt::Error));
    /// let Err(ReceiveError::Sent(error)) = channel.receive() else { unreachable!() };
    /// assert!(error.get().is::<std::fmt::Error>());
    /// ```
    #[must_use]
    pub fn get(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }
}

impl fmt::Debug for Thrown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Thrown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for Thrown {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// How a wait ended when nothing woke it for what it waited for.
///
/// ```
/// # use pila_runtime as pila;
/// use std::io;
/// use pila::park::{self, Interrupt, Waiting};
///
/// let ended = park::wait(park::begin()?, Waiting::Outside, Some(pila::driver::now()));
/// assert!(matches!(ended, Err(Interrupt::Deadline)));
/// assert_eq!(io::Error::from(ended.unwrap_err()).kind(), io::ErrorKind::TimedOut);
/// # Ok::<(), Interrupt>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Interrupt {
    /// The deadline has passed.
    Deadline,
    /// Nothing could ever have ended the wait.
    Deadlock(Report),
    /// The wait was refused and never began.
    Refused(Refused),
    /// Another tasklet threw this error into the call.
    Thrown(Thrown),
}

impl fmt::Display for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Interrupt::Deadline => f.write_str("the deadline has passed"),
            Interrupt::Deadlock(report) => report.fmt(f),
            Interrupt::Refused(refused) => refused.fmt(f),
            Interrupt::Thrown(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Interrupt {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Interrupt::Refused(refused) => refused.source().or(Some(refused)),
            Interrupt::Thrown(error) => Some(error.get()),
            Interrupt::Deadlock(report) => Some(report),
            Interrupt::Deadline => None,
        }
    }
}

impl From<Interrupt> for io::Error {
    /// `TimedOut` for a deadline, else `Other` with the cause as its source. Never `Interrupted`, which callers retry.
    fn from(interrupt: Interrupt) -> io::Error {
        match interrupt {
            Interrupt::Deadline => io::Error::new(io::ErrorKind::TimedOut, Interrupt::Deadline),
            other => io::Error::other(other),
        }
    }
}

/// The tasklet was in a state in which the operation is not possible. It was left as it was.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::TaskletError;
///
/// let tasklet = pila::tasklet(|| ());
/// pila::run();
/// let error = tasklet.insert().unwrap_err();
/// assert!(matches!(&error, TaskletError::Dead(who) if who.id == tasklet.id()));
/// assert_eq!(error.to_string(), "tasklet #1 has ended");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TaskletError {
    /// It has ended.
    Dead(Who),
    /// It waits for something, which alone can wake it.
    Blocked(Who),
    /// It is the one that runs.
    Current(Who),
    /// It is main, which nobody can end.
    Main(Who),
    /// It was killed, caught the kill and goes on, though every call of it that waits fails.
    StillAlive(Who),
    /// It cannot be ended at this moment: a [`shield`](crate::shield) protects it, it waits for the tasklets of its scope,
    /// or the caller itself is being ended. It ends as soon as it can.
    Pending(Who),
    /// It has started, and the program was built with `panic = "abort"`: nothing can unwind.
    CannotUnwind(Who),
    /// It is in no call that could return an error.
    CannotThrow(Who),
    /// The caller cannot switch to it now.
    Refused(Who, Refused),
}

impl fmt::Display for TaskletError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TaskletError::Dead(who) => write!(f, "tasklet {who} has ended"),
            TaskletError::Blocked(who) => {
                write!(f, "tasklet {who} is blocked: only what it waits for can wake it")
            }
            TaskletError::Current(who) => write!(f, "tasklet {who} is the one that runs"),
            TaskletError::Main(who) => write!(f, "tasklet {who} is main: it ends with its thread"),
            TaskletError::StillAlive(who) => {
                write!(f, "tasklet {who} caught its kill and goes on")
            }
            TaskletError::Pending(who) => {
                write!(f, "tasklet {who} cannot be ended at this moment: it ends as soon as it can")
            }
            TaskletError::CannotUnwind(who) => {
                write!(f, "tasklet {who} has started and cannot be ended: {NO_UNWINDING}")
            }
            TaskletError::CannotThrow(who) => {
                write!(f, "tasklet {who} is in no call that could return an error")
            }
            TaskletError::Refused(who, refused) => {
                write!(f, "cannot switch to tasklet {who}: {refused}")
            }
        }
    }
}

impl std::error::Error for TaskletError {}

/// A panic that ended a tasklet.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::JoinError;
///
/// let joined = pila::tasklet(|| panic!("no way")).join();
/// let Err(JoinError::Panicked(panic)) = joined else { unreachable!() };
/// assert_eq!(panic.to_string(), "no way");
/// ```
pub struct Panic {
    // A payload is `Send` but not `Sync`; the lock, which is never contended, makes errors that hold it so.
    payload: Mutex<Box<dyn Any + Send>>,
    message: Box<str>,
}

impl Panic {
    pub(crate) fn new(payload: Box<dyn Any + Send>) -> Panic {
        let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
            (Some(text), _) => (*text).into(),
            (_, Some(text)) => text.as_str().into(),
            (None, None) => "a value that is not a string".into(),
        };
        Panic { payload: Mutex::new(payload), message }
    }

    /// What the panic said.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::JoinError;
    ///
    /// let joined = pila::tasklet(|| panic!("{} ways", 0)).join();
    /// let Err(JoinError::Panicked(panic)) = joined else { unreachable!() };
    /// assert_eq!(panic.message(), "0 ways");
    /// ```
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The value of the panic, as [`std::panic::resume_unwind`] takes it.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::JoinError;
    ///
    /// let joined = pila::tasklet(|| std::panic::panic_any(42)).join();
    /// let Err(JoinError::Panicked(panic)) = joined else { unreachable!() };
    /// assert_eq!(panic.into_payload().downcast_ref(), Some(&42));
    /// ```
    #[must_use]
    pub fn into_payload(self) -> Box<dyn Any + Send> {
        self.payload.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Panic").field(&self.message).finish()
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Why [`Tasklet::join`](crate::Tasklet::join) has no result to give.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::{JoinError, Tasklet};
///
/// let never_inserted = Tasklet::bind(|| 42);
/// let Err(JoinError::Deadlock(report)) = never_inserted.join() else { unreachable!() };
/// assert!(report.to_string().contains("is paused: waits to be inserted"));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum JoinError {
    /// The tasklet panicked.
    Panicked(Panic),
    /// The tasklet was killed.
    Killed,
    /// The tasklet waits for something that can never happen, or was never put into the run queue.
    Deadlock(Report),
    /// No stack could be had for the tasklet, which never started.
    NoStack(io::Error),
    /// The caller cannot wait now.
    Refused(Refused),
    /// Another tasklet threw this error into the call.
    Thrown(Thrown),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Panicked(panic) => write!(f, "the tasklet panicked: {panic}"),
            JoinError::Killed => f.write_str("the tasklet was killed"),
            JoinError::Deadlock(report) => report.fmt(f),
            JoinError::NoStack(error) => write!(f, "the tasklet never started: {error}"),
            JoinError::Refused(refused) => refused.fmt(f),
            JoinError::Thrown(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for JoinError {}

/// A value that no receiver took.
///
/// ```
/// # use pila_runtime as pila;
/// let channel = pila::Channel::new();
/// channel.close();
/// let error: pila::SendError<&str> = channel.send("a letter").unwrap_err();
/// assert_eq!(error.value, "a letter");
/// assert_eq!(error.to_string(), "send on a closed channel");
/// ```
#[derive(Clone, Debug)]
pub struct SendError<T> {
    /// The value, back.
    pub value: T,
    /// Why nobody took it.
    pub reason: SendReason,
}

/// Why nobody took a value.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::{Channel, SendReason};
///
/// let channel = Channel::new();
/// assert!(matches!(channel.try_send(1).unwrap_err().reason, SendReason::Timeout));
/// assert!(matches!(channel.send(1).unwrap_err().reason, SendReason::Deadlock(_)));
/// channel.close();
/// assert!(matches!(channel.send(1).unwrap_err().reason, SendReason::Closed));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SendReason {
    /// The channel is closed; the thread queue has no receiver left.
    Closed,
    /// Nobody is left who could receive it.
    Deadlock(Report),
    /// The time was up, or it would have had to wait and was not to.
    Timeout,
    /// The caller cannot wait now.
    Refused(Refused),
    /// Another tasklet threw this error into the call.
    Thrown(Thrown),
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            SendReason::Closed => f.write_str("send on a closed channel"),
            SendReason::Deadlock(report) => report.fmt(f),
            SendReason::Timeout => f.write_str("no receiver in time"),
            SendReason::Refused(refused) => refused.fmt(f),
            SendReason::Thrown(error) => error.fmt(f),
        }
    }
}

impl<T: fmt::Debug> std::error::Error for SendError<T> {}

/// Why there is no value to receive.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::{Channel, ReceiveError};
///
/// let channel = Channel::<()>::new();
/// assert!(matches!(channel.try_receive(), Err(ReceiveError::Timeout)));
/// assert!(matches!(channel.receive(), Err(ReceiveError::Deadlock(_))));
/// channel.close();
/// assert!(matches!(channel.receive(), Err(ReceiveError::Closed)));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The channel is closed and nobody waits to send on it; the thread queue is empty and has no sender left.
    Closed,
    /// Nobody is left who could send one.
    Deadlock(Report),
    /// The time was up, or it would have had to wait and was not to.
    Timeout,
    /// A sender sent this error instead of a value.
    Sent(Thrown),
    /// The caller cannot wait now.
    Refused(Refused),
    /// Another tasklet threw this error into the call.
    Thrown(Thrown),
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReceiveError::Closed => f.write_str("receive on a closed channel"),
            ReceiveError::Deadlock(report) => report.fmt(f),
            ReceiveError::Timeout => f.write_str("no sender in time"),
            ReceiveError::Sent(error) => error.fmt(f),
            ReceiveError::Refused(refused) => refused.fmt(f),
            ReceiveError::Thrown(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReceiveError {}

/// No stack could be had.
#[derive(Debug)]
pub(crate) struct StackError {
    /// How many stacks the thread has in use.
    pub(crate) live: usize,
    /// What the system said.
    pub(crate) source: io::Error,
}

impl StackError {
    /// For a process that has as many mappings as it may.
    pub(crate) fn mappings(limit: usize, guards: usize) -> io::Error {
        let message = format!(
            "{guards} stacks have guard pages made by mprotect, two mappings each, and vm.max_map_count allows the \
             process {limit} mappings; for twice as many stacks: sysctl -w vm.max_map_count={}",
            limit * 2
        );
        io::Error::new(io::ErrorKind::OutOfMemory, message)
    }
}

impl From<StackError> for io::Error {
    fn from(error: StackError) -> io::Error {
        let kind = error.source.kind();
        io::Error::new(
            kind,
            format!("no stack for another tasklet, {} live: {}", error.live, error.source),
        )
    }
}
