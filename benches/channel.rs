//! Handing values over on channels. The time is that of one value: sent and received.
//!
//! - `ring/2` is ping-pong: two tasklets, each sending what it received to the other. `ring/1000` hands one value round
//!   a thousand tasklets. Both take one switch a value.
//! - `one-to-many/1000`: one tasklet sends, a thousand wait in line to receive. Two switches a value.
//! - `corosensei`: the floor. Coroutines that hand the value on through cells and suspend at the same depth, resumed by a
//!   bare loop: no line of waiters, no queue. `pila::Channel`'s calls and the floor's suspend are either inlined into
//!   the body, as far as the compiler does that, or below three calls.
//!
//! ```text
//! cargo bench --bench channel
//! ```

mod depth;
mod settings;
mod worker;

use std::{
    cell::{Cell, LazyCell},
    rc::Rc,
    time::{Duration, Instant},
};

use corosensei::{Coroutine, Yielder, stack::DefaultStack};
use criterion::{BenchmarkId, Criterion};
use pila::Channel;

use crate::{
    depth::{Depth, Inlined, ThreeCalls},
    settings::in_rounds,
    worker::Worker,
};

const RING_SIZES: [usize; 2] = [2, 1_000];
const RECEIVERS: usize = 1_000;
/// As pila's tasklets have.
const STACK_SIZE: usize = 256 * 1024;

fn channels(count: usize) -> Rc<[Channel<u64>]> {
    (0..count).map(|_| Channel::new()).collect()
}

/// A round hands one value round the ring.
fn ring<D: Depth>(size: usize, rounds: u64) -> Duration {
    let channels = channels(size);
    for place in 1..size {
        let (from, to) = (channels[place].clone(), channels[(place + 1) % size].clone());
        pila::tasklet(move || {
            while let Ok(value) = D::call(|| from.receive()) {
                D::call(|| to.send(value + 1)).expect("the next one receives");
            }
        });
    }
    let time = pila::tasklet(move || {
        let (from, to) = (&channels[0], &channels[1]);
        let mut value = 0;
        let start = Instant::now();
        for _ in 0..rounds {
            D::call(|| to.send(value)).expect("the next one receives");
            value = D::call(|| from.receive()).expect("the one before sends") + 1;
        }
        let time = start.elapsed();
        assert_eq!(value, rounds * size as u64);
        channels.iter().for_each(Channel::close);
        time
    });
    pila::run();
    time.join().expect("it does not panic")
}

fn ring_floor<D: Depth>(size: usize, rounds: u64) -> Duration {
    let cells: Rc<[Cell<Option<u64>>]> = vec![Cell::new(None); size].into();
    let mut coroutines: Vec<_> = (0..size)
        .map(|place| {
            let cells = cells.clone();
            coroutine(move |yielder| {
                let (from, to) = (&cells[place], &cells[(place + 1) % size]);
                for _ in 0..rounds {
                    let value = from.take().expect("the one before has put it there");
                    to.set(Some(value + 1));
                    D::call(|| yielder.suspend(()));
                }
            })
        })
        .collect();
    cells[0].set(Some(0));
    let start = Instant::now();
    for _ in 0..rounds {
        for coroutine in &mut coroutines {
            coroutine.resume(());
        }
    }
    let time = start.elapsed();
    assert_eq!(cells[0].get(), Some(rounds * size as u64));
    finish(coroutines);
    time
}

/// A round gives every receiver one value.
fn one_to_many<D: Depth>(receivers: usize, rounds: u64) -> Duration {
    let channel = Channel::new();
    let sum = Rc::new(Cell::new(0));
    for _ in 0..receivers {
        let (channel, sum) = (channel.clone(), sum.clone());
        pila::tasklet(move || {
            while let Ok(value) = D::call(|| channel.receive()) {
                sum.set(sum.get() + value);
            }
        });
    }
    let values = rounds * receivers as u64;
    let time = pila::tasklet(move || {
        let start = Instant::now();
        for _ in 0..values {
            D::call(|| channel.send(1)).expect("someone receives");
        }
        let time = start.elapsed();
        channel.close();
        time
    });
    pila::run();
    assert_eq!(sum.get(), values);
    time.join().expect("it does not panic")
}

fn one_to_many_floor<D: Depth>(receivers: usize, rounds: u64) -> Duration {
    let cell = Rc::new(Cell::new(None));
    let sum = Rc::new(Cell::new(0));
    let mut coroutines: Vec<_> = (0..receivers)
        .map(|_| {
            let (cell, sum) = (cell.clone(), sum.clone());
            coroutine(move |yielder| {
                for _ in 0..rounds {
                    let value: u64 = cell.take().expect("the sender has put it there");
                    sum.set(sum.get() + value);
                    D::call(|| yielder.suspend(()));
                }
            })
        })
        .collect();
    let values = rounds * receivers as u64;
    let mut sender = coroutine(move |yielder| {
        for _ in 0..values {
            cell.set(Some(1));
            D::call(|| yielder.suspend(()));
        }
    });
    let start = Instant::now();
    for _ in 0..rounds {
        for receiver in &mut coroutines {
            sender.resume(());
            receiver.resume(());
        }
    }
    let time = start.elapsed();
    assert_eq!(sum.get(), values);
    coroutines.push(sender);
    finish(coroutines);
    time
}

fn coroutine(body: impl FnOnce(&Yielder<(), ()>) + 'static) -> Coroutine<(), (), ()> {
    let stack = DefaultStack::new(STACK_SIZE).expect("there is room for so few");
    Coroutine::with_stack(stack, |yielder, ()| body(yielder))
}

/// Lets each return from its last suspend.
fn finish(coroutines: Vec<Coroutine<(), (), ()>>) {
    for mut coroutine in coroutines {
        coroutine.resume(());
        assert!(coroutine.done());
    }
}

type Rounds = fn(usize, u64) -> Duration;

fn rows(criterion: &mut Criterion, name: &str, sizes: &[usize], rows: [(&str, Rounds); 2]) {
    let mut group = criterion.benchmark_group(name);
    for &size in sizes {
        for (row, rounds) in rows {
            let worker = LazyCell::new(|| Worker::start(move || move |n| rounds(size, n)));
            group.bench_function(BenchmarkId::new(row, size), |bencher| {
                bencher.iter_custom(|values| in_rounds(values, size, |n| worker.measure(n)));
            });
        }
    }
    group.finish();
}

fn channel<D: Depth>(criterion: &mut Criterion) {
    let ring: [(_, Rounds); 2] = [("pila", ring::<D>), ("corosensei", ring_floor::<D>)];
    rows(criterion, &format!("channel/ring/{}", D::NAME), &RING_SIZES, ring);
    let many: [(_, Rounds); 2] =
        [("pila", one_to_many::<D>), ("corosensei", one_to_many_floor::<D>)];
    rows(criterion, &format!("channel/one-to-many/{}", D::NAME), &[RECEIVERS], many);
}

fn main() {
    let mut criterion = settings::criterion();
    channel::<Inlined>(&mut criterion);
    channel::<ThreeCalls>(&mut criterion);
    criterion.final_summary();
}
