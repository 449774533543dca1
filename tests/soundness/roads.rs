//! A scope is left by every road there is. Whichever it is, its tasklets have ended first.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    process,
    rc::Rc,
    time::Duration,
};

use pila::{
    Builder, Channel, Handle, JoinError, Scope, TaskletError, current, kill_all, run, schedule,
    schedule_remove, scope, shield, sleep, spawn_thread, tasklet, timeout,
};

use crate::{again, ground::Ground, is_child};

const NEVER: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(2);

/// What a scope's closure has to work with.
struct Inside<'scope, 'env> {
    s: &'scope Scope<'scope, 'env>,
    ground: &'scope Ground,
    owner: Handle,
}

/// Makes tasklets in every state: unstarted, ended with a result that nobody has read, blocked, paused, runnable,
/// waiting for others of the scope, in a scope of their own, in a shield.
fn fill<'scope>(s: &'scope Scope<'scope, '_>, ground: &'scope Ground) -> Vec<Handle> {
    let (handles, borrow) = (Rc::new(RefCell::new(Vec::new())), || ground.borrower());
    let ended = s.tasklet({
        let own = borrow();
        move || own
    });
    let add = |handle: Handle| handles.borrow_mut().push(handle);
    add(ended.handle());
    // A sibling holds the handle of one with a result that borrows.
    let holds = borrow();
    add(s
        .tasklet(move || {
            holds.touch();
            schedule_remove();
            drop(ended);
        })
        .handle());
    let own = borrow();
    add(s
        .tasklet(move || {
            let _mine = (own, ground.borrower());
            let _ = Channel::<()>::new().receive();
        })
        .handle());
    let own = borrow();
    add(s
        .tasklet(move || {
            loop {
                own.touch();
                schedule();
            }
        })
        .handle());
    let (own, theirs) = (borrow(), handles.clone());
    add(s
        .tasklet(move || {
            let waits = s.tasklet(move || {
                let _own = own;
                sleep(NEVER);
            });
            theirs.borrow_mut().push(waits.handle());
            let _mine = ground.borrower();
            let _ = waits.join();
        })
        .handle());
    add(s
        .tasklet(move || {
            let inner = Ground::new();
            scope(|deeper| {
                for _ in 0..2 {
                    deeper.tasklet(|| {
                        let _both = (ground.borrower(), inner.borrower());
                        sleep(NEVER);
                    });
                }
            });
        })
        .handle());
    let own = borrow();
    add(s
        .tasklet(move || {
            shield(|| sleep(SOON));
            own.touch();
            schedule();
            own.touch();
            sleep(NEVER);
        })
        .handle());
    schedule();
    schedule();
    let own = borrow();
    add(s.tasklet(move || own.touch()).handle());
    let own = borrow();
    add(s.bind(move || own.touch()).handle());
    handles.take()
}

/// Leaves a scope, owned by a tasklet, by `road`. What the owner ended with.
#[track_caller]
fn leave<T: 'static>(
    outside: impl FnOnce(&dyn Fn() -> T) -> T + 'static,
    road: impl for<'scope> Fn(&Inside<'scope, '_>) -> T + 'static,
) -> Result<T, JoinError> {
    thread_local! {
        static LEFT: Cell<bool> = const { Cell::new(false) };
    }
    /// Looks whether all have ended, however the frame is left.
    struct Look<'a>(&'a RefCell<Vec<Handle>>, &'a Ground);
    impl Drop for Look<'_> {
        fn drop(&mut self) {
            let alive = self.0.borrow().iter().filter(|handle| handle.is_alive()).count();
            let (made, left) = self.1.borrowers();
            LEFT.set(alive == 0 && left == 0 && made > 8);
            if !LEFT.get() {
                println!("{alive} alive, {left} of {made} borrowers left");
            }
        }
    }
    LEFT.set(false);
    let owner = tasklet(move || {
        outside(&|| {
            let (ground, handles) = (Ground::new(), RefCell::new(Vec::new()));
            let _look = Look(&handles, &ground);
            scope(|s| {
                let ground = &ground;
                handles.borrow_mut().extend(fill(s, ground));
                road(&Inside { s, ground, owner: current() })
            })
        })
    });
    let handle = owner.handle();
    let result = owner.join();
    assert!(!handle.is_alive());
    assert!(LEFT.get(), "the scope was left before its tasklets had ended");
    assert_eq!(run().blocked, 0);
    result
}

