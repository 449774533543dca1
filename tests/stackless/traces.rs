//! The golden traces of the specification, and the order of waiters.
//!
//! `|` is main going on. The ring is read off what a `run` does after it.

use pila::{Channel, run, run_count, schedule, tasklet};

use crate::support::Log;

/// G1: three tasklets and a run.
#[test]
fn g1_tasklets_take_turns() {
    let log = Log::default();
    for name in ["a", "b", "c"] {
        log.two_turns(name);
    }
    run();
    log.assert("a0 b0 c0 a. b. c.");
}

/// G2: main schedules twice.
#[test]
fn g2_main_is_in_the_ring() {
    let log = Log::default();
    for name in ["a", "b", "c"] {
        log.two_turns(name);
    }
    for _ in 0..2 {
        schedule();
        log.add("|");
    }
    log.assert("a0 b0 c0 | a. b. c. |");
}

/// G3: `run` of one in the ring jumps to it; those before it wait for the next round.
#[test]
fn g3_run_of_a_scheduled_one_jumps() {
    let log = Log::default();
    let [_a, b, _c] = ["a", "b", "c"].map(|name| log.two_turns(name));
    b.run().unwrap();
    log.add("|");
    assert_eq!(run_count(), 4);
    run();
    log.assert("b0 c0 | a0 b. c. a.");
}

/// G4: `run` of a paused one puts it just before the caller.
#[test]
fn g4_run_of_a_paused_one_returns_to_the_caller() {
    let log = Log::default();
    let [_a, b, _c] = ["a", "b", "c"].map(|name| log.two_turns(name));
    b.remove().unwrap();
    b.run().unwrap();
    log.add("|");
    assert_eq!(run_count(), 4);
    run();
    log.assert("b0 | a0 c0 b. a. c.");
}

/// G5: what is removed and inserted is at the tail, once.
#[test]
fn g5_removed_and_inserted_goes_to_the_tail() {
    let log = Log::default();
    let [a, _b, _c] = ["a", "b", "c"].map(|name| log.two_turns(name));
    a.remove().unwrap();
    assert_eq!(run_count(), 3);
    a.insert().unwrap();
    a.insert().unwrap();
    assert_eq!(run_count(), 4);
    run();
    log.assert("b0 c0 a0 b. c. a.");
}

/// G6: what a tasklet creates runs before its creator's second turn.
#[test]
fn g6_a_new_one_is_at_its_creators_tail() {
    let log = Log::default();
    let (x, n) = (log.clone(), log.clone());
    tasklet(move || {
        x.add("x0");
        tasklet(move || n.add("n."));
        schedule();
        x.add("x.");
    });
    for name in ["b", "c"] {
        log.two_turns(name);
    }
    run();
    log.assert("x0 b0 c0 n. x. b. c.");
}

/// G7: the kill of a scheduled one returns with nobody else run in between.
#[test]
fn g7_kill_of_a_scheduled_one_returns_first() {
    let log = Log::default();
    let [_a, b, _c] = ["a", "b", "c"].map(|name| log.three_turns(name));
    schedule();
    log.assert("a0 b0 c0");
    b.kill().unwrap();
    log.add("|");
    assert_eq!(run_count(), 3);
    run();
    log.assert("a0 b0 c0 b! | a1 c1 a2 c2");
}

/// G8: the kill of a paused or blocked one returns at once.
#[test]
fn g8_kill_of_a_paused_or_blocked_one_returns_at_once() {
    let log = Log::default();
    let [_a, b, _c] = ["a", "b", "c"].map(|name| log.three_turns(name));
    schedule();
    b.remove().unwrap();
    b.kill().unwrap();
    log.add("|");
    assert_eq!(run_count(), 3);
    run();
    log.assert("a0 b0 c0 b! | a1 c1 a2 c2");

    let (log, channel) = (Log::default(), Channel::<()>::new());
    let theirs = channel.clone();
    let blocked = tasklet(move || theirs.receive());
    schedule();
    for name in ["a", "c"] {
        log.two_turns(name);
    }
    blocked.kill().unwrap();
    log.add("|");
    assert_eq!((channel.balance(), run_count()), (0, 3));
    run();
    log.assert("| a0 c0 a. c.");
}

/// G9: a pending kill leaves the ring as it is; the victim dies at its own turn.
#[test]
fn g9_a_pending_kill_waits_for_the_victims_turn() {
    let log = Log::default();
    let [_a, b, _c] = ["a", "b", "c"].map(|name| log.three_turns(name));
    schedule();
    b.kill_later().unwrap();
    log.add("|");
    assert_eq!(run_count(), 4);
    run();
    log.assert("a0 b0 c0 | a1 b! c1 a2 c2");
}

/// G10: the kill of a scheduled one that never started: its body never runs.
#[test]
fn g10_kill_of_one_that_never_started() {
    let log = Log::default();
    let [_a, b, _c] = ["a", "b", "c"].map(|name| log.two_turns(name));
    b.kill().unwrap();
    log.add("|");
    assert_eq!(run_count(), 3);
    run();
    log.assert("| a0 c0 a. c.");
}

/// own FIFO of waiters: those who wait on a channel are served in the order they came.
#[test]
fn waiters_are_served_first_come_first() {
    let (log, channel) = (Log::default(), Channel::new());
    for name in ["r1", "r2", "r3"] {
        let (log, channel) = (log.clone(), channel.clone());
        tasklet(move || log.add(format!("{name}={}", channel.receive().unwrap())));
    }
    run();
    for value in 1..=3 {
        channel.send(value).unwrap();
    }
    log.assert("r1=1 r2=2 r3=3");

    for value in 4..=6 {
        let channel = channel.clone();
        tasklet(move || channel.send(value));
    }
    run();
    let received: Vec<_> = (0..3).map(|_| channel.receive().unwrap()).collect();
    assert_eq!(received, [4, 5, 6]);
}
