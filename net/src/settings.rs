//! What the clones of a socket share, as they do in the kernel: how long calls may wait, and whether they wait at all.
//!
//! - std leaves timeouts to the kernel, which obeys them in calls that block. Ours never do, so the kernel is told only
//!   when somebody may look: who asks for a timeout, who has the descriptor, who gets the socket. A client that sets both
//!   timeouts of each connection saves two system calls a connection.
//! - From when the descriptor was shown to anyone the socket is *watched*, for there is no knowing who kept it. Then the
//!   kernel is told at once, and asked before each wait, which costs a system call more: what others set counts.
//! - The kernel rounds. What it says counts only when it has changed since it was told.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::SockRef;

use crate::readiness::Direction;

/// The least that the kernel can be told. To it, zero is for ever.
const SHORTEST: Duration = Duration::from_micros(1);

#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// How long a read may wait, in nanoseconds; 0 is for ever.
    read_timeout: AtomicU64,
    /// How long a write may wait, likewise.
    write_timeout: AtomicU64,
    /// Whether the user asked for `WouldBlock` instead of waiting.
    nonblocking: AtomicBool,
    /// Whether others may have the descriptor.
    is_watched: AtomicBool,
    /// Whether the kernel's own flag has to be set, whatever the user asked, until the last of the clones is gone.
    needs_flag: AtomicBool,
    kernel: Mutex<Kernel>,
}

/// What the kernel knows of it.
#[derive(Debug, Default)]
struct Kernel {
    reads: Timeout,
    writes: Timeout,
}

/// What the kernel knows of one timeout.
#[derive(Debug, Default)]
struct Timeout {
    /// What it has still to be told.
    owed: Option<Option<Duration>>,
    /// What it said last.
    said: Option<Duration>,
}

impl Settings {
    /// Those of a socket that somebody else made, and may have a descriptor of, with the timeouts it came with.
    pub(crate) fn of(socket: BorrowedFd<'_>) -> Self {
        let settings = Self::default();
        settings.show(socket);
        settings.ask(socket, Direction::Read);
        settings.ask(socket, Direction::Write);
        settings
    }

    /// Those of a connection that was accepted by a listener with these, if they are any: it inherits the timeouts.
    pub(crate) fn inherited(&self) -> Option<Self> {
        let [read, write] = [Direction::Read, Direction::Write].map(|it| self.noted(it));
        (read.is_some() || write.is_some()).then(|| {
            let settings = Self::default();
            settings.note(Direction::Read, read);
            settings.note(Direction::Write, write);
            settings
        })
    }

    /// Later calls in `direction` wait for no longer than `timeout`, which is not zero.
    pub(crate) fn set_timeout(
        &self,
        socket: BorrowedFd<'_>,
        direction: Direction,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let mut kernel = self.kernel();
        self.note(direction, timeout);
        kernel.timeout(direction).owed = Some(timeout);
        if self.is_watched() { kernel.tell(socket, direction) } else { Ok(()) }
    }

    /// How long a call in `direction` may wait.
    pub(crate) fn timeout(&self, socket: BorrowedFd<'_>, direction: Direction) -> Option<Duration> {
        if self.is_watched() {
            self.ask(socket, direction);
        }
        self.noted(direction)
    }

    /// Has the kernel know the timeouts of its `socket`.
    pub(crate) fn settle(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let mut kernel = self.kernel();
        kernel.tell(socket, Direction::Read)?;
        kernel.tell(socket, Direction::Write)
    }

    /// Somebody is about to see the descriptor of `socket`. False when that is nothing new.
    pub(crate) fn show(&self, socket: BorrowedFd<'_>) -> bool {
        let mut kernel = self.kernel();
        if self.is_watched.swap(true, Ordering::Relaxed) {
            return false;
        }
        // It takes any timeout of a socket that is open.
        kernel.tell(socket, Direction::Read).ok();
        kernel.tell(socket, Direction::Write).ok();
        true
    }

    /// Whether others may have the descriptor.
    pub(crate) fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::Relaxed)
    }

    pub(crate) fn set_nonblocking(&self, nonblocking: bool) {
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
    }

    pub(crate) fn is_nonblocking(&self) -> bool {
        self.nonblocking.load(Ordering::Relaxed)
    }

    pub(crate) fn need_flag(&self) {
        self.needs_flag.store(true, Ordering::Relaxed);
    }

    pub(crate) fn needs_flag(&self) -> bool {
        self.needs_flag.load(Ordering::Relaxed)
    }

    /// Hears what others have set.
    fn ask(&self, socket: BorrowedFd<'_>, direction: Direction) {
        let mut kernel = self.kernel();
        let timeout = kernel.timeout(direction);
        // std has no name for that of a listener, but obeys it.
        let Ok(says) = told(socket, direction) else { return };
        if says != timeout.said {
            timeout.said = says;
            self.note(direction, says);
        }
    }

    fn noted(&self, direction: Direction) -> Option<Duration> {
        let nanoseconds = self.place(direction).load(Ordering::Relaxed);
        (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds))
    }

    fn note(&self, direction: Direction, timeout: Option<Duration>) {
        let nanoseconds =
            timeout.map_or(0, |timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
        self.place(direction).store(nanoseconds, Ordering::Relaxed);
    }

    fn place(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::Read => &self.read_timeout,
            Direction::Write => &self.write_timeout,
        }
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kernel {
    fn timeout(&mut self, direction: Direction) -> &mut Timeout {
        match direction {
            Direction::Read => &mut self.reads,
            Direction::Write => &mut self.writes,
        }
    }

    /// Tells what is owed.
    fn tell(&mut self, socket: BorrowedFd<'_>, direction: Direction) -> io::Result<()> {
        let known = self.timeout(direction);
        let Some(timeout) = known.owed else { return Ok(()) };
        let least = timeout.map(|timeout| timeout.max(SHORTEST));
        match direction {
            Direction::Read => SockRef::from(&socket).set_read_timeout(least)?,
            Direction::Write => SockRef::from(&socket).set_write_timeout(least)?,
        }
        (known.owed, known.said) = (None, told(socket, direction)?);
        Ok(())
    }
}

/// The timeout that the kernel has for `socket`, as it rounds it.
pub(crate) fn told(socket: BorrowedFd<'_>, direction: Direction) -> io::Result<Option<Duration>> {
    match direction {
        Direction::Read => SockRef::from(&socket).read_timeout(),
        Direction::Write => SockRef::from(&socket).write_timeout(),
    }
}
