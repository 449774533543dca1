//! Scopes: what tasklets borrow is there until they have ended, whatever road the scope is left by.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use pila::{Channel, JoinError, TaskletError, schedule, scope, shield, sleep, tasklet, timeout};

/// Counts its drops.
struct Counted<'a>(&'a Cell<u32>);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

fn message(payload: &(dyn std::any::Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "not a text".to_owned(),
    }
}

#[test]
fn tasklets_borrow_and_have_ended_when_the_scope_returns() {
    let (sum, numbers) = (Cell::new(0), (1..=100).collect::<Vec<u32>>());
    let answer = scope(|s| {
        for number in &numbers {
            let sum = &sum;
            s.tasklet(move || {
                schedule();
                sum.set(sum.get() + number);
            });
        }
        "done"
    });
    assert_eq!((answer, sum.get()), ("done", 5050));
}

#[test]
fn a_result_comes_from_join() {
    let words = ["one", "three"];
    let lengths = scope(|s| words.map(|word| s.tasklet(move || word.len()).join().unwrap()));
    assert_eq!(lengths, [3, 5]);
}

#[test]
fn scopes_nest_and_tasklets_make_others() {
    let count = Cell::new(0);
    scope(|outer| {
        for _ in 0..10 {
            outer.tasklet(|| {
                scope(|inner| {
                    for _ in 0..10 {
                        inner.tasklet(|| {
                            sleep(Duration::from_millis(1));
                            count.set(count.get() + 1);
                            outer.tasklet(|| count.set(count.get() + 100));
                        });
                    }
                });
            });
        }
    });
    assert_eq!(count.get(), 100 + 100 * 100);
}

#[test]
fn an_early_return_waits_for_all() {
    fn early(count: &Cell<u32>) -> Option<()> {
        scope(|s| {
            s.tasklet(|| {
                sleep(Duration::from_millis(2));
                count.set(count.get() + 1);
            });
            None?;
            Some(())
        })
    }
    let count = Cell::new(0);
    assert_eq!(early(&count), None);
    assert_eq!(count.get(), 1);
}

#[test]
fn a_panic_of_the_owner_ends_a_thousand_tasklets_first() {
    let dropped = Cell::new(0);
    let channel = Channel::<()>::new();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        scope(|s| {
            for _ in 0..1000 {
                s.tasklet(|| {
                    let _counted = Counted(&dropped);
                    channel.receive()
                });
            }
            schedule();
            panic!("the owner's");
        })
    }));
    assert_eq!(message(&*panic.unwrap_err()), "the owner's");
    assert_eq!(dropped.get(), 1000);
}

#[test]
fn unstarted_tasklets_are_dropped_by_a_panicking_owner() {
    let dropped = Cell::new(0);
    let _ = catch_unwind(AssertUnwindSafe(|| {
        scope(|s| {
            for _ in 0..10 {
                let counted = Counted(&dropped);
                s.tasklet(move || drop(counted));
            }
            assert_eq!(dropped.get(), 0);
            panic!("at once");
        })
    }));
    assert_eq!(dropped.get(), 10);
}

#[test]
fn a_panic_of_a_tasklet_ends_its_siblings_and_the_body() {
    let (dropped, channel) = (Cell::new(0), Channel::<()>::new());
    let panic = catch_unwind(AssertUnwindSafe(|| {
        scope(|s| {
            for _ in 0..10 {
                s.tasklet(|| {
                    let _counted = Counted(&dropped);
                    channel.receive()
                });
            }
            s.tasklet(|| panic!("the child's"));
            let _body = Counted(&dropped);
            let _ = channel.receive();
            unreachable!("the wait is ended");
        })
    }));
    assert_eq!(message(&*panic.unwrap_err()), "the child's");
    assert_eq!(dropped.get(), 11);
}

#[test]
fn the_panic_of_a_held_tasklet_goes_to_its_holder_alone() {
    let joined = scope(|s| s.tasklet(|| panic!("held")).join());
    assert!(matches!(joined, Err(JoinError::Panicked(panic)) if panic.message() == "held"));
}

#[test]
fn a_kill_of_the_owner_ends_all_before_it_returns() {
    let (dropped, others) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let theirs = dropped.clone();
    let owner = tasklet(move || {
        scope(|s| {
            for _ in 0..1000 {
                s.tasklet(|| {
                    let _counted = Counted(&theirs);
                    Channel::<()>::new().receive()
                });
            }
        });
    });
    schedule();
    schedule();
    let seen = others.clone();
    let bystander = tasklet(move || seen.set(seen.get() + 1));
    owner.kill().unwrap();
    assert_eq!((dropped.get(), others.get()), (1000, 0));
    assert!(matches!(owner.join(), Err(JoinError::Killed)));
    bystander.join().unwrap();
}

#[test]
fn a_child_that_kills_its_owner_is_ended_too() {
    let went_on = Rc::new(Cell::new(false));
    let theirs = went_on.clone();
    let owner = tasklet(move || {
        let me = pila::current();
        scope(|s| {
            s.tasklet(|| {
                let _ = me.kill();
                theirs.set(true);
            });
        });
    });
    let handle = owner.handle();
    assert!(matches!(owner.join(), Err(JoinError::Killed)));
    assert!(!went_on.get() && !handle.is_alive());
}

