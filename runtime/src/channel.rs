//! Channels between the tasklets of one thread: rendezvous or buffered.
//!
//! - A value belongs to the channel from the moment it is sent until the receiver takes it: it travels in the line of
//!   those who wait, or in the buffer, and is never lost.
//! - Nobody waits to receive while there is a value to take, nor to send while there is someone or room to take it.
//!   Only a [`Select`](crate::Select) may wait on both sides of one channel.
//! - Who runs after an operation that did not have to wait is decided by `schedule_all` and the preference alone:
//!
//! ```text
//!                                    who waited goes      then runs
//!   schedule_all                     to the tail          the caller's successor
//!   the other side is preferred      next to the caller   who waited; the caller goes to the tail
//!   otherwise                        to the tail          the caller
//! ```
//!
//! A message costs no allocation once the lines have grown; a rendezvous in ping-pong is one switch.

use std::{error::Error, fmt, panic::Location, rc::Rc, time::Duration};

use crate::{
    current::with,
    error::{ReceiveError, Refused, SendError, SendReason, Thrown},
    exchange::{Begun, Exchange, Hurry, Parcel},
    scheduler::Scheduler,
    tasklet::Handle,
    wake::{ChannelId, Ticket},
};

/// Which side of a channel runs on when the two meet: Stackless' −1, 0 and 1.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::{Channel, Preference};
///
/// let channel = Channel::<()>::new();
/// assert_eq!(channel.preference(), Preference::Receiver);
/// channel.set_preference(Preference::Sender);
/// assert_eq!(channel.preference() as i32, 1);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Preference {
    /// A receiver that was waiting runs at once; the sender goes to the tail of the run queue.
    #[default]
    Receiver = -1,
    /// Whoever comes second runs on.
    Neither = 0,
    /// A sender that was waiting runs at once; the receiver goes to the tail.
    Sender = 1,
}

/// Where tasklets of one thread hand values over. Clones share it.
///
/// A channel made by [`new`](Channel::new) has no buffer: a sender waits for a receiver and a receiver for a sender.
///
/// Stackless: `stackless.channel`.
///
/// ```
/// # use pila_runtime as pila;
/// let channel = pila::Channel::new();
/// let theirs = channel.clone();
/// pila::tasklet(move || {
///     for i in 0..3 {
///         theirs.send(i).unwrap();
///     }
///     theirs.close();
/// });
/// assert_eq!(channel.iter().collect::<Vec<_>>(), [0, 1, 2]);
/// ```
pub struct Channel<T> {
    pub(crate) exchange: Rc<Exchange<T>>,
}

impl<T> Channel<T> {
    /// A channel without a buffer, on which nobody waits.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let channel = pila::Channel::new();
    /// assert!(channel.try_send("no buffer").is_err());
    /// assert!(channel.waiters().is_empty());
    /// ```
    #[must_use]
    #[track_caller]
    pub fn new() -> Channel<T> {
        Channel::with_capacity(0)
    }

    /// A channel that keeps up to `capacity` values for which no receiver is there yet.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let channel = pila::Channel::with_capacity(2);
    /// channel.send(1).unwrap();
    /// channel.send(2).unwrap();
    /// assert!(channel.try_send(3).is_err());
    /// assert_eq!((channel.receive().unwrap(), channel.receive().unwrap()), (1, 2));
    /// ```
    #[must_use]
    #[track_caller]
    pub fn with_capacity(capacity: usize) -> Channel<T> {
        Channel { exchange: Rc::new(Exchange::new(capacity, Location::caller())) }
    }

