//! What the clones of a socket share, as they do in the kernel: how long calls may wait, and whether they wait at all.
//!
//! - std leaves timeouts to the kernel, which obeys them in calls that block. Ours never do, so the kernel is told only
//!   when somebody may look: who asks for a timeout, who has the descriptor, who gets the socket. A client that sets both
//!   timeouts of each connection saves two system calls a connection.
//! - From when the descriptor was shown to anyone, the kernel is told at once, for there is no knowing who kept it.

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
    kernel: Mutex<Kernel>,
}

/// What the kernel knows of it.
#[derive(Debug, Default)]
struct Kernel {
    /// Whether others may have the descriptor.
    is_watched: bool,
    lacks_read_timeout: bool,
    lacks_write_timeout: bool,
}

impl Settings {
    /// Those of a socket that somebody else made, and may have a descriptor of, with the timeouts it came with.
    pub(crate) fn of(socket: BorrowedFd<'_>) -> Self {
        let settings = Self::default();
        settings.kernel().is_watched = true;
        let socket = SockRef::from(&socket);
        // std has no name for that of a listener, but obeys it.
        settings.note(Direction::Read, socket.read_timeout().ok().flatten());
        settings.note(Direction::Write, socket.write_timeout().ok().flatten());
        settings
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
        match direction {
            Direction::Read => kernel.lacks_read_timeout = true,
            Direction::Write => kernel.lacks_write_timeout = true,
        }
        if kernel.is_watched { self.tell(&mut kernel, socket) } else { Ok(()) }
    }

    /// How long a call in `direction` may wait.
    pub(crate) fn timeout(&self, direction: Direction) -> Option<Duration> {
        let nanoseconds = self.place(direction).load(Ordering::Relaxed);
        (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds))
    }

    /// Has the kernel know the timeouts of its `socket`.
    pub(crate) fn settle(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.tell(&mut self.kernel(), socket)
    }

    /// Somebody is about to see the descriptor of `socket`.
    pub(crate) fn show(&self, socket: BorrowedFd<'_>) {
        let mut kernel = self.kernel();
        kernel.is_watched = true;
        // It takes any timeout of a socket that is open.
        self.tell(&mut kernel, socket).ok();
    }

    pub(crate) fn set_nonblocking(&self, nonblocking: bool) {
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
    }

    pub(crate) fn is_nonblocking(&self) -> bool {
        self.nonblocking.load(Ordering::Relaxed)
    }

    fn tell(&self, kernel: &mut Kernel, socket: BorrowedFd<'_>) -> io::Result<()> {
        let socket = SockRef::from(&socket);
        let timeout = |direction| self.timeout(direction).map(|timeout| timeout.max(SHORTEST));
        if kernel.lacks_read_timeout {
            socket.set_read_timeout(timeout(Direction::Read))?;
            kernel.lacks_read_timeout = false;
        }
        if kernel.lacks_write_timeout {
            socket.set_write_timeout(timeout(Direction::Write))?;
            kernel.lacks_write_timeout = false;
        }
        Ok(())
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
