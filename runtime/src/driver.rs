//! What the scheduler asks of the world outside its thread: the time, and news.
//!
//! - The scheduler asks with a timeout of zero while tasklets can run, and waits only when none can.
//! - A driver runs no code of the user: it hands tickets back, and the scheduler wakes who holds them.
//!
//! Without sockets a thread has one that only sleeps. The first socket of a thread installs the poller of
//! `pila-net`. Tests of time install [`VirtualClock`].

use std::{
    fmt, io,
    time::{Duration, Instant},
};

pub use crate::current::{install, now};
use crate::wake::Ticket;

/// Time and news from outside, for one thread's scheduler.
pub trait Driver: fmt::Debug {
    /// The time now, on the clock that deadlines are measured on. It never goes back.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Waits until something outside happens or `timeout` has passed, and adds the tickets of all that can go on to
    /// `woken`. `Some(ZERO)` only looks, `None` waits for ever. Coming back early, with nothing, is allowed.
    ///
    /// # Errors
    /// Only those after which no later call could work either: the scheduler panics with them.
    fn wait(&mut self, timeout: Option<Duration>, woken: &mut Vec<Ticket>) -> io::Result<()>;
}

/// The driver of a thread that has no sockets.
#[derive(Debug)]
pub(crate) struct Idle;

impl Driver for Idle {
    // The one place where stopping the thread is the purpose: no tasklet can run before the deadline.
    #[allow(clippy::disallowed_methods)]
    fn wait(&mut self, timeout: Option<Duration>, _: &mut Vec<Ticket>) -> io::Result<()> {
        match timeout {
            Some(Duration::ZERO) => {}
            Some(timeout) => std::thread::sleep(timeout),
            None => unreachable!("without sockets, only time can wake a tasklet from outside"),
        }
        Ok(())
    }
}

/// A clock for tests: it stands still while anything can run, and jumps to the next deadline when nothing can.
///
/// A program of hours of sleeps runs in microseconds, in the same order. [`now`] reads it.
///
/// ```
/// use std::time::Duration;
/// use pila_runtime::driver::{self, VirtualClock};
///
/// driver::install(Box::new(VirtualClock::new()))?;
/// let start = driver::now();
/// pila_runtime::sleep(Duration::from_secs(3600));
/// assert_eq!(driver::now() - start, Duration::from_secs(3600));
/// # Ok::<(), driver::AlreadyInstalled>(())
/// ```
#[derive(Debug)]
pub struct VirtualClock {
    now: Instant,
}

impl VirtualClock {
    /// A clock that starts at the present.
    #[must_use]
    pub fn new() -> VirtualClock {
        VirtualClock { now: Instant::now() }
    }
}

impl Default for VirtualClock {
    fn default() -> VirtualClock {
        VirtualClock::new()
    }
}

impl Driver for VirtualClock {
    fn now(&self) -> Instant {
        self.now
    }

    fn wait(&mut self, timeout: Option<Duration>, _: &mut Vec<Ticket>) -> io::Result<()> {
        self.now +=
            timeout.expect("with a virtual clock, only time can wake a tasklet from outside");
        Ok(())
    }
}

/// The thread has another driver than the one every thread starts with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlreadyInstalled;

impl fmt::Display for AlreadyInstalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the thread has a driver already: sockets and a virtual clock exclude each other",
        )
    }
}

impl std::error::Error for AlreadyInstalled {}

impl From<AlreadyInstalled> for io::Error {
    fn from(error: AlreadyInstalled) -> io::Error {
        io::Error::new(io::ErrorKind::Unsupported, error)
    }
}
