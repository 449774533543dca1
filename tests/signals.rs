//! Signals of the system: who gets them, what becomes of those that nobody wants, and that none is lost.

use std::{io::ErrorKind, os::unix::process::ExitStatusExt, process::exit, thread};

use child::{Child, role, say};
use pila::{Channel, ReceiveError, Select, Signal, Signals};
use rustix::process::{self, getpid, kill_process};
use system::{PATIENCE, alone, bounded};

mod child;
mod system;

/// Sends a signal to this process.
fn raise(signal: Signal) {
    let signal = process::Signal::from_named_raw(signal.number()).expect("it has a name");
    kill_process(getpid(), signal).unwrap();
}

/// Sends a signal to this process and returns when all that listen now, of those that the test made, have been told.
fn raise_and_wait(signal: Signal) {
    thread::spawn(move || {
        // Whoever listens last is told last.
        let last = pila::signals([signal]).unwrap();
        raise(signal);
        assert_eq!(last.receive().unwrap(), signal);
    })
    .join()
    .unwrap();
}

fn nothing_came(signals: &Signals) -> bool {
    matches!(signals.try_receive(), Err(ReceiveError::Timeout))
}

#[test]
fn a_signal_wakes_an_idle_thread_whose_wait_is_no_deadlock() {
    const NAME: &str = "a_signal_wakes_an_idle_thread_whose_wait_is_no_deadlock";
    match role().as_deref() {
        None => {
            let _alone = alone();
            for (role, signal) in [
                ("idle", process::Signal::TERM),
                ("idle", process::Signal::INT),
                ("polling", process::Signal::TERM),
                ("polling", process::Signal::INT),
            ] {
                let child = Child::of(NAME, role);
                assert_eq!(child.line(), "ready");
                child.send(signal);
                let expected = if signal == process::Signal::INT { "SIGINT" } else { "SIGTERM" };
                assert_eq!(child.line(), expected);
                let end = child.end(PATIENCE);
                assert_eq!(end.status.code(), Some(7), "{end:?}");
            }
        }
        Some(role) => {
            let signals = pila::signals([Signal::INTERRUPT, Signal::TERMINATE]).unwrap();
            if role == "polling" {
                let listener = pila::net::TcpListener::bind("127.0.0.1:0").unwrap();
                pila::tasklet(move || listener.accept());
                pila::schedule();
            }
            say("ready");
            say(&signals.receive().unwrap().to_string());
            exit(7);
        }
    }
}

#[test]
fn what_comes_before_receive_is_not_lost() {
    let _alone = alone();
    bounded(PATIENCE, || {
        let all = [Signal::HANGUP, Signal::USER1, Signal::USER2, Signal::WINDOW_CHANGE];
        for round in 0..50 {
            let signals = pila::signals(all).unwrap();
            all.into_iter().cycle().skip(round).take(all.len()).for_each(raise);
            let mut got: Vec<Signal> = signals.iter().take(all.len()).collect();
            got.sort();
            assert_eq!(got, all);
            assert!(nothing_came(&signals));
        }
    });
}

#[test]
fn every_listener_on_every_thread_gets_each_signal() {
    let _alone = alone();
    bounded(PATIENCE, || {
        let (ready, are_ready) = pila::thread_queue(8);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let ready = ready.clone();
                let listen = move || {
                    let both = pila::signals([Signal::USER1, Signal::USER2]).unwrap();
                    let one = pila::signals([Signal::USER2]).unwrap();
                    ready.send(()).unwrap();
                    let first = both.receive().unwrap();
                    ready.send(()).unwrap();
                    (first, both.receive().unwrap(), one.receive().unwrap(), nothing_came(&one))
                };
                pila::spawn_thread(listen).unwrap()
            })
            .collect();
        are_ready.iter().take(4).for_each(drop);
        raise(Signal::USER1);
        are_ready.iter().take(4).for_each(drop);
        raise(Signal::USER2);
        for thread in threads {
            let expected = (Signal::USER1, Signal::USER2, Signal::USER2, true);
            assert_eq!(thread.join().unwrap(), expected);
        }
    });
}

#[test]
fn a_signal_that_comes_again_before_it_is_received_counts_once() {
    let _alone = alone();
    bounded(PATIENCE, || {
        let signals = pila::signals([Signal::USER1, Signal::USER2]).unwrap();
        for _ in 0..100 {
            raise_and_wait(Signal::USER1);
        }
        raise_and_wait(Signal::USER2);
        assert_eq!(signals.receive().unwrap(), Signal::USER1);
        raise_and_wait(Signal::USER1);
        assert_eq!(signals.iter().take(2).collect::<Vec<_>>(), [Signal::USER2, Signal::USER1]);
        assert!(nothing_came(&signals));
    });
}

