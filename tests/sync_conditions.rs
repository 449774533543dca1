//! Conditions, signals, semaphores, events and barriers: who is woken, when, and what becomes of a wake-up that is not
//! used.

use std::{cell::RefCell, rc::Rc, time::Duration};

use pila::{
    JoinError, Refused, Tasklet,
    driver::{self, VirtualClock},
    sleep,
    sync::{
        AcquireError, Barrier, BarrierError, Condvar, Event, Mutex, Semaphore, Signal, WaitError,
    },
    tasklet,
};

const MS: Duration = Duration::from_millis(1);

fn virtual_time() -> impl Fn() -> Duration + Clone {
    driver::install(Box::new(VirtualClock::new())).unwrap();
    let start = driver::now();
    move || driver::now() - start
}

/// `count` tasklets that each do `f`.
fn bunch<T: 'static>(count: usize, f: impl Fn(usize) -> T + 'static) -> Vec<Tasklet<T>> {
    let f = Rc::new(f);
    (0..count)
        .map(|i| {
            let f = f.clone();
            tasklet(move || f(i))
        })
        .collect()
}

fn join_all<T: 'static>(tasklets: Vec<Tasklet<T>>) -> Vec<T> {
    tasklets.into_iter().map(|tasklet| tasklet.join().unwrap()).collect()
}

// lock_tests: Event.

#[test]
fn an_event_is_set_until_it_is_cleared() {
    let event = Event::new();
    assert!(!event.is_set());
    for _ in 0..2 {
        event.set();
        event.set();
        assert!(event.is_set());
        event.clear();
        event.clear();
        assert!(!event.is_set());
    }
}

#[test]
fn setting_an_event_wakes_all_five_and_later_ones_do_not_wait() {
    let event = Rc::new(Event::new());
    let theirs = event.clone();
    let waiters = bunch(5, move |_| {
        theirs.wait().unwrap();
        theirs.wait().unwrap();
    });
    assert_eq!(pila::run().blocked, 5);
    event.set();
    assert_eq!(pila::run().finished, 5);
    join_all(waiters);
}

#[test]
fn an_event_wait_times_out_at_its_time() {
    let now = virtual_time();
    let event = Rc::new(Event::new());
    for (timeout, after) in [(Duration::ZERO, Duration::ZERO), (200 * MS, 200 * MS)] {
        let (event, now) = (event.clone(), now.clone());
        let waiters = bunch(5, move |_| {
            let start = now();
            (event.wait_timeout(timeout).unwrap(), now() - start)
        });
        assert_eq!(join_all(waiters), [(false, after); 5]);
    }
    event.set();
    assert!(event.wait_timeout(Duration::ZERO).unwrap());
    assert_eq!(now(), 200 * MS);
}

#[test]
fn one_woken_by_an_event_goes_on_though_it_was_cleared() {
    let event = Rc::new(Event::new());
    let theirs = event.clone();
    let waiter = tasklet(move || theirs.wait_timeout(Duration::MAX).unwrap());
    pila::schedule();
    event.set();
    event.clear();
    assert!(waiter.join().unwrap());
}

#[test]
fn a_killed_or_interrupted_event_waiter_is_gone() {
    let event = Rc::new(Event::new());
    let theirs = event.clone();
    let mut waiters = bunch(3, move |_| theirs.wait());
    pila::schedule();
    waiters[0].kill().unwrap();
    waiters[1].throw("stop").unwrap();
    event.set();
    let third = waiters.pop().unwrap();
    third.join().unwrap().unwrap();
    let stopped = waiters.pop().unwrap().join().unwrap();
    assert!(matches!(stopped, Err(WaitError::Thrown(error)) if error.to_string() == "stop"));
}

// lock_tests: Condition.

struct Shared {
    phase: Mutex<u32>,
    changed: Condvar,
}

impl Shared {
    fn new() -> Rc<Shared> {
        Rc::new(Shared { phase: Mutex::new(0), changed: Condvar::new() })
    }

    fn wait_for_phase(&self) -> u32 {
        *self.changed.wait(self.phase.lock().unwrap()).unwrap()
    }

