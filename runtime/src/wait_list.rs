//! Those who wait for one thing, first come first served, each with a place for what it gives or gets.
//!
//! - A waiter that was served keeps its place until it fetches what was left there, so a value on its way to a waiter
//!   is owned by the list and cannot be lost. One that is [taken](WaitList::take) with what it gives has nothing to fetch.
//! - Entries lie in the order in which they came, and so in the order of their places. Who leaves from the middle leaves
//!   a hole. Holes never lie at the ends, and are closed before more slots are made for them.
//!
//! A ring of slots: joining, serving the first and leaving are a few instructions when nobody left from the middle, and a
//! binary search when somebody did. Slots are filled in where they lie: what is put together elsewhere and then moved is
//! read in larger pieces than it was written in, for which the processor waits longer than for all the rest.

use std::cmp::Ordering;

use crate::wake::Ticket;

/// Where a waiter is. Places grow from front to back and are never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Place(u64);

/// The waiters.
#[derive(Debug)]
pub(crate) struct WaitList<T> {
    /// As many as a power of two says, or none. An entry is `front` and its index along, modulo the length.
    slots: Vec<Waiter<T>>,
    front: usize,
    len: usize,
    /// How many entries at the front are no longer in line: served, passed over, or gone.
    passed: usize,
    /// The place of the next that comes.
    next: u64,
    /// How many entries are holes.
    holes: usize,
}

#[derive(Debug)]
struct Waiter<T> {
    place: u64,
    /// Its ticket, in pieces that fill two words together with `served`.
    sequence: u64,
    index: u32,
    served: bool,
    /// None in a hole, and where there is no entry.
    value: Option<T>,
}

/// What one who leaves finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Left<T> {
    pub(crate) value: T,
    /// Whether it was served; otherwise nobody has come to it.
    pub(crate) served: bool,
}

impl<T> WaitList<T> {
    /// Holes that are tolerated among ever so few others.
    const SLACK: usize = 32;

    pub(crate) const fn new() -> WaitList<T> {
        WaitList { slots: Vec::new(), front: 0, len: 0, passed: 0, next: 0, holes: 0 }
    }

    /// Joins at the back.
    #[inline(always)]
    pub(crate) fn push(&mut self, ticket: Ticket, value: T) -> Place {
        if self.len == self.slots.len() {
            self.make_room();
        }
        let place = self.next;
        self.next += 1;
        let back = self.slot(self.len);
        self.len += 1;
        let waiter = &mut self.slots[back];
        (waiter.place, waiter.sequence, waiter.index) = (place, ticket.sequence, ticket.index);
        waiter.served = false;
        waiter.value = Some(value);
        Place(place)
    }

    /// Serves the first in line whom `wake` wakes, as long as `may` says of the first that it may be served, and gives its
    /// place and its value. Those it does not wake are passed over: their waits ended otherwise.
    #[inline(always)]
    pub(crate) fn serve_if(
        &mut self,
        mut may: impl FnMut(&T) -> bool,
        mut wake: impl FnMut(Ticket) -> bool,
    ) -> Option<(Place, &mut T)> {
        while let Some((slot, ticket)) = self.first() {
            if !self.slots[slot].value.as_ref().is_some_and(&mut may) {
                return None;
            }
            if wake(ticket) {
                return self.serve_first(slot);
            }
            self.pass_over();
        }
        None
    }

    /// As [`serve_if`](Self::serve_if), whatever the first is.
    #[inline(always)]
    pub(crate) fn serve(&mut self, wake: impl FnMut(Ticket) -> bool) -> Option<(Place, &mut T)> {
        self.serve_if(|_| true, wake)
    }

    /// Serves the first in line, in `slot`: it has been woken, and finds there what is put into its value.
    #[inline(always)]
    pub(crate) fn serve_first(&mut self, slot: usize) -> Option<(Place, &mut T)> {
        self.passed += 1;
        let waiter = &mut self.slots[slot];
        waiter.served = true;
        Some((Place(waiter.place), waiter.value.as_mut()?))
    }

    /// The slot and the ticket of the first in line.
    #[inline(always)]
    pub(crate) fn first(&mut self) -> Option<(usize, Ticket)> {
        while self.passed < self.len {
            let slot = self.slot(self.passed);
            let waiter = &self.slots[slot];
            if waiter.value.is_some() {
                return Some((slot, waiter.ticket()));
            }
            self.passed += 1;
        }
        None
    }

    /// As [`serve`](Self::serve), of the first in line, in `slot`, which has been woken. But this takes it out with all it has:
    /// it finds no trace of itself.
    #[inline(always)]
    pub(crate) fn take(&mut self, slot: usize) -> Option<(Place, T)> {
        let waiter = &mut self.slots[slot];
        let (place, value) = (Place(waiter.place), waiter.value.take()?);
        self.close_up(self.passed);
        Some((place, value))
    }

