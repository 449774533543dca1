//! Deadlines. The time is that of one: set and cancelled, or set and fired.
//!
//! - `set-and-cancel`: a tasklet waits with a deadline an hour away and another wakes it at once, while 0 or 100,000
//!   tasklets wait for later deadlines. Two switches and one reading of the clock are part of it; `without-deadline`
//!   is the same without setting one. The floor: two bare coroutines, the clock, and a push and a pop of a
//!   `BinaryHeap` that holds as many.
//! - `timeout`: a `pila::timeout` of an hour around nothing. The floor: the clock, a push and a pop of a `BinaryHeap`.
//! - `mostly-cancelled`: 100,000 or 1,000,000 tasklets all wait in a `pila::timeout`; then 99 of 100 are woken, and the
//!   others' time is up, on a virtual clock. Two switches are part of it; `without-timeout` is the same without a timeout.
//!   The floor: as many deadlines pushed into a `BinaryHeap`, cancelled by a mark, and popped.
//! - `read-timeout`: one byte read from a socket that another tasklet wrote to, waiting for it with a read timeout,
//!   next to the same without one. The system calls are most of it.
//! - `sleep`: 10,000 tasklets, each sleeping 1 to 100 ms again and again, on a virtual clock, so nothing is waited for.
//!   The floor: as many bare coroutines, resumed in the order of a `BinaryHeap`.
//!
//! ```text
//! cargo bench --bench timer
//! ```

mod crew;
mod settings;
mod worker;

use std::{
    cell::{Cell, LazyCell, RefCell},
    cmp::Reverse,
    collections::BinaryHeap,
    hint::black_box,
    io::{Read, Write},
    rc::Rc,
    time::{Duration, Instant},
};

use corosensei::{Coroutine, Yielder, stack::DefaultStack};
use criterion::{BenchmarkGroup, BenchmarkId, measurement::WallTime};
use pila::{
    driver::{self, VirtualClock},
    net::{TcpListener, TcpStream},
    park::{self, Ticket, Waiting},
};

use crate::{crew::Crew, settings::in_rounds, worker::Worker};

const PENDING: [usize; 2] = [0, 100_000];
/// Timeouts that are under way at once.
const TIMEOUTS: [usize; 2] = [100_000, 1_000_000];
/// One in so many is not cancelled.
const FIRES: usize = 100;
const SLEEPERS: usize = 10_000;
const HOUR: Duration = Duration::from_secs(3600);
/// As pila's tasklets have.
const STACK_SIZE: usize = 256 * 1024;

