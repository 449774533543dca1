//! The line of those who wait for a lock, an event or the like, and the wait in it.
//!
//! - One that leaves without having used its turn tells what it waited for, by any road: see [`Awaited::left`].
//! - Nothing here runs code of the user, so no borrow is ever met by another.

use std::{cell::RefCell, marker::PhantomData, panic::Location, time::Duration};

use crate::{
    error::Interrupt,
    scheduler::Scheduler,
    table::Key,
    wait_list::{Left, Place, WaitList},
    wake::{LockId, LockKind, Ticket, Waiting},
};

/// Those who wait, each with what it wants.
#[derive(Debug)]
pub(super) struct Line<W> {
    /// For reports.
    id: LockId,
    waiters: RefCell<WaitList<W>>,
    /// Tickets mean something on one thread only.
    on_its_thread: PhantomData<*const ()>,
}

/// How long one is ready to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Patience {
    None,
    For(Duration),
    Endless,
}

/// Whether the turn of one that left had come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    NotCome,
    /// It had come, and was not used.
    Unused,
}

/// What tasklets wait for in a line.
pub(super) trait Awaited {
    /// What one of them wants.
    type Want: Copy;

    fn line(&self) -> &Line<Self::Want>;

    /// What reports say of one that wants `want`.
    fn waiting(&self, want: Self::Want) -> Waiting;

    /// One is gone that did not use its turn. What it was given has to go on to the next, and those behind it may be
    /// able to go on without it.
    fn left(&self, scheduler: &Scheduler, want: Self::Want, turn: Turn);

    /// Notes who holds what they wait for, for reports. Called whenever that or the line has changed.
    fn note_holder(&self, _scheduler: &Scheduler) {}
}

impl<W: Copy> Line<W> {
    pub(super) fn new(kind: LockKind, created: &'static Location<'static>) -> Line<W> {
        let number = crate::current::with(|scheduler| {
            let mut core = scheduler.core.borrow_mut();
            core.next_lock += 1;
            core.next_lock
        });
        let id = LockId { kind, number, created };
        Line { id, waiters: RefCell::new(WaitList::new()), on_its_thread: PhantomData }
    }

    pub(super) fn id(&self) -> LockId {
        self.id
    }

    /// How many wait.
    pub(super) fn len(&self, scheduler: &Scheduler) -> usize {
        let waiters = self.waiters.borrow();
        waiters.tickets().filter(|ticket| scheduler.is_parked(*ticket)).count()
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self, scheduler: &Scheduler) -> bool {
        let waiters = self.waiters.borrow();
        !waiters.tickets().any(|ticket| scheduler.is_parked(ticket))
    }

    /// Wakes the first if `may` says so of what it wants. Gives that.
    pub(super) fn serve_if(&self, scheduler: &Scheduler, may: impl FnMut(&W) -> bool) -> Option<W> {
        let mut waiters = self.waiters.borrow_mut();
        waiters.serve_if(may, |ticket| scheduler.unpark(ticket)).map(|(_, want)| *want)
    }

    /// Wakes the first. Gives what it wants.
    pub(super) fn serve(&self, scheduler: &Scheduler) -> Option<W> {
        self.serve_if(scheduler, |_| true)
    }

    /// Wakes the first and leaves `answer` for it. False when nobody waits.
    pub(super) fn answer(&self, scheduler: &Scheduler, answer: W) -> bool {
        let mut waiters = self.waiters.borrow_mut();
        let served = waiters.serve(|ticket| scheduler.unpark(ticket));
        served.map(|(_, place)| *place = answer).is_some()
    }

    /// Says who holds what those in line wait for. There is a note of it exactly while someone is in line.
    pub(super) fn note_holder(&self, scheduler: &Scheduler, holder: Option<Key>) {
        let someone_waits = self.waiters.borrow().tickets().next().is_some();
        let holders = &mut scheduler.core.borrow_mut().holders;
        match holder.filter(|_| someone_waits) {
            Some(holder) => holders.insert(self.id.number, holder),
            None => holders.remove(&self.id.number),
        };
    }
}

/// Waits in the line of `awaited`, calling `before` once its place there is sure. Gives what was left there for it.
pub(super) fn wait<A: Awaited>(
    awaited: &A,
    scheduler: &Scheduler,
    want: A::Want,
    patience: Patience,
    before: impl FnOnce(),
) -> Result<A::Want, Interrupt> {
    let deadline = match patience {
        Patience::None => return Err(Interrupt::Deadline),
        Patience::For(timeout) => scheduler.deadline_in(timeout),
        Patience::Endless => None,
    };
    let ticket = scheduler.begin().map_err(Interrupt::Refused)?;
    let seat = Seat::take(awaited, scheduler, ticket, want);
    before();
    let woken = scheduler.wait(ticket, &awaited.waiting(want), deadline);
    seat.leave(woken)
}

/// A place in a line, given up when the wait is over, by any road.
struct Seat<'a, A: Awaited> {
    awaited: &'a A,
    scheduler: &'a Scheduler,
    place: Option<Place>,
}

impl<'a, A: Awaited> Seat<'a, A> {
    fn take(awaited: &'a A, scheduler: &'a Scheduler, ticket: Ticket, want: A::Want) -> Self {
        let place = awaited.line().waiters.borrow_mut().push(ticket, want);
        awaited.note_holder(scheduler);
        Seat { awaited, scheduler, place: Some(place) }
    }

    fn leave(mut self, woken: Result<(), Interrupt>) -> Result<A::Want, Interrupt> {
        let left = self.give_up().expect("a seat is left once");
        if left.served {
            return Ok(left.value);
        }
        self.awaited.left(self.scheduler, left.value, Turn::NotCome);
        Err(woken.expect_err("whoever wakes one in line has served it"))
    }

    fn give_up(&mut self) -> Option<Left<A::Want>> {
        let place = self.place.take()?;
        let left = self.awaited.line().waiters.borrow_mut().leave(place);
        self.awaited.note_holder(self.scheduler);
        left
    }
}

impl<A: Awaited> Drop for Seat<'_, A> {
    fn drop(&mut self) {
        if let Some(left) = self.give_up() {
            let turn = if left.served { Turn::Unused } else { Turn::NotCome };
            self.awaited.left(self.scheduler, left.value, turn);
        }
    }
}
