//! Linux's way of registering sockets and harvesting events: bare epoll calls on `polling`'s descriptor.
//!
//! `Poller::wait` makes five system calls when it has a timeout and three without; this makes one. And
//! only here is `EPOLLRDHUP` asked for, which tells the end of a stream from data: without it a short
//! read would not prove that the socket is empty.
//!
//! - Keys are encoded as `polling` encodes them, a plain `u64` with [`NOTIFIED`] for its own notifier, so
//!   that either way of waiting can read what either way of registering wrote. A test pins that.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use crate::readiness::Ready;

/// The key under which `polling` registers its notifier.
pub(crate) const NOTIFIED: usize = usize::MAX;

/// How many events one harvest takes at most; the rest stay with the kernel for the next.
const CAPACITY: usize = 1024;

/// What came of waiting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// The events are here, if any.
    Harvested,
    /// This kernel, or its seccomp filter, does not let us wait this way.
    Refused,
}

/// The buffer that events are harvested into.
pub(crate) struct Harvest {
    /// What the last wait brought.
    events: Vec<epoll::Event>,
}

impl Harvest {
    /// `None` on systems that have no epoll.
    pub(crate) fn new() -> Option<Self> {
        Some(Self { events: Vec::with_capacity(CAPACITY) })
    }

    /// Waits for events in one system call. A signal ends it early, with none.
    pub(crate) fn wait(
        &mut self,
        poller: &polling::Poller,
        timeout: Option<Duration>,
    ) -> io::Result<Waited> {
        // A timeout that does not fit outlives the machine: none is as good.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        self.events.clear();
        match epoll::wait(poller.as_fd(), spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(Waited::Harvested),
            Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => Ok(Waited::Refused),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, Ready)> {
        self.events.iter().map(|event| (event.data.u64() as usize, ready(event.flags)))
    }
}

impl fmt::Debug for Harvest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Harvest").field("events", &self.events.len()).finish()
    }
}

/// Registers `socket` for both directions, edge-triggered. What it is ready for already is reported at
/// the next harvest.
pub(crate) fn add(poller: &polling::Poller, socket: BorrowedFd<'_>, key: usize) -> io::Result<()> {
    let interest =
        EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::PRI | EventFlags::ET;
    Ok(epoll::add(poller.as_fd(), socket, EventData::new_u64(key as u64), interest)?)
}

fn ready(flags: EventFlags) -> Ready {
    let broken = EventFlags::HUP | EventFlags::ERR;
    // A read stops in front of urgent data though more may follow it.
    let inexact = EventFlags::RDHUP | EventFlags::PRI;
    let read = flags.intersects(EventFlags::IN | inexact | broken);
    let write = flags.intersects(EventFlags::OUT | broken);
    Ready::READ
        .when(read)
        .and(Ready::WRITE.when(write))
        .and(Ready::INEXACT.when(flags.intersects(inexact | broken)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::readiness::Direction;

    fn harvest(poller: &polling::Poller) -> Vec<(usize, Ready)> {
        let mut harvest = Harvest::new().expect("Linux has epoll");
        assert_eq!(harvest.wait(poller, Some(Duration::ZERO)).unwrap(), Waited::Harvested);
        harvest.iter().collect()
    }

    #[test]
    fn the_notifier_has_the_key_we_know() {
        let poller = polling::Poller::new().unwrap();
        poller.notify().unwrap();
        assert_eq!(harvest(&poller).iter().map(|event| event.0).collect::<Vec<_>>(), [NOTIFIED]);
    }

    #[test]
    fn a_zero_wait_consumes_and_rearms_the_notifier() {
        let poller = polling::Poller::new().unwrap();
        for _ in 0..3 {
            poller.notify().unwrap();
            assert_eq!(harvest(&poller).len(), 1);
            poller.wait(&mut polling::Events::new(), Some(Duration::ZERO)).unwrap();
            assert_eq!(harvest(&poller), []);
        }
    }

    #[test]
    fn polling_reads_the_keys_we_write() {
        let poller = polling::Poller::new().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        add(&poller, ours.as_fd(), 5).unwrap();
        let mut events = polling::Events::new();
        poller.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events.iter().map(|event| event.key).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn a_half_close_is_told_from_data() {
        let poller = polling::Poller::new().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        add(&poller, ours.as_fd(), 0).unwrap();
        assert_eq!(harvest(&poller), [(0, Ready::WRITE)]);
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let expected = Ready::READ.and(Ready::WRITE).and(Ready::INEXACT);
        assert_eq!(harvest(&poller), [(0, expected)]);
    }

    #[test]
    fn a_hang_up_is_for_readers_and_writers() {
        for flags in [EventFlags::HUP, EventFlags::ERR] {
            assert!(ready(flags).has(Direction::Read));
            assert!(ready(flags).has(Direction::Write));
        }
    }
}
