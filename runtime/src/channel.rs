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

use std::{
    cell::RefCell, collections::VecDeque, error::Error, fmt, panic::Location, rc::Rc,
    time::Duration,
};

use crate::{
    current::with,
    error::{Interrupt, ReceiveError, Refused, SendError, SendReason, Thrown},
    observers,
    scheduler::{Scheduler, Wait},
    table::Flags,
    tasklet::Handle,
    wait_list::{Left, Place, WaitList},
    wake::{ChannelId, Ticket, Waiting},
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
    shared: Rc<Shared<T>>,
}

struct Shared<T> {
    id: ChannelId,
    /// What its waiters wait for, made ahead: a copy of what was written long ago is cheap.
    sends: Waiting,
    receives: Waiting,
    state: RefCell<State<T>>,
}

struct State<T> {
    /// Who waits to send, each with what it sends.
    senders: WaitList<Option<Parcel<T>>>,
    /// Who waits to receive, each with a place for what it gets.
    receivers: WaitList<Option<Parcel<T>>>,
    /// Values that nobody has taken yet, at most `capacity`.
    buffer: VecDeque<Parcel<T>>,
    capacity: usize,
    preference: Preference,
    schedule_all: bool,
    closing: bool,
}

/// What travels through a channel.
pub(crate) enum Parcel<T> {
    Value(T),
    Error(Thrown),
}

/// What became of an operation that may not wait.
pub(crate) enum Attempt<T, E> {
    Done(T),
    /// It is done when its caller has made way for whom it has chosen.
    HandedOver(T),
    /// It would have to wait.
    Blocked(E),
    /// It can never succeed now.
    Failed(E, Refusal),
}

impl<T, E> Attempt<T, E> {
    /// Makes way, if that is what is left to do.
    #[inline(always)]
    pub(crate) fn settle(self, scheduler: &Scheduler) -> Attempt<T, E> {
        let Attempt::HandedOver(value) = self else { return self };
        scheduler.leave_to_chosen();
        Attempt::Done(value)
    }
}

/// An operation up to where its caller makes way.
// A function that has returned before the switch does not disturb the return-address predictor, so all that comes before
// it is one call, all that comes after it another, and the switch itself is made in the caller's own frame.
enum Begun<'a, T, R> {
    Over(R),
    /// It is over, but the caller has to make way.
    HandedOver(R),
    Waits(Seat<'a, T>, Wait),
}

/// Why an operation failed without waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    Closed,
    Refused(Refused),
}

/// Whether an operation is prepared to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hurry {
    MayWait,
    Never,
}

impl Hurry {
    /// Whether the caller may not switch, though it may go on. An operation that never waits is not refused to one that is
    /// being ended, so that a guard's destructor can give back what it holds.
    #[inline]
    fn check(self, scheduler: &Scheduler) -> Result<bool, Refused> {
        if !scheduler.is_refused() {
            return Ok(false);
        }
        match self {
            Hurry::MayWait => Err(scheduler.refuse()),
            Hurry::Never => match scheduler.refusal() {
                refused @ Refused::ThreadEnded => Err(refused),
                _ => Ok(true),
            },
        }
    }
}

