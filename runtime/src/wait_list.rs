//! Those who wait for one thing, first come first served, each with a place for what it gives or gets.
//!
//! - Joining, leaving from anywhere and serving the first cost the same however many wait.
//! - A waiter that was served keeps its place until it fetches what was left there, so a value on its way to a waiter
//!   is owned by the list and cannot be lost.

use slab::Slab;

use crate::wake::Ticket;

/// Names a waiter from [`WaitList::push`] until [`WaitList::leave`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place(u32);

/// A queue of waiters, each with a `T` of its own.
#[derive(Debug)]
pub(crate) struct WaitList<T> {
    /// All waiters, those in line and those served that have not left yet.
    waiters: Slab<Waiter<T>>,
    /// The first and the last in line, or `NOBODY`. Numbers, not options: a pair that is written in parts and read as a
    /// whole costs some 5 ns.
    first: u32,
    last: u32,
}

const NOBODY: u32 = u32::MAX;

#[derive(Debug)]
struct Waiter<T> {
    /// Wakes it.
    ticket: Ticket,
    /// What it brought, or what was left for it.
    value: T,
    /// Its neighbours, while it is in line.
    before: u32,
    after: u32,
    /// Whether it waits, or is done waiting and how.
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    InLine,
    Served,
    /// Its turn came when something else had already ended its wait.
    PassedOver,
}

/// What a waiter takes along when it leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Left<T> {
    /// What it brought, or what was left for it.
    pub(crate) value: T,
    /// Whether it was served.
    pub(crate) served: bool,
}

impl<T> WaitList<T> {
    pub(crate) const fn new() -> WaitList<T> {
        WaitList { waiters: Slab::new(), first: NOBODY, last: NOBODY }
    }

    /// Joins the end of the line.
    #[inline(always)]
    pub(crate) fn push(&mut self, ticket: Ticket, value: T) -> Place {
        let entry = self.waiters.vacant_entry();
        let key = entry.key() as u32;
        let before = self.last;
        entry.insert(Waiter { ticket, value, before, after: NOBODY, stage: Stage::InLine });
        match before {
            NOBODY => self.first = key,
            last => self.waiters[last as usize].after = key,
        }
        self.last = key;
        Place(key)
    }

    /// Takes the first that `wake` says it has woken out of the line, and all before it, whose waits are over already.
    /// Its place stays until it leaves.
    #[inline]
    pub(crate) fn serve(&mut self, wake: impl FnMut(Ticket) -> bool) -> Option<Place> {
        self.serve_if(|_| true, wake)
    }

    /// As [`serve`](WaitList::serve), but stops before one whose value `may` refuses.
    #[inline(always)]
    pub(crate) fn serve_if(
        &mut self,
        mut may: impl FnMut(&T) -> bool,
        mut wake: impl FnMut(Ticket) -> bool,
    ) -> Option<Place> {
        loop {
            let first = self.first;
            if first == NOBODY || !may(&self.waiters[first as usize].value) {
                return None;
            }
            self.unlink(first);
            let waiter = &mut self.waiters[first as usize];
            if wake(waiter.ticket) {
                waiter.stage = Stage::Served;
                return Some(Place(first));
            }
            waiter.stage = Stage::PassedOver;
        }
    }

    /// Those in line, first come first.
    pub(crate) fn tickets(&self) -> impl Iterator<Item = Ticket> {
        let mut next = self.first;
        std::iter::from_fn(move || {
            let waiter = self.waiters.get(next as usize)?;
            next = waiter.after;
            Some(waiter.ticket)
        })
    }

    /// What a waiter that has not left brought or was given.
    #[inline]
    pub(crate) fn value(&mut self, place: Place) -> &mut T {
        &mut self.waiters[place.0 as usize].value
    }

    /// Gives the place up, from the line or after being served.
    #[inline(always)]
    pub(crate) fn leave(&mut self, place: Place) -> Left<T> {
        if self.waiters[place.0 as usize].stage == Stage::InLine {
            self.unlink(place.0);
        }
        let Waiter { value, stage, .. } = self.waiters.remove(place.0 as usize);
        Left { value, served: stage == Stage::Served }
    }

    #[inline]
    fn unlink(&mut self, key: u32) {
        let waiter = &mut self.waiters[key as usize];
        let (before, after) = (waiter.before, waiter.after);
        (waiter.before, waiter.after) = (NOBODY, NOBODY);
        match before {
            NOBODY => self.first = after,
            before => self.waiters[before as usize].after = after,
        }
        match after {
            NOBODY => self.last = before,
            after => self.waiters[after as usize].before = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(sequence: u64) -> Ticket {
        Ticket { index: 0, sequence }
    }

    #[test]
    fn the_first_to_come_is_served_first() {
        let mut list = WaitList::new();
        let places = [1, 2, 3].map(|n| list.push(ticket(n), n));
        assert_eq!(list.serve(|_| true), Some(places[0]));
        assert_eq!(list.tickets().map(|ticket| ticket.sequence).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(list.leave(places[0]), Left { value: 1, served: true });
        assert_eq!(list.serve(|_| true), Some(places[1]));
        assert_eq!(list.serve(|_| true), Some(places[2]));
        assert_eq!(list.serve(|_| true), None);
    }

    #[test]
    fn one_whose_wait_is_over_is_passed_over_and_keeps_its_value() {
        let mut list = WaitList::new();
        let places = [1, 2].map(|n| list.push(ticket(n), n));
        assert_eq!(list.serve(|ticket| ticket.sequence == 2), Some(places[1]));
        assert_eq!(list.leave(places[0]), Left { value: 1, served: false });
        assert_eq!(list.leave(places[1]), Left { value: 2, served: true });
        assert_eq!(list.tickets().count(), 0);
    }

    #[test]
    fn a_value_left_for_a_served_waiter_stays_until_it_leaves() {
        let mut list = WaitList::new();
        let place = list.push(ticket(1), None);
        list.serve(|_| true);
        *list.value(place) = Some("for you");
        list.push(ticket(2), None);
        assert_eq!(list.leave(place).value, Some("for you"));
    }

    #[test]
    fn nobody_is_served_past_one_who_may_not_be() {
        let mut list = WaitList::new();
        let places = [1, 2, 1].map(|n| list.push(ticket(n), n));
        let small = |n: &u64| *n == 1;
        assert_eq!(list.serve_if(small, |_| true), Some(places[0]));
        assert_eq!(list.serve_if(small, |_| true), None);
        list.leave(places[1]);
        assert_eq!(list.serve_if(small, |_| true), Some(places[2]));
    }

    #[test]
    fn anyone_may_leave_from_anywhere() {
        for gone in 0..3 {
            let mut list = WaitList::new();
            let places = [0, 1, 2].map(|n| list.push(ticket(n), n));
            assert_eq!(list.leave(places[gone]), Left { value: gone as u64, served: false });
            let rest: Vec<_> = list.tickets().map(|ticket| ticket.sequence).collect();
            let expected: Vec<_> = (0..3).filter(|&n| n != gone as u64).collect();
            assert_eq!(rest, expected);
        }
    }
}
