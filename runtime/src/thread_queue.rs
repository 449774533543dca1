//! Bounded queues between threads.
//!
//! - A message belongs to the queue from the moment `send` returns until `receive` returns. A waiter is woken to try
//!   again and is given nothing, so killing it loses nothing; `sides` passes its wake-up on.
//! - Whoever waits is in line before anyone can add or take what it waits for: it joins the line while the queue is
//!   locked.
//! - Wherever the lock is released after a message was added, taken or left behind by a waiter that is not coming,
//!   the other side is woken as far as there is something for it.
//!
//! A message costs one lock that is rarely contended. Nobody is woken when nobody waits.

use std::{
    cell::Cell,
    collections::VecDeque,
    fmt,
    marker::PhantomData,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    current::with,
    error::{ReceiveError, Refused, SendError, SendReason},
    park::{self, Inheritance},
    scheduler::Scheduler,
    sides::{Side, Sides},
    wake::{Ticket, Waiting},
};

/// Makes a queue for at most `capacity` messages, whose two ends may live on any threads.
///
/// Both ends can be cloned: any number of senders, any number of receivers, each message to one of them. What one
/// tasklet sends arrives in that order. Waits park only the tasklet, and a thread that never made one simply waits.
///
/// A side is gone when all its ends are: the other side's waits end with an error, after receivers have taken what is
/// left. What nobody can receive any more is dropped.
///
/// # When a thread ends
/// An end that a tasklet waits with, in `send` or `receive`, when its thread ends counts as dropped, and what it was woken
/// for goes to the next in line. Nothing is known of an end that is merely owned by a tasklet that is leaked while it
/// waits for something else, or that was forgotten: it counts as alive. End such tasklets with
/// [`kill_all`](crate::kill_all), or make the thread with [`spawn_thread`](crate::spawn_thread), which does.
///
/// # Panics
/// When `capacity` is zero: the two sides would have to meet, which takes two wake-ups a message. Ask for 1.
///
/// ```
/// # use pila_runtime as pila;
/// let (sender, receiver) = pila::thread_queue(16);
/// let thread = pila::spawn_thread(move || {
///     for i in 1..=100 {
///         sender.send(i).unwrap();
///     }
/// })?;
/// assert_eq!(receiver.iter().sum::<i32>(), 5050);
/// thread.join().unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use]
pub fn thread_queue<T: Send>(capacity: usize) -> (QueueSender<T>, QueueReceiver<T>) {
    assert!(capacity > 0, "a thread queue has room for at least one message");
    let sides = Arc::new(Sides::new());
    let shared = Arc::new(Shared { messages: Mutex::default(), capacity, sides });
    let sender = QueueSender { end: End::new(shared.clone(), Side::Senders) };
    (sender, QueueReceiver { end: End::new(shared, Side::Receivers) })
}

/// Where messages go into a thread queue. Made by [`thread_queue`]. Clones send into the same queue.
///
/// It can be moved to another thread, but not shared with one: give each a clone.
///
/// ```
/// # use pila_runtime as pila;
/// let (sender, receiver) = pila::thread_queue(2);
/// let theirs = sender.clone();
/// std::thread::spawn(move || theirs.send(1).unwrap());
/// sender.send(1).unwrap();
/// drop(sender);
/// assert_eq!(receiver.iter().sum::<i32>(), 2);
/// ```
#[derive(Clone)]
pub struct QueueSender<T: Send> {
    end: End<T>,
}

/// Where messages come out of a thread queue. Made by [`thread_queue`]. Clones share the messages between them.
///
/// It can be moved to another thread, but not shared with one: give each a clone.
///
/// ```
/// # use pila_runtime as pila;
/// let (sender, receiver) = pila::thread_queue(2);
/// let other = receiver.clone();
/// sender.send(1).unwrap();
/// sender.send(2).unwrap();
/// assert_eq!((receiver.receive().unwrap(), other.receive().unwrap()), (1, 2));
/// ```
#[derive(Clone)]
pub struct QueueReceiver<T: Send> {
    end: End<T>,
}

