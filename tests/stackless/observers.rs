//! The schedule callback and the channel callback.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use pila::{
    Channel, ChannelCallback, ScheduleCallback, channel_callback, current, run, schedule,
    schedule_callback, set_channel_callback, set_schedule_callback, tasklet,
};

use crate::support::{Log, panic_of, silent_panic};

/// A schedule callback that counts its calls.
fn counting() -> (Rc<Cell<usize>>, ScheduleCallback) {
    let count = Rc::new(Cell::new(0));
    let theirs = count.clone();
    (count, Rc::new(move |_, _| theirs.set(theirs.get() + 1)))
}

/// A channel callback that logs `send` or `receive`, `!` when it will block, and who does it.
fn logging(log: &Log) -> ChannelCallback {
    let log = log.clone();
    Rc::new(move |event| {
        let operation = if event.sending { "send" } else { "receive" };
        let block = if event.will_block { "!" } else { "" };
        log.add(format!("{operation}{block}{}", event.tasklet.id()));
    })
}

/// ChannelCallback.test0: the callback is called before each operation, with the channel, who does it, which way, and
/// whether it will block.
#[test]
fn the_channel_callback_sees_operations() {
    let (log, channels) = (Log::default(), Rc::new(RefCell::new(Vec::new())));
    let (logging, theirs) = (logging(&log), channels.clone());
    set_channel_callback(Some(Rc::new(move |event| {
        theirs.borrow_mut().push(event.channel);
        logging(event);
    })));
    let channel = Channel::new();
    let sending = channel.clone();
    tasklet(move || (0..2).for_each(|value| sending.send(value).unwrap()));
    let received = [(); 2].map(|()| channel.receive().unwrap());
    set_channel_callback(None);
    assert_eq!(received, [0, 1]);
    log.assert("receive!#0 send#1 receive!#0 send#1");
    assert!(channels.borrow().iter().all(|channel| *channel == channels.borrow()[0]));
}

/// ChannelCallback.testGetCallback: setting gives the one before; `None` clears.
#[test]
fn the_channel_callback_can_be_had() {
    assert!(channel_callback().is_none());
    let callback: ChannelCallback = Rc::new(|_| ());
    assert!(set_channel_callback(Some(callback.clone())).is_none());
    assert!(Rc::ptr_eq(&channel_callback().unwrap(), &callback));
    assert!(Rc::ptr_eq(&set_channel_callback(None).unwrap(), &callback));
    assert!(channel_callback().is_none());
}

/// SchedulingCallback.test0: no call before anything runs, then at least one for each switch.
#[test]
fn the_schedule_callback_sees_switches() {
    let (count, callback) = counting();
    set_schedule_callback(Some(callback));
    for _ in 0..2 {
        tasklet(|| (0..3).for_each(|_| schedule()));
    }
    assert_eq!(count.get(), 0);
    run();
    set_schedule_callback(None);
    // Eight turns of tasklets, and the way back to main.
    assert_eq!(count.get(), 9);
}

/// SchedulingCallback.test1: a callback that was replaced or cleared is called no more.
#[test]
fn a_replaced_schedule_callback_is_not_called() {
    let [(first, one), (second, two)] = [counting(), counting()];
    let switch = || {
        tasklet(|| ());
        run();
    };
    set_schedule_callback(Some(one));
    switch();
    assert_eq!((first.get(), second.get()), (2, 0));
    set_schedule_callback(Some(two));
    switch();
    assert_eq!((first.get(), second.get()), (2, 2));
    set_schedule_callback(None);
    switch();
    assert_eq!((first.get(), second.get()), (2, 2));
}

/// SchedulingCallback.test2currentWithPrevAndNext: the callback runs on the stack of the one that goes on, which is
/// the current tasklet; that the one before it handles a panic is not seen there.
#[test]
fn the_current_tasklet_goes_on() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let theirs = seen.clone();
    set_schedule_callback(Some(Rc::new(move |previous, next| {
        assert!(next.is_current() && !previous.is_current());
        assert_eq!(current().id(), next.id());
        assert!(!std::thread::panicking());
        theirs.borrow_mut().push((previous.id().get(), next.id().get()));
    })));
    tasklet(|| {
        assert_eq!(panic_of(|| silent_panic("handled")), "handled");
        schedule();
    });
    schedule();
    run();
    set_schedule_callback(None);
    assert_eq!(*seen.borrow(), [(0, 1), (1, 0), (0, 1), (1, 0)]);
}

/// SchedulingCallback.testGetCallback: setting gives the one before; `None` clears.
#[test]
fn the_schedule_callback_can_be_had() {
    assert!(schedule_callback().is_none());
    let (_, callback) = counting();
    assert!(set_schedule_callback(Some(callback.clone())).is_none());
    assert!(Rc::ptr_eq(&schedule_callback().unwrap(), &callback));
    assert!(Rc::ptr_eq(&set_schedule_callback(None).unwrap(), &callback));
    assert!(schedule_callback().is_none());
}