    fn notify(&self, phase: u32, count: usize) -> usize {
        *self.phase.lock().unwrap() = phase;
        let woken = self.changed.notify(count);
        pila::run();
        woken
    }
}

#[test]
fn notify_wakes_exactly_as_many_in_the_order_of_their_coming() {
    let shared = Shared::new();
    let woken = Rc::new(RefCell::new(Vec::new()));
    let (theirs, seen) = (shared.clone(), woken.clone());
    let waiters = bunch(10, move |i| {
        let phase = theirs.wait_for_phase();
        seen.borrow_mut().push((i, phase));
    });
    pila::run();
    assert_eq!(shared.notify(1, 3), 3);
    assert_eq!(*woken.borrow(), [(0, 1), (1, 1), (2, 1)]);
    assert_eq!(shared.notify(2, 5), 5);
    assert_eq!(woken.borrow().len(), 8);
    assert!(woken.borrow()[3..].iter().all(|(_, phase)| *phase == 2));
    assert_eq!(shared.notify(3, usize::MAX), 2);
    assert_eq!(woken.borrow()[8..], [(8, 3), (9, 3)]);
    assert_eq!(shared.notify(4, 1), 0);
    join_all(waiters);
}

#[test]
fn waiting_gives_the_mutex_up_and_takes_it_again() {
    let shared = Shared::new();
    let theirs = shared.clone();
    let waiter = tasklet(move || {
        let guard = theirs.changed.wait(theirs.phase.lock().unwrap()).unwrap();
        (*guard, theirs.phase.is_locked(), theirs.phase.owner().unwrap().is_current())
    });
    pila::schedule();
    assert!(!shared.phase.is_locked());
    let mut phase = shared.phase.lock().unwrap();
    shared.changed.notify_one();
    pila::schedule();
    assert!(waiter.is_blocked(), "it is notified, and waits for the mutex");
    *phase = 7;
    drop(phase);
    assert_eq!(waiter.join().unwrap(), (7, true, true));
}

#[test]
fn a_condition_wait_times_out_with_the_mutex_locked() {
    let now = virtual_time();
    let shared = Shared::new();
    let theirs = shared.clone();
    let waiters = bunch(5, move |_| {
        let guard = theirs.phase.lock().unwrap();
        let (mut guard, result) = theirs.changed.wait_timeout(guard, 200 * MS).unwrap();
        *guard += 1;
        result.timed_out()
    });
    assert_eq!(join_all(waiters), [true; 5]);
    assert_eq!((now(), *shared.phase.lock().unwrap()), (200 * MS, 5));
}

#[test]
fn waiting_while_a_condition_holds_asks_after_every_notification() {
    let now = virtual_time();
    let shared = Shared::new();
    let theirs = shared.clone();
    let waiter = tasklet(move || {
        *theirs.changed.wait_while(theirs.phase.lock().unwrap(), |phase| *phase < 3).unwrap()
    });
    let theirs = shared.clone();
    let hasty = tasklet(move || {
        let guard = theirs.phase.lock().unwrap();
        let result = theirs.changed.wait_timeout_while(guard, 15 * MS, |phase| *phase < 9).unwrap();
        (*result.0, result.1.timed_out())
    });
    for _ in 0..5 {
        sleep(10 * MS);
        *shared.phase.lock().unwrap() += 1;
        shared.changed.notify_all();
    }
    assert_eq!(waiter.join().unwrap(), 3);
    assert_eq!(hasty.join().unwrap(), (1, true));
    assert_eq!(now(), 50 * MS);
}

#[test]
fn a_condition_wait_that_fails_leaves_the_mutex_unlocked() {
    let shared = Shared::new();
    let theirs = shared.clone();
    let mut waiters = bunch(2, move |_| {
        let result = theirs.changed.wait(theirs.phase.lock().unwrap()).map(drop);
        (result, theirs.phase.is_locked())
    });
    pila::schedule();
    waiters[0].kill().unwrap();
    waiters[1].throw("stop").unwrap();
    assert!(matches!(waiters.pop().unwrap().join(), Ok((Err(WaitError::Thrown(_)), false))));
    assert!(matches!(waiters.pop().unwrap().join(), Err(JoinError::Killed)));
    let guard = shared.phase.lock().unwrap();
    let _no_switch = pila::no_switch();
    let refused = shared.changed.wait(guard).map(drop);
    assert!(matches!(refused, Err(WaitError::Refused(Refused::NoSwitch(_)))));
    assert!(!shared.phase.is_locked());
}

