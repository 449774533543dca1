//! Choosing among channels. The time is that of one value: sent on one of them, received by whoever waits for all.
//!
//! - `pila/select`: one tasklet sends on each of 2 or 8 channels in turn, the other waits in a `Select` over them. Two
//!   switches a value.
//! - `pila/receive`: the same through one channel, received plainly: what a choice costs is the difference.
//! - `corosensei`: the floor. Two coroutines and as many cells, in which the receiver looks for the value.
//!
//! ```text
//! cargo bench --bench select
//! ```

mod settings;
mod worker;

use std::{
    cell::{Cell, LazyCell},
    rc::Rc,
    time::{Duration, Instant},
};

use corosensei::{Coroutine, Yielder, stack::DefaultStack};
use criterion::BenchmarkId;
use pila::{Channel, Select};

use crate::{settings::in_rounds, worker::Worker};

const SIZES: [usize; 2] = [2, 8];
/// As pila's tasklets have.
const STACK_SIZE: usize = 256 * 1024;

/// A round sends one value on each channel; `receive` gets one from any of them.
fn rounds(
    size: usize,
    rounds: u64,
    receive: impl Fn(&[Channel<u64>]) -> u64 + 'static,
) -> Duration {
    let channels: Rc<[Channel<u64>]> = (0..size).map(|_| Channel::new()).collect();
    let values = rounds * size as u64;
    let theirs = channels.clone();
    let receiver = pila::tasklet(move || (0..values).map(|_| receive(&theirs)).sum::<u64>());
    let sender = pila::tasklet(move || {
        let start = Instant::now();
        for _ in 0..rounds {
            for channel in channels.iter() {
                channel.send(1).expect("the other receives");
            }
        }
        start.elapsed()
    });
    assert_eq!(receiver.join().expect("it does not panic"), values);
    sender.join().expect("it does not panic")
}

fn select(size: usize, count: u64) -> Duration {
    rounds(size, count, |channels| {
        let select = channels.iter().fold(Select::new(), |select, channel| {
            select.receive(channel, |value| value.expect("the other sends"))
        });
        select.wait()
    })
}

fn receive(size: usize, count: u64) -> Duration {
    rounds(1, count * size as u64, |channels| channels[0].receive().expect("the other sends"))
}

fn floor(size: usize, rounds: u64) -> Duration {
    let cells: Rc<[Cell<Option<u64>>]> = vec![Cell::new(None); size].into();
    let values = rounds * size as u64;
    let sum = Rc::new(Cell::new(0));
    let (theirs, total) = (cells.clone(), sum.clone());
    let mut receiver = coroutine(move |yielder| {
        for _ in 0..values {
            let value = theirs.iter().find_map(Cell::take).expect("the sender has put it there");
            total.set(total.get() + value);
            yielder.suspend(());
        }
    });
    let mut sender = coroutine(move |yielder| {
        for _ in 0..rounds {
            for cell in cells.iter() {
                cell.set(Some(1));
                yielder.suspend(());
            }
        }
    });
    let start = Instant::now();
    for _ in 0..values {
        sender.resume(());
        receiver.resume(());
    }
    let time = start.elapsed();
    assert_eq!(sum.get(), values);
    // Each returns from its last suspend.
    sender.resume(());
    receiver.resume(());
    time
}

fn coroutine(body: impl FnOnce(&Yielder<(), ()>) + 'static) -> Coroutine<(), (), ()> {
    let stack = DefaultStack::new(STACK_SIZE).expect("there is room for so few");
    Coroutine::with_stack(stack, |yielder, ()| body(yielder))
}

type Rounds = fn(usize, u64) -> Duration;

fn main() {
    let mut criterion = settings::criterion();
    let mut group = criterion.benchmark_group("select");
    let rows: [(_, Rounds); 3] =
        [("pila/select", select), ("pila/receive", receive), ("corosensei", floor)];
    for size in SIZES {
        for (row, rounds) in rows {
            let worker = LazyCell::new(|| Worker::start(move || move |n| rounds(size, n)));
            group.bench_function(BenchmarkId::new(row, size), |bencher| {
                bencher.iter_custom(|values| in_rounds(values, size, |n| worker.measure(n)));
            });
        }
    }
    group.finish();
    criterion.final_summary();
}
