//! Wakers: what ends a tasklet's wait from another thread.

use std::{
    cell::Cell,
    io::{Read, Write},
    rc::Rc,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use pila::{
    Channel, Waiting,
    driver::{self, VirtualClock},
    net::{TcpListener, TcpStream},
    park::{self, Interrupt, Waker},
};

/// Hands a waker to `give` and waits until it is used.
fn wait_for(give: impl FnOnce(Waker)) -> Result<(), Interrupt> {
    let ticket = park::begin()?;
    give(park::waker(ticket));
    park::wait(ticket, Waiting::Outside, None)
}

/// Installs the poller as this thread's driver.
fn use_a_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = pila::tasklet(move || listener.accept().unwrap().0);
    let mut client = TcpStream::connect(address).unwrap();
    let mut server = server.join().unwrap();
    client.write_all(b"x").unwrap();
    server.read_exact(&mut [0]).unwrap();
}

#[test]
fn another_thread_ends_the_wait_of_main() {
    let mut other = None;
    wait_for(|waker| other = Some(thread::spawn(move || waker.wake()))).unwrap();
    assert!(other.unwrap().join().unwrap());
}

#[test]
fn a_wait_for_another_thread_is_no_deadlock_and_run_waits_for_it() {
    let (give, take) = mpsc::channel::<Waker>();
    let other = thread::spawn(move || {
        let waker = take.recv().unwrap();
        thread::yield_now();
        waker.wake()
    });
    pila::tasklet(move || wait_for(|waker| give.send(waker).unwrap()).unwrap());
    let summary = pila::run();
    assert_eq!((summary.finished, summary.blocked), (1, 0));
    assert!(other.join().unwrap());
}

#[test]
fn a_waker_of_the_own_thread_says_whether_there_was_a_wait() {
    let place = Rc::new(Cell::new(None));
    let theirs = place.clone();
    pila::tasklet(move || wait_for(|waker| theirs.set(Some(waker))).unwrap());
    pila::schedule();
    let waker = place.take().unwrap();
    assert!(waker.clone().wake());
    assert!(!waker.wake());
    assert_eq!(pila::run().finished, 1);
}

#[test]
fn tasklets_that_can_run_do_not_hold_up_a_wake() {
    let stop = Rc::new(Cell::new(false));
    let seen = stop.clone();
    pila::tasklet(move || {
        while !seen.get() {
            pila::schedule();
        }
    });
    wait_for(|waker| drop(thread::spawn(move || waker.wake()))).unwrap();
    stop.set(true);
    pila::run();
}

#[test]
fn a_waker_of_a_thread_that_has_ended_wakes_nobody() {
    let waker = thread::spawn(|| {
        let place = Rc::new(Cell::new(None));
        let theirs = place.clone();
        pila::tasklet(move || wait_for(|waker| theirs.set(Some(waker))));
        pila::schedule();
        place.take().unwrap()
    })
    .join()
    .unwrap();
    assert!(!waker.wake());
}

#[test]
fn a_waker_survives_the_change_of_the_driver() {
    let (give, take) = mpsc::channel::<Waker>();
    let other = thread::spawn(move || {
        for waker in take {
            assert!(waker.wake());
        }
    });
    let place = Rc::new(Cell::new(None));
    let theirs = place.clone();
    let early = pila::tasklet(move || wait_for(|waker| theirs.set(Some(waker))).is_ok());
    pila::schedule();
    use_a_socket();
    give.send(place.take().unwrap()).unwrap();
    assert!(early.join().unwrap());
    for _ in 0..100 {
        wait_for(|waker| give.send(waker).unwrap()).unwrap();
    }
    drop(give);
    other.join().unwrap();
}

#[test]
fn a_killed_waiter_is_not_woken() {
    let place = Rc::new(Cell::new(None));
    let theirs = place.clone();
    let victim = pila::tasklet(move || wait_for(|waker| theirs.set(Some(waker))));
    pila::schedule();
    victim.kill().unwrap();
    let waker = place.take().unwrap();
    assert!(thread::spawn(move || waker.wake()).join().unwrap());
    assert_eq!(pila::run().finished, 0);
}

#[test]
fn on_a_virtual_clock_a_wait_for_another_thread_really_waits_and_takes_no_time() {
    thread::spawn(|| {
        driver::install(Box::new(VirtualClock::new())).unwrap();
        let start = driver::now();
        let (began, done) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let theirs = done.clone();
        wait_for(|waker| {
            thread::spawn(move || {
                let (_keep, never) = mpsc::channel::<()>();
                let _ = never.recv_timeout(Duration::from_millis(50));
                theirs.store(true, Ordering::Relaxed);
                waker.wake();
            });
        })
        .unwrap();
        assert!(done.load(Ordering::Relaxed) && began.elapsed() >= Duration::from_millis(50));
        assert_eq!(driver::now(), start);
    })
    .join()
    .unwrap();
}

