//! What can go wrong with a worker, and what its caller gets back.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

/// A call that came back without a reply, and the request.
///
/// ```
/// use pila_net::process::{CallError, CallReason, Role};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let role = Role::declare("shout", |text: String| text.to_uppercase());
/// let worker = role.start()?;
/// match worker.call("hello".to_string()) {
///     Ok(reply) => println!("{reply}"),
///     Err(CallError { request, reason: CallReason::Died(died), may_have_run: false, .. }) => {
///         println!("{died}: {request:?} can be given to another");
///     }
///     Err(error) => println!("{error}"),
/// }
/// # Ok(())
/// # }
/// ```
#[non_exhaustive]
pub struct CallError<Request> {
    /// The request, back.
    pub request: Request,
    /// Why there is no reply.
    pub reason: CallReason,
    /// Whether the worker may have begun with the request. If not, making it again does nothing twice.
    pub may_have_run: bool,
}

impl<Request> CallError<Request> {
    pub(super) fn new(request: Request, failure: Failure) -> Self {
        let Failure { reason, may_have_run } = failure;
        Self { request, reason, may_have_run }
    }
}

/// Why a call came back without a reply.
///
/// ```
/// use pila_net::process::{CallReason, Role};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let role = Role::declare("divide", |(a, b): (u32, u32)| a / b);
/// let error = role.start()?.call((1, 0)).unwrap_err();
/// assert!(matches!(error.reason, CallReason::Panicked(text) if text.contains("divide by zero")));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum CallReason {
    /// The worker ended before it answered.
    Died(WorkerDied),
    /// No worker of the pool runs, and none could be started.
    NoWorker(Arc<StartError>),
    /// The handler panicked with this message. The worker goes on.
    Panicked(String),
    /// The worker's own program ended the tasklet that handled the request. The worker goes on.
    Killed,
    /// The request could not be written as a message; nothing was sent.
    Unwritten(String),
    /// The request is too long a message; nothing was sent.
    RequestTooLong {
        /// How many bytes it takes.
        length: usize,
        /// How many it may take.
        limit: usize,
    },
    /// The worker could not read the request. The worker goes on.
    Unread(String),
    /// The reply could not be written as a message, or what was written could not be read. The worker goes on.
    Unreadable(String),
    /// The reply is too long a message. The worker goes on.
    ReplyTooLong {
        /// How many bytes it takes.
        length: usize,
        /// How many it may take.
        limit: usize,
    },
    /// The worker, or the pool, is being joined: it takes no more requests.
    Closed,
    /// The caller could not wait: it was ended, may not switch, had an error thrown into it, or its thread cannot wait on
    /// sockets.
    Interrupted(io::Error),
}

/// Why a call failed, before the request is put to it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: CallReason,
    pub(super) may_have_run: bool,
}

impl Failure {
    /// One of a request that has not reached a worker.
    pub(super) fn unsent(reason: CallReason) -> Self {
        Self { reason, may_have_run: false }
    }

    /// One of a request that may have run, or has.
    pub(super) fn sent(reason: CallReason) -> Self {
        Self { reason, may_have_run: true }
    }
}

impl fmt::Display for CallReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Died(died) => died.fmt(f),
            Self::NoWorker(error) => {
                write!(f, "no worker is left, and another cannot be started: {error}")
            }
            Self::Panicked(message) => write!(f, "the handler panicked in the worker: {message}"),
            Self::Killed => f.write_str("the worker ended the tasklet that handled the request"),
            Self::Unwritten(why) => {
                write!(
                    f,
                    "the request cannot be written as a message: {why}; change how it is serialized"
                )
            }
            Self::RequestTooLong { length, limit } => write!(
                f,
                "the request takes {length} bytes, of {limit} allowed: allow more with `Role::max_message`"
            ),
            Self::Unread(why) => write!(
                f,
                "the worker cannot read the request: {why}; make its Serialize and Deserialize agree"
            ),
            Self::Unreadable(why) => {
                write!(
                    f,
                    "the reply cannot be read: {why}; make its Serialize and Deserialize agree"
                )
            }
            Self::ReplyTooLong { length, limit } => write!(
                f,
                "the reply takes {length} bytes, of {limit} allowed: allow more with `Role::max_message`"
            ),
            Self::Closed => f.write_str("no more requests are taken: `join` was called"),
            Self::Interrupted(error) => write!(f, "the caller cannot wait for the reply: {error}"),
        }
    }
}

impl Error for CallReason {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Died(died) => Some(died),
            Self::NoWorker(error) => Some(&**error),
            Self::Interrupted(error) => Some(error),
            Self::Panicked(_)
            | Self::Killed
            | Self::Unwritten(_)
            | Self::RequestTooLong { .. }
            | Self::Unread(_)
            | Self::Unreadable(_)
            | Self::ReplyTooLong { .. }
            | Self::Closed => None,
        }
    }
}

