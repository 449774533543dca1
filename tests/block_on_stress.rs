//! Ten thousand futures at once, woken by another thread, killed and out of time at random: nothing is lost, and nothing is
//! left.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, Sender},
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use possessions::Possessions;
use random::{Random, Seed};
use system::bounded;

mod possessions;
mod random;
mod system;

const TASKLETS: usize = 10_000;

/// How often all of them, after the first two times, which need more and more of everything.
const ROUNDS: usize = if cfg!(debug_assertions) { 1 } else { 5 };

/// How often each of them waits.
const WAITS: usize = 5;

/// Many times what anything here takes.
const LIMIT: Duration = Duration::from_secs(300);

/// What the other thread is asked for.
struct Request {
    answered: Arc<AtomicBool>,
    waker: Waker,
}

/// Asks the other thread, once, and is ready when that has answered.
struct Answer<'a> {
    requests: &'a Sender<Request>,
    answered: Option<Arc<AtomicBool>>,
    /// Counts those that were made and not dropped.
    living: Rc<Cell<isize>>,
}

impl<'a> Answer<'a> {
    fn new(requests: &'a Sender<Request>, living: &Rc<Cell<isize>>) -> Self {
        living.set(living.get() + 1);
        Self { requests, answered: None, living: living.clone() }
    }
}

impl Future for Answer<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(answered) = &self.answered else {
            let answered = Arc::new(AtomicBool::new(false));
            let request = Request { answered: answered.clone(), waker: context.waker().clone() };
            self.requests.send(request).unwrap();
            self.answered = Some(answered);
            return Poll::Pending;
        };
        // A wake-up before its time is allowed, and happens here. Its waker stays the same.
        if answered.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        self.living.set(self.living.get() - 1);
    }
}

/// Answers every request, those of a batch in any order, some of them twice, and some wakers are woken too early.
fn answer(requests: &mpsc::Receiver<Request>, random: &Random, answers: &AtomicUsize) {
    let mut late = Vec::new();
    while let Ok(first) = requests.recv() {
        let mut batch = vec![first];
        batch.extend(requests.try_iter());
        while !batch.is_empty() {
            let Request { answered, waker } = batch.swap_remove(random.below(batch.len()));
            if random.once_in(10) {
                waker.wake_by_ref();
            }
            answered.store(true, Ordering::Release);
            answers.fetch_add(1, Ordering::Relaxed);
            waker.wake_by_ref();
            if random.once_in(20) {
                late.push(waker);
            }
        }
        // Those whose call, or tasklet, is likely to be over.
        if late.len() > 100 {
            late.drain(..).for_each(Waker::wake);
        }
    }
}

/// What became of a tasklet.
#[derive(Default, Debug)]
struct Outcomes {
    answered: Cell<usize>,
    late: Cell<usize>,
    living: Rc<Cell<isize>>,
}

fn add(counter: &Cell<usize>) {
    counter.set(counter.get() + 1);
}

fn round(requests: &Sender<Request>, random: &Rc<Random>) {
    let outcomes = Rc::new(Outcomes::default());
    let tasklets: Vec<_> = (0..TASKLETS)
        .map(|_| {
            let (requests, random, outcomes) = (requests.clone(), random.clone(), outcomes.clone());
            pila::tasklet(move || {
                for _ in 0..WAITS {
                    let wait = || pila::block_on(Answer::new(&requests, &outcomes.living));
                    if random.once_in(4) {
                        match pila::timeout(random.time(Duration::from_millis(20)), wait) {
                            Ok(()) => add(&outcomes.answered),
                            Err(_) => add(&outcomes.late),
                        }
                    } else {
                        wait();
                        add(&outcomes.answered);
                    }
                }
            })
        })
        .collect();
    let mut killed = 0;
    while tasklets.iter().any(|tasklet| tasklet.is_alive()) && killed < TASKLETS / 4 {
        let victim = &tasklets[random.below(TASKLETS)];
        killed += usize::from(victim.is_alive());
        victim.kill().unwrap();
        if random.once_in(8) {
            pila::schedule();
        }
    }
    let mut whole = 0;
    for tasklet in tasklets {
        match tasklet.join() {
            Ok(()) => whole += 1,
            Err(pila::JoinError::Killed) => {}
            Err(other) => panic!("{other}"),
        }
    }
    let summary = pila::run();
    assert_eq!((summary.blocked, summary.paused, summary.unread_panics), (0, 0, 0));
    assert_eq!(whole + killed, TASKLETS);
    assert_eq!(outcomes.living.get(), 0, "a future was not dropped once");
    assert!(outcomes.answered.get() + outcomes.late.get() >= whole * WAITS, "{outcomes:?}");
    pila::trim();
}

#[test]
fn ten_thousand_futures_are_woken_killed_and_late_and_leave_nothing() {
    let seed = Seed::new();
    let number = seed.0;
    bounded(LIMIT, move || {
        let (requests, received) = mpsc::channel();
        let answers = Arc::new(AtomicUsize::new(0));
        let counted = answers.clone();
        let thread = thread::spawn(move || answer(&received, &Random::new(number), &counted));
        let random = Rc::new(Random::new(number + 1));
        (0..2).for_each(|_| round(&requests, &random));
        let before = Possessions::now();
        (0..ROUNDS).for_each(|_| round(&requests, &random));
        // The allocator may keep what was asked for on the other thread.
        Possessions::now().assert_back_within(&before, 4096);
        assert!(answers.load(Ordering::Relaxed) > 4 * TASKLETS);
        drop(requests);
        thread.join().unwrap();
    });
}
