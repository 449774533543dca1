//! What is told when a tasklet runs off its stack, and the signal handler that tells it.
//!
//! - The handler stands on an alternate stack, of which each thread with tasklets has one: [`watch`].
//! - The line that names the tasklet is written first, by the kernel's own call, without an allocation or a lock. What
//!   comes after it may fault again or hang, for who knows where the tasklet was: it is cut off then, and the process
//!   ends as by an abort in any case.
//! - Every other fault goes to whoever handled it before, as if this handler were not there.
#![allow(unsafe_code)]

mod alternate;
mod frames;
mod line;

use std::{
    ffi::{c_int, c_void},
    fmt::Write,
    mem::{self, MaybeUninit},
    process, ptr,
    sync::{Once, OnceLock},
};

pub(crate) use self::alternate::AlternateStack;
use self::line::Stderr;
use crate::stack::{Size, Slot, slot_at};

/// What to do about it.
const ADVICE: &str =
    "give it more with Builder::stack_size, or run what recurses in on_big_stack or on_stack_of";
/// How many seconds the names of functions may take.
const PATIENCE: u32 = 5;

/// The signals of faults.
const FAULTS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// Writes who runs on the calling thread, and gives whether that one stands on the slot, going by its stack pointer where
/// that is known. A signal handler calls it: it must not allocate or lock.
pub(crate) type Who = fn(&Slot, Option<usize>, &mut dyn Write) -> bool;

/// What the handler has to know. Complete before it is installed.
static KNOWN: OnceLock<Known> = OnceLock::new();

struct Known {
    who: Who,
    /// What was done about each fault before.
    before: [libc::sigaction; FAULTS.len()],
}

/// Has overflows of the calling thread's tasklets told, as long as what this returns lives. `None` when there is no memory
/// for it: the process dies without a word then.
pub(crate) fn watch(who: Who) -> Option<AlternateStack> {
    static INSTALLED: Once = Once::new();
    if cfg!(miri) {
        return None;
    }
    INSTALLED.call_once(|| install(who));
    AlternateStack::new()
}

/// Takes over from whoever handles faults. Whoever comes later takes over from this.
fn install(who: Who) {
    frames::prepare();
    let before = FAULTS.map(action_of);
    let known = KNOWN.get_or_init(|| Known { who, before });
    for (signal, before) in FAULTS.into_iter().zip(&known.before) {
        let mut action = *before;
        // The handler that was there runs within this one: what the kernel does for it is to stay.
        let kept = if is_handler(before) {
            before.sa_flags & (libc::SA_NODEFER | libc::SA_RESTART | libc::SA_RESETHAND)
        } else {
            0
        };
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | kept;
        action.sa_sigaction = on_fault as Handler as usize;
        set_action(signal, &action);
    }
}

/// What is done about `signal`.
fn action_of(signal: c_int) -> libc::sigaction {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: it fills what it is given.
    unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: zeros are a value of this type, that of the default action.
    unsafe { action.assume_init() }
}

fn set_action(signal: c_int, action: &libc::sigaction) {
    // SAFETY: it reads an action whose handler, where it has one, is a function for signals and lives as long as the
    // program: one of this file, or the one that was there before.
    unsafe { libc::sigaction(signal, action, ptr::null_mut()) };
}

fn set_default(signal: c_int) {
    // SAFETY: zeros are a value of this type, that of the default action.
    set_action(signal, &unsafe { mem::zeroed() });
}

fn is_handler(action: &libc::sigaction) -> bool {
    action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN
}

/// A handler that is told what happened.
type Handler = unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// The handler.
///
/// # Safety
/// The kernel calls it, or whoever stands for it, with what the kernel gave.
unsafe extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a handler that asks for it, as this one does, what happened.
    let code = unsafe { (*info).si_code };
    // SAFETY: as above. For a signal that another process sent it means nothing, and is not used.
    let address = unsafe { (*info).si_addr() }.addr();
    let is_fault = code > 0;
    if let (true, Some(slot)) = (is_fault, slot_at(address).filter(|slot| slot.guards(address))) {
        // SAFETY: the kernel gives such a handler the registers, too.
        tell(&slot, &unsafe { Registers::of(context) });
    }
    let Some(known) = KNOWN.get() else { return };
    let place = FAULTS.iter().position(|&fault| fault == signal).unwrap_or(0);
    // SAFETY: it is what the kernel gave.
    unsafe { pass_on(&known.before[place], is_fault, signal, info, context) };
}

