//! `no_switch`, which is Stackless' `switch_trap`: what would switch fails and changes nothing; then it works.

use pila::{
    Channel, ReceiveError, Refused, SendReason, Tasklet, TaskletError, current, no_switch, run,
    run_count, schedule, schedule_remove, tasklet,
};

use crate::support::{BLOCKED, DEAD, Log, PAUSED, SCHEDULED, panic_of, states};

#[track_caller]
fn assert_names_the_guard(text: &str) {
    assert!(text.contains("no_switch guard made at") && text.contains(file!()), "{text}");
}

fn is_refused(result: &Result<(), TaskletError>) -> bool {
    matches!(result, Err(TaskletError::Refused(_, Refused::NoSwitch(_))))
}

/// TestSwitchTrap.test_schedule: a trapped `schedule` panics and names the guard; nobody has run.
#[test]
fn trapped_schedule() {
    let tasklet = tasklet(|| ());
    let guard = no_switch();
    assert_names_the_guard(&panic_of(schedule));
    assert_eq!((states(&tasklet), run_count()), (SCHEDULED, 2));
    drop(guard);
    schedule();
    assert_eq!(states(&tasklet), DEAD);
}

/// TestSwitchTrap.test_schedule_remove: a trapped `schedule_remove` panics, and the caller is still scheduled.
#[test]
fn trapped_schedule_remove() {
    let main = current();
    tasklet(move || main.insert().unwrap());
    let guard = no_switch();
    assert_names_the_guard(&panic_of(schedule_remove));
    assert_eq!(run_count(), 2);
    drop(guard);
    schedule_remove();
    assert_eq!(run_count(), 1);
}

/// TestSwitchTrap.test_run: a trapped `run` panics when there is someone to run.
#[test]
fn trapped_run() {
    let tasklet = tasklet(|| ());
    let guard = no_switch();
    assert_names_the_guard(&panic_of(run));
    assert_eq!(states(&tasklet), SCHEDULED);
    drop(guard);
    assert_eq!(run().finished, 1);
}

/// TestSwitchTrap.test_run_specific: a trapped `t.run()` is an error.
#[test]
fn trapped_run_of_one() {
    let tasklet = tasklet(|| ());
    let guard = no_switch();
    assert!(is_refused(&tasklet.run()));
    assert_eq!(states(&tasklet), SCHEDULED);
    drop(guard);
    tasklet.run().unwrap();
    assert_eq!(states(&tasklet), DEAD);
}

/// TestSwitchTrap.test_run2: the same in a tasklet, and the error names the guard.
#[test]
fn trapped_run_of_one_in_a_tasklet() {
    let other = tasklet(|| ());
    tasklet(move || {
        let guard = no_switch();
        assert_names_the_guard(&other.run().unwrap_err().to_string());
        drop(guard);
        other.run().unwrap();
        assert_eq!(states(&other), DEAD);
    })
    .run()
    .unwrap();
}

/// TestSwitchTrap.test_run_paused: a trapped `t.run()` leaves a paused one paused.
#[test]
fn trapped_run_of_a_paused_one() {
    let paused = Tasklet::bind(|| ());
    let guard = no_switch();
    assert!(is_refused(&paused.run()));
    assert_eq!((states(&paused), run_count()), (PAUSED, 1));
    drop(guard);
    paused.run().unwrap();
}

/// TestSwitchTrap.test_send: a trapped send that would switch fails, whether it would block or hand over.
#[test]
fn trapped_send() {
    let channel = Channel::new();
    let theirs = channel.clone();
    let receiver = tasklet(move || theirs.receive().unwrap());
    let attempt = || {
        let _guard = no_switch();
        let error = channel.send(7).unwrap_err();
        assert!(matches!(error.reason, SendReason::Refused(Refused::NoSwitch(_))));
        assert_eq!(error.value, 7);
    };
    attempt();
    assert_eq!((states(&receiver), channel.balance()), (SCHEDULED, 0));
    schedule();
    attempt();
    assert_eq!((states(&receiver), channel.balance()), (BLOCKED, -1));
    channel.send(7).unwrap();
    assert_eq!(receiver.join().unwrap(), 7);
}

/// TestSwitchTrap.test_send_throw: the same for an error that is sent.
#[test]
fn trapped_send_of_an_error() {
    let channel = Channel::<()>::new();
    let theirs = channel.clone();
    let receiver = tasklet(move || theirs.receive().unwrap_err().to_string());
    let attempt = || {
        let _guard = no_switch();
        let refused = channel.send_error("not implemented");
        assert!(matches!(refused, Err(SendReason::Refused(Refused::NoSwitch(_)))));
    };
    attempt();
    schedule();
    attempt();
    assert_eq!((states(&receiver), channel.balance()), (BLOCKED, -1));
    channel.send_error("not implemented").unwrap();
    assert_eq!(receiver.join().unwrap(), "not implemented");
}

/// TestSwitchTrap.test_receive: a trapped receive that would switch fails, whether it would block or hand over.
#[test]
fn trapped_receive() {
    let channel = Channel::new();
    channel.set_preference(pila::Preference::Sender);
    let theirs = channel.clone();
    let sender = tasklet(move || theirs.send(1));
    let attempt = || {
        let _guard = no_switch();
        let refused = channel.receive().unwrap_err();
        assert!(matches!(refused, ReceiveError::Refused(Refused::NoSwitch(_))));
    };
    attempt();
    assert_eq!((states(&sender), channel.balance()), (SCHEDULED, 0));
    schedule();
    attempt();
    assert_eq!((states(&sender), channel.balance()), (BLOCKED, 1));
    assert_eq!(channel.receive().unwrap(), 1);
}

