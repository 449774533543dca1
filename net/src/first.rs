//! Waiting for the first of several descriptors.
//!
//! - One ticket is on all their lists. Whatever ends the wait, it is taken off the lists it is still on.
//! - A descriptor may be closed meanwhile. Nothing is heard of it then; whoever closes it wakes the waiter.

use std::sync::Arc;
use std::time::Instant;

use pila_runtime::park::{self, Interrupt, Ticket, Waiting};

use crate::poller::Registration;
use crate::readiness::Direction;

/// One direction of one descriptor, at the calling thread's poller.
#[derive(Debug)]
pub(crate) struct Interest {
    registration: Arc<Registration>,
    direction: Direction,
}

impl Interest {
    /// `registration` is the calling thread's.
    pub(crate) fn new(registration: Arc<Registration>, direction: Direction) -> Self {
        Self { registration, direction }
    }

    fn enlist(&self, ticket: Ticket) -> Enlisted<'_> {
        Enlisted::new(&self.registration, self.direction, ticket)
    }

    /// Whether trying is worth it. A clear answer means that the poller will have news.
    pub(crate) fn is_ready(&self) -> bool {
        self.registration.readiness().is_ready(self.direction)
    }
}

/// Waits until one of `interests` is worth trying, `ticket` is unparked, or `deadline` has passed.
pub(crate) fn wait(
    interests: &[Interest],
    ticket: Ticket,
    waiting: Waiting,
    deadline: Option<Instant>,
) -> Result<(), Interrupt> {
    if interests.iter().any(Interest::is_ready) {
        return Ok(());
    }
    let _enlisted: Vec<_> = interests.iter().map(|interest| interest.enlist(ticket)).collect();
    park::wait(ticket, waiting, deadline)
}

/// A ticket on a waiters' list, taken off when its owner stops waiting in any way but being woken.
pub(crate) struct Enlisted<'a> {
    registration: &'a Registration,
    direction: Direction,
    ticket: Ticket,
}

impl<'a> Enlisted<'a> {
    pub(crate) fn new(
        registration: &'a Registration,
        direction: Direction,
        ticket: Ticket,
    ) -> Self {
        registration.enlist(direction, ticket);
        Self { registration, direction, ticket }
    }
}

impl Drop for Enlisted<'_> {
    fn drop(&mut self) {
        self.registration.withdraw(self.direction, self.ticket);
    }
}