#[test]
fn a_notification_of_one_that_ends_before_it_has_the_mutex_goes_to_the_next() {
    for how in ["kill before it ran", "kill in line for the mutex", "throw there"] {
        let shared = Shared::new();
        let theirs = shared.clone();
        let waiters = bunch(2, move |_| {
            theirs.changed.wait(theirs.phase.lock().unwrap()).map(drop).map_err(|e| e.to_string())
        });
        pila::schedule();
        let guard = shared.phase.lock().unwrap();
        assert_eq!(shared.changed.notify(1), 1);
        if how != "kill before it ran" {
            pila::schedule();
        }
        match how {
            "throw there" => waiters[0].throw("stop").unwrap(),
            _ => waiters[0].kill().unwrap(),
        }
        drop(guard);
        pila::run();
        assert!(!waiters[1].is_alive(), "{how}: the second was not notified");
    }
}

// lock_tests: NLCondition.

#[test]
fn a_signal_wakes_exactly_as_many_and_keeps_nothing() {
    let signal = Rc::new(Signal::new());
    signal.notify_all();
    let theirs = signal.clone();
    let waiters = bunch(10, move |_| theirs.wait().unwrap());
    assert_eq!(pila::run().blocked, 10);
    assert_eq!(signal.notify(3), 3);
    assert_eq!(pila::run().blocked, 7);
    signal.notify_one();
    assert_eq!(pila::run().blocked, 6);
    signal.notify_all();
    assert_eq!(pila::run().blocked, 0);
    join_all(waiters);
}

#[test]
fn a_signal_wait_times_out_and_its_turn_is_not_lost() {
    let now = virtual_time();
    let signal = Rc::new(Signal::new());
    let theirs = signal.clone();
    let hasty = tasklet(move || theirs.wait_timeout(5 * MS).unwrap());
    let theirs = signal.clone();
    let patient = tasklet(move || theirs.wait_timeout(500 * MS).unwrap());
    sleep(5 * MS);
    // The first one's time is up, whether it has run or not.
    assert_eq!(signal.notify(1), 1);
    assert!(!hasty.join().unwrap());
    assert!(patient.join().unwrap());
    assert_eq!(now(), 5 * MS);
}

#[test]
fn a_signal_given_to_one_that_is_killed_goes_to_the_next() {
    let signal = Rc::new(Signal::new());
    let theirs = signal.clone();
    let waiters = bunch(2, move |_| theirs.wait().unwrap());
    pila::schedule();
    signal.notify_one();
    waiters[0].kill().unwrap();
    pila::run();
    assert!(!waiters[1].is_alive());
}

// lock_tests: Semaphore, BoundedSemaphore.

#[test]
fn a_semaphore_lets_as_many_in_as_it_has_permits_phase_by_phase() {
    let semaphore = Rc::new(Semaphore::new(7));
    semaphore.acquire().unwrap().forget();
    let phase = Rc::new(std::cell::Cell::new(0));
    let results = Rc::new(RefCell::new(Vec::new()));
    let (theirs, their_phase, seen) = (semaphore.clone(), phase.clone(), results.clone());
    let waiters = bunch(10, move |_| {
        for _ in 0..2 {
            theirs.acquire().unwrap().forget();
            seen.borrow_mut().push(their_phase.get());
        }
    });
    for (number, permits) in [(0, 0), (1, 7), (2, 6)] {
        phase.set(number);
        for _ in 0..permits {
            semaphore.release(1).unwrap();
        }
        pila::run();
    }
    let expected = [[0; 6].to_vec(), [1; 7].to_vec(), [2; 6].to_vec()].concat();
    assert_eq!(*results.borrow(), expected);
    assert!(semaphore.try_acquire().is_err());
    semaphore.release(1).unwrap();
    join_all(waiters);
}

