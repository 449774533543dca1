//! What free stacks keep of their memory, for the next tasklet to find it warm, and what they give back.
//!
//! Together the free stacks of a thread keep 128 MiB at most. How deep a stack was used is not known and would cost a call
//! of the kernel to find out, so it is not asked. The kernel counts the page faults of a thread, and without a fault no
//! page comes to a stack: as long as there were few, nothing has to be given back, however many stacks are free.
//!
//! - After the free stacks were *reduced* those that came back last are whole, those before them have their tops, the rest
//!   nothing: 8 MiB each for the first two.
//! - Since then they can have got no more than the faults brought and the stacks that were in use at the time held. When
//!   that comes near 112 MiB they are reduced again. Until then it is looked at after so many bytes of stacks came back as
//!   are left of the 112 MiB, so a warm stack goes in and out for nothing.
//!
//! Page tables and guards go with the mapping only, in [`StackPool::trim`]: half a KiB for a stack of 256 KiB.

use std::{
    cmp::Reverse,
    ops::Range,
    ptr::{self, NonNull},
};

use super::{Class, Fresh, SizeClass, StackPool, mapping, mapping::page_size};

/// How many bytes of whole stacks there may be after the free ones were reduced, and how many the tops of others may take.
const WHOLE: usize = 8 << 20;
const TOPS: usize = 8 << 20;
/// How many bytes may come to the free ones until they are reduced again.
pub(super) const SINCE: usize = 112 << 20;
/// When this little is left of it, looking any more often would cost more than it saves.
const LEAST: usize = 8 << 20;
/// What a tasklet that only waits has touched, with some to spare.
const TOP_PAGES: usize = 2;

/// A stack that nobody uses.
#[derive(Debug)]
pub(super) struct Free {
    /// The lowest address of the slot.
    pub(super) bottom: NonNull<u8>,
    keeps: Keeps,
}

/// What may be left of a free stack's memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Keeps {
    Nothing,
    Top,
    All,
}

impl Free {
    #[inline]
    pub(super) fn just_used(bottom: NonNull<u8>) -> Free {
        Free { bottom, keeps: Keeps::All }
    }
}

/// What can have come to the free stacks since they were last reduced.
#[derive(Debug)]
pub(super) struct Since {
    /// The thread's page faults by then.
    faults: u64,
    /// Bytes of the stacks that were in use at the time: how much of them was touched is not known.
    in_use: usize,
    /// Bytes of stacks that came back since, up to the last look, and from then to the next.
    came_back: usize,
    until_look: usize,
}

impl Since {
    pub(super) const fn start() -> Since {
        Since { faults: 0, in_use: 0, came_back: 0, until_look: SINCE }
    }

    /// How many bytes it can be at most, when the thread has had `faults` by now. `None` when that is not known.
    fn bytes(&self, faults: Option<u64>) -> Option<usize> {
        // A process that was forked counts anew.
        let faults = usize::try_from(faults?.checked_sub(self.faults)?).ok()?;
        Some(self.came_back.min(self.in_use).saturating_add(faults * page_size()))
    }
}

impl StackPool {
    /// Looks whether the free stacks may keep what they have.
    #[cold]
    pub(super) fn look(&mut self, latest: SizeClass) {
        if self.is_counted {
            // What comes back goes out as zeros.
            self.classes[latest.0 as usize].keep(&mut 0, &mut 0);
            return self.look_after(0);
        }
        let came_back = self.since.until_look.saturating_add_signed(-self.until_look);
        self.since.came_back = self.since.came_back.saturating_add(came_back);
        let free: usize = self.classes.iter().map(|class| class.free.len() * class.size).sum();
        if free <= WHOLE {
            return self.look_after(LEAST);
        }
        let since = self.since.bytes(mapping::faults());
        match since.and_then(|since| SINCE.checked_sub(since)) {
            Some(left) if left >= LEAST => self.look_after(left),
            _ => self.reduce(latest),
        }
    }

    /// Lets it be looked at how deep the stacks are used, none of which was by now. Only Linux gives zeros for what was
    /// given back.
    pub(crate) fn count(&mut self) {
        if cfg!(target_os = "linux") {
            self.is_counted = true;
            self.look_after(0);
        }
    }

    fn look_after(&mut self, bytes: usize) {
        self.since.until_look = bytes;
        self.until_look = bytes as isize;
    }

    /// Gives back what the free stacks keep beyond the bound, starting with those that came back first.
    fn reduce(&mut self, latest: SizeClass) {
        let (mut whole, mut tops) = (WHOLE, TOPS);
        // The size that came back just now is the likeliest to be asked for next.
        let latest = latest.0 as usize;
        self.classes[latest].keep(&mut whole, &mut tops);
        for (place, class) in self.classes.iter_mut().enumerate() {
            if place != latest {
                class.keep(&mut whole, &mut tops);
            }
        }
        self.is_reduced();
    }