#[test]
fn on_a_virtual_clock_a_pending_deadline_is_jumped_to() {
    thread::spawn(|| {
        driver::install(Box::new(VirtualClock::new())).unwrap();
        let deadline = driver::now() + Duration::from_secs(3600);
        let ticket = park::begin().unwrap();
        let ended = park::wait(ticket, Waiting::Outside, Some(deadline));
        assert!(matches!(ended, Err(Interrupt::Deadline)));
    })
    .join()
    .unwrap();
}

/// A notification between the last look and the wait must end the wait: a lost one hangs the test.
fn answer_many(rounds: usize) {
    let (give, take) = mpsc::channel::<Waker>();
    let other = thread::spawn(move || take.into_iter().filter(Waker::wake).count());
    for round in 0..rounds {
        wait_for(|waker| {
            give.send(waker).unwrap();
            // Moves the wake through the whole way from here to the wait.
            for _ in 0..round % 300 {
                std::hint::spin_loop();
            }
        })
        .unwrap();
    }
    drop(give);
    assert_eq!(other.join().unwrap(), rounds);
}

#[test]
fn no_notification_is_lost_between_a_look_and_a_sleep() {
    answer_many(if cfg!(debug_assertions) { 20_000 } else { 100_000 });
}

#[test]
fn no_notification_is_lost_between_a_look_and_a_poll() {
    use_a_socket();
    answer_many(if cfg!(debug_assertions) { 20_000 } else { 100_000 });
}

#[test]
fn no_notification_is_lost_by_the_portable_way_of_polling() {
    if std::env::var_os("PILA_POLLER").is_some() {
        use_a_socket();
        return answer_many(10_000);
    }
    let name = "no_notification_is_lost_by_the_portable_way_of_polling";
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    let output = again.args(["--exact", name]).env("PILA_POLLER", "portable").output().unwrap();
    assert!(output.status.success(), "{output:#?}");
}

#[test]
fn wakers_that_race_with_the_end_of_the_wait_wake_nobody_else() {
    const THREADS: usize = 4;
    let rounds = if cfg!(debug_assertions) { 2_000 } else { 20_000 };
    let barrier = Arc::new(Barrier::new(THREADS + 1));
    let mut gives = Vec::new();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (give, take) = mpsc::channel::<Waker>();
            gives.push(give);
            let barrier = barrier.clone();
            thread::spawn(move || {
                barrier.wait();
                for waker in take {
                    for _ in 0..3 {
                        assert!(waker.wake());
                    }
                }
            })
        })
        .collect();
    barrier.wait();
    // Waits that nobody but their deadline may end: a stale ticket would end one of them early.
    let innocent = pila::tasklet(|| {
        for _ in 0..20 {
            let deadline = driver::now() + Duration::from_millis(5);
            let ended = park::wait(park::begin().unwrap(), Waiting::Outside, Some(deadline));
            assert!(matches!(ended, Err(Interrupt::Deadline)));
        }
    });
    let channel = Channel::<()>::new();
    let theirs = channel.clone();
    let untouched = pila::tasklet(move || theirs.receive().is_ok());
    for round in 0..rounds {
        let ticket = park::begin().unwrap();
        for give in &gives {
            give.send(park::waker(ticket)).unwrap();
        }
        let deadline =
            (round % 2 == 0).then(|| driver::now() + Duration::from_micros(round as u64 % 50));
        match park::wait(ticket, Waiting::Outside, deadline) {
            Ok(()) => {}
            Err(interrupt) => assert!(matches!(interrupt, Interrupt::Deadline)),
        }
    }
    drop(gives);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    innocent.join().unwrap();
    assert!(untouched.is_blocked());
    channel.send(()).unwrap();
    assert!(untouched.join().unwrap());
}

#[test]
fn ten_thousand_tasklets_are_woken_by_four_threads() {
    let woken = Arc::new(AtomicUsize::new(0));
    let mut gives = Vec::new();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (give, take) = mpsc::channel::<Waker>();
            gives.push(give);
            let woken = woken.clone();
            thread::spawn(move || {
                for waker in take {
                    waker.wake();
                    woken.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for i in 0..10_000 {
        let give = gives[i % 4].clone();
        pila::tasklet(move || wait_for(|waker| give.send(waker).unwrap()).unwrap());
    }
    drop(gives);
    let summary = pila::run();
    assert_eq!((summary.finished, summary.blocked), (10_000, 0));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(woken.load(Ordering::Relaxed), 10_000);
}
