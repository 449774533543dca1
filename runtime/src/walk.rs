//! A walk over the calls that led here, outwards: addresses only, named later.
//!
//! - It takes no lock and no memory, so it may be done on any stack and in a signal handler. (It is the C library's
//!   unwinder that walks: with glibc before 2.35 it takes a lock of the dynamic linker that a thread may take twice.)
//! - It goes on where stacks meet: from a tasklet into the loop that entered it, and into main.
#![allow(unsafe_code)]

use std::{
    ffi::{c_int, c_void},
    ops::ControlFlow,
};

/// One call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Call {
    /// Where it goes on when what it called returns; the very instruction, when a signal interrupted it.
    pub(crate) address: usize,
    /// Its stack pointer then.
    pub(crate) stack: usize,
}

type Visit<'a> = &'a mut dyn FnMut(Call) -> ControlFlow<()>;

unsafe extern "C" {
    fn _Unwind_Backtrace(
        frame: unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIP(frame: *mut c_void) -> usize;
    fn _Unwind_GetCFA(frame: *mut c_void) -> usize;
}

/// What tells the unwinder to go on, and to stop: `_URC_NO_REASON` and `_URC_NORMAL_STOP`.
const GO_ON: c_int = 0;
const STOP: c_int = 4;

/// Shows each call to `visit`, the innermost first, until that breaks off. `visit` must not panic.
#[inline(never)]
pub(crate) fn walk(mut visit: Visit<'_>) {
    // SAFETY: `show` takes a frame and the `Visit` it is given here, which outlives the walk.
    unsafe { _Unwind_Backtrace(show, (&raw mut visit).cast()) };
}

unsafe extern "C" fn show(frame: *mut c_void, visit: *mut c_void) -> c_int {
    // SAFETY: `walk` passes a `Visit` that nobody else uses meanwhile.
    let visit = unsafe { visit.cast::<Visit<'_>>().as_mut() };
    // SAFETY: the unwinder gives a live frame.
    let address = unsafe { _Unwind_GetIP(frame) };
    // SAFETY: as above.
    let stack = unsafe { _Unwind_GetCFA(frame) };
    match visit.map(|visit| visit(Call { address, stack })) {
        Some(ControlFlow::Continue(())) => GO_ON,
        Some(ControlFlow::Break(())) | None => STOP,
    }
}
