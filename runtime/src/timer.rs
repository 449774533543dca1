//! Deadlines and the tickets they wake.
//!
//! - No deadline fires early: the wheel's ticks only sort, each entry keeps its nanosecond.
//! - What fires together fires in the order of its deadlines, then of its tickets.
//! - Setting and cancelling cost the same however many there are, for most deadlines never fire.
//!
//! A hierarchical wheel: eight levels of 64 slots. A tick is 2^16 ns (66 µs); a slot of level `n` spans 64^n ticks.
//! An entry lies at the level of the highest group of six bits in which its tick differs from the wheel's, and moves
//! down when the wheel reaches its slot:
//!
//! ```text
//!   tick of a deadline   ...  [ level 2 | level 1 | level 0 ]
//!   tick of the wheel    ...  [ level 2 | level 1 | level 0 ]   the first difference from the left decides
//! ```
//!
//! A slot is an array, so what fires or moves down is read in the order in which it lies in memory: of a hundred thousand
//! deadlines, each would otherwise be waited for. Who leaves an array leaves its place to the last.

use slab::Slab;

use crate::wake::{Slot, Ticket};

const TICK_BITS: u32 = 16;
const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
/// Levels enough for every tick of 48 bits, that is for every `u64` of nanoseconds.
const LEVELS: usize = (64 - TICK_BITS as usize).div_ceil(LEVEL_BITS as usize);
/// Entries of a slot that are looked at to tell its first deadline exactly.
const LOOK: usize = 32;

/// Names a deadline until it fires or is cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimerKey(Slot);

/// A deadline that has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fired {
    pub(crate) deadline: u64,
    pub(crate) ticket: Ticket,
}

/// All deadlines of one thread, in nanoseconds of its clock.
#[derive(Debug)]
pub(crate) struct TimerQueue {
    /// Level by level. Empty until the first deadline is set.
    slots: Vec<Vec<Entry>>,
    /// Where the entry of each key lies.
    places: Slab<Place>,
    /// A bit for each slot that has entries.
    occupied: [u64; LEVELS],
    /// The tick the wheel stands at: no entry lies in a slot before it.
    tick: u64,
    /// Kept for its memory, while a slot moves down.
    moving: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    deadline: u64,
    /// Its ticket, in pieces that fill two words together with `key`.
    sequence: u64,
    index: u32,
    key: u32,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    slot: u32,
    at: u32,
}