/// How the one that waited and the caller go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum HandOff {
    /// The one that waited runs now.
    Switch,
    /// The caller goes behind everyone.
    ScheduleAll,
    /// The caller runs on.
    Stay,
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
        let id = ChannelId { number: with(Scheduler::next_channel), created: Location::caller() };
        let state = State {
            senders: WaitList::new(),
            receivers: WaitList::new(),
            buffer: VecDeque::new(),
            capacity,
            preference: Preference::default(),
            schedule_all: false,
            closing: false,
        };
        Channel {
            shared: Rc::new(Shared {
                id,
                sends: Waiting::Send(id),
                receives: Waiting::Receive(id),
                state: RefCell::new(state),
            }),
        }
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
        match self.begin_send(Parcel::Value(value)) {
            Begun::Over(result) => result,
            Begun::HandedOver(result) => {
                with(Scheduler::leave_to_chosen);
                result
            }
            Begun::Waits(seat, wait) => {
                with(Scheduler::leave_to_chosen);
                end_send(seat, wait).map_err(SendError::from_parcel)
            }
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
            let deadline = Some(scheduler.deadline_in(timeout));
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
        match with(|scheduler| {
            self.offer(scheduler, Parcel::Value(value), Hurry::Never).settle(scheduler)
        }) {
            Attempt::Done(()) | Attempt::HandedOver(()) => Ok(()),
            Attempt::Blocked(parcel) => Err((parcel, SendReason::Timeout)),
            Attempt::Failed(parcel, refusal) => Err((parcel, refusal.into())),
        }
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
        match self.begin_receive() {
            Begun::Over(result) => result,
            Begun::HandedOver(result) => {
                with(Scheduler::leave_to_chosen);
                result
            }
            Begun::Waits(seat, wait) => {
                with(Scheduler::leave_to_chosen);
                end_receive(seat, wait)
            }
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
            match self.take(scheduler, Hurry::MayWait).settle(scheduler) {
                Attempt::Done(parcel) | Attempt::HandedOver(parcel) => return parcel.open(),
                Attempt::Blocked(()) => {}
                Attempt::Failed((), refusal) => return Err(refusal.into()),
            }
            let ticket = scheduler.begin().map_err(ReceiveError::Refused)?;
            let deadline = Some(scheduler.deadline_in(timeout));
            let seat = self.wait_for_parcel(ticket);
            let wait = scheduler.begin_wait(ticket, &self.shared.receives, deadline);
            scheduler.leave_to_chosen();
            end_receive(seat, wait)
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
        match with(|scheduler| self.take(scheduler, Hurry::Never).settle(scheduler)) {
            Attempt::Done(parcel) | Attempt::HandedOver(parcel) => parcel.open(),
            Attempt::Blocked(()) => Err(ReceiveError::Timeout),
            Attempt::Failed((), refusal) => Err(refusal.into()),
        }
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
        let state = self.shared.state.borrow();
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
        let state = self.shared.state.borrow();
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
        self.shared.id
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
        self.shared.state.borrow().preference
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
        self.shared.state.borrow_mut().preference = preference;
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
        self.shared.state.borrow().schedule_all
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
        self.shared.state.borrow_mut().schedule_all = schedule_all;
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
        let mut state = self.shared.state.borrow_mut();
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
        self.shared.state.borrow_mut().closing = false;
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
        self.shared.state.borrow().closing
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

    #[inline(never)]
    fn begin_send(&self, parcel: Parcel<T>) -> Begun<'_, T, Result<(), SendError<T>>> {
        with(|scheduler| {
            let parcel = match self.offer(scheduler, parcel, Hurry::MayWait) {
                Attempt::Done(()) => return Begun::Over(Ok(())),
                Attempt::HandedOver(()) => return Begun::HandedOver(Ok(())),
                Attempt::Blocked(parcel) => parcel,
                Attempt::Failed(parcel, refusal) => {
                    return Begun::Over(Err(SendError::from_parcel((parcel, refusal.into()))));
                }
            };
            let ticket = match scheduler.begin() {
                Ok(ticket) => ticket,
                Err(refused) => {
                    let reason = SendReason::Refused(refused);
                    return Begun::Over(Err(SendError::from_parcel((parcel, reason))));
                }
            };
            let seat = self.wait_with(ticket, parcel);
            Begun::Waits(seat, scheduler.begin_wait(ticket, &self.shared.sends, None))
        })
    }

    #[inline(never)]
    fn begin_receive(&self) -> Begun<'_, T, Result<T, ReceiveError>> {
        with(|scheduler| {
            match self.take(scheduler, Hurry::MayWait) {
                Attempt::Done(parcel) => return Begun::Over(parcel.open()),
                Attempt::HandedOver(parcel) => return Begun::HandedOver(parcel.open()),
                Attempt::Blocked(()) => {}
                Attempt::Failed((), refusal) => return Begun::Over(Err(refusal.into())),
            }
            let ticket = match scheduler.begin() {
                Ok(ticket) => ticket,
                Err(refused) => return Begun::Over(Err(ReceiveError::Refused(refused))),
            };
            let seat = self.wait_for_parcel(ticket);
            Begun::Waits(seat, scheduler.begin_wait(ticket, &self.shared.receives, None))
        })
    }

    /// As [`send`](Channel::send), for what is less common.
    fn send_parcel(
        &self,
        scheduler: &Scheduler,
        parcel: Parcel<T>,
        deadline: Option<u64>,
    ) -> Result<(), (Parcel<T>, SendReason)> {
        let parcel = match self.offer(scheduler, parcel, Hurry::MayWait).settle(scheduler) {
            Attempt::Done(()) | Attempt::HandedOver(()) => return Ok(()),
            Attempt::Blocked(parcel) => parcel,
            Attempt::Failed(parcel, refusal) => return Err((parcel, refusal.into())),
        };
        let ticket = match scheduler.begin() {
            Ok(ticket) => ticket,
            Err(refused) => return Err((parcel, SendReason::Refused(refused))),
        };
        let seat = self.wait_with(ticket, parcel);
        let wait = scheduler.begin_wait(ticket, &self.shared.sends, deadline);
        scheduler.leave_to_chosen();
        end_send(seat, wait)
    }

    /// Sends without waiting, if that is possible. May switch once it has.
    #[inline]
    pub(crate) fn offer(
        &self,
        scheduler: &Scheduler,
        parcel: Parcel<T>,
        hurry: Hurry,
    ) -> Attempt<(), Parcel<T>> {
        let must_stay = match hurry.check(scheduler) {
            Ok(must_stay) => must_stay,
            Err(refused) => return Attempt::Failed(parcel, Refusal::Refused(refused)),
        };
        if scheduler.flags.get().any(Flags::CHANNELS_SEEN) {
            let state = self.shared.state.borrow();
            let has_room = state.buffer.len() < state.capacity;
            let will_block =
                !has_room && !state.receivers.tickets().any(|ticket| scheduler.is_parked(ticket));
            drop(state);
            observers::operation(scheduler, self.shared.id, true, will_block);
        }
        let mut guard = self.shared.state.borrow_mut();
        let state = &mut *guard;
        let hand_off = state.hand_off(Preference::Receiver, must_stay);
        if let Err(refused) = hand_off.check(scheduler, &state.receivers) {
            return Attempt::Failed(parcel, Refusal::Refused(refused));
        }
        if let Some(place) = hand_off.serve(scheduler, &mut state.receivers) {
            *state.receivers.value(place) = Some(parcel);
            drop(guard);
            return hand_off.prepare(scheduler, ());
        }
        if !state.closing && state.buffer.len() < state.capacity {
            state.buffer.push_back(parcel);
            return Attempt::Done(());
        }
        match (state.closing, scheduler.may_block()) {
            (false, _) => Attempt::Blocked(parcel),
            (true, Ok(())) => Attempt::Failed(parcel, Refusal::Closed),
            (true, Err(refused)) => Attempt::Failed(parcel, Refusal::Refused(refused)),
        }
    }

    /// Receives without waiting, if that is possible. May switch once it has.
    #[inline]
    pub(crate) fn take(&self, scheduler: &Scheduler, hurry: Hurry) -> Attempt<Parcel<T>, ()> {
        let must_stay = match hurry.check(scheduler) {
            Ok(must_stay) => must_stay,
            Err(refused) => return Attempt::Failed((), Refusal::Refused(refused)),
        };
        if scheduler.flags.get().any(Flags::CHANNELS_SEEN) {
            let state = self.shared.state.borrow();
            let is_empty = state.buffer.is_empty();
            let will_block =
                is_empty && !state.senders.tickets().any(|ticket| scheduler.is_parked(ticket));
            drop(state);
            observers::operation(scheduler, self.shared.id, false, will_block);
        }
        let mut guard = self.shared.state.borrow_mut();
        let state = &mut *guard;
        let hand_off = state.hand_off(Preference::Sender, must_stay);
        if let Err(refused) = hand_off.check(scheduler, &state.senders) {
            return Attempt::Failed((), Refusal::Refused(refused));
        }
        if let Some(place) = hand_off.serve(scheduler, &mut state.senders) {
            let sent =
                state.senders.value(place).take().expect("a sender in line has what it sends");
            // The sender's value goes behind those that are there.
            state.buffer.push_back(sent);
            let parcel = state.buffer.pop_front().expect("one was just put in");
            drop(guard);
            // It must not be lost should the switch unwind: but then there is nobody left to have it.
            return hand_off.prepare(scheduler, parcel);
        }
        if let Some(parcel) = state.buffer.pop_front() {
            return Attempt::Done(parcel);
        }
        match (state.closing, scheduler.may_block()) {
            (false, _) => Attempt::Blocked(()),
            (true, Ok(())) => Attempt::Failed((), Refusal::Closed),
            (true, Err(refused)) => Attempt::Failed((), Refusal::Refused(refused)),
        }
    }

    /// Joins the senders' line.
    #[inline]
    pub(crate) fn wait_with(&self, ticket: Ticket, parcel: Parcel<T>) -> Seat<'_, T> {
        let place = self.shared.state.borrow_mut().senders.push(ticket, Some(parcel));
        Seat { channel: &self.shared, side: Side::Senders, place: Some(place) }
    }

    /// Joins the receivers' line.
    #[inline]
    pub(crate) fn wait_for_parcel(&self, ticket: Ticket) -> Seat<'_, T> {
        let place = self.shared.state.borrow_mut().receivers.push(ticket, None);
        Seat { channel: &self.shared, side: Side::Receivers, place: Some(place) }
    }
}

