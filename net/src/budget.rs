//! The descriptors of the process, when there are fewer than calls that need one: who gets the next.
//!
//! - A call is tried first. Only when the system has no descriptor for it does it get in line; while there is a line
//!   everyone gets in line, so that nobody is overtaken. The line is the process's, as the descriptors are.
//! - The head of the line alone tries again: when a socket of pila's has been closed, and now and then by itself, for
//!   what others close tells nobody. Whoever leaves the line at its head makes the next one look.
//! - Who accepts may use the reserve as well, wherever in line it is. While that is owed every other descriptor that is freed
//!   restores it: so neither those who accept nor those who connect are stuck because the others have taken everything.
//! - Nobody waits for ever for what nobody can give: see [`GRACE`] and [`PATIENCE`].
//! - Where nobody waits, making a socket costs a load and closing one costs two.
//!
//! A tasklet that is leaked with its thread leaves the line when the thread-locals are destroyed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pila_runtime::driver;
use pila_runtime::park::{self, Interrupt, Waiting, Waker};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::poller;
use crate::reserve;

/// How long the head of the line waits before it tries by itself. Doubles each time in vain.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// The longest that comes to while somebody in line may be given up: it is to have tried often enough by then.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// The longest that comes to while all in line accept, and wait for as long as it takes.
const LONGEST_PAUSE_TO_ACCEPT: Duration = Duration::from_secs(1);

/// For how long no socket must have been closed, and no tasklet of the process seen to wait for a connection of its
/// own, before those in line are given up: whoever has the descriptors has no news to expect and does not let them go.
const GRACE: Duration = Duration::from_secs(1);

/// For how long no socket must have been closed though tasklets wait for theirs.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a shortage is reported, at most.
const BETWEEN_REPORTS: Duration = Duration::from_secs(1);

/// The process's.
static LINE: Mutex<Line> = Mutex::new(Line {
    places: BTreeMap::new(),
    acceptors: BTreeSet::new(),
    next_number: 0,
    freed: 0,
    reserve_is_next: true,
    progress: None,
    quiet_since: None,
    to_give_up: 1,
    reported: None,
});

/// How many are in line. Written under the lock.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Whether `error` says that there is no descriptor left, for the process or in the whole system.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Whether somebody waits for a descriptor, so that nobody else may just take one.
#[inline]
pub(crate) fn has_line() -> bool {
    WAITING.load(Ordering::Relaxed) != 0
}

/// Makes `call`, which needs descriptors and does not wait, when there are some for it.
///
/// Fails as the system does when it is given up, with `TimedOut` at `deadline`, and otherwise as `call`.
#[inline]
pub(crate) fn obtain<T>(
    deadline: Option<Instant>,
    mut call: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    if !has_line() {
        match call() {
            Err(error) if is_shortage(&error) => {}
            done => return done,
        }
    }
    get_in_line(Purpose::Connection, deadline, call)
}

/// What those in line want a descriptor for.
pub(crate) enum Purpose<'a> {
    /// A connection, or what it takes to wait for one. Given up when that makes no sense any more.
    Connection,
    /// A connection that a client has made already: never given up, but reported, with the place it waits at.
    Accept(&'a dyn Fn() -> String),
}

/// What makes trying worthwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// So many descriptors have been freed.
    Freed(usize),
    /// The reserve has just been given up.
    Reserve,
    /// Time has passed.
    Due,
}