    fn is_reduced(&mut self) {
        let in_use = self.classes.iter().map(|class| class.in_use() * class.size).sum();
        let faults = mapping::faults().unwrap_or(0);
        self.since = Since { faults, in_use, came_back: 0, until_look: 0 };
        self.look_after(if self.is_counted { 0 } else { SINCE });
    }

    /// Gives back all memory of free stacks, with the page tables where a whole mapping is free. Gives the bytes.
    pub(crate) fn trim(&mut self) -> usize {
        let before = self.kept();
        let StackPool { classes, mappings, .. } = self;
        for class in &mut *classes {
            // Those that lie together are used together.
            class.free.sort_unstable_by_key(|free| Reverse(free.bottom));
        }
        // Dropping a mapping unmaps it.
        mappings.retain(|(class, mapping)| {
            !classes[class.0 as usize].forget_if_free(mapping.start(), mapping.slots())
        });
        for class in classes {
            class.give_back(0..class.free.len(), Keeps::Nothing);
            class.free.shrink_to_fit();
        }
        self.is_reduced();
        before
    }

    /// How many bytes of memory the free stacks keep.
    fn kept(&self) -> usize {
        let mut pages = 0;
        for class in &self.classes {
            for free in &class.free {
                // SAFETY: a slot is `stride` bytes, of which it gave the lower part.
                let bottom = unsafe { free.bottom.add(class.given_by(free.keeps)) };
                // SAFETY: as above.
                let top = unsafe { free.bottom.add(class.stride()) };
                mapping::resident(bottom, top, |_| pages += 1);
            }
        }
        pages * page_size()
    }
}

impl Class {
    /// How many stacks are handed out.
    fn in_use(&self) -> usize {
        self.slots - self.fresh.left - self.free.len()
    }

    /// Leaves the last stacks whole and those before them their tops, as far as there are bytes left for them.
    fn keep(&mut self, whole: &mut usize, tops: &mut usize) {
        let top = self.stride() - self.given_by(Keeps::Top);
        let count = (*whole / self.size).min(self.free.len());
        *whole -= count * self.size;
        let from = self.free.len() - count;
        let count = (*tops / top).min(from);
        *tops -= count * top;
        // The lowest first: what gives back everything is not asked for less before.
        self.reduce_to(from - count, Keeps::Nothing);
        self.reduce_to(from, Keeps::Top);
    }

    /// How many bytes at the bottom of its slot a stack has given back that keeps `keeps`.
    fn given_by(&self, keeps: Keeps) -> usize {
        match keeps {
            Keeps::Nothing => self.stride(),
            Keeps::Top => self.stride() - (TOP_PAGES * page_size()).min(self.size),
            Keeps::All => 0,
        }
    }

    /// Lets no stack below `end` keep more than `keeps`.
    fn reduce_to(&mut self, end: usize, keeps: Keeps) {
        // The further down, the less one keeps.
        let start = self.free[..end].partition_point(|free| free.keeps <= keeps);
        self.give_back(start..end, keeps);
    }

    /// Lets none of these stacks keep more than `keeps`, in whatever order they are.
    fn give_back(&mut self, stacks: Range<usize>, keeps: Keeps) {
        let bytes = self.given_by(keeps);
        let mut releases = mapping::Releases::new();
        for free in self.free[stacks].iter_mut().filter(|free| free.keeps > keeps) {
            free.keeps = keeps;
            // Neighbours that give back everything do so in one call.
            // SAFETY: the range lies in a free slot, and nobody stands on what the pool has.
            unsafe { releases.add(free.bottom, bytes) };
        }
        // SAFETY: as above, for nothing was handed out meanwhile.
        unsafe { releases.flush() };
    }

    /// Takes the slots of the mapping at `start` off the lists if all of them are free. The free ones are sorted.
    fn forget_if_free(&mut self, start: NonNull<u8>, slots: usize) -> bool {
        let end = start.addr().get() + slots * self.stride();
        let is_inside = |address: usize| (start.addr().get()..end).contains(&address);
        let first = self.free.partition_point(|free| free.bottom.addr().get() >= end);
        let last = self.free.partition_point(|free| free.bottom >= start);
        let fresh = if is_inside(self.fresh.next.addr()) { self.fresh.left } else { 0 };
        if last - first + fresh < slots {
            return false;
        }
        self.free.drain(first..last);
        self.slots -= slots;
        if fresh > 0 {
            self.fresh = Fresh { next: ptr::null_mut(), left: 0 };
        }
        true
    }
}
