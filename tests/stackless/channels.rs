//! Channels: blocking, errors that travel, closing, iteration, the attributes.

use std::{cell::RefCell, error::Error, fmt, rc::Rc};

use pila::{
    Channel, Preference, ReceiveError, Refused, SendReason, current, run, run_count, schedule,
    tasklet,
};

use crate::support::{BLOCKED, DEAD, Log, SCHEDULED, panic_of, states};

/// An error with something to say, as `IndexError(1, 2, 3)`.
#[derive(PartialEq, Eq, Debug)]
struct IndexError(i32, i32, i32);

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index error")
    }
}

impl Error for IndexError {}

/// TestChannels.testBlockingSend: a send without a receiver blocks the tasklet.
#[test]
fn blocking_send() {
    let channel = Channel::new();
    let theirs = channel.clone();
    let sender = tasklet(move || theirs.send(7));
    run();
    assert_eq!((states(&sender), channel.balance()), (BLOCKED, 1));
    assert_eq!(channel.waiters()[0].id(), sender.id());
    assert_eq!(channel.receive().unwrap(), 7);
    assert_eq!(channel.balance(), 0);
    assert!(sender.join().unwrap().is_ok());
}

/// TestChannels.testBlockingReceive: a receive without a sender blocks the tasklet.
#[test]
fn blocking_receive() {
    let channel = Channel::new();
    let theirs = channel.clone();
    let receiver = tasklet(move || theirs.receive());
    run();
    assert_eq!((states(&receiver), channel.balance()), (BLOCKED, -1));
    assert_eq!(channel.waiters()[0].id(), receiver.id());
    channel.send(7).unwrap();
    assert_eq!(receiver.join().unwrap().unwrap(), 7);
}

/// TestChannels.testNonBlockingSend: with a receiver waiting, a send succeeds under the block trap.
#[test]
fn non_blocking_send() {
    let channel = Channel::new();
    let (receiving, sending) = (channel.clone(), channel.clone());
    let receiver = tasklet(move || receiving.receive());
    run();
    let sender = tasklet(move || {
        current().set_block_trap(true).unwrap();
        sending.send(7)
    });
    run();
    assert!(sender.join().unwrap().is_ok());
    assert_eq!(receiver.join().unwrap().unwrap(), 7);
    assert_eq!(channel.balance(), 0);
}

/// TestChannels.testNonBlockingReceive: with a sender waiting, a receive succeeds under the block trap.
#[test]
fn non_blocking_receive() {
    let channel = Channel::new();
    let (sending, receiving) = (channel.clone(), channel.clone());
    tasklet(move || sending.send(7));
    run();
    let receiver = tasklet(move || {
        current().set_block_trap(true).unwrap();
        receiving.receive()
    });
    run();
    assert_eq!(receiver.join().unwrap().unwrap(), 7);
    assert_eq!(channel.balance(), 0);
}

/// TestChannels.testMainTaskletBlockingWithoutASender: main alone that receives gets the deadlock as an error.
#[test]
fn main_alone_cannot_block() {
    let channel = Channel::<()>::new();
    assert!(matches!(channel.receive(), Err(ReceiveError::Deadlock(_))));
    assert_eq!(channel.balance(), 0);
}

/// TestChannels.testSendException: an error sent in place of a value is what the receiver's call returns.
#[test]
fn send_exception() {
    let channel = Channel::<()>::new();
    let theirs = channel.clone();
    let receiver = tasklet(move || theirs.receive());
    run();
    channel.send_error(IndexError(1, 2, 3)).unwrap();
    let Err(ReceiveError::Sent(error)) = receiver.join().unwrap() else { panic!("no error") };
    assert_eq!(error.get().downcast_ref(), Some(&IndexError(1, 2, 3)));
}

/// TestChannels.testSendThrow: the error that was caught elsewhere arrives whole, with its cause.
#[test]
fn send_throw() {
    #[derive(Debug)]
    struct Outer(IndexError);
    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("outer")
        }
    }
    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }
    let channel = Channel::<()>::new();
    let theirs = channel.clone();
    tasklet(move || theirs.send_error(Outer(IndexError(1, 2, 3))));
    run();
    let Err(ReceiveError::Sent(error)) = channel.receive() else { panic!("no error") };
    assert_eq!(error.to_string(), "outer");
    assert_eq!(error.source().unwrap().downcast_ref(), Some(&IndexError(1, 2, 3)));
}