impl<T: Send> QueueSender<T> {
    /// Puts `value` into the queue, waiting for room if need be.
    ///
    /// # Errors
    /// Gives the value back in [`SendError`]: [`SendReason::Closed`] when no receiver is left, [`SendReason::Refused`]
    /// when the caller may not wait, [`SendReason::Thrown`].
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let (sender, receiver) = pila::thread_queue(1);
    /// sender.send("there is room").unwrap();
    /// drop(receiver);
    /// assert_eq!(sender.send("nobody there").unwrap_err().value, "nobody there");
    /// ```
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.send_until(value, |_| None)
    }

    /// As [`send`](QueueSender::send), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As [`send`](QueueSender::send), and [`SendReason::Timeout`] when the time is up.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let (sender, _receiver) = pila::thread_queue(1);
    /// sender.send(1).unwrap();
    /// let error = sender.send_timeout(2, std::time::Duration::from_millis(1)).unwrap_err();
    /// assert!(matches!(error.reason, pila::SendReason::Timeout));
    /// ```
    pub fn send_timeout(&self, value: T, timeout: Duration) -> Result<(), SendError<T>> {
        self.send_until(value, |scheduler| scheduler.deadline_in(timeout))
    }

    /// Puts `value` into the queue if there is room. Never waits, so it works wherever the caller is: in a tasklet that
    /// was killed, while it unwinds, at the end of its thread.
    ///
    /// # Errors
    /// [`SendReason::Timeout`] when there is no room, [`SendReason::Closed`] when no receiver is left.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let (sender, _receiver) = pila::thread_queue(1);
    /// assert!(sender.try_send(1).is_ok());
    /// assert_eq!(sender.try_send(2).unwrap_err().value, 2);
    /// ```
    pub fn try_send(&self, value: T) -> Result<(), SendError<T>> {
        match self.end.shared.add(value, || false) {
            Added::Yes => Ok(()),
            Added::Full(value) | Added::InLine(value) => {
                Err(SendError { value, reason: SendReason::Timeout })
            }
            Added::Closed(value) => Err(SendError { value, reason: SendReason::Closed }),
        }
    }

    /// Whether no receiver is left.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let (sender, receiver) = pila::thread_queue::<()>(1);
    /// drop(receiver);
    /// assert!(sender.is_closed());
    /// ```
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.end.shared.sides.is_gone(Side::Receivers)
    }

    #[inline]
    fn send_until(
        &self,
        value: T,
        deadline: impl FnOnce(&Scheduler) -> Option<u64>,
    ) -> Result<(), SendError<T>> {
        if let Err(refused) = park::check() {
            return Err(SendError { value, reason: SendReason::Refused(refused) });
        }
        match self.end.shared.add(value, || false) {
            Added::Yes => Ok(()),
            Added::Full(value) | Added::InLine(value) => self.wait_and_send(value, deadline),
            Added::Closed(value) => Err(SendError { value, reason: SendReason::Closed }),
        }
    }

    #[cold]
    fn wait_and_send(
        &self,
        mut value: T,
        deadline: impl FnOnce(&Scheduler) -> Option<u64>,
    ) -> Result<(), SendError<T>> {
        let mut stay = self.end.stay();
        let deadline = with(deadline);
        loop {
            let ticket = match park::begin() {
                Ok(ticket) => ticket,
                Err(interrupt) => return Err(SendError { value, reason: interrupt.into() }),
            };
            value = match self.end.shared.add(value, || stay.join(ticket)) {
                Added::Yes => return Ok(()),
                Added::InLine(value) => value,
                Added::Full(value) | Added::Closed(value) => {
                    return Err(SendError { value, reason: SendReason::Closed });
                }
            };
            let woken = with(|scheduler| scheduler.wait(ticket, &Waiting::QueueSend, deadline));
            if let Err(interrupt) = woken {
                return Err(SendError { value, reason: interrupt.into() });
            }
        }
    }
}

impl<T: Send> QueueReceiver<T> {
    /// Takes the oldest message out of the queue, waiting for one if need be.
    ///
    /// # Errors
    /// [`ReceiveError::Closed`] when nothing is left and no sender either, [`ReceiveError::Refused`] when the caller may
    /// not wait, [`ReceiveError::Thrown`].
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let (sender, receiver) = pila::thread_queue(1);
    /// sender.send("last").unwrap();
    /// drop(sender);
    /// assert_eq!(receiver.receive().unwrap(), "last");
    /// assert!(receiver.receive().is_err());
    /// ```
    pub fn receive(&self) -> Result<T, ReceiveError> {
        self.receive_until(&Waiting::QueueReceive, |_| None)
    }

    /// As [`receive`](QueueReceiver::receive), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As [`receive`](QueueReceiver::receive), and [`ReceiveError::Timeout`] when the time is up.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let (_sender, receiver) = pila::thread_queue::<()>(1);
    /// let nothing = receiver.receive_timeout(std::time::Duration::from_millis(1));
    /// assert!(matches!(nothing, Err(pila::ReceiveError::Timeout)));
    /// ```
    pub fn receive_timeout(&self, timeout: Duration) -> Result<T, ReceiveError> {
        self.receive_until(&Waiting::QueueReceive, |scheduler| scheduler.deadline_in(timeout))
    }

