//! Handing values from one thread to another. The time is that of one value.
//!
//! - `stream`: one thread sends as fast as it can, the other receives, through a queue for 1,024.
//! - `ping-pong`: two threads send one value to and fro, through two queues; each wakes the other every time.
//! - `pila`: tasklets at both ends of `pila::thread_queue`s.
//! - `std`: the floor. Plain threads that block in `std::sync::mpsc::sync_channel`s of the same capacity.
//!
//! Each thread keeps to a processor of its own, if there are two. How far apart those are is printed on standard error
//! around each row.
//!
//! ```text
//! cargo bench --bench queue
//! ```

mod processors;
mod settings;
mod worker;

use std::{
    cell::LazyCell,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use criterion::BenchmarkId;

use crate::{
    processors::{Side, print_distance},
    settings::in_rounds,
    worker::Worker,
};

const CAPACITY: usize = 1_024;

fn stream(values: u64) -> Duration {
    let (sender, receiver) = pila::thread_queue(CAPACITY);
    let other = pila::spawn_thread(move || {
        Side::Load.keep_to();
        (0..values).for_each(|value| sender.send(value).expect("the other receives"));
    });
    let start = Instant::now();
    assert_eq!(receiver.iter().count() as u64, values);
    let time = start.elapsed();
    other.expect("a thread can be started").join().expect("it does not panic");
    time
}

fn stream_floor(values: u64) -> Duration {
    let (sender, receiver) = mpsc::sync_channel(CAPACITY);
    let other = thread::spawn(move || {
        Side::Load.keep_to();
        (0..values).for_each(|value| sender.send(value).expect("the other receives"));
    });
    let start = Instant::now();
    assert_eq!(receiver.iter().count() as u64, values);
    let time = start.elapsed();
    other.join().expect("it does not panic");
    time
}

fn ping_pong(values: u64) -> Duration {
    let ((to, theirs), (back, ours)) = (pila::thread_queue(1), pila::thread_queue(1));
    let other = pila::spawn_thread(move || {
        Side::Load.keep_to();
        theirs.iter().for_each(|value: u64| back.send(value + 1).expect("the other receives"));
    });
    let start = Instant::now();
    let mut value = 0;
    while value < values {
        to.send(value + 1).expect("the other receives");
        value = ours.receive().expect("the other sends");
    }
    let time = start.elapsed();
    drop(to);
    other.expect("a thread can be started").join().expect("it does not panic");
    time
}

fn ping_pong_floor(values: u64) -> Duration {
    let ((to, theirs), (back, ours)) = (mpsc::sync_channel(1), mpsc::sync_channel(1));
    let other = thread::spawn(move || {
        Side::Load.keep_to();
        theirs.iter().for_each(|value: u64| back.send(value + 1).expect("the other receives"));
    });
    let start = Instant::now();
    let mut value = 0;
    while value < values {
        to.send(value + 1).expect("the other receives");
        value = ours.recv().expect("the other sends");
    }
    let time = start.elapsed();
    drop(to);
    other.join().expect("it does not panic");
    time
}

type Values = fn(u64) -> Duration;

fn main() {
    Side::Load.keep_to();
    let mut criterion = settings::criterion();
    let groups: [(_, [(_, Values); 2]); 2] = [
        ("queue/stream", [("pila", stream), ("std", stream_floor)]),
        ("queue/ping-pong", [("pila", ping_pong), ("std", ping_pong_floor)]),
    ];
    for (name, rows) in groups {
        let mut group = criterion.benchmark_group(name);
        for (row, values) in rows {
            let worker = LazyCell::new(|| {
                print_distance("before");
                Worker::start(move || {
                    Side::Measured.keep_to();
                    values
                })
            });
            group.bench_function(BenchmarkId::from_parameter(row), |bencher| {
                bencher.iter_custom(|values| in_rounds(values, 1, |n| worker.measure(n)));
            });
            drop(worker);
        }
        group.finish();
    }
    print_distance("after");
    criterion.final_summary();
}
