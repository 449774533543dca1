//! Tasklets that live through all samples of a row, so that making them is not in its time.
//!
//! Between two samples each of them is paused. A sample inserts them all, in the order of their turns, and times one
//! `pila::run()`, in which main has no turn: everything in that time is the tasklets' own work and the loop's.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use pila::Tasklet;

/// The tasklets, in the order of their turns.
pub(crate) struct Crew {
    tasklets: Vec<Tasklet<()>>,
    /// What each does when it is inserted; none is the end.
    rounds: Rc<Cell<u64>>,
}

impl Crew {
    /// As many tasklets as `order` has places. They are made, and get their stacks, in the order 0, 1, 2, …, and take
    /// turns in the given one. `work` does a number of rounds of the tasklet with its first argument as its place.
    pub(crate) fn new(order: &[usize], work: impl Fn(usize, u64) + Clone + 'static) -> Crew {
        let rounds = Rc::new(Cell::new(0));
        let mut tasklets: Vec<_> = (0..order.len())
            .map(|place| {
                let (rounds, work) = (rounds.clone(), work.clone());
                Some(pila::tasklet(move || {
                    loop {
                        pila::schedule_remove();
                        match rounds.get() {
                            0 => return,
                            rounds => work(place, rounds),
                        }
                    }
                }))
            })
            .collect();
        pila::run();
        let tasklets = order
            .iter()
            .map(|&place| tasklets[place].take().expect("an order names each place once"))
            .collect();
        Crew { tasklets, rounds }
    }

    /// The time all of them take for so many rounds each.
    pub(crate) fn run(&self, rounds: u64) -> Duration {
        self.rounds.set(rounds);
        for tasklet in &self.tasklets {
            tasklet.insert().expect("it is paused");
        }
        let start = Instant::now();
        pila::run();
        start.elapsed()
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.run(0);
    }
}