impl<Request> fmt::Display for CallError<Request> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)?;
        if let CallReason::Died(_) | CallReason::NoWorker(_) | CallReason::Interrupted(_) =
            self.reason
        {
            f.write_str(match self.may_have_run {
                true => "; this request may have run: make it again only if it may run twice",
                false => "; this request has not run: it can be made again",
            })?;
        }
        Ok(())
    }
}

impl<Request> fmt::Debug for CallError<Request> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut error = f.debug_struct("CallError");
        error.field("reason", &self.reason).field("may_have_run", &self.may_have_run);
        error.finish_non_exhaustive()
    }
}

impl<Request> Error for CallError<Request> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.reason)
    }
}

impl<Request> From<CallError<Request>> for io::Error {
    /// `Other` with the reason as its source; the request is dropped.
    fn from(error: CallError<Request>) -> Self {
        Self::other(error.reason)
    }
}

/// A worker that has ended, and how.
///
/// ```
/// use pila_net::process::{CallReason, Role};
/// use std::os::unix::process::ExitStatusExt;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let role = Role::declare("leave", |status: i32| -> () { std::process::exit(status) });
/// let error = role.start()?.call(3).unwrap_err();
/// let CallReason::Died(died) = error.reason else { unreachable!() };
/// assert_eq!(died.status.unwrap().code(), Some(3));
/// assert_eq!(died.unanswered, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct WorkerDied {
    /// What the role is called.
    pub role: Arc<str>,
    /// The number that the process had.
    pub id: u32,
    /// How it ended. `None` when someone else in this program has asked for its status.
    pub status: Option<ExitStatus>,
    /// How many requests had been sent to it that were not answered. Each caller has its own back.
    pub unanswered: usize,
    /// What it was ended for, if it was: what it sent that makes no sense, for example.
    pub fault: Option<Arc<str>>,
}

impl fmt::Display for WorkerDied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, id, unanswered, .. } = self;
        write!(f, "worker '{role}' (process {id}) ")?;
        match (&self.fault, self.status) {
            (Some(fault), _) => write!(f, "was ended: {fault}")?,
            (None, Some(status)) => write!(f, "has ended: {status}")?,
            (None, None) => f.write_str("has ended, nobody knows how")?,
        }
        match unanswered {
            0 => Ok(()),
            1 => f.write_str(", with a request unanswered"),
            more => write!(f, ", with {more} requests unanswered"),
        }
    }
}

impl Error for WorkerDied {}

/// Why a worker could not be started.
///
/// ```
/// use pila_net::process::{Role, StartError};
/// use std::time::Duration;
///
/// let role = Role::declare("double", |n: u32| 2 * n).start_timeout(Duration::from_secs(1));
/// if let Err(error @ StartError::Silent { .. }) = role.start() {
///     println!("{error}"); // the child came to no `declare` of this name within a second
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The system did not start it.
    Spawn(io::Error),
    /// It ended before it came to [`Role::declare`](super::Role::declare).
    Died(WorkerDied),
    /// It did not come to [`Role::declare`](super::Role::declare) in time, and was ended.
    Silent {
        /// What the role is called.
        role: Arc<str>,
        /// The number that the process had.
        id: u32,
        /// How long it was given.
        limit: Duration,
    },
    /// This process is a worker itself, and has not come to the declaration of its role: nothing was started, or every
    /// worker would start another.
    Undeclared {
        /// The role that this process was started for.
        role: String,
    },
    /// The caller could not wait until the worker was there.
    Interrupted(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const FIX: &str =
            "declare every role at the beginning of `main`, before anything else is done";
        match self {
            Self::Spawn(error) => write!(f, "a worker cannot be started: {error}"),
            Self::Died(died) => write!(f, "{died}, before it came to `Role::declare`: {FIX}"),
            Self::Silent { role, id, limit } => write!(
                f,
                "worker '{role}' (process {id}) did not come to `Role::declare` within {limit:?}: {FIX}"
            ),
            Self::Undeclared { role } => {
                write!(
                    f,
                    "this process is itself a worker ('{role}') that has not come to its declaration: {FIX}"
                )
            }
            Self::Interrupted(error) => {
                write!(f, "the caller cannot wait for a worker to start: {error}")
            }
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Spawn(error) | Self::Interrupted(error) => Some(error),
            Self::Died(died) => Some(died),
            Self::Silent { .. } | Self::Undeclared { .. } => None,
        }
    }
}

impl From<StartError> for io::Error {
    /// That of the system, or `TimedOut`, or `Other`, with this as its source.
    fn from(error: StartError) -> Self {
        let kind = match &error {
            StartError::Spawn(error) | StartError::Interrupted(error) => error.kind(),
            StartError::Silent { .. } => io::ErrorKind::TimedOut,
            StartError::Died(_) | StartError::Undeclared { .. } => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