    /// Takes the oldest message if there is one. Never waits, so it works wherever the caller is: in a tasklet that was
    /// killed, while it unwinds, at the end of its thread.
    ///
    /// # Errors
    /// [`ReceiveError::Timeout`] when there is none, [`ReceiveError::Closed`] when no sender is left either.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let (sender, receiver) = pila::thread_queue(1);
    /// assert!(receiver.try_receive().is_err());
    /// sender.send(1).unwrap();
    /// assert_eq!(receiver.try_receive().unwrap(), 1);
    /// ```
    pub fn try_receive(&self) -> Result<T, ReceiveError> {
        match self.end.shared.take(|| false) {
            Taken::Message(value) => Ok(value),
            Taken::Empty | Taken::InLine => Err(ReceiveError::Timeout),
            Taken::Closed => Err(ReceiveError::Closed),
        }
    }

    /// Receives until the queue is empty and no sender is left.
    ///
    /// It also ends when the caller may not wait any more.
    ///
    /// # Panics
    /// Its `next` panics with an error that was thrown, and inside a `no_switch` guard.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let (sender, receiver) = pila::thread_queue(3);
    /// (1..=3).for_each(|i| sender.send(i).unwrap());
    /// drop(sender);
    /// assert_eq!(receiver.iter().collect::<Vec<_>>(), [1, 2, 3]);
    /// ```
    #[must_use]
    pub fn iter(&self) -> QueueIter<'_, T> {
        QueueIter { receiver: self }
    }

    /// How many messages are in the queue at this moment.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let (sender, receiver) = pila::thread_queue(2);
    /// sender.send(1).unwrap();
    /// assert_eq!(receiver.len(), 1);
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.end.shared.messages().len()
    }

    /// Whether the queue is empty at this moment.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let (sender, receiver) = pila::thread_queue(1);
    /// assert!(receiver.is_empty());
    /// sender.send(1).unwrap();
    /// assert!(!receiver.is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Receives; reports say that the caller is `waiting`.
    #[inline]
    pub(crate) fn receive_until(
        &self,
        waiting: &Waiting,
        deadline: impl FnOnce(&Scheduler) -> Option<u64>,
    ) -> Result<T, ReceiveError> {
        park::check().map_err(ReceiveError::Refused)?;
        match self.end.shared.take(|| false) {
            Taken::Message(value) => Ok(value),
            Taken::Empty | Taken::InLine => self.wait_and_receive(waiting, deadline),
            Taken::Closed => Err(ReceiveError::Closed),
        }
    }

    #[cold]
    fn wait_and_receive(
        &self,
        waiting: &Waiting,
        deadline: impl FnOnce(&Scheduler) -> Option<u64>,
    ) -> Result<T, ReceiveError> {
        let mut stay = self.end.stay();
        let deadline = with(deadline);
        loop {
            let ticket = park::begin()?;
            match self.end.shared.take(|| stay.join(ticket)) {
                Taken::Message(value) => return Ok(value),
                Taken::InLine => {}
                Taken::Empty | Taken::Closed => return Err(ReceiveError::Closed),
            }
            with(|scheduler| scheduler.wait(ticket, waiting, deadline))?;
        }
    }
}

/// What both sides share.
struct Shared<T> {
    /// The oldest first, at most `capacity`.
    messages: Mutex<VecDeque<T>>,
    capacity: usize,
    /// Apart, for the end of a thread has to reach it whatever `T` is.
    sides: Arc<Sides>,
}

/// What became of a message.
enum Added<T> {
    Yes,
    Full(T),
    /// There was no room, and the caller is in line.
    InLine(T),
    /// No receiver is left.
    Closed(T),
}

/// What there was to take.
enum Taken<T> {
    Message(T),
    Empty,
    /// There was nothing, and the caller is in line.
    InLine,
    /// There was nothing, and no sender is left.
    Closed,
}

impl<T> Shared<T> {
    /// Adds a message. When there is no room, `join` is called while the queue is locked.
    #[inline]
    fn add(&self, value: T, join: impl FnOnce() -> bool) -> Added<T> {
        let mut messages = self.messages();
        if self.sides.is_gone(Side::Receivers) {
            drop(messages);
            self.discard();
            return Added::Closed(value);
        }
        if messages.len() < self.capacity {
            messages.push_back(value);
            let available = messages.len();
            drop(messages);
            self.sides.wake(Side::Receivers, available);
            return Added::Yes;
        }
        match join() {
            true => Added::InLine(value),
            false => Added::Full(value),
        }
    }

