//! The grid of the specification's section 3.2: every call on a tasklet in every state, a test for each cell.
//!
//! The rows `setup` and `bind` and the column of tasklets bound without arguments do not exist: a tasklet is created
//! with its closure, and never gets another.

use pila::{
    Channel, Handle, JoinError, ReceiveError, Refused, Tasklet, TaskletError, current, run,
    run_count, schedule, schedule_remove, tasklet,
};

use crate::support::{BLOCKED, CURRENT, DEAD, Log, OnDrop, PAUSED, SCHEDULED, states};

fn dead() -> Handle {
    let tasklet = tasklet(|| ());
    run();
    assert_eq!(states(&tasklet), DEAD);
    (*tasklet).clone()
}

/// One that never started. It would log `new`.
fn new(log: &Log) -> Tasklet<()> {
    let log = log.clone();
    let tasklet = Tasklet::bind(move || log.add("new"));
    assert_eq!(states(&tasklet), PAUSED);
    tasklet
}

/// One that has started and made way by `wait`. It logs `on` when it goes on and `end` when its stack is gone.
fn started(log: &Log, wait: fn()) -> Tasklet<()> {
    let (log, end) = (log.clone(), log.clone());
    tasklet(move || {
        let _end = OnDrop::new(move || end.add("end"));
        wait();
        log.add("on");
    })
}

fn paused(log: &Log) -> Tasklet<()> {
    let tasklet = started(log, schedule_remove);
    run();
    assert_eq!(states(&tasklet), PAUSED);
    tasklet
}

fn scheduled(log: &Log) -> Tasklet<()> {
    let tasklet = started(log, schedule);
    schedule();
    assert_eq!(states(&tasklet), SCHEDULED);
    tasklet
}

/// One that receives, and the channel. It logs what it got.
fn blocked(log: &Log) -> (Tasklet<()>, Channel<i32>) {
    let (log, end, channel) = (log.clone(), log.clone(), Channel::<i32>::new());
    let theirs = channel.clone();
    let tasklet = tasklet(move || {
        let _end = OnDrop::new(move || end.add("end"));
        match theirs.receive() {
            Ok(value) => log.add(value.to_string()),
            Err(ReceiveError::Thrown(error)) => log.add(error.to_string()),
            Err(error) => panic!("{error}"),
        }
    });
    run();
    assert_eq!((states(&tasklet), channel.balance()), (BLOCKED, -1));
    (tasklet, channel)
}

/// What `call` gives when a tasklet calls it on itself, and what becomes of that tasklet.
fn on_current<T: 'static>(call: impl FnOnce(Handle) -> T + 'static) -> Result<T, JoinError> {
    tasklet(move || {
        assert_eq!(states(&current()), CURRENT);
        let result = call(current());
        assert_eq!(states(&current()), CURRENT);
        result
    })
    .join()
}

/// grid insert/dead: an error, `TaskletError::Dead`.
#[test]
fn insert_dead() {
    assert!(matches!(dead().insert(), Err(TaskletError::Dead(_))));
    assert_eq!(run_count(), 1);
}

/// grid insert/paused: it is scheduled, at the tail.
#[test]
fn insert_paused() {
    let log = Log::default();
    let (new, paused) = (new(&log), paused(&log));
    log.two_turns("a");
    for tasklet in [&new, &paused] {
        tasklet.insert().unwrap();
        assert_eq!(states(tasklet), SCHEDULED);
    }
    log.assert("");
    run();
    log.assert("a0 new on end a.");
}

/// grid insert/scheduled: nothing, it keeps its place.
#[test]
fn insert_scheduled() {
    let log = Log::default();
    let scheduled = scheduled(&log);
    log.two_turns("a");
    scheduled.insert().unwrap();
    assert_eq!((states(&scheduled), run_count()), (SCHEDULED, 3));
    run();
    log.assert("on end a0 a.");
}

/// grid insert/current: nothing.
#[test]
fn insert_current() {
    on_current(|own| own.insert().unwrap()).unwrap();
    current().insert().unwrap();
    assert_eq!(run_count(), 1);
}

