//! The matrix of the specification's section 4.2: who runs when the two sides of a channel meet.

use pila::{
    Channel,
    Preference::{self, Neither, Receiver, Sender},
    run, schedule, tasklet,
};

use crate::support::Log;

/// Who waits before the other side comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum First {
    Receiver,
    Sender,
}

const PREFERENCES: [Preference; 3] = [Receiver, Neither, Sender];

/// Sends 7. `start` is what it logs first.
fn sender(log: &Log, channel: &Channel<i32>, start: Option<&'static str>) {
    let (log, channel) = (log.clone(), channel.clone());
    tasklet(move || {
        start.into_iter().for_each(|start| log.add(start));
        channel.send(7).unwrap();
        log.add("S=None");
        schedule();
        log.add("S.");
    });
}

fn receiver(log: &Log, channel: &Channel<i32>, start: Option<&'static str>) {
    let (log, channel) = (log.clone(), channel.clone());
    tasklet(move || {
        start.into_iter().for_each(|start| log.add(start));
        log.add(format!("R={}", channel.receive().unwrap()));
        schedule();
        log.add("R.");
    });
}

fn channel(preference: Preference, schedule_all: bool) -> Channel<i32> {
    let channel = Channel::new();
    channel.set_preference(preference);
    channel.set_schedule_all(schedule_all);
    channel
}

/// The waiter blocked first, then in the ring x, the other side, y.
fn trace(preference: Preference, schedule_all: bool, first: First) -> String {
    let (log, channel) = (Log::default(), channel(preference, schedule_all));
    match first {
        First::Receiver => receiver(&log, &channel, None),
        First::Sender => sender(&log, &channel, None),
    }
    run();
    log.three_turns("x");
    match first {
        First::Receiver => sender(&log, &channel, Some("S>")),
        First::Sender => receiver(&log, &channel, Some("R>")),
    }
    log.three_turns("y");
    run();
    log.text()
}

/// Main performs the operation, with a and b in the ring and W waiting. Then everything runs to its end.
fn main_trace(preference: Preference, schedule_all: bool, first: First) -> String {
    let (log, channel) = (Log::default(), channel(preference, schedule_all));
    let (waiter, theirs) = (log.clone(), channel.clone());
    tasklet(move || {
        match first {
            First::Receiver => drop(theirs.receive().unwrap()),
            First::Sender => theirs.send(7).unwrap(),
        }
        waiter.add("W");
    });
    run();
    for name in ["a", "b"] {
        log.two_turns(name);
    }
    match first {
        First::Receiver => channel.send(7).unwrap(),
        First::Sender => assert_eq!(channel.receive().unwrap(), 7),
    }
    log.add("|");
    run();
    log.text()
}

/// matrix pref -1 receiver waiting: the receiver runs at once.
#[test]
fn receiver_waiting_prefer_receiver() {
    let trace = trace(Receiver, false, First::Receiver);
    assert_eq!(trace, "x0 S> R=7 y0 x1 S=None R. y1 x2 S. y2");
}

/// matrix pref -1 sender waiting: the receiver goes on.
#[test]
fn sender_waiting_prefer_receiver() {
    let trace = trace(Receiver, false, First::Sender);
    assert_eq!(trace, "x0 R> R=7 y0 x1 S=None R. y1 x2 S. y2");
}

/// matrix pref 0 receiver waiting: the sender goes on.
#[test]
fn receiver_waiting_prefer_neither() {
    let trace = trace(Neither, false, First::Receiver);
    assert_eq!(trace, "x0 S> S=None y0 x1 R=7 S. y1 x2 R. y2");
}

/// matrix pref 0 sender waiting: the receiver goes on.
#[test]
fn sender_waiting_prefer_neither() {
    let trace = trace(Neither, false, First::Sender);
    assert_eq!(trace, "x0 R> R=7 y0 x1 S=None R. y1 x2 S. y2");
}

/// matrix pref +1 receiver waiting: the sender goes on.
#[test]
fn receiver_waiting_prefer_sender() {
    let trace = trace(Sender, false, First::Receiver);
    assert_eq!(trace, "x0 S> S=None y0 x1 R=7 S. y1 x2 R. y2");
}

/// matrix pref +1 sender waiting: the sender runs at once.
#[test]
fn sender_waiting_prefer_sender() {
    let trace = trace(Sender, false, First::Sender);
    assert_eq!(trace, "x0 R> S=None y0 x1 R=7 S. y1 x2 R. y2");
}

/// matrix schedule_all receiver waiting: everyone runs before the sender goes on, whatever the preference.
#[test]
fn receiver_waiting_schedule_all() {
    for preference in PREFERENCES {
        let trace = trace(preference, true, First::Receiver);
        assert_eq!(trace, "x0 S> y0 x1 R=7 S=None y1 x2 R. S. y2", "{preference:?}");
    }
}

/// matrix schedule_all sender waiting: everyone runs before the receiver goes on, whatever the preference.
#[test]
fn sender_waiting_schedule_all() {
    for preference in PREFERENCES {
        let trace = trace(preference, true, First::Sender);
        assert_eq!(trace, "x0 R> y0 x1 S=None R=7 y1 x2 S. R. y2", "{preference:?}");
    }
}

/// matrix main sends with pref -1: W a0 b0, then main.
#[test]
fn main_sends_prefer_receiver() {
    assert_eq!(main_trace(Receiver, false, First::Receiver), "W a0 b0 | a. b.");
}

/// matrix main sends with pref 0 or +1: main goes on, then a b W.
#[test]
fn main_sends_prefer_neither_or_sender() {
    for preference in [Neither, Sender] {
        let trace = main_trace(preference, false, First::Receiver);
        assert_eq!(trace, "| a0 b0 W a. b.", "{preference:?}");
    }
}

/// matrix main receives with pref -1 or 0: main goes on, then a b W.
#[test]
fn main_receives_prefer_receiver_or_neither() {
    for preference in [Receiver, Neither] {
        let trace = main_trace(preference, false, First::Sender);
        assert_eq!(trace, "| a0 b0 W a. b.", "{preference:?}");
    }
}

/// matrix main receives with pref +1: W a0 b0, then main.
#[test]
fn main_receives_prefer_sender() {
    assert_eq!(main_trace(Sender, false, First::Sender), "W a0 b0 | a. b.");
}

/// matrix main with schedule_all: a0 b0 W, then main; either way and whatever the preference.
#[test]
fn main_schedule_all() {
    for preference in PREFERENCES {
        for first in [First::Receiver, First::Sender] {
            let trace = main_trace(preference, true, first);
            assert_eq!(trace, "a0 b0 W | a. b.", "{preference:?} {first:?}");
        }
    }
}

/// own schedule_all alone: without others in the ring, the one that waited runs.
#[test]
fn schedule_all_alone_runs_the_waiter() {
    for first in [First::Receiver, First::Sender] {
        let (log, channel) = (Log::default(), channel(Neither, true));
        let (waiter, theirs) = (log.clone(), channel.clone());
        tasklet(move || {
            match first {
                First::Receiver => drop(theirs.receive().unwrap()),
                First::Sender => theirs.send(7).unwrap(),
            }
            waiter.add("W");
        });
        run();
        match first {
            First::Receiver => channel.send(7).unwrap(),
            First::Sender => drop(channel.receive().unwrap()),
        }
        log.add("|");
        log.assert("W |");
    }
}
