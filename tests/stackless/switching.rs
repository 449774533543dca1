//! `run` and `switch` of one tasklet, `schedule`, `schedule_remove`, `current`, `run_count`.

use std::{cell::Cell, rc::Rc};

use pila::{
    Channel, Tasklet, TaskletError, current, main_tasklet, run, run_count, schedule,
    schedule_remove, tasklet,
};

use crate::support::{BLOCKED, CURRENT, DEAD, Log, PAUSED, SCHEDULED, states};

/// TestTaskletSwitching.test_run: `t.run()` runs it at once.
#[test]
fn run_is_immediate() {
    let ran = Rc::new(Cell::new(false));
    let theirs = ran.clone();
    let tasklet = tasklet(move || theirs.set(true));
    tasklet.run().unwrap();
    assert!(ran.get());
}

/// TestTaskletSwitching.test_switch_to_current: switching to oneself, twice, is nothing.
#[test]
fn switch_to_current() {
    current().switch().unwrap();
    current().switch().unwrap();
    assert_eq!((states(&current()), run_count()), (CURRENT, 1));
}

/// TestSwitch.test_switch: the caller is paused in the target, which inserts it again.
#[test]
fn switch_pauses_the_caller() {
    let main = current();
    let target = tasklet(move || {
        assert_eq!(states(&main), PAUSED);
        main.insert().unwrap();
        assert_eq!(states(&main), SCHEDULED);
    });
    target.switch().unwrap();
    target.join().unwrap();
}

/// TestSwitch.test_switch_self: switching to oneself leaves the caller as it is.
#[test]
fn switch_to_oneself() {
    let own = tasklet(|| {
        current().switch().unwrap();
        states(&current())
    });
    run();
    assert_eq!(own.join().unwrap(), CURRENT);
}

/// TestSwitch.test_switch_blocked: switching to a blocked one is an error and changes neither.
#[test]
fn switch_to_a_blocked_one() {
    let channel = Channel::<()>::new();
    let theirs = channel.clone();
    let blocked = tasklet(move || theirs.receive().is_ok());
    run();
    assert!(matches!(blocked.switch(), Err(TaskletError::Blocked(_))));
    assert_eq!((states(&blocked), channel.balance()), (BLOCKED, -1));
    assert_eq!(states(&current()), CURRENT);
}

/// TestSwitch.test_switch_paused: switching to one that is paused and never started.
#[test]
fn switch_to_a_paused_one() {
    let main = current();
    let target = Tasklet::bind(move || {
        assert_eq!(states(&main), PAUSED);
        main.insert().unwrap();
    });
    target.switch().unwrap();
    target.join().unwrap();
}

/// TestSchedule.testSchedule: the caller of `schedule` is scheduled while the other runs.
#[test]
fn the_caller_of_schedule_is_scheduled() {
    let main = current();
    let other = tasklet(move || states(&main));
    assert_eq!(states(&other), SCHEDULED);
    schedule();
    assert_eq!(states(&other), DEAD);
    assert_eq!(other.join().unwrap(), SCHEDULED);
}

/// TestSchedule.testScheduleRemoveFail: after `schedule_remove` the caller is not scheduled; another inserts it.
#[test]
fn the_caller_of_schedule_remove_is_not() {
    let main = current();
    let other = tasklet(move || {
        let before = states(&main);
        main.insert().unwrap();
        (before, states(&main))
    });
    schedule_remove();
    assert_eq!(other.join().unwrap(), (PAUSED, SCHEDULED));
}

/// test_capi.test_softswitchablefunc: a function deep in calls that goes on, schedules or removes itself, as it is
/// told.
#[test]
fn a_function_that_switches_or_not() {
    fn demo(action: i32) -> i32 {
        match action {
            0 => {}
            1 => schedule(),
            _ => schedule_remove(),
        }
        action
    }
    let tasklets = [0, 1, 2].map(|action| tasklet(move || std::hint::black_box(demo(action))));
    schedule();
    assert_eq!(tasklets.each_ref().map(|tasklet| states(tasklet)), [DEAD, SCHEDULED, PAUSED]);
    run();
    assert_eq!(tasklets.each_ref().map(|tasklet| states(tasklet)), [DEAD, DEAD, PAUSED]);
    tasklets[2].insert().unwrap();
    assert_eq!(tasklets.map(|tasklet| tasklet.join().unwrap()), [0, 1, 2]);
}

/// test_capi.test_softswitchablemethod: the same for a method, whose object lives on the suspended stack.
#[test]
fn a_method_that_switches() {
    struct Demo(i32);
    impl Demo {
        fn demo(&mut self) -> i32 {
            self.0 += 1;
            schedule_remove();
            self.0 += 1;
            self.0
        }
    }
    let tasklet = tasklet(|| Demo(40).demo());
    run();
    assert_eq!(states(&tasklet), PAUSED);
    tasklet.insert().unwrap();
    assert_eq!(tasklet.join().unwrap(), 42);
}

/// testsuite.testAttr_prev_next: the first new tasklet is between main and main, the second between the first and
/// main: each is run by the one before it.
#[test]
fn new_ones_line_up_before_main() {
    let log = Log::default();
    log.two_turns("t");
    schedule();
    log.add("|");
    log.two_turns("t2");
    schedule();
    log.add("|");
    schedule();
    log.assert("t0 | t. t20 | t2.");
}

/// testsuite.testRuncount: the caller and the scheduled count; the blocked and the paused do not.
#[test]
fn run_count_counts_the_ring() {
    assert_eq!(run_count(), 1);
    let first = tasklet(schedule_remove);
    assert_eq!(run_count(), 2);
    let second = tasklet(|| Channel::<()>::new().receive().is_ok());
    assert_eq!(run_count(), 3);
    schedule();
    assert_eq!((run_count(), states(&first), states(&second)), (1, PAUSED, BLOCKED));
    let alone = tasklet(run_count);
    run();
    assert_eq!(alone.join().unwrap(), 1, "main is not in the ring while it is in `run`");
}

/// testsuite.testCurrent2: inside a tasklet `current` is that tasklet and no longer main.
#[test]
fn current_is_the_one_that_runs() {
    assert!(current().is_main() && current().is_current());
    let own = tasklet(|| (current().id(), current().is_main(), main_tasklet().is_current()));
    let id = own.id();
    run();
    assert_eq!(own.join().unwrap(), (id, false, false));
    assert_eq!(current().id(), main_tasklet().id());
}

/// GetThreadInfoTest.testWithTasklets: main, current and the run count agree on main and in a tasklet.
#[test]
fn thread_info_agrees() {
    let info = || (main_tasklet().id(), current().id(), run_count());
    let main = main_tasklet().id();
    assert_eq!(info(), (main, main, 1));
    let own = tasklet(info);
    let id = own.id();
    assert_eq!(info(), (main, main, 2));
    schedule();
    assert_eq!(own.join().unwrap(), (main, id, 2));
}
