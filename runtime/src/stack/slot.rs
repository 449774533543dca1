//! Where the stacks of this process lie, for a signal handler to look up: no lock is taken and nothing is allocated.

use std::{
    ptr::{self, NonNull},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
    },
};

use super::{
    mapping::{page_size, resident},
    top_of,
};

/// A slot of some pool of this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    /// Its lowest address, that of its guard page.
    bottom: NonNull<u8>,
    guard: usize,
    stride: usize,
}

impl Slot {
    /// How large the stack in it is.
    pub(crate) fn size(&self) -> usize {
        self.stride - self.guard
    }

    /// One past the highest byte of the stack in it.
    pub(crate) fn top(&self) -> NonNull<u8> {
        top_of(self.bottom, self.stride)
    }

    pub(crate) fn contains(&self, address: usize) -> bool {
        let bottom = self.bottom.addr().get();
        (bottom..bottom + self.stride).contains(&address)
    }

    /// Whether `address` lies in its guard page.
    pub(crate) fn guards(&self, address: usize) -> bool {
        let bottom = self.bottom.addr().get();
        (bottom..bottom + self.guard).contains(&address)
    }

    /// How many bytes of its stack, which was all zeros, were used since; a page more at most. Only of a slot of the
    /// calling thread.
    pub(crate) fn depth(&self) -> usize {
        // SAFETY: a slot is `stride` bytes of a mapping.
        let end = unsafe { self.bottom.add(self.stride) };
        let mut lowest = end;
        resident(self.bottom, end, |page| lowest = page);
        if lowest == end {
            return 0;
        }
        let words = lowest.cast::<u64>();
        let is_used = |&word: &usize| {
            // SAFETY: the word lies in a page that is there. Volatile, for to the compiler there is nothing in it.
            unsafe { words.add(word).read_volatile() != 0 }
        };
        let unused = (0..page_size() / size_of::<u64>()).find(is_used).unwrap_or(0);
        self.top().addr().get() - lowest.addr().get() - unused * size_of::<u64>()
    }
}

/// The slot that `address` lies in. May be called by a signal handler.
pub(crate) fn slot_at(address: usize) -> Option<Slot> {
    let mut block = Some(&PLACES);
    while let Some(Block { places, next }) = block {
        if let Some(slot) = places.iter().find_map(|place| place.slot_at(address)) {
            return Some(slot);
        }
        block = next.get().map(|next| &**next);
    }
    None
}

/// Where each mapping of the process is. It grows and is never freed; a place that was cleared is used again.
static PLACES: Block = Block::new();

struct Block {
    places: [Place; 16],
    next: OnceLock<Box<Block>>,
}

impl Block {
    const fn new() -> Block {
        Block { places: [const { Place::new() }; 16], next: OnceLock::new() }
    }
}

/// Where one mapping is, for whoever may not take a lock.
#[derive(Debug)]
pub(super) struct Place {
    is_taken: AtomicBool,
    /// Null while it is not filled. Written last and cleared first.
    start: AtomicPtr<u8>,
    end: AtomicUsize,
    stride: AtomicUsize,
}

impl Place {
    const fn new() -> Place {
        Place {
            is_taken: AtomicBool::new(false),
            start: AtomicPtr::new(ptr::null_mut()),
            end: AtomicUsize::new(0),
            stride: AtomicUsize::new(0),
        }
    }

