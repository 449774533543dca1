//! What one poller last reported about one socket, and who waits for it to report more.
//!
//! - A clear bit is a promise: an event that sets it will follow. A set bit promises nothing, the call may
//!   still say `WouldBlock`.
//! - Only one thread writes a [`Readiness`], the one whose poller it belongs to, so a load and a store do
//!   for an update.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use pila_runtime::park::{Relay, Ticket};

/// One half of what a socket does. Accepting is reading, connecting is writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

impl Direction {
    const fn bit(self) -> u8 {
        match self {
            Self::Read => Ready::READ.0,
            Self::Write => Ready::WRITE.0,
        }
    }
}

/// What one event says, as a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ready(u8);

impl Ready {
    pub(crate) const NOTHING: Self = Self(0);
    pub(crate) const READ: Self = Self(1);
    pub(crate) const WRITE: Self = Self(2);
    /// A short read or write no longer proves that the next call would block: the end of the stream, an
    /// error or urgent data stands behind it, or the poller cannot tell these apart from data.
    pub(crate) const INEXACT: Self = Self(4);

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// `self` if `condition`, nothing otherwise.
    pub(crate) const fn when(self, condition: bool) -> Self {
        if condition { self } else { Self::NOTHING }
    }

    pub(crate) const fn has(self, direction: Direction) -> bool {
        self.0 & direction.bit() != 0
    }
}

/// The bits of one socket at one poller.
#[derive(Debug)]
pub(crate) struct Readiness(AtomicU8);

impl Readiness {
    pub(crate) const fn new(ready: Ready) -> Self {
        Self(AtomicU8::new(ready.0))
    }

    pub(crate) fn is_ready(&self, direction: Direction) -> bool {
        self.0.load(Ordering::Relaxed) & direction.bit() != 0
    }

    pub(crate) fn add(&self, ready: Ready) {
        self.0.store(self.0.load(Ordering::Relaxed) | ready.0, Ordering::Relaxed);
    }

    /// Whether something else than data may have made it ready.
    pub(crate) fn is_inexact(&self) -> bool {
        self.0.load(Ordering::Relaxed) & Ready::INEXACT.0 != 0
    }

    /// The call said `WouldBlock`.
    pub(crate) fn clear(&self, direction: Direction) {
        self.0.store(self.0.load(Ordering::Relaxed) & !direction.bit(), Ordering::Relaxed);
    }

    /// The call did less than it was asked: the next one would say `WouldBlock`, if this is exact.
    pub(crate) fn exhaust(&self, direction: Direction) {
        if !self.is_inexact() {
            self.clear(direction);
        }
    }
}

/// Who waits for one direction of one socket: tasklets by their tickets, in order of arrival, and tasks of async code.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    /// The first to wait. Nearly always the only one, so that waiting allocates nothing.
    first: Option<Ticket>,
    /// Everyone else; made when there first is one.
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    /// Those behind the first; empty while there is none.
    rest: Vec<Ticket>,
    /// Those of tasks that have polled.
    relays: Vec<Arc<Relay>>,
}

impl Waiters {
    pub(crate) fn push(&mut self, ticket: Ticket) {
        match self.first {
            None => self.first = Some(ticket),
            Some(_) => self.more().rest.push(ticket),
        }
    }

    /// Forgets `ticket`, if it is still here.
    pub(crate) fn remove(&mut self, ticket: Ticket) {
        let rest = self.more.as_mut().map(|more| &mut more.rest);
        if self.first == Some(ticket) {
            self.first = rest.filter(|rest| !rest.is_empty()).map(|rest| rest.remove(0));
        } else if let Some(rest) = rest {
            rest.retain(|&other| other != ticket);
        }
    }

    /// Adds `relay`, unless it is here already.
    pub(crate) fn add_relay(&mut self, relay: Arc<Relay>) {
        let relays = &mut self.more().relays;
        if !relays.iter().any(|other| Arc::ptr_eq(other, &relay)) {
            // Each call that polls brings another, and nothing may ever come.
            relays.retain(|other| other.is_pending());
            relays.push(relay);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        let mut relays = self.more.iter().flat_map(|more| &more.relays);
        self.first.is_none() && !relays.any(|relay| relay.is_pending())
    }

    /// Moves everyone to `woken` and `rung`. All retry their call: how much one leaves for the next is not known.
    #[inline]
    pub(crate) fn drain(&mut self, woken: &mut Vec<Ticket>, rung: &mut Vec<Arc<Relay>>) {
        woken.extend(self.first.take());
        if let Some(more) = &mut self.more {
            woken.append(&mut more.rest);
            rung.append(&mut more.relays);
        }
    }

    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use pila_runtime::park;

    use super::*;

    #[test]
    fn a_short_call_clears_its_own_direction_only() {
        let readiness = Readiness::new(Ready::READ.and(Ready::WRITE));
        readiness.exhaust(Direction::Read);
        assert!(!readiness.is_ready(Direction::Read));
        assert!(readiness.is_ready(Direction::Write));
    }

    #[test]
    fn a_short_call_proves_nothing_after_a_hang_up() {
        let readiness = Readiness::new(Ready::READ);
        readiness.add(Ready::READ.and(Ready::INEXACT));
        readiness.exhaust(Direction::Read);
        assert!(readiness.is_ready(Direction::Read));
        readiness.clear(Direction::Read);
        assert!(!readiness.is_ready(Direction::Read));
    }

    #[test]
    fn waiters_leave_in_order_of_arrival_or_when_they_want() {
        let [first, second, third, fourth] = [(); 4].map(|()| park::begin().unwrap());
        let mut waiters = Waiters::default();
        for ticket in [first, second, third, fourth] {
            waiters.push(ticket);
        }
        waiters.remove(third);
        waiters.remove(first);
        waiters.remove(first);
        let mut woken = Vec::new();
        waiters.drain(&mut woken, &mut Vec::new());
        assert_eq!(woken, [second, fourth]);
        waiters.drain(&mut woken, &mut Vec::new());
        assert_eq!(woken.len(), 2);
    }

    #[test]
    fn relays_that_wait_for_nothing_any_more_make_room() {
        let mut waiters = Waiters::default();
        for _ in 0..100 {
            // Each call that polls has a relay of its own, and ends here before anything comes.
            pila_runtime::block_on(std::future::poll_fn(|context| {
                waiters.add_relay(Arc::new(Relay::new(context.waker()).unwrap()));
                std::task::Poll::Ready(())
            }));
        }
        assert_eq!(waiters.more().relays.len(), 1);
    }

    #[test]
    fn when_keeps_or_drops_the_bits() {
        assert_eq!(Ready::READ.when(true), Ready::READ);
        assert_eq!(Ready::READ.when(false), Ready::NOTHING);
        assert!(!Ready::READ.has(Direction::Write));
    }
}