/// grid insert/blocked: an error, `TaskletError::Blocked`.
#[test]
fn insert_blocked() {
    let log = Log::default();
    let (blocked, channel) = blocked(&log);
    assert!(matches!(blocked.insert(), Err(TaskletError::Blocked(_))));
    assert_eq!((states(&blocked), channel.balance(), run_count()), (BLOCKED, -1, 1));
    channel.send(7).unwrap();
    log.assert("7 end");
}

/// grid run/dead: an error, `TaskletError::Dead`.
#[test]
fn run_dead() {
    assert!(matches!(dead().run(), Err(TaskletError::Dead(_))));
}

/// grid run/paused: it runs now, and the caller stays in the ring.
#[test]
fn run_paused() {
    let log = Log::default();
    let (new, paused) = (new(&log), paused(&log));
    new.run().unwrap();
    log.add("|");
    paused.run().unwrap();
    log.add("|");
    log.assert("new | on end |");
    assert_eq!((states(&new), states(&paused)), (DEAD, DEAD));
}

/// grid run/scheduled: it runs now.
#[test]
fn run_scheduled() {
    let log = Log::default();
    let scheduled = scheduled(&log);
    scheduled.run().unwrap();
    log.add("|");
    log.assert("on end |");
}

/// grid run/current: nothing.
#[test]
fn run_current() {
    on_current(|own| own.run().unwrap()).unwrap();
    current().run().unwrap();
}

/// grid run/blocked: an error, `TaskletError::Blocked`.
#[test]
fn run_blocked() {
    let log = Log::default();
    let (blocked, channel) = blocked(&log);
    assert!(matches!(blocked.run(), Err(TaskletError::Blocked(_))));
    assert_eq!((states(&blocked), channel.balance()), (BLOCKED, -1));
    log.assert("");
}

/// grid switch/dead: an error, `TaskletError::Dead`.
#[test]
fn switch_dead() {
    assert!(matches!(dead().switch(), Err(TaskletError::Dead(_))));
    assert_eq!(states(&current()), CURRENT);
}

/// grid switch/paused: it runs now, and the caller is paused.
#[test]
fn switch_paused() {
    let log = Log::default();
    let (new, paused) = (new(&log), paused(&log));
    for target in [new, paused] {
        let caller = tasklet(move || target.switch().unwrap());
        run();
        assert_eq!(states(&caller), PAUSED);
    }
    log.assert("new on end");
}

/// grid switch/scheduled: it runs now, and the caller is paused.
#[test]
fn switch_scheduled() {
    let log = Log::default();
    let target = scheduled(&log);
    let caller = tasklet(move || target.switch().unwrap());
    // It takes the target's place before the target's turn comes.
    caller.run().unwrap();
    log.assert("on end");
    assert_eq!(states(&caller), PAUSED);
}

/// grid switch/current: nothing.
#[test]
fn switch_current() {
    on_current(|own| own.switch().unwrap()).unwrap();
    current().switch().unwrap();
}

/// grid switch/blocked: an error, `TaskletError::Blocked`.
#[test]
fn switch_blocked() {
    let log = Log::default();
    let (blocked, channel) = blocked(&log);
    assert!(matches!(blocked.switch(), Err(TaskletError::Blocked(_))));
    assert_eq!((states(&blocked), channel.balance()), (BLOCKED, -1));
    assert_eq!(states(&current()), CURRENT);
}

/// grid remove/dead: nothing.
#[test]
fn remove_dead() {
    dead().remove().unwrap();
    assert_eq!(run_count(), 1);
}

/// grid remove/paused: nothing.
#[test]
fn remove_paused() {
    let log = Log::default();
    for tasklet in [new(&log), paused(&log)] {
        tasklet.remove().unwrap();
        assert_eq!(states(&tasklet), PAUSED);
    }
}

/// grid remove/scheduled: it is paused.
#[test]
fn remove_scheduled() {
    let log = Log::default();
    let scheduled = scheduled(&log);
    scheduled.remove().unwrap();
    assert_eq!((states(&scheduled), run_count()), (PAUSED, 1));
    assert_eq!(run().paused, 1);
    log.assert("");
}

