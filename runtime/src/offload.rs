//! Blocking work, done on a pool of threads while the tasklet that asked for it waits.
//!
//! - The pool is the process's. It has at most `limit` threads, made when there is work and nobody idle, and ended when
//!   they have been idle for [`KEEP_ALIVE`].
//! - Each piece of work in line belongs to a tasklet that waits for it, and leaves the line with it: the line is bounded
//!   by those who wait, and served first come first served.
//! - While there is work in line there is a thread, or its caller is told that there is none.

use std::{
    any::Any,
    collections::BTreeMap,
    env, io, mem,
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use crate::{
    error::Interrupt,
    mailbox::Heir,
    park::{self, Waker},
    thread::tidily,
    wake::Waiting,
};

/// How long a thread of the pool waits for work before it ends.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Threads for each processor, unless the environment says otherwise.
const THREADS_PER_PROCESSOR: usize = 8;

/// Runs `f`, which may block, on another thread, and waits for its result. Parks only the calling tasklet.
///
/// The pool of threads is the process's: at most 8 for each processor, or as many as the environment variable
/// `PILA_OFFLOAD_THREADS` says when the first work is offloaded. They are made when needed and end after 5 idle seconds.
/// While all are busy, callers wait in line, first come first served, those of all threads together.
///
/// A caller that is killed while it waits abandons the work, and so does one whose call is ended by an error that is
/// thrown or whose thread ends: work that has not begun is dropped and never begins; work that has begun goes on, and its
/// result is dropped on the pool's thread. [`offload_pool`] counts both.
///
/// Where nothing may wait, `f` runs in place: in a tasklet that was killed, or that unwinds from a panic, and at the end
/// of a thread. Tasklets that `f` makes on a thread of the pool are ended when it returns, as by
/// [`kill_all`](crate::kill_all); what it leaves in thread-locals, task-locals or callbacks of that thread, the next work
/// finds there.
///
/// # Errors
/// When there is no thread to run `f` on and none can be made; with [`Refused`](crate::Refused) inside a `no_switch` guard and under a
/// block trap; with an error that was thrown. Then `f` has not run, except that after the last it may.
///
/// # Panics
/// With the panic of `f`.
///
/// ```
/// # use pila_runtime as pila;
/// let tasklets: Vec<_> =
///     (0..100u64).map(|i| pila::tasklet(move || pila::offload(move || i * i))).collect();
/// let squares = tasklets.into_iter().map(|tasklet| tasklet.join().unwrap().unwrap());
/// assert_eq!(squares.sum::<u64>(), 328_350);
/// ```
#[doc(alias = "spawn_blocking")]
#[doc(alias = "call_on_thread")]
pub fn offload<F, T>(f: F) -> io::Result<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let ticket = match park::begin() {
        Ok(ticket) => ticket,
        Err(Interrupt::Refused(refused)) if refused.is_ending() => return Ok(f()),
        Err(interrupt) => return Err(interrupt.into()),
    };
    let work = Arc::new(Work { stage: Mutex::new(Stage::InLine(f)), caller: park::waker(ticket) });
    let number = POOL.add(work.clone())?;
    let call = Call { work, number };
    let _inheritance = park::inherit(call.work.clone(), number);
    park::wait(ticket, Waiting::Offload, None)?;
    match call.work.take() {
        Stage::Done(result) => result.map_or_else(|payload| resume_unwind(payload), Ok),
        Stage::InLine(_) | Stage::Running | Stage::Abandoned => {
            unreachable!("whoever wakes the caller has left a result")
        }
    }
}

/// What the pool of [`offload`] does at this moment.
///
/// ```
/// # use pila_runtime as pila;
/// pila::offload(|| ())?;
/// let pool = pila::offload_pool();
/// assert!(pool.threads >= 1 && pool.threads <= pool.limit);
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use]
pub fn offload_pool() -> OffloadPool {
    let line = POOL.line();
    OffloadPool {
        limit: limit(),
        threads: line.threads,
        idle: line.idle,
        waiting: line.works.len(),
        abandoned: line.abandoned,
    }
}

/// What [`offload_pool`] says.
///
/// ```
/// # use pila_runtime as pila;
/// pila::offload(|| ())?;
/// let pila::OffloadPool { limit, threads, idle, waiting, .. } = pila::offload_pool();
/// assert!(idle <= threads && threads <= limit);
/// assert_eq!(waiting, 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct OffloadPool {
    /// Threads that there may be.
    pub limit: usize,
    /// Threads that there are.
    pub threads: usize,
    /// Those of them that have nothing to do.
    pub idle: usize,
    /// Callers whose work no thread has begun yet.
    pub waiting: usize,
    /// Calls that were abandoned, begun or not, since the process began.
    pub abandoned: u64,
}

/// The process's pool.
static POOL: Pool = Pool {
    line: Mutex::new(Line {
        works: BTreeMap::new(),
        next_number: 0,
        threads: 0,
        idle: 0,
        abandoned: 0,
    }),
    more: Condvar::new(),
};

