//! `run`: from main, from tasklets, inside one another.

use std::{cell::Cell, panic::catch_unwind, rc::Rc};

use pila::{
    Builder, Channel, Summary, Tasklet, current, main_tasklet, run, run_count, schedule, tasklet,
};

use crate::support::{DEAD, Log, PAUSED, panic_of, silent_panic, states, text_of};

/// A counter of what was done, and a worker that schedules once and counts itself.
fn worker() -> Rc<Cell<usize>> {
    let done = Rc::new(Cell::new(0));
    let theirs = done.clone();
    tasklet(move || {
        schedule();
        theirs.set(theirs.get() + 1);
    });
    done
}

/// A tasklet that is in `run` and counts itself when that returns.
fn runner(done: &Rc<Cell<usize>>) -> Tasklet<()> {
    let done = done.clone();
    tasklet(move || {
        run();
        done.set(done.get() + 1);
    })
}

/// TestNewWatchdog.test_run_from_worker: `run` in a tasklet does not return while main keeps scheduling.
#[test]
fn run_in_a_tasklet_does_not_return_while_main_runs() {
    let done = worker();
    let runner = runner(&done);
    while done.get() == 0 {
        schedule();
    }
    assert_eq!((done.get(), states(&runner)), (1, PAUSED));
    runner.run().unwrap();
    assert_eq!((done.get(), states(&runner)), (2, DEAD));
}

/// TestNewWatchdog.test_run_from_worker_main_blocked: with main blocked, the tasklet's `run` returns when the ring is
/// empty, and it can unblock main.
#[test]
fn run_in_a_tasklet_returns_when_main_is_blocked() {
    let (done, channel) = (worker(), Channel::new());
    let (counter, theirs) = (done.clone(), channel.clone());
    tasklet(move || {
        run();
        counter.set(counter.get() + 1);
        theirs.send(()).unwrap();
    });
    channel.receive().unwrap();
    assert_eq!(done.get(), 2);
}

/// TestNewWatchdog.test_run_from_worker_main_running: a `run` inside main's `run` waits for the worker.
#[test]
fn run_inside_mains_run() {
    let done = worker();
    let theirs = done.clone();
    let runner = tasklet(move || {
        run();
        let seen = theirs.get();
        theirs.set(seen + 1);
        seen
    });
    run();
    assert_eq!((done.get(), runner.join().unwrap()), (2, 1));
}

/// TestNewWatchdog.test_inner_run_completes_first: main is still paused when the inner `run` returns.
#[test]
fn the_inner_run_returns_first() {
    let done = worker();
    let runner = tasklet(|| {
        run();
        states(&main_tasklet())
    });
    run();
    assert_eq!((done.get(), runner.join().unwrap()), (1, PAUSED));
}

/// TestNewWatchdog.test_inner_run_gets_error: a panic that nobody holds comes out of the innermost `run`.
#[test]
fn the_inner_run_gets_the_panic() {
    let done = worker();
    let runner = tasklet(|| {
        drop(tasklet(|| silent_panic("foo")));
        panic_of(run)
    });
    run();
    assert_eq!((done.get(), runner.join().unwrap().as_str()), (1, "foo"));
}

/// TestNewWatchdog.test_manual_wakeup: running main by hand ends its `run`, and the callers of `run` inside it can
/// run.
#[test]
fn waking_main_ends_the_runs_inside_its_own() {
    let done = worker();
    let (outer, inner) = (done.clone(), done.clone());
    tasklet(move || {
        tasklet(move || {
            main_tasklet().run().unwrap();
            inner.set(inner.get() + 1);
        });
        run();
        outer.set(outer.get() + 1);
    });
    run();
    assert_eq!(done.get(), 1, "only the worker has run");
    run();
    assert_eq!(done.get(), 3);
}

/// TestNewWatchdog.test_main_exiting: main's `run` does not wake another that is in `run`; a kill ends that one.
#[test]
fn mains_run_does_not_wake_another() {
    let done = worker();
    let runner = runner(&done);
    while done.get() == 0 {
        schedule();
    }
    run();
    run();
    schedule();
    assert_eq!((done.get(), states(&runner)), (1, PAUSED));
    runner.kill().unwrap();
    assert_eq!((done.get(), states(&runner)), (1, DEAD));
}

