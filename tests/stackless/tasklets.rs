//! The life of a tasklet: its states, binding, what its end drops, panics that stay its own.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use pila::{
    Channel, Handle, JoinError, Preference, Tasklet, current, main_tasklet, run, schedule,
    schedule_remove, tasklet,
};

use crate::support::{
    BLOCKED, CURRENT, DEAD, Log, OnDrop, PAUSED, SCHEDULED, drop_flag, panic_of, silent_panic,
    states,
};

/// TestWatchdog.test_aliveness1: not yet run, removed by itself, inserted again, finished.
#[test]
fn aliveness() {
    let tasklet = tasklet(schedule_remove);
    assert_eq!(states(&tasklet), SCHEDULED);
    run();
    assert_eq!(states(&tasklet), PAUSED);
    tasklet.insert().unwrap();
    assert_eq!(states(&tasklet), SCHEDULED);
    run();
    assert_eq!(states(&tasklet), DEAD);
}

/// TestBind.test_bind: bound, it is paused; once it has removed itself it is alive and not scheduled; inserted, it
/// ends and its destructors run.
#[test]
fn a_bound_tasklet_lives() {
    let (finally, guard) = drop_flag();
    let tasklet = Tasklet::bind(move || {
        let _guard = guard;
        schedule_remove();
    });
    assert_eq!(states(&tasklet), PAUSED);
    tasklet.insert().unwrap();
    run();
    assert!(!tasklet.is_scheduled() && tasklet.is_alive() && !finally.get());
    tasklet.insert().unwrap();
    run();
    assert!(finally.get() && !tasklet.is_alive());
}

/// TestBind.test_bind_args, TestBind.test_bind_kwargs, TestBind.test_bind_args_kwargs: what the closure captured when
/// it was bound is there when it runs.
#[test]
fn bound_with_arguments() {
    let (first, second) = (String::from("foo"), String::from("bar"));
    let tasklet = Tasklet::bind(move || format!("{first} {second}"));
    tasklet.run().unwrap();
    assert_eq!(tasklet.join().unwrap(), "foo bar");
}

/// TestBind.test_bind_args_not_runnable: binding does not schedule.
#[test]
fn binding_does_not_schedule() {
    let log = Log::default();
    let theirs = log.clone();
    let tasklet = Tasklet::bind(move || theirs.add("ran"));
    assert!(!tasklet.is_scheduled());
    assert_eq!(run().paused, 1);
    log.assert("");
    tasklet.insert().unwrap();
    run();
    log.assert("ran");
}

/// TestTaskletDel.testTempval: the destructor of a result that nobody reads may run code, and switch.
#[test]
fn a_result_may_run_code_when_it_goes() {
    let log = Log::default();
    let theirs = log.clone();
    let result = OnDrop::new(move || {
        theirs.add("dropping");
        schedule();
        theirs.add("dropped");
    });
    drop(tasklet(move || result));
    log.two_turns("a");
    run();
    log.assert("dropping a0 dropped a.");
}

/// TestTaskletDel.testTasklet: what a tasklet captured is dropped when it ends, on its own stack.
#[test]
fn what_was_captured_is_dropped_at_the_end() {
    let who = Rc::new(Cell::new(None));
    let theirs = who.clone();
    let guard = OnDrop::new(move || theirs.set(Some(current().id())));
    let tasklet = tasklet(move || {
        let _guard = guard;
        schedule();
    });
    schedule();
    assert_eq!(who.get(), None);
    run();
    assert_eq!(who.get(), Some(tasklet.id()));
}

/// test_weakref.testSimpleTaskletWeakRef: the ring alone keeps a scheduled tasklet; when it has ended it is gone.
#[test]
fn the_ring_keeps_a_tasklet() {
    let value = Rc::new(());
    let watch = Rc::downgrade(&value);
    let tasklet = tasklet(move || {
        let _value = value;
        schedule();
    });
    let handle: Handle = (*tasklet).clone();
    drop(tasklet);
    schedule();
    assert!(handle.is_alive() && watch.upgrade().is_some());
    run();
    assert!(!handle.is_alive() && watch.upgrade().is_none());
}

/// TestContextManager.test_tasklet_switch_in_exitfunc_after_return: a destructor that runs at a return may be
/// suspended, and goes on later.
#[test]
fn a_destructor_may_be_suspended() {
    let log = Log::default();
    let theirs = log.clone();
    let tasklet = tasklet(move || {
        let end = theirs.clone();
        let _exit = OnDrop::new(move || {
            end.add("exit");
            schedule_remove();
            end.add("back");
        });
        theirs.add("return");
        "result"
    });
    tasklet.run().unwrap();
    log.add("|");
    assert_eq!(states(&tasklet), PAUSED);
    tasklet.run().unwrap();
    log.assert("return exit | back");
    assert_eq!(tasklet.join().unwrap(), "result");
}

