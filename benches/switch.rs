//! Switching between tasklets that do nothing but yield. The time is that of one switch: from one tasklet to the next.
//!
//! - `pila`: 2 to 100,000 tasklets, each yielding with `pila::schedule()`. Rows vary in where that call is made
//!   (inlined into the tasklet's body, or below three calls) and in whether the tasklets take turns in the order they
//!   were made, which is that of their stacks in memory, or in a random one. A look outside every 61 switches is
//!   part of it.
//! - `corosensei`: the floor. A bare loop resumes as many coroutines, in the same order, each suspending at the same
//!   depth: no queue, no states, no look outside. Their stacks are corosensei's own, each a mapping with its top at a
//!   page's end, where pila staggers the tops; so with 1,000 and more the floor is one of instructions, no longer of
//!   memory, and pila may lie below it. At the usual `vm.max_map_count` there can be no more than 32,000 of
//!   them, so its last row has 30,000.
//!
//! ```text
//! cargo bench --bench switch
//! ```

mod crew;
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

use crate::{
    crew::Crew,
    depth::{Depth, Inlined, ThreeCalls},
    settings::in_rounds,
    worker::Worker,
};

const SIZES: [usize; 5] = [2, 100, 1_000, 10_000, 100_000];
/// What fits under the usual `vm.max_map_count` at two mappings a stack.
const MOST_COROUTINES: usize = 30_000;
/// As pila's tasklets have.
const STACK_SIZE: usize = 256 * 1024;

/// In which order they take turns.
#[derive(Clone, Copy)]
enum Order {
    /// That in which they were made.
    Creation,
    /// A random one, the same in every run.
    Random,
}

impl Order {
    const ALL: [(Order, &str); 2] =
        [(Order::Creation, "creation-order"), (Order::Random, "random-order")];

    fn of(self, size: usize) -> Vec<usize> {
        let mut order: Vec<_> = (0..size).collect();
        if let Order::Random = self {
            let mut random = 0x2545_f491_4f6c_dd1d_u64;
            for place in (1..size).rev() {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                order.swap(place, (random % (place as u64 + 1)) as usize);
            }
        }
        order
    }
}

/// A round is one switch of each. The first in the ring takes the time, between two turns of its own: in between lie
/// whole rounds and nothing else.
fn tasklets<D: Depth>(size: usize, order: Order) -> impl FnMut(u64) -> Duration {
    let order = order.of(size);
    let (first, time) = (order[0], Rc::new(Cell::new(Duration::ZERO)));
    let taken = time.clone();
    let crew = Crew::new(&order, move |place, rounds| {
        let start = (place == first).then(Instant::now);
        for _ in 0..rounds {
            D::call(pila::schedule);
        }
        if let Some(start) = start {
            taken.set(start.elapsed());
        }
    });
    move |rounds| {
        crew.run(rounds);
        time.get()
    }
}

/// Coroutines that do the same.
struct Coroutines {
    /// In the order in which they were made.
    coroutines: Vec<Coroutine<(), (), ()>>,
    /// That of their turns.
    order: Vec<usize>,
    /// How often each suspends before it asks again; none is the end.
    suspends: Rc<Cell<u64>>,
}

impl Coroutines {
    fn new<D: Depth>(order: Vec<usize>) -> Coroutines {
        let suspends = Rc::new(Cell::new(0));
        let coroutines = order
            .iter()
            .map(|_| {
                let suspends = suspends.clone();
                let body = move |yielder: &Yielder<(), ()>, ()| {
                    loop {
                        yielder.suspend(());
                        match suspends.get() {
                            0 => return,
                            suspends => {
                                for _ in 0..suspends {
                                    D::call(|| yielder.suspend(()));
                                }
                            }
                        }
                    }
                };
                let stack = DefaultStack::new(STACK_SIZE).expect("so many fit into the mappings");
                Coroutine::with_stack(stack, body)
            })
            .collect();
        let mut coroutines = Coroutines { coroutines, order, suspends };
        coroutines.round();
        coroutines
    }

    fn round(&mut self) {
        for &place in &self.order {
            self.coroutines[place].resume(());
        }
    }

    fn run(&mut self, rounds: u64) -> Duration {
        self.suspends.set(rounds);
        let start = Instant::now();
        for _ in 0..rounds {
            self.round();
        }
        let time = start.elapsed();
        self.round();
        time
    }
}

impl Drop for Coroutines {
    fn drop(&mut self) {
        self.suspends.set(0);
        self.round();
    }
}

fn coroutines<D: Depth>(size: usize, order: Order) -> impl FnMut(u64) -> Duration {
    let mut coroutines = Coroutines::new::<D>(order.of(size));
    move |rounds| coroutines.run(rounds)
}

fn switch<D: Depth>(criterion: &mut Criterion) {
    for (order, name) in Order::ALL {
        let mut group = criterion.benchmark_group(format!("switch/{}/{name}", D::NAME));
        for size in SIZES {
            let pila = LazyCell::new(|| Worker::start(move || tasklets::<D>(size, order)));
            group.bench_function(BenchmarkId::new("pila", size), |bencher| {
                bencher.iter_custom(|switches| in_rounds(switches, size, |n| pila.measure(n)));
            });
            drop(pila);

            let size = size.min(MOST_COROUTINES);
            let floor = LazyCell::new(|| Worker::start(move || coroutines::<D>(size, order)));
            group.bench_function(BenchmarkId::new("corosensei", size), |bencher| {
                bencher.iter_custom(|switches| in_rounds(switches, size, |n| floor.measure(n)));
            });
        }
        group.finish();
    }
}

fn main() {
    let mut criterion = settings::criterion();
    switch::<Inlined>(&mut criterion);
    switch::<ThreeCalls>(&mut criterion);
    criterion.final_summary();
}