impl TimerQueue {
    pub(crate) const fn new() -> TimerQueue {
        TimerQueue {
            slots: Vec::new(),
            places: Slab::new(),
            occupied: [0; LEVELS],
            tick: 0,
            moving: Vec::new(),
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Wakes `ticket` once `deadline` has passed.
    pub(crate) fn insert(&mut self, deadline: u64, ticket: Ticket) -> TimerKey {
        if self.slots.is_empty() {
            self.slots.resize_with(LEVELS * SLOTS, Vec::new);
        }
        let Ticket { index, sequence } = ticket;
        let (slot, at) = self.next_place(deadline);
        let key = self.places.insert(Place { slot: slot as u32, at: at as u32 });
        self.slots[slot].push(Entry { deadline, sequence, index, key: key as u32 });
        TimerKey(Slot::new(key))
    }

    /// Gives back the memory that the deadlines there are do not need.
    pub(crate) fn shrink(&mut self) {
        self.places.shrink_to_fit();
        self.slots.iter_mut().for_each(Vec::shrink_to_fit);
        self.moving = Vec::new();
    }

    /// Takes a deadline out that has not fired. One that [`expire`](Self::expire) took out just now, and whose tasklet is
    /// woken by another that fired with it, is gone already.
    pub(crate) fn cancel(&mut self, key: TimerKey) {
        let Some(place) = self.places.try_remove(key.0.index()) else { return };
        self.take_out(place.slot as usize, place.at as usize);
    }

    /// When to look again: never later than the first deadline, and for fewer than `LOOK` in a slot exactly then.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let (level, slot) = self.first_slot()?;
        let entries = &self.slots[level * SLOTS + slot];
        match level > 0 && entries.len() >= LOOK {
            true => Some(self.start_of(level, slot) << TICK_BITS),
            false => entries.iter().map(|entry| entry.deadline).min(),
        }
    }

    /// Takes out everything whose deadline is not after `now`.
    pub(crate) fn expire(&mut self, now: u64, fired: &mut Vec<Fired>) {
        let tick_now = now >> TICK_BITS;
        while let Some((level, slot)) = self.first_slot() {
            let start = self.start_of(level, slot);
            if start > tick_now {
                break;
            }
            self.tick = self.tick.max(start);
            if level > 0 {
                self.move_down(level * SLOTS + slot);
            } else if !self.fire(slot, now, fired) {
                break;
            }
        }
        self.tick = self.tick.max(tick_now);
        fired.sort_unstable_by_key(|fired| (fired.deadline, fired.ticket.sequence));
    }

    /// Fires what is due in a slot of level 0. False when something in it is due later.
    fn fire(&mut self, slot: usize, now: u64, fired: &mut Vec<Fired>) -> bool {
        let TimerQueue { slots, places, occupied, .. } = self;
        let entries = &mut slots[slot];
        entries.retain_mut(|entry| {
            let is_due = entry.deadline <= now;
            if is_due {
                places.remove(entry.key as usize);
                fired.push(Fired { deadline: entry.deadline, ticket: entry.ticket() });
            }
            !is_due
        });
        if entries.is_empty() {
            occupied[0] &= !(1 << slot);
            return true;
        }
        for (at, entry) in entries.iter().enumerate() {
            places[entry.key as usize].at = at as u32;
        }
        false
    }

    fn move_down(&mut self, slot: usize) {
        self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
        let mut moving = std::mem::take(&mut self.moving);
        moving.append(&mut self.slots[slot]);
        for entry in moving.drain(..) {
            let (slot, at) = self.next_place(entry.deadline);
            self.places[entry.key as usize] = Place { slot: slot as u32, at: at as u32 };
            self.slots[slot].push(entry);
        }
        self.moving = moving;
    }

    /// The occupied slot that the wheel reaches first.
    fn first_slot(&self) -> Option<(usize, usize)> {
        (0..LEVELS)
            .find(|&level| self.occupied[level] != 0)
            // Every slot of a level lies after the wheel's place in it, and every level before the next.
            .map(|level| (level, self.occupied[level].trailing_zeros() as usize))
    }

    /// The first tick of a slot.
    fn start_of(&self, level: usize, slot: usize) -> u64 {
        let shift = level as u32 * LEVEL_BITS;
        let above = self.tick >> shift >> LEVEL_BITS << LEVEL_BITS;
        (above | slot as u64) << shift
    }

    /// Where an entry with this deadline goes, which will be occupied.
    #[inline]
    fn next_place(&mut self, deadline: u64) -> (usize, usize) {
        // A deadline in the past lies where the wheel stands.
        let tick = (deadline >> TICK_BITS).max(self.tick);
        let difference = (tick ^ self.tick) | (SLOTS as u64 - 1);
        let level = ((63 - difference.leading_zeros()) / LEVEL_BITS) as usize;
        let slot = (tick >> (level as u32 * LEVEL_BITS)) as usize & (SLOTS - 1);
        self.occupied[level] |= 1 << slot;
        let place = level * SLOTS + slot;
        (place, self.slots[place].len())
    }

    #[inline]
    fn take_out(&mut self, slot: usize, at: usize) {
        let entries = &mut self.slots[slot];
        entries.swap_remove(at);
        match entries.get(at) {
            Some(moved) => self.places[moved.key as usize].at = at as u32,
            None if entries.is_empty() => self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS)),
            None => {}
        }
    }
}

