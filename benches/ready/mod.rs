//! The bare loop's view of its sockets: `epoll`, level-triggered, and nothing else.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{
    Timespec,
    epoll::{self, CreateFlags, Event, EventData, EventFlags},
};

/// Events taken from the kernel at a time.
const EVENTS: usize = 1024;

/// Sockets that are watched for something to read, by number.
pub(crate) struct Ready {
    epoll: OwnedFd,
}

impl Ready {
    pub(crate) fn new() -> Ready {
        Ready { epoll: epoll::create(CreateFlags::CLOEXEC).expect("a descriptor is left") }
    }

    /// Watches `socket`, which must be nonblocking, until it is closed.
    pub(crate) fn add(&self, socket: &impl AsFd, number: usize) {
        let data = EventData::new_u64(number as u64);
        epoll::add(&self.epoll, socket, data, EventFlags::IN).expect("it is a new socket");
    }

    /// Waits until some are ready, or as long as `timeout` says, and tells which. `events` is room for that.
    pub(crate) fn wait<'a>(
        &self,
        timeout: Option<&Timespec>,
        events: &'a mut Vec<Event>,
    ) -> impl Iterator<Item = usize> + use<'a> {
        events.clear();
        events.reserve(EVENTS);
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), timeout)
            .expect("nothing interrupts it");
        events.drain(..).map(|event| event.data.u64() as usize)
    }
}
