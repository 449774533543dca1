//! Waiting for the first of several things.
//!
//! - One ticket sits in the line of every branch. Whoever uses it first serves its branch; for all others it is stale.
//!   So exactly one branch commits and the others are untouched: no value is taken or given that is not accounted for.

use std::{fmt, marker::PhantomData, time::Duration};

use crate::{
    channel::Channel,
    current::with,
    error::{Interrupt, ReceiveError, SendError, SendReason},
    exchange::{Hurry, Parcel, Seat},
    scheduler::Scheduler,
    wake::{Ticket, Waiting},
};

/// Waits for the first of several sends, receives and a deadline, and calls what was given for it.
///
/// When several are possible at once, the first in the order they were added commits. A branch whose channel is closed
/// counts as possible: its function gets the error. What [`wait`](Select::wait) cannot wait for (a deadlock, a refused
/// wait) is given to the first branch as its error.
///
/// The value of a send that did not commit is dropped with the select.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::{Channel, Select};
/// use std::time::Duration;
///
/// let (numbers, words) = (Channel::<i32>::new(), Channel::new());
/// let theirs = words.clone();
/// pila::tasklet(move || theirs.send("seven"));
/// let got = Select::new()
///     .receive(&numbers, |number| format!("number {}", number.unwrap()))
///     .receive(&words, |word| format!("word {}", word.unwrap()))
///     .after(Duration::from_secs(1), || "nothing".to_string())
///     .wait();
/// assert_eq!(got, "word seven");
/// ```
#[must_use = "nothing happens until `wait`"]
pub struct Select<'a, R> {
    branches: Vec<Box<dyn Branch<R> + 'a>>,
    /// The earliest deadline and what to do then.
    after: Option<(Duration, Box<dyn FnOnce() -> R + 'a>)>,
    on_its_thread: PhantomData<*const ()>,
}