/// test_defects.testExceptionInScheduleCallback: the switch happens, and the callback's panic goes where a panic that
/// nobody holds goes: to `run`.
#[test]
fn a_schedule_callback_that_panics() {
    let log = Log::default();
    log.two_turns("a");
    set_schedule_callback(Some(Rc::new(|_, _| silent_panic("callback"))));
    assert_eq!(panic_of(run), "callback");
    set_schedule_callback(None);
    run();
    log.assert("a0 a.");
}

/// own a channel callback that panics: as the schedule callback, its panic goes to `run`, and channels work on.
#[test]
fn a_channel_callback_that_panics() {
    let channel = Channel::new();
    let theirs = channel.clone();
    let sender = tasklet(move || theirs.send(7));
    set_channel_callback(Some(Rc::new(|_| silent_panic("callback"))));
    assert_eq!(panic_of(run), "callback");
    set_channel_callback(None);
    assert_eq!(channel.receive().unwrap(), 7);
    assert!(sender.join().unwrap().is_ok());
}

/// TestTracing.testTracing: the schedule callback can follow every tasklet of a program: here it counts their turns.
#[test]
fn turns_of_every_tasklet_can_be_counted() {
    let turns = Rc::new(RefCell::new(BTreeMap::<u64, usize>::new()));
    let theirs = turns.clone();
    set_schedule_callback(Some(Rc::new(move |_, next| {
        *theirs.borrow_mut().entry(next.id().get()).or_default() += 1;
    })));
    // A mutex made of a channel that holds one token.
    let mutex = Channel::with_capacity(1);
    mutex.send(()).unwrap();
    for _ in 0..3 {
        let mutex = mutex.clone();
        tasklet(move || {
            mutex.receive().unwrap();
            schedule();
            mutex.send(()).unwrap();
        });
    }
    run();
    set_schedule_callback(None);
    // Each has one turn to ask, one after its yield, and one more when it waited for the token. The first two have
    // another: their send runs the one that waited, and they come back after it.
    assert_eq!(*turns.borrow(), BTreeMap::from([(0, 1), (1, 3), (2, 4), (3, 3)]));
}

/// own the end of a tasklet is a switch: the callback is called with the one that ends and the next; a kill is a
/// switch there and back.
#[test]
fn ends_and_kills_are_switches() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let theirs = seen.clone();
    set_schedule_callback(Some(Rc::new(move |previous, next| {
        theirs.borrow_mut().push((previous.id().get(), next.id().get()));
    })));
    tasklet(|| ());
    let victim = tasklet(|| drop(Channel::<()>::new().receive()));
    run();
    assert_eq!(*seen.borrow(), [(0, 1), (1, 2), (2, 0)]);
    victim.kill().unwrap();
    set_schedule_callback(None);
    assert_eq!(*seen.borrow(), [(0, 1), (1, 2), (2, 0), (0, 2), (2, 0)]);
}

/// own without a switch no call: what comes back to its caller without a switch is not reported.
#[test]
fn no_switch_no_call() {
    let (count, callback) = counting();
    set_schedule_callback(Some(callback));
    schedule();
    run();
    current().run().unwrap();
    current().switch().unwrap();
    assert!(Channel::<()>::new().receive().is_err());
    set_schedule_callback(None);
    assert_eq!(count.get(), 0);
}

/// own the channel callback comes first: it is told also of operations that fail then, for the trap or a closed
/// channel, and before the balance changes.
#[test]
fn the_channel_callback_comes_first() {
    let (log, channel) = (Log::default(), Channel::new());
    let (logging, theirs, balances) = (logging(&log), channel.clone(), log.clone());
    set_channel_callback(Some(Rc::new(move |event| {
        logging(event);
        balances.add(theirs.balance().to_string());
    })));
    current().set_block_trap(true).unwrap();
    channel.send(1).unwrap_err();
    current().set_block_trap(false).unwrap();
    channel.close();
    channel.receive().unwrap_err();
    channel.open();
    let theirs = channel.clone();
    tasklet(move || theirs.send(1).is_ok());
    run();
    assert_eq!(channel.receive().unwrap(), 1);
    set_channel_callback(None);
    log.assert("send!#0 0 receive!#0 0 send!#1 0 receive#0 1");
}

/// own callbacks do not switch: inside one, what would switch is refused.
#[test]
fn callbacks_do_not_switch() {
    let log = Log::default();
    let theirs = log.clone();
    set_schedule_callback(Some(Rc::new(move |_, _| {
        let refused = Channel::<()>::new().receive().unwrap_err();
        let is_guard = matches!(refused, pila::ReceiveError::Refused(pila::Refused::NoSwitch(_)));
        theirs.add(is_guard.to_string());
    })));
    tasklet(|| ());
    run();
    set_schedule_callback(None);
    log.assert("true true");
}
