//! The work on may, with one worker. Each stack has a guard page, so that there are some 30,000 at most.

use std::{
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use may::{
    coroutine::{self, JoinHandle, yield_now},
    net::TcpListener,
    sync::{Semphore, SyncFlag, mpsc},
};
use measure::{
    BATCH, BUFFER, Depth, Memory, NAPS, Order, Random, Work, answer, answer_each,
    below_three_calls, unsupported, worked,
};

fn spawn(body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    // SAFETY: what `body` does needs no more stack than there is, and it has no thread-locals.
    unsafe { coroutine::spawn(body) }
}

fn spawn_and_finish(tasks: u64) {
    let start = Instant::now();
    let shared = Arc::new((AtomicUsize::new(0), Semphore::new(0)));
    for _ in 0..tasks / BATCH {
        shared.0.store(BATCH as usize, Relaxed);
        for _ in 0..BATCH {
            let shared = shared.clone();
            spawn(move || {
                if shared.0.fetch_sub(1, Relaxed) == 1 {
                    shared.1.post();
                }
            });
        }
        shared.1.wait();
    }
    answer_each("ns", start.elapsed(), tasks);
}

fn switch(tasks: usize, rounds: u64, make_way: impl Fn() + Copy + Send + 'static) {
    let all: Vec<_> = (0..tasks)
        .map(|place| {
            spawn(move || {
                yield_now();
                let start = (place == 0).then(Instant::now);
                for _ in 0..rounds {
                    make_way();
                }
                if let Some(start) = start {
                    answer_each("ns", start.elapsed(), rounds * tasks as u64);
                }
            })
        })
        .collect();
    for task in all {
        task.join().expect("it does not panic");
    }
}

/// Through channels without bounds: others may has not.
fn ring(tasks: usize, hops: u64) {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..tasks).map(|_| mpsc::channel::<u64>()).unzip();
    let done = Arc::new(Semphore::new(0));
    for (place, from) in receivers.into_iter().enumerate() {
        let (to, done) = (senders[(place + 1) % tasks].clone(), done.clone());
        spawn(move || {
            while let Ok(value) = below_three_calls(|| from.recv()) {
                if value == 0 {
                    done.post();
                    return;
                }
                if below_three_calls(|| to.send(value - 1)).is_err() {
                    return;
                }
            }
        });
    }
    yield_now();
    let start = Instant::now();
    senders[0].send(hops).expect("the first receives");
    done.wait();
    answer_each("ns", start.elapsed(), hops);
}

fn idle(tasks: usize) {
    let (never, ran) = (Arc::new(SyncFlag::new()), Arc::new(AtomicUsize::new(0)));
    let (all, before) = (Arc::new(Semphore::new(0)), Memory::now());
    let start = Instant::now();
    for _ in 0..tasks {
        let (never, ran, all) = (never.clone(), ran.clone(), all.clone());
        spawn(move || {
            if ran.fetch_add(1, Relaxed) + 1 == tasks {
                all.post();
            }
            never.wait();
            if ran.fetch_sub(1, Relaxed) == 1 {
                all.post();
            }
        });
    }
    all.wait();
    answer_each("make", start.elapsed(), tasks as u64);
    before.answer_growth(tasks);
    let start = Instant::now();
    never.fire();
    all.wait();
    answer_each("end", start.elapsed(), tasks as u64);
}

fn sleeps(tasks: u64) {
    let all: Vec<_> = (0..tasks)
        .map(|number| {
            let mut random = Random::new(number);
            spawn(move || (0..NAPS).for_each(|_| coroutine::sleep(random.nap())))
        })
        .collect();
    for task in all {
        task.join().expect("it does not panic");
    }
    answer("cpu", worked().as_nanos());
}

fn echo() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a loopback");
    answer("port", listener.local_addr().expect("it is bound").port());
    for stream in listener.incoming() {
        let mut stream = stream.expect("there are descriptors enough");
        stream.set_nodelay(true).expect("it is a socket");
        spawn(move || {
            let mut buffer = [0; BUFFER];
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..read]).is_err() {
                    return;
                }
            }
        });
    }
}

fn work(work: Work) {
    match work {
        Work::Spawn { tasks } => spawn_and_finish(tasks),
        Work::Switch { tasks, rounds, depth: Depth::Deep, order: Order::Creation } => {
            switch(tasks, rounds, || below_three_calls(yield_now));
        }
        Work::Switch { tasks, rounds, depth: Depth::Inlined, order: Order::Creation } => {
            switch(tasks, rounds, yield_now);
        }
        Work::Ring { tasks, hops, .. } => ring(tasks, hops),
        Work::Idle { tasks } => idle(tasks),
        Work::Sleeps { tasks } => sleeps(tasks),
        Work::Echo => echo(),
        // It has no timeout that could be around something.
        Work::Switch { .. } | Work::Timeouts { .. } => unsupported(),
    }
}

fn main() {
    let asked = Work::asked();
    // Stacks of 32 KiB (it counts words), and as many kept as a batch needs.
    may::config().set_workers(1).set_stack_size(0x1000).set_pool_capacity(BATCH as usize);
    spawn(move || work(asked)).join().expect("it does not panic");
}