#[test]
fn try_acquire_never_waits_nor_passes_by_who_does() {
    let semaphore = Rc::new(Semaphore::new(2));
    let permit = semaphore.try_acquire().unwrap();
    let second = semaphore.try_acquire().unwrap();
    assert!(matches!(semaphore.try_acquire(), Err(AcquireError::Timeout)));
    drop(second);
    let theirs = semaphore.clone();
    let wants_two = tasklet(move || theirs.acquire_many(2).unwrap().count());
    pila::schedule();
    assert_eq!(semaphore.available_permits(), 1);
    assert!(matches!(semaphore.try_acquire(), Err(AcquireError::Timeout)));
    drop(permit);
    assert_eq!(wants_two.join().unwrap(), 2);
    assert_eq!(semaphore.available_permits(), 2);
}

#[test]
fn a_semaphore_can_be_acquired_by_one_and_released_by_another() {
    let semaphore = Rc::new(Semaphore::new(1));
    semaphore.acquire().unwrap().forget();
    let theirs = semaphore.clone();
    let waiter = tasklet(move || theirs.acquire().map(drop));
    pila::schedule();
    assert!(waiter.is_blocked());
    semaphore.release(1).unwrap();
    waiter.join().unwrap().unwrap();
}

#[test]
fn acquire_times_out_and_lets_those_behind_go_on() {
    let now = virtual_time();
    let semaphore = Rc::new(Semaphore::new(1));
    let theirs = semaphore.clone();
    let wants_two = tasklet(move || theirs.acquire_many_timeout(2, 5 * MS).map(drop));
    let theirs = semaphore.clone();
    let wants_one = tasklet(move || theirs.acquire().map(drop));
    assert!(matches!(wants_two.join().unwrap(), Err(AcquireError::Timeout)));
    wants_one.join().unwrap().unwrap();
    assert_eq!(now(), 5 * MS);
    let permit = semaphore.acquire().unwrap();
    assert!(matches!(semaphore.acquire_timeout(5 * MS), Err(AcquireError::Timeout)));
    assert_eq!(now(), 10 * MS);
    drop(permit);
}

#[test]
fn permits_given_to_one_that_is_killed_go_to_the_next() {
    let semaphore = Rc::new(Semaphore::new(0));
    let theirs = semaphore.clone();
    let waiters = bunch(3, move |i| theirs.acquire_many(i + 1).map(drop));
    pila::schedule();
    semaphore.release(3).unwrap(); // for the first and the second
    waiters[0].kill().unwrap();
    waiters[1].kill().unwrap();
    pila::run();
    assert!(!waiters[2].is_alive());
    assert_eq!(semaphore.available_permits(), 3);
}

#[test]
fn a_bounded_semaphore_takes_no_more_than_it_can_have() {
    let semaphore = Semaphore::bounded(2, 2);
    assert_eq!(semaphore.release(1).unwrap_err().excess, 1);
    let permit = semaphore.acquire().unwrap();
    assert!(semaphore.release(1).is_err(), "the permit will come back by itself");
    drop(permit);
    semaphore.acquire_many(2).unwrap().forget();
    assert!(semaphore.release(3).is_err());
    semaphore.release(2).unwrap();
    assert_eq!(semaphore.available_permits(), 2);
    assert!(matches!(semaphore.acquire_many(3), Err(AcquireError::TooMany { .. })));
    assert!(std::panic::catch_unwind(|| Semaphore::bounded(2, 1)).is_err());
    assert!(Semaphore::new(usize::MAX).release(1).is_err());
}

// CPython's tests of Barrier.

#[test]
fn all_meet_at_a_barrier_again_and_again_and_one_leads() {
    let barrier = Rc::new(Barrier::new(5));
    let seen = RefCell::new(vec![0; 5]);
    let theirs = barrier.clone();
    let waiters = bunch(5, move |i| {
        let mut led = 0;
        for round in 0..10 {
            seen.borrow_mut()[i] += 1;
            led += usize::from(theirs.wait().unwrap().is_leader());
            assert!(seen.borrow().iter().all(|come| *come > round));
        }
        led
    });
    assert_eq!(join_all(waiters).into_iter().sum::<usize>(), 10);
    assert_eq!(barrier.waiters(), 0);
}

