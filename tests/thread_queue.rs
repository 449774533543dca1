//! Queues between threads: nothing is lost, whoever is killed, times out or ends.

use std::{
    cell::{Cell, RefCell},
    fs,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use pila::{QueueReceiver, QueueSender, ReceiveError, Refused, SendReason, Waiting, park};

/// The processor time that this process has used.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Stops the whole thread for a while.
fn stop(milliseconds: u64) {
    let (_keep, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(milliseconds));
}

/// Has `senders` threads of `tasklets` tasklets each send to as many receivers. Gives what each receiver got.
fn exchange(
    senders: u32,
    receivers: u32,
    tasklets: u32,
    each: u64,
    capacity: usize,
) -> Vec<Vec<(u32, u64)>> {
    let (sender, receiver) = pila::thread_queue(capacity);
    let sending: Vec<_> = (0..senders)
        .map(|thread| {
            let sender: QueueSender<(u32, u64)> = sender.clone();
            pila::spawn_thread(move || {
                for tasklet in 0..tasklets {
                    let sender = sender.clone();
                    pila::tasklet(move || {
                        (0..each)
                            .for_each(|i| sender.send((thread * tasklets + tasklet, i)).unwrap());
                    });
                }
                drop(sender);
                assert_eq!(pila::run().finished, tasklets as usize);
            })
            .unwrap()
        })
        .collect();
    drop(sender);
    let receiving: Vec<_> = (0..receivers)
        .map(|_| {
            let receiver = receiver.clone();
            pila::spawn_thread(move || {
                let joining: Vec<_> = (0..tasklets)
                    .map(|_| {
                        let receiver = receiver.clone();
                        pila::tasklet(move || receiver.iter().collect::<Vec<_>>())
                    })
                    .collect();
                drop(receiver);
                joining.into_iter().map(|tasklet| tasklet.join().unwrap()).collect::<Vec<_>>()
            })
            .unwrap()
        })
        .collect();
    drop(receiver);
    sending.into_iter().for_each(|thread| thread.join().unwrap());
    receiving.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
}

/// Each message came once, and what a receiver got of one sender came in order.
fn check(got: &[Vec<(u32, u64)>], senders: u32, each: u64) {
    let mut all = vec![0u64; senders as usize];
    for got in got {
        let mut last = vec![None; senders as usize];
        for &(sender, i) in got {
            assert!(last[sender as usize].is_none_or(|last| last < i), "{sender} out of order");
            last[sender as usize] = Some(i);
            all[sender as usize] += i + 1;
        }
    }
    assert!(all.iter().all(|&sum| sum == each * (each + 1) / 2), "lost or doubled");
}

#[test]
fn nothing_is_lost_or_out_of_order_in_any_shape() {
    for (senders, receivers, tasklets, capacity) in
        [(1, 1, 1, 1), (1, 1, 1, 64), (2, 2, 1, 1), (2, 2, 8, 3), (1, 3, 2, 16), (3, 1, 2, 1000)]
    {
        let each = 20_000 / u64::from(senders * tasklets);
        let got = exchange(senders, receivers, tasklets, each, capacity);
        check(&got, senders * tasklets, each);
    }
}

#[test]
fn ten_million_messages_between_four_threads_in_flat_memory() {
    let messages: u64 = if cfg!(debug_assertions) { 1_000_000 } else { 10_000_000 };
    let each = messages / 2;
    let (sender, receiver) = pila::thread_queue::<(u32, u64)>(1024);
    let senders: Vec<_> = (0..2)
        .map(|number| {
            let sender = sender.clone();
            pila::spawn_thread(move || (0..each).for_each(|i| sender.send((number, i)).unwrap()))
                .unwrap()
        })
        .collect();
    drop(sender);
    let peak = Arc::new(AtomicUsize::new(0));
    let before = resident();
    let receivers: Vec<_> = (0..2)
        .map(|_| {
            let (receiver, peak) = (receiver.clone(), peak.clone());
            pila::spawn_thread(move || {
                let (mut last, mut count, mut sum) = ([None; 2], 0u64, 0u64);
                for (sender, i) in &receiver {
                    assert!(last[sender as usize].is_none_or(|last| last < i));
                    last[sender as usize] = Some(i);
                    count += 1;
                    sum += i;
                    if count.is_multiple_of(100_000) {
                        peak.fetch_max(resident(), Ordering::Relaxed);
                    }
                }
                (count, sum)
            })
            .unwrap()
        })
        .collect();
    drop(receiver);
    senders.into_iter().for_each(|thread| thread.join().unwrap());
    let got: Vec<_> = receivers.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(got.iter().map(|(count, _)| count).sum::<u64>(), messages);
    assert_eq!(got.iter().map(|(_, sum)| sum).sum::<u64>(), each * (each - 1));
    // Other tests of this process run meanwhile.
    // The sanitizer keeps what was freed for a while.
    if cfg!(not(feature = "sanitizer")) {
        assert!(peak.load(Ordering::Relaxed) < before + (64 << 20), "{before} {peak:?}");
    }
}

#[test]
fn plain_threads_that_never_made_a_tasklet_use_both_ends() {
    let (sender, receiver) = pila::thread_queue(2);
    let sending = thread::spawn(move || (0..1000).for_each(|i| sender.send(i).unwrap()));
    let receiving = thread::spawn(move || receiver.iter().sum::<i32>());
    sending.join().unwrap();
    assert_eq!(receiving.join().unwrap(), 499_500);
}

#[test]
fn a_waiting_tasklet_does_not_hold_up_its_thread() {
    let (sender, receiver) = pila::thread_queue::<()>(1);
    let waiting = pila::tasklet(move || receiver.receive());
    let other = pila::tasklet(|| (0..10).for_each(|_| pila::schedule()));
    other.join().unwrap();
    assert!(waiting.is_blocked());
    sender.send(()).unwrap();
    waiting.join().unwrap().unwrap();
}

#[test]
fn both_ends_may_live_on_one_thread() {
    let (sender, receiver) = pila::thread_queue(1);
    pila::tasklet(move || (0..1000).for_each(|i| sender.send(i).unwrap()));
    assert_eq!(receiver.iter().sum::<i32>(), 499_500);
}

#[test]
fn messages_may_borrow() {
    let words = String::from("plain sequential code");
    let (sender, receiver) = pila::thread_queue::<&str>(8);
    thread::scope(|scope| {
        scope.spawn(|| {
            let sender = sender;
            words.split(' ').for_each(|word| sender.send(word).unwrap());
        });
        assert_eq!(receiver.iter().collect::<Vec<_>>(), ["plain", "sequential", "code"]);
    });
}

#[test]
#[should_panic(expected = "room for at least one message")]
fn a_queue_without_room_is_refused() {
    let _ = pila::thread_queue::<()>(0);
}

#[test]
fn the_last_sender_that_goes_ends_every_receiver_after_what_is_left() {
    let (sender, receiver) = pila::thread_queue(4);
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let receiver = receiver.clone();
            pila::spawn_thread(move || {
                let tasklets: Vec<_> = (0..3)
                    .map(|_| {
                        let receiver = receiver.clone();
                        pila::tasklet(move || receiver.iter().count())
                    })
                    .collect();
                tasklets.into_iter().map(|tasklet| tasklet.join().unwrap()).sum::<usize>()
            })
            .unwrap()
        })
        .collect();
    (0..100).for_each(|i| sender.send(i).unwrap());
    drop(sender);
    assert_eq!(waiting.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>(), 100);
    assert!(matches!(receiver.receive(), Err(ReceiveError::Closed)));
    assert!(matches!(receiver.try_receive(), Err(ReceiveError::Closed)));
}

