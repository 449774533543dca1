//! Kills that come from destructors, at every step of an unwinding, of everyone around.

use std::{
    cell::{Cell, RefCell},
    panic::{catch_unwind, resume_unwind},
    rc::Rc,
    sync::Mutex,
    time::Duration,
};

use pila::{
    Channel, Handle, JoinError, TaskletError, current, main_tasklet, run, schedule,
    schedule_remove, scope, shield, sleep, tasklet, timeout,
};

use crate::ground::Ground;

const NEVER: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(2);

/// What a destructor does at its step of the unwinding.
type Deed = Rc<dyn Fn()>;

/// Does it once, and counts.
struct Step {
    deed: Deed,
    done: Rc<Cell<u32>>,
}

impl Drop for Step {
    fn drop(&mut self) {
        (self.deed)();
        self.done.set(self.done.get() + 1);
    }
}

/// Waits below `depth` frames, each with a step.
fn descend(depth: u32, deed: &Deed, done: &Rc<Cell<u32>>) {
    let _step = Step { deed: deed.clone(), done: done.clone() };
    match depth {
        0 => sleep(NEVER),
        _ => descend(depth - 1, deed, done),
    }
}

const DEPTH: u32 = 5;

/// A victim whose destructors do `deed` at each of the steps of its unwinding, which `end` begins.
fn unwind_with(deed: Deed, end: impl FnOnce(&Handle)) -> u32 {
    let done = Rc::new(Cell::new(0));
    let theirs = done.clone();
    let victim = tasklet(move || descend(DEPTH, &deed, &theirs));
    schedule();
    end(&victim);
    while victim.is_alive() {
        schedule();
    }
    assert!(matches!(victim.join(), Err(JoinError::Killed)));
    done.get()
}

#[test]
fn of_itself() {
    let deed: Deed = Rc::new(|| {
        assert!(matches!(current().kill(), Err(TaskletError::Pending(_))));
        assert!(matches!(current().kill_later(), Err(TaskletError::Pending(_))));
    });
    assert_eq!(unwind_with(deed, |victim| victim.kill().unwrap()), DEPTH + 1);
}

#[test]
fn of_main() {
    let deed: Deed = Rc::new(|| {
        assert!(matches!(main_tasklet().kill(), Err(TaskletError::Main(_))));
        assert!(matches!(main_tasklet().kill_later(), Err(TaskletError::Main(_))));
    });
    assert_eq!(unwind_with(deed, |victim| victim.kill().unwrap()), DEPTH + 1);
}

#[test]
fn of_everyone() {
    // Others in all states, some of which do the same.
    let all: Rc<RefCell<Vec<Handle>>> = Rc::default();
    let (theirs, done) = (all.clone(), Rc::new(Cell::new(0)));
    let deed: Deed = Rc::new(move || {
        for handle in theirs.borrow().iter() {
            let _ = handle.kill();
            let _ = handle.kill_later();
        }
    });
    for _ in 0..10 {
        let (deed, done) = (deed.clone(), done.clone());
        let below = tasklet(move || descend(DEPTH, &deed, &done));
        all.borrow_mut().push(below.handle());
        all.borrow_mut().push(tasklet(schedule_remove).handle());
        all.borrow_mut().push(tasklet(|| drop(Channel::<()>::new().receive())).handle());
    }
    schedule();
    for _ in 0..10 {
        all.borrow_mut().push(tasklet(|| unreachable!("it is killed before")).handle());
    }
    let first = all.borrow()[0].clone();
    first.kill().unwrap();
    run();
    assert!(all.borrow().iter().all(|handle| !handle.is_alive()));
    assert_eq!(done.get(), 10 * (DEPTH + 1));
}