impl<'a, R: 'a> Select<'a, R> {
    /// Waits for nothing yet.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use std::time::Duration;
    ///
    /// let select = pila::Select::new();
    /// assert_eq!(select.after(Duration::ZERO, || "nothing").wait(), "nothing");
    /// ```
    pub fn new() -> Select<'a, R> {
        Select { branches: Vec::new(), after: None, on_its_thread: PhantomData }
    }

    /// Receives from `channel`, if that is possible first, and calls `then` with what came.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::{Channel, Select};
    ///
    /// let (full, empty) = (Channel::with_capacity(1), Channel::<i32>::new());
    /// full.send(1).unwrap();
    /// let got = Select::new()
    ///     .receive(&empty, |number| number.unwrap())
    ///     .receive(&full, |number| number.unwrap() * 10)
    ///     .wait();
    /// assert_eq!(got, 10);
    /// ```
    pub fn receive<T: 'a>(
        mut self,
        channel: &'a Channel<T>,
        then: impl FnOnce(Result<T, ReceiveError>) -> R + 'a,
    ) -> Select<'a, R> {
        self.branches.push(Box::new(Receive { channel, then: Some(then), seat: None }));
        self
    }

    /// Sends `value` to `channel`, if that is possible first, and calls `then` with what became of it.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::{Channel, Select};
    ///
    /// let channel = Channel::with_capacity(1);
    /// assert!(Select::new().send(&channel, 42, |sent| sent.is_ok()).wait());
    /// assert_eq!(channel.receive().unwrap(), 42);
    /// ```
    pub fn send<T: 'a>(
        mut self,
        channel: &'a Channel<T>,
        value: T,
        then: impl FnOnce(Result<(), SendError<T>>) -> R + 'a,
    ) -> Select<'a, R> {
        let parcel = Some(Parcel::Value(value));
        self.branches.push(Box::new(Send { channel, parcel, then: Some(then), seat: None }));
        self
    }

    /// Calls `then` when nothing else was possible for `duration`. Of several the shortest holds, of equals the first.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::{Channel, Select};
    /// use std::time::Duration;
    ///
    /// let nobody_sends = Channel::<()>::new();
    /// let got = Select::new()
    ///     .receive(&nobody_sends, |_| "something")
    ///     .after(Duration::from_millis(1), || "nothing in time")
    ///     .wait();
    /// assert_eq!(got, "nothing in time");
    /// ```
    pub fn after(mut self, duration: Duration, then: impl FnOnce() -> R + 'a) -> Select<'a, R> {
        if self.after.as_ref().is_none_or(|(other, _)| duration < *other) {
            self.after = Some((duration, Box::new(then)));
        }
        self
    }

    /// Waits, and gives what the function of the one branch that committed gave.
    ///
    /// # Panics
    /// When it has no branch at all; with what the wait was interrupted by, when its only branch is `after`.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::{Channel, Select};
    ///
    /// let (first, second) = (Channel::with_capacity(1), Channel::with_capacity(1));
    /// first.send(1).unwrap();
    /// second.send(2).unwrap();
    /// let got = Select::new().receive(&first, |n| n).receive(&second, |n| n).wait();
    /// assert_eq!(got.unwrap(), 1);
    /// assert_eq!(second.balance(), 1); // untouched
    /// ```
    pub fn wait(mut self) -> R {
        with(|scheduler| match self.commit(scheduler) {
            Committed::Branch(branch) => {
                // The losers are gone before the winner's function runs: it finds every line without them.
                let winner = self.branches.swap_remove(branch);
                self.branches.clear();
                winner.finish()
            }
            Committed::After => (self.after.take().expect("it has a deadline").1)(),
            Committed::Interrupted(interrupt) => {
                assert!(
                    !self.branches.is_empty(),
                    "a select without a branch to tell: {interrupt}"
                );
                self.branches.swap_remove(0).fail(interrupt)
            }
        })
    }

    fn commit(&mut self, scheduler: &Scheduler) -> Committed {
        assert!(
            !self.branches.is_empty() || self.after.is_some(),
            "a select needs something to wait for: receive, send or after"
        );
        if let Some(branch) = self.branches.iter_mut().position(|branch| branch.attempt(scheduler))
        {
            return Committed::Branch(branch);
        }
        let ticket = match scheduler.begin() {
            Ok(ticket) => ticket,
            Err(refused) => return Committed::Interrupted(Interrupt::Refused(refused)),
        };
        // Alone it sleeps, which is no deadlock however long it takes.
        let longest = self.branches.is_empty().then_some(u64::MAX);
        let deadline = self
            .after
            .as_ref()
            .and_then(|(duration, _)| scheduler.deadline_in(*duration).or(longest));
        for branch in &mut self.branches {
            branch.sit(ticket);
        }
        let woken = scheduler.wait(ticket, &Waiting::Select, deadline);
        let mut winner = None;
        for (place, branch) in self.branches.iter_mut().enumerate() {
            if branch.leave() {
                winner = Some(place);
            }
        }
        match (winner, woken) {
            (Some(branch), _) => Committed::Branch(branch),
            (None, Err(Interrupt::Deadline)) => Committed::After,
            (None, Err(interrupt)) => Committed::Interrupted(interrupt),
            (None, Ok(())) => unreachable!("whoever wakes a select serves a branch of it"),
        }
    }
}

impl<'a, R: 'a> Default for Select<'a, R> {
    fn default() -> Select<'a, R> {
        Select::new()
    }
}

impl<R> fmt::Debug for Select<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.after.as_ref().map(|(duration, _)| duration);
        f.debug_struct("Select")
            .field("branches", &self.branches.len())
            .field("after", &after)
            .finish()
    }
}

enum Committed {
    Branch(usize),
    After,
    Interrupted(Interrupt),
}

/// One thing a select waits for.
trait Branch<R> {
    /// Commits without waiting, if that is possible.
    fn attempt(&mut self, scheduler: &Scheduler) -> bool;
    /// Joins the line.
    fn sit(&mut self, ticket: Ticket);
    /// Leaves the line. Whether it was served.
    fn leave(&mut self) -> bool;
    /// Calls the function of one that committed.
    fn finish(self: Box<Self>) -> R;
    /// Calls the function with why nothing could commit.
    fn fail(self: Box<Self>, interrupt: Interrupt) -> R;
}