#[test]
fn an_aborted_barrier_tells_all_who_wait_and_all_who_come() {
    let barrier = Rc::new(Barrier::new(5));
    let theirs = barrier.clone();
    let waiters = bunch(4, move |_| matches!(theirs.wait(), Err(BarrierError::Broken)));
    pila::schedule();
    assert_eq!(barrier.waiters(), 4);
    barrier.abort();
    assert_eq!(join_all(waiters), [true; 4]);
    assert!(barrier.is_broken() && barrier.wait().is_err());
}

#[test]
fn a_reset_barrier_tells_those_who_wait_and_serves_again() {
    let barrier = Rc::new(Barrier::new(3));
    let theirs = barrier.clone();
    let early = bunch(2, move |_| matches!(theirs.wait(), Err(BarrierError::Broken)));
    pila::schedule();
    barrier.reset();
    assert!(!barrier.is_broken());
    let theirs = barrier.clone();
    let late = bunch(3, move |_| theirs.wait().unwrap().is_leader());
    assert_eq!(join_all(late), [false, false, true]);
    assert_eq!(join_all(early), [true; 2]);
}

#[test]
fn one_that_leaves_a_barrier_breaks_it() {
    for how in ["timeout", "kill", "throw", "late timeout"] {
        let barrier = Rc::new(Barrier::new(3));
        let theirs = barrier.clone();
        let first = tasklet(move || theirs.wait_timeout(5 * MS).map(drop));
        let theirs = barrier.clone();
        let second = tasklet(move || theirs.wait());
        pila::schedule();
        match how {
            "kill" => first.kill().unwrap(),
            "throw" => first.throw("stop").unwrap(),
            "timeout" => sleep(10 * MS),
            // Its time is up but it has not run when the last comes.
            _ => first.throw_later("stop").unwrap(),
        }
        assert!(matches!(barrier.wait(), Err(BarrierError::Broken)), "{how}");
        assert!(matches!(second.join().unwrap(), Err(BarrierError::Broken)), "{how}");
        assert!(barrier.is_broken());
        // One that learns late that it has left breaks nothing new.
        barrier.reset();
        pila::run();
        assert!(!barrier.is_broken(), "{how}");
    }
}

#[test]
fn one_that_learns_after_a_reset_that_it_had_left_breaks_nothing() {
    let barrier = Rc::new(Barrier::new(2));
    let theirs = barrier.clone();
    let early = tasklet(move || theirs.wait().map(drop));
    pila::schedule();
    early.throw_later("stop").unwrap();
    barrier.reset();
    assert!(matches!(early.join().unwrap(), Err(BarrierError::Thrown(_))));
    assert!(!barrier.is_broken());
}

#[test]
fn one_killed_after_all_had_met_breaks_nothing() {
    let barrier = Rc::new(Barrier::new(2));
    let theirs = barrier.clone();
    let other = tasklet(move || theirs.wait().map(drop));
    pila::schedule();
    assert!(barrier.wait().unwrap().is_leader());
    other.kill().unwrap();
    assert!(!barrier.is_broken());
}

// Deadlocks.

#[test]
fn every_wait_that_nothing_can_end_says_for_what_it_was() {
    let errors = [
        (Event::new().wait().unwrap_err().to_string(), "waits for event 1 (created at tests/"),
        (Signal::new().wait().unwrap_err().to_string(), "waits for a notification of signal 2 ("),
        (
            Semaphore::new(0).acquire().unwrap_err().to_string(),
            "waits for permits of semaphore 3 (created at tests/",
        ),
        (Barrier::new(2).wait().unwrap_err().to_string(), "waits for the others at barrier 4 ("),
        (
            {
                let mutex = Mutex::new(());
                Condvar::new().wait(mutex.lock().unwrap()).unwrap_err().to_string()
            },
            "waits for a notification of condvar 6 (created at tests/",
        ),
    ];
    for (error, expected) in errors {
        assert!(error.contains(expected), "{error}");
    }
}
