//! The stall watch: a tasklet that does not switch for long is reported, with its backtrace, while it still runs.
//!
//! - A thread of its own sends every thread that has a scheduler a signal, twice within the time allowed. The handler, on
//!   the thread itself, sees by a mark that every switch wipes out whether there was one since: nobody pays for that
//!   but the one who watches.
//! - A thread that waits in its driver is let alone.
//! - The handler takes addresses; names are found, and lines written, by yet another thread.

use std::{
    collections::VecDeque,
    env, io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    backtrace::{Names, Trace},
    current::with,
    dump_signal::print,
    pulse::{Pulse, Stall},
    report::Origin,
    roster::{self, Member},
    scheduler::Scheduler,
    stall_signal,
    table::MAIN,
};

/// The most reports in any minute.
const REPORTS: usize = 5;
const MINUTE: Duration = Duration::from_secs(60);

/// How often a thread is looked at whose main runs and holds nobody up.
const SELDOM: Duration = Duration::from_secs(1);

/// The shortest time that can be allowed.
const SHORTEST: Duration = Duration::from_millis(1);

/// What is allowed, in nanoseconds.
static LIMIT: AtomicU64 = AtomicU64::new(u64::MAX);

/// Whether the watch has begun, and how it hears of another limit.
static WATCH: Mutex<bool> = Mutex::new(false);
static CHANGED: Condvar = Condvar::new();

/// From now on a tasklet of this process that runs for `limit` without switching is reported to standard error, with the
/// calls it is in, while it goes on:
///
/// ```text
/// tasklet 'x' (#7, created at src/main.rs:12:5) has not switched for 52 ms, at:
///    0: app::parse
///              at src/parse.rs:30:9
/// ```
///
/// It computes for long, or it blocks the thread: it calls what std or the system has for threads. A stall that lasts is
/// reported again each time it is ten times as long; in a minute there are at most five reports. Main is reported only
/// while others are in the run queue or wait for time, a socket or another thread; after it ran alone, that may take a
/// second longer. A thread that waits for work is never reported. Another call changes the limit; with [`Duration::MAX`] nothing is reported any more.
///
/// The environment variable `PILA_STALL_MS=50` does the same, for programs that do not call this.
///
/// It costs a signal (`SIGURG`) to each busy thread twice in every `limit`, some 5 µs each; once a second, while main runs
/// alone. System calls that the signal
/// interrupts are begun again, but for those that never are, such as `poll`: outside of pila they may fail with
/// [`Interrupted`](io::ErrorKind::Interrupted). Other uses of `SIGURG` go on as before.
///
/// # Errors
/// When the system refuses the handler or another thread.
///
/// ```
/// # use pila_runtime as pila;
/// use std::time::Duration;
///
/// pila::watch_stalls(Duration::from_millis(50))?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn watch_stalls(limit: Duration) -> io::Result<()> {
    watch(limit)?;
    with(|scheduler| {
        scheduler.current();
        scheduler.join();
    });
    Ok(())
}

/// Begins to watch if the environment says so.
pub(crate) fn watch_if_told_to() {
    static ASKED: Once = Once::new();
    ASKED.call_once(|| {
        let Some(limit) = env::var_os("PILA_STALL_MS") else { return };
        let limit = limit.to_str().and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0);
        let begun = match limit {
            Some(limit) => watch(Duration::from_millis(limit)),
            None => Err(io::Error::other("PILA_STALL_MS is to be a number of milliseconds, as 50")),
        };
        if let Err(error) = begun {
            print(&format!("pila: no watch for stalls: {error}\n"));
        }
    });
}

fn watch(limit: Duration) -> io::Result<()> {
    let mut begun = begun();
    if !*begun {
        stall_signal::install(feel)?;
        // Names may take long to be found: the watch goes on meanwhile.
        let (stalls, reported) = mpsc::channel();
        let reporter = thread::Builder::new().name("pila-stall-names".into());
        reporter.spawn(move || Reporter::default().go(reported))?;
        thread::Builder::new().name("pila-stall".into()).spawn(move || look(&stalls))?;
        *begun = true;
    }
    let limit = u64::try_from(limit.max(SHORTEST).as_nanos()).unwrap_or(u64::MAX);
    LIMIT.store(limit, Ordering::Relaxed);
    roster::open();
    CHANGED.notify_one();
    Ok(())
}

/// No code that can panic runs under this lock, so a poisoned one is still sound.
fn begun() -> MutexGuard<'static, bool> {
    WATCH.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Feels the pulse of the calling thread, if the watch has asked for it: the signal's handler, which interrupts it at any
