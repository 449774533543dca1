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
    /// How many are in line.
    len: usize,
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
    in_line: bool,
}

impl<T> WaitList<T> {
    pub(crate) const fn new() -> WaitList<T> {
        WaitList { waiters: Slab::new(), ends: None, len: 0 }
    }

    /// How many are in line.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Joins the end of the line.
    pub(crate) fn push(&mut self, ticket: Ticket, value: T) -> Place {
        let before = self.ends.map(|(_, last)| last);
        let key = self.waiters.insert(Waiter { ticket, value, before, after: None, in_line: true });
        match before {
            Some(last) => self.waiters[last].after = Some(key),
            None => self.ends = Some((key, key)),
        }
        self.ends = self.ends.map(|(first, _)| (first, key));
        self.len += 1;
        Place(key)
    }

    /// Takes the first out of the line; its place stays until it leaves.
    pub(crate) fn serve(&mut self) -> Option<(Place, Ticket)> {
        let (first, _) = self.ends?;
        self.unlink(first);
        Some((Place(first), self.waiters[first].ticket))
    }

    /// What a waiter that has not left brought or was given.
    pub(crate) fn value(&mut self, place: Place) -> &mut T {
        &mut self.waiters[place.0].value
    }

    /// Gives the place up, from the line or after being served.
    pub(crate) fn leave(&mut self, place: Place) -> T {
        if self.waiters[place.0].in_line {
            self.unlink(place.0);
        }
        self.waiters.remove(place.0).value
    }

    fn unlink(&mut self, key: usize) {
        let waiter = &mut self.waiters[key];
        waiter.in_line = false;
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
        self.len -= 1;
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
        assert_eq!(list.serve(), Some((places[0], ticket(1))));
        assert_eq!(list.len(), 2);
        assert_eq!(list.leave(places[0]), 1);
        assert_eq!(list.serve().map(|(_, ticket)| ticket.sequence), Some(2));
        assert_eq!(list.serve().map(|(_, ticket)| ticket.sequence), Some(3));
        assert_eq!(list.serve(), None);
    }

    #[test]
    fn a_value_left_for_a_served_waiter_stays_until_it_leaves() {
        let mut list = WaitList::new();
        let place = list.push(ticket(1), None);
        list.serve();
        *list.value(place) = Some("for you");
        list.push(ticket(2), None);
        assert_eq!(list.leave(place), Some("for you"));
    }

    #[test]
    fn anyone_may_leave_from_anywhere() {
        for gone in 0..3 {
            let mut list = WaitList::new();
            let places = [0, 1, 2].map(|n| list.push(ticket(n), n));
            assert_eq!(list.leave(places[gone]), gone as u64);
            let rest: Vec<_> =
                std::iter::from_fn(|| list.serve()).map(|(_, t)| t.sequence).collect();
            let expected: Vec<_> = (0..3).filter(|&n| n != gone as u64).collect();
            assert_eq!(rest, expected);
        }
    }
}