/// Makes `call` when it is the caller's turn and there are descriptors for it.
#[cold]
pub(crate) fn get_in_line<T>(
    purpose: Purpose<'_>,
    deadline: Option<Instant>,
    mut call: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let mut place = Place::take(&purpose)?;
    loop {
        let turn = place.turn(deadline)?;
        let done = call();
        if turn == Turn::Reserve && done.is_err() {
            reserve::restore();
        }
        match done {
            Err(error) if is_shortage(&error) => {
                if let Purpose::Accept(at) = purpose {
                    place.report(&error, at);
                }
                place.failed(turn, error);
            }
            Ok(done) => {
                line().went_on(turn);
                return Ok(done);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits in line until there are descriptors enough for `sample`, for somebody who does not say when there are not.
pub(crate) fn wait_for<T>(sample: impl FnMut() -> io::Result<T>) -> io::Result<()> {
    drop(get_in_line(Purpose::Connection, None, sample)?);
    freed();
    Ok(())
}

/// A socket of pila's has been closed. To be called when its descriptor is free.
#[inline]
pub(crate) fn freed() {
    // Either this sees who has got in line, or whoever gets in line now finds the descriptor free.
    fence(Ordering::SeqCst);
    if has_line() || reserve::is_owed() {
        freed_in_shortage();
    }
}

#[cold]
fn freed_in_shortage() {
    let mut line = line();
    if line.places.is_empty() {
        drop(line);
        reserve::restore();
        return;
    }
    line.made_progress(Instant::now());
    if !line.restores_reserve() {
        line.freed += 1;
        line.wake_head();
    }
}

/// Those who wait for descriptors.
#[derive(Debug)]
struct Line {
    /// By arrival.
    places: BTreeMap<u64, Waiter>,
    /// Those of them that want to accept.
    acceptors: BTreeSet<u64>,
    next_number: u64,
    /// How many descriptors have been freed that nobody in line has tried to take: the head need not try for none.
    freed: usize,
    /// Whether the next one that is freed is for the reserve, if that is owed. They take turns.
    reserve_is_next: bool,
    /// When something was last freed or taken; `None` before.
    progress: Option<Instant>,
    /// Since when the head has seen nobody who waits for a connection; `None` when it has seen somebody.
    quiet_since: Option<Instant>,
    /// How many are given up together the next time. Doubles each time that frees nothing: what one can free serves
    /// all, one after the other, and where none can free anything all are told soon.
    to_give_up: usize,
    /// When the shortage was last reported.
    reported: Option<Instant>,
}

/// One who waits.
#[derive(Debug)]
struct Waiter {
    /// The number of its thread.
    thread: u64,
    /// Makes it look at the line; `None` before it first waits.
    waker: Option<Waker>,
    /// Whether it is to be told that there is no hope.
    given_up: bool,
}

impl Line {
    fn is_head(&self, number: u64) -> bool {
        self.places.first_key_value().is_some_and(|(&first, _)| first == number)
    }

    fn made_progress(&mut self, now: Instant) {
        self.progress = Some(now);
        self.quiet_since = None;
        self.to_give_up = 1;
    }

    /// Somebody has got what it wanted.
    fn went_on(&mut self, turn: Turn) {
        if let Turn::Freed(_) = turn {
            self.freed = self.freed.saturating_sub(1);
        }
        self.made_progress(Instant::now());
    }

    /// Makes the head look, if it waits.
    fn wake_head(&self) {
        if let Some((_, head)) = self.places.first_key_value() {
            head.wake();
        }
    }

    /// Restores the reserve if it is owed and its turn, and there is a descriptor: then the first of those who want to
    /// accept is made to look.
    fn restores_reserve(&mut self) -> bool {
        if !reserve::is_owed() {
            return false;
        }
        let restores = self.reserve_is_next && reserve::restore();
        // They take turns; but it keeps its turn until it has had a descriptor.
        self.reserve_is_next = !restores;
        if restores && let Some(first) = self.acceptors.first() {
            self.places[first].wake();
        }
        restores
    }

    /// Takes out those that `leaves` says, and makes the new head look if there is one.
    fn remove(&mut self, leaves: impl Fn(u64, &Waiter) -> bool) {
        let head = self.places.first_key_value().map(|(&number, _)| number);
        self.places.retain(|&number, waiter| !leaves(number, waiter));
        self.acceptors.retain(|number| self.places.contains_key(number));
        self.changed(head);
    }

    /// Takes one out.
    fn remove_one(&mut self, number: u64) {
        let head = self.places.first_key_value().map(|(&number, _)| number);
        self.places.remove(&number);
        self.acceptors.remove(&number);
        self.changed(head);
    }

    fn changed(&mut self, former_head: Option<u64>) {
        WAITING.store(self.places.len(), Ordering::Relaxed);
        let head = self.places.first_key_value().map(|(&number, _)| number);
        if head.is_none() {
            self.freed = 0;
        } else if head != former_head {
            self.wake_head();
        }
    }

    /// Marks who is given up, if it is time for that, and wakes them. Whether there were any.
    fn give_up(&mut self, now: Instant, somebody_waits: bool) -> bool {
        if somebody_waits {
            self.quiet_since = None;
        } else {
            self.quiet_since.get_or_insert(now);
        }
        let quiet = self.quiet_since.is_some_and(|since| now.duration_since(since) >= GRACE);
        let stuck = self.progress.is_some_and(|progress| now.duration_since(progress) >= PATIENCE);
        if !quiet && !stuck {
            return false;
        }
        let acceptors = &self.acceptors;
        let hopeless = self
            .places
            .iter_mut()
            .filter(|(number, waiter)| !acceptors.contains(number) && !waiter.given_up);
        let mut any = false;
        for (_, waiter) in hopeless.take(self.to_give_up) {
            waiter.given_up = true;
            waiter.wake();
            any = true;
        }
        if any {
            self.to_give_up = self.to_give_up.saturating_mul(2);
        }
        any
    }

    /// Whether the shortage may be reported again.
    fn may_report(&mut self, now: Instant) -> bool {
        let may = self.reported.is_none_or(|last| now.duration_since(last) >= BETWEEN_REPORTS);
        if may {
            self.reported = Some(now);
        }
        may
    }
}

impl Waiter {
    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }
}

/// A place in line, left when it is dropped.
#[derive(Debug)]
struct Place {
    number: u64,
    /// When its owner is to try though nothing was freed; `None` before it is at the head.
    due: Option<Instant>,
    /// How long it waits then, if it tries in vain.
    pause: Duration,
    /// What the last try said; nothing before.
    failure: Option<io::Error>,
}

impl Place {
    /// Gets in line at its end.
    fn take(purpose: &Purpose<'_>) -> io::Result<Self> {
        let thread = Member::here()?;
        let now = driver::now();
        let mut line = line();
        let number = line.next_number;
        line.next_number += 1;
        let is_first = line.places.is_empty();
        if let Purpose::Accept(_) = purpose {
            line.acceptors.insert(number);
        }
        line.places.insert(number, Waiter { thread, waker: None, given_up: false });
        WAITING.store(line.places.len(), Ordering::Relaxed);
        if is_first {
            line.made_progress(now);
        }
        drop(line);
        // See `freed`: whoever is first tries once more before it waits.
        fence(Ordering::SeqCst);
        let due = is_first.then_some(now);
        Ok(Self { number, due, pause: SHORTEST_PAUSE, failure: None })
    }

    /// Waits until it makes sense to try.
    fn turn(&mut self, deadline: Option<Instant>) -> io::Result<Turn> {
        loop {
            let ticket = park::begin()?;
            let now = driver::now();
            let until = {
                let mut line = line();
                let is_head = line.is_head(self.number);
                if is_head && line.freed > 0 {
                    return Ok(Turn::Freed(line.freed));
                }
                if line.acceptors.contains(&self.number) && reserve::lend() {
                    return Ok(Turn::Reserve);
                }
                if is_head && self.due.is_some_and(|due| due <= now) {
                    line.restores_reserve();
                    return Ok(Turn::Due);
                }
                let waiter = line.places.get_mut(&self.number);
                let waiter = waiter.expect("only the end of its thread takes it out of the line");
                if waiter.given_up {
                    return Err(self.failure.take().unwrap_or_else(|| Errno::MFILE.into()));
                }
                waiter.waker = Some(park::waker(ticket));
                is_head.then(|| *self.due.get_or_insert(now + self.pause))
            };
            let limit = until.into_iter().chain(deadline).min();
            match park::wait(ticket, Waiting::Descriptor, limit) {
                Ok(()) => {}
                Err(Interrupt::Deadline) => {
                    if deadline.is_some_and(|deadline| deadline <= driver::now()) {
                        return Err(timed_out());
                    }
                }
                Err(interrupt) => return Err(interrupt.into()),
            }
        }
    }

    /// Its owner has tried in vain: others have taken what was freed.
    fn failed(&mut self, turn: Turn, error: io::Error) {
        let somebody_waits = poller::somebody_waits_for_a_connection();
        let now = driver::now();
        let mut line = line();
        let freed = if let Turn::Freed(freed) = turn { freed } else { 0 };
        line.freed = line.freed.saturating_sub(freed);
        // What those free that are given up is looked for soon.
        if line.give_up(now, somebody_waits) || turn != Turn::Due {
            self.pause = SHORTEST_PAUSE;
        }
        let may_give_up = line.places.len() > line.acceptors.len();
        let longest = if may_give_up { LONGEST_PAUSE } else { LONGEST_PAUSE_TO_ACCEPT };
        let grace_ends = line.quiet_since.map(|since| since + GRACE).filter(|&end| end > now);
        drop(line);
        self.due = grace_ends.into_iter().chain([now + self.pause]).min();
        self.pause = (self.pause * 2).min(longest);
        self.failure = Some(error);
    }

    /// Tells the user of a shortage that keeps clients waiting, unless that was done a moment ago.
    fn report(&self, error: &io::Error, at: &dyn Fn() -> String) {
        if line().may_report(driver::now()) {
            let (what, remedy) = shortage(error);
            // Where there is nobody to tell, nobody is told.
            let _ = writeln!(io::stderr(), "pila: accept on {}: {what}: waiting; {remedy}", at());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        line().remove_one(self.number);
    }
}

/// What there is too little of, and what helps.
fn shortage(error: &io::Error) -> (String, &'static str) {
    if Errno::from_io_error(error) == Some(Errno::NFILE) {
        let remedy = "raise it with sysctl -w fs.file-max";
        return ("no descriptor left in the system (fs.file-max)".to_owned(), remedy);
    }
    let limit = getrlimit(Resource::Nofile).current;
    let limit = limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    (format!("no descriptor left (RLIMIT_NOFILE {limit})"), "raise it with ulimit -n")
}

fn timed_out() -> io::Error {
    let (what, remedy) = shortage(&Errno::MFILE.into());
    io::Error::new(io::ErrorKind::TimedOut, format!("connection timed out: {what}; {remedy}"))
}

/// No code that can panic runs under this lock, so a poisoned one is still sound.
fn line() -> MutexGuard<'static, Line> {
    LINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread some tasklet of which has been in line. When it ends, those that are in line then are leaked.
struct Member {
    number: u64,
}

thread_local! {
    static MEMBER: Member = {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Member { number: NEXT.fetch_add(1, Ordering::Relaxed) }
    };
}

impl Member {
    /// The number of the calling thread.
    fn here() -> io::Result<u64> {
        let ending = |_| io::Error::other("the thread is ending, no socket can wait on it");
        MEMBER.try_with(|member| member.number).map_err(ending)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        line().remove(|_, waiter| waiter.thread == self.number);
    }
}
