//! What is told when a tasklet runs off its stack, and what happens to every other fault.
//!
//! Each test has a process of its own that dies of it. Handlers of the user's are in the unit tests of
//! `runtime/src/overflow.rs`, for to install one is not safe.

use std::{
    hint::black_box,
    os::unix::process::ExitStatusExt,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use pila::{Builder, on_big_stack, on_stack_of, run, schedule, sleep, tasklet};
use rerun::{again, is_child, text};

mod rerun;

const ABORT: i32 = 6;

/// How long the names of functions may take before the process ends without them.
const PATIENCE: Duration = Duration::from_secs(5);

const ADVICE: &str =
    "give it more with Builder::stack_size, or run what recurses in on_big_stack or on_stack_of";

/// Runs off the end of its stack.
#[inline(never)]
fn fall(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { fall(depth + 1) + frame[3] }
}

/// The process of the test `name`, which must have died of an abort.
#[track_caller]
fn aborted(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert_eq!(output.status.signal(), Some(ABORT), "{}", text(&output));
    output
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Checks that the process of the test `name` tells first and exactly of `whose` overflow, and then all the rest.
#[track_caller]
fn assert_told(command: &mut Command, whose: &str) {
    let begun = Instant::now();
    let output = aborted(command);
    let took = begun.elapsed();
    let stderr = stderr(&output);
    let mut lines = stderr.lines();
    assert_eq!(lines.next(), Some(whose), "{}", text(&output));
    assert_eq!(lines.next(), Some(ADVICE), "{}", text(&output));
    let rest: Vec<_> = lines.collect();
    assert!(rest[0].starts_with("called by, last first (the program begins at 0x"), "{stderr}");
    let addresses = rest[1..].iter().take_while(|line| line.starts_with("  0x")).count();
    assert!(addresses >= 10, "{addresses} addresses: {stderr}");
    if took > PATIENCE {
        // It takes a tenth of a second of processor time. On a machine that has none to spare it is cut off.
        return println!("the names were given up after {took:?}");
    }
    // Its name comes once for each frame, of which there may be hundreds: not all of them are told.
    let names = stderr.matches("overflow::fall").count();
    assert!((10..60).contains(&names), "{names} names: {stderr}");
}

#[test]
fn it_names_the_tasklet_where_it_was_created_and_its_size() {
    let line = line!() + 2;
    if is_child() {
        drop(Builder::new().name("mail-17").tasklet(|| black_box(fall(0))).unwrap());
        run();
        return;
    }
    let told = format!(
        "tasklet 'mail-17' (#1, created at tests/overflow.rs:{line}) overflowed its 256 KiB stack"
    );
    let name = "it_names_the_tasklet_where_it_was_created_and_its_size";
    assert_told(&mut again(name), &told);
    assert_told(again(name).env("PILA_STACK_GUARD", "mprotect"), &told);
}

#[test]
fn one_without_a_name_goes_by_its_number() {
    let line = line!() + 4;
    if is_child() {
        tasklet(schedule);
        tasklet(schedule);
        tasklet(|| black_box(fall(0)));
        run();
        return;
    }
    let told =
        format!("tasklet #3 (created at tests/overflow.rs:{line}) overflowed its 256 KiB stack");
    assert_told(&mut again("one_without_a_name_goes_by_its_number"), &told);
}

#[test]
fn one_that_took_a_stack_over_is_told_of_and_not_the_one_before() {
    let line = line!() + 3;
    if is_child() {
        drop(tasklet(|| ()));
        drop(tasklet(|| black_box(fall(0))));
        run();
        return;
    }
    let told =
        format!("tasklet #2 (created at tests/overflow.rs:{line}) overflowed its 256 KiB stack");
    let name = "one_that_took_a_stack_over_is_told_of_and_not_the_one_before";
    assert_told(&mut again(name), &told);
}

#[test]
#[cfg_attr(
    feature = "sanitizer",
    ignore = "AddressSanitizer reaches over the guard in so large a frame"
)]
fn one_whose_result_has_no_room_is_told_of_before_it_begins() {
    let line = line!() + 2;
    if is_child() {
        let large = Builder::new().name("large").tasklet(|| black_box([7_u8; 300_000])).unwrap();
        drop(large.join());
        return;
    }
    let output = aborted(&mut again("one_whose_result_has_no_room_is_told_of_before_it_begins"));
    let told = format!(
        "tasklet 'large' (#1, created at tests/overflow.rs:{line}) overflowed its 256 KiB stack"
    );
    assert_eq!(stderr(&output).lines().next(), Some(&*told), "{}", text(&output));
}

/// Waits with so many bytes, or a little less, between here and `end`.
#[inline(never)]
fn wait_near(end: usize) {
    let frame = black_box([0_u8; 64]);
    match frame.as_ptr().addr() > end {
        true => wait_near(end),
        false => drop(pila::Channel::<u64>::new().receive()),
    }
    black_box(frame);
}

