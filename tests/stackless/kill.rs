//! Kill: now, pending, of oneself, of those that never started, that resist, that take others with them.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use pila::{
    Channel, Handle, JoinError, ReceiveError, Refused, Tasklet, TaskletError, current, run,
    schedule, schedule_remove, tasklet,
};

use crate::support::{BLOCKED, DEAD, Log, OnDrop, PAUSED, SCHEDULED, drop_flag, states};

/// TestKill.test_kill_pending_true: a pending kill acts only when its victim next runs.
#[test]
fn a_pending_kill_waits() {
    let (killed, guard) = drop_flag();
    let victim = tasklet(move || {
        let _guard = guard;
        schedule();
    });
    victim.run().unwrap();
    assert!(!killed.get());
    victim.kill_later().unwrap();
    assert!(!killed.get() && victim.is_alive());
    victim.run().unwrap();
    assert!(killed.get() && !victim.is_alive());
    assert!(matches!(victim.join(), Err(JoinError::Killed)));
}

/// TestKill.test_kill_pending_False: a kill acts before it returns.
#[test]
fn a_kill_acts_at_once() {
    let (killed, guard) = drop_flag();
    let victim = tasklet(move || {
        let _guard = guard;
        schedule();
    });
    victim.run().unwrap();
    assert!(!killed.get());
    victim.kill().unwrap();
    assert!(killed.get() && !victim.is_alive());
    assert!(matches!(victim.join(), Err(JoinError::Killed)));
}

/// TestKill.test_kill_current: a tasklet that kills itself unwinds from there.
#[test]
fn a_tasklet_kills_itself() {
    let (killed, guard) = drop_flag();
    let went_on = Rc::new(Cell::new(false));
    let theirs = went_on.clone();
    let victim = tasklet(move || {
        let _guard = guard;
        current().kill().unwrap();
        theirs.set(true);
    });
    victim.run().unwrap();
    assert!(killed.get() && !went_on.get());
    assert_eq!(states(&victim), DEAD);
}

/// TestTaskletThrowImmediate.test_kill_new: the body of one that is killed before it starts never runs; running it is
/// an error then.
#[test]
fn killed_before_it_starts() {
    let (dropped, guard) = drop_flag();
    let victim = tasklet(move || {
        let _guard = guard;
        unreachable!("it was killed before");
    });
    victim.kill().unwrap();
    assert!(dropped.get(), "its closure is dropped");
    assert_eq!(run().finished, 0);
    let error = victim.run().unwrap_err();
    assert!(matches!(error, TaskletError::Dead(_)), "{error:?}");
    assert!(matches!(victim.join(), Err(JoinError::Killed)));
}

/// TestTaskletThrowNonImmediate.test_kill_new: the same when the kill is pending.
#[test]
fn killed_later_before_it_starts() {
    let victim = tasklet(|| unreachable!("it was killed before"));
    victim.kill_later().unwrap();
    assert_eq!(states(&victim), SCHEDULED);
    run();
    assert!(matches!(victim.run(), Err(TaskletError::Dead(_))));
    assert!(matches!(victim.join(), Err(JoinError::Killed)));
}

/// TestTaskletThrowImmediate.test_kill_dead: killing one that has ended changes nothing.
#[test]
fn kill_of_the_dead() {
    let ended = tasklet(|| 7);
    run();
    ended.kill().unwrap();
    assert_eq!(ended.join().unwrap(), 7);
}

/// TestTaskletThrowNonImmediate.test_kill_dead: the same when the kill is pending.
#[test]
fn kill_later_of_the_dead() {
    let ended = tasklet(|| 7);
    run();
    ended.kill_later().unwrap();
    assert_eq!(run().finished, 0);
    assert_eq!(ended.join().unwrap(), 7);
}

/// TestTaskletFinalizer.test_zombie: one that catches its kill and goes on is reported alive; none of its calls waits
/// any more, yet it stops nobody, and it ends when it returns.
#[test]
fn one_that_resists() {
    let enough = Rc::new(Cell::new(false));
    let theirs = enough.clone();
    let zombie = tasklet(move || {
        let channel = Channel::<()>::new();
        assert!(catch_unwind(AssertUnwindSafe(|| channel.receive())).is_err());
        while !theirs.get() {
            let refused = channel.receive().unwrap_err();
            assert!(matches!(refused, ReceiveError::Refused(Refused::Killed)), "{refused:?}");
        }
        "ended by itself"
    });
    run();
    assert!(matches!(zombie.kill(), Err(TaskletError::StillAlive(_))));
    assert!(zombie.is_alive());
    schedule();
    assert!(zombie.is_alive());
    enough.set(true);
    assert_eq!(zombie.join().unwrap(), "ended by itself");
}