/// grid remove/current: an error, `TaskletError::Current`.
#[test]
fn remove_current() {
    let refused = on_current(|own| matches!(own.remove(), Err(TaskletError::Current(_))));
    assert!(refused.unwrap());
    assert!(matches!(current().remove(), Err(TaskletError::Current(_))));
}

/// grid remove/blocked: an error, `TaskletError::Blocked`.
#[test]
fn remove_blocked() {
    let log = Log::default();
    let (blocked, channel) = blocked(&log);
    assert!(matches!(blocked.remove(), Err(TaskletError::Blocked(_))));
    assert_eq!((states(&blocked), channel.balance()), (BLOCKED, -1));
}

/// grid throw/dead: an error, `TaskletError::Dead`.
#[test]
fn throw_dead() {
    assert!(matches!(dead().throw("late"), Err(TaskletError::Dead(_))));
}

/// grid throw/paused: it waits in no call that could return the error, and is left as it is.
#[test]
fn throw_paused() {
    let log = Log::default();
    for tasklet in [new(&log), paused(&log)] {
        assert!(matches!(tasklet.throw("no call"), Err(TaskletError::CannotThrow(_))));
        assert_eq!(states(&tasklet), PAUSED);
    }
    log.assert("");
}

/// grid throw/scheduled: it waits in no call that could return the error, and is left as it is.
#[test]
fn throw_scheduled() {
    let log = Log::default();
    let scheduled = scheduled(&log);
    assert!(matches!(scheduled.throw("no call"), Err(TaskletError::CannotThrow(_))));
    assert_eq!(states(&scheduled), SCHEDULED);
    run();
    log.assert("on end");
}

/// grid throw/current: the caller has the error in its hands already: there is no call to return it.
#[test]
fn throw_current() {
    let refused = on_current(|own| matches!(own.throw("own"), Err(TaskletError::CannotThrow(_))));
    assert!(refused.unwrap());
    assert!(matches!(current().throw("own"), Err(TaskletError::CannotThrow(_))));
}

/// grid throw/blocked: it is taken off the channel and its call returns the error now.
#[test]
fn throw_blocked() {
    let log = Log::default();
    let (blocked, channel) = blocked(&log);
    log.two_turns("a");
    blocked.throw("thrown").unwrap();
    log.add("|");
    log.assert("thrown end |");
    assert_eq!((states(&blocked), channel.balance()), (DEAD, 0));
}

/// grid throw pending/dead: an error, `TaskletError::Dead`.
#[test]
fn throw_later_dead() {
    assert!(matches!(dead().throw_later("late"), Err(TaskletError::Dead(_))));
}

/// grid throw pending/paused: it waits in no call that could return the error, and is left as it is.
#[test]
fn throw_later_paused() {
    let log = Log::default();
    for tasklet in [new(&log), paused(&log)] {
        assert!(matches!(tasklet.throw_later("no call"), Err(TaskletError::CannotThrow(_))));
        assert_eq!(states(&tasklet), PAUSED);
    }
}

/// grid throw pending/scheduled: it waits in no call that could return the error, and is left as it is.
#[test]
fn throw_later_scheduled() {
    let log = Log::default();
    let scheduled = scheduled(&log);
    assert!(matches!(scheduled.throw_later("no call"), Err(TaskletError::CannotThrow(_))));
    assert_eq!(states(&scheduled), SCHEDULED);
}

/// grid throw pending/current: as `throw`.
#[test]
fn throw_later_current() {
    let refused =
        on_current(|own| matches!(own.throw_later("own"), Err(TaskletError::CannotThrow(_))));
    assert!(refused.unwrap());
}

/// grid throw pending/blocked: it is taken off the channel and goes to the tail.
#[test]
fn throw_later_blocked() {
    let log = Log::default();
    let (blocked, channel) = blocked(&log);
    log.two_turns("a");
    blocked.throw_later("thrown").unwrap();
    assert_eq!((states(&blocked), channel.balance()), (SCHEDULED, 0));
    log.add("|");
    run();
    log.assert("| a0 thrown end a.");
}

/// grid kill/dead: nothing.
#[test]
fn kill_dead() {
    dead().kill().unwrap();
}

