//! Who runs next: the tasklets of the run ring that are not running now, in the order of their turns.
//!
//! - The ring of Stackless seen from the running tasklet: the front is its successor, the back its predecessor. "The
//!   tail of the run queue" is the back.
//! - An entry is found again by its [`Position`], which stays true until the entry is popped, removed or moved.
//! - Removing leaves a hole, so it costs the same anywhere. Holes never outnumber entries by more than
//!   [`RunQueue::SLACK`] for long, and never lie at the front.
//!
//! A ring buffer of table indices: four bytes a tasklet, and looking ahead is an index.

/// Where an entry is. Positions grow from front to back and never name two entries at one time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Position(u64);

/// The run queue of one thread.
#[derive(Debug)]
pub(crate) struct RunQueue {
    /// Table indices, `HOLE` where one was removed. An entry lies at its position modulo the length, a power of two.
    slots: Vec<u32>,
    /// The position of the front entry, and the one behind the back entry.
    front: u64,
    back: u64,
    /// How many holes lie between them.
    holes: usize,
}

const HOLE: u32 = u32::MAX;

impl RunQueue {
    /// Holes that are tolerated before [`needs_compacting`](Self::needs_compacting).
    const SLACK: usize = 64;
    /// Far enough from zero for a lifetime of entries at the front.
    const MIDDLE: u64 = 1 << 63;

    pub(crate) const fn new() -> RunQueue {
        RunQueue { slots: Vec::new(), front: Self::MIDDLE, back: Self::MIDDLE, holes: 0 }
    }

