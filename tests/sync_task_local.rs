//! Task-local variables: whose value it is, and when it is dropped.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    thread,
};

use pila::{AccessError, JoinError, Refused, tasklet};

thread_local! {
    static TRACE: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn note(entry: impl Into<String>) {
    TRACE.with_borrow_mut(|trace| trace.push(entry.into()));
}

fn noted() -> Vec<String> {
    TRACE.take()
}

/// Notes its end, and does something then.
struct Noisy(&'static str, fn());

impl Drop for Noisy {
    fn drop(&mut self) {
        note(format!("{} of {}", self.0, pila::current().id()));
        (self.1)();
    }
}

pila::task_local! {
    static COUNT: Cell<u32> = Cell::new(7);
    static FIRST: Noisy = Noisy("first", || ());
    static SECOND: Noisy = Noisy("second", || ());
    static WAITS: Noisy = Noisy("waits", || {
        note(match pila::Channel::<()>::new().receive_timeout(std::time::Duration::ZERO) {
            Err(pila::ReceiveError::Refused(refused)) => format!("{refused:?}"),
            other => format!("{other:?}"),
        });
    });
    static PANICS: Noisy = Noisy("panics", || panic!("in a destructor"));
    /// Makes a younger one, uses an older one and asks for itself.
    static USES: Noisy = Noisy("uses", || {
        note(format!("count {}", COUNT.get()));
        SECOND.with(|_| ());
        assert_eq!(USES.try_with(|_| ()), Err(AccessError));
    });
}

#[test]
fn every_tasklet_has_a_value_of_its_own_and_so_has_main() {
    COUNT.set(1);
    let tasklets: Vec<_> = (0..100)
        .map(|i| {
            tasklet(move || {
                assert_eq!(COUNT.get(), 7);
                COUNT.set(i);
                pila::schedule();
                assert_eq!(COUNT.replace(0), i);
                COUNT.with(|count| count.set(i + 1));
                pila::schedule();
                COUNT.take()
            })
        })
        .collect();
    for (i, tasklet) in (0..).zip(tasklets) {
        assert_eq!(tasklet.join().unwrap(), i + 1);
    }
    assert_eq!(COUNT.get(), 1);
}

#[test]
fn values_are_dropped_youngest_first_before_whoever_joins_goes_on() {
    let worker = tasklet(|| {
        SECOND.with(|_| ());
        FIRST.with(|_| ());
        note("done");
    });
    worker.join().unwrap();
    note("joined");
    assert_eq!(noted(), ["done", "first of #1", "second of #1", "joined"]);
}

#[test]
fn a_destructor_may_wait_and_the_joiner_waits_with_it() {
    pila::task_local!(static SLOW: Noisy = Noisy("slow", || {
        pila::sleep(std::time::Duration::from_millis(2));
        note("slept");
    }));
    tasklet(|| SLOW.with(|_| ())).join().unwrap();
    assert_eq!(noted(), ["slow of #1", "slept"]);
}

#[test]
fn values_are_dropped_when_the_tasklet_is_killed_or_panics() {
    let killed = tasklet(|| {
        WAITS.with(|_| ());
        pila::schedule_remove();
    });
    pila::schedule();
    killed.kill().unwrap();
    assert_eq!(noted(), ["waits of #1".to_owned(), format!("{:?}", Refused::Killed)]);
    let panics = tasklet(|| {
        WAITS.with(|_| ());
        panic!("at work");
    });
    // Its panic is over when its values are dropped: they may wait.
    assert!(matches!(panics.join(), Err(JoinError::Panicked(p)) if p.message() == "at work"));
    assert_eq!(noted(), ["waits of #2", "Err(Timeout)"]);
}

#[test]
fn a_panic_in_a_destructor_is_the_tasklets_and_the_others_are_dropped_still() {
    let worker = tasklet(|| {
        FIRST.with(|_| ());
        PANICS.with(|_| ());
        SECOND.with(|_| ());
        Noisy("result", || ())
    });
    let Err(JoinError::Panicked(panic)) = worker.join() else { panic!("it panicked") };
    assert_eq!(panic.message(), "in a destructor");
    assert_eq!(noted(), ["second of #1", "panics of #1", "result of #1", "first of #1"]);
}

#[test]
fn a_destructor_uses_older_values_and_makes_new_ones_but_not_its_own_again() {
    let worker = tasklet(|| {
        COUNT.set(3);
        USES.with(|_| ());
    });
    worker.join().unwrap();
    assert_eq!(noted(), ["uses of #1", "count 3", "second of #1"]);
}

#[test]
fn a_tasklet_killed_in_a_destructor_of_its_values_ends_as_killed() {
    pila::task_local!(static STUCK: Noisy = Noisy("stuck", pila::schedule_remove));
    let worker = tasklet(|| {
        FIRST.with(|_| ());
        STUCK.with(|_| ());
    });
    pila::schedule();
    assert!(worker.is_alive());
    worker.kill().unwrap();
    assert!(matches!(worker.join(), Err(JoinError::Killed)));
    assert_eq!(noted(), ["stuck of #1", "first of #1"]);
}

#[test]
fn a_result_that_nobody_holds_comes_too_late_for_the_values() {
    struct Late;
    impl Drop for Late {
        fn drop(&mut self) {
            note(format!("{:?}", COUNT.try_with(Cell::get)));
        }
    }
    tasklet(|| {
        COUNT.set(1);
        Late
    });
    tasklet(|| Late);
    pila::run();
    assert_eq!(noted(), ["Err(AccessError)", "Err(AccessError)"]);
}

#[test]
fn a_value_may_be_used_while_its_tasklet_waits_and_be_made_with_the_help_of_another() {
    pila::task_local! {
        static OUTER: RefCell<Vec<u32>> = RefCell::new(vec![COUNT.get()]);
    }
    let worker = tasklet(|| {
        OUTER.with(|values| {
            pila::schedule();
            values.borrow_mut().push(8);
            values.borrow().iter().sum::<u32>()
        })
    });
    assert_eq!(worker.join().unwrap(), 15);
    assert_eq!(OUTER.with_borrow(Vec::len), 1);
}

#[test]
fn a_value_made_while_it_is_made_stays() {
    thread_local!(static DEPTH: Cell<u32> = const { Cell::new(0) });
    pila::task_local! {
        static NESTED: u32 = {
            DEPTH.set(DEPTH.get() + 1);
            let depth = DEPTH.get();
            if depth == 1 { NESTED.with(|inner| assert_eq!(*inner, 2)) }
            depth
        };
    }
    assert_eq!(NESTED.with(|value| *value), 2);
}

#[test]
fn mains_values_are_dropped_when_its_thread_ends_and_those_of_the_suspended_are_leaked() {
    struct Counted(Rc<()>, std::sync::mpsc::Sender<&'static str>, &'static str);
    impl Drop for Counted {
        fn drop(&mut self) {
            let _ = self.1.send(self.2);
            assert_eq!(COUNT.try_with(|_| ()), Err(AccessError));
        }
    }
    pila::task_local!(static KEPT: RefCell<Option<Counted>> = RefCell::new(None));
    let (sender, receiver) = std::sync::mpsc::channel();
    let ended = thread::spawn(move || {
        let theirs = sender.clone();
        tasklet(move || {
            KEPT.set(Some(Counted(Rc::new(()), theirs, "tasklet's")));
            pila::schedule_remove();
        });
        pila::schedule();
        KEPT.set(Some(Counted(Rc::new(()), sender, "main's")));
        KEPT.with_borrow(|kept| assert_eq!(Rc::strong_count(&kept.as_ref().unwrap().0), 1));
    });
    ended.join().unwrap();
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), ["main's"]);
}
