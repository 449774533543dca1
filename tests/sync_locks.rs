//! Mutexes and read-write locks: who has them, in which order, and what becomes of a turn that is not used.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use pila::{
    Builder, JoinError, Refused, Waiting,
    driver::{self, VirtualClock},
    sleep,
    sync::{LockError, Mutex, RwLock},
    tasklet,
};

const MS: Duration = Duration::from_millis(1);

fn virtual_time() -> impl Fn() -> Duration + Clone {
    driver::install(Box::new(VirtualClock::new())).unwrap();
    let start = driver::now();
    move || driver::now() - start
}

fn trace<T: 'static>() -> (Rc<RefCell<Vec<T>>>, impl Fn(T) + Clone) {
    let trace = Rc::new(RefCell::new(Vec::new()));
    let theirs = trace.clone();
    (trace, move |entry| theirs.borrow_mut().push(entry))
}

// lock_tests: Lock.

#[test]
fn try_lock_locks_what_is_free() {
    let mutex = Mutex::new(());
    assert!(!mutex.is_locked());
    drop(mutex.try_lock().unwrap());
    assert!(!mutex.is_locked());
}

#[test]
fn try_lock_fails_when_another_has_locked() {
    let mutex = Rc::new(Mutex::new(()));
    let _guard = mutex.lock().unwrap();
    let theirs = mutex.clone();
    let other = tasklet(move || matches!(theirs.try_lock(), Err(LockError::Timeout)));
    assert!(other.join().unwrap());
}

#[test]
fn contended_lock_lets_waiters_in_one_by_one_in_the_order_of_their_coming() {
    let mutex = Rc::new(Mutex::new(()));
    let guard = mutex.lock().unwrap();
    let (seen, note) = trace();
    for i in 0..5 {
        let (mutex, note) = (mutex.clone(), note.clone());
        tasklet(move || {
            let _guard = mutex.lock().unwrap();
            note(i);
            sleep(MS);
        });
    }
    assert_eq!(pila::run().blocked, 5);
    assert!(seen.borrow().is_empty());
    drop(guard);
    pila::schedule();
    assert_eq!(*seen.borrow(), [0]);
    pila::run();
    assert_eq!(*seen.borrow(), [0, 1, 2, 3, 4]);
}

#[test]
fn a_guard_unlocks_when_its_block_ends_also_by_a_panic() {
    let mutex = Mutex::new(1);
    *mutex.lock().unwrap() += 1;
    assert!(!mutex.is_locked());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut guard = mutex.lock().unwrap();
        *guard += 1;
        panic!("not poisoned");
    }));
    assert!(panicked.is_err());
    assert_eq!(*mutex.lock().unwrap(), 3);
}

#[test]
fn locking_twice_is_an_error_that_names_both() {
    let mutex = Rc::new(Mutex::new(()));
    let theirs = mutex.clone();
    let twice = Builder::new().name("twice").tasklet(move || {
        let _guard = theirs.lock().unwrap();
        (theirs.lock().map(drop), theirs.try_lock().map(drop), theirs.lock_timeout(MS).map(drop))
    });
    let (lock, try_lock, timeout) = twice.unwrap().join().unwrap();
    let error = lock.unwrap_err();
    assert!(
        matches!(&error, LockError::AlreadyLocked { who, .. } if who.name.as_deref() == Some("twice"))
    );
    let text = error.to_string();
    assert!(text.contains("tasklet 'twice' (#1) has locked mutex 1 (created at "), "{text}");
    assert!(text.contains("sync_locks.rs"), "{text}");
    assert!(matches!(try_lock, Err(LockError::AlreadyLocked { .. })));
    assert!(matches!(timeout, Err(LockError::AlreadyLocked { .. })));
    assert!(!mutex.is_locked());
}

#[test]
fn relocking_waits_until_the_other_has_unlocked() {
    let mutex = Rc::new(Mutex::new(0));
    let theirs = mutex.clone();
    let guard = mutex.lock().unwrap();
    let other = tasklet(move || {
        drop(theirs.lock().unwrap());
        *theirs.lock().unwrap() = 2;
    });
    pila::schedule();
    assert!(other.is_blocked());
    drop(guard);
    other.join().unwrap();
    assert_eq!(*mutex.lock().unwrap(), 2);
}

