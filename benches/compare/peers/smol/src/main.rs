//! The work on smol, with its executor for one thread. There is no depth, as with all futures.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Instant,
};

use event_listener::Event;
use measure::{
    BATCH, BUFFER, HOUR, Memory, NAPS, Order, Random, Work, answer, answer_each, unsupported,
    worked,
};
use smol::{
    LocalExecutor, Timer, channel,
    future::yield_now,
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

type Executor = Rc<LocalExecutor<'static>>;

async fn spawn_and_finish(executor: &Executor, tasks: u64) {
    let start = Instant::now();
    let (left, done) = (Rc::new(Cell::new(0)), Rc::new(Event::new()));
    for _ in 0..tasks / BATCH {
        left.set(BATCH);
        let all = done.listen();
        for _ in 0..BATCH {
            let (left, done) = (left.clone(), done.clone());
            let task = executor.spawn(async move {
                left.set(left.get() - 1);
                if left.get() == 0 {
                    done.notify(1);
                }
            });
            task.detach();
        }
        all.await;
    }
    answer_each("ns", start.elapsed(), tasks);
}

async fn switch(executor: &Executor, tasks: usize, rounds: u64) {
    let all: Vec<_> = (0..tasks)
        .map(|place| {
            executor.spawn(async move {
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
        task.await;
    }
}

async fn ring(executor: &Executor, tasks: usize, hops: u64) {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..tasks).map(|_| channel::bounded::<u64>(1)).unzip();
    let (done, all_done) = channel::bounded(1);
    for (place, from) in receivers.into_iter().enumerate() {
        let (to, done) = (senders[(place + 1) % tasks].clone(), done.clone());
        let task = executor.spawn(async move {
            while let Ok(value) = from.recv().await {
                if value == 0 {
                    done.send(()).await.expect("main waits");
                    return;
                }
                if to.send(value - 1).await.is_err() {
                    return;
                }
            }
        });
        task.detach();
    }
    yield_now().await;
    let start = Instant::now();
    senders[0].send(hops).await.expect("the first receives");
    all_done.recv().await.expect("one of them is done");
    answer_each("ns", start.elapsed(), hops);
}

async fn idle(executor: &Executor, tasks: usize) {
    let (never, ran) = (Rc::new(Event::new()), Rc::new(Cell::new(0)));
    let (all, before) = (Rc::new(Event::new()), Memory::now());
    let (start, made) = (Instant::now(), all.listen());
    for _ in 0..tasks {
        let (never, ran, all) = (never.clone(), ran.clone(), all.clone());
        let task = executor.spawn(async move {
            ran.set(ran.get() + 1);
            if ran.get() == tasks {
                all.notify(1);
            }
            never.listen().await;
            ran.set(ran.get() - 1);
            if ran.get() == 0 {
                all.notify(1);
            }
        });
        task.detach();
    }
    made.await;
    answer_each("make", start.elapsed(), tasks as u64);
    before.answer_growth(tasks);
    let (start, ended) = (Instant::now(), all.listen());
    never.notify(tasks);
    ended.await;
    answer_each("end", start.elapsed(), tasks as u64);
}

async fn sleeps(executor: &Executor, tasks: u64) {
    let all: Vec<_> = (0..tasks)
        .map(|number| {
            let mut random = Random::new(number);
            executor.spawn(async move {
                for _ in 0..NAPS {
                    Timer::after(random.nap()).await;
                }
            })
        })
        .collect();
    for task in all {
        task.await;
    }
    answer("cpu", worked().as_nanos());
}

async fn timeouts(count: u64) {
    let start = Instant::now();
    for _ in 0..count {
        let mut timer = pin!(Timer::after(HOUR));
        // A timer is set when it is first polled, and cancelled when it is dropped.
        let set = poll_fn(|context| Poll::Ready(timer.as_mut().poll(context))).await;
        assert!(set.is_pending(), "an hour is not over");
    }
    answer_each("ns", start.elapsed(), count);
}

async fn echo(executor: &Executor) -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    answer("port", listener.local_addr()?.port());
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let task = executor.spawn(async move {
            let mut buffer = [0; BUFFER];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        });
        task.detach();
    }
}

async fn work(executor: &Executor, work: Work) {
    match work {
        Work::Spawn { tasks } => spawn_and_finish(executor, tasks).await,
        Work::Switch { tasks, rounds, order: Order::Creation, .. } => {
            switch(executor, tasks, rounds).await;
        }
        Work::Switch { .. } => unsupported(),
        Work::Ring { tasks, hops, .. } => ring(executor, tasks, hops).await,
        Work::Idle { tasks } => idle(executor, tasks).await,
        Work::Sleeps { tasks } => sleeps(executor, tasks).await,
        Work::Timeouts { count } => timeouts(count).await,
        Work::Echo => echo(executor).await.expect("there are descriptors enough"),
    }
}

fn main() {
    let asked = Work::asked();
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(work(&executor, asked)));
}