    /// Gives `value` to a receiver, waiting for one, or for room in the buffer, if need be. A waiting receiver runs next.
    ///
    /// Stackless: `channel.send(value)`.
    ///
    /// # Errors
    /// Gives the value back in [`SendError`] when the channel is closed, when nobody could ever receive it, or when
    /// the caller may not wait.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let channel = pila::Channel::new();
    /// let theirs = channel.clone();
    /// let receiver = pila::tasklet(move || theirs.receive().unwrap());
    /// channel.send(42).unwrap();
    /// assert_eq!(receiver.join().unwrap(), 42);
    /// ```
    #[inline(always)]
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        match self.exchange.begin_send(value) {
            Begun::Done(()) => Ok(()),
            Begun::HandedOver(()) => {
                with(Scheduler::leave_to_chosen);
                Ok(())
            }
            Begun::Waits(place, wait) => {
                let seat = self.exchange.sender(place);
                with(Scheduler::leave_to_chosen);
                seat.sent(with(|scheduler| wait.end(scheduler))).map_err(SendError::from_parcel)
            }
            Begun::Failed(error) => Err(*error),
        }
    }

    /// As [`send`](Channel::send), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As [`send`](Channel::send), and [`SendReason::Timeout`] when the time is up.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::{Channel, SendReason};
    ///
    /// let error = Channel::new().send_timeout("late", std::time::Duration::from_millis(1)).unwrap_err();
    /// assert!(matches!(error.reason, SendReason::Timeout));
    /// assert_eq!(error.value, "late");
    /// ```
    pub fn send_timeout(&self, value: T, timeout: Duration) -> Result<(), SendError<T>> {
        with(|scheduler| {
            let deadline = scheduler.deadline_in(timeout);
            self.send_parcel(scheduler, Parcel::Value(value), deadline)
        })
        .map_err(SendError::from_parcel)
    }

    /// Gives `value` to a receiver that waits, or to the buffer. Never waits for either, and therefore works in a
    /// destructor of a tasklet that unwinds or was killed: then the caller runs on, whatever the preference.
    ///
    /// # Errors
    /// As [`send`](Channel::send), and [`SendReason::Timeout`] when it would have to wait.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let channel = pila::Channel::new();
    /// assert_eq!(channel.try_send(1).unwrap_err().value, 1);
    /// ```
    pub fn try_send(&self, value: T) -> Result<(), SendError<T>> {
        with(|scheduler| {
            let parcel = Parcel::Value(value);
            match self.exchange.offer(scheduler, parcel, Hurry::Never).settle(scheduler) {
                Ok(None) => Ok(()),
                Ok(Some(parcel)) => Err((parcel, SendReason::Timeout)),
                Err((parcel, refusal)) => Err((parcel, refusal.into())),
            }
        })
        .map_err(SendError::from_parcel)
    }

    /// Sends an error in place of a value: the receiver's call returns it as [`ReceiveError::Sent`].
    ///
    /// Stackless: `channel.send_exception(..)`, `channel.send_throw(..)`.
    ///
    /// # Errors
    /// Why nobody took it, as [`send`](Channel::send).
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let channel = pila::Channel::<u32>::new();
    /// let theirs = channel.clone();
    /// pila::tasklet(move || theirs.send_error("no more numbers"));
    /// assert_eq!(channel.receive().unwrap_err().to_string(), "no more numbers");
    /// ```
    pub fn send_error(
        &self,
        error: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Result<(), SendReason> {
        let parcel = Parcel::Error(Thrown::new(error.into()));
        with(|scheduler| self.send_parcel(scheduler, parcel, None)).map_err(|(_, reason)| reason)
    }

    /// Sends every value of `values` in turn and says how many were taken.
    ///
    /// Stackless: `channel.send_sequence(iterable)`.
    ///
    /// # Errors
    /// Ends with the first value that nobody takes.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let channel = pila::Channel::new();
    /// let theirs = channel.clone();
    /// let sender = pila::tasklet(move || theirs.send_all(1..=3).unwrap());
    /// assert_eq!((1..=3).map(|_| channel.receive().unwrap()).sum::<i32>(), 6);
    /// assert_eq!(sender.join().unwrap(), 3);
    /// ```
    #[doc(alias = "send_sequence")]
    pub fn send_all(&self, values: impl IntoIterator<Item = T>) -> Result<usize, SendError<T>> {
        let mut sent = 0;
        for value in values {
            self.send(value)?;
            sent += 1;
        }
        Ok(sent)
    }

    /// Takes a value from the buffer or a sender, waiting for one if need be.
    ///
    /// Stackless: `channel.receive()`.
    ///
    /// # Errors
    /// [`ReceiveError::Closed`] when the channel is closed and has nothing left; [`ReceiveError::Deadlock`] when
    /// nothing can run any more, main is blocked, and the caller is the last that blocked; [`ReceiveError::Refused`]
    /// when the caller may not wait.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let channel = pila::Channel::new();
    /// let theirs = channel.clone();
    /// pila::tasklet(move || theirs.send(42));
    /// assert_eq!(channel.receive().unwrap(), 42);
    /// ```
    #[inline(always)]
    pub fn receive(&self) -> Result<T, ReceiveError> {
        match self.exchange.begin_receive() {
            Begun::Done(value) => Ok(value),
            Begun::HandedOver(value) => {
                with(Scheduler::leave_to_chosen);
                Ok(value)
            }
            Begun::Waits(place, wait) => {
                let seat = self.exchange.receiver(place);
                with(Scheduler::leave_to_chosen);
                seat.end(wait)
            }
            Begun::Failed(error) => Err(*error),
        }
    }

    /// As [`receive`](Channel::receive), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As [`receive`](Channel::receive), and [`ReceiveError::Timeout`] when the time is up.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::{Channel, ReceiveError};
    ///
    /// let nothing = Channel::<()>::new().receive_timeout(std::time::Duration::from_millis(1));
    /// assert!(matches!(nothing, Err(ReceiveError::Timeout)));
    /// ```
    pub fn receive_timeout(&self, timeout: Duration) -> Result<T, ReceiveError> {
        with(|scheduler| {
            if let Some(result) = self.exchange.take(scheduler, Hurry::MayWait).settle(scheduler) {
                return result;
            }
            let ticket = scheduler.begin().map_err(ReceiveError::Refused)?;
            let deadline = scheduler.deadline_in(timeout);
            let seat = self.exchange.wait_for_parcel(ticket);
            let wait = scheduler.begin_wait(ticket, &self.exchange.receives, deadline);
            scheduler.leave_to_chosen();
            seat.received(wait.end(scheduler))
        })
    }

    /// Takes a value from the buffer or from a sender that waits. Never waits for one, and therefore works in a
    /// destructor of a tasklet that unwinds or was killed: then the caller runs on, whatever the preference.
    ///
    /// # Errors
    /// As [`receive`](Channel::receive), and [`ReceiveError::Timeout`] when it would have to wait.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let channel = pila::Channel::with_capacity(1);
    /// assert!(channel.try_receive().is_err());
    /// channel.send(1).unwrap();
    /// assert_eq!(channel.try_receive().unwrap(), 1);
    /// ```
    pub fn try_receive(&self) -> Result<T, ReceiveError> {
        with(|scheduler| self.exchange.take(scheduler, Hurry::Never).settle(scheduler))
            .unwrap_or(Err(ReceiveError::Timeout))
    }

    /// The number of values that can be received without waiting, from senders and the buffer, or minus the number of
    /// receivers that wait.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let channel = pila::Channel::<()>::new();
    /// let theirs = channel.clone();
    /// pila::tasklet(move || theirs.receive());
    /// pila::run();
    /// assert_eq!(channel.balance(), -1);
    /// ```
    #[must_use]
    pub fn balance(&self) -> isize {
        let state = self.exchange.state.borrow();
        let [senders, receivers] = with(|scheduler| {
            let live = |ticket: &Ticket| scheduler.is_parked(*ticket);
            [
                state.senders.tickets().filter(live).count(),
                state.receivers.tickets().filter(live).count(),
            ]
        });
        (senders + state.buffer.len()) as isize - receivers as isize
    }

    /// Those who wait, first come first: senders if there are any, else receivers.
    ///
    /// Stackless: walking `channel.queue`.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let channel = pila::Channel::new();
    /// let theirs = channel.clone();
    /// let sender = pila::tasklet(move || theirs.send(()));
    /// pila::run();
    /// assert_eq!(channel.waiters()[0].id(), sender.id());
    /// ```
    #[must_use]
    pub fn waiters(&self) -> Vec<Handle> {
        let state = self.exchange.state.borrow();
        let senders: Vec<Handle> = state.senders.tickets().filter_map(Handle::of_waiter).collect();
        if !senders.is_empty() {
            return senders;
        }
        state.receivers.tickets().filter_map(Handle::of_waiter).collect()
    }

    /// Which channel it is, as reports and callbacks name it.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let channel = pila::Channel::<()>::new();
    /// assert!(channel.receive().unwrap_err().to_string().contains(&channel.id().to_string()));
    /// ```
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.exchange.id
    }

    /// Which side runs on when two meet.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::{Channel, Preference};
    ///
    /// assert_eq!(Channel::<()>::new().preference(), Preference::Receiver);
    /// ```
    #[must_use]
    pub fn preference(&self) -> Preference {
        self.exchange.state.borrow().preference
    }

    /// Sets which side runs on when two meet.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let channel = pila::Channel::new();
    /// channel.set_preference(pila::Preference::Neither);
    /// let theirs = channel.clone();
    /// let receiver = pila::tasklet(move || theirs.receive());
    /// pila::schedule();
    /// channel.send(1).unwrap();
    /// assert!(receiver.is_alive()); // it has its value but not run yet
    /// # pila::run();
    /// ```
    pub fn set_preference(&self, preference: Preference) {
        self.exchange.state.borrow_mut().preference = preference;
    }

    /// Whether everyone in the run queue runs before the caller of an operation goes on.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let channel = pila::Channel::<()>::new();
    /// assert!(!channel.schedule_all());
    /// channel.set_schedule_all(true);
    /// assert!(channel.schedule_all());
    /// ```
    #[must_use]
    pub fn schedule_all(&self) -> bool {
        self.exchange.state.borrow().schedule_all
    }

    /// With `true`, every operation that finds someone waiting lets everyone in the run queue run, whatever the
    /// preference.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let channel = pila::Channel::new();
    /// channel.set_preference(pila::Preference::Neither);
    /// channel.set_schedule_all(true);
    /// let theirs = channel.clone();
    /// let receiver = pila::tasklet(move || theirs.receive());
    /// pila::schedule();
    /// channel.send(1).unwrap();
    /// assert!(!receiver.is_alive()); // it ran before `send` returned
    /// ```
    pub fn set_schedule_all(&self, schedule_all: bool) {
        self.exchange.state.borrow_mut().schedule_all = schedule_all;
    }

    /// Closes the channel: receivers that wait get [`ReceiveError::Closed`], and so do later ones once nothing is left
    /// to take; later senders get their value back. Senders that wait can still be received from.
    ///
    /// Stackless: `channel.close()`, which wakes nobody.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let channel = pila::Channel::<()>::new();
    /// let theirs = channel.clone();
    /// let receiver = pila::tasklet(move || theirs.receive().is_err());
    /// pila::run();
    /// channel.close();
    /// assert!(receiver.join().unwrap());
    /// ```
    pub fn close(&self) {
        let mut state = self.exchange.state.borrow_mut();
        state.closing = true;
        with(
            |scheduler| {
                while state.receivers.serve(|ticket| scheduler.unpark(ticket)).is_some() {}
            },
        );
    }

    /// Opens a closed channel again.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let channel = pila::Channel::with_capacity(1);
    /// channel.close();
    /// channel.open();
    /// assert!(channel.send(1).is_ok());
    /// ```
    pub fn open(&self) {
        self.exchange.state.borrow_mut().closing = false;
    }

    /// Whether it was closed.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let channel = pila::Channel::with_capacity(1);
    /// channel.send("left").unwrap();
    /// channel.close();
    /// assert!(channel.is_closing() && !channel.is_closed());
    /// ```
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.exchange.state.borrow().closing
    }

    /// Whether it was closed and has nothing left to take.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let channel = pila::Channel::with_capacity(1);
    /// channel.send("left").unwrap();
    /// channel.close();
    /// assert!(!channel.is_closed());
    /// assert_eq!(channel.receive().unwrap(), "left");
    /// assert!(channel.is_closed());
    /// ```
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_closing() && self.balance() == 0
    }

    /// Receives until the channel is closed and empty.
    ///
    /// # Panics
    /// Its `next` panics with the report on a deadlock, and with an error that was sent or thrown.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let channel = pila::Channel::with_capacity(3);
    /// channel.send_all([1, 2, 3]).unwrap();
    /// channel.close();
    /// assert_eq!(channel.iter().sum::<i32>(), 6);
    /// ```
    #[must_use]
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { channel: self }
    }

    /// Sends a parcel that comes with a deadline, or is no value.
    fn send_parcel(
        &self,
        scheduler: &Scheduler,
        parcel: Parcel<T>,
        deadline: Option<u64>,
    ) -> Result<(), (Parcel<T>, SendReason)> {
        let exchange = &*self.exchange;
        let parcel = match exchange.offer(scheduler, parcel, Hurry::MayWait).settle(scheduler) {
            Ok(None) => return Ok(()),
            Ok(Some(parcel)) => parcel,
            Err((parcel, refusal)) => return Err((parcel, refusal.into())),
        };
        let ticket = match scheduler.begin() {
            Ok(ticket) => ticket,
            Err(refused) => return Err((parcel, SendReason::Refused(refused))),
        };
        let seat = exchange.wait_with(ticket, parcel);
        let wait = scheduler.begin_wait(ticket, &exchange.sends, deadline);
        scheduler.leave_to_chosen();
        seat.sent(wait.end(scheduler))
    }
}

/// Iterates over what a channel receives; made by [`Channel::iter`].
///
/// ```
/// # use pila_runtime as pila;
/// let channel = pila::Channel::with_capacity(2);
/// channel.send_all([1, 2]).unwrap();
/// channel.close();
/// let mut iter: pila::Iter<'_, i32> = channel.iter();
/// assert_eq!((iter.next(), iter.next(), iter.next()), (Some(1), Some(2), None));
/// ```
#[derive(Debug)]
pub struct Iter<'a, T> {
    channel: &'a Channel<T>,
}

impl<T> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match self.channel.receive() {
            Ok(value) => Some(value),
            Err(ReceiveError::Closed) => None,
            Err(ReceiveError::Refused(refused)) if !matches!(refused, Refused::NoSwitch(_)) => None,
            Err(error) => panic!("iterating over {}: {error}", self.channel.exchange.id),
        }
    }
}

impl<'a, T> IntoIterator for &'a Channel<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> Clone for Channel<T> {
    fn clone(&self) -> Channel<T> {
        Channel { exchange: self.exchange.clone() }
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
        channel.field("id", &self.exchange.id.number).field("balance", &self.balance());
        channel.field("closing", &self.is_closing()).finish()
    }
}