/// Ends those that would go on for ever, from outside of the scope.
fn end_all_in(handles: Vec<Handle>) {
    for handle in handles {
        let _ = handle.kill();
    }
}

#[test]
fn by_returning() {
    fn numbers(s: &Inside<'_, '_>) -> Option<u32> {
        let siblings = fill(s.s, s.ground);
        // The scope would wait for ever for these.
        tasklet(move || end_all_in(siblings));
        None?
    }
    let ground = Ground::new();
    let returned = scope(|s| {
        let handles = fill(s, &ground);
        tasklet(move || {
            sleep(SOON);
            end_all_in(handles);
        });
        let inside = Inside { s, ground: &ground, owner: current() };
        numbers(&inside).is_none()
    });
    assert!(returned);
    assert_eq!(ground.borrowers().1, 0);
}

#[test]
fn by_break_out_of_a_loop_around_it() {
    let ground = Ground::new();
    let rounds = loop {
        let done = 'body: {
            scope(|s| {
                for number in 0.. {
                    let own = ground.borrower();
                    s.tasklet(move || {
                        schedule();
                        own.touch();
                    });
                    if number == 5 {
                        break;
                    }
                }
            });
            if ground.borrowers().0 > 20 {
                break 'body true;
            }
            false
        };
        assert_eq!(ground.borrowers().1, 0);
        if done {
            break ground.borrowers().0;
        }
    };
    assert_eq!(rounds, 24);
}

#[test]
fn by_a_panic_of_its_closure() {
    let ended: Result<(), _> = leave(|scope| scope(), |_| resume_unwind(Box::new("the owner's")));
    let Err(JoinError::Panicked(panic)) = ended else { panic!("{ended:?}") };
    assert_eq!(panic.message(), "the owner's");
}

#[test]
fn by_a_kill_of_its_owner() {
    let ended = leave(
        |scope| scope(),
        |inside| {
            let owner = inside.owner.clone();
            tasklet(move || _ = owner.kill());
            sleep(NEVER);
        },
    );
    assert!(matches!(ended, Err(JoinError::Killed)));
}

#[test]
fn by_a_later_kill_of_its_owner() {
    let ended = leave(
        |scope| scope(),
        |inside| {
            let owner = inside.owner.clone();
            tasklet(move || owner.kill_later().unwrap());
            // The scope waits, not its closure.
        },
    );
    assert!(matches!(ended, Err(JoinError::Killed)));
}

#[test]
fn by_its_owner_killing_itself() {
    let ended = leave(|scope| scope(), |inside| _ = inside.owner.kill());
    assert!(matches!(ended, Err(JoinError::Killed)));
}

#[test]
fn by_a_timeout_around_it() {
    let ended = leave(|scope| _ = timeout(SOON, scope), |_| ());
    assert!(ended.is_ok());
    let ended = leave(|scope| assert!(timeout(SOON, scope).is_err()), |_| sleep(NEVER));
    assert!(ended.is_ok());
}

#[test]
fn by_a_panic_of_a_tasklet() {
    let ended = leave(
        |scope| scope(),
        |inside| {
            let own = inside.ground.borrower();
            inside.s.tasklet(move || {
                own.touch();
                resume_unwind(Box::new("the child's"));
            });
            sleep(NEVER);
        },
    );
    let Err(JoinError::Panicked(panic)) = ended else { panic!("{ended:?}") };
    assert_eq!(panic.message(), "the child's");
}

#[test]
fn by_a_kill_that_one_of_its_tasklets_gives_its_owner() {
    for later in [false, true] {
        let ended = leave(
            |scope| scope(),
            move |inside| {
                let (own, owner) = (inside.ground.borrower(), inside.owner.clone());
                inside.s.tasklet(move || {
                    let _ = if later { owner.kill_later() } else { owner.kill() };
                    own.touch();
                    sleep(NEVER);
                });
            },
        );
        assert!(matches!(ended, Err(JoinError::Killed)), "{later}");
    }
}