#[test]
fn a_timeout_around_a_scope_ends_its_tasklets() {
    let dropped = Cell::new(0);
    let ended = timeout(Duration::from_millis(5), || {
        scope(|s| {
            for _ in 0..100 {
                s.tasklet(|| {
                    let _counted = Counted(&dropped);
                    sleep(Duration::MAX);
                });
            }
        });
    });
    assert_eq!(ended.unwrap_err().limit(), Duration::from_millis(5));
    assert_eq!(dropped.get(), 100);
}

#[test]
fn a_deadlock_ends_the_tasklets_and_panics_with_the_report() {
    let dropped = Cell::new(0);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        scope(|s| {
            for _ in 0..3 {
                s.tasklet(|| {
                    let _counted = Counted(&dropped);
                    let _ = Channel::<()>::new().receive();
                });
            }
        });
    }));
    let message = message(&*panic.unwrap_err());
    assert!(message.contains("could not go on and were ended: deadlock"), "{message}");
    assert!(message.contains("waits for a sender on channel"), "{message}");
    assert!(message.contains("waits for the tasklets of its scope to end"), "{message}");
    assert_eq!(dropped.get(), 3);
}

#[test]
fn a_stubborn_tasklet_holds_up_its_scope_and_nobody_else() {
    let rounds = Cell::new(0);
    let _ = catch_unwind(AssertUnwindSafe(|| {
        scope(|s| {
            s.tasklet(|| {
                let _ = catch_unwind(AssertUnwindSafe(|| sleep(Duration::MAX)));
                for _ in 0..5000 {
                    rounds.set(rounds.get() + 1);
                    sleep(Duration::MAX);
                }
            });
            schedule();
            panic!("end it");
        })
    }));
    assert_eq!(rounds.get(), 5000);
}

#[test]
fn a_shielded_tasklet_finishes_what_it_does() {
    let steps = RefCell::new(Vec::new());
    let ended = timeout(Duration::from_millis(2), || {
        scope(|s| {
            s.tasklet(|| {
                shield(|| {
                    sleep(Duration::from_millis(10));
                    steps.borrow_mut().push("shielded");
                });
                sleep(Duration::ZERO);
                steps.borrow_mut().push("after");
            });
        });
    });
    assert!(ended.is_err());
    assert_eq!(*steps.borrow(), ["shielded"]);
}

#[test]
fn a_tasklet_that_is_blocked_in_a_shield_for_ever_is_told_of_the_deadlock() {
    let told = Cell::new(false);
    let _ = catch_unwind(AssertUnwindSafe(|| {
        scope(|s| {
            s.tasklet(|| shield(|| told.set(Channel::<()>::new().receive().is_err())));
            schedule();
            panic!("end it");
        })
    }));
    assert!(told.get());
}

#[test]
fn a_scope_in_a_tasklet_that_is_being_ended_starts_nothing() {
    struct OnDrop(Rc<RefCell<Vec<&'static str>>>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            let log = &self.0;
            scope(|s| {
                let child = s.tasklet(|| log.borrow_mut().push("never"));
                assert!(!child.is_alive());
                assert!(matches!(child.join(), Err(JoinError::Killed)));
            });
            log.borrow_mut().push("returned");
        }
    }
    let log = Rc::new(RefCell::new(Vec::new()));
    let guard = OnDrop(log.clone());
    let victim = tasklet(move || {
        let _guard = guard;
        sleep(Duration::MAX);
    });
    schedule();
    victim.kill().unwrap();
    assert_eq!(*log.borrow(), ["returned"]);
}

#[test]
fn a_no_switch_guard_cannot_let_a_scope_return_early() {
    let (dropped, panic) = (Cell::new(0), Cell::new(None));
    panic.set(
        catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                s.tasklet(|| {
                    let _counted = Counted(&dropped);
                    sleep(Duration::MAX);
                });
                schedule();
                std::mem::forget(pila::no_switch());
            });
        }))
        .err(),
    );
    let message = message(&*panic.take().unwrap());
    assert!(message.starts_with("scope: the no_switch guard made at"), "{message}");
    assert_eq!(dropped.get(), 1);
}

#[test]
fn a_killed_owner_that_waits_for_a_shielded_child_is_pending() {
    let ended = Rc::new(Cell::new(false));
    let theirs = ended.clone();
    let owner = tasklet(move || {
        scope(|s| {
            s.tasklet(|| shield(|| sleep(Duration::from_millis(5))));
        });
        theirs.set(true);
    });
    schedule();
    schedule();
    assert!(matches!(owner.kill(), Err(TaskletError::Pending(_))));
    assert!(matches!(owner.join(), Err(JoinError::Killed)));
    assert!(!ended.get());
}

#[test]
fn two_panics_the_first_goes_on_and_the_second_is_counted() {
    let before = pila::run();
    assert_eq!(before.unread_panics, 0);
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("second"));
        }
    }
    tasklet(|| {
        let panic = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                s.tasklet(|| {
                    let _bomb = catch_unwind(AssertUnwindSafe(|| sleep(Duration::MAX)));
                    drop(Bomb);
                });
                s.tasklet(|| std::panic::resume_unwind(Box::new("first")));
                sleep(Duration::MAX);
            })
        }));
        assert_eq!(message(&*panic.unwrap_err()), "first");
    });
    assert_eq!(pila::run().unread_panics, 1);
}
