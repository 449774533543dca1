//! What a channel holds: the values on their way, and those who wait at either side.
//!
//! - An operation that hands over has settled who runs next; its caller makes way, with no borrow in hand.
//! - What fails is boxed, and errors that travel in place of values lie apart from them: a value that shares its place with
//!   larger things would be copied together with what is left there of those, and waits for it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    mem,
    panic::Location,
};

use crate::{
    channel::Preference,
    current::with,
    error::{Interrupt, ReceiveError, Refused, SendError, SendReason, Thrown},
    observers,
    scheduler::{Scheduler, Wait},
    table::Flags,
    wait_list::{Left, Place, WaitList},
    wake::{ChannelId, Ticket, Waiting},
};

/// What the clones of a channel share.
pub(crate) struct Exchange<T> {
    pub(crate) id: ChannelId,
    /// What its waiters wait for, made ahead: a copy of what was written long ago is cheap.
    pub(crate) sends: Waiting,
    pub(crate) receives: Waiting,
    pub(crate) state: RefCell<State<T>>,
}

pub(crate) struct State<T> {
    /// Who waits to send, each with its value, and nothing when it sends an error.
    pub(crate) senders: WaitList<Option<T>>,
    /// Who waits to receive, each with a place for what it gets.
    pub(crate) receivers: WaitList<Option<T>>,
    /// What those who wait send, or have got, in place of values.
    errors: BTreeMap<(Side, Place), Thrown>,
    /// What nobody has taken yet, at most `capacity`.
    pub(crate) buffer: VecDeque<Parcel<T>>,
    capacity: usize,
    pub(crate) preference: Preference,
    pub(crate) schedule_all: bool,
    pub(crate) closing: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Side {
    Senders,
    Receivers,
}

/// What travels through a channel.
pub(crate) enum Parcel<T> {
    Value(T),
    Error(Thrown),
}

/// What became of sending without waiting.
pub(crate) enum Offered<T> {
    Sent,
    /// It is sent when the sender has made way for whom was chosen.
    HandedOver,
    /// It would have to wait.
    Blocked(Parcel<T>),
    /// It can never succeed now.
    Failed(Box<(Parcel<T>, Refusal)>),
}

/// What became of receiving without waiting.
pub(crate) enum Taken<T> {
    Value(T),
    /// It is received when the receiver has made way for whom was chosen.
    HandedOver(T),
    /// It would have to wait.
    Blocked,
    Failed(Box<Failed>),
}

/// Why nothing was received.
pub(crate) enum Failed {
    /// An error came in place of a value, and this follows.
    Sent(Thrown, HandOff),
    /// Nothing can ever come now.
    Refused(Refusal),
}

/// An operation up to where its caller makes way.
// A function that has returned before the switch does not disturb the return-address predictor, so all that comes before
// it is one call, all that comes after it another, and the switch itself is made in the caller's own frame.
pub(crate) enum Begun<T, E> {
    Done(T),
    /// It is done, but the caller has to make way.
    HandedOver(T),
    /// The caller has to make way, and then to end the wait.
    Waits(Place, Wait),
    Failed(Box<E>),
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

/// How the one that waited and the caller go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HandOff {
    /// The one that waited runs now.
    Switch,
    /// The caller goes behind everyone.
    ScheduleAll,
    /// The caller runs on.
    Stay,
}

/// A place in a channel's line, given up when the wait is over, by any road.
pub(crate) struct Seat<'a, T> {
    exchange: &'a Exchange<T>,
    side: Side,
    place: Place,
}

impl<T> Exchange<T> {
    pub(crate) fn new(capacity: usize, created: &'static Location<'static>) -> Exchange<T> {
        let id = ChannelId { number: with(Scheduler::next_channel), created };
        let state = State {
            senders: WaitList::new(),
            receivers: WaitList::new(),
            errors: BTreeMap::new(),
            buffer: VecDeque::new(),
            capacity,
            preference: Preference::default(),
            schedule_all: false,
            closing: false,
        };
        let (sends, receives) = (Waiting::Send(id), Waiting::Receive(id));
        Exchange { id, sends, receives, state: RefCell::new(state) }
    }