struct Receive<'a, T, F> {
    channel: &'a Channel<T>,
    then: Option<F>,
    seat: Option<Reception<'a, T>>,
}

/// How far a receive is.
enum Reception<'a, T> {
    Waiting(Seat<'a, T>),
    Over(Result<T, ReceiveError>),
}

impl<T, R, F: FnOnce(Result<T, ReceiveError>) -> R> Branch<R> for Receive<'_, T, F> {
    fn attempt(&mut self, scheduler: &Scheduler) -> bool {
        let taken = self.channel.exchange.take(scheduler, Hurry::MayWait);
        let Some(result) = taken.settle(scheduler) else {
            return false;
        };
        self.seat = Some(Reception::Over(result));
        true
    }

    fn sit(&mut self, ticket: Ticket) {
        self.seat = Some(Reception::Waiting(self.channel.exchange.wait_for_parcel(ticket)));
    }

    fn leave(&mut self) -> bool {
        let Some(Reception::Waiting(seat)) = self.seat.take() else {
            return false;
        };
        let left = seat.leave();
        if left.served {
            // Only `close` serves a receiver with nothing.
            let result = left.value.map_or(Err(ReceiveError::Closed), Parcel::open);
            self.seat = Some(Reception::Over(result));
        }
        left.served
    }

    fn finish(mut self: Box<Self>) -> R {
        let Some(Reception::Over(result)) = self.seat.take() else {
            unreachable!("it has committed")
        };
        (self.then.take().expect("a branch ends once"))(result)
    }

    fn fail(mut self: Box<Self>, interrupt: Interrupt) -> R {
        (self.then.take().expect("a branch ends once"))(Err(interrupt.into()))
    }
}

struct Send<'a, T, F> {
    channel: &'a Channel<T>,
    /// What it sends, while it is not in line, and when nobody took it.
    parcel: Option<Parcel<T>>,
    then: Option<F>,
    seat: Option<Dispatch<'a, T>>,
}

/// How far a send is.
enum Dispatch<'a, T> {
    Waiting(Seat<'a, T>),
    Over(Result<(), SendReason>),
}

impl<T, R, F: FnOnce(Result<(), SendError<T>>) -> R> Send<'_, T, F> {
    fn end(mut self, result: Result<(), SendReason>) -> R {
        let result = result.map_err(|reason| {
            let parcel = self.parcel.take().expect("what nobody took is still here");
            SendError::from_parcel((parcel, reason))
        });
        (self.then.take().expect("a branch ends once"))(result)
    }
}

impl<T, R, F: FnOnce(Result<(), SendError<T>>) -> R> Branch<R> for Send<'_, T, F> {
    fn attempt(&mut self, scheduler: &Scheduler) -> bool {
        let parcel = self.parcel.take().expect("it has not been tried");
        let offered = self.channel.exchange.offer(scheduler, parcel, Hurry::MayWait);
        let result = match offered.settle(scheduler) {
            Ok(None) => Ok(()),
            Ok(Some(parcel)) => {
                self.parcel = Some(parcel);
                return false;
            }
            Err((parcel, refusal)) => {
                self.parcel = Some(parcel);
                Err(refusal.into())
            }
        };
        self.seat = Some(Dispatch::Over(result));
        true
    }

    fn sit(&mut self, ticket: Ticket) {
        let parcel = self.parcel.take().expect("nobody took it");
        self.seat = Some(Dispatch::Waiting(self.channel.exchange.wait_with(ticket, parcel)));
    }

    fn leave(&mut self) -> bool {
        let Some(Dispatch::Waiting(seat)) = self.seat.take() else {
            return false;
        };
        let left = seat.leave();
        self.parcel = left.value;
        if left.served {
            self.seat = Some(Dispatch::Over(Ok(())));
        }
        left.served
    }

    fn finish(mut self: Box<Self>) -> R {
        let Some(Dispatch::Over(result)) = self.seat.take() else {
            unreachable!("it has committed")
        };
        self.end(result)
    }

    fn fail(self: Box<Self>, interrupt: Interrupt) -> R {
        self.end(Err(interrupt.into()))
    }
}