#[test]
fn another_tasklet_may_unlock_by_dropping_the_guard() {
    let mutex: &'static Mutex<i32> = Box::leak(Box::new(Mutex::new(1)));
    let guard = mutex.lock().unwrap();
    let other = tasklet(move || {
        let owner_is_main = mutex.owner().unwrap().is_main();
        // It is not the one that locked it: it would have to wait.
        let would_wait = matches!(mutex.try_lock(), Err(LockError::Timeout));
        drop(guard);
        *mutex.lock().unwrap() += 1;
        (owner_is_main, would_wait)
    });
    assert_eq!(other.join().unwrap(), (true, true));
    assert_eq!(*mutex.lock().unwrap(), 2);
}

#[test]
fn unlocking_hands_over_so_nobody_barges_in() {
    let mutex = Rc::new(Mutex::new(()));
    let guard = mutex.lock().unwrap();
    let theirs = mutex.clone();
    let first = tasklet(move || drop(theirs.lock().unwrap()));
    pila::schedule();
    drop(guard);
    assert_eq!(mutex.owner().unwrap().id(), first.id());
    assert!(matches!(mutex.try_lock(), Err(LockError::Timeout)));
    first.join().unwrap();
    assert!(mutex.owner().is_none());
}

#[test]
fn lock_timeout_ends_at_its_time_and_not_before() {
    let now = virtual_time();
    let mutex = Rc::new(Mutex::new(()));
    let guard = mutex.lock().unwrap();
    let theirs = mutex.clone();
    let clock = now.clone();
    let late = tasklet(move || (theirs.lock_timeout(5 * MS).map(drop), clock()));
    let theirs = mutex.clone();
    let in_time = tasklet(move || theirs.lock_timeout(500 * MS).map(drop));
    sleep(20 * MS);
    drop(guard);
    let (result, when) = late.join().unwrap();
    assert!(matches!(result, Err(LockError::Timeout)));
    assert_eq!(when, 5 * MS);
    in_time.join().unwrap().unwrap();
    assert_eq!(now(), 20 * MS);
}

#[test]
fn a_killed_or_interrupted_waiter_leaves_the_line() {
    let mutex = Rc::new(Mutex::new(()));
    let guard = mutex.lock().unwrap();
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let mutex = mutex.clone();
            tasklet(move || mutex.lock().map(drop))
        })
        .collect();
    pila::schedule();
    waiters[0].kill().unwrap();
    waiters[1].throw("no more").unwrap();
    drop(guard);
    let results: Vec<_> = waiters.into_iter().map(pila::Tasklet::join).collect();
    assert!(matches!(results[0], Err(JoinError::Killed)));
    assert!(matches!(&results[1], Ok(Err(LockError::Thrown(e))) if e.to_string() == "no more"));
    assert!(matches!(results[2], Ok(Ok(()))));
}

#[test]
fn a_waiter_killed_after_its_turn_came_passes_the_lock_on() {
    let mutex = Rc::new(Mutex::new(()));
    let guard = mutex.lock().unwrap();
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let mutex = mutex.clone();
            tasklet(move || drop(mutex.lock().unwrap()))
        })
        .collect();
    pila::schedule();
    drop(guard); // now it is the first's
    waiters[0].kill().unwrap();
    assert_eq!(mutex.owner().unwrap().id(), waiters[1].id());
    waiters[1].kill_later().unwrap();
    pila::run();
    assert!(waiters.iter().all(|waiter| !waiter.is_alive()));
    assert!(!mutex.is_locked());
}

#[test]
fn a_free_lock_can_be_had_while_unwinding_and_a_locked_one_is_refused() {
    struct OnDrop(Rc<Mutex<Vec<Refused>>>, Rc<Mutex<()>>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            let Err(LockError::Refused(refused)) = self.1.lock() else { panic!("it is locked") };
            self.0.lock().unwrap().push(refused);
        }
    }
    let (free, locked) = (Rc::new(Mutex::new(Vec::new())), Rc::new(Mutex::new(())));
    let _guard = locked.lock().unwrap();
    let on_drop = OnDrop(free.clone(), locked.clone());
    let panics = tasklet(move || {
        let _on_drop = on_drop;
        panic!("unwinds");
    });
    assert!(matches!(panics.join(), Err(JoinError::Panicked(_))));
    let on_drop = OnDrop(free.clone(), locked.clone());
    let killed = tasklet(move || {
        let _on_drop = on_drop;
        sleep(Duration::MAX);
    });
    pila::schedule();
    killed.kill().unwrap();
    assert_eq!(*free.lock().unwrap(), [Refused::Unwinding, Refused::Killed]);
}

