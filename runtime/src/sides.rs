//! The two sides of a thread queue: which ends live, and who waits at each side.
//!
//! - It knows nothing of what is queued. Whoever uses it says how much is there for a side to take, and as many of those
//!   in line are woken as can take something, first come first served.
//! - One that was woken keeps a record until it leaves, so that its wake-up goes to the next in line if it does not
//!   come to use it: it was killed, its time was up, or its thread has ended.
//! - An end that a tasklet waits with when its thread ends is borrowed for ever by that leaked tasklet. An end is used on
//!   one thread at a time, so nobody else can use it: it counts as dropped.
//! - The lock may be taken while the queue's own is held, not the other way round.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{mailbox::Heir, park::Waker};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Senders,
    Receivers,
}

impl Side {
    pub(crate) fn other(self) -> Side {
        match self {
            Side::Senders => Side::Receivers,
            Side::Receivers => Side::Senders,
        }
    }
}

/// Both sides of one queue.
#[derive(Debug)]
pub(crate) struct Sides {
    members: Mutex<Members>,
    /// How many ends of each side live and how many wait in each line: copies to be read without the lock.
    living: [AtomicUsize; 2],
    in_line: [AtomicUsize; 2],
}

#[derive(Debug)]
struct Members {
    /// The number of the next end or waiter.
    next_number: u64,
    sides: [Line; 2],
}

/// One side.
#[derive(Default, Debug)]
struct Line {
    /// The numbers of the ends that live.
    ends: BTreeSet<u64>,
    /// Who waits, by arrival.
    waiting: BTreeMap<u64, Waiter>,
    /// Who was woken and has not left.
    woken: BTreeMap<u64, Waiter>,
}

#[derive(Debug)]
struct Waiter {
    waker: Waker,
    /// The end it waits with.
    end: u64,
}

impl Sides {
    /// Without any ends.
    pub(crate) fn new() -> Sides {
        Sides {
            members: Mutex::new(Members { next_number: 0, sides: Default::default() }),
            living: Default::default(),
            in_line: Default::default(),
        }
    }

    // Ends.

    /// Adds an end to `side` and says its number.
    pub(crate) fn add_end(&self, side: Side) -> u64 {
        let mut members = self.members();
        let number = members.number();
        members.sides[side as usize].ends.insert(number);
        self.publish(&members);
        number
    }

    /// The end has been dropped. With the last one of its side the other side's waits end.
    pub(crate) fn remove_end(&self, side: Side, end: u64) {
        let mut members = self.members();
        members.sides[side as usize].ends.remove(&end);
        self.publish(&members);
        drop(members);
        self.dismiss_other_side_of(side);
    }

    /// Whether `side` has no ends left.
    #[inline]
    pub(crate) fn is_gone(&self, side: Side) -> bool {
        self.living[side as usize].load(Ordering::Acquire) == 0
    }

    /// Ends the waits of the other side if this one has no ends left.
    fn dismiss_other_side_of(&self, side: Side) {
        if self.is_gone(side) {
            self.wake(side.other(), usize::MAX);
        }
    }

    // Waiters.

    /// The number of a new waiter.
    pub(crate) fn arrive(&self) -> u64 {
        self.members().number()
    }

    /// Puts a waiter into the line of `side`, in order of its number. False when the other side has no ends left.
    ///
    /// The queue is locked, so that what the waiter waits for cannot come before it is in line.
    pub(crate) fn join(&self, side: Side, number: u64, end: u64, waker: Waker) -> bool {
        let mut members = self.members();
        if members.sides[side.other() as usize].ends.is_empty() {
            return false;
        }
        let line = &mut members.sides[side as usize];
        line.woken.remove(&number);
        line.waiting.insert(number, Waiter { waker, end });
        self.publish(&members);
        true
    }

    /// Forgets a waiter.
    pub(crate) fn leave(&self, side: Side, number: u64) {
        let mut members = self.members();
        members.sides[side as usize].remove(number);
        self.publish(&members);
    }

    /// Wakes those of `side` that are first in line, until as many are awake as there is something to take.
    #[inline]
    pub(crate) fn wake(&self, side: Side, available: usize) {
        if self.in_line[side as usize].load(Ordering::Relaxed) > 0 {
            self.wake_some(side, |line| line.woken.len() < available);
        }
    }

    #[cold]
    fn wake_some(&self, side: Side, more: impl Fn(&Line) -> bool) {
        while let Some((number, waker)) = self.call_next(side, &more) {
            if !waker.reach() {
                self.thread_ended(number);
            }
        }
    }

    /// Takes the first of `side` out of the line if one `more` may be woken.
    fn call_next(&self, side: Side, more: &impl Fn(&Line) -> bool) -> Option<(u64, Waker)> {
        let mut members = self.members();
        let line = &mut members.sides[side as usize];
        if !more(line) {
            return None;
        }
        let (number, waiter) = line.waiting.pop_first()?;
        let waker = waiter.waker.clone();
        line.woken.insert(number, waiter);
        self.publish(&members);
        Some((number, waker))
    }

    /// Brings the copies up to date.
    fn publish(&self, members: &Members) {
        for (side, line) in members.sides.iter().enumerate() {
            self.living[side].store(line.ends.len(), Ordering::Release);
            self.in_line[side].store(line.waiting.len(), Ordering::Relaxed);
        }
    }

    /// No code that can panic runs under this lock, so a poisoned one is still sound.
    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heir for Sides {
    fn thread_ended(&self, number: u64) {
        for side in [Side::Senders, Side::Receivers] {
            let mut members = self.members();
            let line = &mut members.sides[side as usize];
            let Some((waiter, was_woken)) = line.remove(number) else { continue };
            line.ends.remove(&waiter.end);
            self.publish(&members);
            drop(members);
            self.dismiss_other_side_of(side);
            if was_woken {
                // What it was woken for may still be there. If it is not, the next one goes back to its place.
                let awake = self.members().sides[side as usize].woken.len();
                self.wake(side, awake + 1);
            }
        }
    }
}

impl Members {
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}

impl Line {
    /// Forgets a waiter. Whether it had been woken.
    fn remove(&mut self, number: u64) -> Option<(Waiter, bool)> {
        let waiting = self.waiting.remove(&number).map(|waiter| (waiter, false));
        waiting.or_else(|| Some((self.woken.remove(&number)?, true)))
    }
}
