//! A thread's pulse: whether it still switches, as the stall watch feels it.
//!
//! - The thread itself feels it, in the handler of the watch's signal: so a switch has nothing to leave for anyone. See
//!   [`LiveFlags::mark`](crate::table::LiveFlags::mark).
//! - In the handler nothing is allocated or freed, and no lock is waited for.

use std::{
    mem,
    panic::Location,
    sync::{
        Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{backtrace::MAX_CALLS, report::Who};

/// One thread's pulse.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// Whether there is nothing to feel, for the loop waits in its driver.
    rests: AtomicBool,
    /// Whether main was found to run and to hold nobody up: it is seldom looked at then, for a program may do all its work
    /// there.
    alone: AtomicBool,
    /// How often it was not looked at for that reason.
    passed_over: AtomicU32,
    /// Whether a signal of the watch is on its way.
    expected: AtomicBool,
    /// When the tasklet that runs was first met, in nanoseconds, and how long it may go on before the next report.
    since: AtomicU64,
    patience: AtomicU64,
    /// What the watch is to report.
    stall: Mutex<Stall>,
}

/// A tasklet that has not switched for too long.
#[derive(Debug)]
pub(crate) struct Stall {
    /// Which one; `None` while there is nothing to report.
    pub(crate) who: Option<Who>,
    pub(crate) created: Option<&'static Location<'static>>,
    pub(crate) lasts: Duration,
    /// Where it was.
    pub(crate) calls: Vec<usize>,
}

impl Stall {
    fn none() -> Stall {
        Stall {
            who: None,
            created: None,
            lasts: Duration::ZERO,
            calls: Vec::with_capacity(MAX_CALLS),
        }
    }
}

impl Pulse {
    pub(crate) fn new() -> Pulse {
        Pulse {
            rests: AtomicBool::new(false),
            alone: AtomicBool::new(false),
            passed_over: AtomicU32::new(0),
            expected: AtomicBool::new(false),
            since: AtomicU64::new(0),
            patience: AtomicU64::new(0),
            stall: Mutex::new(Stall::none()),
        }
    }

    /// The loop waits while what this returns lives.
    pub(crate) fn rest(&self) -> Rest<'_> {
        self.rests.store(true, Ordering::Relaxed);
        Rest(self)
    }

    // For the handler.

    pub(crate) fn rests(&self) -> bool {
        self.rests.load(Ordering::Relaxed)
    }

    /// Whether it is the watch that asks: then, once.
    pub(crate) fn is_asked(&self) -> bool {
        self.expected.swap(false, Ordering::Relaxed)
    }

    /// Main runs, and holds nobody up.
    pub(crate) fn is_alone(&self) {
        self.alone.store(true, Ordering::Relaxed);
    }

    /// Another one runs than last time.
    pub(crate) fn beats(&self, now: u64, limit: u64) {
        self.alone.store(false, Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
        self.patience.store(limit, Ordering::Relaxed);
    }

    /// How long the same one has been running, if that is long enough for a report.
    pub(crate) fn falters(&self, now: u64) -> Option<Duration> {
        let lasts = now.saturating_sub(self.since.load(Ordering::Relaxed));
        let is_due = lasts >= self.patience.load(Ordering::Relaxed);
        is_due.then_some(Duration::from_nanos(lasts))
    }

    /// Lets `fill` leave a report, unless the last one has not been read. The next is due when the stall is ten times as
    /// long.
    pub(crate) fn report(&self, lasts: Duration, fill: impl FnOnce(&mut Stall)) {
        let mut stall = match self.stall.try_lock() {
            Ok(stall) => stall,
            Err(TryLockError::Poisoned(stall)) => stall.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if stall.who.is_some() {
            return;
        }
        stall.lasts = lasts;
        fill(&mut stall);
        let patience = u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX).saturating_mul(10);
        self.patience.store(patience, Ordering::Relaxed);
    }

    // For the watch.

    /// Whether it is to be asked now, which is noted; every so many times, while main is alone.
    pub(crate) fn is_due(&self, seldom: u32) -> bool {
        if self.rests() {
            return false;
        }
        let passed_over = self.passed_over.fetch_add(1, Ordering::Relaxed) + 1;
        let is_due = !self.alone.load(Ordering::Relaxed) || passed_over >= seldom;
        if is_due {
            self.passed_over.store(0, Ordering::Relaxed);
            self.expected.store(true, Ordering::Relaxed);
        }
        is_due
    }

    /// Takes the report, if there is one.
    pub(crate) fn take(&self) -> Option<Stall> {
        self.stall().who.as_ref()?;
        // The handler neither makes nor frees one: it fills what it finds.
        let empty = Stall::none();
        Some(mem::replace(&mut *self.stall(), empty))
    }

    /// No code that can panic runs under this lock, so a poisoned one is still sound.
    fn stall(&self) -> MutexGuard<'_, Stall> {
        self.stall.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Pulse::rest`].
#[derive(Debug)]
pub(crate) struct Rest<'a>(&'a Pulse);

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        self.0.rests.store(false, Ordering::Relaxed);
    }
}