#[test]
fn a_guard_and_a_block_trap_refuse_the_wait_and_change_nothing() {
    let mutex = Rc::new(Mutex::new(()));
    let theirs = mutex.clone();
    let holder = tasklet(move || {
        let _guard = theirs.lock().unwrap();
        pila::schedule_remove();
    });
    pila::schedule();
    let guard = pila::no_switch();
    assert!(matches!(mutex.lock(), Err(LockError::Refused(Refused::NoSwitch(_)))));
    drop(guard);
    pila::current().set_block_trap(true).unwrap();
    assert!(matches!(mutex.lock(), Err(LockError::Refused(Refused::BlockTrap))));
    pila::current().set_block_trap(false).unwrap();
    holder.kill().unwrap();
    assert!(mutex.lock().is_ok());
}

/// Ends after everyone else has made way: so a deadlock is main's to hear of.
fn bystander() {
    tasklet(|| (0..20).for_each(|_| pila::schedule()));
}

#[test]
fn opposite_order_is_a_deadlock_that_names_mutexes_places_and_owners() {
    let (a, b) = (Rc::new(Mutex::new(())), Rc::new(Mutex::new(())));
    let lock_both = |name: &'static str, first: &Rc<Mutex<()>>, second: &Rc<Mutex<()>>| {
        let (first, second) = (first.clone(), second.clone());
        let both = Builder::new().name(name).tasklet(move || {
            let _first = first.lock().unwrap();
            pila::schedule();
            drop(second.lock().unwrap());
        });
        both.unwrap()
    };
    let one = lock_both("one", &a, &b);
    let two = lock_both("two", &b, &a);
    bystander();
    let Err(JoinError::Deadlock(report)) = one.join() else { panic!("a deadlock") };
    let text = report.to_string();
    for (waits, holder) in [("lock mutex 2", "'two' (#2)"), ("lock mutex 1", "'one' (#1)")] {
        let line = text.lines().find(|line| line.contains(waits)).unwrap();
        assert!(line.contains("(created at tests/sync_locks.rs:"), "{text}");
        assert!(line.ends_with(&format!(", held by {holder}")), "{text}");
    }
    two.kill().unwrap();
    assert_eq!(pila::run().blocked, 0);
}

#[test]
fn the_last_to_close_the_circle_is_told_with_both_mutexes_in_the_report() {
    let (a, b) = (Rc::new(Mutex::new(())), Rc::new(Mutex::new(())));
    let (their_a, their_b) = (a.clone(), b.clone());
    let other = Builder::new().name("other").tasklet(move || {
        let _b = their_b.lock().unwrap();
        drop(their_a.lock().unwrap());
    });
    let other = other.unwrap();
    let guard = a.lock().unwrap();
    pila::schedule();
    let Err(LockError::Deadlock(report)) = b.lock() else { panic!("a deadlock") };
    let text = report.to_string();
    assert!(text.contains("waits to lock mutex 1 (created at tests/sync_locks.rs"), "{text}");
    assert!(text.contains("waits to lock mutex 2 (created at tests/sync_locks.rs"), "{text}");
    assert!(
        text.contains("held by 'other' (#1)") && text.contains("held by 'main' (#0)"),
        "{text}"
    );
    drop(guard);
    other.join().unwrap();
}

#[test]
fn the_report_names_the_holder_of_the_moment_not_of_the_beginning() {
    let mutex = Rc::new(Mutex::new(()));
    let guard = mutex.lock().unwrap();
    let holds_on = || {
        let mutex = mutex.clone();
        tasklet(move || {
            let _guard = mutex.lock();
            pila::schedule_remove();
        })
    };
    let (next, _last) = (holds_on(), holds_on());
    bystander();
    pila::schedule();
    drop(guard);
    let Err(LockError::Deadlock(report)) = mutex.lock() else { panic!("a deadlock") };
    let lockers = report.waiters().iter().filter(|w| matches!(w.waiting, Waiting::Lock(_)));
    let holders: Vec<_> = lockers.map(|waiter| waiter.holder.clone().unwrap().id).collect();
    assert_eq!(holders, [next.id(), next.id()]);
}

// Read-write locks.