    /// Sends, or begins to wait for that.
    #[inline(never)]
    pub(crate) fn begin_send(&self, value: T) -> Begun<(), SendError<T>> {
        with(|scheduler| {
            if scheduler.minds_channels() {
                return self.begin_send_with_care(scheduler, Parcel::Value(value));
            }
            let mut state = self.state.borrow_mut();
            let hand_off = state.hand_off(Preference::Receiver);
            match state.offer(scheduler, Parcel::Value(value), hand_off) {
                Offered::Sent => Begun::Done(()),
                Offered::HandedOver => Begun::HandedOver(()),
                // What does not mind the operation does not mind a wait.
                Offered::Blocked(parcel) => state.begin_to_send(scheduler, &self.sends, parcel),
                Offered::Failed(failed) => Begun::not_sent(*failed),
            }
        })
    }

    #[cold]
    #[inline(never)]
    fn begin_send_with_care(
        &self,
        scheduler: &Scheduler,
        parcel: Parcel<T>,
    ) -> Begun<(), SendError<T>> {
        let parcel = match self.offer_with_care(scheduler, parcel, Hurry::MayWait) {
            Offered::Sent => return Begun::Done(()),
            Offered::HandedOver => return Begun::HandedOver(()),
            Offered::Blocked(parcel) => parcel,
            Offered::Failed(failed) => return Begun::not_sent(*failed),
        };
        match scheduler.may_wait() {
            Ok(()) => self.state.borrow_mut().begin_to_send(scheduler, &self.sends, parcel),
            Err(refused) => Begun::not_sent((parcel, Refusal::Refused(refused))),
        }
    }

    /// Receives, or begins to wait for that.
    #[inline(never)]
    pub(crate) fn begin_receive(&self) -> Begun<T, ReceiveError> {
        with(|scheduler| {
            if scheduler.minds_channels() {
                return self.begin_receive_with_care(scheduler);
            }
            let mut state = self.state.borrow_mut();
            let hand_off = state.hand_off(Preference::Sender);
            match state.take(scheduler, hand_off) {
                Taken::Value(value) => Begun::Done(value),
                Taken::HandedOver(value) => Begun::HandedOver(value),
                Taken::Blocked => state.begin_to_receive(scheduler, &self.receives),
                Taken::Failed(failed) => {
                    drop(state);
                    Begun::not_received(failed.settle(scheduler))
                }
            }
        })
    }

    #[cold]
    #[inline(never)]
    fn begin_receive_with_care(&self, scheduler: &Scheduler) -> Begun<T, ReceiveError> {
        match self.take_with_care(scheduler, Hurry::MayWait) {
            Taken::Value(value) => return Begun::Done(value),
            Taken::HandedOver(value) => return Begun::HandedOver(value),
            Taken::Blocked => {}
            Taken::Failed(failed) => return Begun::not_received(failed.settle(scheduler)),
        }
        match scheduler.may_wait() {
            Ok(()) => self.state.borrow_mut().begin_to_receive(scheduler, &self.receives),
            Err(refused) => Begun::not_received(ReceiveError::Refused(refused)),
        }
    }

    /// Sends without waiting, if that is possible. May switch once it has.
    #[inline(always)]
    pub(crate) fn offer(
        &self,
        scheduler: &Scheduler,
        parcel: Parcel<T>,
        hurry: Hurry,
    ) -> Offered<T> {
        if scheduler.minds_channels() {
            return self.offer_with_care(scheduler, parcel, hurry);
        }
        let mut state = self.state.borrow_mut();
        let hand_off = state.hand_off(Preference::Receiver);
        state.offer(scheduler, parcel, hand_off)
    }

    /// As [`offer`](Self::offer), where something speaks against it or somebody watches.
    #[cold]
    #[inline(never)]
    fn offer_with_care(
        &self,
        scheduler: &Scheduler,
        parcel: Parcel<T>,
        hurry: Hurry,
    ) -> Offered<T> {
        match self.hand_off_with_care(scheduler, Side::Senders, hurry) {
            Ok(hand_off) => self.state.borrow_mut().offer(scheduler, parcel, hand_off),
            Err(refused) => Offered::failed(parcel, Refusal::Refused(refused)),
        }
    }

    /// Receives without waiting, if that is possible. May switch once it has.
    #[inline(always)]
    pub(crate) fn take(&self, scheduler: &Scheduler, hurry: Hurry) -> Taken<T> {
        if scheduler.minds_channels() {
            return self.take_with_care(scheduler, hurry);
        }
        let mut state = self.state.borrow_mut();
        let hand_off = state.hand_off(Preference::Sender);
        state.take(scheduler, hand_off)
    }

