//! The work on monoio, on `io_uring` where the kernel has it. There is no depth, as with all futures.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Instant,
};

use local_sync::{mpsc::bounded, semaphore::Semaphore};
use measure::{
    BATCH, BUFFER, HOUR, Memory, NAPS, Order, Random, Work, answer, answer_each, unsupported,
    worked,
};
use monoio::{
    FusionDriver, RuntimeBuilder,
    io::{AsyncReadRent, AsyncWriteRentExt},
    net::{ListenerOpts, TcpListener},
    spawn,
    time::sleep,
};

/// Goes to the back of the queue; monoio has no such function.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn spawn_and_finish(tasks: u64) {
    let start = Instant::now();
    let (left, done) = (Rc::new(Cell::new(0)), Rc::new(Semaphore::new(0)));
    for _ in 0..tasks / BATCH {
        left.set(BATCH);
        for _ in 0..BATCH {
            let (left, done) = (left.clone(), done.clone());
            spawn(async move {
                left.set(left.get() - 1);
                if left.get() == 0 {
                    done.add_permits(1);
                }
            });
        }
        done.acquire().await.expect("it is never closed").forget();
    }
    answer_each("ns", start.elapsed(), tasks);
}

/// monoio may poll a task that woke itself again before others have had their turn: so the time is that of all tasks, and
/// a switch may be one to the task itself.
async fn switch(tasks: usize, rounds: u64) {
    let start = Instant::now();
    let all: Vec<_> = (0..tasks)
        .map(|_| {
            spawn(async move {
                for _ in 0..rounds {
                    yield_now().await;
                }
            })
        })
        .collect();
    for task in all {
        task.await;
    }
    answer_each("ns", start.elapsed(), rounds * tasks as u64);
}

async fn ring(tasks: usize, hops: u64) {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..tasks).map(|_| bounded::channel::<u64>(1)).unzip();
    let senders: Rc<[_]> = senders.into();
    let done = Rc::new(Semaphore::new(0));
    for (place, mut from) in receivers.into_iter().enumerate() {
        let (senders, done) = (senders.clone(), done.clone());
        spawn(async move {
            let to = &senders[(place + 1) % tasks];
            while let Some(value) = from.recv().await {
                if value == 0 {
                    done.add_permits(1);
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
    assert!(senders[0].send(hops).await.is_ok(), "the first receives");
    done.acquire().await.expect("it is never closed").forget();
    answer_each("ns", start.elapsed(), hops);
}

async fn idle(tasks: usize) {
    let (never, all) = (Rc::new(Semaphore::new(0)), Rc::new(Semaphore::new(0)));
    let (ran, before) = (Rc::new(Cell::new(0)), Memory::now());
    let start = Instant::now();
    for _ in 0..tasks {
        let (never, ran, all) = (never.clone(), ran.clone(), all.clone());
        spawn(async move {
            ran.set(ran.get() + 1);
            if ran.get() == tasks {
                all.add_permits(1);
            }
            never.acquire().await.expect("it is never closed").forget();
            ran.set(ran.get() - 1);
            if ran.get() == 0 {
                all.add_permits(1);
            }
        });
    }
    all.acquire().await.expect("it is never closed").forget();
    answer_each("make", start.elapsed(), tasks as u64);
    before.answer_growth(tasks);
    let start = Instant::now();
    never.add_permits(tasks);
    all.acquire().await.expect("it is never closed").forget();
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
        task.await;
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
    let options = ListenerOpts::new().backlog(4096).reuse_port(false);
    let listener = TcpListener::bind_with_config("127.0.0.1:0", &options)?;
    answer("port", listener.local_addr()?.port());
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        spawn(async move {
            let mut buffer = Vec::with_capacity(BUFFER);
            loop {
                let (read, filled) = stream.read(buffer).await;
                if !matches!(read, Ok(1..)) {
                    return;
                }
                let (written, sent) = stream.write_all(filled).await;
                if written.is_err() {
                    return;
                }
                buffer = sent;
                buffer.clear();
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
    RuntimeBuilder::<FusionDriver>::new()
        .with_entries(4096)
        .enable_timer()
        .build()
        .expect("the system gives what a runtime needs")
        .block_on(work(asked));
}