    /// Entries waiting for their turn.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.span() - self.holes
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.front == self.back
    }

    /// Puts `index` at the tail: its turn comes after everyone else's.
    #[inline]
    pub(crate) fn push_back(&mut self, index: u32) -> Position {
        self.make_room();
        let position = self.back;
        self.back += 1;
        *self.slot(position) = index;
        Position(position)
    }

    /// Puts `index` at the front: its turn is next.
    #[inline]
    pub(crate) fn push_front(&mut self, index: u32) -> Position {
        self.make_room();
        self.front -= 1;
        *self.slot(self.front) = index;
        Position(self.front)
    }

    /// Takes the next one.
    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        let index = *self.slot(self.front);
        self.drop_front();
        Some(index)
    }

    /// The next one, if it can be [exchanged](Self::exchange).
    #[inline(always)]
    pub(crate) fn whole_front(&self) -> Option<u32> {
        if self.holes > 0 { None } else { self.front() }
    }

    /// The next one.
    #[inline(always)]
    pub(crate) fn front(&self) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        self.slots.get(self.front as usize & self.slots.len().wrapping_sub(1)).copied()
    }

    /// Takes the next one, which [`front`](Self::front) gave.
    #[inline(always)]
    pub(crate) fn drop_front(&mut self) {
        self.front += 1;
        if self.holes > 0 {
            self.trim();
        }
    }

    /// Takes the next one, which [`whole_front`](Self::whole_front) gave, and puts `index` at the tail: as many are in it as before.
    #[inline(always)]
    pub(crate) fn exchange(&mut self, index: u32) -> Position {
        self.front += 1;
        let position = self.back;
        self.back += 1;
        let place = position as usize & self.slots.len().wrapping_sub(1);
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = index;
        }
        Position(position)
    }

    /// The entry `ahead` places behind the front, if there is one there.
    #[inline]
    pub(crate) fn peek(&self, ahead: usize) -> Option<u32> {
        let index = self.slots[(self.front as usize).wrapping_add(ahead) & (self.slots.len() - 1)];
        (ahead < self.span() && index != HOLE).then_some(index)
    }

    /// Takes out the entry at `position`.
    pub(crate) fn remove(&mut self, position: Position) {
        debug_assert!((self.front..self.back).contains(&position.0), "the entry is in the queue");
        *self.slot(position.0) = HOLE;
        self.holes += 1;
        self.trim();
    }

    /// Turns the ring until the entry at `position` is at the front; `moved` is told where each entry that was passed
    /// over is now: behind all others.
    pub(crate) fn rotate_to(&mut self, position: Position, mut moved: impl FnMut(u32, Position)) {
        while self.front < position.0 {
            let index = self.pop_front().expect("the entry is in the queue");
            moved(index, self.push_back(index));
        }
    }

    /// Whether holes have come to outnumber the entries.
    pub(crate) fn needs_compacting(&self) -> bool {
        self.holes > self.len() + Self::SLACK
    }

    /// Closes the holes; `moved` is told where each entry is now.
    pub(crate) fn compact(&mut self, mut moved: impl FnMut(u32, Position)) {
        let mut to = self.front;
        for from in self.front..self.back {
            let index = *self.slot(from);
            if index != HOLE {
                *self.slot(to) = index;
                moved(index, Position(to));
                to += 1;
            }
        }
        (self.back, self.holes) = (to, 0);
    }

    /// Entries and holes.
    #[inline]
    fn span(&self) -> usize {
        (self.back - self.front) as usize
    }

    #[inline]
    fn slot(&mut self, position: u64) -> &mut u32 {
        let place = position as usize & (self.slots.len() - 1);
        &mut self.slots[place]
    }

    #[inline]
    fn make_room(&mut self) {
        if self.span() == self.slots.len() {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        self.resize((self.slots.len() * 2).max(64));
    }

    /// Gives back the memory that the entries do not need.
    pub(crate) fn shrink(&mut self) {
        let needed = self.span().next_power_of_two().max(64);
        if needed < self.slots.len() {
            self.resize(needed);
        }
    }

    /// Moves the entries to `length` slots, a power of two that has room for them.
    fn resize(&mut self, length: usize) {
        let mut slots = vec![HOLE; length];
        for position in self.front..self.back {
            let place = position as usize & (slots.len() - 1);
            slots[place] = *self.slot(position);
        }
        self.slots = slots;
    }

    /// Drops the holes at both ends.
    #[cold]
    fn trim(&mut self) {
        while !self.is_empty() && *self.slot(self.front) == HOLE {
            self.front += 1;
            self.holes -= 1;
        }
        while !self.is_empty() && *self.slot(self.back - 1) == HOLE {
            self.back -= 1;
            self.holes -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut RunQueue) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop_front()).collect()
    }

    #[test]
    fn the_tail_runs_last_and_the_front_next() {
        let mut queue = RunQueue::new();
        queue.push_back(1);
        queue.push_back(2);
        queue.push_front(3);
        assert_eq!((queue.len(), queue.peek(1)), (3, Some(1)));
        assert_eq!(drain(&mut queue), [3, 1, 2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn an_exchange_is_a_turn_of_the_ring() {
        let mut queue = RunQueue::new();
        assert_eq!(queue.whole_front(), None);
        for index in 0..64 {
            queue.push_back(index);
        }
        for running in [100, 0, 1] {
            let next = queue.whole_front().unwrap();
            let position = queue.exchange(running);
            assert_eq!((queue.len(), next), (64, (running + 1) % 101));
            assert_eq!(*queue.slot(position.0), running);
        }
        let gone = queue.push_front(7);
        queue.push_front(8);
        queue.remove(gone);
        assert_eq!((queue.front(), queue.whole_front()), (Some(8), None), "there is a hole");
        queue.drop_front();
        assert_eq!((queue.front(), queue.whole_front()), (Some(3), Some(3)), "it is gone");
    }

    #[test]
    fn positions_stay_true_while_others_come_and_go() {
        let mut queue = RunQueue::new();
        let first = queue.push_back(1);
        let middle = queue.push_back(2);
        queue.push_back(3);
        queue.push_front(4);
        queue.remove(first);
        queue.push_back(5);
        queue.remove(middle);
        assert_eq!(queue.len(), 3);
        assert_eq!(drain(&mut queue), [4, 3, 5]);
    }

    #[test]
    fn turning_the_ring_puts_those_passed_over_behind_the_others() {
        let mut queue = RunQueue::new();
        let positions = [1, 2, 3, 4, 5].map(|index| queue.push_back(index));
        queue.remove(positions[2]);
        let mut moved = Vec::new();
        queue.rotate_to(positions[3], |index, position| moved.push((index, position)));
        queue.remove(moved[0].1);
        assert_eq!(moved.iter().map(|&(index, _)| index).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(drain(&mut queue), [4, 5, 2]);
    }

    #[test]
    fn holes_do_not_pile_up() {
        let mut queue = RunQueue::new();
        let mut last = queue.push_back(0);
        let mut positions = [None; 1000];
        for index in 1..1000 {
            let position = queue.push_back(index);
            queue.remove(last);
            last = position;
            if queue.needs_compacting() {
                queue.compact(|index, position| positions[index as usize] = Some(position));
                last = positions[index as usize].expect("the one entry was reported");
            }
        }
        assert_eq!(queue.len(), 1);
        assert!(queue.holes <= 1 + RunQueue::SLACK);
        assert_eq!(drain(&mut queue), [999]);
    }

    #[test]
    fn it_agrees_with_a_plain_list() {
        let (mut queue, mut model, mut places) = (RunQueue::new(), Vec::new(), [None; 40]);
        let mut random = 7u32;
        for _ in 0..if cfg!(miri) { 500 } else { 20_000 } {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let index = (random >> 8) % 40;
            match ((random >> 20) % 4, places[index as usize]) {
                (0, None) => {
                    places[index as usize] = Some(queue.push_back(index));
                    model.push(index);
                }
                (1, None) => {
                    places[index as usize] = Some(queue.push_front(index));
                    model.insert(0, index);
                }
                (2, Some(position)) => {
                    queue.remove(position);
                    places[index as usize] = None;
                    model.retain(|&other| other != index);
                }
                (3, _) => {
                    let next = queue.pop_front();
                    assert_eq!(next, (!model.is_empty()).then(|| model.remove(0)));
                    next.inspect(|&next| places[next as usize] = None);
                }
                _ => {}
            }
            if queue.needs_compacting() {
                queue.compact(|index, position| places[index as usize] = Some(position));
            }
            assert_eq!(queue.len(), model.len());
        }
    }
}