#[test]
fn by_a_kill_that_reaches_the_owner_while_it_ends_its_tasklets() {
    struct KillsOwner<'a>(&'a Handle, &'a Ground);
    impl Drop for KillsOwner<'_> {
        fn drop(&mut self) {
            self.1.touch();
            assert!(matches!(self.0.kill(), Err(TaskletError::Pending(_))));
        }
    }
    // The closure panics and a destructor of one that is ended kills: what is left of the owner is a kill.
    let ended = leave(
        |scope| scope(),
        |inside| {
            let (ground, owner) = (inside.ground, inside.owner.clone());
            inside.s.tasklet(move || {
                let _kills = KillsOwner(&owner, ground);
                sleep(NEVER);
            });
            schedule();
            resume_unwind(Box::new("the owner's"));
        },
    );
    let Err(JoinError::Panicked(panic)) = ended else { panic!("{ended:?}") };
    assert_eq!(panic.message(), "the owner's");

    // The same, with the kill from outside, while a shielded one holds up the end.
    let ended = leave(
        |scope| scope(),
        |inside| {
            let (ground, owner) = (inside.ground, inside.owner.clone());
            inside.s.tasklet(move || {
                shield(|| sleep(SOON * 3));
                ground.touch();
            });
            tasklet(move || {
                sleep(SOON);
                assert!(matches!(owner.kill(), Err(TaskletError::Pending(_))));
                assert!(matches!(owner.kill(), Err(TaskletError::Pending(_))));
            });
            schedule();
            let caught = catch_unwind(AssertUnwindSafe(|| _ = inside.owner.kill()));
            resume_unwind(caught.unwrap_err());
        },
    );
    assert!(matches!(ended, Err(JoinError::Killed)));
}

#[test]
fn by_a_timeout_that_strikes_while_it_ends_its_tasklets() {
    let ended = leave(
        |scope| {
            let caught = catch_unwind(AssertUnwindSafe(|| timeout(SOON, scope)));
            assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"the owner's"));
            // Nothing of the timeout is left.
            sleep(SOON);
        },
        |inside| {
            inside.s.tasklet(|| shield(|| sleep(SOON * 3)));
            schedule();
            resume_unwind(Box::new("the owner's"));
        },
    );
    ended.unwrap();
}

#[test]
fn by_a_deadlock() {
    let (ground, handles) = (Ground::new(), RefCell::new(Vec::new()));
    let panic = catch_unwind(AssertUnwindSafe(|| {
        scope(|s| {
            for _ in 0..3 {
                let own = ground.borrower();
                let waits = s.tasklet(move || {
                    let _own = own;
                    let _ = Channel::<()>::new().receive();
                });
                handles.borrow_mut().push(waits.handle());
            }
            let own = ground.borrower();
            handles.borrow_mut().push(s.bind(move || drop(own)).handle());
        });
    }));
    assert!(panic.is_err());
    assert!(handles.borrow().iter().all(|handle| !handle.is_alive()));
    assert_eq!(ground.borrowers(), (4, 0));
}

#[test]
fn by_an_owner_that_goes_on_after_its_kill() {
    let ended = leave(
        |scope| scope(),
        |inside| {
            let owner = inside.owner.clone();
            tasklet(move || assert!(matches!(owner.kill(), Err(TaskletError::Pending(_)))));
            let caught = catch_unwind(AssertUnwindSafe(|| sleep(NEVER)));
            assert!(caught.is_err());
            // None starts any more; the closure of this one is dropped here.
            let own = inside.ground.borrower();
            let late = inside.s.tasklet(move || own.touch());
            assert!(matches!(late.join(), Err(JoinError::Killed)));
        },
    );
    assert!(ended.is_ok(), "{ended:?}");
}

