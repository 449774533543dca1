//! The stack that signal handlers stand on, where the one of whoever runs has no room.

use std::{
    mem,
    ptr::{self, NonNull},
};

/// Address space: finding the names of functions takes tens of KiB. It takes memory when it is used.
const SIZE: usize = 256 << 10;
/// Below it, and larger than any page.
const GUARD: usize = 64 << 10;

/// The alternate stack of the thread that made it. Gives way to the one before when it is dropped, on the same thread.
#[derive(Debug)]
pub(crate) struct AlternateStack {
    /// Where the guard begins, below the stack.
    mapping: NonNull<libc::c_void>,
    /// What the thread had before.
    before: libc::stack_t,
}

impl AlternateStack {
    /// `None` when there is no memory for it.
    pub(super) fn new() -> Option<AlternateStack> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let mapping =
            unsafe { libc::mmap(ptr::null_mut(), GUARD + SIZE, protection, flags, -1, 0) };
        if mapping == libc::MAP_FAILED {
            return None;
        }
        // What was there before is filled in below; the mapping is given back if it comes to that.
        let mut stack = AlternateStack { mapping: NonNull::new(mapping)?, before: disabled() };
        // SAFETY: the range is the lower part of the mapping made above, which nothing uses yet.
        if unsafe { libc::mprotect(mapping, GUARD, libc::PROT_NONE) } != 0 {
            return None;
        }
        stack.before = exchange(Some(&stack.description()))?;
        Some(stack)
    }

    fn description(&self) -> libc::stack_t {
        let start = self.mapping.as_ptr().wrapping_byte_add(GUARD);
        libc::stack_t { ss_sp: start, ss_flags: 0, ss_size: SIZE }
    }

    fn is_in_force(&self) -> bool {
        exchange(None).is_some_and(|current| current.ss_sp == self.description().ss_sp)
    }
}

impl Drop for AlternateStack {
    fn drop(&mut self) {
        // std may have taken its own away already, and with it whatever was in force.
        if self.is_in_force() && exchange(Some(&self.before)).is_none() {
            // A signal handler stands on it.
            return;
        }
        // SAFETY: `new` made the mapping, and it is not in force.
        unsafe { libc::munmap(self.mapping.as_ptr(), GUARD + SIZE) };
    }
}

/// Puts another alternate stack in force, if one is given, and gives the one before. `None` when the system refuses.
pub(super) fn exchange(next: Option<&libc::stack_t>) -> Option<libc::stack_t> {
    let mut before = disabled();
    let next = next.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: it reads one description and fills the other. The memory described outlives its being in force: it is this
    // file's, which takes it out of force first, or that of whoever had put it in force before.
    (unsafe { libc::sigaltstack(next, &raw mut before) } == 0).then_some(before)
}

fn disabled() -> libc::stack_t {
    // SAFETY: zeros are a value of this type.
    libc::stack_t { ss_flags: libc::SS_DISABLE, ..unsafe { mem::zeroed() } }
}