    /// As [`take`](Self::take), where something speaks against it or somebody watches.
    #[cold]
    #[inline(never)]
    fn take_with_care(&self, scheduler: &Scheduler, hurry: Hurry) -> Taken<T> {
        match self.hand_off_with_care(scheduler, Side::Receivers, hurry) {
            Ok(hand_off) => self.state.borrow_mut().take(scheduler, hand_off),
            Err(refused) => Taken::failed(Failed::Refused(Refusal::Refused(refused))),
        }
    }

    /// What follows an operation of one of `side`, after those who watch were told of it.
    fn hand_off_with_care(
        &self,
        scheduler: &Scheduler,
        side: Side,
        hurry: Hurry,
    ) -> Result<HandOff, Refused> {
        let must_stay = hurry.check(scheduler)?;
        if scheduler.flags.get().any(Flags::CHANNELS_SEEN) {
            let will_block = self.state.borrow().will_block(scheduler, side);
            observers::operation(scheduler, self.id, side == Side::Senders, will_block);
        }
        let state = self.state.borrow();
        let (preference, line) = match side {
            Side::Senders => (Preference::Receiver, &state.receivers),
            Side::Receivers => (Preference::Sender, &state.senders),
        };
        let hand_off = if must_stay { HandOff::Stay } else { state.hand_off(preference) };
        hand_off.check(scheduler, line)?;
        Ok(hand_off)
    }

    /// Joins the senders' line.
    #[inline(always)]
    pub(crate) fn wait_with(&self, ticket: Ticket, parcel: Parcel<T>) -> Seat<'_, T> {
        self.sender(self.state.borrow_mut().join_senders(ticket, parcel))
    }

    /// Joins the receivers' line.
    #[inline(always)]
    pub(crate) fn wait_for_parcel(&self, ticket: Ticket) -> Seat<'_, T> {
        self.receiver(self.state.borrow_mut().receivers.push(ticket, None))
    }

    /// The seat of one who waits to send.
    #[inline(always)]
    pub(crate) fn sender(&self, place: Place) -> Seat<'_, T> {
        Seat { exchange: self, side: Side::Senders, place }
    }

    /// The seat of one who waits to receive.
    #[inline(always)]
    pub(crate) fn receiver(&self, place: Place) -> Seat<'_, T> {
        Seat { exchange: self, side: Side::Receivers, place }
    }
}

impl<T> State<T> {
    /// Whether one of `side` would have to wait now.
    fn will_block(&self, scheduler: &Scheduler, side: Side) -> bool {
        let (line, at_once) = match side {
            Side::Senders => (&self.receivers, self.buffer.len() < self.capacity),
            Side::Receivers => (&self.senders, !self.buffer.is_empty()),
        };
        !at_once && !line.tickets().any(|ticket| scheduler.is_parked(ticket))
    }

    /// What follows an operation for which the side `other` waited.
    #[inline(always)]
    fn hand_off(&self, other: Preference) -> HandOff {
        if self.schedule_all {
            HandOff::ScheduleAll
        } else if self.preference == other {
            HandOff::Switch
        } else {
            HandOff::Stay
        }
    }

    #[inline(always)]
    fn offer(&mut self, scheduler: &Scheduler, parcel: Parcel<T>, hand_off: HandOff) -> Offered<T> {
        // Not with a closure, which would not be inlined.
        while let Some((slot, ticket)) = self.receivers.first() {
            if !hand_off.wake(scheduler, ticket) {
                self.receivers.pass_over();
                continue;
            }
            let (place, room) = self.receivers.serve_first(slot).expect("it is the first in line");
            match parcel {
                Parcel::Value(value) => *room = Some(value),
                Parcel::Error(error) => self.put_error((Side::Receivers, place), error),
            }
            return match hand_off {
                HandOff::Stay => Offered::Sent,
                HandOff::Switch | HandOff::ScheduleAll => Offered::HandedOver,
            };
        }
        if self.closing {
            return Offered::failed(parcel, Refusal::of_closed(scheduler));
        }
        if self.buffer.len() < self.capacity {
            self.buffer.push_back(parcel);
            return Offered::Sent;
        }
        Offered::Blocked(parcel)
    }