/// TestSwitchTrap.test_receive_throw: a trapped receive fails with the guard; then the sender's error comes.
#[test]
fn trapped_receive_of_an_error() {
    let channel = Channel::<()>::new();
    let theirs = channel.clone();
    tasklet(move || theirs.send_error("not implemented"));
    let guard = no_switch();
    let refused = channel.receive().unwrap_err();
    assert!(matches!(refused, ReceiveError::Refused(Refused::NoSwitch(_))));
    drop(guard);
    assert_eq!(channel.receive().unwrap_err().to_string(), "not implemented");
}

/// TestSwitchTrap.test_raise_exception: a trapped throw leaves its target blocked; a later one arrives.
#[test]
fn trapped_throw() {
    let channel = Channel::<()>::new();
    let theirs = channel.clone();
    let target = tasklet(move || theirs.receive().unwrap_err().to_string());
    target.run().unwrap();
    let guard = no_switch();
    assert!(is_refused(&target.throw("first")));
    assert_eq!((states(&target), channel.balance()), (BLOCKED, -1));
    drop(guard);
    target.throw("second").unwrap();
    assert_eq!(target.join().unwrap(), "second");
}

/// TestSwitchTrap.test_kill: a trapped kill leaves its target alive and well; a later one ends it.
#[test]
fn trapped_kill() {
    let channel = Channel::new();
    let theirs = channel.clone();
    let target = tasklet(move || theirs.receive().unwrap());
    target.run().unwrap();
    let guard = no_switch();
    assert!(is_refused(&target.kill()));
    assert_eq!((states(&target), channel.balance()), (BLOCKED, -1));
    drop(guard);
    // It was not marked either: it can still receive.
    channel.send(7).unwrap();
    assert_eq!(target.join().unwrap(), 7);

    let theirs = channel.clone();
    let target = tasklet(move || theirs.receive().is_ok());
    target.run().unwrap();
    drop(no_switch());
    target.kill().unwrap();
    assert_eq!((states(&target), channel.balance()), (DEAD, 0));
}

/// TestSwitch.test_switch_self_trapped: switching to oneself is no switch, so the guard does not mind.
#[test]
fn trapped_switch_to_oneself() {
    let guard = no_switch();
    current().switch().unwrap();
    current().run().unwrap();
    drop(guard);
    assert_eq!(run_count(), 1);
}

/// TestSwitch.test_switch_blocked_trapped: to a blocked one it is the state that forbids it.
#[test]
fn trapped_switch_to_a_blocked_one() {
    let channel = Channel::<()>::new();
    let theirs = channel.clone();
    let blocked = tasklet(move || theirs.receive().is_ok());
    run();
    let guard = no_switch();
    assert!(matches!(blocked.switch(), Err(TaskletError::Blocked(_))));
    drop(guard);
    assert_eq!((states(&blocked), channel.balance()), (BLOCKED, -1));
}

/// TestSwitch.test_switch_trapped: a trapped switch changes nothing; then it works.
#[test]
fn trapped_switch() {
    let main = current();
    let target = tasklet(move || {
        assert!(main.is_paused());
        main.insert().unwrap();
    });
    let guard = no_switch();
    assert!(is_refused(&target.switch()));
    assert_eq!((states(&target), run_count()), (SCHEDULED, 2));
    assert!(current().is_scheduled());
    drop(guard);
    target.switch().unwrap();
    assert_eq!(states(&target), DEAD);
}

/// TestSwitch.test_switch_paused_trapped: the same for a paused one.
#[test]
fn trapped_switch_to_a_paused_one() {
    let main = current();
    let target = Tasklet::bind(move || main.insert().unwrap());
    let guard = no_switch();
    assert!(is_refused(&target.switch()));
    assert_eq!((states(&target), run_count()), (PAUSED, 1));
    drop(guard);
    target.switch().unwrap();
    assert_eq!(states(&target), DEAD);
}

/// own what does not switch is allowed under the guard: creating, inserting, removing, a pending kill, an operation
/// that does not hand over, `schedule` and `run` with nobody else there.
#[test]
fn what_does_not_switch_is_allowed() {
    let log = Log::default();
    let channel = Channel::new();
    let theirs = channel.clone();
    let guard = no_switch();
    schedule();
    assert_eq!(run().finished, 0);
    drop(guard);
    tasklet(move || theirs.send(7));
    let pending = tasklet(schedule_remove);
    run();
    let guard = no_switch();
    let fresh = log.two_turns("a");
    fresh.remove().unwrap();
    fresh.insert().unwrap();
    pending.kill_later().unwrap();
    assert_eq!(channel.receive().unwrap(), 7);
    log.add("|");
    drop(guard);
    run();
    log.assert("| a0 a.");
    assert_eq!(states(&pending), DEAD);
}

/// own guards nest: switches are forbidden until the last guard has gone.
#[test]
fn guards_nest() {
    let tasklet = tasklet(|| ());
    let (outer, inner) = (no_switch(), no_switch());
    drop(outer);
    assert!(is_refused(&tasklet.run()));
    drop(inner);
    tasklet.run().unwrap();
}