/// TestNewWatchdog.test_schedule_deeper_soft: the caller of an inner `run` that was inserted by hand is in the ring
/// once, also when the outer `run` ends after that.
#[test]
fn a_runner_is_in_the_ring_once() {
    let log = Log::default();
    let inner_log = log.clone();
    let inner = tasklet(move || {
        run();
        inner_log.add("inner");
    });
    let handle = (*inner).clone();
    tasklet(move || {
        handle.insert().unwrap();
        main_tasklet().insert().unwrap();
        handle.insert().unwrap();
        assert_eq!(run_count(), 3);
        schedule();
    });
    // The inner one returns first, then main's own, then there is the waker's second turn.
    run();
    log.add("|");
    assert_eq!(run_count(), 2);
    run();
    log.assert("inner |");
}

/// TestWatchdog.test_run_return: `run` gives the same when main has been switched away from and back before.
#[test]
fn run_returns_the_same_after_a_switch() {
    let main = current();
    let back = tasklet(move || main.insert().unwrap());
    back.switch().unwrap();
    tasklet(|| ());
    let done = run();
    assert_eq!((done.finished, done.blocked, done.paused), (1, 0, 0));
    assert_eq!(run(), Summary::default());
}

/// TestWatchdog.test_exception: a panic leaves `run` while others remain, and they go on afterwards.
#[test]
fn a_panic_leaves_run_and_the_others_remain() {
    for name in ["t1", "t2", "t3"] {
        drop(tasklet(move || silent_panic(name)));
    }
    for name in ["t1", "t2", "t3"] {
        assert_eq!(panic_of(run), name);
    }
    assert_eq!(run_count(), 1);
}

/// Schedules at the depth of `depth` calls.
fn schedule_below(depth: u32) -> u32 {
    if depth == 0 {
        schedule();
        return 0;
    }
    std::hint::black_box(schedule_below(depth - 1) + 1)
}

/// TestWatchdog.test_nested: three tasklets that schedule below 1, 10, 100 and 500 calls end, and each call returns.
#[test]
fn schedule_below_many_calls() {
    let tasklets = ["t1", "t2", "t3"]
        .map(|_| tasklet(|| [1, 10, 100, 500].map(schedule_below).into_iter().sum::<u32>()));
    assert_eq!(run().finished, 3);
    assert_eq!(tasklets.map(|tasklet| tasklet.join().unwrap()), [611; 3]);
}

/// TestWatchdog.test_nested2: the same with main taking turns instead of `run`.
#[test]
fn schedule_below_many_calls_with_main_in_the_ring() {
    let tasklets = ["t1", "t2", "t3"]
        .map(|_| tasklet(|| [1, 10, 100, 500].map(schedule_below).into_iter().sum::<u32>()));
    let mut turns = 0;
    while run_count() > 1 {
        schedule();
        turns += 1;
    }
    assert_eq!((turns, tasklets.map(|tasklet| tasklet.join().unwrap())), (5, [611; 3]));
}

/// test_capi.test_tasklet_switch: `run` from inside nested calls of a tasklet that others switch to and from.
#[test]
fn run_below_nested_calls() {
    fn run_below(depth: u32) -> usize {
        if depth == 0 { run().finished } else { std::hint::black_box(run_below(depth - 1)) }
    }
    let deep = tasklet(|| {
        tasklet(schedule);
        run_below(50)
    });
    run();
    assert_eq!(deep.join().unwrap(), 1);
}

/// test_capi.test_cstack_spilling: a very large frame on a stack that was made for it survives switches.
#[test]
fn a_very_large_frame() {
    let large = Builder::new().stack_size(8 << 20).tasklet(|| {
        let frame = std::hint::black_box([7_u8; 2 << 20]);
        schedule();
        frame.iter().map(|&byte| u64::from(byte)).sum::<u64>()
    });
    assert_eq!(large.unwrap().join().unwrap(), 7 * (2 << 20));
}