impl<T> State<T> {
    /// What happens when an operation finds someone waiting on the side that `other` stands for.
    #[inline]
    fn hand_off(&self, other: Preference, must_stay: bool) -> HandOff {
        if must_stay {
            HandOff::Stay
        } else if self.schedule_all {
            HandOff::ScheduleAll
        } else if self.preference == other {
            HandOff::Switch
        } else {
            HandOff::Stay
        }
    }
}

impl HandOff {
    /// Whether the caller may do what this entails, if there is someone in `line`.
    #[inline]
    fn check<V>(self, scheduler: &Scheduler, line: &WaitList<V>) -> Result<(), Refused> {
        if self == HandOff::Stay || !scheduler.is_forbidden_to_switch() {
            return Ok(());
        }
        match line.tickets().any(|ticket| scheduler.is_parked(ticket)) {
            true => scheduler.check_switch(),
            false => Ok(()),
        }
    }

    #[inline]
    fn serve<V>(self, scheduler: &Scheduler, line: &mut WaitList<V>) -> Option<Place> {
        line.serve(|ticket| match self {
            HandOff::Switch => scheduler.hand_over(ticket),
            HandOff::ScheduleAll => scheduler.schedule_all(ticket),
            HandOff::Stay => scheduler.unpark(ticket),
        })
    }