#[test]
fn one_for_whose_wait_there_is_no_room_is_told_of_wherever_that_ends() {
    let line = line!() + 7;
    if is_child() {
        let left: usize = std::env::var("LEFT").unwrap().parse().unwrap();
        let body = move || {
            let here = black_box(0_u8);
            wait_near((&raw const here).addr() - (64 << 10) + left);
        };
        drop(Builder::new().stack_size(64 << 10).tasklet(body).unwrap());
        run();
        return;
    }
    let name = "one_for_whose_wait_there_is_no_room_is_told_of_wherever_that_ends";
    let told =
        format!("tasklet #1 (created at tests/overflow.rs:{line}) overflowed its 64 KiB stack");
    let mut ended_by_it = 0;
    // From where it does not get to the wait to where there is room for it.
    for left in (400..10_000).step_by(200) {
        let output = again(name).env("LEFT", left.to_string()).output().unwrap();
        if output.status.signal() == Some(ABORT) {
            assert_eq!(stderr(&output).lines().next(), Some(&*told), "{}", text(&output));
            ended_by_it += 1;
        }
    }
    assert!(ended_by_it > 2, "{ended_by_it}");
}

#[test]
fn one_that_has_waited_is_told_of_all_the_same() {
    if is_child() {
        let fall = move || {
            tasklet(|| sleep(Duration::from_secs(1)));
            sleep(Duration::from_millis(1));
            schedule();
            black_box(fall(0))
        };
        drop(Builder::new().name("large").stack_size(1_000_000).tasklet(fall).unwrap());
        run();
        return;
    }
    let line = line!() - 4;
    let told = format!(
        "tasklet 'large' (#1, created at tests/overflow.rs:{line}) overflowed its 1 MiB stack"
    );
    assert_told(&mut again("one_that_has_waited_is_told_of_all_the_same"), &told);
}

#[test]
fn it_works_on_any_thread() {
    let line = line!() + 4;
    if is_child() {
        tasklet(schedule);
        run();
        pila::spawn_thread(|| tasklet(|| black_box(fall(0))).join())
            .unwrap()
            .join()
            .unwrap()
            .unwrap();
        return;
    }
    let told =
        format!("tasklet #1 (created at tests/overflow.rs:{line}) overflowed its 256 KiB stack");
    assert_told(&mut again("it_works_on_any_thread"), &told);
}

#[test]
fn a_big_stack_is_told_of_by_its_own_size() {
    let line = line!() + 2;
    if is_child() {
        let tasklet = tasklet(|| on_big_stack(|| (schedule(), black_box(fall(0))).1));
        tasklet.join().unwrap().unwrap();
        return;
    }
    let told =
        format!("tasklet #1 (created at tests/overflow.rs:{line}) overflowed its 64 MiB stack");
    assert_told(&mut again("a_big_stack_is_told_of_by_its_own_size"), &told);
}

#[test]
fn main_may_overflow_a_big_stack_too() {
    if is_child() {
        let fall = || {
            let other = tasklet(|| 7);
            black_box(fall(other.join().unwrap()))
        };
        on_stack_of(1 << 20, fall).unwrap();
        return;
    }
    let told = "tasklet 'main' (#0) overflowed its 1 MiB stack";
    assert_told(&mut again("main_may_overflow_a_big_stack_too"), told);
}

/// What std tells of threads that run off their stacks.
#[track_caller]
fn assert_std_tells(command: &mut Command, thread: &str) {
    let output = aborted(command);
    let stderr = stderr(&output);
    let told = stderr.lines().find(|line| line.ends_with("has overflowed its stack"));
    assert!(told.is_some_and(|told| told.contains(&format!("thread '{thread}'"))), "{stderr}");
    assert!(!stderr.contains("tasklet"), "{stderr}");
}

#[test]
fn std_still_tells_of_an_ordinary_thread() {
    if is_child() {
        tasklet(schedule);
        run();
        let fall = || black_box(fall(0));
        thread::Builder::new().name("mine".into()).spawn(fall).unwrap().join().unwrap();
        return;
    }
    assert_std_tells(&mut again("std_still_tells_of_an_ordinary_thread"), "mine");
}

#[test]
fn std_still_tells_of_a_thread_with_tasklets() {
    if is_child() {
        let fall = || {
            tasklet(schedule);
            run();
            black_box(fall(0))
        };
        thread::Builder::new().name("mine".into()).spawn(fall).unwrap().join().unwrap();
        return;
    }
    assert_std_tells(&mut again("std_still_tells_of_a_thread_with_tasklets"), "mine");
}

#[test]
fn std_still_tells_of_the_main_thread() {
    if is_child() {
        tasklet(schedule);
        run();
        black_box(fall(0));
        return;
    }
    // With one thread for all tests the harness runs them on its own.
    let name = "std_still_tells_of_the_main_thread";
    let mut command = again(name);
    command.env("RUST_TEST_THREADS", "1");
    let output = aborted(&mut command);
    let stderr = stderr(&output);
    assert!(stderr.contains("has overflowed its stack"), "{stderr}");
    assert!(!stderr.contains("tasklet"), "{stderr}");
}

#[test]
fn a_thread_gives_its_alternate_stack_back() {
    rerun::in_its_own_process("a_thread_gives_its_alternate_stack_back", || {
        let mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
        let some = |count: usize| {
            for _ in 0..count {
                thread::spawn(|| (drop(tasklet(schedule)), run())).join().unwrap();
            }
        };
        some(10);
        let before = mappings();
        some(200);
        let after = mappings();
        assert!(after < before + 20, "{before} mappings before, {after} after");
    });
}
