//! Who runs next: the golden traces of Stackless, and the same trace every time.

use std::{cell::RefCell, rc::Rc};

use pila::{Channel, Tasklet};

/// What happened, in order.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    fn add(&self, event: impl Into<String>) {
        self.0.borrow_mut().push(event.into());
    }

    #[track_caller]
    fn assert(&self, expected: &str) {
        assert_eq!(self.0.borrow().join(" "), expected);
    }

    /// A tasklet that logs `a0`, yields, and logs `a.`.
    fn two_turns(&self, name: &'static str) -> Tasklet<()> {
        let log = self.clone();
        pila::tasklet(move || {
            log.add(format!("{name}0"));
            pila::schedule();
            log.add(format!("{name}."));
        })
    }

    /// A tasklet that logs `x0`, `x1` and `x2` with yields in between.
    fn three_turns(&self, name: &'static str) -> Tasklet<()> {
        let log = self.clone();
        pila::tasklet(move || {
            for turn in 0..3 {
                if turn > 0 {
                    pila::schedule();
                }
                log.add(format!("{name}{turn}"));
            }
        })
    }

    /// A tasklet that sends 7, as the matrix of the specification writes it. `start` is what it logs first.
    fn sender(&self, channel: &Channel<i32>, start: Option<&'static str>) -> Tasklet<()> {
        let (log, channel) = (self.clone(), channel.clone());
        pila::tasklet(move || {
            start.into_iter().for_each(|start| log.add(start));
            channel.send(7).unwrap();
            log.add("S=None");
            pila::schedule();
            log.add("S.");
        })
    }

    fn receiver(&self, channel: &Channel<i32>, start: Option<&'static str>) -> Tasklet<()> {
        let (log, channel) = (self.clone(), channel.clone());
        pila::tasklet(move || {
            start.into_iter().for_each(|start| log.add(start));
            log.add(format!("R={}", channel.receive().unwrap()));
            pila::schedule();
            log.add("R.");
        })
    }
}

#[test]
fn tasklets_take_turns_in_the_order_of_creation() {
    // G1
    let log = Log::default();
    for name in ["a", "b", "c"] {
        log.two_turns(name);
    }
    pila::run();
    log.assert("a0 b0 c0 a. b. c.");
}

#[test]
fn main_takes_its_turn_in_the_ring() {
    // G2
    let log = Log::default();
    for name in ["a", "b", "c"] {
        log.two_turns(name);
    }
    pila::schedule();
    log.add("|");
    pila::schedule();
    log.add("|");
    log.assert("a0 b0 c0 | a. b. c. |");
}

#[test]
fn a_run_of_one_in_the_queue_skips_those_before_it_this_round() {
    // G3
    let log = Log::default();
    let [_a, b, _c] = ["a", "b", "c"].map(|name| log.two_turns(name));
    b.run().unwrap();
    log.add("|");
    pila::run();
    log.assert("b0 c0 | a0 b. c. a.");
}

#[test]
fn a_run_of_a_paused_one_comes_back_to_the_caller_next() {
    // G4
    let log = Log::default();
    let [_a, b, _c] = ["a", "b", "c"].map(|name| log.two_turns(name));
    b.remove().unwrap();
    b.run().unwrap();
    log.add("|");
    pila::run();
    log.assert("b0 | a0 c0 b. a. c.");
}

#[test]
fn removed_and_inserted_goes_to_the_tail_once() {
    // G5
    let log = Log::default();
    let [a, _b, _c] = ["a", "b", "c"].map(|name| log.two_turns(name));
    a.remove().unwrap();
    a.insert().unwrap();
    a.insert().unwrap();
    assert_eq!(pila::run_count(), 4);
    pila::run();
    log.assert("b0 c0 a0 b. c. a.");
}

#[test]
fn a_tasklet_in_the_queue_keeps_its_place_when_inserted() {
    let log = Log::default();
    let [a, b, _c] = ["a", "b", "c"].map(|name| log.two_turns(name));
    b.insert().unwrap();
    a.insert().unwrap();
    pila::run();
    log.assert("a0 b0 c0 a. b. c.");
}

#[test]
fn a_removed_one_is_passed_over_and_goes_on_where_it_was() {
    let log = Log::default();
    let [_a, b, _c] = ["a", "b", "c"].map(|name| log.two_turns(name));
    pila::schedule();
    log.add("|");
    b.remove().unwrap();
    assert_eq!(pila::run().paused, 1);
    b.insert().unwrap();
    pila::run();
    log.assert("a0 b0 c0 | a. c. b.");
}