    /// Passes the first in line over: its wait has ended otherwise.
    #[cold]
    pub(crate) fn pass_over(&mut self) {
        self.passed += 1;
    }

    /// Those in line, first to last.
    pub(crate) fn tickets(&self) -> impl Iterator<Item = Ticket> {
        let in_line = (self.passed..self.len).map(|index| &self.slots[self.slot(index)]);
        in_line.filter(|waiter| waiter.value.is_some()).map(Waiter::ticket)
    }

    /// Leaves, wherever it is by now. None when it was [taken](Self::take).
    #[inline(always)]
    pub(crate) fn leave(&mut self, place: Place) -> Option<Left<T>> {
        let index = self.find(place)?;
        let served = self.slots[self.slot(index)].served;
        Some(Left { value: self.take_out(index)?, served })
    }

    /// What the entry at `index`, which goes, has.
    #[inline(always)]
    fn take_out(&mut self, index: usize) -> Option<T> {
        let slot = self.slot(index);
        let value = self.slots[slot].value.take()?;
        self.close_up(index);
        Some(value)
    }

    /// Closes up where one has left.
    #[inline(always)]
    fn close_up(&mut self, index: usize) {
        if index > 0 {
            return self.leave_a_hole();
        }
        self.drop_front();
        if self.holes > 0 {
            self.trim();
        }
    }

    #[cold]
    fn leave_a_hole(&mut self) {
        self.holes += 1;
        self.trim();
    }

    #[inline(always)]
    fn drop_front(&mut self) {
        self.front = self.slot(1);
        self.len -= 1;
        self.passed = self.passed.saturating_sub(1);
    }

    /// Where the entry at `index` lies.
    #[inline(always)]
    fn slot(&self, index: usize) -> usize {
        (self.front + index) & self.slots.len().wrapping_sub(1)
    }

    #[inline(always)]
    fn find(&self, Place(place): Place) -> Option<usize> {
        match self.len {
            0 => None,
            _ if self.slots[self.slot(0)].place == place => Some(0),
            _ => self.search(place),
        }
    }

    #[inline(never)]
    fn search(&self, place: u64) -> Option<usize> {
        let (mut from, mut to) = (0, self.len);
        while from < to {
            let middle = from.midpoint(to);
            match self.slots[self.slot(middle)].place.cmp(&place) {
                Ordering::Less => from = middle + 1,
                Ordering::Greater => to = middle,
                Ordering::Equal => return Some(middle),
            }
        }
        None
    }

    fn is_hole(&self, index: usize) -> bool {
        self.slots[self.slot(index)].value.is_none()
    }

    /// Drops the holes at both ends.
    #[cold]
    fn trim(&mut self) {
        while self.len > 0 && self.is_hole(0) {
            self.drop_front();
            self.holes -= 1;
        }
        while self.len > 0 && self.is_hole(self.len - 1) {
            self.len -= 1;
            self.holes -= 1;
        }
        self.passed = self.passed.min(self.len);
    }

    /// Closes the holes, if there are many, and otherwise doubles the slots.
    #[cold]
    fn make_room(&mut self) {
        let many = self.holes > Self::SLACK && self.holes > self.len / 2;
        let length = if many { self.slots.len() } else { (self.slots.len() * 2).max(2) };
        let passed = (0..self.passed).filter(|&index| !self.is_hole(index)).count();
        self.slots.rotate_left(self.front);
        self.slots.retain(|waiter| waiter.value.is_some());
        (self.front, self.len, self.passed, self.holes) = (0, self.slots.len(), passed, 0);
        self.slots.resize_with(length, Waiter::nobody);
    }
}

impl<T> Waiter<T> {
    fn nobody() -> Waiter<T> {
        Waiter { place: 0, sequence: 0, index: 0, served: false, value: None }
    }

