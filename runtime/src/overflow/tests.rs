//! What cannot be tried from safe code: handlers of the user's, faults that are no overflows, and overflows in the middle
//! of what the report itself needs. Each in a process of its own.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    env,
    hint::black_box,
    os::unix::process::ExitStatusExt,
    process::{Command, Output},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::{current::with, on_big_stack, run, schedule, stack::StackPool, tasklet};

const ABORT: Option<i32> = Some(libc::SIGABRT);
const SEGV: Option<i32> = Some(libc::SIGSEGV);

/// Runs the test `name` again, alone, in a process of its own.
fn again(name: &str) -> Output {
    again_with(name, &[])
}

/// As [`again`], with more in its environment.
fn again_with(name: &str, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", &format!("overflow::tests::{name}"), "--nocapture"]);
    command.env("PILA_TEST_CHILD", "1").env_remove("RUST_BACKTRACE");
    // Under AddressSanitizer, let faults be what they are, and frames where they are.
    let options = "detect_leaks=0:handle_segv=0:handle_sigbus=0:detect_stack_use_after_return=0";
    command.env("ASAN_OPTIONS", options);
    command.envs(environment.iter().copied()).output().unwrap()
}

fn is_child() -> bool {
    env::var_os("PILA_TEST_CHILD").is_some()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs off the end of its stack.
#[inline(never)]
fn fall(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { fall(depth + 1) + frame[3] }
}

/// A fault that is no overflow.
fn write_to_null() {
    // SAFETY: it is not sound: the kernel stops it, which is the test.
    unsafe { black_box(ptr::null_mut::<u64>()).write_volatile(1) };
}

fn in_a_tasklet(f: impl FnOnce() + 'static) {
    tasklet(f);
    run();
}

#[test]
fn a_null_pointer_in_a_tasklet_is_no_overflow() {
    if is_child() {
        return in_a_tasklet(write_to_null);
    }
    let output = again("a_null_pointer_in_a_tasklet_is_no_overflow");
    assert_eq!(output.status.signal(), SEGV, "{output:#?}");
    assert!(!stderr(&output).contains("overflow"), "{output:#?}");
}

#[test]
fn a_stray_pointer_into_the_guard_of_another_is_no_overflow() {
    if is_child() {
        let mut pool = StackPool::new();
        let class = pool.class(64 << 10).unwrap();
        let others = pool.take(class).unwrap();
        return in_a_tasklet(move || {
            assert!(slot_at(others.bottom().addr().get()).is_some());
            // SAFETY: it is not sound: the guard stops it, which is the test.
            unsafe { others.bottom().write_volatile(1) };
        });
    }
    let output = again("a_stray_pointer_into_the_guard_of_another_is_no_overflow");
    assert_eq!(output.status.signal(), SEGV, "{output:#?}");
    assert!(!stderr(&output).contains("overflow"), "{output:#?}");
}

#[test]
fn one_in_the_middle_of_the_schedulers_work_is_told_of_without_a_name() {
    if is_child() {
        return in_a_tasklet(|| {
            with(|scheduler| {
                let _busy = scheduler.core.borrow_mut();
                black_box(fall(0));
            });
        });
    }
    let output = again("one_in_the_middle_of_the_schedulers_work_is_told_of_without_a_name");
    assert_eq!(output.status.signal(), ABORT, "{output:#?}");
    let told = stderr(&output);
    assert!(told.starts_with("tasklet #1 (created at runtime/src/overflow/tests.rs:"), "{told}");
    assert!(told.lines().next().unwrap().ends_with(") overflowed its 256 KiB stack"), "{told}");
    assert!(stderr(&output).contains("tests::fall"), "{output:#?}");
}

/// A handler of the user's. What it is called for it tells by its exit code.
extern "C" fn mine(_signal: c_int) {
    // SAFETY: it ends the process, which needs nothing.
    unsafe { libc::_exit(40) };
}

extern "C" fn mine_with_info(_signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel, and whoever stands for it, gives a valid one.
    let is_null = unsafe { (*info).si_addr() }.is_null();
    // SAFETY: as above.
    unsafe { libc::_exit(if is_null && !context.is_null() { 41 } else { 42 }) };
}

fn install_mine(handler: usize, flags: c_int) {
    // SAFETY: zeros are a value of this type.
    let mut action = unsafe { mem::zeroed::<libc::sigaction>() };
    (action.sa_sigaction, action.sa_flags) = (handler, flags);
    set_action(libc::SIGSEGV, &action);
}

const PLAIN: extern "C" fn(c_int) = mine;
const WITH_INFO: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = mine_with_info;

#[test]
fn a_handler_installed_before_is_called_for_what_is_no_overflow() {
    if is_child() {
        match env::var("HANDLER").as_deref() {
            Ok("plain") => install_mine(PLAIN as usize, 0),
            _ => install_mine(WITH_INFO as usize, libc::SA_SIGINFO | libc::SA_NODEFER),
        }
        match env::var("FAULT").as_deref() {
            Ok("null") => in_a_tasklet(write_to_null),
            Ok("overflow") => in_a_tasklet(|| _ = black_box(fall(0))),
            _ => {
                in_a_tasklet(schedule);
                thread::spawn(write_to_null).join().unwrap();
            }
        }
        return;
    }
    let name = "a_handler_installed_before_is_called_for_what_is_no_overflow";
    for (handler, code) in [("plain", 40), ("with info", 41)] {
        for fault in ["null", "elsewhere", "overflow"] {
            let output = again_with(name, &[("HANDLER", handler), ("FAULT", fault)]);
            if fault == "overflow" {
                assert_eq!(output.status.signal(), ABORT, "{output:#?}");
                assert!(stderr(&output).contains("overflowed its 256 KiB stack"), "{output:#?}");
            } else {
                assert_eq!(output.status.code(), Some(code), "{handler}, {fault}: {output:#?}");
            }
        }
    }
}

#[test]
fn a_handler_installed_after_is_the_one_that_is_called() {
    if is_child() {
        in_a_tasklet(schedule);
        install_mine(PLAIN as usize, libc::SA_ONSTACK);
        // Neither another thread's tasklets nor an overflow bring this crate's back.
        thread::spawn(|| in_a_tasklet(schedule)).join().unwrap();
        return in_a_tasklet(|| _ = black_box(fall(0)));
    }
    let output = again("a_handler_installed_after_is_the_one_that_is_called");
    assert_eq!(output.status.code(), Some(40), "{output:#?}");
    assert!(!stderr(&output).contains("overflow"), "{output:#?}");
}

#[test]
fn without_a_handler_before_it_faults_and_signals_have_their_default_effect() {
    if is_child() {
        let ignored = env::var("BEFORE").as_deref() == Ok("ignored");
        install_mine(if ignored { libc::SIG_IGN } else { libc::SIG_DFL }, 0);
        in_a_tasklet(schedule);
        // SAFETY: what it does is the test.
        unsafe { libc::raise(libc::SIGSEGV) };
        println!("went on");
        return in_a_tasklet(write_to_null);
    }
    for (before, goes_on) in [("default", false), ("ignored", true)] {
        let name = "without_a_handler_before_it_faults_and_signals_have_their_default_effect";
        let output = again_with(name, &[("BEFORE", before)]);
        assert_eq!(output.status.signal(), SEGV, "{before}: {output:#?}");
        let went_on = String::from_utf8_lossy(&output.stdout).contains("went on");
        assert_eq!(went_on, goes_on, "{before}: {output:#?}");
    }
}

#[test]
fn an_alternate_stack_gives_way_to_the_one_before() {
    // On a thread of its own, whose alternate stack is nobody else's business.
    let test = || {
        let mut memory = vec![0u8; 64 << 10];
        let mine =
            libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
        let std_s = alternate::exchange(Some(&mine)).unwrap();
        let ours = AlternateStack::new().unwrap();
        let in_force = alternate::exchange(None).unwrap();
        assert_ne!(in_force.ss_sp, mine.ss_sp);
        assert!(in_force.ss_size >= 64 << 10);
        drop(ours);
        assert_eq!(alternate::exchange(None).unwrap().ss_sp, mine.ss_sp);

        // One that was put over it stays.
        let ours = AlternateStack::new().unwrap();
        alternate::exchange(Some(&mine)).unwrap();
        drop(ours);
        assert_eq!(alternate::exchange(None).unwrap().ss_sp, mine.ss_sp);
        alternate::exchange(Some(&std_s)).unwrap();
    };
    thread::spawn(test).join().unwrap();
}

/// What the allocator of these tests does instead of its work, once it is told to.
#[derive(Clone, Copy, PartialEq)]
enum Allocator {
    Works,
    Overflows,
    Hangs,
}

static ALLOCATOR: AtomicUsize = AtomicUsize::new(Allocator::Works as usize);

struct Unreliable;

// SAFETY: what returns is the system's.
unsafe impl GlobalAlloc for Unreliable {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if ALLOCATOR.load(Ordering::Relaxed) == Allocator::Overflows as usize {
            black_box(fall(0));
        }
        while ALLOCATOR.load(Ordering::Relaxed) == Allocator::Hangs as usize {
            thread::yield_now();
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static UNRELIABLE: Unreliable = Unreliable;

/// Checks that an overflow is told of although the report can neither allocate nor wait for ever.
#[track_caller]
fn assert_told_all_the_same(name: &str) {
    let start = Instant::now();
    let output = again(name);
    assert_eq!(output.status.signal(), ABORT, "{output:#?}");
    let stderr = stderr(&output);
    let told = stderr.lines().next().unwrap();
    assert!(told.ends_with(") overflowed its 256 KiB stack"), "{stderr}");
    assert!(stderr.contains(ADVICE), "{stderr}");
    assert!(stderr.matches("\n  0x").count() > 10, "{stderr}");
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_report_that_overflows_itself_is_cut_off() {
    if is_child() {
        return in_a_tasklet(|| {
            ALLOCATOR.store(Allocator::Overflows as usize, Ordering::Relaxed);
            black_box(Box::new(1));
        });
    }
    assert_told_all_the_same("a_report_that_overflows_itself_is_cut_off");
}

#[test]
fn a_report_that_hangs_is_cut_off() {
    if is_child() {
        return in_a_tasklet(|| {
            ALLOCATOR.store(Allocator::Hangs as usize, Ordering::Relaxed);
            black_box(fall(0));
        });
    }
    assert_told_all_the_same("a_report_that_hangs_is_cut_off");
}

static SIGNALS: AtomicUsize = AtomicUsize::new(0);
static STRAYED: AtomicBool = AtomicBool::new(false);

/// A handler that needs more than a small stack has left.
extern "C" fn storm(_signal: c_int) {
    let frame = black_box([1u8; 24 << 10]);
    let here = frame.as_ptr().addr();
    SIGNALS.fetch_add(frame[here % frame.len()].into(), Ordering::Relaxed);
    STRAYED.fetch_or(slot_at(here).is_some(), Ordering::Relaxed);
}

#[test]
fn a_storm_of_signals_never_touches_a_tasklets_stack() {
    if !is_child() {
        let output = again("a_storm_of_signals_never_touches_a_tasklets_stack");
        assert!(output.status.success(), "{output:#?}");
        return;
    }
    // Near the end of a stack that is smaller than the handler's frame.
    fn work(end: usize, turns: usize) {
        let frame = black_box([turns; 32]);
        if frame.as_ptr().addr() > end {
            return work(end, turns);
        }
        for _ in 0..turns {
            schedule();
            assert!(black_box(&frame).iter().all(|&word| word == turns));
        }
    }
    // SAFETY: zeros are a value of this type.
    let mut action = unsafe { mem::zeroed::<libc::sigaction>() };
    let handler: extern "C" fn(c_int) = storm;
    (action.sa_sigaction, action.sa_flags) = (handler as usize, libc::SA_ONSTACK);
    set_action(libc::SIGALRM, &action);
    // From the first tasklet on the thread has an alternate stack that is large enough. An interval timer might choose
    // another thread, whose own is std's.
    in_a_tasklet(schedule);
    // SAFETY: it asks for a number.
    let here = unsafe { libc::pthread_self() };
    static OVER: AtomicBool = AtomicBool::new(false);
    let sender = thread::spawn(move || {
        while !OVER.load(Ordering::Relaxed) {
            // SAFETY: that thread waits for this one.
            unsafe { libc::pthread_kill(here, libc::SIGALRM) };
            let sent = Instant::now();
            while sent.elapsed() < Duration::from_micros(50) {
                thread::yield_now();
            }
        }
    });

    let start = Instant::now();
    while SIGNALS.load(Ordering::Relaxed) < 300 {
        assert!(start.elapsed() < Duration::from_secs(60), "{SIGNALS:?} signals came");
        fn deep(bytes: usize) {
            let here = black_box(0u8);
            work((&raw const here).addr() - bytes, 100);
        }
        for _ in 0..20 {
            let small = crate::Builder::new().stack_size(32 << 10);
            drop(small.tasklet(|| deep(20 << 10)).unwrap());
        }
        tasklet(|| on_big_stack(|| deep(1 << 20)));
        assert_eq!(run().blocked, 0);
    }
    // At its end the thread has an alternate stack again that is too small for the handler.
    OVER.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    assert!(!STRAYED.load(Ordering::Relaxed), "a handler ran on a tasklet's stack");
    process::exit(0);
}
