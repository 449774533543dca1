//! Handles and scopes own nothing that a borrow depends on: to forget, swap, leak or hand on what there is of them does
//! no harm.
//!
//! The programs that broke scoped coroutines elsewhere (corosensei #27, #59 and #60, generator-rs #49 and #59) need an
//! object whose destructor ends the borrow. There is none here: those that borrow for longer than a scope do not compile
//! (`docs/endings.md` has them), and these, which do, find everything in its place.

use std::{
    cell::{Cell, RefCell},
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use pila::{
    Channel, JoinError, Scope, ScopedTasklet, Tasklet, Ticket, Waiting, park, run, schedule,
    schedule_remove, scope, sleep, tasklet, timeout,
};

use crate::ground::{Borrower, Ground};

const NEVER: Duration = Duration::from_secs(3600);

#[test]
fn a_forgotten_handle_of_a_scoped_tasklet_lets_nothing_outlive_the_scope() {
    let ground = Ground::new();
    scope(|s| {
        for _ in 0..10 {
            mem::forget(s.tasklet(|| {
                let own = ground.borrower();
                schedule();
                own.touch();
            }));
        }
        // Never started, and known to nobody.
        let own = ground.borrower();
        let unstarted = s.bind(move || own.touch());
        let handle = unstarted.handle();
        mem::forget(unstarted);
        s.tasklet(move || handle.kill().unwrap());
    });
    assert_eq!(ground.borrowers(), (11, 0));
}

#[test]
fn a_pinned_and_forgotten_handle_lets_nothing_outlive_the_scope() {
    // corosensei #59: what is pinned may be forgotten as well.
    let ground = Ground::new();
    let ended = timeout(Duration::from_millis(2), || {
        scope(|s| {
            let pinned: Pin<Box<ScopedTasklet<'_, ()>>> = Box::pin(s.tasklet(|| {
                let _own = ground.borrower();
                sleep(NEVER);
            }));
            mem::forget(pinned);
            schedule();
            let leaked: &'static mut Pin<Box<u8>> = Box::leak(Box::new(Box::pin(7)));
            assert_eq!(**leaked, 7);
        });
    });
    assert!(ended.is_err());
    assert_eq!(ground.borrowers(), (1, 0));
}

#[test]
fn swapped_handles_name_each_others_tasklets() {
    // corosensei #60: two of one type, swapped while one is suspended.
    let ground = Ground::new();
    let (first, second) = scope(|s| {
        let mut one = s.tasklet(|| {
            let own = ground.borrower();
            schedule();
            own.touch();
            1
        });
        schedule();
        let mut other = s.tasklet(|| {
            let own = ground.borrower();
            own.touch();
            2
        });
        mem::swap(&mut one, &mut other);
        (one.join().unwrap(), other.join().unwrap())
    });
    assert_eq!((first, second), (2, 1));
    assert_eq!(ground.borrowers(), (2, 0));
}

#[test]
fn a_result_that_borrows_and_is_never_read_is_dropped_in_time_or_leaked() {
    let (read, unread, forgotten) = (Ground::new(), Ground::new(), Ground::new());
    scope(|s| {
        let result = s.tasklet(|| read.borrower());
        result.join().unwrap().touch();
        // Nobody holds its handle, one that is held to the end, one that is held by a sibling which is ended.
        s.tasklet(|| unread.borrower());
        let _held = s.tasklet(|| unread.borrower());
        let kept = s.tasklet(|| unread.borrower());
        let sibling = s.tasklet(move || {
            schedule_remove();
            drop(kept);
        });
        mem::forget(s.tasklet(|| forgotten.borrower()));
        for _ in 0..3 {
            schedule();
        }
        sibling.kill().unwrap();
    });
    assert_eq!((read.borrowers(), unread.borrowers()), ((1, 0), (3, 0)));
    // It refers to what goes now, and is never looked at again.
    assert_eq!(forgotten.borrowers(), (1, 1));
}

#[test]
fn a_result_that_borrows_goes_before_the_scope_returns_whoever_holds_it() {
    struct Watch<'a>(&'a RefCell<Vec<&'static str>>, &'static str);
    impl Drop for Watch<'_> {
        fn drop(&mut self) {
            self.0.borrow_mut().push(self.1);
        }
    }
    let log = RefCell::new(Vec::new());
    let panic = catch_unwind(AssertUnwindSafe(|| {
        scope(|s| {
            let made = s.tasklet(|| Watch(&log, "the result"));
            schedule();
            // Its holder panics: the handle goes with the holder's stack.
            s.tasklet(move || {
                let _made = made;
                resume_unwind(Box::new("the holder's"));
            });
        });
    }));
    assert!(panic.is_err());
    log.borrow_mut().push("the scope has returned");
    assert_eq!(*log.borrow(), ["the result", "the scope has returned"]);
}

#[test]
fn handles_go_to_siblings_and_back() {
    let ground = Ground::new();
    let total = scope(|s| {
        let first = s.tasklet(|| (1, ground.borrower()));
        let second = s.tasklet(move || {
            let (number, borrower) = first.join().unwrap();
            (number + 1, borrower)
        });
        // A tasklet gives a handle away as its result.
        let third = s.tasklet(move || second);
        let (number, borrower) = third.join().unwrap().join().unwrap();
        borrower.touch();
        number
    });
    assert_eq!(total, 2);
    assert_eq!(ground.borrowers(), (1, 0));
}

type Slot<'scope, T> = Rc<RefCell<Option<ScopedTasklet<'scope, T>>>>;

