//! Stacks for tasklets: slots cut from large mappings, each with a guard page below it.
//!
//! - A slot belongs to the pool or to one [`Stack`]; the pool hands out the slot that came back last, which is warm.
//! - Mappings are never unmapped while a stack cut from them may still be suspended: [`StackPool::leak`].
//! - Below every stack that was ever handed out lies a page that faults.
//!
//! ```text
//!   low                                                             high
//!   | guard page | ............ stack, grows down ........ | stagger |
//!   ^ bottom                                               ^ top
//! ```
//!
//! `stagger` is 64 B × (slot mod 16): tops at one distance would all fall into the same few cache sets. With it, a
//! stack's first page still holds top, header and first frames.
//!
//! Guards are made by `madvise(MADV_GUARD_INSTALL)` (Linux 6.13), which costs no mapping, so a million stacks fit
//! under the default `vm.max_map_count`. Where the kernel lacks it, or when `PILA_STACK_GUARD=mprotect` is set, they are
//! made by `mprotect`, which costs two mappings a stack: the process stops at about 32,000.
//!
//! Cost: 5 ns to take and give back a warm stack; a new one costs 0.2 µs for its guard and 0.8 µs for its first page.
#![allow(unsafe_code)]

use std::{
    io,
    ptr::{self, NonNull},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::error::StackError;

/// The stack a tasklet gets unless its builder says otherwise. Only touched pages count.
pub(crate) const DEFAULT_SIZE: usize = 256 * 1024;
/// The smallest stack: room for a panic message without a backtrace.
const MIN_SIZE: usize = 32 * 1024;
/// How much address space the first mapping of a size takes at most, and how much any takes.
const FIRST_MAPPING: usize = 16 << 20;
const LARGEST_MAPPING: usize = 4 << 30;
const LINE: usize = 64;
/// The smallest page: the next slot's place among these differs, for a slot is an odd number of them.
const STAGGERED: usize = 4096;
/// Linux 6.13. Accesses fault, and the mapping is not split.
const MADV_GUARD_INSTALL: libc::c_int = 102;
/// Mappings that guards leave to the rest of the process.
const SPARE_MAPPINGS: usize = 2_000;

/// Guards made by `mprotect` in this process: each splits a mapping in two.
static SPLIT_GUARDS: AtomicUsize = AtomicUsize::new(0);

/// A size of stack that a pool knows. The first is the default.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SizeClass(u8);

impl SizeClass {
    pub(crate) const DEFAULT: SizeClass = SizeClass(0);
}

/// One stack, taken from a pool. It is leaked unless it is given back.
#[derive(Debug)]
pub(crate) struct Stack {
    /// The lowest address of the slot, where the guard page begins.
    bottom: NonNull<u8>,
    /// One past the highest usable byte, a multiple of 64.
    top: NonNull<u8>,
    class: SizeClass,
}

impl Stack {
    /// One past the highest usable byte, a multiple of 64.
    #[inline]
    pub(crate) fn top(&self) -> NonNull<u8> {
        self.top
    }

    /// The lowest address, that of the guard page.
    #[inline]
    pub(crate) fn bottom(&self) -> NonNull<u8> {
        self.bottom
    }
}

/// All stacks of one thread.
#[derive(Debug)]
pub(crate) struct StackPool {
    classes: Vec<Class>,
    mappings: Vec<Mapping>,
    /// Stacks handed out and not given back.
    live: usize,
}

/// The stacks of one size.
#[derive(Debug)]
struct Class {
    size: usize,
    /// The size of a guard, one page.
    guard: usize,
    /// Slots that came back, the last on top.
    free: Vec<NonNull<u8>>,
    /// Slots of the newest mapping that were never handed out.
    fresh: Fresh,
    /// How many slots the next mapping holds.
    next_mapping: usize,
}

#[derive(Debug)]
struct Fresh {
    next: *mut u8,
    left: usize,
}

#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl StackPool {
    pub(crate) const fn new() -> StackPool {
        StackPool { classes: Vec::new(), mappings: Vec::new(), live: 0 }
    }

    /// The class of stacks of at least `size` bytes.
    ///
    /// # Errors
    /// `InvalidInput` when no address space could hold it.
    pub(crate) fn class(&mut self, size: usize) -> io::Result<SizeClass> {
        let size = match size.max(MIN_SIZE).checked_next_power_of_two() {
            Some(size) if size <= 1 << 40 => size,
            _ => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "a stack of over 1 TiB"));
            }
        };
        self.add_default();
        let place = self.classes.iter().position(|class| class.size == size).unwrap_or_else(|| {
            self.classes.push(Class::new(size));
            self.classes.len() - 1
        });
        Ok(SizeClass(u8::try_from(place).expect("powers of two from 32 KiB to 1 TiB are few")))
    }

    /// A stack, the warmest there is.
    ///
    /// # Errors
    /// When the kernel gives no memory or no guard page for another one.
    #[inline]
    pub(crate) fn take(&mut self, class: SizeClass) -> Result<Stack, StackError> {
        let Some(bottom) =
            self.classes.get_mut(class.0 as usize).and_then(|class| class.free.pop())
        else {
            return self.take_fresh(class);
        };
        self.live += 1;
        Ok(self.stack(bottom, class))
    }

    /// Takes a stack back.
    #[inline]
    pub(crate) fn give(&mut self, stack: Stack) {
        self.live -= 1;
        self.classes[stack.class.0 as usize].free.push(stack.bottom);
    }

    /// Makes sure that a stack could be taken at this moment.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(crate) fn check(&mut self, class: SizeClass) -> Result<(), StackError> {
        let stack = self.take(class)?;
        self.give(stack);
        Ok(())
    }

    /// Gives up the mappings for ever, for stacks cut from them hold suspended frames.
    pub(crate) fn leak(mut self) {
        self.mappings.clear();
    }

    fn add_default(&mut self) {
        if self.classes.is_empty() {
            self.classes.push(Class::new(DEFAULT_SIZE));
        }
    }

    #[inline]
    fn stack(&self, bottom: NonNull<u8>, class: SizeClass) -> Stack {
        let stride = self.classes[class.0 as usize].stride();
        let stagger = bottom.as_ptr() as usize / STAGGERED % 16 * LINE;
        // SAFETY: `bottom` is the start of a slot of `stride` bytes in a live mapping, and a stagger is under 1 KiB.
        let top = unsafe { bottom.add(stride - stagger) };
        Stack { bottom, top, class }
    }

    #[cold]
    fn take_fresh(&mut self, class: SizeClass) -> Result<Stack, StackError> {
        self.add_default();
        if self.classes[class.0 as usize].fresh.left == 0 {
            self.map(class)?;
        }
        let live = self.live;
        let fresh = &mut self.classes[class.0 as usize];
        let stride = fresh.stride();
        let bottom = NonNull::new(fresh.fresh.next).expect("a mapping is not at address 0");
        guard(bottom).map_err(|source| StackError { live, source })?;
        fresh.fresh.left -= 1;
        fresh.fresh.next = bottom.as_ptr().wrapping_add(stride);
        self.live += 1;
        Ok(self.stack(bottom, class))
    }

    /// Maps room for more slots, fewer of them when memory is tight.
    fn map(&mut self, class: SizeClass) -> Result<(), StackError> {
        let live = self.live;
        let class = &mut self.classes[class.0 as usize];
        let mut count = class.next_mapping;
        let mapping = loop {
            match Mapping::new(count * class.stride()) {
                Ok(mapping) => break mapping,
                Err(_) if count > 1 => count /= 2,
                Err(source) => return Err(StackError { live, source }),
            }
        };
        class.next_mapping = (count * 2).min((LARGEST_MAPPING / class.size).max(1));
        class.fresh = Fresh { next: mapping.start.as_ptr(), left: count };
        self.mappings.push(mapping);
        Ok(())
    }
}

