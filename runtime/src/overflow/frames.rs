//! Which calls led to an overflow: their addresses, then their names as far as they can be had.
//!
//! - Whoever tells this may fault or hang at any point: what is found is written at once.
//! - The stack is not used again but to be looked at.

use std::{
    backtrace::Backtrace,
    ffi::c_void,
    fmt::{self, Write},
    mem::MaybeUninit,
    sync::OnceLock,
};

use super::{Registers, line::Stderr};

/// How many calls are told of a stack that may hold thousands, most of them alike.
const TOLD: usize = 32;
/// Lines for their names: two for each, and some for the handler's own.
const LINES: usize = 2 * TOLD + 24;

/// Where the program begins: addresses less this are what `addr2line` asks for.
static PROGRAM: OnceLock<usize> = OnceLock::new();

/// Finds out what a signal handler could not.
pub(super) fn prepare() {
    PROGRAM.get_or_init(|| {
        let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
        let here: fn() = prepare;
        // SAFETY: any address may be asked about, and it fills what it is given.
        unsafe { libc::dladdr(here as *const c_void, found.as_mut_ptr()) };
        // SAFETY: zeros are a value of this type.
        unsafe { found.assume_init() }.dli_fbase.addr()
    });
}

/// Tells which calls led to where `registers` are.
pub(super) fn tell(stderr: &mut Stderr, registers: &Registers) {
    let program = PROGRAM.get().copied().unwrap_or(0);
    let _ = writeln!(stderr, "called by, last first (the program begins at {program:#x}):");
    stderr.flush();
    walk::tell(stderr, registers.instruction);
    let _ = writeln!(stderr, "the same by name, as far as that is known:");
    stderr.flush();
    let _ = write!(Lines { stderr, left: LINES }, "{}", Backtrace::force_capture());
}

/// Passes on so many lines, each as soon as it is complete.
struct Lines<'a> {
    stderr: &'a mut Stderr,
    left: usize,
}

impl Write for Lines<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for line in text.split_inclusive('\n') {
            self.left.checked_sub(1).ok_or(fmt::Error)?;
            self.stderr.write_str(line)?;
            if line.ends_with('\n') {
                self.left -= 1;
                self.stderr.flush();
            }
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
mod walk {
    use std::{
        ffi::{c_int, c_void},
        fmt::Write,
        ptr,
    };

    use super::{Stderr, TOLD};

    /// Anything but zero ends a walk.
    const ENOUGH: c_int = 5;

    unsafe extern "C" {
        fn _Unwind_Backtrace(
            frame: unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int,
            argument: *mut c_void,
        ) -> c_int;
        fn _Unwind_GetIP(frame: *mut c_void) -> usize;
        fn _Unwind_GetCFA(frame: *mut c_void) -> usize;
    }

    struct Walk<'a> {
        stderr: &'a mut Stderr,
        /// Where to begin: what comes before it is the handler. `None` once it was found.
        from: Option<usize>,
        left: usize,
    }

    pub(super) fn tell(stderr: &mut Stderr, from: Option<usize>) {
        let mut walk = Walk { stderr, from, left: TOLD };
        // SAFETY: `look` takes a frame and the `Walk` it is given here, which outlives the call.
        unsafe { _Unwind_Backtrace(look, (&raw mut walk).cast()) };
        if let Some(instruction) = walk.from {
            let _ = writeln!(walk.stderr, "  {instruction:#018x}");
            walk.stderr.flush();
        }
    }

    unsafe extern "C" fn look(frame: *mut c_void, walk: *mut c_void) -> c_int {
        // SAFETY: `tell` passes a `Walk` that nothing else uses meanwhile.
        let walk = unsafe { &mut *walk.cast::<Walk<'_>>() };
        // SAFETY: the unwinder gives a live frame.
        let instruction = unsafe { _Unwind_GetIP(frame) };
        if walk.from == Some(instruction) {
            walk.from = None;
        }
        if walk.from.is_some() {
            return 0;
        }
        let _ = writeln!(walk.stderr, "  {instruction:#018x}");
        walk.stderr.flush();
        walk.left -= 1;
        if walk.left > 0 {
            return 0;
        }
        // SAFETY: the unwinder gives a live frame.
        cut(unsafe { _Unwind_GetCFA(frame) }, instruction);
        let _ = writeln!(walk.stderr, "  and so on");
        ENOUGH
    }

    /// Lets every later walk end at the frame that was called with its stack at `bottom` and goes on at `instruction`: std
    /// would collect and name all of them, and there may be a million.
    fn cut(bottom: usize, instruction: usize) {
        // Where the call has put it on this kind of machine.
        if !cfg!(target_arch = "x86_64") {
            return;
        }
        let place = ptr::with_exposed_provenance_mut::<usize>(bottom - size_of::<usize>());
        // SAFETY: it lies in the frames of the stack that was just walked.
        if unsafe { place.read() } == instruction {
            // SAFETY: as above. Nobody returns there any more: the process is going to abort.
            unsafe { place.write(0) };
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod walk {
    use super::{Stderr, Write};

    pub(super) fn tell(stderr: &mut Stderr, instruction: Option<usize>) {
        if let Some(instruction) = instruction {
            let _ = writeln!(stderr, "  {instruction:#018x}");
            stderr.flush();
        }
    }
}