/// TestContextManager.test_crash_on_WHY_SILENCED: an error is caught in clean-up code, which is suspended and goes on:
/// 1 to 6. While the tasklet unwinds nothing is suspended; once the panic is caught, everything can be.
#[test]
fn suspended_while_an_error_is_handled() {
    let log = Log::default();
    let theirs = log.clone();
    let tasklet = tasklet(move || {
        theirs.add("1");
        let (end, inner) = (theirs.clone(), theirs.clone());
        let _finally = OnDrop::new(move || {
            end.add("2");
            let panic = catch_unwind(AssertUnwindSafe(|| {
                let _unwinding = OnDrop::new(schedule_remove);
                inner.add("3");
                silent_panic("silenced");
            }));
            assert!(panic.is_err());
            end.add("4");
            schedule_remove();
            end.add("5");
        });
        let last = theirs.clone();
        drop(_finally);
        last.add("6");
    });
    tasklet.run().unwrap();
    log.assert("1 2 3 4");
    tasklet.run().unwrap();
    log.assert("1 2 3 4 5 6");
    tasklet.join().unwrap();
}

/// TestExceptionState.testExceptionState: that one tasklet handles a panic is not seen by main, nor by the others.
#[test]
fn a_panic_is_its_tasklets_own() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let theirs = seen.clone();
    let panicking = tasklet(move || {
        let unwinding = theirs.clone();
        let text = panic_of(|| {
            let _look = OnDrop::new(move || {
                schedule();
                unwinding.borrow_mut().push(("itself", std::thread::panicking()));
            });
            silent_panic("handled")
        });
        schedule();
        theirs.borrow_mut().push(("handler", std::thread::panicking()));
        text
    });
    let theirs = seen.clone();
    tasklet(move || theirs.borrow_mut().push(("other", std::thread::panicking())));
    schedule();
    seen.borrow_mut().push(("main", std::thread::panicking()));
    assert_eq!(panicking.join().unwrap(), "handled");
    assert_eq!(
        *seen.borrow(),
        [("itself", true), ("other", false), ("main", false), ("handler", false)]
    );
}

// The life cycle of the test suite, transition by transition.

/// testsuite.testLC_bound_scheduled: created with its closure it is scheduled; bound and inserted too.
#[test]
fn bound_to_scheduled() {
    assert_eq!(states(&tasklet(|| ())), SCHEDULED);
    let bound = Tasklet::bind(|| ());
    bound.insert().unwrap();
    assert_eq!(states(&bound), SCHEDULED);
}

/// testsuite.testLC_scheduled_paused: removed.
#[test]
fn scheduled_to_paused() {
    let tasklet = tasklet(|| ());
    assert_eq!(states(&tasklet), SCHEDULED);
    tasklet.remove().unwrap();
    assert_eq!(states(&tasklet), PAUSED);
}

/// testsuite.testLC_scheduled_notalive: killed.
#[test]
fn scheduled_to_dead() {
    let tasklet = tasklet(|| ());
    tasklet.kill().unwrap();
    assert_eq!(states(&tasklet), DEAD);
}

/// testsuite.testLC_paused_scheduled: inserted, or killed with the kill pending.
#[test]
fn paused_to_scheduled() {
    let [inserted, killed] = [(); 2].map(|()| Tasklet::bind(|| ()));
    assert_eq!([states(&inserted), states(&killed)], [PAUSED; 2]);
    inserted.insert().unwrap();
    killed.kill_later().unwrap();
    assert_eq!([states(&inserted), states(&killed)], [SCHEDULED; 2]);
}

/// testsuite.testLC_paused_notalive: killed.
#[test]
fn paused_to_dead() {
    let tasklet = Tasklet::bind(|| ());
    tasklet.kill().unwrap();
    assert_eq!(states(&tasklet), DEAD);
}

/// One that says what it and main are while it runs.
fn looks() -> [[bool; 5]; 2] {
    [states(&current()), states(&main_tasklet())]
}

/// testsuite.testLC_paused_current_notalive: by `run` with main scheduled, by `switch` with main paused.
#[test]
fn paused_to_current_to_dead() {
    let ran = Tasklet::bind(looks);
    ran.run().unwrap();
    assert_eq!(states(&ran), DEAD);
    assert_eq!(ran.join().unwrap(), [CURRENT, SCHEDULED]);
    let switched = Tasklet::bind(looks);
    switched.switch().unwrap();
    assert_eq!(states(&switched), DEAD);
    assert_eq!(switched.join().unwrap(), [CURRENT, PAUSED]);
}

/// testsuite.testLC_scheduled_current_notalive: by `run`, by `switch`, and by `pila::run`, in which main is paused.
#[test]
fn scheduled_to_current_to_dead() {
    let ways: [(fn(&Handle), _); 3] = [
        (|tasklet| tasklet.run().unwrap(), SCHEDULED),
        (|tasklet| tasklet.switch().unwrap(), PAUSED),
        (|_| assert_eq!(run().finished, 1), PAUSED),
    ];
    for (way, main) in ways {
        let tasklet = tasklet(looks);
        assert_eq!(states(&tasklet), SCHEDULED);
        way(&tasklet);
        assert_eq!(states(&tasklet), DEAD);
        assert_eq!(tasklet.join().unwrap(), [CURRENT, main]);
    }
}

