//! What threads say to each other, and the tidy end of one.

use std::{cell::RefCell, sync::mpsc, thread};

use pila::{
    Channel, Waiting, current, kill_all, main_tasklet, park, run, schedule, schedule_remove,
    spawn_thread, tasklet, thread_queue,
};

use crate::support::{DEAD, Log, OnDrop, SCHEDULED, states};

/// TestChannels.testInterthreadCommunication: tasklets of two threads, each of which just runs its own, exchange
/// messages in order.
#[test]
fn two_threads_exchange_messages() {
    let (command, commands) = thread_queue(1);
    let (answer, answers) = thread_queue(1);
    let other = spawn_thread(move || {
        let echo = tasklet(move || {
            for text in &commands {
                answer.send(format!("{text}, answered")).unwrap();
            }
        });
        while echo.is_alive() {
            run();
        }
    })
    .unwrap();
    let asker = tasklet(move || {
        [1, 2, 3, 4].map(|number| {
            command.send(number.to_string()).unwrap();
            answers.receive().unwrap()
        })
    });
    while asker.is_alive() {
        run();
    }
    assert_eq!(asker.join().unwrap().join(" "), "1, answered 2, answered 3, answered 4, answered");
    other.join().unwrap();
}

/// TestRemoteSchedule.testInsert: another thread wakes a tasklet: it goes to the tail of its own thread's ring.
#[test]
fn another_thread_wakes_a_tasklet() {
    let log = Log::default();
    let (sender, receiver) = mpsc::channel();
    let theirs = log.clone();
    let sleeper = tasklet(move || {
        let ticket = park::begin().unwrap();
        sender.send(park::waker(ticket)).unwrap();
        park::wait(ticket, Waiting::Outside, None).unwrap();
        theirs.add("woken");
    });
    schedule();
    assert!(sleeper.is_blocked());
    let waker = receiver.recv().unwrap();
    assert!(thread::spawn(move || waker.wake()).join().unwrap());
    log.add("|");
    run();
    log.assert("| woken");
}

thread_local! {
    static ALIVE: RefCell<String> = RefCell::new("alive".into());
}

/// What ends when a thread made by `spawn_thread` ends and leaves one that makes way by `wait`.
fn ends_of_a_thread(wait: fn()) -> Vec<String> {
    let (sender, receiver) = mpsc::channel();
    let thread = spawn_thread(move || {
        let leftover = tasklet(move || {
            let _end = OnDrop::new(move || {
                // Its thread-locals are there yet, it is itself the one that runs, and main is there.
                let alive = ALIVE.with_borrow(String::clone);
                let is_current = current().is_current() && !current().is_main();
                sender.send(format!("{alive} {is_current} {}", main_tasklet().is_alive())).unwrap();
            });
            wait();
            unreachable!("it is ended");
        });
        schedule();
        leftover.is_alive()
    });
    assert!(thread.unwrap().join().unwrap());
    receiver.iter().collect()
}

/// test_shutdown.testThreadShutdown_nl1: the thread ends with a runnable tasklet, which is unwound under a main.
#[test]
fn a_thread_ends_its_runnable_tasklets() {
    assert_eq!(ends_of_a_thread(schedule), ["alive true true"]);
}

/// test_shutdown.testThreadShutdown_nl1_blocked: the same with a blocked one.
#[test]
fn a_thread_ends_its_blocked_tasklets() {
    assert_eq!(ends_of_a_thread(|| drop(Channel::<()>::new().receive())), ["alive true true"]);
}

/// own the end by hand: `kill_all` ends the paused, the blocked, the scheduled and the unstarted, in the order of
/// their creation.
#[test]
fn kill_all_ends_everyone() {
    let log = Log::default();
    let leftover = |name: &'static str, wait: fn()| {
        let log = log.clone();
        tasklet(move || {
            let _end = OnDrop::new(move || log.add(name));
            wait();
        })
    };
    let tasklets = [
        leftover("paused", schedule_remove),
        leftover("blocked", || drop(Channel::<()>::new().receive())),
        leftover("scheduled", schedule),
    ];
    schedule();
    let unstarted = leftover("unstarted", || unreachable!("it never starts"));
    assert_eq!(states(&tasklets[2]), SCHEDULED);
    assert!(kill_all().is_empty());
    assert_eq!(tasklets.map(|tasklet| states(&tasklet)), [DEAD; 3]);
    assert!(!unstarted.is_alive());
    log.assert("paused blocked scheduled");
}