    #[inline(always)]
    fn take(&mut self, scheduler: &Scheduler, hand_off: HandOff) -> Taken<T> {
        while let Some((slot, ticket)) = self.senders.first() {
            if !hand_off.wake(scheduler, ticket) {
                self.senders.pass_over();
                continue;
            }
            let (place, value) = self.senders.take(slot).expect("it is the first in line");
            // It must not be lost should the switch unwind: but then there is nobody left to have it.
            return match value {
                Some(value) if self.buffer.is_empty() => hand_off.taken(value),
                Some(value) => self.first_instead_of(Parcel::Value(value), hand_off),
                None => self.first_instead_of_error(place, hand_off),
            };
        }
        if let Some(parcel) = self.buffer.pop_front() {
            return parcel.taken(HandOff::Stay);
        }
        match self.closing {
            true => Taken::failed(Failed::Refused(Refusal::of_closed(scheduler))),
            false => Taken::Blocked,
        }
    }

    /// Begins to wait in the senders' line.
    #[inline(always)]
    fn begin_to_send<E>(
        &mut self,
        scheduler: &Scheduler,
        waiting: &Waiting,
        parcel: Parcel<T>,
    ) -> Begun<(), E> {
        let (ticket, wait) = scheduler.begin_own_wait(waiting);
        Begun::Waits(self.join_senders(ticket, parcel), wait)
    }

    /// Begins to wait in the receivers' line.
    #[inline(always)]
    fn begin_to_receive<E>(&mut self, scheduler: &Scheduler, waiting: &Waiting) -> Begun<T, E> {
        let (ticket, wait) = scheduler.begin_own_wait(waiting);
        Begun::Waits(self.receivers.push(ticket, None), wait)
    }

    #[inline(always)]
    fn join_senders(&mut self, ticket: Ticket, parcel: Parcel<T>) -> Place {
        match parcel {
            Parcel::Value(value) => self.senders.push(ticket, Some(value)),
            Parcel::Error(error) => {
                let place = self.senders.push(ticket, None);
                self.put_error((Side::Senders, place), error);
                place
            }
        }
    }

    #[cold]
    fn put_error(&mut self, at: (Side, Place), error: Thrown) {
        self.errors.insert(at, error);
    }

    /// Puts what a sender gives behind what is there, and takes the first.
    #[cold]
    fn first_instead_of(&mut self, sent: Parcel<T>, hand_off: HandOff) -> Taken<T> {
        self.buffer.push_back(sent);
        self.buffer.pop_front().expect("one was just put in").taken(hand_off)
    }

    #[cold]
    fn first_instead_of_error(&mut self, place: Place, hand_off: HandOff) -> Taken<T> {
        let error = self.errors.remove(&(Side::Senders, place));
        let error = error.expect("who waits to send has a value or an error");
        self.first_instead_of(Parcel::Error(error), hand_off)
    }

    /// Gives up a place and takes what lies there. Nothing does where a sender was served, or a receiver by a close.
    #[inline(always)]
    fn leave(&mut self, side: Side, place: Place) -> Left<Option<Parcel<T>>> {
        let line = match side {
            Side::Senders => &mut self.senders,
            Side::Receivers => &mut self.receivers,
        };
        match line.leave(place) {
            Some(Left { value: Some(value), served }) => {
                Left { value: Some(Parcel::Value(value)), served }
            }
            Some(Left { value: None, served }) => {
                Left { value: self.errors.remove(&(side, place)).map(Parcel::Error), served }
            }
            None => Left { value: None, served: true },
        }
    }
}

impl<T> Offered<T> {
    /// Makes way, if that is what is left to do. What comes back has been neither sent nor refused: it would have to wait.
    #[inline(always)]
    pub(crate) fn settle(
        self,
        scheduler: &Scheduler,
    ) -> Result<Option<Parcel<T>>, (Parcel<T>, Refusal)> {
        match self {
            Offered::Sent => {}
            Offered::HandedOver => scheduler.leave_to_chosen(),
            Offered::Blocked(parcel) => return Ok(Some(parcel)),
            Offered::Failed(failed) => return Err(*failed),
        }
        Ok(None)
    }

    #[cold]
    fn failed(parcel: Parcel<T>, refusal: Refusal) -> Offered<T> {
        Offered::Failed(Box::new((parcel, refusal)))
    }
}

impl<T> Taken<T> {
    /// Makes way, if that is what is left to do. None when it would have to wait.
    #[inline(always)]
    pub(crate) fn settle(self, scheduler: &Scheduler) -> Option<Result<T, ReceiveError>> {
        Some(match self {
            Taken::Value(value) => Ok(value),
            Taken::HandedOver(value) => {
                scheduler.leave_to_chosen();
                Ok(value)
            }
            Taken::Blocked => return None,
            Taken::Failed(failed) => Err(failed.settle(scheduler)),
        })
    }

