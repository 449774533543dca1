//! What the scheduler asks of the world outside its thread: the time, and news.
//!
//! - The scheduler asks with a timeout of zero while tasklets can run, and waits only when none can.
//! - A driver runs no code of the user: it hands tickets back, and the scheduler wakes who holds them.
//! - Other threads reach a driver by its notifier alone, which ends a wait and says nothing more.
//!
//! Without sockets a thread has one that only sleeps. The first socket of a thread installs the poller of
//! `pila-net`. Tests of time install [`VirtualClock`].

use std::{
    cell::OnceCell,
    fmt, io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

pub use crate::current::{install, now};
use crate::wake::Ticket;

/// Time and news from outside, for one thread's scheduler.
///
/// A driver must not call what waits or yields: it is asked from inside of the scheduler, which panics when it is needed
/// again meanwhile.
///
/// ```
/// # use pila_runtime as pila;
/// use std::{io, time::{Duration, Instant}};
/// use pila::{driver::{self, Driver}, park::Ticket};
///
/// #[derive(Debug)]
/// struct Spin;
///
/// impl Driver for Spin {
///     fn wait(&mut self, _: Option<Duration>, _: &mut Vec<Ticket>) -> io::Result<()> {
///         Ok(()) // comes back early, always
///     }
/// }
///
/// driver::install(Box::new(Spin))?;
/// let start = Instant::now();
/// pila::sleep(Duration::from_millis(1));
/// assert!(start.elapsed() >= Duration::from_millis(1));
/// # Ok::<(), driver::AlreadyInstalled>(())
/// ```
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

    /// What ends a [`wait`](Driver::wait) of this driver from any thread.
    ///
    /// A driver that has none is asked to wait no longer than a millisecond at a time once tasklets of its thread can
    /// be woken by other threads.
    fn notifier(&self) -> Option<Arc<dyn Notify>> {
        None
    }
}

/// Ends a driver's wait from any thread.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::driver::{Driver, VirtualClock};
///
/// let mut clock = VirtualClock::new();
/// let notifier = clock.notifier().expect("a virtual clock has one");
/// let other = std::thread::spawn(move || notifier.notify());
/// clock.wait(None, &mut Vec::new())?;
/// # other.join().unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait Notify: Send + Sync + fmt::Debug {
    /// Ends the wait that is under way, or else the next one, which then returns at once.
    fn notify(&self);
}

/// Where a thread sleeps that has no sockets.
#[derive(Default, Debug)]
struct Bell {
    /// Whether it was rung since the last sleep.
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn sleep(&self, timeout: Option<Duration>) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = |rung: &mut bool| !*rung;
        let mut rung = match timeout {
            Some(timeout) => {
                let slept = self.changed.wait_timeout_while(rung, timeout, quiet);
                slept.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.changed.wait_while(rung, quiet).unwrap_or_else(PoisonError::into_inner),
        };
        *rung = false;
    }
}

impl Notify for Bell {
    fn notify(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }
}

/// The driver of a thread that has no sockets.
#[derive(Default, Debug)]
pub(crate) struct Idle {
    /// Made for the first sleep, or the first thread that may have to end one.
    bell: OnceCell<Arc<Bell>>,
}

impl Idle {
    pub(crate) const fn new() -> Idle {
        Idle { bell: OnceCell::new() }
    }

    fn bell(&self) -> &Arc<Bell> {
        self.bell.get_or_init(Arc::default)
    }
}

impl Driver for Idle {
    fn wait(&mut self, timeout: Option<Duration>, _: &mut Vec<Ticket>) -> io::Result<()> {
        if timeout != Some(Duration::ZERO) {
            self.bell().sleep(timeout);
        }
        Ok(())
    }

    fn notifier(&self) -> Option<Arc<dyn Notify>> {
        Some(self.bell().clone())
    }
}

/// A clock for tests: it stands still while anything can run, and jumps to the next deadline when nothing can.
///
/// A program of hours of sleeps runs in microseconds, in the same order. [`now`] reads it.
///
/// What another thread does takes no time on this clock. While a tasklet waits for another thread and no deadline is
/// pending, the clock stands still and the thread really waits. But a deadline that is pending is jumped to at once,
/// however soon the other thread would have come: do not mix the two where that matters.
///
/// ```
/// # use pila_runtime as pila;
/// use std::time::Duration;
/// use pila::driver::{self, VirtualClock};
///
/// driver::install(Box::new(VirtualClock::new()))?;
/// let start = driver::now();
/// pila::sleep(Duration::from_secs(3600));
/// assert_eq!(driver::now() - start, Duration::from_secs(3600));
/// # Ok::<(), driver::AlreadyInstalled>(())
/// ```
#[derive(Debug)]
pub struct VirtualClock {
    now: Instant,
    /// Where the thread waits for others while no deadline is pending.
    bell: Arc<Bell>,
}

impl VirtualClock {
    /// A clock that starts at the present.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use std::time::Duration;
    /// use pila::driver::{Driver, VirtualClock};
    ///
    /// let mut clock = VirtualClock::new();
    /// let start = clock.now();
    /// clock.wait(Some(Duration::from_secs(60)), &mut Vec::new())?;
    /// assert_eq!(clock.now() - start, Duration::from_secs(60));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn new() -> VirtualClock {
        VirtualClock { now: Instant::now(), bell: Arc::default() }
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
        match timeout {
            Some(timeout) => self.now += timeout,
            None => self.bell.sleep(None),
        }
        Ok(())
    }

    fn notifier(&self) -> Option<Arc<dyn Notify>> {
        Some(self.bell.clone())
    }
}

/// The thread has another driver than the one every thread starts with.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::driver::{self, VirtualClock};
///
/// driver::install(Box::new(VirtualClock::new()))?;
/// let error = driver::install(Box::new(VirtualClock::new())).unwrap_err();
/// assert!(error.to_string().starts_with("the thread has a driver already"));
/// # Ok::<(), driver::AlreadyInstalled>(())
/// ```
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