/// TestChannels.testBlockTrapSend: a send that would block fails under the block trap, on main and in a tasklet.
#[test]
fn block_trap_send() {
    let attempt = || {
        let channel = Channel::new();
        current().set_block_trap(true).unwrap();
        let error = channel.send(7).unwrap_err();
        current().set_block_trap(false).unwrap();
        assert!(matches!(error.reason, SendReason::Refused(Refused::BlockTrap)), "{error:?}");
        assert_eq!((error.value, channel.balance()), (7, 0));
    };
    attempt();
    tasklet(attempt).join().unwrap();
}

/// TestChannels.testBlockTrapRecv: a receive that would block fails under the block trap, on main and in a tasklet.
#[test]
fn block_trap_receive() {
    let attempt = || {
        let channel = Channel::<()>::new();
        current().set_block_trap(true).unwrap();
        let error = channel.receive().unwrap_err();
        current().set_block_trap(false).unwrap();
        assert!(matches!(error, ReceiveError::Refused(Refused::BlockTrap)), "{error:?}");
        assert_eq!(channel.balance(), 0);
    };
    attempt();
    tasklet(attempt).join().unwrap();
}

/// TestClose.testSequence: close wakes the receiver, whose call says so; it need not be pumped until `closed`.
#[test]
fn close_wakes_a_receiver() {
    let channel = Channel::new();
    let theirs = channel.clone();
    let received = Rc::new(RefCell::new(Vec::new()));
    let all = received.clone();
    let receiver = tasklet(move || {
        for value in &theirs {
            all.borrow_mut().push(value);
        }
    });
    run();
    assert_eq!(channel.send_all(0..3).unwrap(), 3);
    assert_eq!(states(&receiver), BLOCKED);
    channel.close();
    assert!(channel.is_closed());
    run();
    assert_eq!((states(&receiver), &*received.borrow()), (DEAD, &vec![0, 1, 2]));
}

