//! Address space for stacks: mappings cut into slots, the guard page at the bottom of each, and what the kernel is told
//! about the pages in between.
//!
//! - A mapping is unmapped when it is dropped: nobody may stand on a stack in it by then.

use std::{
    io,
    mem::MaybeUninit,
    ptr::{self, NonNull},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use super::slot::Place;
use crate::error::StackError;

/// Linux 6.13. Accesses fault, and the mapping is not split.
const MADV_GUARD_INSTALL: libc::c_int = 102;
/// Mappings that guards leave to the rest of the process.
const SPARE_MAPPINGS: usize = 2_000;
/// Pages that one call of the kernel tells about: 16 MiB of them.
const LOOK_AT_ONCE: usize = 4096;

/// Ranges that the kernel is told of together.
const TOGETHER: usize = 64;
/// Guards that are made together: 0.6 µs each instead of 0.9, and nobody waits long for those of others.
const GUARDS_TOGETHER: usize = 16;

/// Guards made by `mprotect` in this process: each splits a mapping in two.
static SPLIT_GUARDS: AtomicUsize = AtomicUsize::new(0);

/// Address space cut into slots of `stride` bytes.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
    stride: usize,
    /// How many slots, from the first on, have guards already.
    guarded: usize,
    /// Guards in it that were made by `mprotect`.
    split_guards: usize,
    /// Where a signal handler finds it.
    place: &'static Place,
}

impl Mapping {
    pub(super) fn new(stride: usize, slots: usize) -> io::Result<Mapping> {
        let bytes = stride * slots;
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
        let start = NonNull::new(start.cast::<u8>()).expect("mmap gives no null");
        let place = Place::take();
        place.fill(start, bytes, stride);
        Ok(Mapping { start, bytes, stride, guarded: 0, split_guards: 0, place })
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) fn slots(&self) -> usize {
        self.bytes / self.stride
    }

    pub(super) fn contains(&self, address: NonNull<u8>) -> bool {
        let start = self.start.addr().get();
        (start..start + self.bytes).contains(&address.addr().get())
    }

    /// Makes the page at `bottom`, which lies in this mapping and in no stack's use, fault on access. Slots are guarded in
    /// their order.
    pub(super) fn guard(&mut self, bottom: NonNull<u8>) -> io::Result<()> {
        static GUARD_ADVICE: OnceLock<bool> = OnceLock::new();
        let slot = (bottom.addr().get() - self.start.addr().get()) / self.stride;
        if slot < self.guarded {
            return Ok(());
        }
        let page = bottom.as_ptr().cast();
        let forced = || std::env::var_os("PILA_STACK_GUARD").is_some_and(|kind| kind == "mprotect");
        // SAFETY: the page is the pool's own and holds nothing.
        let advise = || unsafe { libc::madvise(page, page_size(), MADV_GUARD_INSTALL) } == 0;
        // The first page asked for is the probe.
        if !*GUARD_ADVICE.get_or_init(|| !forced() && advise()) {
            protect(page)?;
            self.split_guards += 1;
        } else if !self.guard_together(slot) {
            if !advise() {
                return Err(io::Error::last_os_error());
            }
            self.guarded = slot + 1;
        }
        Ok(())
    }

    /// Guards `slot` and some that come after it: the more, the more there were.
    fn guard_together(&mut self, slot: usize) -> bool {
        static REFUSED: AtomicBool = AtomicBool::new(false);
        let count = slot.clamp(1, GUARDS_TOGETHER).min(self.slots() - slot);
        let mut pages = [(self.start, page_size()); GUARDS_TOGETHER];
        for (number, (page, _)) in pages[..count].iter_mut().enumerate() {
            *page = self.bottom(slot + number);
        }
        // SAFETY: the pages are the pool's own and hold nothing.
        let done = unsafe { advise_together(&pages[..count], MADV_GUARD_INSTALL, &REFUSED) };
        if done {
            self.guarded = slot + count;
        }
        done
    }

    /// The lowest address of a slot, which is in it.
    fn bottom(&self, slot: usize) -> NonNull<u8> {
        let address = self.start.as_ptr().wrapping_add(slot * self.stride);
        NonNull::new(address).expect("a mapping is not at address 0")
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.place.clear();
        // SAFETY: `new` made the mapping. Whoever drops it has every stack back that was cut from it: a pool with
        // suspended stacks ends in `leak`, which drops no mapping, and `trim` drops those whose slots are all free.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
        SPLIT_GUARDS.fetch_sub(self.split_guards, Ordering::Relaxed);
    }
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

/// Gives the memory of whole pages back. On Linux they read as zeros from then on. Guards stay.
///
/// # Safety
/// The range consists of pages of the caller's mappings, in which nothing lives.
pub(super) unsafe fn release(start: NonNull<u8>, bytes: usize) {
    // Refused for memory that is locked, which then stays what it is.
    // SAFETY: nothing reads what is lost here, as the caller promises.
    unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_DONTNEED) };
}

/// Ranges to [`release`], told to the kernel by the dozens: where it takes them together, that halves what each costs.
pub(super) struct Releases {
    ranges: [(NonNull<u8>, usize); TOGETHER],
    len: usize,
}

