//! What free stacks keep of their memory, for the next tasklet to find it warm, and what they give back.
//!
//! Together the free stacks of a thread keep about 128 MiB at most. How deep a stack was used is not known and would cost a
//! call of the kernel to find out, so few are asked. The kernel counts the page faults of a thread, and without a fault no
//! page comes to a stack: as long as there were few, nothing has to be given back, however many stacks are free.
//!
//! - After the free stacks were *reduced* those that came back last are whole, those before them have their tops, the rest
//!   nothing: 8 MiB each for the first two.
//! - Since then they can have got no more than the faults brought and the stacks that were in use at the time held. When
//!   that comes near 112 MiB, some of those that came back are looked at. What these hold, all are taken to hold, and when
//!   that comes near 112 MiB they are reduced again. Until then it is looked at after so many bytes of stacks came back as
//!   can hold what is left of the 112 MiB, so a warm stack goes in and out for nothing.
//! - What is given back goes in the order of addresses: with neighbours it costs the kernel a fraction of what it costs alone.
//!
//! Page tables and guards go with the mapping only, in [`StackPool::trim`]: half a KiB for a stack of 256 KiB.

use std::{
    cmp::Reverse,
    mem,
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
/// How many stacks are looked at for what those hold that came back.
const SAMPLE: usize = 8;
/// From how many on stacks are sorted that are to give back all they have, and how many that have nothing may lie between
/// two that are told to the kernel as one.
const MANY: usize = 64;
const BETWEEN: usize = 8;
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
    /// How many bytes of memory those held that came back, as far as some of them were looked at.
    held: usize,
    /// Chooses whom to look at, so that no pattern of the program's escapes.
    dice: u32,
}

impl Since {
    pub(super) const fn start() -> Since {
        Since { faults: 0, in_use: 0, held: 0, dice: 0x9e37_79b9 }
    }

    /// How many bytes it can be at most, when `came_back` bytes of stacks did and the thread has had `faults` by now. `None`
    /// when that is not known.
    fn bytes(&self, came_back: usize, faults: Option<u64>) -> Option<usize> {
        // A process that was forked counts anew.
        let faults = usize::try_from(faults?.checked_sub(self.faults)?).ok()?;
        Some(came_back.min(self.in_use).saturating_add(faults * page_size()))
    }

    /// Any number below `end`.
    fn throw(&mut self, end: usize) -> usize {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 17;
        self.dice ^= self.dice << 5;
        self.dice as usize % end
    }
}

/// How many bytes `high` lies above `low`.
fn gap(low: NonNull<u8>, high: NonNull<u8>) -> usize {
    high.addr().get() - low.addr().get()
}

/// How much more may come to free stacks that got `bytes`, if it is worth while to wait for it.
fn left_of(bytes: usize) -> Option<usize> {
    SINCE.checked_sub(bytes).filter(|left| *left >= LEAST)
}

impl StackPool {
    /// Looks whether the free stacks may keep what they have.
    #[cold]
    pub(super) fn look(&mut self, latest: SizeClass) {
        if self.is_counted {
            // What comes back goes out as zeros.
            self.classes[latest.0 as usize].keep(&mut 0, &mut 0);
            return self.allow(|_| 0);
        }
        self.classes.iter_mut().for_each(Class::take_stock);
        let free: usize = self.classes.iter().map(|class| class.free.len() * class.size).sum();
        let each = |bytes: usize, classes: &[Class]| bytes / classes.len();
        if free <= WHOLE {
            let least = each(LEAST, &self.classes);
            return self.allow(|_| least);
        }
        let came_back = self.classes.iter().map(|class| class.came_back).sum();
        let since = self.since.bytes(came_back, mapping::faults());
        if let Some(left) = since.and_then(left_of) {
            let left = each(left, &self.classes);
            return self.allow(|_| left);
        }
        let since = &mut self.since;
        let shares: Vec<f64> =
            self.classes.iter_mut().map(|class| class.share_held(since)).collect();
        match left_of(self.since.held) {
            Some(left) => {
                let left = each(left, &self.classes) as f64;
                let most = each(SINCE, &self.classes);
                self.allow(|place| most.min((left / shares[place]) as usize));
            }
            None => self.reduce(latest),
        }
    }

    /// Lets it be looked at how deep the stacks are used, none of which was by now. Only Linux gives zeros for what was
    /// given back.
    pub(crate) fn count(&mut self) {
        if cfg!(target_os = "linux") {
            self.is_counted = true;
            self.allow(|_| 0);
        }
    }

    /// Lets so many bytes of the stacks of each class come back before the next look.
    fn allow(&mut self, bytes: impl Fn(usize) -> usize) {
        for (place, class) in self.classes.iter_mut().enumerate() {
            class.take_stock();
            class.allowed = isize::try_from(bytes(place)).unwrap_or(isize::MAX);
            class.until_look = class.allowed;
        }
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
        self.since = Since { faults, in_use, held: 0, dice: self.since.dice };
        self.begin_anew();
    }