impl Entry {
    #[inline]
    fn ticket(&self) -> Ticket {
        Ticket { index: self.index, sequence: self.sequence }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn ticket(sequence: u64) -> Ticket {
        Ticket { index: 0, sequence }
    }

    fn expire(timers: &mut TimerQueue, now: u64) -> Vec<u64> {
        let mut fired = Vec::new();
        timers.expire(now, &mut fired);
        fired.iter().map(|fired| fired.ticket.sequence).collect()
    }

    #[test]
    fn what_has_fired_may_still_be_cancelled() {
        let (mut timers, mut fired) = (TimerQueue::new(), Vec::new());
        let [first, second] = [1, 2].map(|at| timers.insert(at << TICK_BITS, ticket(at)));
        timers.insert(9 << TICK_BITS, ticket(9));
        timers.expire(2 << TICK_BITS, &mut fired);
        timers.cancel(second);
        timers.cancel(first);
        assert_eq!((fired.len(), timers.next_deadline()), (2, Some(9 << TICK_BITS)));
    }

    #[test]
    fn nothing_fires_early_and_all_fire_in_order() {
        let mut timers = TimerQueue::new();
        timers.insert(5_000_000, ticket(1));
        timers.insert(4_999_999, ticket(2));
        timers.insert(5_000_000_000_000, ticket(3));
        assert_eq!(timers.next_deadline(), Some(4_999_999));
        assert_eq!(expire(&mut timers, 4_999_998), []);
        assert_eq!(expire(&mut timers, 5_000_000), [2, 1]);
        assert_eq!(expire(&mut timers, 4_999_999_999_999), []);
        assert_eq!(timers.next_deadline(), Some(5_000_000_000_000));
        assert_eq!(expire(&mut timers, 5_000_000_000_000), [3]);
        assert!(timers.is_empty() && timers.next_deadline().is_none());
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_once() {
        let mut timers = TimerQueue::new();
        expire(&mut timers, 1 << 40);
        timers.insert(17, ticket(1));
        assert!(timers.next_deadline().is_some_and(|next| next <= 1 << 40));
        assert_eq!(expire(&mut timers, 1 << 40), [1]);
    }

    #[test]
    fn the_last_representable_deadline_is_kept() {
        let mut timers = TimerQueue::new();
        timers.insert(u64::MAX, ticket(1));
        assert_eq!(timers.next_deadline(), Some(u64::MAX));
        assert_eq!(expire(&mut timers, u64::MAX - 1), []);
        assert_eq!(expire(&mut timers, u64::MAX), [1]);
    }

    #[test]
    fn it_agrees_with_a_sorted_map() {
        let mut random = 1u64;
        let mut draw = move |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let (mut timers, mut model, mut keys) =
            (TimerQueue::new(), BTreeMap::new(), BTreeMap::new());
        let mut now = 0;
        for sequence in 0..if cfg!(miri) { 400 } else { 50_000 } {
            let span = 1 << draw(40);
            let deadline = now + draw(span + 1);
            model.insert((deadline, sequence), ());
            keys.insert(sequence, (deadline, timers.insert(deadline, ticket(sequence))));
            if draw(3) == 0 {
                let gone = *keys.keys().nth(draw(keys.len() as u64) as usize).expect("in range");
                let (deadline, key) = keys.remove(&gone).expect("just listed");
                timers.cancel(key);
                model.remove(&(deadline, gone));
            }
            if draw(4) == 0 {
                let first = model.keys().next().map(|&(deadline, _)| deadline);
                let next = timers.next_deadline();
                assert_eq!(next.is_some(), first.is_some());
                assert!(next <= first, "it would oversleep");
                let span = 1 << draw(34);
                now += draw(span);
                let due: Vec<u64> =
                    model.range(..=(now, u64::MAX)).map(|(&(_, s), ())| s).collect();
                model.retain(|&(deadline, _), ()| deadline > now);
                keys.retain(|sequence, _| !due.contains(sequence));
                assert_eq!(expire(&mut timers, now), due);
            }
        }
    }

    #[test]
    fn waiting_for_what_next_deadline_says_always_comes_to_an_end() {
        let mut timers = TimerQueue::new();
        for sequence in 0..200 {
            timers.insert(3_000_000_000 + sequence, ticket(sequence));
        }
        let (mut now, mut rounds, mut fired) = (0, 0, 0);
        while let Some(next) = timers.next_deadline() {
            assert!(next > now || rounds == 0, "no progress at {now}");
            now = next;
            fired += expire(&mut timers, now).len();
            rounds += 1;
        }
        assert_eq!(fired, 200);
        assert!(rounds <= 200 + LEVELS, "{rounds} rounds");
    }
}