impl Class {
    fn new(size: usize) -> Class {
        let fresh = Fresh { next: ptr::null_mut(), left: 0 };
        Class {
            size,
            guard: page_size(),
            free: Vec::new(),
            fresh,
            next_mapping: (FIRST_MAPPING / size).max(1),
        }
    }

    /// From one slot to the next: the stack, its guard page, and nothing else.
    #[inline]
    fn stride(&self) -> usize {
        self.size + self.guard
    }
}

impl Mapping {
    fn new(bytes: usize) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // A huge page under sparsely used stacks costs 15 times their memory. Older kernels may not know the advice.
        #[cfg(target_os = "linux")]
        // SAFETY: the range is the mapping made above; the advice changes no contents.
        let _ = unsafe { libc::madvise(start, bytes, libc::MADV_NOHUGEPAGE) };
        Ok(Mapping { start: NonNull::new(start.cast()).expect("mmap gives no null"), bytes })
    }
}

impl Drop for StackPool {
    fn drop(&mut self) {
        for mapping in &self.mappings {
            // SAFETY: the pool made the mapping. Whoever lets a pool drop has every stack back: a pool with suspended
            // stacks ends in `leak`, which empties the list.
            unsafe { libc::munmap(mapping.start.as_ptr().cast(), mapping.bytes) };
        }
    }
}

/// Makes the page at `bottom`, which lies in a mapping of a pool and in no stack's use, fault on access.
fn guard(bottom: NonNull<u8>) -> io::Result<()> {
    static GUARD_ADVICE: OnceLock<bool> = OnceLock::new();
    let page = bottom.as_ptr().cast();
    let forced = || std::env::var_os("PILA_STACK_GUARD").is_some_and(|kind| kind == "mprotect");
    // SAFETY: the page is the pool's own and holds nothing.
    let advise = || unsafe { libc::madvise(page, page_size(), MADV_GUARD_INSTALL) } == 0;
    // The first page asked for is the probe.
    if *GUARD_ADVICE.get_or_init(|| !forced() && advise()) {
        return if advise() { Ok(()) } else { Err(io::Error::last_os_error()) };
    }
    protect(page)
}

fn protect(page: *mut libc::c_void) -> io::Result<()> {
    let mappings = 2 * SPLIT_GUARDS.fetch_add(1, Ordering::Relaxed);
    // At the limit every allocation of the process would fail as well: leave the rest some.
    let result = if mappings + SPARE_MAPPINGS > max_map_count() {
        Err(io::Error::from_raw_os_error(libc::ENOMEM))
    // SAFETY: the page is the pool's own and holds nothing.
    } else if unsafe { libc::mprotect(page, page_size(), libc::PROT_NONE) } != 0 {
        Err(io::Error::last_os_error())
    } else {
        return Ok(());
    };
    SPLIT_GUARDS.fetch_sub(1, Ordering::Relaxed);
    result.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOMEM) => StackError::mappings(max_map_count(), mappings / 2),
        _ => error,
    })
}

pub(crate) fn page_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        // SAFETY: it asks for a number and touches nothing.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size).unwrap_or(4096)
    })
}

/// How many mappings the kernel allows a process.
fn max_map_count() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
        text.trim().parse().unwrap_or(65_530)
    })
}
