//! The herald: a thread of the process that hears its signals and tells everyone who listens.
//!
//! - A handler of `signal-hook` writes a byte to a pipe, the herald reads it and does the rest: nothing of ours runs in a
//!   handler.
//! - A signal goes to all who listen for it when the herald comes to it. When nobody does, it has the effect that it had
//!   before anyone ever listened: a handler, once installed, stays, and Ctrl-C must not be dead.
//! - To one who has not received a signal yet the same is not told again, as the system does with one that is pending. So
//!   a queue with room for one of each is never full.
//! - Once a stop is under way and the process was asked to end before, the next such signal ends it, whatever its other
//!   threads do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use signal_hook::{
    iterator::{self, Handle},
    low_level,
};

use crate::{
    current::with,
    error::ReceiveError,
    signal::Signal,
    thread_queue::{QueueReceiver, QueueSender, thread_queue},
    wake::Waiting,
};

/// How long the last words of a process may take: what they are written to may be full.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How many stops are under way, on all threads.
static STOPS: AtomicUsize = AtomicUsize::new(0);

/// Whether the process was asked to end, since a stop last came to its end.
static ASKED: AtomicBool = AtomicBool::new(false);

static HERALD: Mutex<Herald> = Mutex::new(Herald {
    handle: None,
    listeners: BTreeMap::new(),
    was_default: BTreeMap::new(),
    next_number: 0,
});

struct Herald {
    /// Adds to the signals that the thread hears. `None` before there is the thread.
    handle: Option<Handle>,
    /// Who listens, by number.
    listeners: BTreeMap<u64, Listener>,
    /// The signals that the thread hears; whether each had its default effect before, and has it when nobody listens.
    was_default: BTreeMap<Signal, bool>,
    next_number: u64,
}

struct Listener {
    signals: BTreeSet<Signal>,
    pending: Arc<Pending>,
    sender: QueueSender<Signal>,
}

/// Which signals were told to a listener and not received yet, as bits.
#[derive(Default, Debug)]
struct Pending(AtomicU64);

impl Pending {
    /// False when it is among them already.
    fn add(&self, signal: Signal) -> bool {
        self.0.fetch_or(1 << signal.number(), Ordering::AcqRel) & (1 << signal.number()) == 0
    }

    fn remove(&self, signal: Signal) {
        self.0.fetch_and(!(1 << signal.number()), Ordering::AcqRel);
    }
}

/// Where a listener hears its signals. It listens until it is dropped or closed.
#[derive(Debug)]
pub(crate) struct Ear {
    number: u64,
    pending: Arc<Pending>,
    queue: QueueReceiver<Signal>,
}

impl Ear {
    /// Begins to listen for `signals`, of which there is one at least and none that cannot be received.
    pub(crate) fn new(signals: BTreeSet<Signal>) -> io::Result<Ear> {
        let mut herald = herald();
        for &signal in &signals {
            herald.hear(signal)?;
        }
        let (sender, queue) = thread_queue(signals.len());
        let pending = Arc::<Pending>::default();
        herald.next_number += 1;
        let number = herald.next_number;
        let listener = Listener { signals, pending: pending.clone(), sender };
        herald.listeners.insert(number, listener);
        Ok(Ear { number, pending, queue })
    }

    /// The next signal; waits for it until `timeout` has passed.
    pub(crate) fn receive(&self, timeout: Option<Duration>) -> Result<Signal, ReceiveError> {
        let deadline = timeout.and_then(|timeout| with(|scheduler| scheduler.deadline_in(timeout)));
        self.heard(self.queue.receive_until(&Waiting::Signal, |_| deadline))
    }

    /// The next signal if there is one.
    pub(crate) fn try_receive(&self) -> Result<Signal, ReceiveError> {
        self.heard(self.queue.try_receive())
    }

    fn heard(&self, received: Result<Signal, ReceiveError>) -> Result<Signal, ReceiveError> {
        // What comes before this line was pending together with it.
        received.inspect(|&signal| self.pending.remove(signal))
    }

    /// Listens no longer.
    pub(crate) fn close(&self) {
        let listener = herald().listeners.remove(&self.number);
        drop(listener);
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.close();
    }
}

/// No code that can panic runs under this lock, so a poisoned one is still sound.
fn herald() -> MutexGuard<'static, Herald> {
    HERALD.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Herald {
    /// Has the thread hear `signal`. What comes from now on waits until the caller lets go of the herald.
    fn hear(&mut self, signal: Signal) -> io::Result<()> {
        if self.was_default.contains_key(&signal) {
            return Ok(());
        }
        let is_default = is_default(signal);
        let handle = match &self.handle {
            Some(handle) => handle,
            None => self.handle.insert(begin()?),
        };
        handle.add_signal(signal.number())?;
        self.was_default.insert(signal, is_default);
        Ok(())
    }

    /// Tells everyone who listens for `signal`.
    fn tell(&mut self, signal: Signal) {
        // The thread of one who waited has ended: nobody is going to close its ear.
        self.listeners.retain(|_, listener| !listener.sender.is_closed());
        let mut is_heard = false;
        for listener in self.listeners.values() {
            if listener.signals.contains(&signal) {
                is_heard |=
                    !listener.pending.add(signal) || listener.sender.try_send(signal).is_ok();
            }
        }
        if !is_heard && self.was_default.get(&signal) == Some(&true) {
            // It knows every signal that has a name.
            let _ = low_level::emulate_default_handler(signal.number());
        }
    }
}

/// Begins the herald's thread, which hears nothing yet.
fn begin() -> io::Result<Handle> {
    let mut signals = iterator::Signals::new([0; 0])?;
    let handle = signals.handle();
    thread::Builder::new().name("pila-signals".into()).spawn(move || {
        for signal in signals.forever().filter_map(Signal::from_number) {
            if signal.asks_to_end()
                && ASKED.swap(true, Ordering::AcqRel)
                && STOPS.load(Ordering::Acquire) > 0
            {
                end_process(signal);
            }
            herald().tell(signal);
        }
    })?;
    Ok(handle)
}

/// Whether `signal` has its default effect: it is neither handled nor ignored.
fn is_default(signal: Signal) -> bool {
    // The call that asks the system for one signal is not to be had without unsafe code.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let has = |field: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(field));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        mask & (1 << (signal.number() - 1)) != 0
    };
    !has("SigIgn:") && !has("SigCgt:")
}

/// Ends the process without asking anyone: whoever should have ended it hangs.
fn end_process(signal: Signal) -> ! {
    // On a thread of its own, for whoever hangs may have locked stderr, or what reads it may hang as well.
    let (said, done) = mpsc::channel();
    let speaker = thread::Builder::new().spawn(move || {
        eprintln!("{signal} while tasklets were being stopped: the process ends at once");
        said.send(())
    });
    if speaker.is_ok() {
        let _ = done.recv_timeout(LAST_WORDS);
    }
    low_level::exit(128 + signal.number())
}

/// A stop that is under way: while there is one, the second signal that asks the process to end ends it at once.
#[derive(Debug)]
pub(crate) struct StopUnderWay(());

impl StopUnderWay {
    pub(crate) fn begin() -> StopUnderWay {
        STOPS.fetch_add(1, Ordering::AcqRel);
        StopUnderWay(())
    }
}

impl Drop for StopUnderWay {
    fn drop(&mut self) {
        if STOPS.fetch_sub(1, Ordering::AcqRel) == 1 {
            ASKED.store(false, Ordering::Release);
        }
    }
}