#[test]
fn the_last_receiver_that_goes_ends_every_sender_and_gives_the_values_back() {
    let (sender, receiver) = pila::thread_queue(1);
    sender.send(Arc::new(0)).unwrap();
    let threads: Vec<_> = (1..4)
        .map(|i| {
            let sender = sender.clone();
            pila::spawn_thread(move || sender.send(Arc::new(i)).unwrap_err().value).unwrap()
        })
        .collect();
    stop(20);
    drop(receiver);
    let mut back: Vec<_> = threads.into_iter().map(|thread| *thread.join().unwrap()).collect();
    back.sort_unstable();
    assert_eq!(back, [1, 2, 3]);
    assert!(sender.is_closed());
    let error = sender.try_send(Arc::new(9)).unwrap_err();
    assert!(matches!(error.reason, SendReason::Closed));
}

#[test]
fn what_nobody_can_receive_any_more_is_dropped() {
    let (sender, receiver) = pila::thread_queue(8);
    let message = Arc::new(());
    (0..5).for_each(|_| sender.send(message.clone()).unwrap());
    drop(receiver);
    assert_eq!(Arc::strong_count(&message), 1);
}

#[test]
fn a_timeout_gives_the_value_back_and_never_early() {
    let (sender, receiver) = pila::thread_queue(1);
    sender.send(1).unwrap();
    let start = Instant::now();
    let error = sender.send_timeout(2, Duration::from_millis(20)).unwrap_err();
    assert!(start.elapsed() >= Duration::from_millis(20));
    assert!(matches!(error.reason, SendReason::Timeout) && error.value == 2);
    assert_eq!(receiver.receive().unwrap(), 1);
    let nothing = receiver.receive_timeout(Duration::from_millis(1));
    assert!(matches!(nothing, Err(ReceiveError::Timeout)));
}