    #[cold]
    fn failed(failed: Failed) -> Taken<T> {
        Taken::Failed(Box::new(failed))
    }
}

impl Failed {
    /// Makes way, if that is what is left to do.
    #[cold]
    fn settle(self, scheduler: &Scheduler) -> ReceiveError {
        match self {
            Failed::Sent(error, hand_off) => {
                if hand_off != HandOff::Stay {
                    scheduler.leave_to_chosen();
                }
                ReceiveError::Sent(error)
            }
            Failed::Refused(refusal) => refusal.into(),
        }
    }
}

impl<T> Begun<(), SendError<T>> {
    #[cold]
    fn not_sent((parcel, refusal): (Parcel<T>, Refusal)) -> Self {
        Begun::Failed(Box::new(SendError::from_parcel((parcel, refusal.into()))))
    }
}

impl<T> Begun<T, ReceiveError> {
    #[cold]
    fn not_received(error: ReceiveError) -> Self {
        Begun::Failed(Box::new(error))
    }
}

impl Refusal {
    /// Where a channel that is not closed would have its caller wait.
    #[cold]
    fn of_closed(scheduler: &Scheduler) -> Refusal {
        scheduler.may_block().map_or_else(Refusal::Refused, |()| Refusal::Closed)
    }
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

    /// Wakes the one that waits with `ticket`. When it is woken, and this is not `Stay`, the caller has only what it has in
    /// hand to put down before it makes way: whom for is settled.
    #[inline(always)]
    fn wake(self, scheduler: &Scheduler, ticket: Ticket) -> bool {
        match self {
            HandOff::Switch => scheduler.hand_over(ticket),
            HandOff::Stay => scheduler.unpark(ticket),
            HandOff::ScheduleAll => scheduler.schedule_all(ticket),
        }
    }

    #[inline(always)]
    fn taken<T>(self, value: T) -> Taken<T> {
        match self {
            HandOff::Stay => Taken::Value(value),
            HandOff::Switch | HandOff::ScheduleAll => Taken::HandedOver(value),
        }
    }
}

impl<T> Parcel<T> {
    fn taken(self, hand_off: HandOff) -> Taken<T> {
        match self {
            Parcel::Value(value) => hand_off.taken(value),
            Parcel::Error(error) => Taken::failed(Failed::Sent(error, hand_off)),
        }
    }

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

impl<T> Seat<'_, T> {
    /// Ends a wait to send that ended as `woken` says.
    #[inline(always)]
    pub(crate) fn sent(self, woken: Result<(), Interrupt>) -> Result<(), (Parcel<T>, SendReason)> {
        match woken {
            // Whoever wakes a sender has taken it out of the line with what it sends.
            Ok(()) => {
                mem::forget(self);
                Ok(())
            }
            Err(interrupt) => Err(self.give_back(interrupt)),
        }
    }

    #[cold]
    fn give_back(self, interrupt: Interrupt) -> (Parcel<T>, SendReason) {
        let parcel = self.leave().value.expect("nobody takes what a sender has without waking it");
        (parcel, interrupt.into())
    }

    /// Ends a wait to receive that ended as `woken` says.
    #[inline(always)]
    pub(crate) fn received(self, woken: Result<(), Interrupt>) -> Result<T, ReceiveError> {
        match (self.leave().value, woken) {
            (Some(parcel), _) => parcel.open(),
            (None, Err(interrupt)) => Err(interrupt.into()),
            // Only `close` serves a receiver with nothing.
            (None, Ok(())) => Err(ReceiveError::Closed),
        }
    }

    /// The end of a wait to receive, when its caller goes on.
    #[inline(never)]
    pub(crate) fn end(self, wait: Wait) -> Result<T, ReceiveError> {
        let woken = with(|scheduler| wait.end(scheduler));
        self.received(woken)
    }

    /// Gives the place up and takes what lies there.
    #[inline(always)]
    pub(crate) fn leave(self) -> Left<Option<Parcel<T>>> {
        let left = self.exchange.state.borrow_mut().leave(self.side, self.place);
        mem::forget(self);
        left
    }
}

impl<T> Drop for Seat<'_, T> {
    fn drop(&mut self) {
        let left = self.exchange.state.borrow_mut().leave(self.side, self.place);
        // What lay there is dropped here, not under the borrow: its destructor is the user's.
        drop(left);
    }
}
