//! `block_on`: a future is driven by the tasklet that waits for it, and only that one waits.

#![allow(clippy::disallowed_methods, reason = "the other threads here have no tasklets")]

use std::{
    cell::{Cell, RefCell},
    future::{Future, pending, poll_fn, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use net_support::bounded;
use pila::{
    JoinError, block_on,
    driver::{self, VirtualClock},
    park::{Interrupt, Relay},
    try_block_on,
};

mod net_support;

/// A value that somebody puts somewhere, and who is to be woken then.
struct Place<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

/// Where a value comes from. Clones fill the same place.
struct Promise<T>(Arc<Mutex<Place<T>>>);

impl<T> Clone for Promise<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Promise<T> {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Place { value: None, waker: None })))
    }

    fn keep(&self, value: T) {
        let waker = {
            let mut place = self.0.lock().unwrap();
            place.value = Some(value);
            place.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes the waker that is to be woken.
    fn waker(&self) -> Option<Waker> {
        self.0.lock().unwrap().waker.take()
    }
}

impl<T> Future for Promise<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut place = self.0.lock().unwrap();
        match place.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                place.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Is pending once, after it has called something with the waker.
fn once(act: impl FnOnce(Waker)) -> impl Future<Output = ()> {
    let mut act = Some(act);
    poll_fn(move |context| match act.take() {
        Some(act) => {
            act(context.waker().clone());
            Poll::Pending
        }
        None => Poll::Ready(()),
    })
}

/// Counts how often it was dropped.
struct Counted(Rc<Cell<u32>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn what_is_ready_at_once_switches_to_nobody() {
    let ran = Rc::new(Cell::new(false));
    let theirs = ran.clone();
    let other = pila::tasklet(move || theirs.set(true));
    let guard = pila::no_switch();
    assert_eq!(block_on(ready(7)), 7);
    assert_eq!(block_on(async { block_on(async { 8 }) }), 8);
    drop(guard);
    assert!(!ran.get());
    other.join().unwrap();
}

#[test]
fn only_the_tasklet_waits_and_another_thread_wakes_it() {
    bounded(|| {
        let promise = Promise::new();
        let theirs = promise.clone();
        let turns = Rc::new(Cell::new(0_u64));
        let counted = turns.clone();
        let busy = pila::tasklet(move || {
            loop {
                counted.set(counted.get() + 1);
                pila::schedule();
            }
        });
        let waits = pila::tasklet(move || block_on(promise));
        pila::schedule();
        let before = turns.get();
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_millis(5));
            theirs.keep("seven");
        });
        assert_eq!(waits.join().unwrap(), "seven");
        assert!(turns.get() > before + 10);
        busy.kill().unwrap();
        thread.join().unwrap();
    });
}

#[test]
fn main_waits_for_a_future_of_a_tasklet_and_the_other_way_round() {
    let (there, back) = (Promise::new(), Promise::new());
    let (theirs, theirs_back) = (there.clone(), back.clone());
    pila::tasklet(move || {
        let question: u32 = block_on(theirs);
        theirs_back.keep(question * 6);
    });
    pila::schedule();
    there.keep(7);
    assert_eq!(block_on(back), 42);
}

#[test]
fn a_future_may_borrow_and_need_not_be_send() {
    let counted = Cell::new(0);
    let mut words = vec![String::from("uno")];
    let word = Rc::new(String::from("dos"));
    let length = block_on(async {
        once(|waker| waker.wake()).await;
        counted.set(counted.get() + 1);
        words.push(word.to_string());
        words.len()
    });
    assert_eq!((length, counted.get(), words.len()), (2, 1, 2));
}

