//! A count that many threads raise at once: how many of their updates get lost, without a lock and with one, and among
//! tasklets.
//!
//! Among ten thousand mails it is rare that two threads meet in the few nanoseconds between the load and the store. Here
//! they do nothing else.

use std::{
    cell::Cell,
    hint,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::threads::Count;

const THREADS: u32 = 8;
const INCREMENTS: u32 = 100_000;

/// How long it is tried. On a machine whose cores are busy with other things the threads often run one by one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Of how many updates how many were lost.
#[derive(Debug, Serialize)]
pub(crate) struct Race {
    pub(crate) threads: u32,
    pub(crate) increments: u32,
    /// How many rounds it took until some were lost.
    pub(crate) rounds: u32,
    pub(crate) lost_without_a_lock: u32,
    pub(crate) lost_with_a_lock: u32,
    pub(crate) lost_among_tasklets: u32,
}

impl Race {
    pub(crate) fn run() -> Self {
        let lost = |count: u32| INCREMENTS - count;
        let (end, mut rounds, mut lost_without_a_lock) = (Instant::now() + PATIENCE, 0, 0);
        while lost_without_a_lock == 0 && Instant::now() < end {
            rounds += 1;
            lost_without_a_lock = lost(without_a_lock());
        }
        Self {
            threads: THREADS,
            increments: INCREMENTS,
            rounds,
            lost_without_a_lock,
            lost_with_a_lock: lost(with_a_lock()),
            lost_among_tasklets: lost(among_tasklets()),
        }
    }
}

fn without_a_lock() -> u32 {
    let count = Count::default();
    all_at_once(|| count.add_one());
    count.get()
}

fn with_a_lock() -> u32 {
    let count = Mutex::new(0);
    all_at_once(|| *count.lock().expect("no holder panics") += 1);
    count.into_inner().expect("no holder panics")
}

/// Has the threads do so many of these, beginning together.
fn all_at_once(add_one: impl Fn() + Sync) {
    let missing = AtomicU32::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                missing.fetch_sub(1, Relaxed);
                // Whoever slept here would have to be woken, and come late.
                while missing.load(Relaxed) > 0 {
                    hint::spin_loop();
                }
                (0..INCREMENTS / THREADS).for_each(|_| add_one());
            });
        }
    });
}

fn among_tasklets() -> u32 {
    let count = Cell::new(0);
    pila::scope(|scope| {
        for _ in 0..THREADS {
            scope.tasklet(|| {
                for _ in 0..INCREMENTS / THREADS {
                    count.set(count.get() + 1);
                    pila::schedule();
                }
            });
        }
    });
    count.get()
}