#[test]
fn readers_share_and_a_writer_is_alone() {
    let lock = Rc::new(RwLock::new(0));
    let (readers, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let read = || {
        let (lock, readers, most) = (lock.clone(), readers.clone(), most.clone());
        tasklet(move || {
            let value = lock.read().unwrap();
            readers.set(readers.get() + 1);
            most.set(most.get().max(readers.get()));
            let before = *value;
            sleep(MS);
            assert_eq!(*value, before);
            readers.set(readers.get() - 1);
        });
    };
    let write = || {
        let (lock, readers) = (lock.clone(), readers.clone());
        tasklet(move || {
            let mut value = lock.write().unwrap();
            assert_eq!(readers.get(), 0);
            sleep(MS);
            assert_eq!(readers.get(), 0);
            *value += 1;
        });
    };
    for _ in 0..5 {
        read();
        write();
    }
    for _ in 0..5 {
        read();
    }
    pila::run();
    assert_eq!(*lock.read().unwrap(), 5);
    assert!(most.get() >= 5, "readers that follow one another go in together");
}

#[test]
fn a_writer_is_not_passed_by_later_readers_nor_readers_by_later_writers() {
    let lock = Rc::new(RwLock::new(()));
    let guard = lock.read().unwrap();
    let (seen, note) = trace();
    for (name, writes) in [("w1", true), ("r1", false), ("r2", false), ("w2", true), ("r3", false)]
    {
        let (lock, note) = (lock.clone(), note.clone());
        tasklet(move || {
            if writes {
                let _guard = lock.write().unwrap();
                note(name);
            } else {
                let _guard = lock.read().unwrap();
                note(name);
            }
        });
    }
    pila::run();
    assert!(seen.borrow().is_empty());
    // One that reads already would wait for the writer and the writer for it: it does not.
    assert!(lock.try_read().is_ok());
    drop(guard);
    pila::run();
    assert_eq!(*seen.borrow(), ["w1", "r1", "r2", "w2", "r3"]);
}

#[test]
fn a_writer_that_gives_up_lets_the_readers_behind_it_in() {
    for how in ["timeout", "kill", "throw"] {
        let lock = Rc::new(RwLock::new(()));
        let guard = lock.read().unwrap();
        let theirs = lock.clone();
        let writer = tasklet(move || match how {
            "timeout" => theirs.write_timeout(MS).map(drop),
            _ => theirs.write().map(drop),
        });
        let theirs = lock.clone();
        let reader = tasklet(move || theirs.read().map(drop));
        pila::schedule();
        assert!(reader.is_blocked());
        match how {
            "kill" => writer.kill().unwrap(),
            "throw" => writer.throw("stop").unwrap(),
            _ => {}
        }
        reader.join().unwrap().unwrap();
        drop(guard);
        assert!(lock.try_write().is_ok());
    }
}

#[test]
fn a_writer_killed_after_its_turn_came_passes_it_on() {
    let lock = Rc::new(RwLock::new(()));
    let guard = lock.write().unwrap();
    let (theirs, theirs_too) = (lock.clone(), lock.clone());
    let writer = tasklet(move || theirs.write().map(drop));
    let reader = tasklet(move || theirs_too.read().map(drop));
    pila::schedule();
    drop(guard);
    writer.kill().unwrap();
    reader.join().unwrap().unwrap();
}

#[test]
fn upgrading_and_relocking_are_errors() {
    let lock = RwLock::new(());
    let reader = lock.read().unwrap();
    let error = lock.write().unwrap_err().to_string();
    assert!(error.contains("tasklet 'main' (#0) has locked rwlock 1 (created at "), "{error}");
    drop(reader);
    let _writer = lock.write().unwrap();
    assert!(matches!(lock.read(), Err(LockError::AlreadyLocked { .. })));
    assert!(matches!(lock.try_write(), Err(LockError::AlreadyLocked { .. })));
}

#[test]
fn a_deadlock_names_a_reader_that_never_leaves() {
    let lock = Rc::new(RwLock::new(()));
    let theirs = lock.clone();
    let reader = Builder::new().name("reader").tasklet(move || {
        let _guard = theirs.read().unwrap();
        pila::schedule_remove();
    });
    let _reader = reader.unwrap();
    pila::schedule();
    let error = lock.write().unwrap_err().to_string();
    assert!(error.contains("waits to write rwlock 1 (created at tests/sync_locks.rs"), "{error}");
    assert!(error.contains("held by 'reader' (#1)"), "{error}");
}

#[test]
fn a_mutex_keeps_what_is_not_sized() {
    let mutex: Rc<Mutex<[i32]>> = Rc::new(Mutex::new([1, 2, 3]));
    mutex.lock().unwrap()[0] = 7;
    assert_eq!(mutex.lock().unwrap().iter().sum::<i32>(), 12);
    assert_eq!(format!("{mutex:?}"), "Mutex { value: [7, 2, 3], owner: None }");
}
