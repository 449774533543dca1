//! Which of two processors a thread keeps to, and how far apart the machine has put the two.

use std::{
    hint,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Who keeps to a processor: what is measured to the first that this process may use, what loads it to the last.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Measured,
    Load,
}

impl Side {
    /// Binds the calling thread, as far as the system lets it.
    pub(crate) fn keep_to(self) {
        // Asked once, for threads inherit to what the one that made them was bound.
        static ALLOWED: OnceLock<CpuSet> = OnceLock::new();
        let allowed = ALLOWED.get_or_init(|| sched_getaffinity(None).unwrap_or_default());
        let mut processors = (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor));
        let chosen = match self {
            Side::Measured => processors.next(),
            Side::Load => processors.next_back(),
        };
        let mut only = CpuSet::new();
        chosen.into_iter().for_each(|processor| only.set(processor));
        // Unbound, the rows are only noisier.
        let _ = sched_setaffinity(None, &only);
    }
}

/// Says on standard error how far apart the two processors are, `when` in relation to a row.
pub(crate) fn print_distance(when: &str) {
    eprintln!("cache line there and back: {:?} {when}", cache_line_round_trip());
}

/// How long a cache line takes from one side's processor to the other's and back. The caller is the load.
pub(crate) fn cache_line_round_trip() -> Duration {
    const TRIPS: u64 = 20_000;
    static LINE: AtomicU64 = AtomicU64::new(0);
    let wait_for = |turn| {
        let mut spins = 0_u32;
        while LINE.load(Ordering::Acquire) != turn {
            hint::spin_loop();
            spins += 1;
            // Where both sides share one processor.
            if spins.is_multiple_of(10_000) {
                thread::yield_now();
            }
        }
    };
    LINE.store(0, Ordering::Release);
    let other = thread::spawn(move || {
        Side::Measured.keep_to();
        for trip in 0..TRIPS {
            wait_for(2 * trip + 1);
            LINE.store(2 * trip + 2, Ordering::Release);
        }
    });
    LINE.store(1, Ordering::Release);
    wait_for(2);
    let start = Instant::now();
    for trip in 1..TRIPS {
        LINE.store(2 * trip + 1, Ordering::Release);
        wait_for(2 * trip + 2);
    }
    let time = start.elapsed() / (TRIPS as u32 - 1);
    other.join().expect("it does not panic");
    time
}