#[test]
fn a_killed_waiter_leaves_its_signal_to_the_next() {
    let _alone = alone();
    bounded(PATIENCE, || {
        let signals = std::rc::Rc::new(pila::signals([Signal::USER1]).unwrap());
        let theirs = signals.clone();
        let waiter = pila::tasklet(move || theirs.receive().unwrap());
        pila::schedule();
        raise_and_wait(Signal::USER1);
        waiter.kill().unwrap();
        assert!(waiter.join().is_err());
        assert_eq!(signals.receive().unwrap(), Signal::USER1);
    });
}

#[test]
fn what_cannot_be_received_is_an_error_that_says_why() {
    for number in [4, 7, 8, 9, 11, 19] {
        let signal = Signal::from_number(number).unwrap();
        let error = pila::signals([Signal::USER1, signal]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let message = error.to_string();
        assert!(message.starts_with(&format!("{signal} cannot be received: ")), "{message}");
        assert!(message.ends_with("; leave it out"), "{message}");
    }
    assert_eq!(pila::signals([]).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(Signal::from_number(40), None);
}

#[test]
fn ctrl_c_ends_the_process_again_when_nobody_listens_any_more() {
    const NAME: &str = "ctrl_c_ends_the_process_again_when_nobody_listens_any_more";
    match role().as_deref() {
        None => {
            let _alone = alone();
            for role in ["dropped", "dropped with its channel", "thread ended"] {
                let child = Child::of(NAME, role);
                assert_eq!(child.line(), "ready");
                child.send(process::Signal::INT);
                let end = child.end(PATIENCE);
                assert_eq!(end.status.signal(), Some(2), "{role}: {end:?}");
            }
        }
        Some("dropped") => {
            let signals = pila::signals([Signal::INTERRUPT]).unwrap();
            let others = pila::signals([Signal::INTERRUPT]).unwrap();
            raise(Signal::INTERRUPT);
            assert_eq!(signals.receive().unwrap(), Signal::INTERRUPT);
            drop(signals);
            raise(Signal::INTERRUPT);
            assert_eq!(others.receive().unwrap(), Signal::INTERRUPT);
            drop(others);
            say("ready");
            pila::sleep(PATIENCE);
        }
        Some("dropped with its channel") => {
            let signals = pila::signals([Signal::INTERRUPT]).unwrap();
            let _ = signals.channel();
            // Now the one that feeds it waits for a signal, and is not going to have another turn.
            pila::schedule();
            drop(signals);
            say("ready");
            loop {
                std::hint::spin_loop();
            }
        }
        Some(_) => {
            let leave_behind = || {
                let signals = pila::signals([Signal::INTERRUPT]).unwrap();
                pila::tasklet(move || signals.receive());
                pila::schedule();
            };
            thread::spawn(leave_behind).join().unwrap();
            say("ready");
            pila::sleep(PATIENCE);
        }
    }
}

#[test]
fn a_signal_that_was_ignored_before_is_ignored_again() {
    const NAME: &str = "a_signal_that_was_ignored_before_is_ignored_again";
    if role().is_none() {
        let _alone = alone();
        let child = Child::of(NAME, "child");
        assert_eq!(child.line(), "alive");
        assert_eq!(child.end(PATIENCE).status.code(), Some(7));
        return;
    }
    // Every Rust program ignores it.
    let pipe = Signal::from_number(13).unwrap();
    let signals = pila::signals([pipe, Signal::USER1]).unwrap();
    raise(pipe);
    assert_eq!(signals.receive().unwrap(), pipe);
    drop(signals);
    let others = pila::signals([Signal::USER1]).unwrap();
    raise(pipe);
    // Of what comes at once the herald tells the lower numbers first: after the second it is done with the other.
    for _ in 0..2 {
        raise(Signal::USER1);
        assert_eq!(others.receive().unwrap(), Signal::USER1);
    }
    say("alive");
    exit(7);
}

#[test]
fn a_select_waits_for_signals_among_others() {
    let _alone = alone();
    bounded(PATIENCE, || {
        let signals = pila::signals([Signal::USER1, Signal::USER2]).unwrap();
        let numbers = Channel::<u32>::new();
        let next = |signals: &Signals| {
            Select::new()
                .receive(signals.channel(), |signal| signal.unwrap().to_string())
                .receive(&numbers, |number| number.unwrap().to_string())
                .wait()
        };
        raise(Signal::USER1);
        assert_eq!(next(&signals), "SIGUSR1");
        let theirs = numbers.clone();
        pila::tasklet(move || theirs.send(1));
        assert_eq!(next(&signals), "1");
        raise_and_wait(Signal::USER2);
        assert_eq!(signals.receive().unwrap(), Signal::USER2);
        // The one that feeds the channel can be lost, and comes again.
        assert!(pila::kill_all().is_empty());
        raise_and_wait(Signal::USER1);
        assert_eq!(signals.try_receive().unwrap(), Signal::USER1);
        raise(Signal::USER2);
        assert_eq!(next(&signals), "SIGUSR2");
        // One that nobody takes holds nobody up.
        raise_and_wait(Signal::USER1);
        pila::schedule();
        drop(signals);
        let summary = pila::run();
        assert_eq!((summary.blocked, summary.paused), (0, 0));
    });
}
