//! Kills, panics and errors that meet in one place: nothing is lost, nothing aborts, and nobody else is disturbed.

use std::{
    cell::{Cell, RefCell},
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    time::Duration,
};

use pila::{
    Channel, JoinError, ReceiveError, TaskletError, current, run, schedule, schedule_remove, scope,
    set_channel_callback, set_schedule_callback, shield, spawn_thread, tasklet, timeout,
};

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        resume_unwind(Box::new("the bomb"));
    }
}

/// An error that asks who drops it, and notes that.
#[derive(Debug)]
struct Nosy;

thread_local! {
    static DROPPED_BY: Cell<u64> = const { Cell::new(0) };
}

impl fmt::Display for Nosy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nosy")
    }
}

impl Error for Nosy {}

impl Drop for Nosy {
    fn drop(&mut self) {
        DROPPED_BY.set(current().id().get());
    }
}

#[test]
fn a_payload_that_panics_when_dropped_ends_nothing_but_itself() {
    let armed = Cell::new(true);
    set_schedule_callback(Some(Rc::new(move |_, to| {
        if !to.is_main() && armed.replace(false) {
            resume_unwind(Box::new(Bomb));
        }
    })));
    tasklet(|| resume_unwind(Box::new("raised after the callback's")));
    let raised = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
    assert_eq!(raised.downcast_ref(), Some(&"raised after the callback's"));
    assert_eq!(run().finished, 0);
}

#[test]
fn a_tasklet_killed_in_the_destructor_of_its_result_is_no_panic_of_main() {
    struct Slow(Rc<Cell<bool>>);
    impl Drop for Slow {
        fn drop(&mut self) {
            schedule_remove();
            self.0.set(true);
        }
    }
    let (went_on, handle) = (Rc::new(Cell::new(false)), Rc::new(RefCell::new(None)));
    let (theirs, place) = (went_on.clone(), handle.clone());
    tasklet(move || {
        *place.borrow_mut() = Some(current());
        Slow(theirs)
    });
    run();
    let handle = handle.take().expect("it has run");
    assert!(handle.is_paused());
    handle.kill().unwrap();
    assert!(!handle.is_alive() && !went_on.get());
    run();
}

#[test]
fn a_callback_that_kills_the_tasklet_it_runs_on_ends_it() {
    set_schedule_callback(Some(Rc::new(|_, to| {
        if !to.is_main() {
            to.kill().unwrap();
        }
    })));
    let reached = Rc::new(Cell::new(false));
    let theirs = reached.clone();
    let victim = tasklet(move || theirs.set(true));
    assert!(matches!(victim.join(), Err(JoinError::Killed)));
    assert!(!reached.get());
}

#[test]
fn an_error_thrown_into_a_tasklet_that_is_killed_first_is_dropped_on_its_stack() {
    let channel = Channel::<()>::new();
    let victim = tasklet(move || drop(channel.receive()));
    run();
    victim.throw_later(Nosy).unwrap();
    victim.kill().unwrap();
    assert_eq!(DROPPED_BY.get(), victim.id().get());
    assert_eq!(run().blocked, 0);
}

#[test]
fn an_error_thrown_into_a_tasklet_that_is_removed_and_killed_is_dropped_on_its_stack() {
    let channel = Channel::<()>::new();
    let victim = tasklet(move || drop(channel.receive()));
    run();
    victim.throw_later(Nosy).unwrap();
    victim.remove().unwrap();
    victim.kill().unwrap();
    assert!(!victim.is_alive());
    assert_eq!(DROPPED_BY.get(), victim.id().get());
}

#[test]
fn an_error_thrown_into_a_tasklet_that_is_removed_is_told_when_it_is_back() {
    let channel = Channel::<()>::new();
    let theirs = channel.clone();
    let victim = tasklet(move || theirs.receive());
    run();
    victim.throw_later(Nosy).unwrap();
    victim.remove().unwrap();
    assert_eq!(run().paused, 1);
    victim.insert().unwrap();
    assert!(matches!(victim.join().unwrap(), Err(ReceiveError::Thrown(_))));
}

#[test]
fn a_callback_that_shields_itself_takes_no_kill_away() {
    set_schedule_callback(Some(Rc::new(|_, _| shield(|| ()))));
    let channel = Channel::new();
    let theirs = channel.clone();
    let victim = tasklet(move || theirs.send("nobody takes it"));
    run();
    victim.kill().unwrap();
    set_schedule_callback(None);
    assert!(matches!(victim.join(), Err(JoinError::Killed)));
    assert_eq!(channel.balance(), 0);
}

