//! Errors thrown into a tasklet: the call in which it waits returns them.

use std::{error::Error, fmt};

use pila::{
    Channel, JoinError, ReceiveError, Select, SendReason, Tasklet, TaskletError, Thrown, current,
    run, schedule, schedule_remove, tasklet,
};

use crate::support::{BLOCKED, DEAD, Log, PAUSED, SCHEDULED, states};

/// An error with something to say, as `IndexError(1, 2, 3)`.
#[derive(PartialEq, Eq, Debug)]
struct IndexError(i32, i32, i32);

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index error")
    }
}

impl Error for IndexError {}

/// An error that was caused by another.
#[derive(Debug)]
struct Outer(IndexError);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("outer")
    }
}

impl Error for Outer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// One that waits for a value, and gives what its call returned.
fn receiver() -> (Tasklet<Result<(), ReceiveError>>, Channel<()>) {
    let channel = Channel::new();
    let theirs = channel.clone();
    let receiver = tasklet(move || theirs.receive());
    run();
    assert_eq!((states(&receiver), channel.balance()), (BLOCKED, -1));
    (receiver, channel)
}

fn thrown(receiver: Tasklet<Result<(), ReceiveError>>) -> Thrown {
    match receiver.join().unwrap() {
        Err(ReceiveError::Thrown(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// TestTaskletSwitching.test_raise_exception: an error raised in a blocked tasklet is what its call returns, at once.
#[test]
fn raised_in_a_blocked_tasklet() {
    let (receiver, channel) = receiver();
    receiver.throw(IndexError(1, 2, 3)).unwrap();
    assert_eq!((states(&receiver), channel.balance()), (DEAD, 0));
    assert_eq!(thrown(receiver).get().downcast_ref(), Some(&IndexError(1, 2, 3)));
}

/// TestTaskletThrowImmediate.test_throw_noargs, TestTaskletThrowImmediate.test_throw_args,
/// TestTaskletThrowImmediate.test_throw_inst: a message or an error with arguments arrives as it is; the tasklet has
/// ended when `throw` returns.
#[test]
fn thrown_at_once() {
    let (first, _channel) = receiver();
    first.throw("no arguments").unwrap();
    assert_eq!(states(&first), DEAD);
    assert_eq!(thrown(first).to_string(), "no arguments");

    let (second, _channel) = receiver();
    second.throw(Box::<dyn Error + Send + Sync>::from(IndexError(1, 2, 3))).unwrap();
    assert_eq!(states(&second), DEAD);
    assert_eq!(thrown(second).get().downcast_ref(), Some(&IndexError(1, 2, 3)));
}

/// TestTaskletThrowNonImmediate.test_throw_noargs, TestTaskletThrowNonImmediate.test_throw_args,
/// TestTaskletThrowNonImmediate.test_throw_inst: the same when pending; the tasklet is alive until its turn.
#[test]
fn thrown_later() {
    let (first, channel) = receiver();
    first.throw_later("no arguments").unwrap();
    assert_eq!((states(&first), channel.balance()), (SCHEDULED, 0));
    first.run().unwrap();
    assert_eq!(states(&first), DEAD);
    assert_eq!(thrown(first).to_string(), "no arguments");

    let (second, _channel) = receiver();
    second.throw_later(IndexError(1, 2, 3)).unwrap();
    assert!(second.is_alive());
    second.run().unwrap();
    assert_eq!(thrown(second).get().downcast_ref(), Some(&IndexError(1, 2, 3)));
}

/// TestTaskletThrowImmediate.test_throw_exc_info, TestTaskletThrowImmediate.test_throw_traceback: an error that was
/// caught elsewhere is passed on whole, with its cause.
#[test]
fn a_caught_error_is_thrown_on() {
    let (receiver, _channel) = receiver();
    receiver.throw(Outer(IndexError(1, 2, 3))).unwrap();
    let error = thrown(receiver);
    assert_eq!(error.source().unwrap().downcast_ref(), Some(&IndexError(1, 2, 3)));
}

/// TestTaskletThrowNonImmediate.test_throw_exc_info, TestTaskletThrowNonImmediate.test_throw_traceback: the same when
/// pending.
#[test]
fn a_caught_error_is_thrown_on_later() {
    let (receiver, _channel) = receiver();
    receiver.throw_later(Outer(IndexError(1, 2, 3))).unwrap();
    receiver.run().unwrap();
    let error = thrown(receiver);
    assert_eq!(error.source().unwrap().downcast_ref(), Some(&IndexError(1, 2, 3)));
}

/// TestTaskletThrowImmediate.test_new: one that never started waits in no call, so there is nothing that could return
/// the error: `throw` says so, and the tasklet runs later as if nothing had happened.
#[test]
fn thrown_at_one_that_never_started() {
    let fresh = tasklet(|| "ran");
    assert!(matches!(fresh.throw(IndexError(1, 2, 3)), Err(TaskletError::CannotThrow(_))));
    assert_eq!(states(&fresh), SCHEDULED);
    assert_eq!(fresh.join().unwrap(), "ran");
}

/// TestTaskletThrowNonImmediate.test_new: the same when pending.
#[test]
fn thrown_later_at_one_that_never_started() {
    let fresh = Tasklet::bind(|| "ran");
    assert!(matches!(fresh.throw_later(IndexError(1, 2, 3)), Err(TaskletError::CannotThrow(_))));
    assert_eq!(states(&fresh), PAUSED);
    fresh.insert().unwrap();
    assert_eq!(fresh.join().unwrap(), "ran");
}

/// TestTaskletThrowImmediate.test_dead: throwing at one that has ended is an error.
#[test]
fn thrown_at_the_dead() {
    let (receiver, channel) = receiver();
    channel.send(()).unwrap();
    run();
    assert!(matches!(receiver.throw(IndexError(1, 2, 3)), Err(TaskletError::Dead(_))));
    assert!(receiver.join().unwrap().is_ok());
}

/// TestTaskletThrowNonImmediate.test_dead: the same when pending.
#[test]
fn thrown_later_at_the_dead() {
    let (receiver, channel) = receiver();
    channel.send(()).unwrap();
    run();
    assert!(matches!(receiver.throw_later(IndexError(1, 2, 3)), Err(TaskletError::Dead(_))));
    assert!(receiver.join().unwrap().is_ok());
}

/// own throw into any call with a Result: a send hands its value back, a join and a select tell.
#[test]
fn every_call_with_a_result_returns_it() {
    let channel = Channel::new();
    let theirs = channel.clone();
    let sender = tasklet(move || theirs.send("mine").unwrap_err());
    let joiner = tasklet(|| Tasklet::<()>::bind(|| ()).join().unwrap_err());
    let selector = tasklet(|| {
        let nothing = Channel::<()>::new();
        Select::new().receive(&nothing, |received| received.unwrap_err()).wait()
    });
    run();
    sender.throw("out").unwrap();
    joiner.throw("out").unwrap();
    selector.throw("out").unwrap();
    let error = sender.join().unwrap();
    assert!(matches!(error.reason, SendReason::Thrown(ref thrown) if thrown.to_string() == "out"));
    assert_eq!((error.value, channel.balance()), ("mine", 0));
    assert!(matches!(joiner.join().unwrap(), JoinError::Thrown(_)));
    assert!(matches!(selector.join().unwrap(), ReceiveError::Thrown(_)));
}

/// own throw where no Result waits: one that sleeps, yields or has removed itself cannot be thrown at, and is left as
/// it is.
#[test]
fn calls_without_a_result_cannot_be_thrown_at() {
    let tasklets = [
        tasklet(|| pila::sleep(std::time::Duration::from_secs(3600))),
        tasklet(schedule_remove),
        tasklet(schedule),
    ];
    schedule();
    let before = tasklets.each_ref().map(|tasklet| states(tasklet));
    assert_eq!(before, [BLOCKED, PAUSED, SCHEDULED]);
    for tasklet in &tasklets {
        assert!(matches!(tasklet.throw("no"), Err(TaskletError::CannotThrow(_))));
        assert!(matches!(tasklet.throw_later("no"), Err(TaskletError::CannotThrow(_))));
    }
    assert_eq!(tasklets.each_ref().map(|tasklet| states(tasklet)), before);
    tasklets[0].kill().unwrap();
}

/// own a second pending throw: the first one has the call; the second is told that there is none left, and is not lost
/// unseen as in Stackless.
#[test]
fn a_second_pending_throw_is_refused() {
    let (receiver, _channel) = receiver();
    receiver.throw_later("first").unwrap();
    assert!(matches!(receiver.throw_later("second"), Err(TaskletError::CannotThrow(_))));
    run();
    assert_eq!(thrown(receiver).to_string(), "first");
}

/// own a throw after a value: a value that was handed over is not lost by a throw that comes before its receiver runs.
#[test]
fn a_throw_does_not_overwrite_a_value() {
    let (receiver, channel) = receiver();
    channel.set_preference(pila::Preference::Neither);
    channel.send(()).unwrap();
    assert_eq!(states(&receiver), SCHEDULED);
    assert!(matches!(receiver.throw("late"), Err(TaskletError::CannotThrow(_))));
    assert!(receiver.join().unwrap().is_ok());
}

/// own the thrower goes on next: after an immediate throw at a blocked one the caller goes on before the others.
#[test]
fn the_thrower_goes_on_next() {
    let log = Log::default();
    let theirs = log.clone();
    let target = tasklet(move || {
        Channel::<()>::new().receive().unwrap_err();
        theirs.add("t");
        schedule();
        theirs.add("t.");
    });
    run();
    for name in ["a", "b"] {
        log.two_turns(name);
    }
    target.throw("now").unwrap();
    log.add("|");
    assert!(current().is_main());
    run();
    log.assert("t | a0 b0 t. a. b.");
}
