//! Rendezvous channels between the tasklets of one thread.
//!
//! - Senders and receivers never wait at the same time.
//! - A value travels in the wait list: it is the channel's from the moment it is sent until the receiver takes it.
//! - A waiter that wakes without having been served removes itself, so `balance` counts only live ones.
//!
//! Cost of a message: no allocation once the list has grown, two switches for a rendezvous in ping-pong.

use std::{cell::RefCell, fmt, panic::Location, rc::Rc};

use crate::{
    current,
    error::{Interrupt, ReceiveError, SendError, SendReason},
    scheduler::Scheduler,
    wait_list::{Place, WaitList},
    wake::{ChannelId, Ticket, Waiting},
};

/// Where tasklets of one thread meet to hand values over. Clones share it.
///
/// There is no buffer: a sender waits for a receiver and a receiver for a sender. The receiver is preferred, as in
/// Stackless by default: a sender that finds one waiting lets it run at once and goes to the tail of the run queue
/// itself; a receiver that finds a sender waiting takes the value and runs on.
///
/// ```
/// let channel = pila_runtime::Channel::new();
/// let theirs = channel.clone();
/// pila_runtime::tasklet(move || {
///     for i in 0..3 {
///         theirs.send(i).unwrap();
///     }
///     theirs.close();
/// });
/// let mut received = Vec::new();
/// while let Ok(i) = channel.receive() {
///     received.push(i);
/// }
/// assert_eq!(received, [0, 1, 2]);
/// ```
pub struct Channel<T> {
    shared: Rc<Shared<T>>,
}

struct Shared<T> {
    /// For reports.
    id: ChannelId,
    state: RefCell<State<T>>,
}

struct State<T> {
    /// Who waits, each with the value it sends or a place for the one it receives.
    line: WaitList<Option<T>>,
    /// What those in line do.
    side: Side,
    closing: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Senders,
    Receivers,
}

impl<T> Channel<T> {
    /// A channel on which nobody waits.
    #[must_use]
    #[track_caller]
    pub fn new() -> Channel<T> {
        let number = current::with(|scheduler| scheduler.next_channel());
        let id = ChannelId { number, created: Location::caller() };
        let state = State { line: WaitList::new(), side: Side::Senders, closing: false };
        Channel { shared: Rc::new(Shared { id, state: RefCell::new(state) }) }
    }

