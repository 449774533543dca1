//! The end of a thread, seen before any of its thread-locals is gone; and that of the process.
//!
//! - A suspended tasklet may hold a reference into a thread-local. It must never run again once a destructor of
//!   thread-locals has begun, and such a destructor may call into the scheduler.
//! - The C library runs these destructors in the reverse order of their registration, so a marker registered after a
//!   tasklet last ran is destroyed before everything that tasklet can hold a reference into.
//! - A registration cannot be taken back and costs some 40 bytes, so their number is bounded: past the bound,
//!   [`in_destructor`] looks at the call stack instead (some microseconds). Where it could not see such a destructor, as
//!   [`can_see`] finds out by trying, the bound does not hold: a leak is better than a use of what is gone.
#![allow(unsafe_code)]

use std::{
    cell::OnceCell,
    ffi::c_void,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// How many markers a thread registers before it looks at its call stack instead: 2.6 MB of them.
pub(crate) const MAX_MARKERS: u32 = 65_536;

/// Calls `ended` when the thread ends, before the destructor of any thread-local that is registered by now.
pub(crate) fn register(ended: fn()) {
    imp::register(ended);
}

/// Calls `ended` when the process ends by returning from `main` or by `exit`, after the end of the thread that does it.
/// It must not panic.
pub(crate) fn at_process_end(ended: extern "C" fn()) {
    // SAFETY: it is a function of this program, which lives as long as the process. Without memory for the note it is not
    // called, which nobody needs.
    unsafe { libc::atexit(ended) };
}

/// Whether a destructor of a thread-local is running on this thread.
pub(crate) fn in_destructor() -> bool {
    imp::in_destructor()
}

/// Whether [`in_destructor`] can be trusted: the C library may be linked statically, or the program may have been built
/// without the tables that a walk of the stack needs.
pub(crate) fn can_see() -> bool {
    static SEEN: OnceLock<bool> = OnceLock::new();
    *SEEN.get_or_init(|| {
        let seen = Arc::new(AtomicBool::new(false));
        let theirs = Probe(seen.clone());
        let thread = std::thread::Builder::new().spawn(|| PROBE.with(|probe| probe.set(theirs)));
        thread.is_ok_and(|thread| thread.join().is_ok()) && seen.load(Ordering::Relaxed)
    })
}

thread_local! {
    static PROBE: OnceCell<Probe> = const { OnceCell::new() };
}

/// Notes in its destructor whether [`in_destructor`] sees it.
#[derive(Debug)]
struct Probe(Arc<AtomicBool>);

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.store(in_destructor(), Ordering::Relaxed);
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod imp {
    use std::{ffi::c_int, ptr, sync::OnceLock};

    use super::c_void;

    unsafe extern "C" {
        fn __cxa_thread_atexit_impl(
            destructor: unsafe extern "C" fn(*mut c_void),
            object: *mut c_void,
            dso: *mut c_void,
        ) -> c_int;
        fn _Unwind_Backtrace(
            frame: unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int,
            argument: *mut c_void,
        ) -> c_int;
        fn _Unwind_GetIP(frame: *mut c_void) -> usize;
        fn _Unwind_FindEnclosingFunction(address: *mut c_void) -> *mut c_void;
        static __dso_handle: u8;
    }

    pub(super) fn register(ended: fn()) {
        unsafe extern "C" fn call(ended: *mut c_void) {
            // SAFETY: `register` made the pointer from a `fn()`.
            let ended: fn() = unsafe { std::mem::transmute(ended) };
            ended();
        }
        let dso = (&raw const __dso_handle).cast_mut().cast();
        // SAFETY: `call` takes what it is given here, and does not unwind: the hook only leaks and drops, catching.
        let failed = unsafe { __cxa_thread_atexit_impl(call, ended as *mut c_void, dso) };
        assert_eq!(failed, 0, "out of memory: the C library could not note a thread's end");
    }

    pub(super) fn in_destructor() -> bool {
        let mut found = false;
        // SAFETY: `look` takes a frame and the `bool` it is given here.
        unsafe { _Unwind_Backtrace(look, (&raw mut found).cast()) };
        found
    }

    /// Notes whether a frame is the C library's caller of destructors.
    unsafe extern "C" fn look(frame: *mut c_void, found: *mut c_void) -> c_int {
        // SAFETY: the unwinder gives a live frame.
        let address = unsafe { _Unwind_GetIP(frame) };
        // SAFETY: any address may be asked about. A return address may lie past its function's end: ask for the call.
        let function = unsafe {
            _Unwind_FindEnclosingFunction(ptr::without_provenance_mut(address.wrapping_sub(1)))
        };
        if !function.is_null() && function.addr() == caller_of_destructors() {
            // SAFETY: `in_destructor` passes a `bool` that outlives the walk.
            unsafe { found.cast::<bool>().write(true) };
        }
        0
    }

    /// The C library's `__call_tls_dtors`, or 0 where it has none.
    fn caller_of_destructors() -> usize {
        static ADDRESS: OnceLock<usize> = OnceLock::new();
        *ADDRESS.get_or_init(|| {
            // SAFETY: the name is a C string; nothing is called through the address.
            unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__call_tls_dtors".as_ptr()) }.addr()
        })
    }
}

/// Elsewhere std orders the destructors itself, one for each key: the marker is the one key of this file, registered
/// when a thread first uses the scheduler. A thread-local that is made later and whose destructor runs the scheduler
/// is seen too late there.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod imp {
    use std::cell::Cell;

    struct Marker(Cell<Option<fn()>>);

    impl Drop for Marker {
        fn drop(&mut self) {
            if let Some(ended) = self.0.get() {
                ended();
            }
        }
    }

    thread_local! {
        static MARKER: Marker = const { Marker(Cell::new(None)) };
    }

    pub(super) fn register(ended: fn()) {
        let _ = MARKER.try_with(|marker| marker.0.set(Some(ended)));
    }

    pub(super) fn in_destructor() -> bool {
        MARKER.try_with(|_| ()).is_err()
    }
}