#[test]
fn calls_that_may_not_wait_are_refused_but_tries_work() {
    let (sender, receiver) = pila::thread_queue(1);
    let guard = pila::no_switch();
    sender.send(1).unwrap();
    let error = sender.send(2).unwrap_err();
    assert!(matches!(error.reason, SendReason::Refused(Refused::NoSwitch(_))));
    drop(guard);
    pila::current().set_block_trap(true).unwrap();
    assert_eq!(receiver.receive().unwrap(), 1);
    let refused = receiver.receive();
    assert!(matches!(refused, Err(ReceiveError::Refused(Refused::BlockTrap))));
    pila::current().set_block_trap(false).unwrap();

    struct Last(QueueSender<i32>);
    impl Drop for Last {
        fn drop(&mut self) {
            let refused = self.0.send(6).unwrap_err();
            assert!(matches!(refused.reason, SendReason::Refused(_)));
            self.0.try_send(7).unwrap();
        }
    }
    let last = Last(sender);
    let victim = pila::tasklet(move || {
        let _last = last;
        pila::schedule_remove();
    });
    pila::schedule();
    victim.kill().unwrap();
    assert_eq!(receiver.receive().unwrap(), 7);
}

#[test]
fn an_error_thrown_into_a_wait_ends_it() {
    let (sender, receiver) = pila::thread_queue::<i32>(1);
    let waiting = pila::tasklet(move || receiver.receive());
    pila::schedule();
    waiting.throw("enough").unwrap();
    assert!(matches!(waiting.join().unwrap(), Err(ReceiveError::Thrown(_))));
    assert!(sender.is_closed());
}

/// Ends waits in every way while messages come, and counts.
#[test]
fn kills_timeouts_and_throws_of_waiters_lose_nothing() {
    let rounds = if cfg!(debug_assertions) { 20_000 } else { 200_000u64 };
    let (sender, receiver) = pila::thread_queue(2);
    let sending = pila::spawn_thread(move || {
        for i in 0..rounds {
            sender.send(i).unwrap();
            if i % 7 == 0 {
                pila::schedule();
            }
        }
    })
    .unwrap();
    let receiving: Vec<_> = (0..2u64)
        .map(|seed| {
            let receiver: QueueReceiver<u64> = receiver.clone();
            pila::spawn_thread(move || reckless(&receiver, seed)).unwrap()
        })
        .collect();
    drop(receiver);
    sending.join().unwrap();
    let mut all: Vec<u64> =
        receiving.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..rounds), "{} of {rounds}", all.len());
}

/// Receives with many tasklets, most of which come to a bad end.
fn reckless(receiver: &QueueReceiver<u64>, mut seed: u64) -> Vec<u64> {
    let got = Rc::new(RefCell::new(Vec::new()));
    let over = Rc::new(Cell::new(false));
    while !over.get() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let tasklets: Vec<_> = (0..4)
            .map(|_| {
                let (receiver, got, over) = (receiver.clone(), got.clone(), over.clone());
                pila::tasklet(move || {
                    for _ in 0..3 {
                        match receiver.receive_timeout(Duration::from_micros(30)) {
                            // From the return of `receive` on the message is the tasklet's.
                            Ok(message) => got.borrow_mut().push(message),
                            Err(ReceiveError::Closed) => over.set(true),
                            Err(_) => {}
                        }
                    }
                })
            })
            .collect();
        for _ in 0..seed >> 62 {
            pila::schedule();
        }
        match (seed >> 60) & 3 {
            0 => tasklets.iter().for_each(|tasklet| tasklet.kill().unwrap()),
            1 => tasklets.iter().for_each(|tasklet| drop(tasklet.throw("go"))),
            2 => tasklets.iter().for_each(|tasklet| tasklet.kill_later().unwrap()),
            _ => {}
        }
        pila::run();
    }
    got.take()
}