#[test]
fn a_new_tasklet_runs_before_its_creators_next_turn() {
    // G6
    let log = Log::default();
    let x = log.clone();
    pila::tasklet(move || {
        x.add("x0");
        let n = x.clone();
        pila::tasklet(move || n.add("n."));
        pila::schedule();
        x.add("x.");
    });
    for name in ["b", "c"] {
        log.two_turns(name);
    }
    pila::run();
    log.assert("x0 b0 c0 n. x. b. c.");
}

#[test]
fn a_bound_one_runs_after_all_that_were_there_when_it_was_inserted() {
    let log = Log::default();
    let b = log.clone();
    let bound = Tasklet::bind(move || b.add("bound"));
    log.two_turns("a");
    bound.insert().unwrap();
    log.two_turns("c");
    pila::run();
    log.assert("a0 bound c0 a. c.");
}

#[test]
fn a_sender_lets_a_waiting_receiver_run_at_once() {
    // The matrix of the specification, preference -1, receiver waiting.
    let (log, channel) = (Log::default(), Channel::new());
    log.receiver(&channel, None);
    pila::run();
    log.three_turns("x");
    log.sender(&channel, Some("S>"));
    log.three_turns("y");
    pila::run();
    log.assert("x0 S> R=7 y0 x1 S=None R. y1 x2 S. y2");
}

#[test]
fn a_receiver_takes_from_a_waiting_sender_and_runs_on() {
    // The matrix of the specification, preference -1, sender waiting.
    let (log, channel) = (Log::default(), Channel::new());
    log.sender(&channel, None);
    pila::run();
    log.three_turns("x");
    log.receiver(&channel, Some("R>"));
    log.three_turns("y");
    pila::run();
    log.assert("x0 R> R=7 y0 x1 S=None R. y1 x2 S. y2");
}

#[test]
fn main_that_sends_goes_on_after_a_full_round() {
    let (log, channel) = (Log::default(), Channel::new());
    let (waiter, theirs) = (log.clone(), channel.clone());
    pila::tasklet(move || {
        theirs.receive().unwrap();
        waiter.add("W");
    });
    pila::run();
    for name in ["a", "b"] {
        log.two_turns(name);
    }
    channel.send(7).unwrap();
    log.add("|");
    log.assert("W a0 b0 |");
}

#[test]
fn main_that_receives_goes_on_at_once_and_the_sender_goes_to_the_tail() {
    let (log, channel) = (Log::default(), Channel::new());
    let (waiter, theirs) = (log.clone(), channel.clone());
    pila::tasklet(move || {
        theirs.send(7).unwrap();
        waiter.add("W");
    });
    pila::run();
    for name in ["a", "b"] {
        log.two_turns(name);
    }
    channel.receive().unwrap();
    log.add("|");
    pila::run();
    log.assert("| a0 b0 W a. b.");
}

#[test]
fn a_joiner_is_woken_at_the_tail() {
    let log = Log::default();
    let target = log.two_turns("t");
    let joiner = log.clone();
    pila::tasklet(move || {
        target.join().unwrap();
        joiner.add("joined");
    });
    for name in ["a", "b"] {
        log.two_turns(name);
    }
    pila::run();
    log.assert("t0 a0 b0 t. a. b. joined");
}

#[test]
fn closing_wakes_receivers_in_the_order_they_came() {
    let (log, channel) = (Log::default(), Channel::<()>::new());
    for name in ["r1", "r2", "r3"] {
        let (log, channel) = (log.clone(), channel.clone());
        pila::tasklet(move || {
            channel.receive().unwrap_err();
            log.add(name);
        });
    }
    pila::run();
    channel.close();
    pila::run();
    log.assert("r1 r2 r3");
}

#[test]
fn the_same_program_gives_the_same_trace_1000_times() {
    let program = || {
        let (log, channel) = (Log::default(), Channel::new());
        log.receiver(&channel, Some("R>"));
        let tasklets = ["a", "b", "c"].map(|name| log.three_turns(name));
        log.sender(&channel, Some("S>"));
        pila::schedule();
        log.add("|");
        tasklets[1].remove().unwrap();
        pila::schedule();
        log.add("|");
        tasklets[1].insert().unwrap();
        let done = pila::run();
        log.add(done.to_string());
        log.0.take().join(" ")
    };
    let first = program();
    assert!(first.starts_with("R> a0 b0 c0 S> R=7 |"), "{first}");
    for _ in 1..1000 {
        assert_eq!(program(), first);
    }
}