    #[inline]
    fn prepare<T, E>(self, scheduler: &Scheduler, value: T) -> Attempt<T, E> {
        if self == HandOff::Stay {
            return Attempt::Done(value);
        }
        scheduler.prepare_to_leave();
        Attempt::HandedOver(value)
    }
}

/// The end of a wait to send.
#[inline(never)]
fn end_send<T>(seat: Seat<'_, T>, wait: Wait) -> Result<(), (Parcel<T>, SendReason)> {
    let woken = with(|scheduler| wait.end(scheduler));
    let Some(parcel) = seat.leave().value else {
        return Ok(());
    };
    Err((parcel, woken.expect_err("whoever wakes a sender takes its value").into()))
}

/// The end of a wait to receive.
#[inline(never)]
fn end_receive<T>(seat: Seat<'_, T>, wait: Wait) -> Result<T, ReceiveError> {
    let woken = with(|scheduler| wait.end(scheduler));
    match (seat.leave().value, woken) {
        (Some(parcel), _) => parcel.open(),
        (None, Err(interrupt)) => Err(interrupt.into()),
        // Only `close` serves a receiver with nothing.
        (None, Ok(())) => Err(ReceiveError::Closed),
    }
}

impl<T> Parcel<T> {
    /// What the receiver's call gives.
    #[inline]
    pub(crate) fn open(self) -> Result<T, ReceiveError> {
        match self {
            Parcel::Value(value) => Ok(value),
            Parcel::Error(error) => Err(ReceiveError::Sent(error)),
        }
    }
}

