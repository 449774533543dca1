//! Thread-locals, looked at by tasklets that are suspended and ended meanwhile.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Duration,
};

use pila::{Channel, run, schedule, scope, sleep, spawn_thread, tasklet, timeout};

use crate::ground::Ground;

const NEVER: Duration = Duration::from_secs(3600);

thread_local! {
    static GROUND: Ground = Ground::new();
    static LIST: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

#[test]
fn one_that_is_ended_inside_of_with_gives_back_what_it_borrowed() {
    let victim = tasklet(|| {
        LIST.with_borrow_mut(|list| {
            list.push(1);
            sleep(NEVER);
        });
    });
    schedule();
    let held = catch_unwind(AssertUnwindSafe(|| LIST.with_borrow_mut(|list| list.push(0))));
    assert!(held.is_err(), "a borrow across a wait is a borrow");
    victim.kill().unwrap();
    LIST.with_borrow_mut(|list| list.push(2));
    let ended = timeout(Duration::from_millis(1), || {
        LIST.with_borrow_mut(|list| {
            list.push(3);
            sleep(NEVER);
        });
    });
    assert!(ended.is_err());
    assert_eq!(LIST.take(), [1, 2, 3]);
}

#[test]
fn a_scope_inside_of_with_lends_the_thread_local_to_its_tasklets() {
    let borrowers = GROUND.with(|ground| {
        let ended = timeout(Duration::from_millis(1), || {
            scope(|s| {
                for _ in 0..5 {
                    s.tasklet(|| {
                        let _own = ground.borrower();
                        sleep(NEVER);
                    });
                }
                let own = ground.borrower();
                s.bind(move || drop(own));
            });
        });
        assert!(ended.is_err());
        ground.borrowers()
    });
    assert_eq!(borrowers, (6, 0));
}

#[test]
fn a_thread_local_is_there_for_all_tasklets_that_its_tidy_thread_ends() {
    let thread = spawn_thread(|| {
        for _ in 0..10 {
            tasklet(|| {
                GROUND.with(|ground| {
                    scope(|s| {
                        s.tasklet(|| {
                            let _own = ground.borrower();
                            sleep(NEVER);
                        });
                    });
                });
            });
        }
        for _ in 0..3 {
            schedule();
        }
        GROUND.with(|ground| assert_eq!(ground.borrowers(), (10, 10)));
        // It is dropped after them: it fails if one is left that uses it later.
    });
    thread.unwrap().join().unwrap();
}

#[test]
fn a_thread_that_ends_leaks_those_that_look_at_its_thread_locals_in_a_scope() {
    let (said, hear) = std::sync::mpsc::channel();
    let (its_own, hear_its_own) = std::sync::mpsc::channel();
    let thread = thread::spawn(move || {
        struct Tells(std::sync::mpsc::Sender<&'static str>);
        impl Drop for Tells {
            fn drop(&mut self) {
                let _ = self.0.send("dropped");
            }
        }
        let gate = Channel::<()>::new();
        let theirs = gate.clone();
        tasklet(move || {
            let (suspended, unstarted, own) =
                (Tells(said.clone()), Tells(said.clone()), Tells(said.clone()));
            GROUND.with(|ground| {
                scope(|s| {
                    s.tasklet(|| {
                        let _mine = (ground.borrower(), suspended);
                        let _ = theirs.receive();
                        ground.touch();
                    });
                    s.bind(|| drop((ground.borrower(), unstarted)));
                });
            });
            drop(own);
        });
        schedule();
        schedule();
        // This closure, which is no scope's, is dropped.
        let unscoped = Tells(its_own);
        tasklet(move || drop(unscoped));
    });
    thread.join().unwrap();
    assert_eq!(hear.try_iter().count(), 0, "what a scope's tasklets have is leaked with them");
    assert_eq!(hear_its_own.try_iter().count(), 1);
}

#[test]
fn a_scope_in_the_destructor_of_a_thread_local_works_or_starts_nothing() {
    struct AtEnd(RefCell<Option<Box<dyn FnOnce()>>>);
    impl Drop for AtEnd {
        fn drop(&mut self) {
            if let Some(call) = self.0.take() {
                call();
            }
        }
    }
    thread_local! {
        static EARLY: AtEnd = const { AtEnd(RefCell::new(None)) };
        static LATE: AtEnd = const { AtEnd(RefCell::new(None)) };
    }
    let (said, hear) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let try_it = move |name, said: std::sync::mpsc::Sender<_>| {
            let (ground, ran) = (Ground::new(), Cell::new(0));
            let joined = scope(|s| {
                let (own, ran) = (ground.borrower(), &ran);
                s.tasklet(move || {
                    own.touch();
                    schedule();
                    ran.set(ran.get() + 1);
                })
                .join()
                .is_ok()
            });
            assert_eq!(ground.borrowers(), (1, 0));
            said.send((name, joined, ran.get())).unwrap();
        };
        let (early, late) = (said.clone(), said);
        EARLY.with(|at| *at.0.borrow_mut() = Some(Box::new(move || try_it("early", early))));
        tasklet(|| sleep(NEVER));
        schedule();
        LATE.with(|at| *at.0.borrow_mut() = Some(Box::new(move || try_it("late", late))));
    })
    .join()
    .unwrap();
    // The one that was registered last is destroyed first, before the thread's end is seen.
    let heard: Vec<_> = hear.iter().collect();
    assert_eq!(heard, [("late", true, 1), ("early", false, 0)]);
    assert_eq!(run().finished, 0);
}