    /// One that nobody has.
    pub(super) fn take() -> &'static Place {
        let mut block = &PLACES;
        loop {
            let free = |place: &&Place| !place.is_taken.swap(true, Ordering::Acquire);
            if let Some(place) = block.places.iter().find(free) {
                return place;
            }
            block = block.next.get_or_init(|| Box::new(Block::new()));
        }
    }

    pub(super) fn fill(&self, start: NonNull<u8>, bytes: usize, stride: usize) {
        self.end.store(start.addr().get() + bytes, Ordering::Relaxed);
        self.stride.store(stride, Ordering::Relaxed);
        self.start.store(start.as_ptr(), Ordering::Release);
    }

    pub(super) fn clear(&self) {
        self.start.store(ptr::null_mut(), Ordering::Relaxed);
        self.is_taken.store(false, Ordering::Release);
    }

    fn slot_at(&self, address: usize) -> Option<Slot> {
        let start = NonNull::new(self.start.load(Ordering::Acquire))?;
        let inside = address.checked_sub(start.addr().get())?;
        if address >= self.end.load(Ordering::Relaxed) {
            return None;
        }
        let stride = self.stride.load(Ordering::Relaxed);
        // SAFETY: it lies between the mapping's start and `address`, which lies before its end.
        let bottom = unsafe { start.add(inside - inside.checked_rem(stride)?) };
        Some(Slot { bottom, guard: page_size(), stride })
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use std::hint::black_box;

    use super::*;
    use crate::{
        context,
        stack::{DEFAULT_SIZE, Stack, StackPool},
    };

    /// Uses some `bytes` of the stack it runs on.
    fn fill(bytes: usize) {
        let frame = black_box([bytes; 64]);
        if let Some(left) = bytes.checked_sub(size_of_val(&frame)) {
            fill(left);
        }
        black_box(frame);
    }

    fn slot_of(stack: &Stack) -> Slot {
        slot_at(stack.bottom().addr().get()).unwrap()
    }

    #[test]
    fn a_depth_is_that_of_a_painted_stack_to_a_page() {
        const PAINT: u8 = 0xa5;
        let mut pool = StackPool::new();
        pool.count();
        let class = pool.class(DEFAULT_SIZE).unwrap();
        for bytes in [0, 1, 5_000, 20_000, 40_000] {
            let painted = pool.take(class).unwrap();
            let (bottom, top) =
                (painted.bottom().addr().get() + page_size(), painted.top().addr().get());
            // SAFETY: it is the stack, without its guard, and nobody stands on it.
            unsafe { painted.top().byte_sub(top - bottom).write_bytes(PAINT, top - bottom) };
            context::call_on(&painted, &mut || fill(bytes)).unwrap();
            // SAFETY: every byte of it was written.
            let is_paint = |&at: &usize| unsafe { painted.top().sub(at).read_volatile() == PAINT };
            let unused = (1..=top - bottom).rev().take_while(is_paint).count();
            let reference = top - bottom - unused;
            pool.give(painted);

            // The stack comes back with nothing left of that.
            let counted = pool.take(class).unwrap();
            let untouched = slot_of(&counted).depth();
            context::call_on(&counted, &mut || fill(bytes)).unwrap();
            let depth = slot_of(&counted).depth();
            pool.give(counted);
            assert_eq!(untouched, 0);
            assert!(depth.abs_diff(reference) < page_size(), "{depth}, not {reference}");
        }
    }

    #[test]
    fn addresses_belong_to_slots_while_their_mapping_lives() {
        let mut pool = StackPool::new();
        let small = pool.class(32 << 10).unwrap();
        let stacks: Vec<_> = (0..100).map(|_| pool.take(small).unwrap()).collect();
        let mut addresses = Vec::new();
        for stack in stacks {
            let (bottom, top) = (stack.bottom().addr().get(), stack.top().addr().get());
            let slot = slot_of(&stack);
            assert_eq!(slot.size(), 32 << 10);
            assert!(slot.guards(bottom) && !slot.guards(bottom + page_size()));
            assert!(slot.contains(bottom) && slot.contains(top - 1) && !slot.contains(bottom - 1));
            assert_eq!(slot_at(top - 1), Some(slot));
            addresses.push(bottom);
            pool.give(stack);
        }
        let _ = pool.trim();
        let left = addresses.iter().filter(|&&address| slot_at(address).is_some()).count();
        // Other tests make stacks meanwhile, which may lie where these did.
        assert!(left < addresses.len(), "{left}");
    }
}
