//! Threads that end while scopes are suspended in them: what borrows is leaked together with what it borrows.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use pila::{Channel, run, schedule, schedule_remove, scope, shield, sleep, tasklet, timeout};

const NEVER: Duration = Duration::from_secs(3600);

/// Counts its drops from any thread.
struct Counted(Arc<AtomicU32>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Lies on the owner's frame. Whoever uses it after it was dropped finds rubbish, or AddressSanitizer does.
struct Lent(Box<[u64; 64]>);

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.fill(0);
    }
}

/// Leaves a scope, with tasklets in all states, suspended in a tasklet of the calling thread.
fn suspend(counter: &Arc<AtomicU32>, gate: &Channel<()>) {
    let (counter, gate) = (counter.clone(), gate.clone());
    tasklet(move || {
        let lent = Lent(Box::new([7; 64]));
        let uses = |counted: Counted| {
            let (lent, gate) = (&lent, &gate);
            move || {
                let _counted = counted;
                let _ = gate.receive();
                assert!(lent.0.iter().all(|&word| word == 7), "what it borrows is gone");
            }
        };
        let new = || Counted(counter.clone());
        scope(|s| {
            s.tasklet(uses(new()));
            s.tasklet(uses(new()));
            s.bind(uses(new()));
            // Its result borrows, and is held by nobody that goes on.
            let result = s.tasklet(|| (&lent, new()));
            let holder = new();
            s.tasklet(move || {
                let _held = (result, holder);
                schedule_remove();
            });
            s.tasklet(|| {
                let _counted = new();
                shield(|| _ = timeout(NEVER, || sleep(NEVER)));
            });
            s.tasklet(|| {
                let inner = Lent(Box::new([7; 64]));
                scope(|deeper| {
                    deeper.tasklet(|| {
                        let _ = gate.receive();
                        assert!(inner.0.iter().chain(&*lent.0).all(|&word| word == 7));
                    });
                    deeper.bind(uses(new()));
                });
            });
        });
    });
    for _ in 0..4 {
        schedule();
    }
}

#[test]
fn nothing_of_a_suspended_scope_is_dropped_or_goes_on() {
    let counter = Arc::new(AtomicU32::new(0));
    let theirs = counter.clone();
    thread::spawn(move || suspend(&theirs, &Channel::new())).join().unwrap();
    assert_eq!(counter.load(Ordering::Relaxed), 0);
}

#[test]
fn nothing_of_it_goes_on_in_the_destructors_of_thread_locals() {
    struct Wakes(Channel<()>);
    impl Drop for Wakes {
        fn drop(&mut self) {
            self.0.close();
            run();
            schedule();
            sleep(Duration::from_millis(1));
        }
    }
    thread_local! {
        static EARLY: std::cell::OnceCell<Wakes> = const { std::cell::OnceCell::new() };
    }
    let counter = Arc::new(AtomicU32::new(0));
    let theirs = counter.clone();
    let ended = thread::spawn(move || {
        let gate = Channel::new();
        EARLY.with(|early| assert!(early.set(Wakes(gate.clone())).is_ok()));
        suspend(&theirs, &gate);
    });
    ended.join().unwrap();
    assert_eq!(counter.load(Ordering::Relaxed), 0);
}

/// What a tasklet lends to a thread of std's lies on the tasklet's stack, which nobody comes back to when the tasklet's own
/// thread ends. It is there for as long as the process.
#[test]
fn what_a_leaked_tasklet_lends_to_another_thread_stays_where_it_is() {
    let (over, reads) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (theirs, count) = (over.clone(), reads.clone());
    let lend = move || {
        let lent = std::hint::black_box([7_u64; 64]);
        thread::scope(|s| {
            s.spawn(|| {
                while theirs.load(Ordering::Relaxed) == 0 {
                    assert!(std::hint::black_box(&lent).iter().all(|&word| word == 7));
                    count.fetch_add(1, Ordering::Relaxed);
                    thread::yield_now();
                }
                count.fetch_or(1 << 31, Ordering::Relaxed);
            });
            sleep(NEVER);
        });
    };
    let ended = thread::spawn(move || {
        let on_big = lend.clone();
        tasklet(lend);
        tasklet(move || pila::on_big_stack(on_big));
        // Others, whose stacks are given back and unmapped with the thread.
        for _ in 0..100 {
            tasklet(schedule);
        }
        for _ in 0..3 {
            schedule();
        }
        pila::trim();
    });
    ended.join().unwrap();
    // Other threads take stacks, and write to them.
    for _ in 0..5 {
        let before = reads.load(Ordering::Relaxed);
        thread::spawn(|| {
            (0..1000).for_each(|_| drop(tasklet(|| _ = std::hint::black_box([0_u64; 1000]))));
            run();
        })
        .join()
        .unwrap();
        while reads.load(Ordering::Relaxed) < before + 10 {
            thread::yield_now();
        }
    }
    over.store(1, Ordering::Relaxed);
    while reads.load(Ordering::Relaxed) < 1 << 31 {
        thread::yield_now();
    }
}

#[test]
fn a_panic_of_the_thread_leaves_it_as_it_is() {
    let counter = Arc::new(AtomicU32::new(0));
    let theirs = counter.clone();
    let ended = thread::spawn(move || {
        suspend(&theirs, &Channel::new());
        std::panic::resume_unwind(Box::new("the thread's"));
    });
    assert!(ended.join().is_err());
    assert_eq!(counter.load(Ordering::Relaxed), 0);
}

#[test]
fn a_scope_of_main_has_ended_before_its_thread_can() {
    let counter = Arc::new(AtomicU32::new(0));
    let theirs = counter.clone();
    let ended = thread::spawn(move || {
        let lent = Lent(Box::new([7; 64]));
        scope(|s| {
            for _ in 0..3 {
                let counted = Counted(theirs.clone());
                let lent = &lent;
                mem::forget(s.tasklet(move || {
                    let _counted = counted;
                    let _ = Channel::<()>::new().receive();
                    assert_eq!(lent.0[0], 7);
                }));
            }
            schedule();
            std::panic::resume_unwind(Box::new("main's"));
        });
    });
    assert!(ended.join().is_err());
    assert_eq!(counter.load(Ordering::Relaxed), 3);
}

#[test]
fn a_forgotten_frame_of_a_timeout_or_a_shield_leaves_no_trace() {
    // The frames of leaked stacks: their timers and their numbers mean nothing to another thread.
    for _ in 0..20 {
        thread::spawn(|| {
            for _ in 0..20 {
                tasklet(|| _ = timeout(Duration::from_millis(1), || shield(|| sleep(NEVER))));
                tasklet(|| _ = timeout(NEVER, || timeout(NEVER, || sleep(NEVER))));
            }
            schedule();
        })
        .join()
        .unwrap();
        let fine = catch_unwind(AssertUnwindSafe(|| sleep(Duration::from_micros(100))));
        assert!(fine.is_ok());
    }
}