impl<T> SendError<T> {
    #[inline]
    pub(crate) fn from_parcel((parcel, reason): (Parcel<T>, SendReason)) -> SendError<T> {
        let Parcel::Value(value) = parcel else { unreachable!("a value comes back as it went") };
        SendError { value, reason }
    }
}

impl From<Refusal> for SendReason {
    fn from(refusal: Refusal) -> SendReason {
        match refusal {
            Refusal::Closed => SendReason::Closed,
            Refusal::Refused(refused) => SendReason::Refused(refused),
        }
    }
}

impl From<Interrupt> for SendReason {
    fn from(interrupt: Interrupt) -> SendReason {
        match interrupt {
            Interrupt::Deadline => SendReason::Timeout,
            Interrupt::Deadlock(report) => SendReason::Deadlock(report),
            Interrupt::Refused(refused) => SendReason::Refused(refused),
            Interrupt::Thrown(error) => SendReason::Thrown(error),
        }
    }
}

impl From<Refusal> for ReceiveError {
    fn from(refusal: Refusal) -> ReceiveError {
        match refusal {
            Refusal::Closed => ReceiveError::Closed,
            Refusal::Refused(refused) => ReceiveError::Refused(refused),
        }
    }
}

impl From<Interrupt> for ReceiveError {
    fn from(interrupt: Interrupt) -> ReceiveError {
        match interrupt {
            Interrupt::Deadline => ReceiveError::Timeout,
            Interrupt::Deadlock(report) => ReceiveError::Deadlock(report),
            Interrupt::Refused(refused) => ReceiveError::Refused(refused),
            Interrupt::Thrown(error) => ReceiveError::Thrown(error),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Senders,
    Receivers,
}

/// A place in a channel's line, given up when the wait is over, by any road.
pub(crate) struct Seat<'a, T> {
    channel: &'a Shared<T>,
    side: Side,
    place: Option<Place>,
}

impl<T> Seat<'_, T> {
    /// Gives the place up and takes what lies there.
    #[inline]
    pub(crate) fn leave(mut self) -> Left<Option<Parcel<T>>> {
        let place = self.place.take().expect("a seat is left once");
        self.give_up(place)
    }

    #[inline]
    fn give_up(&self, place: Place) -> Left<Option<Parcel<T>>> {
        let mut state = self.channel.state.borrow_mut();
        match self.side {
            Side::Senders => state.senders.leave(place),
            Side::Receivers => state.receivers.leave(place),
        }
    }
}

impl<T> Drop for Seat<'_, T> {
    fn drop(&mut self) {
        // What lay there is dropped here, not under the borrow: its destructor is the user's.
        let left = self.place.take().map(|place| self.give_up(place));
        drop(left);
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
            Err(error) => panic!("iterating over {}: {error}", self.channel.shared.id),
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