/// instruction. `now` is a time in nanoseconds, `calls` shows the calls that were interrupted.
fn feel(now: u64, calls: &mut dyn FnMut(&mut Vec<usize>)) -> bool {
    with(|scheduler| {
        let Some(member) = scheduler.member() else { return false };
        if !member.pulse.is_asked() {
            return false;
        }
        feel_pulse(scheduler, &member.pulse, now, calls);
        true
    })
}

fn feel_pulse(
    scheduler: &Scheduler,
    pulse: &Pulse,
    now: u64,
    calls: &mut dyn FnMut(&mut Vec<usize>),
) {
    if pulse.rests() || scheduler.has_ended() {
        return;
    }
    if !scheduler.flags.mark() {
        return pulse.beats(now, LIMIT.load(Ordering::Relaxed));
    }
    let Some(lasts) = pulse.falters(now) else { return };
    // What interrupts a change of it looks again next time.
    let Ok(core) = scheduler.core.try_borrow() else { return };
    if core.current == MAIN && core.queue.is_empty() && core.outside == 0 {
        return pulse.is_alone();
    }
    if core.current != MAIN && !scheduler.switch().is_inside() {
        // The loop is at work.
        return;
    }
    let Some(task) = core.tasks.get(core.current as usize) else { return };
    pulse.report(lasts, |stall| {
        stall.who = Some(task.who());
        stall.created = Some(task.created);
        calls(&mut stall.calls);
    });
}

/// Watches, for ever.
fn look(stalls: &Sender<(Arc<Member>, Stall)>) {
    loop {
        let seldom = SELDOM.as_nanos().div_ceil(pause().as_nanos());
        let seldom = u32::try_from(seldom).unwrap_or(u32::MAX);
        for member in roster::members() {
            if member.pulse.is_due(seldom) {
                stall_signal::send(member.number);
            }
            if let Some(stall) = member.pulse.take() {
                // Who reports goes on as long as this does.
                stalls.send((member, stall)).ok();
            }
        }
    }
}

/// Waits for half the time that is allowed, and says how long that is.
fn pause() -> Duration {
    let limit = LIMIT.load(Ordering::Relaxed);
    let half = Duration::from_nanos(limit / 2);
    let is_same = |_: &mut bool| limit == LIMIT.load(Ordering::Relaxed);
    let until = CHANGED.wait_timeout_while(begun(), half, is_same);
    drop(until.unwrap_or_else(PoisonError::into_inner));
    half
}

/// Finds names and prints.
#[derive(Default, Debug)]
struct Reporter {
    names: Names,
    /// When the last few reports were printed.
    printed: VecDeque<Instant>,
    /// How many have not been since.
    left_out: usize,
}

impl Reporter {
    fn go(mut self, stalls: Receiver<(Arc<Member>, Stall)>) {
        for (member, stall) in stalls {
            self.report(&member, &stall);
        }
    }

    /// Whether another report may be printed at `now`. Counts those that may not.
    fn may_print(&mut self, now: Instant) -> bool {
        while self.printed.front().is_some_and(|first| now.duration_since(*first) >= MINUTE) {
            self.printed.pop_front();
        }
        let may_print = self.printed.len() < REPORTS;
        match may_print {
            true => self.printed.push_back(now),
            false => self.left_out += 1,
        }
        may_print
    }

    fn report(&mut self, member: &Member, stall: &Stall) {
        if !self.may_print(Instant::now()) {
            return;
        }
        let (Some(who), Some(created)) = (&stall.who, stall.created) else { return };
        let origin = Origin { who, created };
        let thread = match member.name.as_deref() {
            Some("main") => String::new(),
            Some(name) => format!(" of thread '{name}'"),
            None => format!(" of thread {}", member.number),
        };
        let left_out = match std::mem::take(&mut self.left_out) {
            0 => String::new(),
            more => format!(" ({more} more stalls before it were not reported)"),
        };
        let milliseconds = stall.lasts.as_millis();
        // The process may end before the names are found.
        print(&format!(
            "tasklet {origin}{thread} has not switched for {milliseconds} ms{left_out}, at:\n"
        ));
        let calls = self.names.name(&Trace::of(&stall.calls));
        print(&format!("{calls}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_reports_are_printed_in_any_minute() {
        let (mut reporter, start) = (Reporter::default(), Instant::now());
        let mut may_print = |second| reporter.may_print(start + Duration::from_secs(second));
        let printed: Vec<u64> = (0..200).step_by(7).filter(|second| may_print(*second)).collect();
        assert_eq!(
            printed,
            [0, 7, 14, 21, 28, 63, 70, 77, 84, 91, 126, 133, 140, 147, 154, 189, 196]
        );
        assert_eq!(reporter.left_out, 12);
    }
}