    /// Nothing has come to the free stacks yet.
    pub(super) fn begin_anew(&mut self) {
        let each = if self.is_counted { 0 } else { SINCE / self.classes.len().max(1) };
        self.allow(|_| each);
        for class in &mut self.classes {
            (class.came_back, class.unknown) = (0, 0);
        }
    }

    /// Gives back all memory of free stacks, with the page tables where a whole mapping is free. Gives the bytes.
    pub(crate) fn trim(&mut self) -> usize {
        let before = self.kept();
        let StackPool { classes, mappings, .. } = self;
        for class in &mut *classes {
            class.sort(class.free.len());
        }
        // Dropping a mapping unmaps it.
        mappings.retain(|(class, mapping)| {
            !classes[class.0 as usize].forget_if_free(mapping.start(), mapping.slots())
        });
        for class in classes {
            class.empty_sorted(class.free.len());
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
        self.empty(from - count);
        self.reduce_to(from, Keeps::Top);
    }

    /// Counts what came back since the last look.
    fn take_stock(&mut self) {
        let came_back = (self.allowed - self.until_look).unsigned_abs();
        self.came_back = self.came_back.saturating_add(came_back);
        self.unknown = self.unknown.saturating_add(came_back);
        self.allowed = self.until_look;
    }

    /// How much of a byte of its stacks is memory, of those that came back and were not looked at yet, as some of them show.
    fn share_held(&mut self, since: &mut Since) -> f64 {
        let count = (mem::take(&mut self.unknown) / self.size).min(self.free.len());
        if count == 0 {
            return 1.0;
        }
        let latest = &self.free[self.free.len() - count..];
        let (mut pages, looked_at) = (0, SAMPLE.min(count));
        for number in 0..looked_at {
            let (start, end) = (count * number / looked_at, count * (number + 1) / looked_at);
            let free = &latest[start + since.throw(end - start)];
            // SAFETY: a slot is `stride` bytes.
            let top = unsafe { free.bottom.add(self.stride()) };
            mapping::resident(free.bottom, top, |_| pages += 1);
        }
        let share = match pages {
            // Where the kernel does not tell they may be full.
            0 => 1.0,
            _ => (pages * page_size()) as f64 / (looked_at * self.size) as f64,
        };
        since.held = since.held.saturating_add(((count * self.size) as f64 * share) as usize);
        share
    }

    /// How many bytes at the bottom of its slot a stack has given back that keeps `keeps`.
    fn given_by(&self, keeps: Keeps) -> usize {
        match keeps {
            Keeps::Nothing => self.stride(),
            Keeps::Top => self.stride() - (TOP_PAGES * page_size()).min(self.size),
            Keeps::All => 0,
        }
    }

    /// Those that lie together are used together, and give back together.
    fn sort(&mut self, end: usize) {
        self.free[..end].sort_unstable_by_key(|free| Reverse(free.bottom));
    }

    /// Lets no stack below `end` keep anything.
    fn empty(&mut self, end: usize) {
        let start = self.free[..end].partition_point(|free| free.keeps == Keeps::Nothing);
        if end - start < MANY {
            return self.give_back(start..end, Keeps::Nothing);
        }
        self.sort(end);
        self.empty_sorted(end);
    }

    /// The same, of stacks in the order of their addresses.
    fn empty_sorted(&mut self, end: usize) {
        let stride = self.stride();
        let mut releases = mapping::Releases::new();
        // What is to be told next, from its lowest slot on. Between it and the slot that was seen last all are free.
        let mut run: Option<(NonNull<u8>, usize)> = None;
        let mut last = None;
        for free in &mut self.free[..end] {
            let follows = last.is_some_and(|last: NonNull<u8>| gap(free.bottom, last) == stride);
            last = Some(free.bottom);
            let far = |run: &mut (NonNull<u8>, usize)| gap(free.bottom, run.0) > BETWEEN * stride;
            let had = mem::replace(&mut free.keeps, Keeps::Nothing);
            if let Some((start, bytes)) = run.take_if(|run| !follows || far(run)) {
                // SAFETY: the range lies in free slots, and nobody stands on what the pool has.
                unsafe { releases.add(start, bytes) };
            }
            if had > Keeps::Nothing {
                let more = run.map_or(stride, |(start, bytes)| gap(free.bottom, start) + bytes);
                run = Some((free.bottom, more));
            }
        }
        if let Some((start, bytes)) = run {
            // SAFETY: as above.
            unsafe { releases.add(start, bytes) };
        }
        // SAFETY: as above, for nothing was handed out meanwhile.
        unsafe { releases.flush() };
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
