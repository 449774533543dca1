//! Time: no sleep is shorter than asked, and sleepers wake in the order of their deadlines.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use pila::{
    driver::{self, AlreadyInstalled, VirtualClock},
    sleep, tasklet,
};

const MS: Duration = Duration::from_millis(1);

/// Gives this test's thread a clock that jumps. What it returns tells the time since then.
fn virtual_time() -> impl Fn() -> Duration + Clone {
    driver::install(Box::new(VirtualClock::new())).unwrap();
    let start = driver::now();
    move || driver::now() - start
}

/// Keeps the thread busy.
fn work(duration: Duration) {
    let start = Instant::now();
    while start.elapsed() < duration {
        std::hint::spin_loop();
    }
}

#[test]
fn no_sleep_is_shorter_than_asked_even_after_work_in_the_same_turn() {
    // The real clock: what a cached one would get wrong cannot be seen on a virtual one.
    let seed = Instant::now().elapsed().as_nanos() as u64 | 1;
    println!("seed {seed}");
    let random = Rc::new(Cell::new(seed));
    let draw = move |below: u64| {
        let next = random.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        random.set(next);
        (next >> 33) % below
    };
    const SLEEPS: u32 = 1_000;
    let sleeps = Rc::new(Cell::new(0));
    for _ in 0..20 {
        let (draw, sleeps) = (draw.clone(), sleeps.clone());
        tasklet(move || {
            while sleeps.get() < SLEEPS {
                work(Duration::from_micros(draw(2) * draw(2_000)));
                let asked = Duration::from_nanos(draw(5_000_000));
                let start = Instant::now();
                sleep(asked);
                let slept = start.elapsed();
                assert!(slept >= asked, "asked {asked:?}, slept {slept:?}");
                sleeps.set(sleeps.get() + 1);
            }
        });
    }
    assert_eq!(pila::run().blocked, 0);
    assert!(sleeps.get() >= SLEEPS);
}

#[test]
fn a_sleep_of_main_is_not_shorter_than_asked() {
    for asked in [Duration::ZERO, Duration::from_micros(10), 3 * MS] {
        work(MS);
        let start = Instant::now();
        sleep(asked);
        assert!(start.elapsed() >= asked);
    }
}

#[test]
fn sleepers_wake_by_deadline_and_those_of_one_deadline_in_turn() {
    let time = virtual_time();
    let log = Rc::new(RefCell::new(Vec::new()));
    for (name, after) in [("c", 30), ("a", 10), ("b", 20), ("b2", 20), ("a2", 10)] {
        let (log, time) = (log.clone(), time.clone());
        tasklet(move || {
            sleep(after * MS);
            log.borrow_mut().push((name, time()));
        });
    }
    pila::run();
    let expected = [("a", 10), ("a2", 10), ("b", 20), ("b2", 20), ("c", 30)];
    assert_eq!(*log.borrow(), expected.map(|(name, after)| (name, after * MS)));
}

#[test]
fn a_hundred_thousand_sleepers_wake_in_order() {
    let time = virtual_time();
    let log = Rc::new(RefCell::new(Vec::new()));
    let mut random = 1u64;
    for number in 0..100_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let asked = Duration::from_micros(random >> 40);
        let (log, time) = (log.clone(), time.clone());
        tasklet(move || {
            sleep(asked);
            log.borrow_mut().push((asked, number, time()));
        });
    }
    assert_eq!(pila::run().finished, 100_000);
    let log = log.take();
    assert!(log.is_sorted_by_key(|&(asked, number, _)| (asked, number)));
    // The clock stands still while anything can run: all fell asleep at zero and each woke exactly in time.
    assert!(log.iter().all(|&(asked, _, woken)| asked == woken));
}

#[test]
fn a_nap_of_zero_lets_the_others_go_first() {
    let time = virtual_time();
    let log = Rc::new(RefCell::new(String::new()));
    for name in ["a", "b"] {
        let log = log.clone();
        tasklet(move || log.borrow_mut().push_str(name));
    }
    sleep(Duration::ZERO);
    assert_eq!(*log.borrow(), "ab");
    assert_eq!(time(), Duration::ZERO);
}

#[test]
fn main_and_tasklets_sleep_side_by_side() {
    let time = virtual_time();
    let theirs = time.clone();
    let sleeper = tasklet(move || {
        sleep(2 * MS);
        sleep(2 * MS);
        theirs()
    });
    sleep(3 * MS);
    assert_eq!(time(), 3 * MS);
    assert!(sleeper.is_blocked());
    assert_eq!(sleeper.join().unwrap(), 4 * MS);
}

#[test]
fn a_run_lasts_until_the_last_sleeper_has_woken() {
    let time = virtual_time();
    let ended = tasklet(|| sleep(3600 * 1000 * MS));
    let done = pila::run();
    assert_eq!((done.finished, done.blocked), (1, 0));
    assert!(!ended.is_alive());
    assert_eq!(time(), 3600 * 1000 * MS);
}

#[test]
fn the_longest_sleep_does_not_overflow_and_disturbs_nobody() {
    let time = virtual_time();
    let for_ever = tasklet(|| sleep(Duration::MAX));
    pila::schedule();
    assert!(for_ever.is_blocked());
    for _ in 0..3 {
        sleep(MS);
    }
    tasklet(|| sleep(1000 * MS)).join().unwrap();
    assert_eq!(time(), 1003 * MS);
    assert!(for_ever.is_blocked(), "it woke after {:?}", time());
}

#[test]
fn a_sleep_that_outlasts_the_clock_does_not_end_early() {
    // Time alone can end it, so `run` waits for it: on a virtual clock that takes no time.
    let time = virtual_time();
    tasklet(|| sleep(Duration::MAX));
    let slept_at_the_end = tasklet(|| sleep(Duration::from_secs(1 << 33)));
    pila::run();
    assert!(!slept_at_the_end.is_alive());
    // No clock goes as far as Duration::MAX; what it promises is only that the others were not disturbed.
    assert!(time() >= Duration::from_secs(1 << 33));
}

#[test]
fn a_spinning_tasklet_does_not_keep_sleepers_from_waking() {
    // Real time: a virtual clock would stand still.
    let woken = Rc::new(Cell::new(false));
    let theirs = woken.clone();
    tasklet(move || {
        sleep(2 * MS);
        theirs.set(true);
    });
    let start = Instant::now();
    while !woken.get() {
        pila::schedule();
        assert!(start.elapsed() < Duration::from_secs(30), "the sleeper was forgotten");
    }
    assert!(start.elapsed() >= 2 * MS);
}

#[test]
fn a_sleep_of_main_that_a_panic_ends_leaves_nothing_behind() {
    let time = virtual_time();
    tasklet(|| {
        sleep(MS);
        std::panic::resume_unwind(Box::new("enough"));
    });
    let slept = std::panic::catch_unwind(|| sleep(1000 * MS));
    assert_eq!(slept.unwrap_err().downcast_ref(), Some(&"enough"));
    assert_eq!(time(), MS);
    sleep(5000 * MS);
    assert_eq!(time(), 5001 * MS);
}

#[test]
fn a_thread_gets_one_driver() {
    let _time = virtual_time();
    assert_eq!(driver::install(Box::new(VirtualClock::new())), Err(AlreadyInstalled));
}
