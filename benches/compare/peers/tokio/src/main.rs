//! The work on tokio's current-thread runtime.
//!
//! A future keeps what it needs in itself, so there is no depth: the calls of an `async fn` are all in one state.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::Instant,
};

use measure::{
    BATCH, BUFFER, HOUR, Memory, NAPS, Order, Random, Work, answer, answer_each, unsupported,
    worked,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    spawn,
    sync::{Notify, mpsc},
    task::yield_now,
    time::sleep,
};

async fn spawn_and_finish(tasks: u64) {
    let start = Instant::now();
    let (left, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    for _ in 0..tasks / BATCH {
        left.store(BATCH as usize, Relaxed);
        for _ in 0..BATCH {
            let (left, done) = (left.clone(), done.clone());
            spawn(async move {
                if left.fetch_sub(1, Relaxed) == 1 {
                    done.notify_one();
                }
            });
        }
        done.notified().await;
    }
    answer_each("ns", start.elapsed(), tasks);
}

async fn switch(tasks: usize, rounds: u64) {
    let all: Vec<_> = (0..tasks)
        .map(|place| {
            spawn(async move {
                yield_now().await;
                let start = (place == 0).then(Instant::now);
                for _ in 0..rounds {
                    yield_now().await;
                }
                if let Some(start) = start {
                    answer_each("ns", start.elapsed(), rounds * tasks as u64);
                }
            })
        })
        .collect();
    for task in all {
        task.await.expect("it does not panic");
    }
}

async fn ring(tasks: usize, hops: u64) {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..tasks).map(|_| mpsc::channel::<u64>(1)).unzip();
    let (done, mut all_done) = mpsc::channel(1);
    for (place, mut from) in receivers.into_iter().enumerate() {
        let (to, done) = (senders[(place + 1) % tasks].clone(), done.clone());
        spawn(async move {
            while let Some(value) = from.recv().await {
                if value == 0 {
                    done.send(()).await.expect("main waits");
                    return;
                }
                if to.send(value - 1).await.is_err() {
                    return;
                }
            }
        });
    }
    yield_now().await;
    let start = Instant::now();
    senders[0].send(hops).await.expect("the first receives");
    all_done.recv().await;
    answer_each("ns", start.elapsed(), hops);
}

async fn idle(tasks: usize) {
    let (never, ran) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (all, before) = (Arc::new(Notify::new()), Memory::now());
    let start = Instant::now();
    for _ in 0..tasks {
        let (never, ran, all) = (never.clone(), ran.clone(), all.clone());
        spawn(async move {
            if ran.fetch_add(1, Relaxed) + 1 == tasks {
                all.notify_one();
            }
            never.notified().await;
            if ran.fetch_sub(1, Relaxed) == 1 {
                all.notify_one();
            }
        });
    }
    all.notified().await;
    answer_each("make", start.elapsed(), tasks as u64);
    before.answer_growth(tasks);
    let start = Instant::now();
    never.notify_waiters();
    all.notified().await;
    answer_each("end", start.elapsed(), tasks as u64);
}

async fn sleeps(tasks: u64) {
    let all: Vec<_> = (0..tasks)
        .map(|number| {
            let mut random = Random::new(number);
            spawn(async move {
                for _ in 0..NAPS {
                    sleep(random.nap()).await;
                }
            })
        })
        .collect();
    for task in all {
        task.await.expect("it does not panic");
    }
    answer("cpu", worked().as_nanos());
}

async fn timeouts(count: u64) {
    let start = Instant::now();
    for _ in 0..count {
        let mut timer = pin!(sleep(HOUR));
        // A timer is set when it is first polled, and cancelled when it is dropped.
        let set = poll_fn(|context| Poll::Ready(timer.as_mut().poll(context))).await;
        assert!(set.is_pending(), "an hour is not over");
    }
    answer_each("ns", start.elapsed(), count);
}

async fn echo() -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let listener = socket.listen(4096)?;
    answer("port", listener.local_addr()?.port());
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        spawn(async move {
            let mut buffer = [0; BUFFER];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn work(work: Work) {
    match work {
        Work::Spawn { tasks } => spawn_and_finish(tasks).await,
        Work::Switch { tasks, rounds, order: Order::Creation, .. } => switch(tasks, rounds).await,
        Work::Switch { .. } => unsupported(),
        Work::Ring { tasks, hops, .. } => ring(tasks, hops).await,
        Work::Idle { tasks } => idle(tasks).await,
        Work::Sleeps { tasks } => sleeps(tasks).await,
        Work::Timeouts { count } => timeouts(count).await,
        Work::Echo => echo().await.expect("there are descriptors enough"),
    }
}

fn main() {
    let asked = Work::asked();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    // Spawned, for what `block_on` is given itself is polled in another way than tasks are.
    runtime
        .expect("the system gives what a runtime needs")
        .block_on(async move { spawn(work(asked)).await })
        .expect("it does not panic");
}