#[test]
fn a_tasklet_that_owns_its_own_handle_ends_with_its_scope() {
    let ground = Ground::new();
    let ended = timeout(Duration::from_millis(2), || {
        scope(|s| {
            // Each closure owns a handle of its own tasklet: started and suspended, and never started.
            for start in [true, false] {
                let slot: Slot<'_, ()> = Rc::default();
                let (own, theirs) = (ground.borrower(), slot.clone());
                let body = move || {
                    let _cycle = (own, theirs);
                    sleep(NEVER);
                };
                *slot.borrow_mut() = Some(if start { s.tasklet(body) } else { s.bind(body) });
            }
        });
    });
    assert!(ended.is_err());
    assert_eq!(ground.borrowers(), (2, 0));
}

#[test]
fn two_tasklets_that_own_each_others_handles_end_with_their_scope() {
    let ground = Ground::new();
    let ended = timeout(Duration::from_millis(2), || {
        scope(|s| {
            let [one, other]: [Slot<'_, ()>; 2] = [Rc::default(), Rc::default()];
            for (mine, theirs) in [(&one, &other), (&other, &one)] {
                let (own, theirs) = (ground.borrower(), theirs.clone());
                *mine.borrow_mut() = Some(s.tasklet(move || {
                    own.touch();
                    let joined = theirs.borrow_mut().take();
                    // Each waits for the other.
                    let _ = joined.map(ScopedTasklet::join);
                }));
            }
        });
    });
    assert!(ended.is_err());
    assert_eq!(ground.borrowers(), (2, 0));
}

#[test]
fn a_cycle_of_results_is_leaked_and_nothing_of_it_is_used() {
    /// Holds the handle of the tasklet whose result it is.
    struct Own<'scope> {
        _handle: Rc<RefCell<Option<ScopedTasklet<'scope, Own<'scope>>>>>,
        _borrower: Borrower<'scope>,
    }
    let ground = Ground::new();
    scope(|s| {
        let slot: Rc<RefCell<Option<ScopedTasklet<'_, Own<'_>>>>> = Rc::default();
        let theirs = slot.clone();
        *slot.borrow_mut() =
            Some(s.tasklet(|| Own { _handle: theirs, _borrower: ground.borrower() }));
    });
    assert_eq!(ground.borrowers(), (1, 1));
}

#[test]
fn a_forgotten_unscoped_handle_leaks_its_result_and_nothing_else() {
    let dropped = Rc::new(());
    let (result, closure) = (dropped.clone(), dropped.clone());
    mem::forget(tasklet(move || {
        drop(closure);
        result
    }));
    mem::forget(Tasklet::bind(|| unreachable!("nobody can insert it")));
    run();
    assert_eq!(Rc::strong_count(&dropped), 2);
}

#[test]
fn a_scope_may_be_lent_to_its_tasklets_as_often_as_they_like() {
    // generator-rs #59: the way back into the coroutine, stored where it outlives the coroutine.
    fn plant<'scope>(s: &'scope Scope<'scope, '_>, ground: &'scope Ground, depth: u32) {
        let own = ground.borrower();
        s.tasklet(move || {
            let stored: Rc<&'scope Scope<'scope, '_>> = Rc::new(s);
            schedule();
            own.touch();
            if depth > 0 {
                plant(*stored, ground, depth - 1);
                plant(*stored, ground, depth - 1);
            }
            mem::forget(stored);
        });
    }
    let ground = Ground::new();
    scope(|s| plant(s, &ground, 6));
    assert_eq!(ground.borrowers(), (127, 0));
}

#[test]
fn a_ticket_serves_nobody_but_the_one_it_was_made_for() {
    // The nearest that there is to a stored yielder: a ticket, of another, of another thread, of one that has ended.
    let stored: Rc<Cell<Option<Ticket>>> = Rc::default();
    let theirs = stored.clone();
    let maker = tasklet(move || {
        theirs.set(Some(park::begin().unwrap()));
        schedule_remove();
    });
    schedule();
    let others = stored.get().unwrap();
    let uses_it = tasklet(move || park::wait(others, Waiting::Insert, None));
    assert!(matches!(uses_it.join(), Err(JoinError::Panicked(_))));
    maker.kill().unwrap();
    // One that gets the place of one that has ended waits with what is its own by now, and nobody knows it.
    let heir = tasklet(move || park::wait(others, Waiting::Insert, None));
    assert!(heir.join().unwrap().is_err());
    let its_own = park::begin().unwrap();
    assert!(!park::unpark(others) && !park::unpark(its_own));
    let elsewhere = std::thread::spawn(move || {
        let mine = tasklet(|| Channel::<()>::new().receive().is_err());
        run();
        (park::unpark(others), park::unpark(its_own), mine.is_blocked())
    });
    assert_eq!(elsewhere.join().unwrap(), (false, false, true));
}

#[test]
fn the_payload_of_a_kill_ends_nothing_when_it_is_raised_again_elsewhere() {
    let stored: Rc<RefCell<Vec<Box<dyn std::any::Any + Send>>>> = Rc::default();
    let theirs = stored.clone();
    let victim = tasklet(move || {
        let kill = catch_unwind(|| sleep(NEVER)).unwrap_err();
        theirs.borrow_mut().push(kill);
    });
    schedule();
    victim.kill().unwrap();
    let strike = timeout(Duration::from_millis(1), || catch_unwind(|| sleep(NEVER)).unwrap_err());
    stored.borrow_mut().push(strike.unwrap());

    // Elsewhere the one ends who raises it, and the other is for a frame that is gone: a panic as any.
    let strike = stored.borrow_mut().pop().unwrap();
    let inner = tasklet(move || timeout(NEVER, || resume_unwind(strike)));
    assert!(matches!(inner.join(), Err(JoinError::Panicked(_))));
    let kill = stored.borrow_mut().pop().unwrap();
    let other = tasklet(move || resume_unwind(kill));
    assert!(matches!(other.join(), Err(JoinError::Killed)));
    sleep(Duration::from_millis(1));
}
