//! A circuit is simulated: every gate is a tasklet, wires are channels, and a gate's delay is a sleep.
//!
//!     cargo run --release --example digital_circuit [X Y]
//!
//! The clock is virtual: when all gates wait, it jumps to the next change, and when none is left, `run` returns. Here
//! 7 + 9 settles in a four-bit adder, while the carry ripples through it from right to left:
//!
//!      0 ns  00000
//!     10 ns  00000
//!     20 ns  01110
//!     30 ns  01100
//!     40 ns  01100
//!     50 ns  01000
//!     60 ns  01000
//!     70 ns  00000
//!     80 ns  10000
//!     90 ns  10000
//!     7 + 9 = 16

use std::{
    cell::{Cell, RefCell},
    env,
    rc::Rc,
    time::Duration,
};

use pila::{Channel, ReceiveError, Select, driver};

const DELAY: Duration = Duration::from_nanos(10);

#[derive(Default)]
struct Wire {
    level: Cell<bool>,
    listeners: RefCell<Vec<Channel<bool>>>,
}

impl Wire {
    fn listen(&self) -> Channel<bool> {
        let channel = Channel::new();
        self.listeners.borrow_mut().push(channel.clone());
        channel
    }

    fn set(&self, level: bool) {
        self.level.set(level);
        let listeners = self.listeners.borrow().clone(); // no borrow may last while others run
        listeners.iter().for_each(|listener| listener.send(level).unwrap());
    }
}

/// A gate, as the wire it sets. Each change is under way in a tasklet of its own.
fn gate(left: &Wire, right: &Wire, logic: fn(bool, bool) -> bool) -> Rc<Wire> {
    let (output, left, right) = (Rc::<Wire>::default(), left.listen(), right.listen());
    let wire = output.clone();
    pila::tasklet(move || -> Result<(), ReceiveError> {
        let (mut a, mut b, mut level) = (false, false, false);
        loop {
            (a, b) = Select::new()
                .receive(&left, |left| left.map(|left| (left, b)))
                .receive(&right, |right| right.map(|right| (a, right)))
                .wait()?;
            if logic(a, b) != level {
                level = !level;
                let wire = wire.clone();
                pila::tasklet(move || {
                    pila::sleep(DELAY);
                    wire.set(level);
                });
            }
        }
    });
    output
}

/// The sum and the carry of three bits.
fn full_adder(a: &Wire, b: &Wire, carry: &Wire) -> (Rc<Wire>, Rc<Wire>) {
    let half = gate(a, b, |a, b| a ^ b);
    let carries = [gate(a, b, |a, b| a & b), gate(&half, carry, |a, b| a & b)];
    (gate(&half, carry, |a, b| a ^ b), gate(&carries[0], &carries[1], |a, b| a | b))
}

fn main() -> Result<(), driver::AlreadyInstalled> {
    driver::install(Box::new(driver::VirtualClock::new()))?;
    let (a, b): ([Wire; 4], [Wire; 4]) = Default::default();
    let (mut sum, mut carry) = (Vec::new(), Rc::<Wire>::default());
    for (a, b) in a.iter().zip(&b) {
        let (bit, next) = full_adder(a, b, &carry);
        sum.push(bit);
        carry = next;
    }
    sum.push(carry);
    let shown = || sum.iter().rev().fold(0, |sum, wire| sum << 1 | usize::from(wire.level.get()));

    let mut numbers =
        env::args().skip(1).map(|word| word.parse().expect("the arguments are numbers"));
    let (x, y): (usize, usize) = (numbers.next().unwrap_or(7), numbers.next().unwrap_or(9));
    for bit in 0..4 {
        a[bit].set(x >> bit & 1 == 1);
        b[bit].set(y >> bit & 1 == 1);
    }
    for time in (0..100).step_by(10) {
        pila::sleep(DELAY / 2); // read between the changes
        println!("{time:>2} ns  {:05b}", shown());
        pila::sleep(DELAY / 2);
    }
    pila::run();
    println!("{x} + {y} = {}", shown());
    Ok(())
}