#[derive(Debug)]
struct Pool {
    line: Mutex<Line>,
    /// Told to an idle thread when there is work.
    more: Condvar,
}

struct Line {
    /// Work that no thread has begun, by arrival.
    works: BTreeMap<u64, Arc<dyn Job>>,
    next_number: u64,
    /// Threads of the pool, and those of them that wait for work.
    threads: usize,
    idle: usize,
    abandoned: u64,
}

impl Pool {
    /// Puts `work` in line. Says its number there.
    fn add(&'static self, work: Arc<dyn Job>) -> io::Result<u64> {
        let limit = limit();
        let mut line = self.line();
        line.next_number += 1;
        let number = line.next_number;
        line.works.insert(number, work);
        if line.works.len() <= line.idle {
            self.more.notify_one();
        } else if line.threads < limit
            && let Err(error) = self.add_thread(&mut line)
            && line.threads == 0
        {
            let work = line.works.remove(&number);
            drop(line);
            drop(work);
            return Err(error);
        }
        Ok(number)
    }

    /// Makes a thread. Under the lock, so that nobody counts on a thread that fails to begin.
    fn add_thread(&'static self, line: &mut Line) -> io::Result<()> {
        thread::Builder::new().name("pila-offload".into()).spawn(|| self.work())?;
        line.threads += 1;
        Ok(())
    }

    /// What a thread of the pool does.
    fn work(&self) {
        while let Some(work) = self.next() {
            work.run();
        }
    }

    /// Waits for work. None when there has been none for long, and the thread is to end.
    fn next(&self) -> Option<Arc<dyn Job>> {
        let mut line = self.line();
        line.idle += 1;
        let idle = |line: &mut Line| line.works.is_empty();
        let waited = self.more.wait_timeout_while(line, KEEP_ALIVE, idle);
        line = waited.unwrap_or_else(PoisonError::into_inner).0;
        line.idle -= 1;
        let next = line.works.pop_first();
        if next.is_none() {
            line.threads -= 1;
        }
        next.map(|(_, work)| work)
    }

    /// Takes work whose caller does not wait any more out of the line.
    fn forget(&self, number: u64) {
        let mut line = self.line();
        line.abandoned += 1;
        let work = line.works.remove(&number);
        drop(line);
        drop(work);
    }

    /// No code that can panic runs under this lock, so a poisoned one is still sound.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// How many threads the pool may have.
fn limit() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let wanted = env::var("PILA_OFFLOAD_THREADS").ok().and_then(|text| text.parse().ok());
        wanted.filter(|&threads| threads > 0).unwrap_or_else(|| {
            thread::available_parallelism().map_or(1, NonZero::get) * THREADS_PER_PROCESSOR
        })
    })
}

/// A piece of work as the pool sees it.
trait Job: Send + Sync {
    /// Does it and tells its caller. Never unwinds.
    fn run(&self);
}

/// A closure, then its result.
struct Work<F, T> {
    stage: Mutex<Stage<F, T>>,
    caller: Waker,
}

enum Stage<F, T> {
    /// No thread has begun it.
    InLine(F),
    Running,
    Done(thread::Result<T>),
    /// Its caller does not wait any more.
    Abandoned,
}

impl<F, T> Work<F, T> {
    /// Takes what is there.
    fn take(&self) -> Stage<F, T> {
        self.replace(Stage::Abandoned)
    }

    fn replace(&self, stage: Stage<F, T>) -> Stage<F, T> {
        let mut place = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        mem::replace(&mut *place, stage)
    }
}

impl<F, T> Job for Work<F, T>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    fn run(&self) {
        let Stage::InLine(f) = self.replace(Stage::Running) else {
            self.replace(Stage::Abandoned);
            return;
        };
        let result = tidily(f);
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        match *stage {
            Stage::Running => *stage = Stage::Done(result),
            Stage::InLine(_) | Stage::Done(_) | Stage::Abandoned => {
                drop(stage);
                return drop_quietly(result);
            }
        }
        drop(stage);
        self.caller.wake();
    }
}

impl<F, T> Heir for Work<F, T>
where
    F: Send,
    T: Send,
{
    fn thread_ended(&self, number: u64) {
        POOL.forget(number);
        drop_quietly(self.take());
    }
}

/// Drops `value`; a panic of its destructor ends here, after its message was printed.
fn drop_quietly<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        mem::forget::<Box<dyn Any + Send>>(payload);
    }
}

/// A caller that waits for its work.
struct Call<F, T> {
    work: Arc<Work<F, T>>,
    number: u64,
}

impl<F, T> Drop for Call<F, T> {
    fn drop(&mut self) {
        match self.work.take() {
            // The caller has its result.
            Stage::Abandoned => {}
            Stage::InLine(_) | Stage::Running | Stage::Done(_) => POOL.forget(self.number),
        }
    }
}