/// Lets `before` handle a signal that is none of this file's business.
///
/// # Safety
/// The last three are what the kernel gave.
unsafe fn pass_on(
    before: &libc::sigaction,
    is_fault: bool,
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    if before.sa_sigaction == libc::SIG_IGN && !is_fault {
        return;
    }
    if !is_handler(before) {
        // A fault happens again when this returns, and has its default effect then. So has one that is ignored.
        set_default(signal);
        if !is_fault {
            // SAFETY: the signal waits until this returns.
            unsafe { libc::raise(signal) };
        }
        return;
    }
    if before.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: who set the flag gave a handler of this type.
        let handler: Handler = unsafe { mem::transmute(before.sa_sigaction) };
        // SAFETY: it gets what the kernel gave.
        unsafe { handler(signal, info, context) };
    } else {
        // SAFETY: who did not set the flag gave a handler of this type.
        let handler: extern "C" fn(c_int) = unsafe { mem::transmute(before.sa_sigaction) };
        handler(signal);
    }
}

/// Tells of the overflow and ends the process. Returns if whoever runs does not stand on that slot.
fn tell(slot: &Slot, registers: &Registers) {
    let mut stderr = Stderr::new();
    let Some(known) = KNOWN.get() else { return };
    if !(known.who)(slot, registers.stack_pointer, &mut stderr) {
        return;
    }
    // It never fails: what cannot be written is lost.
    let _ = writeln!(stderr, " overflowed its {} stack\n{ADVICE}", Size(slot.size()));
    stderr.flush();
    bound_what_follows();
    frames::tell(&mut stderr, registers);
    process::abort();
}

/// From here on whatever faults or takes too long ends in an abort.
fn bound_what_follows() {
    extern "C" fn abort(_signal: c_int) {
        process::abort();
    }
    // SAFETY: zeros are a value of this type.
    let mut action = unsafe { mem::zeroed::<libc::sigaction>() };
    // SAFETY: a set of signals can be emptied, whatever it holds.
    let mut signals = unsafe { mem::zeroed::<libc::sigset_t>() };
    let handler: extern "C" fn(c_int) = abort;
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_ONSTACK | libc::SA_NODEFER;
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGALRM] {
        set_action(signal, &action);
        // SAFETY: the set is of this function.
        unsafe { libc::sigaddset(&raw mut signals, signal) };
    }
    // SAFETY: the process dies of it. An alarm that was set before is replaced.
    unsafe { libc::alarm(PATIENCE) };
    // SAFETY: the set was made above; a fault is blocked while its handler runs, which would be this one.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const signals, ptr::null_mut()) };
}

/// Where the tasklet was when it faulted, as far as this machine's registers are known here.
struct Registers {
    stack_pointer: Option<usize>,
    instruction: Option<usize>,
}

impl Registers {
    /// # Safety
    /// The kernel gave `context` to a handler that is running.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    unsafe fn of(context: *mut c_void) -> Registers {
        // SAFETY: as the caller promises.
        let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let of = |register: c_int| usize::try_from(registers[register as usize]).ok();
        Registers { stack_pointer: of(libc::REG_RSP), instruction: of(libc::REG_RIP) }
    }

    /// # Safety
    /// The kernel gave `context` to a handler that is running.
    #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
    unsafe fn of(context: *mut c_void) -> Registers {
        // SAFETY: as the caller promises.
        let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
        let of = |register: u64| usize::try_from(register).ok();
        Registers { stack_pointer: of(registers.sp), instruction: of(registers.pc) }
    }

    #[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
    unsafe fn of(_context: *mut c_void) -> Registers {
        Registers { stack_pointer: None, instruction: None }
    }
}

#[cfg(all(test, not(miri)))]
mod tests;