/// TestClose.testSequence2: a sequence of ten arrives, its sender is told so, and the end that it announces ends the
/// iteration and closes the channel.
#[test]
fn a_sequence_ends_with_close() {
    let channel = Channel::new();
    let theirs = channel.clone();
    let sender = tasklet(move || {
        let sent = theirs.send_all(0..10).unwrap();
        theirs.close();
        sent
    });
    assert_eq!(channel.iter().collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    assert!(channel.is_closed());
    assert_eq!(sender.join().unwrap(), 10);
}

/// TestClose.testSender: a send on a closed channel fails, and hands the value back.
#[test]
fn a_closed_channel_takes_nothing() {
    let channel = Channel::new();
    channel.close();
    let error = channel.send("back").unwrap_err();
    assert!(matches!(error.reason, SendReason::Closed));
    assert_eq!((error.value, channel.balance()), ("back", 0));
    assert!(matches!(channel.send_error("no"), Err(SendReason::Closed)));
}

/// TestClose.testReceiver: a receive on a closed channel fails.
#[test]
fn a_closed_channel_gives_nothing() {
    let channel = Channel::<()>::new();
    channel.close();
    assert!(matches!(channel.receive(), Err(ReceiveError::Closed)));
    assert_eq!(channel.balance(), 0);
}

/// TestClose.testIterator: iterating over a closed channel ends.
#[test]
fn iterating_over_a_closed_channel_ends() {
    let channel = Channel::<()>::new();
    channel.close();
    assert_eq!(channel.iter().next(), None);
    assert_eq!((&channel).into_iter().count(), 0);
}

/// testsuite.testAttr_balance: the balance counts senders up and receivers down, and a kill takes one off.
#[test]
fn balance_follows_those_who_wait() {
    let channel = Channel::new();
    let sender = |channel: &Channel<()>| {
        let channel = channel.clone();
        let sender = tasklet(move || drop(channel.send(())));
        run();
        sender
    };
    let receiver = |channel: &Channel<()>| {
        let channel = channel.clone();
        let receiver = tasklet(move || drop(channel.receive()));
        run();
        receiver
    };
    assert_eq!(channel.balance(), 0);
    for (make, sign) in [(&sender as &dyn Fn(&_) -> _, 1), (&receiver, -1)] {
        let first = make(&channel);
        assert_eq!(channel.balance(), sign);
        let second = make(&channel);
        assert_eq!(channel.balance(), 2 * sign);
        first.kill().unwrap();
        assert_eq!(channel.balance(), sign);
        second.kill().unwrap();
        assert_eq!(channel.balance(), 0);
    }
}

/// testsuite.testAttr_closing_closed: a closing channel is closed when the last that waited was killed.
#[test]
fn closing_becomes_closed() {
    let channel = Channel::new();
    let theirs = channel.clone();
    assert!(!channel.is_closing() && !channel.is_closed());
    let sender = tasklet(move || theirs.send(()));
    run();
    assert!(!channel.is_closing() && !channel.is_closed());
    channel.close();
    assert!(channel.is_closing() && !channel.is_closed());
    sender.kill().unwrap();
    assert!(channel.is_closing() && channel.is_closed());
    channel.open();
    assert!(!channel.is_closing() && !channel.is_closed());
}

/// testsuite.testAttr_queue: those who wait can be seen, first come first.
#[test]
fn waiters_can_be_seen() {
    let channel = Channel::new();
    assert!(channel.waiters().is_empty());
    let senders = [1, 2].map(|value| {
        let channel = channel.clone();
        tasklet(move || channel.send(value))
    });
    run();
    let ids: Vec<_> = channel.waiters().iter().map(|waiter| waiter.id()).collect();
    assert_eq!(ids, senders.map(|sender| sender.id()));
}

/// testsuite.testAttr_preference: prefer the receiver is the default, and there are three; no other can be written.
#[test]
fn preference_can_be_set() {
    let channel = Channel::<()>::new();
    assert_eq!(channel.preference() as i32, -1);
    for (preference, number) in
        [(Preference::Neither, 0), (Preference::Sender, 1), (Preference::Receiver, -1)]
    {
        channel.set_preference(preference);
        assert_eq!(channel.preference() as i32, number);
    }
}

/// own schedule_all: off by default, shared by the clones of a channel.
#[test]
fn schedule_all_can_be_set() {
    let channel = Channel::<()>::new();
    assert!(!channel.schedule_all());
    channel.clone().set_schedule_all(true);
    assert!(channel.schedule_all());
    channel.set_schedule_all(false);
    assert!(!channel.schedule_all());
}

/// own closed channel drains: senders that wait when a channel is closed can still be received from, and iteration
/// goes on until they are gone.
#[test]
fn a_closed_channel_drains() {
    let channel = Channel::new();
    for value in 0..3 {
        let channel = channel.clone();
        tasklet(move || channel.send(value).unwrap());
    }
    run();
    channel.close();
    assert_eq!(channel.receive().unwrap(), 0);
    assert_eq!(channel.iter().collect::<Vec<_>>(), [1, 2]);
    assert!(channel.is_closed());
    assert_eq!(run().finished, 3);
}

/// own sequence sender meets close: one that is suspended after a hand-off fails at its next send.
#[test]
fn a_sequence_is_cut_short_by_close() {
    let channel = Channel::new();
    let theirs = channel.clone();
    let sender = tasklet(move || theirs.send_all(0..10).unwrap_err());
    assert_eq!((channel.receive().unwrap(), channel.receive().unwrap()), (0, 1));
    // The sender was woken with the second, and has not offered the third.
    assert_eq!(states(&sender), SCHEDULED);
    channel.close();
    let error = sender.join().unwrap();
    assert!(matches!(error.reason, SendReason::Closed));
    assert_eq!(error.value, 2);
}

/// own open: a closed channel can be opened again.
#[test]
fn open_takes_close_back() {
    let channel = Channel::new();
    let theirs = channel.clone();
    channel.close();
    channel.open();
    let receiver = tasklet(move || theirs.receive().unwrap());
    run();
    channel.send(7).unwrap();
    assert_eq!(receiver.join().unwrap(), 7);
}

/// own block_trap comes before closing: a trapped operation on a closed channel is refused for the trap.
#[test]
fn the_block_trap_comes_before_closing() {
    let channel = Channel::new();
    channel.close();
    current().set_block_trap(true).unwrap();
    let error = channel.send(7).unwrap_err();
    assert!(matches!(error.reason, SendReason::Refused(Refused::BlockTrap)));
    let error = channel.receive().unwrap_err();
    assert!(matches!(error, ReceiveError::Refused(Refused::BlockTrap)));
}

/// own block_trap allows a hand-off: sending to a receiver that waits is allowed although it switches; the trap is
/// each tasklet's own, and is not inherited.
#[test]
fn the_block_trap_allows_a_hand_off() {
    let (log, channel) = (Log::default(), Channel::new());
    let (receiving, theirs) = (log.clone(), channel.clone());
    current().set_block_trap(true).unwrap();
    assert!(current().block_trap());
    let receiver = tasklet(move || receiving.add(format!("got {}", theirs.receive().unwrap())));
    assert!(!receiver.block_trap());
    schedule();
    assert_eq!(states(&receiver), BLOCKED);
    channel.send(7).unwrap();
    log.add("|");
    log.assert("got 7 |");
    current().set_block_trap(false).unwrap();
}

/// own waiters leave from the middle: whoever is killed or thrown at leaves the line, and the others keep their order.
#[test]
fn the_middle_of_the_line_can_leave() {
    let (log, channel) = (Log::default(), Channel::new());
    let receivers = ["r1", "r2", "r3", "r4"].map(|name| {
        let (log, channel) = (log.clone(), channel.clone());
        tasklet(move || match channel.receive() {
            Ok(value) => log.add(format!("{name}={value}")),
            Err(error) => log.add(format!("{name}:{error}")),
        })
    });
    run();
    receivers[1].kill().unwrap();
    receivers[2].throw("out").unwrap();
    assert_eq!(channel.balance(), -2);
    channel.send(1).unwrap();
    channel.send(2).unwrap();
    log.assert("r3:out r1=1 r4=2");
    assert_eq!(run_count(), 1);
}

/// TestWatchdog.test_send_recv: three clients send 20 each to a server that loops; an error that ends the server comes
/// out of main.
#[test]
fn clients_and_a_server() {
    let channel = Channel::new();
    let count = Rc::new(RefCell::new(0));
    let (serving, counter) = (channel.clone(), count.clone());
    tasklet(move || {
        loop {
            serving.receive().unwrap();
            *counter.borrow_mut() += 1;
        }
    });
    for name in ["client1", "client2", "client3"] {
        let channel = channel.clone();
        tasklet(move || (0..20).for_each(|_| channel.send(name).unwrap()));
    }
    assert_eq!(run().finished, 3);
    assert_eq!(*count.borrow(), 60);
    let panic = panic_of(|| channel.send_error("stop the server"));
    assert!(panic.contains("stop the server"), "{panic}");
    assert_eq!(channel.balance(), 0);
}

/// TestWatchdogSoft.test_channelchain: three tasklets in a ring of channels pass a value round; all of them stay in
/// the run queue or on a channel.
#[test]
fn a_chain_of_channels() {
    let channels = [Channel::new(), Channel::new(), Channel::new()];
    let tasklets = [0, 1, 2].map(|place| {
        let [from, to] = [channels[place].clone(), channels[(place + 1) % 3].clone()];
        tasklet(move || {
            if place == 0 {
                to.send(1).unwrap();
            }
            loop {
                let passed = from.receive().unwrap();
                to.send(passed + 1).unwrap();
            }
        })
    });
    for _ in 0..1000 {
        schedule();
        let waiting =
            channels.iter().map(|channel| channel.balance().unsigned_abs()).sum::<usize>();
        assert_eq!(run_count() + waiting, 4);
    }
    for tasklet in tasklets {
        tasklet.kill().unwrap();
    }
    assert_eq!(run_count(), 1);
}

/// Channel.testTemporaryChannel: a tasklet that blocks on a channel that nobody else holds stays blocked; `run`
/// returns.
#[test]
fn a_temporary_channel_blocks_for_ever() {
    let blocked = tasklet(|| Channel::<()>::new().receive().is_ok());
    assert_eq!(run().blocked, 1);
    assert_eq!(states(&blocked), BLOCKED);
}

/// Channel.testTemporaryChannel2: the same for one that sends, and for one inside a call of its own.
#[test]
fn a_temporary_channel_blocks_a_sender_for_ever() {
    fn send_for_ever() {
        Channel::new().send(1).unwrap();
    }
    tasklet(send_for_ever);
    tasklet(|| drop(Channel::new().send(String::from("never"))));
    let done = run();
    assert_eq!((done.finished, done.blocked), (0, 2));
}

/// TestWatchdog.test_lone_receive: `run` returns although a tasklet is left blocked on a temporary channel.
#[test]
fn run_returns_from_a_lone_receive() {
    drop(tasklet(|| drop(Channel::<()>::new().receive())));
    let done = run();
    assert_eq!((done.finished, done.blocked), (0, 1));
}

/// test_weakref.testSimpleChannelWeakRef: a channel is gone with its last holder, and what lies in it too.
#[test]
fn a_channel_goes_with_its_last_holder() {
    let value = Rc::new(());
    let watch = Rc::downgrade(&value);
    let channel = Channel::with_capacity(1);
    channel.send(value).unwrap();
    let second = channel.clone();
    drop(channel);
    assert!(watch.upgrade().is_some());
    drop(second);
    assert!(watch.upgrade().is_none());
}

/// test_pickle.testSendSequence: a sequence that is suspended midway and then dropped leaves nothing behind.
#[test]
fn a_suspended_sequence_can_be_dropped() {
    let channel = Channel::new();
    let theirs = channel.clone();
    let item = Rc::new(());
    let items = vec![item.clone(); 10];
    let sender = tasklet(move || theirs.send_all(items).is_ok());
    for _ in 0..3 {
        channel.receive().unwrap();
    }
    run();
    assert_eq!((channel.balance(), Rc::strong_count(&item)), (1, 8));
    sender.kill().unwrap();
    assert_eq!((channel.balance(), Rc::strong_count(&item)), (0, 1));
}