#[test]
fn a_callback_that_catches_what_is_raised_in_it_takes_no_strike_away() {
    set_schedule_callback(Some(Rc::new(|_, _| {
        // Refused, for a callback may not wait; what ends the tasklet would be raised there first.
        catch_unwind(|| Channel::<()>::new().receive().unwrap_err()).ok();
    })));
    let (channel, went_on) = (Channel::new(), Rc::new(Cell::new(false)));
    let (theirs, noted) = (channel.clone(), went_on.clone());
    let late = tasklet(move || {
        let send = || {
            theirs.send("nobody takes it").ok();
            noted.set(true);
        };
        timeout(Duration::from_millis(1), send).is_err()
    });
    // So that the strike finds somebody else to switch from.
    tasklet(|| ());
    let is_late = late.join();
    set_schedule_callback(None);
    assert!(is_late.unwrap() && !went_on.get());
    assert_eq!(channel.balance(), 0);
}

#[test]
fn a_deadlock_that_ended_one_pause_is_not_told_to_the_next() {
    let went_on = Cell::new(false);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        scope(|s| {
            s.tasklet(|| {
                shield(|| {
                    // Main waits for this one alone, so it is this one that has to go on.
                    tasklet(|| ()).switch().unwrap();
                    let me = current();
                    tasklet(move || me.insert().unwrap());
                    schedule_remove();
                    went_on.set(true);
                });
            });
            schedule();
            resume_unwind(Box::new("the scope ends"));
        })
    }));
    assert_eq!(ended.unwrap_err().downcast_ref(), Some(&"the scope ends"));
    assert!(went_on.get());
}

#[test]
fn a_callback_that_sets_another_is_not_seen_by_it() {
    let calls = Rc::new(Cell::new(0));
    let (outer, inner) = (calls.clone(), calls.clone());
    set_channel_callback(Some(Rc::new(move |_| {
        outer.set(outer.get() + 1);
        let inner = inner.clone();
        set_channel_callback(Some(Rc::new(move |_| inner.set(inner.get() + 100))));
        assert!(Channel::<()>::new().try_receive().is_err());
    })));
    assert!(Channel::<()>::new().try_receive().is_err());
    assert_eq!(calls.get(), 1);
    assert!(Channel::<()>::new().try_receive().is_err());
    assert_eq!(calls.get(), 101);
}

#[test]
fn a_thread_whose_second_panic_carries_a_bomb_can_be_joined() {
    struct Carrier;
    impl Drop for Carrier {
        fn drop(&mut self) {
            resume_unwind(Box::new(Bomb));
        }
    }
    let thread = spawn_thread(|| {
        let carrier = Carrier;
        tasklet(move || {
            let _carried = &carrier;
        });
        resume_unwind(Box::new("the first"));
    });
    let Err(JoinError::Panicked(panic)) = thread.unwrap().join() else { panic!("it panicked") };
    assert_eq!(panic.message(), "the first");
}

#[test]
fn a_kill_that_comes_from_a_destructor_while_the_victim_panics_is_raised_when_the_panic_is_caught()
{
    struct KillsItself;
    impl Drop for KillsItself {
        fn drop(&mut self) {
            assert!(matches!(current().kill(), Err(TaskletError::Pending(_))));
        }
    }
    let went_on = Rc::new(Cell::new(false));
    let theirs = went_on.clone();
    let victim = tasklet(move || {
        let panic = catch_unwind(|| {
            let _guard = KillsItself;
            resume_unwind(Box::new("caught"));
        });
        assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"caught"));
        schedule();
        theirs.set(true);
    });
    assert!(matches!(victim.join(), Err(JoinError::Killed)));
    assert!(!went_on.get());
}

#[test]
fn one_that_catches_its_kill_in_a_scope_and_goes_on_is_still_alive() {
    let (on, theirs) = (Rc::new(Cell::new(true)), Rc::new(RefCell::new(Vec::new())));
    let (its_on, log) = (on.clone(), theirs.clone());
    let stubborn = tasklet(move || {
        let waits = || {
            scope(|s| {
                s.tasklet(schedule_remove);
            })
        };
        log.borrow_mut().push(catch_unwind(AssertUnwindSafe(waits)).is_err());
        while its_on.get() {
            schedule();
        }
    });
    schedule();
    schedule();
    assert!(matches!(stubborn.kill(), Err(TaskletError::StillAlive(_))));
    assert_eq!(*theirs.borrow(), [true]);
    on.set(false);
    stubborn.join().unwrap();
}

#[test]
fn a_closure_that_is_killed_before_it_starts_may_panic_when_it_is_dropped() {
    let bomb = Bomb;
    let victim = tasklet(move || drop(bomb));
    victim.kill_later().unwrap();
    let Err(JoinError::Panicked(panic)) = victim.join() else { panic!("the bomb went off") };
    assert_eq!(panic.message(), "the bomb");

    let bomb = Bomb;
    let victim = tasklet(move || drop(bomb));
    let killer = catch_unwind(AssertUnwindSafe(|| victim.kill()));
    assert_eq!(killer.unwrap_err().downcast_ref(), Some(&"the bomb"));
    assert!(matches!(victim.join(), Err(JoinError::Killed)));
}