#[test]
fn a_wake_up_before_the_wait_is_not_lost() {
    bounded(|| {
        for _ in 0..200 {
            let (give, take) = mpsc::channel::<Waker>();
            let other = thread::spawn(move || take.recv().unwrap().wake());
            // Sometimes before the poll ends, sometimes before the wait begins, sometimes after.
            block_on(once(|waker| give.send(waker).unwrap()));
            other.join().unwrap();
        }
        block_on(once(|waker| thread::spawn(move || waker.wake()).join().unwrap()));
    });
}

#[test]
fn wake_ups_between_two_polls_are_one() {
    let polls = Rc::new(Cell::new(0));
    let promise = Promise::<()>::new();
    let (mut inner, counted) = (promise.clone(), polls.clone());
    let waits = pila::tasklet(move || {
        block_on(poll_fn(|context| {
            counted.set(counted.get() + 1);
            Pin::new(&mut inner).poll(context)
        }));
    });
    pila::schedule();
    let waker = promise.waker().unwrap();
    (0..1_000).for_each(|_| waker.wake_by_ref());
    let others = [(); 4].map(|()| waker.clone());
    let threads =
        others.map(|waker| thread::spawn(move || (0..100).for_each(|_| waker.wake_by_ref())));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    pila::schedule();
    assert_eq!(polls.get(), 2);
    promise.keep(());
    waits.join().unwrap();
    assert_eq!(polls.get(), 3);
}

#[test]
fn a_waker_that_outlives_its_call_wakes_nothing_else() {
    let kept = Rc::new(RefCell::new(None));
    let theirs = kept.clone();
    let tasklet = pila::tasklet(move || {
        block_on(once(|waker| {
            waker.wake_by_ref();
            *theirs.borrow_mut() = Some(waker);
        }));
        let mut polls = 0;
        block_on(poll_fn(|context| {
            polls += 1;
            let theirs = theirs.clone();
            let waker = context.waker().clone();
            if polls == 1 {
                pila::tasklet(move || {
                    // Of the call before: this one does not mind.
                    theirs.borrow().as_ref().unwrap().wake_by_ref();
                    pila::schedule();
                    pila::schedule();
                    waker.wake();
                });
                return Poll::Pending;
            }
            Poll::Ready(())
        }));
        let start = Instant::now();
        let wakers = theirs.clone();
        pila::tasklet(move || wakers.borrow().as_ref().unwrap().wake_by_ref());
        pila::sleep(Duration::from_millis(2));
        assert!(start.elapsed() >= Duration::from_millis(2));
        polls
    });
    assert_eq!(tasklet.join().unwrap(), 2);
    // Somebody else may have its slot.
    let other = pila::tasklet(|| pila::sleep(Duration::from_millis(2)));
    pila::schedule();
    let waker = kept.take().unwrap();
    waker.wake_by_ref();
    assert!(other.is_blocked());
    thread::spawn(move || waker.wake()).join().unwrap();
    pila::run();
}

#[test]
fn a_waker_that_outlives_its_thread_is_harmless() {
    let promise = Promise::<()>::new();
    let (theirs, leaked) = (promise.clone(), promise.clone());
    thread::spawn(move || {
        pila::tasklet(move || block_on(leaked));
        pila::schedule();
    })
    .join()
    .unwrap();
    let waker = promise.waker().expect("the tasklet was suspended when its thread ended");
    waker.wake_by_ref();
    theirs.keep(());
    drop(waker);
}

#[test]
fn calls_nest_and_each_has_its_own_waker() {
    bounded(|| {
        let (outer, inner) = (Promise::new(), Promise::new());
        let (keep_outer, keep_inner) = (outer.clone(), inner.clone());
        let mut outer_again = outer.clone();
        let tasklet = pila::tasklet(move || {
            block_on(async move {
                // The outer waker is out when the inner call waits.
                let pinned =
                    poll_fn(|context| Poll::Ready(Pin::new(&mut outer_again).poll(context)));
                assert!(pinned.await.is_pending());
                let first: u32 = block_on(inner);
                first + outer.await
            })
        });
        pila::schedule();
        keep_outer.keep(1);
        pila::schedule();
        assert!(tasklet.is_blocked());
        thread::spawn(move || keep_inner.keep(2)).join().unwrap();
        assert_eq!(tasklet.join().unwrap(), 3);
    });
}

