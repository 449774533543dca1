//! Those who wait for one thing, first come first served, each with a place for what it gives or gets.
//!
//! - Joining, leaving from anywhere and serving the first cost the same however many wait.
//! - A waiter that was served keeps its place until it fetches what was left there, so a value on its way to a waiter
//!   is owned by the list and cannot be lost.

use slab::Slab;

use crate::wake::Ticket;

/// Names a waiter from [`WaitList::push`] until [`WaitList::leave`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place(usize);

/// A queue of waiters, each with a `T` of its own.
#[derive(Debug)]
pub(crate) struct WaitList<T> {
    /// All waiters, those in line and those served that have not left yet.
    waiters: Slab<Waiter<T>>,
    /// The first and the last in line.
    ends: Option<(usize, usize)>,
}

#[derive(Debug)]
struct Waiter<T> {
    /// Wakes it.
    ticket: Ticket,
    /// What it brought, or what was left for it.
    value: T,
    /// Its neighbours, while it is in line.
    before: Option<usize>,
    after: Option<usize>,
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
        WaitList { waiters: Slab::new(), ends: None }
    }

    /// Joins the end of the line.
    #[inline]
    pub(crate) fn push(&mut self, ticket: Ticket, value: T) -> Place {
        let before = self.ends.map(|(_, last)| last);
        let waiter = Waiter { ticket, value, before, after: None, stage: Stage::InLine };
        let key = self.waiters.insert(waiter);
        match before {
            Some(last) => self.waiters[last].after = Some(key),
            None => self.ends = Some((key, key)),
        }
        self.ends = self.ends.map(|(first, _)| (first, key));
        Place(key)
    }

    /// Takes the first that `wake` says it has woken out of the line, and all before it, whose waits are over already.
    /// Its place stays until it leaves.
    #[inline]
    pub(crate) fn serve(&mut self, wake: impl FnMut(Ticket) -> bool) -> Option<Place> {
        self.serve_if(|_| true, wake)
    }

    /// As [`serve`](WaitList::serve), but stops before one whose value `may` refuses.
    #[inline]
    pub(crate) fn serve_if(
        &mut self,
        mut may: impl FnMut(&T) -> bool,
        mut wake: impl FnMut(Ticket) -> bool,
    ) -> Option<Place> {
        loop {
            let (first, _) = self.ends?;
            if !may(&self.waiters[first].value) {
                return None;
            }
            self.unlink(first);
            let waiter = &mut self.waiters[first];
            if wake(waiter.ticket) {
                waiter.stage = Stage::Served;
                return Some(Place(first));
            }
            waiter.stage = Stage::PassedOver;
        }
    }

    /// Those in line, first come first.
    pub(crate) fn tickets(&self) -> impl Iterator<Item = Ticket> {
        let mut next = self.ends.map(|(first, _)| first);
        std::iter::from_fn(move || {
            let waiter = &self.waiters[next?];
            next = waiter.after;
            Some(waiter.ticket)
        })
    }

    /// What a waiter that has not left brought or was given.
    #[inline]
    pub(crate) fn value(&mut self, place: Place) -> &mut T {
        &mut self.waiters[place.0].value
    }

    /// Gives the place up, from the line or after being served.
    #[inline]
    pub(crate) fn leave(&mut self, place: Place) -> Left<T> {
        if self.waiters[place.0].stage == Stage::InLine {
            self.unlink(place.0);
        }
        let Waiter { value, stage, .. } = self.waiters.remove(place.0);
        Left { value, served: stage == Stage::Served }
    }

    fn unlink(&mut self, key: usize) {
        let waiter = &mut self.waiters[key];
        let (before, after) = (waiter.before.take(), waiter.after.take());
        if let Some(before) = before {
            self.waiters[before].after = after;
        }
        if let Some(after) = after {
            self.waiters[after].before = before;
        }
        let (first, last) = self.ends.expect("a line with a member has ends");
        let first = if first == key { after } else { Some(first) };
        let last = if last == key { before } else { Some(last) };
        self.ends = first.zip(last);
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