    /// Gives `value` to a receiver, waiting for one if need be. A waiting receiver runs next.
    ///
    /// # Errors
    /// Gives the value back in [`SendError`] when the channel is closed, when nobody could ever receive it, or when
    /// the caller may not wait.
    #[inline]
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        current::with(|scheduler| {
            if let Err(refused) = scheduler.check() {
                return Err(SendError { value, reason: SendReason::Refused(refused) });
            }
            let mut state = self.shared.state.borrow_mut();
            if state.closing {
                return Err(SendError { value, reason: SendReason::Closed });
            }
            while let Some((place, ticket)) = state.serve(Side::Receivers) {
                if scheduler.hand_over(ticket) {
                    *state.line.value(place) = Some(value);
                    drop(state);
                    scheduler.leave();
                    return Ok(());
                }
            }
            drop(state);
            self.wait_to_send(scheduler, value)
        })
    }

    /// Takes a value from a sender, waiting for one if need be. A waiting sender goes to the tail of the run queue.
    ///
    /// # Errors
    /// [`ReceiveError::Closed`] when the channel is closed and no sender waits, [`ReceiveError::Deadlock`] when
    /// nobody could ever send, [`ReceiveError::Refused`] when the caller may not wait.
    #[inline]
    pub fn receive(&self) -> Result<T, ReceiveError> {
        current::with(|scheduler| {
            scheduler.check().map_err(ReceiveError::Refused)?;
            let mut state = self.shared.state.borrow_mut();
            while let Some((place, ticket)) = state.serve(Side::Senders) {
                if scheduler.unpark(ticket) {
                    return Ok(state
                        .line
                        .value(place)
                        .take()
                        .expect("a sender in line has its value"));
                }
            }
            if state.closing {
                return Err(ReceiveError::Closed);
            }
            drop(state);
            self.wait_to_receive(scheduler)
        })
    }

    /// The number of senders that wait, or minus the number of receivers that wait.
    ///
    /// ```
    /// let channel = pila_runtime::Channel::<()>::new();
    /// let theirs = channel.clone();
    /// pila_runtime::tasklet(move || theirs.receive());
    /// pila_runtime::run();
    /// assert_eq!(channel.balance(), -1);
    /// ```
    #[must_use]
    pub fn balance(&self) -> isize {
        let state = self.shared.state.borrow();
        let waiting = isize::try_from(state.line.len()).expect("waiters fit in memory");
        match state.side {
            Side::Senders => waiting,
            Side::Receivers => -waiting,
        }
    }

    /// Closes the channel: receivers that wait get [`ReceiveError::Closed`], and so do later ones once no sender waits;
    /// later senders get their value back. Senders that wait can still be received from.
    ///
    /// ```
    /// let channel = pila_runtime::Channel::<()>::new();
    /// let theirs = channel.clone();
    /// let receiver = pila_runtime::tasklet(move || theirs.receive().is_err());
    /// pila_runtime::run();
    /// channel.close();
    /// assert!(receiver.join().unwrap());
    /// ```
    pub fn close(&self) {
        let mut state = self.shared.state.borrow_mut();
        state.closing = true;
        current::with(|scheduler| {
            while let Some((_, ticket)) = state.serve(Side::Receivers) {
                scheduler.unpark(ticket);
            }
        });
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.shared.state.borrow().closing
    }

    /// Whether it was closed and nobody waits on it any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let state = self.shared.state.borrow();
        state.closing && state.line.len() == 0
    }

    #[inline]
    fn wait_to_send(&self, scheduler: &Scheduler, value: T) -> Result<(), SendError<T>> {
        let ticket = match scheduler.begin() {
            Ok(ticket) => ticket,
            Err(refused) => return Err(SendError { value, reason: SendReason::Refused(refused) }),
        };
        let seat = self.sit(Side::Senders, ticket, Some(value));
        let woken = scheduler.wait(ticket, Waiting::Send(self.shared.id), None);
        let reason = match (seat.leave(), woken) {
            (None, _) => return Ok(()),
            (Some(value), Err(interrupt)) => (value, interrupt),
            (Some(_), Ok(())) => unreachable!("whoever wakes a sender takes its value"),
        };
        let (value, interrupt) = reason;
        let reason = match interrupt {
            Interrupt::Deadlock(report) => SendReason::Deadlock(report),
            Interrupt::Refused(refused) => SendReason::Refused(refused),
            Interrupt::Deadline => unreachable!("a send has no deadline"),
        };
        Err(SendError { value, reason })
    }

    #[inline]
    fn wait_to_receive(&self, scheduler: &Scheduler) -> Result<T, ReceiveError> {
        let ticket = scheduler.begin().map_err(ReceiveError::Refused)?;
        let seat = self.sit(Side::Receivers, ticket, None);
        let woken = scheduler.wait(ticket, Waiting::Receive(self.shared.id), None);
        match (seat.leave(), woken) {
            (Some(value), _) => Ok(value),
            // Only `close` serves a receiver with nothing.
            (None, Ok(())) => Err(ReceiveError::Closed),
            (None, Err(Interrupt::Deadlock(report))) => Err(ReceiveError::Deadlock(report)),
            (None, Err(Interrupt::Refused(refused))) => Err(ReceiveError::Refused(refused)),
            (None, Err(Interrupt::Deadline)) => unreachable!("a receive has no deadline"),
        }
    }

    #[inline]
    fn sit(&self, side: Side, ticket: Ticket, value: Option<T>) -> Seat<'_, T> {
        let mut state = self.shared.state.borrow_mut();
        debug_assert!(
            state.side == side || state.line.len() == 0,
            "the two sides never wait together"
        );
        state.side = side;
        Seat { channel: &self.shared, place: Some(state.line.push(ticket, value)) }
    }
}

impl<T> State<T> {
    /// The first in line, if those in line are on `side`.
    #[inline]
    fn serve(&mut self, side: Side) -> Option<(Place, Ticket)> {
        if self.side == side { self.line.serve() } else { None }
    }
}

/// A place in a channel's line, given up when the wait is over, by any road.
struct Seat<'a, T> {
    channel: &'a Shared<T>,
    place: Option<Place>,
}

impl<T> Seat<'_, T> {
    /// Gives the place up and takes what lies there.
    #[inline]
    fn leave(mut self) -> Option<T> {
        let place = self.place.take().expect("a seat is left once");
        self.channel.state.borrow_mut().line.leave(place)
    }
}

impl<T> Drop for Seat<'_, T> {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        let value = self.channel.state.borrow_mut().line.leave(place);
        // Not under the borrow: its destructor is the user's.
        drop(value);
    }
}

impl<T> Clone for Channel<T> {
    fn clone(&self) -> Channel<T> {
        Channel { shared: self.shared.clone() }
    }
}

impl<T> Default for Channel<T> {
    #[track_caller]
    fn default() -> Channel<T> {
        Channel::new()
    }
}

impl<T> fmt::Debug for Channel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut channel = f.debug_struct("Channel");
        channel.field("id", &self.shared.id.number).field("balance", &self.balance());
        channel.field("closing", &self.is_closing()).finish()
    }
}
