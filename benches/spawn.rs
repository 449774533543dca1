//! Making tasklets that run and end at once. The time is that of one: made, run, ended.
//!
//! - `pila`: batches of 1,000 and of 1,000,000, all made before the first runs. `detached` drops the handles; `joined`
//!   keeps them, and joins each.
//! - `corosensei`: the floor. The closures of a batch lie boxed in a queue, then each runs in a coroutine of its own on
//!   one stack, which is used again and again. With `joined`, the box is shared and also holds the result.
//!
//! ```text
//! cargo bench --bench spawn
//! ```

mod settings;
mod worker;

use std::{
    cell::{Cell, LazyCell},
    collections::VecDeque,
    hint::black_box,
    rc::Rc,
    time::{Duration, Instant},
};

use corosensei::{Coroutine, stack::DefaultStack};
use criterion::{BenchmarkId, Criterion};

use crate::{settings::in_rounds, worker::Worker};

const SIZES: [usize; 2] = [1_000, 1_000_000];
/// As pila's tasklets have.
const STACK_SIZE: usize = 256 * 1024;

/// The time of `batches` calls of `batch`.
fn time<T>(batches: u64, mut batch: impl FnMut() -> T) -> Duration {
    let start = Instant::now();
    for _ in 0..batches {
        batch();
    }
    start.elapsed()
}

fn detached(size: usize, batches: u64) -> Duration {
    time(batches, || {
        for number in 0..size {
            pila::tasklet(move || {
                black_box(number);
            });
        }
        assert_eq!(pila::run().finished, size);
    })
}

fn joined(size: usize, batches: u64) -> Duration {
    let mut tasklets = Vec::with_capacity(size);
    time(batches, || {
        tasklets.extend((0..size).map(|number| pila::tasklet(move || black_box(number))));
        for tasklet in tasklets.drain(..) {
            black_box(tasklet.join().expect("it does not panic"));
        }
    })
}

/// Runs `job` in a coroutine of its own and gives the stack back.
fn run_on(stack: DefaultStack, job: impl FnOnce() + 'static) -> DefaultStack {
    let mut coroutine = Coroutine::<(), (), (), _>::with_stack(stack, move |_, ()| job());
    coroutine.resume(());
    coroutine.into_stack()
}

fn detached_floor(size: usize, batches: u64) -> Duration {
    let mut stack = DefaultStack::new(STACK_SIZE).ok();
    let mut queue = VecDeque::<Box<dyn FnOnce()>>::with_capacity(size);
    time(batches, || {
        for number in 0..size {
            queue.push_back(Box::new(move || {
                black_box(number);
            }));
        }
        while let Some(job) = queue.pop_front() {
            stack = stack.take().map(|stack| run_on(stack, job));
        }
    })
}

/// What a joined coroutine works on.
struct Packet {
    number: usize,
    result: Cell<Option<usize>>,
}

fn joined_floor(size: usize, batches: u64) -> Duration {
    let mut stack = DefaultStack::new(STACK_SIZE).ok();
    let mut queue = VecDeque::<Rc<Packet>>::with_capacity(size);
    let mut packets = Vec::with_capacity(size);
    time(batches, || {
        for number in 0..size {
            let packet = Rc::new(Packet { number, result: Cell::new(None) });
            queue.push_back(packet.clone());
            packets.push(packet);
        }
        while let Some(packet) = queue.pop_front() {
            let job = move || packet.result.set(Some(black_box(packet.number)));
            stack = stack.take().map(|stack| run_on(stack, job));
        }
        for packet in packets.drain(..) {
            black_box(packet.result.take().expect("it has run"));
        }
    })
}

type Batches = fn(usize, u64) -> Duration;

fn main() {
    let mut criterion = settings::criterion();
    spawn(&mut criterion, "spawn/detached", [("pila", detached), ("corosensei", detached_floor)]);
    spawn(&mut criterion, "spawn/joined", [("pila", joined), ("corosensei", joined_floor)]);
    criterion.final_summary();
}

fn spawn(criterion: &mut Criterion, name: &str, rows: [(&str, Batches); 2]) {
    let mut group = criterion.benchmark_group(name);
    for size in SIZES {
        for (row, batches) in rows {
            let worker = LazyCell::new(|| Worker::start(move || move |n| batches(size, n)));
            group.bench_function(BenchmarkId::new(row, size), |bencher| {
                bencher.iter_custom(|tasklets| in_rounds(tasklets, size, |n| worker.measure(n)));
            });
        }
    }
    group.finish();
}