    #[inline(always)]
    fn ticket(&self) -> Ticket {
        Ticket { index: self.index, sequence: self.sequence }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(sequence: u64) -> Ticket {
        Ticket { index: 0, sequence }
    }

    fn take<T>(list: &mut WaitList<T>, wakes: impl Fn(u64) -> bool) -> Option<(Place, T)> {
        while let Some((slot, ticket)) = list.first() {
            match wakes(ticket.sequence) {
                true => return list.take(slot),
                false => list.pass_over(),
            }
        }
        None
    }

    #[test]
    fn the_first_to_come_is_served_first() {
        let mut list = WaitList::new();
        let places = [1, 2, 3].map(|n| list.push(ticket(n), n));
        assert_eq!(list.serve(|_| true), Some((places[0], &mut 1)));
        assert_eq!(list.tickets().map(|ticket| ticket.sequence).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(list.leave(places[0]), Some(Left { value: 1, served: true }));
        assert_eq!(list.serve(|_| true), Some((places[1], &mut 2)));
        assert_eq!(list.serve(|_| true), Some((places[2], &mut 3)));
        assert_eq!(list.serve(|_| true), None);
    }

    #[test]
    fn one_whose_wait_is_over_is_passed_over_and_keeps_its_value() {
        let mut list = WaitList::new();
        let places = [1, 2].map(|n| list.push(ticket(n), n));
        assert_eq!(list.serve(|ticket| ticket.sequence == 2), Some((places[1], &mut 2)));
        assert_eq!(list.leave(places[0]), Some(Left { value: 1, served: false }));
        assert_eq!(list.leave(places[1]), Some(Left { value: 2, served: true }));
        assert_eq!((list.tickets().count(), list.len, list.holes), (0, 0, 0));
    }

    #[test]
    fn one_who_is_taken_leaves_no_trace() {
        let mut list = WaitList::new();
        let places = [1, 2, 3].map(|n| list.push(ticket(n), n));
        assert_eq!(take(&mut list, |sequence| sequence != 1), Some((places[1], 2)));
        assert_eq!(list.leave(places[1]), None);
        assert_eq!(list.leave(places[0]), Some(Left { value: 1, served: false }));
        assert_eq!(take(&mut list, |_| true), Some((places[2], 3)));
        assert_eq!((take(&mut list, |_| true), list.leave(places[2])), (None, None));
    }

    #[test]
    fn a_value_left_for_a_served_waiter_stays_until_it_leaves() {
        let mut list = WaitList::new();
        let place = list.push(ticket(1), None);
        *list.serve(|_| true).unwrap().1 = Some("for you");
        list.push(ticket(2), None);
        assert_eq!(list.leave(place), Some(Left { value: Some("for you"), served: true }));
    }

    #[test]
    fn nobody_is_served_past_one_who_may_not_be() {
        let mut list = WaitList::new();
        let places = [1, 2, 1].map(|n| list.push(ticket(n), n));
        let small = |n: &u64| *n == 1;
        assert_eq!(list.serve_if(small, |_| true), Some((places[0], &mut 1)));
        assert_eq!(list.serve_if(small, |_| true), None);
        list.leave(places[1]);
        assert_eq!(list.serve_if(small, |_| true), Some((places[2], &mut 1)));
    }

    #[test]
    fn anyone_may_leave_from_anywhere() {
        for gone in 0..3 {
            let mut list = WaitList::new();
            let places = [0, 1, 2].map(|n| list.push(ticket(n), n));
            assert_eq!(list.leave(places[gone]), Some(Left { value: gone as u64, served: false }));
            let rest: Vec<_> = list.tickets().map(|ticket| ticket.sequence).collect();
            let expected: Vec<_> = (0..3).filter(|&n| n != gone as u64).collect();
            assert_eq!(rest, expected);
        }
    }

    #[test]
    fn it_agrees_with_a_plain_list() {
        #[derive(PartialEq, Clone, Copy)]
        enum Was {
            InLine,
            PassedOver,
            Served,
        }
        let mut random = 7u64;
        let mut draw = move |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let (mut list, mut model) = (WaitList::new(), Vec::<(Place, u64, Was)>::new());
        for sequence in 0..if cfg!(miri) { 500 } else { 20_000 } {
            match draw(8) {
                0..=3 => model.push((list.push(ticket(sequence), sequence), sequence, Was::InLine)),
                action @ (4 | 5) => {
                    let wakes = |sequence: u64| !sequence.is_multiple_of(5);
                    let in_line = model.iter_mut().filter(|(.., was)| *was == Was::InLine);
                    let mut expected = None;
                    for (_, sequence, was) in in_line {
                        *was = if wakes(*sequence) { Was::Served } else { Was::PassedOver };
                        if *was == Was::Served {
                            expected = Some(*sequence);
                            break;
                        }
                    }
                    if action == 4 {
                        let served = list.serve(|ticket| wakes(ticket.sequence));
                        let served = served.map(|(_, value)| *value);
                        assert_eq!(served, expected);
                    } else {
                        let taken = take(&mut list, wakes);
                        assert_eq!(taken.map(|(_, value)| value), expected);
                        model.retain(|&(_, sequence, _)| Some(sequence) != expected);
                    }
                }
                _ if model.is_empty() => {}
                _ => {
                    let one = draw(model.len() as u64) as usize;
                    let (place, value, was) = model.remove(one);
                    let served = was == Was::Served;
                    assert_eq!(list.leave(place), Some(Left { value, served }));
                    assert_eq!(list.leave(place), None);
                }
            }
            let in_line = model.iter().filter(|(.., was)| *was == Was::InLine);
            let in_line = in_line.map(|&(_, sequence, _)| sequence);
            assert!(list.tickets().map(|ticket| ticket.sequence).eq(in_line));
            assert_eq!(list.len, model.len() + list.holes);
        }
    }
}
