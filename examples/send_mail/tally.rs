//! `Tally`: what has become of the mails of one process; `Score`: what there is to say of it in the end.
//!
//! It counts with atomic instructions, so that it is right whatever way the mails are sent: the ways keep counts of their
//! own, as their authors would, and those are compared with this one.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::{smtp::error::MailError, status};

/// What has become of the mails, whoever sends them.
#[derive(Default)]
pub(crate) struct Tally {
    sent: AtomicU32,
    /// The most threads that were seen.
    threads: AtomicU64,
    /// What other processes have sent for this one, and what they took for it.
    others: Mutex<Score>,
    /// Of the mails that failed, how many did so in which way.
    failures: Mutex<BTreeMap<String, u32>>,
    /// What else happened.
    notes: Mutex<Vec<String>>,
}

/// How a way has fared. What several processes took is added up.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Score {
    /// How many mails the server has accepted.
    pub(crate) sent: u32,
    /// How many the way itself has counted.
    pub(crate) counted: u32,
    /// How long it took.
    pub(crate) elapsed: Duration,
    /// How much processor time it took.
    pub(crate) cpu: Duration,
    /// How many threads there were at most.
    pub(crate) threads: u64,
    /// How much memory was resident at most, in KiB.
    pub(crate) peak_kib: u64,
    /// Of the mails that failed, how many did so in which way.
    pub(crate) failures: BTreeMap<String, u32>,
    /// What else happened.
    pub(crate) notes: Vec<String>,
}

impl Tally {
    /// Notes what has become of a mail, and says whether it was sent.
    pub(crate) fn note(&self, outcome: Result<(), MailError>) -> bool {
        match outcome {
            Ok(()) => {
                let sent = self.sent.fetch_add(1, Relaxed) + 1;
                // Asking for the threads costs a file read: 14 of them for 10,000 mails do not count.
                if sent.is_power_of_two() {
                    self.threads.fetch_max(status::threads().unwrap_or(0), Relaxed);
                }
                true
            }
            Err(error) => {
                let kind = format!("{}: {}", error.step, error.cause.kind());
                *lock(&self.failures).entry(kind).or_default() += 1;
                false
            }
        }
    }

    /// Notes something that whoever reads the score should know.
    pub(crate) fn tell(&self, note: String) {
        lock(&self.notes).push(note);
    }

    /// How many mails were sent from here.
    pub(crate) fn sent(&self) -> u32 {
        self.sent.load(Relaxed)
    }

    /// Adds what another process has done for this one.
    pub(crate) fn add(&self, other: Score) {
        let mut others = lock(&self.others);
        others.sent += other.sent;
        others.cpu += other.cpu;
        others.threads += other.threads;
        others.peak_kib += other.peak_kib;
        for (kind, mails) in other.failures {
            *others.failures.entry(kind).or_default() += mails;
        }
        others.notes.extend(other.notes);
    }

    /// How it has gone: the way has counted `counted` mails, `elapsed` after it began, when the process had used `cpu`.
    pub(crate) fn score(&self, counted: u32, elapsed: Duration, cpu: Duration) -> Score {
        let own = Score {
            sent: self.sent.load(Relaxed),
            counted: 0,
            elapsed: Duration::ZERO,
            cpu: cpu_time().saturating_sub(cpu),
            threads: self.threads.load(Relaxed).max(status::threads().unwrap_or(0)),
            peak_kib: status::peak_kib().unwrap_or(0),
            failures: lock(&self.failures).clone(),
            notes: lock(&self.notes).clone(),
        };
        self.add(own);
        Score { counted, elapsed, ..lock(&self.others).clone() }
    }
}

/// How much processor time this process has used, all its threads together, those among them that have ended.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