    /// Takes a message. When there is none, `join` is called while the queue is locked.
    #[inline]
    fn take(&self, join: impl FnOnce() -> bool) -> Taken<T> {
        let mut messages = self.messages();
        if let Some(value) = messages.pop_front() {
            let room = self.capacity - messages.len();
            drop(messages);
            self.sides.wake(Side::Senders, room);
            return Taken::Message(value);
        }
        if self.sides.is_gone(Side::Senders) {
            return Taken::Closed;
        }
        match join() {
            true => Taken::InLine,
            false => Taken::Empty,
        }
    }

    /// Wakes those of `side` that can go on.
    fn wake(&self, side: Side) {
        let length = self.messages().len();
        let available = match side {
            Side::Senders => self.capacity - length,
            Side::Receivers => length,
        };
        self.sides.wake(side, available);
    }

    /// Drops what nobody can receive any more: it may hold what others wait for.
    fn discard(&self) {
        if self.sides.is_gone(Side::Receivers) {
            let messages = mem::take(&mut *self.messages());
            // Not under the lock: their destructors are the user's.
            drop(messages);
        }
    }

    /// No code that can panic runs under this lock, so a poisoned one is still sound.
    fn messages(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end, of either side.
struct End<T> {
    shared: Arc<Shared<T>>,
    side: Side,
    /// Tells it apart from the others of its side.
    number: u64,
    /// `sides` relies on it that one thread at a time uses an end.
    not_sync: PhantomData<Cell<()>>,
}

impl<T> End<T> {
    fn new(shared: Arc<Shared<T>>, side: Side) -> End<T> {
        let number = shared.sides.add_end(side);
        End { shared, side, number, not_sync: PhantomData }
    }

    /// Begins a wait.
    fn stay(&self) -> Stay<'_, T> {
        let number = self.shared.sides.arrive();
        Stay { end: self, number, _inheritance: park::inherit(self.shared.sides.clone(), number) }
    }
}

impl<T> Clone for End<T> {
    fn clone(&self) -> End<T> {
        End::new(self.shared.clone(), self.side)
    }
}

impl<T> Drop for End<T> {
    fn drop(&mut self) {
        self.shared.sides.remove_end(self.side, self.number);
        self.shared.discard();
    }
}

/// A wait, from before it is first in line until it is over, by any road.
struct Stay<'a, T> {
    end: &'a End<T>,
    /// Names it at `sides`, and keeps its place in line when it has to wait again.
    number: u64,
    _inheritance: Inheritance,
}

impl<T> Stay<'_, T> {
    /// Gets in line. False when there is nothing to wait for any more.
    fn join(&mut self, ticket: Ticket) -> bool {
        let End { shared, side, number, .. } = self.end;
        shared.sides.join(*side, self.number, *number, park::waker(ticket))
    }
}

impl<T> Drop for Stay<'_, T> {
    fn drop(&mut self) {
        let End { shared, side, .. } = self.end;
        shared.sides.leave(*side, self.number);
        // It may have been woken for what it does not take.
        shared.wake(*side);
    }
}

impl<T> fmt::Debug for End<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.shared.messages().len();
        write!(f, "{length} of {} messages", self.shared.capacity)
    }
}

impl<T: Send> fmt::Debug for QueueSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QueueSender").field(&self.end).finish()
    }
}

impl<T: Send> fmt::Debug for QueueReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QueueReceiver").field(&self.end).finish()
    }
}

/// Iterates over what a thread queue's receiver receives; made by [`QueueReceiver::iter`].
///
/// ```
/// # use pila_runtime as pila;
/// let (sender, receiver) = pila::thread_queue(2);
/// sender.send(1).unwrap();
/// drop(sender);
/// let mut iter: pila::QueueIter<'_, i32> = receiver.iter();
/// assert_eq!((iter.next(), iter.next()), (Some(1), None));
/// ```
#[derive(Debug)]
pub struct QueueIter<'a, T: Send> {
    receiver: &'a QueueReceiver<T>,
}

impl<T: Send> Iterator for QueueIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match self.receiver.receive() {
            Ok(value) => Some(value),
            Err(ReceiveError::Closed) => None,
            Err(ReceiveError::Refused(refused)) if !matches!(refused, Refused::NoSwitch(_)) => None,
            Err(error) => panic!("iterating over a thread queue: {error}"),
        }
    }
}

impl<'a, T: Send> IntoIterator for &'a QueueReceiver<T> {
    type Item = T;
    type IntoIter = QueueIter<'a, T>;

    fn into_iter(self) -> QueueIter<'a, T> {
        self.iter()
    }
}