/// Numbers without a visible order, the same in every run.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn new(seed: usize) -> Random {
        Random((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn up_to_an_hour(&mut self) -> Duration {
        Duration::from_nanos(self.below(HOUR.as_nanos() as u64))
    }

    fn up_to_100_ms(&mut self) -> Duration {
        Duration::from_nanos(1_000_000 + self.below(99_000_000))
    }
}

/// Tasklets that wait until this is dropped, each with a deadline two to three hours away.
struct Pending {
    tickets: Rc<RefCell<Vec<Ticket>>>,
}

impl Pending {
    fn new(count: usize) -> Pending {
        let tickets = Rc::new(RefCell::new(Vec::with_capacity(count)));
        for number in 0..count {
            let tickets = tickets.clone();
            pila::tasklet(move || {
                let ticket = park::begin().expect("a tasklet that just started may wait");
                tickets.borrow_mut().push(ticket);
                let deadline = driver::now() + 2 * HOUR + Random::new(number).up_to_an_hour();
                park::wait(ticket, Waiting::Insert, Some(deadline)).expect("it is woken in time");
            });
        }
        pila::schedule();
        Pending { tickets }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.tickets.borrow_mut().drain(..).for_each(|ticket| assert!(park::unpark(ticket)));
        pila::run();
    }
}

fn set_and_cancel(pending: usize, timeout: Option<Duration>) -> impl FnMut(u64) -> Duration {
    let pending = Pending::new(pending);
    move |rounds| {
        let _pending = &pending;
        let place = Rc::new(Cell::new(None));
        let ours = place.clone();
        let waiter = pila::tasklet(move || {
            let start = Instant::now();
            for _ in 0..rounds {
                let ticket = park::begin().expect("nothing keeps it from waiting");
                place.set(Some(ticket));
                let deadline = timeout.map(|timeout| driver::now() + timeout);
                park::wait(ticket, Waiting::Insert, deadline).expect("it is woken in time");
            }
            start.elapsed()
        });
        let waker = pila::tasklet(move || {
            for _ in 0..rounds {
                park::unpark(ours.take().expect("the waiter had its turn"));
                pila::schedule();
            }
        });
        let time = waiter.join().expect("it does not panic");
        waker.join().expect("it does not panic");
        time
    }
}

fn set_and_cancel_floor(pending: usize) -> impl FnMut(u64) -> Duration {
    let now = Instant::now();
    let deadlines = (0..pending)
        .map(|number| Reverse((now + 2 * HOUR + Random::new(number).up_to_an_hour(), number)));
    let heap = Rc::new(RefCell::new(BinaryHeap::from_iter(deadlines)));
    move |rounds| {
        let heap = heap.clone();
        let mut waiter = coroutine(move |yielder| {
            for _ in 0..rounds {
                heap.borrow_mut().push(Reverse((Instant::now() + HOUR, usize::MAX)));
                yielder.suspend(());
                heap.borrow_mut().pop();
            }
        });
        let mut waker = coroutine(move |yielder| {
            for _ in 0..rounds {
                yielder.suspend(());
            }
        });
        let start = Instant::now();
        for _ in 0..rounds {
            waiter.resume(());
            waker.resume(());
        }
        let time = start.elapsed();
        waiter.resume(());
        waker.resume(());
        time
    }
}

fn coroutine(body: impl FnOnce(&Yielder<(), ()>) + 'static) -> Coroutine<(), (), ()> {
    let stack = DefaultStack::new(STACK_SIZE).expect("there is room for so few");
    Coroutine::with_stack(stack, |yielder, ()| body(yielder))
}

fn timeout() -> impl FnMut(u64) -> Duration {
    move |rounds| {
        let tasklet = pila::tasklet(move || {
            let start = Instant::now();
            for round in 0..rounds {
                pila::timeout(HOUR, || black_box(round)).expect("an hour is not over");
            }
            start.elapsed()
        });
        tasklet.join().expect("it does not panic")
    }
}

fn timeout_floor() -> impl FnMut(u64) -> Duration {
    let mut heap = BinaryHeap::new();
    move |rounds| {
        let start = Instant::now();
        for round in 0..rounds {
            heap.push(Reverse(Instant::now() + HOUR));
            black_box(round);
            heap.pop();
        }
        start.elapsed()
    }
}

/// Tasklets that wait, and go on when they are inserted.
struct Crowd {
    tasklets: Vec<pila::Tasklet<()>>,
    /// They return when they are inserted next.
    end: Rc<Cell<bool>>,
}

impl Crowd {
    fn new(size: usize, wait: impl Fn(&mut Random) + Copy + 'static) -> Crowd {
        let end = Rc::new(Cell::new(false));
        let tasklets = (0..size)
            .map(|place| {
                let (end, mut random) = (end.clone(), Random::new(place));
                pila::tasklet(move || {
                    loop {
                        pila::schedule_remove();
                        if end.get() {
                            return;
                        }
                        wait(&mut random);
                    }
                })
            })
            .collect();
        pila::run();
        Crowd { tasklets, end }
    }

    /// Lets all go on, or all but one in [`FIRES`].
    fn wake(&self, all: bool) {
        for (place, tasklet) in self.tasklets.iter().enumerate() {
            if all || place % FIRES != 0 {
                tasklet.insert().expect("it is paused");
            }
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.end.set(true);
        self.wake(true);
        pila::run();
    }
}

/// In a round each of the crowd waits, with a timeout if so wanted, and goes on.
fn mostly_cancelled(size: usize, timeout: bool) -> impl FnMut(u64) -> Duration {
    driver::install(Box::new(VirtualClock::new())).expect("the thread has no other driver");
    let crowd = Crowd::new(size, move |random| {
        if timeout {
            // Both ends of it are part of the bench.
            let _ = pila::timeout(HOUR + random.up_to_an_hour(), pila::schedule_remove);
        } else {
            pila::schedule_remove();
        }
    });
    move |rounds| {
        let start = Instant::now();
        for _ in 0..rounds {
            crowd.wake(true);
            pila::schedule();
            crowd.wake(!timeout);
            pila::run();
        }
        start.elapsed()
    }
}

fn mostly_cancelled_floor(size: usize) -> impl FnMut(u64) -> Duration {
    let mut heap = BinaryHeap::with_capacity(size);
    let mut cancelled = vec![false; size];
    let mut randoms: Vec<_> = (0..size).map(Random::new).collect();
    move |rounds| {
        let start = Instant::now();
        for _ in 0..rounds {
            cancelled.fill(false);
            for (place, random) in randoms.iter_mut().enumerate() {
                heap.push(Reverse((HOUR + random.up_to_an_hour(), place)));
            }
            for (place, cancelled) in cancelled.iter_mut().enumerate() {
                *cancelled = place % FIRES != 0;
            }
            let fired =
                std::iter::from_fn(|| heap.pop()).filter(|Reverse((_, place))| !cancelled[*place]);
            assert_eq!(fired.count(), size.div_ceil(FIRES));
        }
        start.elapsed()
    }
}

/// Two tasklets send a byte to and fro: a round is a read of each.
fn read_timeout(timeout: Option<Duration>) -> impl FnMut(u64) -> Duration {
    let (one, other) = connection().expect("there is a loopback");
    one.set_read_timeout(timeout).expect("an hour is not zero");
    other.set_read_timeout(timeout).expect("an hour is not zero");
    let (one, other) = (Rc::new(one), Rc::new(other));
    move |rounds| {
        let (one, other) = (one.clone(), other.clone());
        let reader = pila::tasklet(move || {
            let mut byte = [0];
            for _ in 0..rounds {
                (&*other).read_exact(&mut byte).expect("the writer lives");
                (&*other).write_all(&byte).expect("the writer lives");
            }
        });
        let writer = pila::tasklet(move || {
            let mut byte = [0];
            let start = Instant::now();
            for _ in 0..rounds {
                (&*one).write_all(&byte).expect("the reader lives");
                (&*one).read_exact(&mut byte).expect("the reader lives");
            }
            start.elapsed()
        });
        reader.join().expect("it does not panic");
        writer.join().expect("it does not panic")
    }
}

fn connection() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let one = TcpStream::connect(listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    one.set_nodelay(true)?;
    other.set_nodelay(true)?;
    Ok((one, other))
}

fn sleep() -> impl FnMut(u64) -> Duration {
    driver::install(Box::new(VirtualClock::new())).expect("the thread has no other driver");
    let order: Vec<_> = (0..SLEEPERS).collect();
    let crew = Crew::new(&order, |place, rounds| {
        let mut random = Random::new(place);
        for _ in 0..rounds {
            pila::sleep(random.up_to_100_ms());
        }
    });
    move |rounds| crew.run(rounds)
}

fn sleep_floor() -> impl FnMut(u64) -> Duration {
    move |rounds| {
        let heap = Rc::new(RefCell::new(BinaryHeap::with_capacity(SLEEPERS)));
        let now = Rc::new(Cell::new(Duration::ZERO));
        let mut sleepers: Vec<_> = (0..SLEEPERS)
            .map(|place| {
                let (heap, now) = (heap.clone(), now.clone());
                coroutine(move |yielder| {
                    let mut random = Random::new(place);
                    yielder.suspend(());
                    for _ in 0..rounds {
                        let deadline = now.get() + random.up_to_100_ms();
                        heap.borrow_mut().push(Reverse((deadline, place)));
                        yielder.suspend(());
                    }
                })
            })
            .collect();
        for sleeper in &mut sleepers {
            sleeper.resume(());
        }
        let start = Instant::now();
        for sleeper in &mut sleepers {
            sleeper.resume(());
        }
        loop {
            let next = heap.borrow_mut().pop();
            let Some(Reverse((deadline, place))) = next else { break };
            now.set(deadline);
            sleepers[place].resume(());
        }
        start.elapsed()
    }
}

/// A row whose work `prepare` gives, on a thread of its own.
fn row<M: FnMut(u64) -> Duration>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    size: usize,
    prepare: impl FnOnce() -> M + Send + 'static,
) {
    let worker = LazyCell::new(|| Worker::start(prepare));
    group.bench_function(id, |bencher| {
        bencher.iter_custom(|deadlines| in_rounds(deadlines, size, |n| worker.measure(n)));
    });
}

fn main() {
    let mut criterion = settings::criterion();

    let mut group = criterion.benchmark_group("timer/set-and-cancel");
    for pending in PENDING {
        row(&mut group, BenchmarkId::new("pila", pending), 1, move || {
            set_and_cancel(pending, Some(HOUR))
        });
        row(&mut group, BenchmarkId::new("binary-heap", pending), 1, move || {
            set_and_cancel_floor(pending)
        });
    }
    row(&mut group, BenchmarkId::new("pila", "without-deadline"), 1, || set_and_cancel(0, None));
    group.finish();

    let mut group = criterion.benchmark_group("timer/timeout");
    row(&mut group, BenchmarkId::from_parameter("pila"), 1, timeout);
    row(&mut group, BenchmarkId::from_parameter("binary-heap"), 1, timeout_floor);
    group.finish();

    let mut group = criterion.benchmark_group("timer/mostly-cancelled");
    for size in TIMEOUTS {
        row(&mut group, BenchmarkId::new("pila", size), size, move || mostly_cancelled(size, true));
        row(&mut group, BenchmarkId::new("pila/without-timeout", size), size, move || {
            mostly_cancelled(size, false)
        });
        row(&mut group, BenchmarkId::new("binary-heap", size), size, move || {
            mostly_cancelled_floor(size)
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("timer/read-timeout");
    row(&mut group, BenchmarkId::new("pila", "hour"), 2, || read_timeout(Some(HOUR)));
    row(&mut group, BenchmarkId::new("pila", "none"), 2, || read_timeout(None));
    group.finish();

    let mut group = criterion.benchmark_group("timer/sleep");
    row(&mut group, BenchmarkId::new("pila", SLEEPERS), SLEEPERS, sleep);
    row(&mut group, BenchmarkId::new("binary-heap", SLEEPERS), SLEEPERS, sleep_floor);
    group.finish();

    criterion.final_summary();
}
