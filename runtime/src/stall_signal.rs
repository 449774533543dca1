//! The signal of the stall watch: `SIGURG`, which by default does nothing and which debuggers let pass.
//!
//! - The handler runs on the thread's alternate stack, if it has one: std gives one to each thread that it starts and to
//!   main, so a tasklet's stack is not used.
//! - A `SIGURG` that the watch has not sent goes to the handler that was there before.
#![allow(unsafe_code)]

use std::{
    ffi::{c_int, c_void},
    io, mem,
    ops::ControlFlow,
    ptr,
    sync::OnceLock,
};

use crate::{
    backtrace::MAX_CALLS,
    walk::{Call, walk},
};

/// What is called on the thread that is interrupted: with the time in nanoseconds, and what shows the calls that it was
/// in. False when it has not asked for that. It must not panic, wait for a lock, or allocate.
pub(crate) type Feel = fn(u64, &mut dyn FnMut(&mut Vec<usize>)) -> bool;

const SIGNAL: c_int = libc::SIGURG;

/// What is left of the alternate stack for the walk, at least. It takes less than half of this.
const ROOM: usize = 4 * 1024;

static INSTALLED: OnceLock<Installed> = OnceLock::new();

struct Installed {
    feel: Feel,
    /// What was there before.
    previous: libc::sigaction,
}

/// Has `feel` called on every thread that the signal is [`send`] to.
pub(crate) fn install(feel: Feel) -> io::Result<()> {
    // The first walk binds functions and fills tables, which may wait for locks: not in a handler.
    walk(&mut |_| ControlFlow::Continue(()));
    let previous = action(SIGNAL)?;
    // Before the handler, which looks for it. Who comes second has the same to say.
    let _ = INSTALLED.set(Installed { feel, previous });
    let mut ours = previous;
    ours.sa_sigaction = handle as *const () as usize;
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: `handle` is a handler of the kind that `SA_SIGINFO` says, and good for ever. It keeps `errno`, and neither
    // allocates nor waits: see `Feel`.
    match unsafe { libc::sigaction(SIGNAL, &raw const ours, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has the handler that `signal` has now run on the alternate stack: a tasklet's may be too small for it.
pub(crate) fn handle_on_alternate_stack(signal: c_int) -> io::Result<()> {
    let mut action = action(signal)?;
    action.sa_flags |= libc::SA_ONSTACK;
    // SAFETY: it is the handler that is there, which does not mind where it runs.
    match unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What happens at `signal`.
fn action(signal: c_int) -> io::Result<libc::sigaction> {
    // SAFETY: a `sigaction` is plain data, for which zeros are good.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: it only writes to `action`.
    match unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) } {
        0 => Ok(action),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The system's number of the calling thread.
pub(crate) fn thread_number() -> i32 {
    // SAFETY: it asks for a number.
    unsafe { libc::gettid() }
}

/// Interrupts a thread of this process. One that has ended is not there any more.
pub(crate) fn send(thread: i32) {
    // SAFETY: it asks for a number.
    let process = unsafe { libc::getpid() };
    // SAFETY: the signal has a handler, see `install`; even without one it would do nothing.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, SIGNAL) };
}

extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let Some(installed) = INSTALLED.get() else { return };
    // SAFETY: the C library gives each thread an `errno`.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { errno.read() };
    let mut calls = |calls: &mut Vec<usize>| show_interrupted(context, calls);
    if !(installed.feel)(now(), &mut calls) {
        pass_on(&installed.previous, signal, info, context);
    }
    // SAFETY: as above. What was interrupted may be about to read it.
    unsafe { errno.write(before) };
}

/// Calls what was there before.
fn pass_on(
    previous: &libc::sigaction,
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    let handler = ptr::without_provenance::<()>(previous.sa_sigaction);
    match previous.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {}
        _ if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
            // SAFETY: its flags say that it is a handler of this kind.
            let handler = unsafe { mem::transmute::<*const (), Handler>(handler) };
            handler(signal, info, context);
        }
        _ => {
            // SAFETY: it is neither of the two that are no functions, and its flags say that it takes a number.
            let handler = unsafe { mem::transmute::<*const (), extern "C" fn(c_int)>(handler) };
            handler(signal);
        }
    }
}

/// A time that never goes back, in nanoseconds.
fn now() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it only writes to `now`, and may be called in a handler.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Adds the calls that were interrupted, as far as `calls` has room.
fn show_interrupted(context: *const c_void, calls: &mut Vec<usize>) {
    // SAFETY: the kernel gives a handler with `SA_SIGINFO` a `ucontext_t`.
    let Some(context) = (unsafe { context.cast::<libc::ucontext_t>().as_ref() }) else { return };
    let address = interrupted(context);
    let mut is_reached = false;
    if !has_room(&context.uc_stack) {
        // The next instruction, for names are looked up for return addresses.
        return calls.extend(address.checked_add(1));
    }
    walk(&mut |call: Call| {
        // First come the calls of the handler.
        if !is_reached && call.address == address {
            is_reached = true;
            calls.push(address + 1);
        } else if is_reached {
            calls.push(call.address);
        }
        match calls.len() >= MAX_CALLS.min(calls.capacity()) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
}

/// Whether the walk fits on the stack that the handler runs on, if that is `alternate`.
fn has_room(alternate: &libc::stack_t) -> bool {
    let here = ptr::from_ref(&alternate).addr();
    match here.checked_sub(alternate.ss_sp.addr()) {
        Some(left) if left < alternate.ss_size => left >= ROOM,
        _ => true,
    }
}

/// The instruction that was interrupted.
#[cfg(target_arch = "x86_64")]
fn interrupted(context: &libc::ucontext_t) -> usize {
    context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize
}

/// The instruction that was interrupted.
#[cfg(target_arch = "aarch64")]
fn interrupted(context: &libc::ucontext_t) -> usize {
    context.uc_mcontext.pc as usize
}
