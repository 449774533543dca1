//! Dumps on a signal: a thread waits for it and asks every scheduler of the process, which each print their own.
//!
//! - The handler of the signal does next to nothing: it wakes the thread `pila-dump`.
//! - A dump is printed by the loop of its thread, which is woken if it waits. A thread whose tasklet does not switch cannot
//!   be traced from outside: it prints when that tasklet does, and who waits is told so.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    current::with,
    dump::Dump,
    roster::{self, Member},
    scheduler::Scheduler,
    signal::Signal,
    signals::{Signals, signals},
    stall_signal,
};

/// The name of the threads that wait for signals.
const WAITER: &str = "pila-dump";

/// How long a thread has to answer before it is said that it does not.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a dump is printed as: see [`dump_on_signal`].
///
/// ```
/// # use pila_runtime as pila;
/// use pila::{DumpFormat, Signal};
///
/// pila::dump_on_signal(Signal::QUIT, DumpFormat::Text)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DumpFormat {
    /// For people: [`Dump`] as `Display` gives it.
    Text,
    /// For programs: a line of JSON for each thread, as [`Dump::to_json`] gives it.
    Json,
}

/// What threads are asked for, as bits.
const TEXT: u8 = 1;
const JSON: u8 = 2;

/// Whether threads may be asked.
static AWAITED: AtomicBool = AtomicBool::new(false);

/// The signals that are waited for, each by a thread, and what it makes the others print.
static FORMATS: Mutex<BTreeMap<Signal, DumpFormat>> = Mutex::new(BTreeMap::new());

/// Notified when a thread has seen what it is asked for.
static SEEN: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());

/// From now on `signal` makes every thread of the process that has a scheduler print a [`dump`](crate::dump) of its
/// tasklets to standard error. Another call for the same signal changes the format.
///
/// A thread prints when its loop next looks outside: at once if it is idle, else after 61 switches at most. While a tasklet
/// computes or blocks the thread, nothing of that thread can be printed; after a second a line says which thread that
/// is. [`watch_stalls`](crate::watch_stalls) shows such a tasklet. The same holds for main while it does other things than
/// wait with pila.
///
/// Call it early in `main`: a thread that is idle already when this is first called comes to know of it when it next
/// runs.
///
/// # Errors
/// When the system refuses the handler or another thread.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::{DumpFormat, Signal};
///
/// // From now on `kill -USR1` shows what the program is doing.
/// pila::dump_on_signal(Signal::USER1, DumpFormat::Text)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn dump_on_signal(signal: Signal, format: DumpFormat) -> io::Result<()> {
    AWAITED.store(true, Ordering::Relaxed);
    roster::open();
    with(|scheduler| {
        scheduler.current();
        if let Some(member) = scheduler.join() {
            member.can_be_asked(|| scheduler.mailbox());
        }
    });
    let mut formats = formats();
    if !formats.contains_key(&signal) {
        wait_for(signal)?;
    }
    formats.insert(signal, format);
    Ok(())
}

/// Starts the thread that waits for `signal`, and waits until it does.
fn wait_for(signal: Signal) -> io::Result<()> {
    let (begun, begins) = mpsc::channel();
    let wait = move || match signals([signal]) {
        Ok(signals) => {
            begun.send(Ok(())).ok();
            wait(&signals);
        }
        Err(error) => _ = begun.send(Err(error)),
    };
    thread::Builder::new().name(WAITER.into()).spawn(wait)?;
    begins.recv().unwrap_or_else(|_| Err(io::Error::other("the thread for dumps has ended")))?;
    stall_signal::handle_on_alternate_stack(signal.number())
}

fn wait(signals: &Signals) {
    for signal in signals {
        let format = formats().get(&signal).copied();
        match format {
            Some(DumpFormat::Text) => ask_everyone(TEXT),
            Some(DumpFormat::Json) => ask_everyone(JSON),
            None => {}
        }
    }
}

/// No code that can panic runs under this lock, so a poisoned one is still sound.
fn formats() -> MutexGuard<'static, BTreeMap<Signal, DumpFormat>> {
    FORMATS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes all threads print, and says which does not.
fn ask_everyone(wanted: u8) {
    let is_asked = |member: &Arc<Member>| member.name.as_deref() != Some(WAITER);
    let others: Vec<_> = roster::members().into_iter().filter(is_asked).collect();
    for member in &others {
        member.ask(wanted);
    }
    let until = Instant::now() + PATIENCE;
    let (lock, seen) = &SEEN;
    let mut guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
    while others.iter().any(|member| member.is_awaited()) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        guard = seen.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    drop(guard);
    for member in others.iter().filter(|member| member.is_awaited()) {
        let name = member.name.as_deref().unwrap_or("without a name");
        print(&format!(
            "pila: thread '{name}' ({}) has not switched for a second: it prints its dump when it does\n",
            member.number
        ));
    }
}

/// Whether threads may be asked for dumps.
pub(crate) fn is_awaited() -> bool {
    AWAITED.load(Ordering::Relaxed)
}

/// Prints a dump of `scheduler`'s thread. On its native stack.
pub(crate) fn answer(scheduler: &Scheduler, wanted: u8) {
    let (lock, seen) = &SEEN;
    drop(lock.lock().unwrap_or_else(PoisonError::into_inner));
    seen.notify_all();
    let dump = Dump::of(scheduler);
    if wanted & TEXT != 0 {
        print(&format!("\n{dump}\n"));
    }
    if wanted & JSON != 0 {
        print(&format!("{}\n", dump.to_json()));
    }
}

/// Prints all of `text` with nothing of other threads in between. There is nobody to tell when that fails.
pub(crate) fn print(text: &str) {
    io::stderr().lock().write_all(text.as_bytes()).ok();
}