/// testsuite.testLC_current_notalive: killed by itself.
#[test]
fn current_to_dead() {
    let tasklet = tasklet(|| {
        assert_eq!(states(&current()), CURRENT);
        current().kill()
    });
    tasklet.run().unwrap();
    assert_eq!(states(&tasklet), DEAD);
    assert!(matches!(tasklet.join(), Err(JoinError::Killed)));
}

/// testsuite.testLC_current_blocked_scheduled: by a send, by an error sent, by a receive; the other side sets it free.
#[test]
fn current_to_blocked_to_scheduled() {
    let channel = Channel::new();
    let theirs = channel.clone();
    let sender = tasklet(move || theirs.send(123));
    sender.run().unwrap();
    assert_eq!(states(&sender), BLOCKED);
    assert_eq!(channel.receive().unwrap(), 123);
    assert_eq!(states(&sender), SCHEDULED);
    sender.kill().unwrap();
    assert_eq!(states(&sender), DEAD);

    let theirs = channel.clone();
    let thrower = tasklet(move || theirs.send_error("sent"));
    thrower.run().unwrap();
    assert_eq!(states(&thrower), BLOCKED);
    assert_eq!(channel.receive().unwrap_err().to_string(), "sent");
    assert_eq!(states(&thrower), SCHEDULED);
    thrower.kill().unwrap();
    assert_eq!(states(&thrower), DEAD);

    let theirs = channel.clone();
    let receiver = tasklet(move || theirs.receive().unwrap());
    receiver.run().unwrap();
    assert_eq!(states(&receiver), BLOCKED);
    channel.send(456).unwrap();
    assert_eq!(states(&receiver), DEAD);
    assert_eq!(receiver.join().unwrap(), 456);
}

/// testsuite.testLC_blocked_current: a send runs its receiver at once, and with the other preference a receive its
/// sender.
#[test]
fn blocked_to_current() {
    let (log, channel) = (Log::default(), Channel::new());
    let (theirs, receiving) = (log.clone(), channel.clone());
    let receiver = tasklet(move || {
        assert_eq!(receiving.receive().unwrap(), 123);
        assert_eq!(states(&current()), CURRENT);
        theirs.add("received");
    });
    receiver.run().unwrap();
    assert_eq!(states(&receiver), BLOCKED);
    channel.send(123).unwrap();
    log.add("|");
    assert_eq!(states(&receiver), DEAD);

    channel.set_preference(Preference::Sender);
    let (theirs, sending) = (log.clone(), channel.clone());
    let sender = tasklet(move || {
        sending.send(456).unwrap();
        assert_eq!(states(&current()), CURRENT);
        theirs.add("sent");
    });
    sender.run().unwrap();
    assert_eq!(states(&sender), BLOCKED);
    assert_eq!(channel.receive().unwrap(), 456);
    log.add("|");
    assert_eq!(states(&sender), DEAD);
    log.assert("received | sent |");
}

/// own states of main: it is scheduled, paused and blocked as any tasklet.
#[test]
fn main_has_the_states_of_any_tasklet() {
    let look = || tasklet(|| states(&main_tasklet()));
    assert_eq!(states(&main_tasklet()), CURRENT);
    let mut seen = Vec::new();
    let scheduled = look();
    schedule();
    seen.push(scheduled.join().unwrap());
    let in_run = look();
    run();
    seen.push(in_run.join().unwrap());
    let removed = look();
    schedule_remove();
    seen.push(removed.join().unwrap());
    let blocked = look();
    drop(Channel::<()>::new().receive());
    seen.push(blocked.join().unwrap());
    assert_eq!(seen, [SCHEDULED, PAUSED, PAUSED, BLOCKED]);
}

/// own uncaught panics: they go to the holder of the handle if there is one, else to the innermost `run` or main,
/// which is taken from wherever it is; the others keep their places.
#[test]
fn who_gets_a_panic() {
    let held = tasklet(|| silent_panic("held"));
    assert_eq!(run().finished, 1);
    assert!(matches!(held.join(), Err(JoinError::Panicked(panic)) if panic.message() == "held"));

    // Main in the ring is jumped to where it is; in `run`, it comes just before the next.
    let waits: [(fn(), _); 2] = [(schedule, "a0 | a. b0 b."), (|| _ = run(), "a0 | b0 a. b.")];
    for (wait, expected) in waits {
        let log = Log::default();
        log.two_turns("a");
        drop(tasklet(|| silent_panic("nobody's")));
        log.two_turns("b");
        assert_eq!(panic_of(wait), "nobody's");
        log.add("|");
        run();
        log.assert(expected);
    }
}