#[test]
fn a_kill_drops_the_future_once_and_its_waker_goes_stale() {
    let drops = Rc::new(Cell::new(0));
    let promise = Promise::<()>::new();
    let (theirs, counted) = (promise.clone(), Counted(drops.clone()));
    let victim = pila::tasklet(move || {
        block_on(async move {
            let _counted = counted;
            theirs.await;
        });
        unreachable!("it was killed");
    });
    pila::schedule();
    assert_eq!(drops.get(), 0);
    victim.kill().unwrap();
    assert_eq!(drops.get(), 1);
    assert!(matches!(victim.join(), Err(JoinError::Killed)));
    promise.waker().unwrap().wake();
    assert_eq!(pila::run().blocked, 0);
    assert_eq!(drops.get(), 1);
}

#[test]
fn a_timeout_drops_the_future_once_and_says_so() {
    bounded(|| {
        let drops = Rc::new(Cell::new(0));
        let limit = Duration::from_millis(2);
        for _ in 0..3 {
            let (promise, counted) = (Promise::<()>::new(), Counted(drops.clone()));
            let mine = promise.clone();
            let late = pila::timeout(limit, || {
                block_on(async move {
                    let _counted = counted;
                    mine.await;
                });
            });
            assert_eq!(late.unwrap_err().limit(), limit);
            promise.keep(());
        }
        assert_eq!(drops.get(), 3);
        // One that wakes itself again and again cannot outlast it.
        let busy = pila::timeout(limit, || {
            block_on(poll_fn::<(), _>(|context| {
                context.waker().wake_by_ref();
                Poll::Pending
            }))
        });
        assert_eq!(busy.unwrap_err().limit(), limit);
    });
}

#[test]
fn the_panic_of_a_poll_comes_out_of_the_call() {
    let panics = pila::tasklet(|| block_on(async { panic!("no way") }));
    let Err(JoinError::Panicked(panic)) = panics.join() else { panic!("it does") };
    assert!(panic.to_string().contains("no way"), "{panic}");
    assert_eq!(block_on(ready(1)), 1);
}

#[test]
fn a_future_that_wakes_itself_lets_others_run_and_time_pass() {
    bounded(|| {
        let done = Rc::new(Cell::new(false));
        let theirs = done.clone();
        pila::tasklet(move || {
            pila::sleep(Duration::from_millis(1));
            theirs.set(true);
        });
        block_on(poll_fn(|context| {
            context.waker().wake_by_ref();
            if done.get() { Poll::Ready(()) } else { Poll::Pending }
        }));
    });
}

/// What was told of a deadlock.
fn deadlock(future: impl Future) -> String {
    match try_block_on(future) {
        Err(Interrupt::Deadlock(report)) => report.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it never is ready"),
    }
}

#[test]
fn a_future_whose_waker_nobody_has_is_a_deadlock() {
    let report = deadlock(pending::<()>());
    assert!(
        report.contains("'main' (#0): waits for a future, whose waker nobody has kept"),
        "{report}"
    );
    let panics = pila::tasklet(|| block_on(pending::<()>()));
    let Err(JoinError::Panicked(panic)) = panics.join() else { panic!("it does") };
    assert!(panic.to_string().contains("block_on: deadlock"), "{panic}");
    // Another tasklet can go on: then it is none.
    let sleeper = pila::tasklet(|| pila::sleep(Duration::from_millis(1)));
    pila::tasklet(|| block_on(pending::<()>()));
    sleeper.join().unwrap();
    assert_eq!(pila::run().blocked, 1);
}

