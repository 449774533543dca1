//! `Tally`: how far the mails are, what went wrong with those that failed, and what there is to say in the end.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use super::status;
use crate::smtp::error::{MailError, Step};

/// The score, shared by all that send; on one thread, so without a lock.
pub(crate) struct Tally {
    /// How many mails there are to send.
    mails: u32,
    /// The number of the mail that is next.
    next: Cell<u32>,
    /// How many are sent.
    pub(crate) sent: Cell<u32>,
    /// Those that are not.
    failures: RefCell<Failures>,
    /// The most threads this process was seen to have while it sent.
    threads: Cell<u64>,
    started: Instant,
    /// When the last mail ended that has.
    ended: Cell<Instant>,
}

impl Tally {
    /// Starts the clock.
    pub(crate) fn new(mails: u32) -> Self {
        let now = Instant::now();
        Self {
            mails,
            next: Cell::new(0),
            sent: Cell::new(0),
            failures: RefCell::default(),
            threads: Cell::new(status::threads().unwrap_or(0)),
            started: now,
            ended: Cell::new(now),
        }
    }

    /// The number of a mail that nobody has begun, while there is one.
    pub(crate) fn take_number(&self) -> Option<u32> {
        let number = self.next.get();
        self.next.set(number + 1);
        (number < self.mails).then_some(number)
    }

    /// Notes that mail `number` was not sent.
    pub(crate) fn fail(&self, number: u32, error: &MailError) {
        self.failures.borrow_mut().add(number, error);
    }

    /// Notes that a mail has ended, well or not.
    pub(crate) fn end_one(&self) {
        self.ended.set(Instant::now());
        // Asking for the threads costs a file read: 14 of them for 10,000 mails do not count.
        if self.finished().is_power_of_two() {
            self.threads.set(self.threads.get().max(status::threads().unwrap_or(0)));
        }
    }

    /// How many mails have ended, well or not.
    pub(crate) fn finished(&self) -> u32 {
        self.sent.get() + self.failures.borrow().count
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_complete(&self) -> bool {
        self.finished() == self.mails
    }

    /// Whether each mail was sent.
    pub(crate) fn is_success(&self) -> bool {
        self.sent.get() == self.mails
    }

    /// Tells what has happened, in one line that ends with what only the caller knows.
    pub(crate) fn summary(&self, connections: usize) -> String {
        let Self { mails, sent, threads, .. } = self;
        let (sent, threads) = (sent.get(), threads.get());
        let elapsed = self.ended.get() - self.started;
        let rate = rate(sent, elapsed);
        let plural = if threads == 1 { "" } else { "s" };
        let mib = status::peak_kib().unwrap_or(0).div_ceil(1024);
        format!(
            "sent {sent} of {mails} mails in {:.2} s on {threads} thread{plural}: {rate} mails/s, \
             at most {connections} at once, {mib} MiB peak",
            elapsed.as_secs_f64()
        )
    }

    /// The mails that failed, by kind, as a table; empty if there are none.
    pub(crate) fn failures(&self) -> String {
        self.failures.borrow().to_string()
    }
}

/// How many mails a second that was, rounded down.
fn rate(mails: u32, elapsed: Duration) -> u64 {
    (u128::from(mails) * 1_000_000_000).checked_div(elapsed.as_nanos()).unwrap_or(0) as u64
}

/// The mails that failed, sorted by the step and what happened there.
#[derive(Default)]
struct Failures {
    count: u32,
    kinds: BTreeMap<(Step, String), Kind>,
}

/// The mails that failed in one way.
struct Kind {
    count: u32,
    /// What the first of them had to say.
    example: String,
}

impl Failures {
    fn add(&mut self, number: u32, error: &MailError) {
        self.count += 1;
        let kind = self.kinds.entry((error.step, error.cause.kind())).or_insert_with(|| Kind {
            count: 0,
            example: format!("mail {number}: {:.100}", error.cause.to_string()),
        });
        kind.count += 1;
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kinds.is_empty() {
            return Ok(());
        }
        writeln!(f, "{:<9}  {:<20}  {:>8}  for example", "step", "what happened", "mails")?;
        for ((step, what), Kind { count, example }) in &self.kinds {
            writeln!(f, "{step:<9}  {what:<20}  {count:>8}  {example}")?;
        }
        Ok(())
    }
}