/// test_shutdown.test_kill_modifies_slp_cstack_chain: a destructor that runs during a kill ends other tasklets.
#[test]
fn a_destructor_that_kills_others() {
    let log = Log::default();
    let sleeper = |name: &'static str, wait: fn()| -> Handle {
        let log = log.clone();
        let tasklet = tasklet(move || {
            let _end = OnDrop::new(move || log.add(name));
            wait();
        });
        (*tasklet).clone()
    };
    let others = [
        sleeper("paused", schedule_remove),
        sleeper("blocked", || drop(Channel::<()>::new().receive())),
        sleeper("scheduled", || {
            schedule_remove();
            schedule();
        }),
    ];
    run();
    others[2].run().unwrap();
    assert_eq!([&others[0], &others[1], &others[2]].map(states), [PAUSED, BLOCKED, SCHEDULED]);
    let (victims, end) = (others.clone(), log.clone());
    let killer = Tasklet::bind(move || {
        let _end = OnDrop::new(move || {
            for victim in &victims {
                // It unwinds, so it cannot wait for them: they end as soon as they can.
                assert!(matches!(victim.kill(), Err(TaskletError::Pending(_))));
            }
            end.add("killer");
        });
        schedule_remove();
    });
    killer.run().unwrap();
    killer.kill().unwrap();
    assert_eq!(states(&killer), DEAD);
    run();
    assert_eq!(others.each_ref().map(states), [DEAD; 3]);
    let ends = log.text();
    assert!(ends.starts_with("killer "), "{ends}");
    assert_eq!(ends.split(' ').count(), 4, "{ends}");
}

/// test_shutdown.test_kill_modifies_slp_cstack_chain: a result that is dropped during a kill drops, and ends, others.
#[test]
fn a_chain_of_tasklets_that_hold_each_other() {
    let ended = Rc::new(RefCell::new(Vec::new()));
    let mut next = None::<Tasklet<()>>;
    for number in 0..20 {
        let (held, ended) = (next.take(), ended.clone());
        let tasklet = tasklet(move || {
            let _end = OnDrop::new(move || {
                ended.borrow_mut().push(number);
                if let Some(held) = &held {
                    let _ = held.kill();
                }
            });
            schedule_remove();
        });
        next = Some(tasklet);
    }
    run();
    next.unwrap().kill().unwrap();
    run();
    assert_eq!(*ended.borrow(), (0..20).rev().collect::<Vec<_>>());
}

/// test_generator.testGCRunningGenerator: one that is suspended while it holds an iterator midway drops it when it
/// ends.
#[test]
fn a_suspended_iterator_is_dropped() {
    let item = Rc::new(());
    let items = vec![item.clone(); 5];
    let victim = tasklet(move || {
        for _item in items {
            schedule_remove();
        }
    });
    run();
    assert_eq!((states(&victim), Rc::strong_count(&item)), (PAUSED, 6));
    victim.kill().unwrap();
    assert_eq!(Rc::strong_count(&item), 1);
}

/// test_generator.testSimpleLeakage: a thousand that are ended while suspended leave nothing behind.
#[test]
fn a_thousand_leave_nothing_behind() {
    let item = Rc::new(());
    let victims: Vec<_> = (0..1000)
        .map(|_| {
            let item = item.clone();
            tasklet(move || {
                let _item = item;
                schedule_remove();
            })
        })
        .collect();
    run();
    assert_eq!(Rc::strong_count(&item), 1001);
    for victim in victims {
        victim.kill().unwrap();
    }
    assert_eq!((Rc::strong_count(&item), run().paused), (1, 0));
}

/// test_shutdown.test_deep_tasklets: twenty tasklets, each suspended below many calls, can be ended.
#[test]
fn deep_tasklets_can_be_ended() {
    fn below(depth: u32, wait: &dyn Fn()) -> u32 {
        if depth == 0 {
            wait();
            return 0;
        }
        let _guard = OnDrop::new(|| std::hint::black_box(()));
        std::hint::black_box(below(depth - 1, wait) + 1)
    }
    let ended = Rc::new(Cell::new(0));
    let victims = [(); 20].map(|()| {
        let ended = ended.clone();
        tasklet(move || {
            let _end = OnDrop::new(move || ended.set(ended.get() + 1));
            below(100, &schedule_remove)
        })
    });
    run();
    for victim in victims {
        victim.kill().unwrap();
    }
    assert_eq!(ended.get(), 20);
}

/// own kill is sticky: from the kill on no call of the victim waits.
#[test]
fn after_the_kill_no_call_waits() {
    let log = Log::default();
    let theirs = log.clone();
    let victim = tasklet(move || {
        let end = theirs.clone();
        let _end = OnDrop::new(move || {
            schedule();
            schedule_remove();
            let refused = Channel::<()>::new().receive().unwrap_err();
            assert!(matches!(refused, ReceiveError::Refused(_)), "{refused:?}");
            end.add("end");
        });
        schedule_remove();
        theirs.add("unreachable");
    });
    run();
    log.two_turns("a");
    victim.kill().unwrap();
    log.assert("end");
}
