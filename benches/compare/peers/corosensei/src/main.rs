//! The floor: bare corosensei, resumed by a loop that knows who is next. No queue, no states, no timers, no sockets.
//!
//! Its own stacks have a guard page each, so that there are some 30,000 at most.

use std::{cell::Cell, collections::VecDeque, rc::Rc, time::Instant};

use corosensei::{Coroutine, Yielder, stack::DefaultStack};
use measure::{BATCH, Depth, Memory, Order, Work, answer_each, below_three_calls, unsupported};

/// As pila's tasklets have.
const STACK_SIZE: usize = 256 * 1024;

fn stack() -> DefaultStack {
    DefaultStack::new(STACK_SIZE).expect("so many fit into the mappings")
}

fn coroutine(body: impl FnOnce(&Yielder<(), ()>) + 'static) -> Coroutine<(), (), ()> {
    Coroutine::with_stack(stack(), |yielder, ()| body(yielder))
}

/// The closures of a batch lie boxed in a queue, then each runs in a coroutine of its own, on one stack.
fn spawn(tasks: u64) {
    let mut stack = Some(stack());
    let mut queue = VecDeque::<Box<dyn FnOnce()>>::with_capacity(BATCH as usize);
    let ran = Rc::new(Cell::new(0));
    let start = Instant::now();
    for _ in 0..tasks / BATCH {
        for _ in 0..BATCH {
            let ran = ran.clone();
            queue.push_back(Box::new(move || ran.set(ran.get() + 1)));
        }
        while let Some(job) = queue.pop_front() {
            stack = stack.take().map(|stack| {
                let mut coroutine =
                    Coroutine::<(), (), (), _>::with_stack(stack, move |_, ()| job());
                coroutine.resume(());
                coroutine.into_stack()
            });
        }
    }
    answer_each("ns", start.elapsed(), tasks);
    assert_eq!(ran.get(), tasks);
}

fn switch(
    tasks: usize,
    rounds: u64,
    order: Order,
    make_way: impl Fn(&Yielder<(), ()>) + Copy + 'static,
) {
    let mut coroutines: Vec<_> = (0..tasks)
        .map(|_| {
            coroutine(move |yielder| {
                yielder.suspend(());
                (0..rounds).for_each(|_| make_way(yielder));
            })
        })
        .collect();
    resume_all(&mut coroutines);
    let places = order.places(tasks);
    let start = Instant::now();
    for _ in 0..rounds {
        for &place in &places {
            coroutines[place].resume(());
        }
    }
    answer_each("ns", start.elapsed(), rounds * tasks as u64);
    finish(coroutines);
}

fn ring(tasks: usize, hops: u64, make_way: impl Fn(&Yielder<(), ()>) + Copy + 'static) {
    let rounds = hops / tasks as u64;
    let cells: Rc<[Cell<Option<u64>>]> = vec![Cell::new(None); tasks].into();
    let mut coroutines: Vec<_> = (0..tasks)
        .map(|place| {
            let cells = cells.clone();
            coroutine(move |yielder| {
                let (from, to) = (&cells[place], &cells[(place + 1) % tasks]);
                for _ in 0..rounds {
                    let value = from.take().expect("the one before has put it there");
                    to.set(Some(value + 1));
                    make_way(yielder);
                }
            })
        })
        .collect();
    cells[0].set(Some(0));
    let start = Instant::now();
    for _ in 0..rounds {
        resume_all(&mut coroutines);
    }
    let time = start.elapsed();
    assert_eq!(cells[0].get(), Some(rounds * tasks as u64));
    answer_each("ns", time, rounds * tasks as u64);
    finish(coroutines);
}

fn idle(tasks: usize) {
    let before = Memory::now();
    let start = Instant::now();
    let mut coroutines: Vec<_> =
        (0..tasks).map(|_| coroutine(|yielder| yielder.suspend(()))).collect();
    resume_all(&mut coroutines);
    answer_each("make", start.elapsed(), tasks as u64);
    before.answer_growth(tasks);
    let start = Instant::now();
    finish(coroutines);
    answer_each("end", start.elapsed(), tasks as u64);
}

fn resume_all(coroutines: &mut [Coroutine<(), (), ()>]) {
    for coroutine in coroutines {
        coroutine.resume(());
    }
}

/// Lets each return from its last suspend.
fn finish(coroutines: Vec<Coroutine<(), (), ()>>) {
    for mut coroutine in coroutines {
        coroutine.resume(());
        assert!(coroutine.done());
    }
}

fn main() {
    match Work::asked() {
        Work::Spawn { tasks } => spawn(tasks),
        Work::Switch { tasks, rounds, depth: Depth::Inlined, order } => {
            switch(tasks, rounds, order, |yielder| yielder.suspend(()));
        }
        Work::Switch { tasks, rounds, depth: Depth::Deep, order } => {
            switch(tasks, rounds, order, |yielder| below_three_calls(|| yielder.suspend(())));
        }
        Work::Ring { tasks, hops, depth: Depth::Inlined } => {
            ring(tasks, hops, |yielder| yielder.suspend(()));
        }
        Work::Ring { tasks, hops, depth: Depth::Deep } => {
            ring(tasks, hops, |yielder| below_three_calls(|| yielder.suspend(())));
        }
        Work::Idle { tasks } => idle(tasks),
        Work::Sleeps { .. } | Work::Timeouts { .. } | Work::Echo => unsupported(),
    }
}