#[test]
fn of_its_killer_by_a_closure_that_never_started() {
    let killer: Rc<RefCell<Option<Handle>>> = Rc::default();
    let (theirs, done) = (killer.clone(), Rc::new(Cell::new(0)));
    let deed: Deed = Rc::new(move || _ = theirs.borrow().as_ref().map(Handle::kill));
    let steps = [(); 3].map(|()| Step { deed: deed.clone(), done: done.clone() });
    let unstarted = tasklet(move || drop(steps));
    unstarted.remove().unwrap();
    let went_on = Rc::new(Cell::new(false));
    let (handle, its) = (unstarted.handle(), went_on.clone());
    let kills = tasklet(move || {
        let _ = handle.kill();
        its.set(true);
    });
    *killer.borrow_mut() = Some(kills.handle());
    assert!(matches!(kills.join(), Err(JoinError::Killed)));
    // The first of them unwound the killer and did not count; the others were dropped on its way.
    assert_eq!((done.get(), went_on.get()), (2, false));
    assert!(!unstarted.is_alive());
}

#[test]
fn in_a_circle() {
    // Each one's destructors kill the next; the last kills the first.
    let ring: Rc<RefCell<Vec<Handle>>> = Rc::default();
    let done = Rc::new(Cell::new(0));
    for place in 0..7 {
        let (theirs, done) = (ring.clone(), done.clone());
        let deed: Deed = Rc::new(move || {
            let next = theirs.borrow()[(place + 1) % 7].clone();
            let _ = next.kill();
        });
        let below = tasklet(move || descend(DEPTH, &deed, &done));
        ring.borrow_mut().push(below.handle());
    }
    schedule();
    let first = ring.borrow()[3].clone();
    first.kill().unwrap();
    run();
    assert_eq!(done.get(), 7 * (DEPTH + 1));
    assert!(ring.borrow().iter().all(|handle| !handle.is_alive()));
}

#[test]
fn by_destructors_that_catch_what_unwinds() {
    // A destructor may use catch_unwind, and what is caught in it is its own.
    let deed: Deed = Rc::new(|| {
        let caught = catch_unwind(|| resume_unwind(Box::new("its own")));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"its own"));
        // Nothing waits meanwhile, whatever is around it.
        assert!(timeout(Duration::ZERO, || sleep(NEVER)).is_ok());
        shield(|| sleep(NEVER));
        scope(|s| assert!(s.tasklet(|| unreachable!("it unwinds")).join().is_err()));
    });
    assert_eq!(unwind_with(deed, |victim| victim.kill().unwrap()), DEPTH + 1);
}

#[test]
fn of_a_sibling_by_each_tasklet_of_a_scope_as_it_ends() {
    struct Kills<'a>(&'a RefCell<Vec<Handle>>, &'a Ground);
    impl Drop for Kills<'_> {
        fn drop(&mut self) {
            self.1.touch();
            for handle in self.0.borrow().iter() {
                let _ = handle.kill();
            }
        }
    }
    let (ground, all, owner) = (Ground::new(), RefCell::new(Vec::new()), current());
    all.borrow_mut().push(owner);
    let ended = timeout(SOON, || {
        scope(|s| {
            for number in 0..12 {
                let (own, all, ground) = (ground.borrower(), &all, &ground);
                let body = move || {
                    let _kills = Kills(all, ground);
                    own.touch();
                    sleep(NEVER);
                };
                let made = if number % 4 == 3 { s.bind(body) } else { s.tasklet(body) };
                all.borrow_mut().push(made.handle());
            }
        });
    });
    assert!(ended.is_err());
    assert_eq!(ground.borrowers(), (12, 0));
}

#[test]
fn leave_what_others_hold_as_it_is() {
    // While one unwinds, and kills, and is killed, another has a std mutex locked between two of its turns.
    let innocent = Rc::new(Mutex::new(0));
    let theirs = innocent.clone();
    let bystander = tasklet(move || {
        for _ in 0..100 {
            *theirs.lock().unwrap() += 1;
            assert!(!std::thread::panicking());
            schedule();
        }
    });
    for _ in 0..10 {
        let deed: Deed = Rc::new(|| _ = current().kill());
        unwind_with(deed, |victim| victim.kill().unwrap());
    }
    bystander.join().unwrap();
    assert_eq!(*innocent.lock().unwrap(), 100);
}