#[test]
fn kills_of_waiting_senders_lose_no_room() {
    let (sender, receiver) = pila::thread_queue(1);
    let receiving = pila::spawn_thread(move || receiver.iter().count()).unwrap();
    let mut sent = 0;
    for round in 0..if cfg!(debug_assertions) { 2_000 } else { 20_000 } {
        let count = Rc::new(Cell::new(0));
        let tasklets: Vec<_> = (0..4)
            .map(|i| {
                let (sender, count) = (sender.clone(), count.clone());
                pila::tasklet(move || {
                    sender.send(i).unwrap();
                    count.set(count.get() + 1);
                })
            })
            .collect();
        for _ in 0..round % 3 {
            pila::schedule();
        }
        tasklets[round % 4].kill().unwrap();
        tasklets[(round + 1) % 4].kill_later().unwrap();
        pila::run();
        sent += count.get();
    }
    drop(sender);
    assert_eq!(receiving.join().unwrap(), sent);
}

#[test]
fn a_wake_up_of_a_thread_that_ends_goes_to_the_next_in_line() {
    let (sender, receiver) = pila::thread_queue(4);
    let (ready, wait) = mpsc::channel();
    let theirs = receiver.clone();
    let (go, begin) = mpsc::channel::<()>();
    // First in line is a tasklet that is leaked after it was woken and before it could run.
    let ending = thread::spawn(move || {
        pila::tasklet(move || theirs.receive());
        pila::schedule();
        ready.send(()).unwrap();
        begin.recv().unwrap();
    });
    wait.recv().unwrap();
    let next = thread::spawn(move || receiver.receive());
    stop(50);
    sender.send("kept").unwrap();
    go.send(()).unwrap();
    ending.join().unwrap();
    assert_eq!(next.join().unwrap().unwrap(), "kept");
}

#[test]
fn a_waiter_whose_thread_has_ended_is_passed_over() {
    let (sender, receiver) = pila::thread_queue(1);
    for _ in 0..10 {
        let theirs = receiver.clone();
        thread::spawn(move || {
            for _ in 0..3 {
                let theirs = theirs.clone();
                pila::tasklet(move || theirs.receive());
            }
            pila::schedule();
        })
        .join()
        .unwrap();
    }
    let last = thread::spawn(move || receiver.receive());
    stop(20);
    sender.send(1).unwrap();
    assert_eq!(last.join().unwrap().unwrap(), 1);
}

#[test]
fn a_receiver_leaked_while_it_waits_counts_as_gone() {
    let (sender, receiver) = pila::thread_queue(1);
    thread::spawn(move || {
        pila::tasklet(move || receiver.receive());
        pila::schedule();
    })
    .join()
    .unwrap();
    assert!(sender.is_closed());
    assert!(matches!(sender.send(1).unwrap_err().reason, SendReason::Closed));
}

#[test]
fn a_sender_leaked_while_it_waits_counts_as_gone() {
    let (sender, receiver) = pila::thread_queue(1);
    let waiting = thread::spawn(move || receiver.iter().collect::<Vec<_>>());
    thread::spawn(move || {
        pila::tasklet(move || while sender.send(1).is_ok() {});
        // Comes back when the queue is full and the tasklet waits.
        pila::schedule();
    })
    .join()
    .unwrap();
    assert!(!waiting.join().unwrap().is_empty());
}

#[test]
fn a_receiver_leaked_while_it_waits_for_something_else_counts_as_alive() {
    let (sender, receiver) = pila::thread_queue(1);
    thread::spawn(move || {
        pila::tasklet(move || {
            pila::schedule_remove();
            drop(receiver);
        });
        pila::schedule();
    })
    .join()
    .unwrap();
    sender.send(1).unwrap();
    assert!(matches!(sender.try_send(2).unwrap_err().reason, SendReason::Timeout));
}

#[test]
fn an_end_in_a_thread_local_is_counted_once() {
    thread_local! {
        static END: RefCell<Option<QueueReceiver<i32>>> = const { RefCell::new(None) };
    }
    let (sender, receiver) = pila::thread_queue(1);
    let kept = receiver.clone();
    thread::spawn(move || {
        END.with(|end| *end.borrow_mut() = Some(receiver));
        pila::tasklet(|| END.with(|end| end.borrow().as_ref().unwrap().receive()));
        pila::schedule();
    })
    .join()
    .unwrap();
    assert!(!sender.is_closed());
    sender.send(1).unwrap();
    assert_eq!(kept.receive().unwrap(), 1);
    drop(kept);
    assert!(sender.is_closed());
}