/// TestCframe.test_cframe: two tasklets, a hundred turns each.
#[test]
fn two_tasklets_take_a_hundred_turns() {
    let log = Log::default();
    for name in ["a", "b"] {
        let log = log.clone();
        tasklet(move || {
            for _ in 0..100 {
                log.add(name);
                schedule();
            }
        });
    }
    run();
    log.assert(&["a b"; 100].join(" "));
}

/// TestCframe.test_cframe_nr: the same below nested calls.
#[test]
fn two_tasklets_take_a_hundred_turns_below_calls() {
    let log = Log::default();
    for name in ["a", "b"] {
        let log = log.clone();
        tasklet(move || {
            for _ in 0..100 {
                log.add(name);
                schedule_below(20);
            }
        });
    }
    run();
    log.assert(&["a b"; 100].join(" "));
}

/// test_outside.test_outside1: a host without a main of its own, a fresh thread, drives tasklets with `run`.
#[test]
fn a_host_drives_tasklets() {
    let host = std::thread::spawn(|| {
        let counts = [1, 2, 3].map(|_| tasklet(|| schedule_below(3)));
        let done = run();
        (done.finished, counts.map(|count| count.join().unwrap()))
    });
    assert_eq!(host.join().unwrap(), (3, [3; 3]));
}

/// test_outside.test_outside2: the same with values that travel over a channel to the host.
#[test]
fn a_host_talks_to_tasklets() {
    let host = std::thread::spawn(|| {
        let channel = Channel::new();
        let theirs = channel.clone();
        tasklet(move || {
            theirs.send_all(0..100).unwrap();
            theirs.close();
        });
        channel.iter().sum::<i32>()
    });
    assert_eq!(host.join().unwrap(), 4950);
}

/// EmbeddingTests.test_schedule: a host's `schedule` runs a tasklet.
#[test]
fn a_hosts_schedule_runs_a_tasklet() {
    let host = std::thread::spawn(|| {
        let tasklet = tasklet(|| ());
        schedule();
        states(&tasklet)
    });
    assert_eq!(host.join().unwrap(), DEAD);
}

/// own runs return innermost first: each caller of `run` is paused until those inside its own have returned.
#[test]
fn runs_return_innermost_first() {
    let log = Log::default();
    let (outer, inner) = (log.clone(), log.clone());
    tasklet(move || {
        tasklet(move || {
            tasklet(schedule);
            run();
            inner.add("inner");
        });
        run();
        outer.add("outer");
    });
    run();
    log.add("main");
    log.assert("inner outer main");
}

/// own run of an empty ring: it returns at once, also with tasklets blocked or paused, and says how many.
#[test]
fn run_of_an_empty_ring_returns() {
    tasklet(|| drop(Channel::<()>::new().receive()));
    let paused = Tasklet::bind(|| ());
    assert_eq!(run().blocked, 1);
    let done = run();
    assert_eq!((done.finished, done.blocked, done.paused), (0, 1, 1));
    assert_eq!(states(&paused), PAUSED);
}

/// own a panic for one that is killed: a panic that nobody holds passes by the caller of `run` that is being killed,
/// and comes out of main; nobody else ever gets it.
#[test]
fn a_panic_passes_by_one_that_is_killed() {
    let runner = tasklet(|| drop(panic_of(run)));
    schedule();
    assert_eq!(states(&runner), PAUSED);
    drop(tasklet(|| silent_panic("for main")));
    runner.kill_later().unwrap();
    let told = catch_unwind(schedule).err().map(|payload| text_of(&*payload));
    run();
    assert_eq!(states(&runner), DEAD);
    // It has the place of the dead one in the table.
    let stranger = tasklet(|| {
        tasklet(schedule);
        catch_unwind(run).err().map(|payload| text_of(&*payload))
    });
    run();
    assert_eq!((told.as_deref(), stranger.join().unwrap()), (Some("for main"), None));
}