#[test]
fn the_last_waker_that_is_dropped_makes_it_a_deadlock() {
    bounded(|| {
        // By a tasklet, while others go on.
        let kept = Rc::new(RefCell::new(None));
        let theirs = kept.clone();
        pila::tasklet(move || {
            pila::sleep(Duration::from_millis(1));
            drop(theirs.take());
        });
        deadlock(poll_fn::<(), _>(|context| {
            if kept.borrow().is_none() {
                *kept.borrow_mut() = Some(context.waker().clone());
            }
            match Rc::strong_count(&kept) {
                2 => Poll::Pending,
                // The other has ended: this one is kept by nobody.
                _ => {
                    kept.take();
                    Poll::Pending
                }
            }
        }));
        // By another thread, while everyone here is asleep.
        let begun = Instant::now();
        deadlock(async {
            once(|waker| {
                thread::spawn(move || {
                    thread::sleep(Duration::from_millis(20));
                    drop(waker);
                });
            })
            .await;
            pending::<()>().await;
        });
        assert!(begun.elapsed() >= Duration::from_millis(20));
    });
}

#[test]
fn a_waker_that_lives_on_another_thread_is_no_deadlock() {
    bounded(|| {
        for _ in 0..3 {
            block_on(once(|waker| {
                thread::spawn(move || {
                    let copies: Vec<Waker> = (0..10).map(|_| waker.clone()).collect();
                    drop(copies);
                    thread::sleep(Duration::from_millis(10));
                    waker.wake();
                });
            }));
        }
        let promise = Promise::new();
        let theirs = promise.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(10));
            theirs.keep(7);
        });
        pila::tasklet(move || block_on(promise));
        assert_eq!(pila::run().finished, 1);
    });
}

#[test]
fn with_a_virtual_clock_futures_wait_for_sleepers() {
    driver::install(Box::new(VirtualClock::new())).unwrap();
    let promise = Promise::new();
    let theirs = promise.clone();
    let start = driver::now();
    pila::tasklet(move || {
        pila::sleep(Duration::from_secs(3600));
        theirs.keep(());
    });
    block_on(promise);
    assert_eq!(driver::now() - start, Duration::from_secs(3600));
}

#[test]
fn where_nothing_may_wait_it_says_so() {
    struct Late(Rc<Cell<bool>>);
    impl Drop for Late {
        fn drop(&mut self) {
            assert_eq!(try_block_on(ready(1)).unwrap(), 1);
            // It goes on as far as it can without waiting.
            assert_eq!(try_block_on(async { once(|waker| waker.wake()).await }).unwrap(), ());
            let refused = try_block_on(pending::<()>());
            assert!(matches!(refused, Err(Interrupt::Refused(_))), "{refused:?}");
            self.0.set(true);
        }
    }
    let seen = Rc::new(Cell::new(false));
    let late = Late(seen.clone());
    let unwinds = pila::tasklet(move || {
        let _late = late;
        panic!("no way");
    });
    unwinds.join().unwrap_err();
    assert!(seen.get());

    let guarded = catch_unwind(|| {
        let _guard = pila::no_switch();
        block_on(pending::<()>());
    });
    let message = *guarded.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("no_switch guard made at tests/block_on.rs"), "{message}");
    let trapped = pila::tasklet(|| {
        pila::current().set_block_trap(true).unwrap();
        try_block_on(pending::<()>()).unwrap_err().to_string()
    });
    assert_eq!(trapped.join().unwrap(), "this tasklet does not like to be blocked");
}