#[test]
fn an_end_that_moves_between_threads_keeps_working() {
    let (sender, receiver) = pila::thread_queue(1);
    let mut receiver = receiver;
    for i in 0..50 {
        sender.send(i).unwrap();
        receiver = thread::spawn(move || {
            assert_eq!(receiver.receive().unwrap(), i);
            receiver
        })
        .join()
        .unwrap();
    }
}

#[test]
fn threads_that_end_at_every_moment_lose_only_what_they_took() {
    let rounds = if cfg!(debug_assertions) { 100 } else { 500 };
    let (sender, receiver) = pila::thread_queue(2);
    let taken = Arc::new(Mutex::new(0u64));
    let survivor = {
        let receiver = receiver.clone();
        thread::spawn(move || receiver.iter().count() as u64)
    };
    let sending = thread::spawn(move || {
        let mut sent = 0u64;
        while sent < rounds * 50 {
            sender.send(sent).unwrap();
            sent += 1;
        }
        sent
    });
    for _ in 0..rounds {
        let (receiver, taken) = (receiver.clone(), taken.clone());
        thread::spawn(move || {
            for _ in 0..4 {
                let (receiver, taken) = (receiver.clone(), taken.clone());
                pila::tasklet(move || {
                    while receiver.receive().is_ok() {
                        *taken.lock().unwrap() += 1;
                    }
                });
            }
            (0..10).for_each(|_| pila::schedule());
        })
        .join()
        .unwrap();
    }
    drop(receiver);
    let sent = sending.join().unwrap();
    assert_eq!(survivor.join().unwrap() + *taken.lock().unwrap(), sent);
}

#[test]
fn an_idle_queue_costs_no_processor_time() {
    const NAME: &str = "an_idle_queue_costs_no_processor_time";
    if std::env::var_os("PILA_TEST_CHILD").is_none() {
        // Alone, for other tests of this process are busy.
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let output = again.args(["--exact", NAME]).env("PILA_TEST_CHILD", "1").output().unwrap();
        assert!(output.status.success(), "{output:#?}");
        return;
    }
    let (sender, receiver) = pila::thread_queue(1);
    let (full, room) = pila::thread_queue(1);
    let receivers: Vec<_> = (0..2)
        .map(|_| {
            let receiver = receiver.clone();
            pila::spawn_thread(move || {
                let tasklets: Vec<_> = (0..100)
                    .map(|_| {
                        let receiver: QueueReceiver<()> = receiver.clone();
                        pila::tasklet(move || receiver.receive().is_err())
                    })
                    .collect();
                drop(receiver);
                tasklets.into_iter().all(|tasklet| tasklet.join().unwrap())
            })
            .unwrap()
        })
        .collect();
    let senders = pila::spawn_thread(move || while full.send(()).is_ok() {}).unwrap();
    stop(50);
    let before = processor_time();
    stop(200);
    let used = processor_time() - before;
    assert!(used < Duration::from_millis(5), "{used:?}");
    drop((sender, room));
    assert!(receivers.into_iter().all(|thread| thread.join().unwrap()));
    senders.join().unwrap();
}

#[test]
fn the_report_of_a_deadlock_elsewhere_names_who_waits_for_a_queue() {
    assert_eq!(Waiting::QueueReceive.to_string(), "waits for a message in a thread queue");
    assert_eq!(Waiting::QueueSend.to_string(), "waits for room in a thread queue");
    assert!(park::check().is_ok());
}

#[test]
fn a_receiver_that_is_killed_before_its_turn_leaves_the_shared_end_open() {
    let (sender, receiver) = pila::thread_queue::<u32>(4);
    let receiver = std::rc::Rc::new(receiver);
    let theirs = receiver.clone();
    let victim = pila::tasklet(move || theirs.receive().is_ok());
    pila::schedule();
    victim.kill_later().unwrap();
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    assert_eq!(receiver.try_receive().unwrap(), 1);
    assert_eq!(receiver.receive().unwrap(), 2);
}

#[test]
fn a_receiver_whose_time_is_up_before_its_turn_stays_open() {
    pila::driver::install(Box::new(pila::driver::VirtualClock::new())).unwrap();
    let (sender, receiver) = pila::thread_queue::<u32>(4);
    let step = std::time::Duration::from_millis(1);
    let sending = pila::tasklet(move || {
        pila::sleep(step);
        sender.send(1).unwrap();
        pila::schedule();
        sender.send(2).unwrap();
    });
    let receiving = pila::tasklet(move || {
        std::iter::repeat_with(|| receiver.receive_timeout(step)).take(4).flatten().sum::<u32>()
    });
    sending.join().unwrap();
    assert_eq!(receiving.join().unwrap(), 3);
}
