//! Channels: where tasklets meet, wait in line, and learn that nobody is coming.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use pila::{
    Builder, Channel, JoinError, ReceiveError, Refused, SendError, SendReason, Ticket, Waiting,
    park, tasklet,
};

/// Counts its drops.
#[derive(Clone, Default, Debug)]
struct Drops(Arc<AtomicUsize>);

impl Drops {
    fn value(&self) -> Counted {
        Counted(self.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Counted(Drops);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_sender_waits_for_a_receiver() {
    let channel = Channel::new();
    let theirs = channel.clone();
    let sender = tasklet(move || theirs.send("hello").unwrap());
    pila::run();
    assert!(sender.is_blocked());
    assert_eq!(channel.balance(), 1);
    assert_eq!(channel.receive().unwrap(), "hello");
    assert_eq!(channel.balance(), 0);
    sender.join().unwrap();
}

#[test]
fn a_receiver_waits_for_a_sender() {
    let channel = Channel::new();
    let theirs = channel.clone();
    let receiver = tasklet(move || theirs.receive().unwrap());
    pila::run();
    assert!(receiver.is_blocked());
    assert_eq!(channel.balance(), -1);
    channel.send("hello").unwrap();
    assert_eq!(channel.balance(), 0);
    assert_eq!(receiver.join().unwrap(), "hello");
}

#[test]
fn senders_are_served_in_the_order_they_came() {
    let channel = Channel::new();
    for number in 0..5 {
        let channel = channel.clone();
        tasklet(move || channel.send(number).unwrap());
    }
    pila::run();
    assert_eq!(channel.balance(), 5);
    let received: Vec<_> = (0..5).map(|_| channel.receive().unwrap()).collect();
    assert_eq!(received, [0, 1, 2, 3, 4]);
}

#[test]
fn receivers_are_served_in_the_order_they_came() {
    let channel = Channel::new();
    let log = Rc::new(RefCell::new(Vec::new()));
    for number in 0..5 {
        let (channel, log) = (channel.clone(), log.clone());
        tasklet(move || {
            let value = channel.receive().unwrap();
            log.borrow_mut().push((number, value));
        });
    }
    pila::run();
    for value in 10..15 {
        channel.send(value).unwrap();
    }
    assert_eq!(*log.borrow(), [(0, 10), (1, 11), (2, 12), (3, 13), (4, 14)]);
}

#[test]
fn a_ping_pong_of_100_000_messages_loses_none() {
    let (there, back) = (Channel::new(), Channel::new());
    let (theirs, answers) = (there.clone(), back.clone());
    tasklet(move || {
        while let Ok(value) = theirs.receive() {
            answers.send(value + 1).unwrap();
        }
    });
    for value in 0..100_000u32 {
        there.send(value).unwrap();
        assert_eq!(back.receive().unwrap(), value + 1);
    }
    there.close();
    assert_eq!(pila::run().blocked, 0);
}

#[test]
fn close_wakes_receivers() {
    let channel = Channel::<()>::new();
    let receivers = [(); 3].map(|()| {
        let channel = channel.clone();
        tasklet(move || channel.receive())
    });
    pila::run();
    channel.close();
    assert_eq!(channel.balance(), 0);
    for receiver in receivers {
        assert!(matches!(receiver.join().unwrap(), Err(ReceiveError::Closed)));
    }
}

#[test]
fn a_closed_channel_drains_waiting_senders_and_refuses_new_ones() {
    let channel = Channel::new();
    for number in 0..2 {
        let channel = channel.clone();
        tasklet(move || channel.send(number).unwrap());
    }
    pila::run();

    channel.close();

    assert!(channel.is_closing() && !channel.is_closed());
    let SendError { value, reason, .. } = channel.send(9).unwrap_err();
    assert_eq!(value, 9);
    assert!(matches!(reason, SendReason::Closed));
    assert_eq!((channel.receive().unwrap(), channel.receive().unwrap()), (0, 1));
    assert!(channel.is_closed());
    assert!(matches!(channel.receive(), Err(ReceiveError::Closed)));
    channel.close();
    assert!(channel.is_closed());
    assert_eq!(pila::run().finished, 2);
}

#[test]
fn a_new_channel_is_open() {
    let channel = Channel::<()>::default();
    assert!(!channel.is_closing() && !channel.is_closed());
    assert_eq!(channel.balance(), 0);
}

#[test]
fn values_are_dropped_once_whoever_drops_them() {
    let drops = Drops::default();
    let channel = Channel::new();
    for _ in 0..3 {
        let (channel, value) = (channel.clone(), drops.value());
        tasklet(move || channel.send(value).is_ok());
    }
    pila::run();
    drop(channel.receive().unwrap());
    assert_eq!(drops.count(), 1);
    channel.close();
    drop(channel.send(drops.value()));
    assert_eq!(drops.count(), 2);
    while channel.receive().is_ok() {}
    assert_eq!(drops.count(), 4);
}

#[test]
fn a_value_handed_over_but_not_fetched_is_dropped_at_most_once() {
    let drops = Drops::default();
    let theirs = drops.clone();
    thread::spawn(move || {
        let channel = Channel::new();
        let receiving = channel.clone();
        let receiver = tasklet(move || receiving.receive());
        let (sending, value) = (channel.clone(), theirs.value());
        pila::schedule();
        tasklet(move || sending.send(value).is_ok());
        let nobody_receives = Channel::new();
        let value = theirs.value();
        tasklet(move || nobody_receives.send(value).is_ok());
        pila::schedule();
        // One value has reached its receiver, one is leaked with its sender.
        drop((receiver, channel));
    })
    .join()
    .unwrap();
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_paused_receiver_keeps_the_value_it_was_given() {
    let channel = Channel::new();
    let theirs = channel.clone();
    let receiver = tasklet(move || theirs.receive().unwrap());
    pila::run();
    let handle = (*receiver).clone();
    let sending = channel.clone();
    tasklet(move || sending.send("kept").unwrap());
    // The receiver is next in the queue when it is removed.
    tasklet(move || handle.remove());
    pila::run();
    let _ = receiver.insert();
    assert_eq!(receiver.join().unwrap(), "kept");
}

#[test]
fn main_alone_that_receives_is_told_of_the_deadlock() {
    let channel = Channel::<()>::new();
    let error = channel.receive().unwrap_err();
    let ReceiveError::Deadlock(report) = &error else { panic!("{error:?}") };
    assert_eq!(report.waiters().len(), 1);
    assert_eq!(report.waiters()[0].who.id, pila::main_tasklet().id());
    assert_eq!(channel.balance(), 0);
}

#[test]
fn to_wait_until_the_end_of_all_time_is_a_deadlock_too() {
    let channel = Channel::<u32>::new();
    let longest = Duration::MAX;
    assert!(matches!(channel.receive_timeout(longest), Err(ReceiveError::Deadlock(_))));
    let error = channel.send_timeout(7, longest).unwrap_err();
    assert!(matches!(error.reason, SendReason::Deadlock(_)));
    let received = pila::timeout(longest, || channel.receive()).unwrap();
    assert!(matches!(received, Err(ReceiveError::Deadlock(_))));
    // So a stop that has all the time kills at once those whom nothing can wake.
    let (group, theirs) = (pila::Group::new(), channel.clone());
    let member = group.tasklet(move || drop(theirs.receive()));
    pila::schedule();
    assert!(group.stop(longest).alive.is_empty());
    assert!(matches!(member.join(), Err(pila::JoinError::Killed)));
}

#[test]
fn main_alone_that_sends_gets_its_value_back_with_the_report() {
    let channel = Channel::new();
    let error = channel.send(String::from("mine")).unwrap_err();
    assert_eq!(error.value, "mine");
    assert!(matches!(error.reason, SendReason::Deadlock(_)));
    assert_eq!(channel.balance(), 0);
}

#[test]
fn main_is_told_when_the_last_that_could_run_has_ended() {
    let channel = Channel::<()>::new();
    tasklet(|| ());
    assert!(matches!(channel.receive(), Err(ReceiveError::Deadlock(_))));
}

#[test]
fn the_last_to_block_while_main_is_blocked_is_told_first() {
    let (channel, other) = (Channel::<&str>::new(), Channel::<()>::new());
    let [first, last] = [(), ()].map(|()| {
        let (channel, other) = (channel.clone(), other.clone());
        move || match other.receive() {
            Err(ReceiveError::Deadlock(_)) => channel.send("told").unwrap(),
            _ => unreachable!("nobody sends"),
        }
    });
    let (first, last) = (tasklet(first), tasklet(last));
    // Main blocks, then the first, then the last, who can still do something about it.
    assert_eq!(channel.receive().unwrap(), "told");
    assert!(first.is_blocked());
    last.join().unwrap();
    assert_eq!(other.balance(), -1);
}

#[test]
fn run_is_not_a_deadlock() {
    let channel = Channel::<()>::new();
    tasklet(move || channel.receive());
    let done = pila::run();
    assert_eq!((done.finished, done.blocked, done.paused), (0, 1, 0));
}

#[test]
fn a_report_names_everyone_and_the_place_of_the_channel() {
    let channel = Channel::<()>::new();
    let line = line!() - 1;
    let theirs = channel.clone();
    Builder::new().name("reader").tasklet(move || theirs.receive()).unwrap();
    let theirs = channel.clone();
    pila::run();
    pila::Tasklet::bind(move || drop(theirs));
    let error = channel.receive().unwrap_err().to_string();

    assert!(error.contains("'main' (#0)"), "{error}");
    assert!(error.contains("'reader' (#1)"), "{error}");
    assert!(error.contains("#2"), "{error}");
    assert!(error.contains(&format!("tests/channel.rs:{line}:")), "{error}");
    assert!(error.contains("waits for a sender"), "{error}");
    assert!(error.contains("waits to be inserted"), "{error}");
}

#[test]
fn a_report_outlives_its_tasklets_and_may_go_to_another_thread() {
    let error = Channel::<()>::new().receive().unwrap_err();
    let there = thread::spawn(move || error.to_string()).join().unwrap();
    assert!(there.contains("'main' (#0)"), "{there}");
}

/// Calls its function when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn waiting_is_refused_while_unwinding_and_others_do_not_notice() {
    let channel = Channel::new();
    let lock = Arc::new(Mutex::new(0));
    let innocent = lock.clone();
    let others_saw_a_panic = Rc::new(Cell::new(false));
    let saw = others_saw_a_panic.clone();
    let refused = Rc::new(RefCell::new(Vec::new()));
    let log = refused.clone();

    let unwinding = tasklet(move || {
        let _guard = OnDrop(|| {
            let SendError { value, reason, .. } = channel.send(7).unwrap_err();
            assert_eq!(value, 7);
            log.borrow_mut().push(matches!(reason, SendReason::Refused(Refused::Unwinding)));
            let error = channel.receive().unwrap_err();
            log.borrow_mut().push(matches!(error, ReceiveError::Refused(Refused::Unwinding)));
            let error = tasklet(|| ()).join().unwrap_err();
            log.borrow_mut().push(matches!(error, JoinError::Refused(Refused::Unwinding)));
            // These have no result to tell it with.
            pila::schedule();
            pila::schedule_remove();
            pila::sleep(std::time::Duration::from_secs(3600));
            assert_eq!(pila::run(), pila::Summary::default());
        });
        resume_unwind(Box::new("unwinds"));
    });
    tasklet(move || {
        for _ in 0..10 {
            let _held = innocent.lock().unwrap();
            saw.set(saw.get() | thread::panicking());
            pila::schedule();
        }
    });
    pila::run();

    assert!(matches!(unwinding.join(), Err(JoinError::Panicked(_))));
    assert_eq!(*refused.borrow(), [true; 3]);
    assert!(!others_saw_a_panic.get());
    assert!(!lock.is_poisoned());
}

#[test]
fn a_ticket_taken_before_a_panic_is_refused_while_unwinding() {
    let others_saw_a_panic = Rc::new(Cell::new(false));
    let saw = others_saw_a_panic.clone();
    let unwinding = tasklet(|| {
        let ticket: Ticket = park::begin().unwrap();
        let _guard = OnDrop(|| {
            let in_a_second = pila::driver::now() + std::time::Duration::from_millis(1);
            let waited = park::wait(ticket, Waiting::Sleep, Some(in_a_second));
            let waited = format!("{waited:?}");
            assert!(waited.contains("Unwinding"), "it could wait: {waited}");
        });
        resume_unwind(Box::new("unwinds"));
    });
    tasklet(move || saw.set(thread::panicking()));
    pila::schedule();
    assert!(!others_saw_a_panic.get(), "another tasklet's panic is seen here");
    assert!(!unwinding.is_alive());
}

#[test]
fn a_panic_that_reaches_blocked_main_takes_it_out_of_line() {
    let channel = Channel::new();
    tasklet(|| resume_unwind(Box::new("not mine")));
    let payload = catch_unwind(AssertUnwindSafe(|| channel.send(1))).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"not mine"));
    assert_eq!(channel.balance(), 0);
    tasklet(|| resume_unwind(Box::new("again")));
    catch_unwind(AssertUnwindSafe(|| channel.receive())).unwrap_err();
    assert_eq!(channel.balance(), 0);
}

#[test]
fn a_value_whose_destructor_uses_the_channel_may_travel_on_it() {
    struct Nosy(Channel<Nosy>, Rc<Cell<isize>>);
    impl Drop for Nosy {
        fn drop(&mut self) {
            self.1.set(self.1.get() + 1 + self.0.balance());
            self.0.close();
        }
    }
    let (channel, drops) = (Channel::new(), Rc::new(Cell::new(0)));
    let (theirs, value) = (channel.clone(), Nosy(channel.clone(), drops.clone()));
    tasklet(move || theirs.send(value).is_ok());
    pila::run();
    drop(channel.receive().unwrap());
    assert!(channel.is_closed());
    drop(channel.send(Nosy(channel.clone(), drops.clone())));
    assert_eq!(drops.get(), 2);
}

#[test]
fn send_and_receive_errors_say_what_happened() {
    let channel = Channel::new();
    channel.close();
    assert_eq!(channel.send(1).unwrap_err().to_string(), "send on a closed channel");
    assert_eq!(channel.receive().unwrap_err().to_string(), "receive on a closed channel");
}