#[test]
fn a_tasklet_that_caught_its_kill_is_ended_anew() {
    let stages = Rc::new(RefCell::new(Vec::new()));
    let theirs = stages.clone();
    let stubborn = pila::tasklet(move || {
        let caught = catch_unwind(|| block_on(pending::<()>()));
        theirs.borrow_mut().push(caught.is_err());
        theirs.borrow_mut().push(block_on(ready(true)));
        theirs
            .borrow_mut()
            .push(matches!(try_block_on(pending::<()>()), Err(Interrupt::Refused(_))));
        block_on(pending::<()>());
        theirs.borrow_mut().push(false);
    });
    pila::schedule();
    stubborn.kill().unwrap();
    assert!(matches!(stubborn.join(), Err(JoinError::Killed)));
    assert_eq!(*stages.borrow(), [true; 3]);
    // As is one whose time was up.
    let limit = Duration::from_millis(1);
    let late = pila::timeout(limit, || {
        let caught = catch_unwind(AssertUnwindSafe(|| block_on(once(drop))));
        assert!(caught.is_err());
        block_on(pending::<()>());
    });
    assert_eq!(late.unwrap_err().limit(), limit);
}

#[test]
fn an_error_can_be_thrown_into_it() {
    let tasklet = pila::tasklet(|| match try_block_on(pending::<()>()) {
        Err(Interrupt::Thrown(error)) => error.to_string(),
        other => panic!("{other:?}"),
    });
    pila::schedule();
    tasklet.throw("enough").unwrap();
    assert_eq!(tasklet.join().unwrap(), "enough");
}

/// A waker that says on which tasklet it was woken.
#[derive(Default)]
struct Told(Mutex<Vec<u64>>);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.0.lock().unwrap().push(pila::current().id().get());
    }
}

#[test]
fn a_relay_has_foreign_wakers_woken_on_the_tasklet_that_polled() {
    bounded(|| {
        let told = Arc::new(Told::default());
        let foreign = Waker::from(told.clone());
        let relay = Rc::new(RefCell::new(None::<Arc<Relay>>));
        let (theirs, waker) = (relay.clone(), foreign.clone());
        let polls = pila::tasklet(move || {
            block_on(poll_fn(|context| {
                if theirs.borrow().is_some() {
                    return Poll::Ready(());
                }
                *theirs.borrow_mut() = Some(Arc::new(Relay::new(&waker).unwrap()));
                let ring = theirs.borrow().clone().unwrap();
                assert!(ring.renew(&waker));
                drop(context.waker().clone());
                thread::spawn(move || ring.ring());
                Poll::Pending
            }));
        });
        let id = polls.id().get();
        polls.join().unwrap();
        assert_eq!(*told.0.lock().unwrap(), [id]);
        assert!(!relay.borrow().as_ref().unwrap().is_pending());
        relay.take().unwrap().ring();
        assert_eq!(told.0.lock().unwrap().len(), 1);
    });
}

#[test]
fn a_call_that_ends_wakes_what_waits_with_its_help() {
    let told = Arc::new(Told::default());
    let foreign = Waker::from(told.clone());
    let relays = Rc::new(RefCell::new(Vec::new()));
    let theirs = relays.clone();
    let victim = pila::tasklet(move || {
        block_on(poll_fn::<(), _>(|_| {
            theirs.borrow_mut().extend((0..3).map(|_| Relay::new(&foreign).unwrap()));
            Poll::Pending
        }));
    });
    let id = victim.id().get();
    pila::schedule();
    drop(relays.borrow_mut().pop());
    victim.kill().unwrap();
    assert_eq!(*told.0.lock().unwrap(), [id; 2]);
    assert!(relays.borrow().iter().all(|relay| !relay.is_pending()));
    assert_eq!(Arc::strong_count(&told), 1);
}

#[test]
fn a_wait_on_relays_is_no_deadlock_until_the_last_is_gone() {
    bounded(|| {
        let relay = Rc::new(RefCell::new(None));
        let theirs = relay.clone();
        pila::tasklet(move || {
            pila::sleep(Duration::from_millis(1));
            drop(theirs.take());
        });
        let mut polls = 0;
        deadlock(poll_fn::<(), _>(|_| {
            polls += 1;
            if polls == 1 {
                *relay.borrow_mut() = Relay::new(Waker::noop());
            }
            Poll::Pending
        }));
        assert_eq!(polls, 2);
    });
}