#[test]
fn by_kill_all() {
    let ended = leave(
        |scope| scope(),
        |_| {
            tasklet(|| _ = kill_all());
            sleep(NEVER);
        },
    );
    assert!(matches!(ended, Err(JoinError::Killed)));
    // By one of its own tasklets, which kills its owner before its siblings.
    let ended = leave(
        |scope| scope(),
        |inside| {
            let own = inside.ground.borrower();
            inside.s.tasklet(move || {
                let _ = kill_all();
                own.touch();
            });
        },
    );
    assert!(matches!(ended, Err(JoinError::Killed)));
}

#[test]
fn by_the_end_of_its_thread() {
    let thread = spawn_thread(|| {
        let (said, hear) = std::sync::mpsc::channel();
        tasklet(move || {
            let ground = Ground::new();
            scope(|s| {
                let handles = fill(s, &ground);
                said.send(handles.len()).unwrap();
            });
        });
        for _ in 0..5 {
            schedule();
        }
        hear.recv().unwrap()
    });
    // The shielded ones hold up nobody for ever: kill_all leaves them behind, and they are leaked.
    assert!(thread.unwrap().join().unwrap() > 8);
}

#[test]
fn by_process_exit_in_one_of_its_tasklets() {
    if is_child() {
        let ground = Ground::new();
        scope(|s| {
            fill(s, &ground);
            s.tasklet(|| {
                ground.touch();
                println!("leaves");
                process::exit(42);
            });
        });
        unreachable!("the process has ended");
    }
    let output = again("roads::by_process_exit_in_one_of_its_tasklets");
    assert_eq!(output.status.code(), Some(42), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("leaves"));
}

#[test]
fn tasklets_that_are_made_by_others_while_it_ends_never_start() {
    struct Makes<'scope, 'env> {
        s: &'scope Scope<'scope, 'env>,
        ground: &'scope Ground,
    }
    impl Drop for Makes<'_, '_> {
        fn drop(&mut self) {
            let own = self.ground.borrower();
            let late = self.s.tasklet(move || {
                own.touch();
                unreachable!("its scope is ending");
            });
            assert!(!late.is_alive());
            let late = self.s.bind(|| unreachable!("its scope is ending"));
            assert!(!late.is_alive());
            std::mem::forget(late);
        }
    }
    let ground = Ground::new();
    let ended = timeout(SOON, || {
        scope(|s| {
            for _ in 0..3 {
                s.tasklet(|| {
                    let _makes = Makes { s, ground: &ground };
                    sleep(NEVER);
                });
                // Unstarted: its closure's destructor makes one too.
                let makes = Makes { s, ground: &ground };
                s.bind(move || drop(makes));
            }
            // One that catches its kill, and makes others without unwinding.
            s.tasklet(|| {
                let _ = catch_unwind(AssertUnwindSafe(|| sleep(NEVER)));
                drop(Makes { s, ground: &ground });
            });
        });
    });
    assert!(ended.is_err());
    assert_eq!(ground.borrowers(), (7, 0));
}

#[test]
fn one_that_found_no_stack_is_dropped_before_the_scope_returns() {
    // The test of what is left then is in a process of its own: it fills the address space.
    if !is_child() {
        if cfg!(feature = "sanitizer") {
            return;
        }
        let name = "roads::one_that_found_no_stack_is_dropped_before_the_scope_returns";
        let output = again(name);
        assert!(output.status.success(), "{output:?}");
        return;
    }
    const TIB: usize = 1 << 40;
    let ground = Ground::new();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        scope(|s| {
            let own = ground.borrower();
            let starved =
                Builder::new().stack_size(TIB).bind_scoped(s, move || own.touch()).unwrap();
            while let Ok(huge) = Builder::new().stack_size(TIB).tasklet_scoped(s, || {
                let _own = ground.borrower();
                sleep(SOON * 5);
            }) {
                drop(huge);
                schedule();
            }
            starved.insert().unwrap();
            drop(starved);
            schedule();
            resume_unwind(Box::new("the owner's"));
        })
    }));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"the owner's"));
    let (made, left) = ground.borrowers();
    assert!(made > 8 && left == 0);
}
