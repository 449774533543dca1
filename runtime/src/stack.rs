//! Stacks for tasklets: slots cut from large mappings, each with a guard page below it.
//!
//! - A slot belongs to the pool or to one [`Stack`]; the pool hands out the slot that came back last, which is warm.
//! - Mappings are never unmapped while a stack cut from them is in use: [`StackPool::leak`].
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
//! What the free ones keep of their memory is bounded: see `kept`.
#![allow(unsafe_code)]

mod kept;
mod mapping;
mod slot;

use std::{
    fmt, io, mem,
    ptr::{self, NonNull},
};

pub(crate) use self::mapping::page_size;
use self::{
    kept::{Free, Since},
    mapping::Mapping,
};
pub(crate) use self::{
    mapping::release_freed,
    slot::{Slot, slot_at},
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
    /// Its size class, as wide as the other fields: what is copied in larger pieces than it was written in waits for that.
    class: usize,
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
    mappings: Vec<(SizeClass, Mapping)>,
    /// Stacks handed out and not given back.
    live: usize,
    /// Whether it is looked at how deep its stacks are used: all of them are zeros when they are handed out.
    is_counted: bool,
    since: Since,
}

/// The stacks of one size.
#[derive(Debug)]
struct Class {
    size: usize,
    /// The size of a guard, one page.
    guard: usize,
    /// Slots that came back, the last on top. The further down, the less one keeps.
    free: Vec<Free>,
    /// Slots of the newest mapping that were never handed out.
    fresh: Fresh,
    /// How many slots its mappings have, and how many the next one will.
    slots: usize,
    next_mapping: usize,
    /// Bytes of its stacks that may come back before it is looked at what the free ones keep, now and at the last look.
    until_look: isize,
    allowed: isize,
    /// Bytes of those that came back up to the last look, and what of that is not known to hold how much.
    came_back: usize,
    unknown: usize,
}

#[derive(Debug)]
struct Fresh {
    next: *mut u8,
    left: usize,
}

impl StackPool {
    pub(crate) const fn new() -> StackPool {
        StackPool {
            classes: Vec::new(),
            mappings: Vec::new(),
            live: 0,
            is_counted: false,
            since: Since::start(),
        }
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
            self.add(size);
            self.classes.len() - 1
        });
        Ok(SizeClass(u8::try_from(place).expect("powers of two from 32 KiB to 1 TiB are few")))
    }

    /// How large the stacks of a class are.
    pub(crate) fn size(&self, class: SizeClass) -> usize {
        self.classes[class.0 as usize].size
    }

    /// A stack, the warmest there is.
    ///
    /// # Errors
    /// When the kernel gives no memory or no guard page for another one.
    #[inline]
    pub(crate) fn take(&mut self, class: SizeClass) -> Result<Stack, StackError> {
        let Some(free) = self.classes.get_mut(class.0 as usize).and_then(|class| class.free.pop())
        else {
            return self.take_fresh(class);
        };
        self.live += 1;
        Ok(self.stack(free.bottom, class))
    }

    /// Takes a stack back.
    #[inline]
    pub(crate) fn give(&mut self, stack: Stack) {
        self.live -= 1;
        let class = &mut self.classes[stack.class];
        class.free.push(Free::just_used(stack.bottom));
        class.until_look -= class.size as isize;
        if class.until_look < 0 {
            self.look(SizeClass(stack.class as u8));
        }
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

    /// Whether it is looked at how deep the stacks are used.
    #[inline]
    pub(crate) fn is_counted(&self) -> bool {
        self.is_counted
    }

    /// Whether a stack is in use.
    pub(crate) fn is_in_use(&self) -> bool {
        self.live > 0
    }

    /// Gives up the mappings for ever, for stacks cut from them hold suspended frames.
    pub(crate) fn leak(self) {
        mem::forget(self.mappings);
    }

    fn add_default(&mut self) {
        if self.classes.is_empty() {
            self.add(DEFAULT_SIZE);
        }
    }

    fn add(&mut self, size: usize) {
        self.classes.push(Class::new(size));
        // It has nothing to spare yet, and is looked at with its first.
        if let [_first] = &*self.classes {
            self.begin_anew();
        }
    }

    #[inline]
    fn stack(&self, bottom: NonNull<u8>, class: SizeClass) -> Stack {
        let class = class.0 as usize;
        let top = top_of(bottom, self.classes[class].stride());
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
        let mapping = self.mappings.iter_mut().rev().find(|(_, mapping)| mapping.contains(bottom));
        let (_, mapping) = mapping.expect("fresh slots lie in a mapping of the pool");
        mapping.guard(bottom).map_err(|source| StackError { live, source })?;
        fresh.fresh.left -= 1;
        fresh.fresh.next = bottom.as_ptr().wrapping_add(stride);
        self.live += 1;
        Ok(self.stack(bottom, class))
    }

    /// Maps room for more slots, fewer of them when memory is tight.
    fn map(&mut self, size: SizeClass) -> Result<(), StackError> {
        let live = self.live;
        let class = &mut self.classes[size.0 as usize];
        let mut count = class.next_mapping;
        let mapping = loop {
            match Mapping::new(class.stride(), count) {
                Ok(mapping) => break mapping,
                Err(_) if count > 1 => count /= 2,
                Err(source) => return Err(StackError { live, source }),
            }
        };
        class.next_mapping = (count * 2).min((LARGEST_MAPPING / class.size).max(1));
        class.slots += count;
        class.fresh = Fresh { next: mapping.start().as_ptr(), left: count };
        self.mappings.push((size, mapping));
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
            slots: 0,
            next_mapping: (FIRST_MAPPING / size).max(1),
            until_look: 0,
            allowed: 0,
            came_back: 0,
            unknown: 0,
        }
    }

    /// From one slot to the next: the stack, its guard page, and nothing else.
    #[inline]
    fn stride(&self) -> usize {
        self.size + self.guard
    }
}

/// Where the stack begins in the slot of `stride` bytes at `bottom`, which is one of a live mapping.
#[inline]
fn top_of(bottom: NonNull<u8>, stride: usize) -> NonNull<u8> {
    let stagger = bottom.as_ptr() as usize / STAGGERED % 16 * LINE;
    // SAFETY: the slot is that large, and a stagger is under 1 KiB.
    unsafe { bottom.add(stride - stagger) }
}

/// A number of bytes, as messages give the size of a stack.
pub(crate) struct Size(pub(crate) usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB")];
        let (shift, unit) =
            *units.iter().find(|(shift, _)| self.0 >> shift != 0).unwrap_or(&(10, "KiB"));
        write!(f, "{} {unit}", self.0 >> shift)
    }
}