/// grid kill/paused: it dies now.
#[test]
fn kill_paused() {
    let log = Log::default();
    let (new, paused) = (new(&log), paused(&log));
    for tasklet in [new, paused] {
        tasklet.kill().unwrap();
        assert_eq!(states(&tasklet), DEAD);
        assert!(matches!(tasklet.join(), Err(JoinError::Killed)));
    }
    log.assert("end");
}

/// grid kill/scheduled: it dies now.
#[test]
fn kill_scheduled() {
    let log = Log::default();
    let scheduled = scheduled(&log);
    scheduled.kill().unwrap();
    log.add("|");
    log.assert("end |");
    assert_eq!((states(&scheduled), run_count()), (DEAD, 1));
}

/// grid kill/current: it unwinds from here. Main cannot.
#[test]
fn kill_current() {
    assert!(matches!(on_current(|own| own.kill().unwrap()), Err(JoinError::Killed)));
    assert!(matches!(current().kill(), Err(TaskletError::Main(_))));
}

/// grid kill/blocked: it is taken off the channel and dies now.
#[test]
fn kill_blocked() {
    let log = Log::default();
    let (blocked, channel) = blocked(&log);
    blocked.kill().unwrap();
    assert_eq!((states(&blocked), channel.balance()), (DEAD, 0));
    log.assert("end");
}

/// grid kill pending/dead: nothing.
#[test]
fn kill_later_dead() {
    dead().kill_later().unwrap();
    assert_eq!(run_count(), 1);
}

/// grid kill pending/paused: it is scheduled, and dies at its turn.
#[test]
fn kill_later_paused() {
    let log = Log::default();
    let tasklets = [new(&log), paused(&log)];
    for tasklet in &tasklets {
        tasklet.kill_later().unwrap();
        assert_eq!(states(tasklet), SCHEDULED);
    }
    log.assert("");
    run();
    assert_eq!(tasklets.map(|tasklet| states(&tasklet)), [DEAD, DEAD]);
    log.assert("end");
}

/// grid kill pending/scheduled: it keeps its place, and dies at its turn.
#[test]
fn kill_later_scheduled() {
    let log = Log::default();
    let scheduled = scheduled(&log);
    log.two_turns("a");
    scheduled.kill_later().unwrap();
    assert_eq!(states(&scheduled), SCHEDULED);
    run();
    log.assert("end a0 a.");
}

/// grid kill pending/current: it unwinds from here.
#[test]
fn kill_later_current() {
    assert!(matches!(on_current(|own| own.kill_later().unwrap()), Err(JoinError::Killed)));
}

/// grid kill pending/blocked: it is taken off the channel, goes to the tail, and dies at its turn.
#[test]
fn kill_later_blocked() {
    let log = Log::default();
    let (blocked, channel) = blocked(&log);
    log.two_turns("a");
    blocked.kill_later().unwrap();
    assert_eq!((states(&blocked), channel.balance()), (SCHEDULED, 0));
    run();
    log.assert("a0 end a.");
}

/// own illegal calls of the trapped: a refused `run`, `switch`, `throw` and `kill` change nothing in any state.
#[test]
fn refused_calls_change_nothing() {
    let log = Log::default();
    let (paused, scheduled, (blocked, channel)) = (paused(&log), scheduled(&log), blocked(&log));
    // The run that blocked it ended the scheduled one: a fresh one takes its place.
    assert_eq!(states(&scheduled), DEAD);
    let scheduled = self::scheduled(&Log::default());
    let guard = pila::no_switch();
    let refused = |result| matches!(result, Err(TaskletError::Refused(_, Refused::NoSwitch(_))));
    for (tasklet, state) in [(&paused, PAUSED), (&scheduled, SCHEDULED)] {
        assert!(refused(tasklet.run()) && refused(tasklet.switch()) && refused(tasklet.kill()));
        assert_eq!(states(tasklet), state);
    }
    assert!(refused(blocked.throw("no")) && refused(blocked.kill()));
    assert_eq!((states(&blocked), channel.balance()), (BLOCKED, -1));
    drop(guard);
}