impl Releases {
    pub(super) fn new() -> Releases {
        Releases { ranges: [(NonNull::dangling(), 0); TOGETHER], len: 0 }
    }

    /// Adds a range. Neighbours become one.
    ///
    /// # Safety
    /// As for [`release`], until the next [`flush`](Self::flush).
    pub(super) unsafe fn add(&mut self, start: NonNull<u8>, bytes: usize) {
        let follows = |start: NonNull<u8>, bytes, next: NonNull<u8>| {
            start.addr().get() + bytes == next.addr().get()
        };
        match self.ranges[..self.len].last_mut() {
            Some((first, length)) if follows(*first, *length, start) => *length += bytes,
            Some((first, length)) if follows(start, bytes, *first) => {
                (*first, *length) = (start, *length + bytes);
            }
            _ => {
                if self.len == TOGETHER {
                    // SAFETY: those who added them promise it.
                    unsafe { self.flush() };
                }
                self.ranges[self.len] = (start, bytes);
                self.len += 1;
            }
        }
    }

    /// Releases what was added.
    ///
    /// # Safety
    /// What [`add`](Self::add) asks for is still true of all of it.
    pub(super) unsafe fn flush(&mut self) {
        static REFUSED: AtomicBool = AtomicBool::new(false);
        let ranges = &self.ranges[..self.len];
        // SAFETY: nothing reads what is lost in the ranges, as the caller promises for each.
        if !unsafe { advise_together(ranges, libc::MADV_DONTNEED, &REFUSED) } {
            for &(start, bytes) in ranges {
                // SAFETY: as above.
                unsafe { release(start, bytes) };
            }
        }
        self.len = 0;
    }
}

/// Whether the kernel has taken the same advice on all of `ranges`, in one call. Linux 6.14 is the first that lets a process
/// give it to itself by no descriptor. `refused` remembers that it would not.
///
/// # Safety
/// What `advice` does to the contents of the ranges, which lie in mappings of the caller's, harms nobody.
#[cfg(target_os = "linux")]
unsafe fn advise_together(
    ranges: &[(NonNull<u8>, usize)],
    advice: libc::c_int,
    refused: &AtomicBool,
) -> bool {
    /// `PIDFD_SELF_THREAD`
    const MYSELF: libc::c_int = -10_000;
    if ranges.len() < 2 || refused.load(Ordering::Relaxed) {
        return false;
    }
    let mut pieces = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; TOGETHER];
    for (piece, &(start, bytes)) in pieces.iter_mut().zip(ranges) {
        *piece = libc::iovec { iov_base: start.as_ptr().cast(), iov_len: bytes };
    }
    let (count, flags) = (ranges.len(), 0);
    // SAFETY: the pieces are as many as it is told, and the caller promises that the advice harms nobody.
    let taken = unsafe {
        libc::syscall(libc::SYS_process_madvise, MYSELF, pieces.as_ptr(), count, advice, flags)
    };
    if taken < 0 {
        refused.store(true, Ordering::Relaxed);
    }
    usize::try_from(taken) == Ok(ranges.iter().map(|&(_, bytes)| bytes).sum())
}

#[cfg(not(target_os = "linux"))]
unsafe fn advise_together(
    _ranges: &[(NonNull<u8>, usize)],
    _advice: libc::c_int,
    _refused: &AtomicBool,
) -> bool {
    false
}

/// How many page faults the calling thread has had; elsewhere the process. `None` when the system does not count them.
pub(super) fn faults() -> Option<u64> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let who = libc::RUSAGE_THREAD;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let who = libc::RUSAGE_SELF;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: it fills what it is given.
    if unsafe { libc::getrusage(who, usage.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: zeros are a value of this type, and the call succeeded.
    let usage = unsafe { usage.assume_init() };
    let faults = u64::try_from(usage.ru_minflt + usage.ru_majflt).ok()?;
    // No thread runs without any.
    (faults > 0).then_some(faults)
}

/// Has the C library give back the memory that was freed, as far as it knows how.
pub(crate) fn release_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it locks what it changes, and changes nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Tells `f` the addresses of the pages that take memory below `top`, the highest first. A stack is used from its top
/// without large gaps: nothing is looked for below 16 MiB in which there are none.
pub(super) fn resident(bottom: NonNull<u8>, top: NonNull<u8>, mut f: impl FnMut(NonNull<u8>)) {
    let mut there = [0u8; LOOK_AT_ONCE];
    let mut end = top;
    while end > bottom {
        let left = (end.addr().get() - bottom.addr().get()) / page_size();
        let pages = left.min(LOOK_AT_ONCE);
        if pages == 0 {
            return;
        }
        // SAFETY: the range lies between two addresses of one mapping of the caller's.
        let start = unsafe { end.byte_sub(pages * page_size()) };
        // SAFETY: as above, and `there` has a byte for each page.
        let refused = unsafe {
            libc::mincore(start.as_ptr().cast(), pages * page_size(), there.as_mut_ptr().cast())
        };
        let found = there[..pages].iter().enumerate().rev().filter(|&(_, &flags)| flags & 1 != 0);
        let mut any = false;
        for (page, _) in found {
            any = true;
            // SAFETY: the page is one of the range.
            f(unsafe { start.byte_add(page * page_size()) });
        }
        if refused != 0 || !any {
            return;
        }
        end = start;
    }
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
