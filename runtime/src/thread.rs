//! Threads with schedulers of their own, and the tidy end of one.
//!
//! - The tasklets of a thread made here end while its thread-locals live: none of them is leaked.
//! - What a thread has to say is left before anyone is woken for it, and the thread is done with its tasklets by then.

use std::{
    any::Any,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use crate::{
    current::with,
    error::{Interrupt, JoinError, Panic},
    park::{self, Waker},
    scheduler::drop_quietly,
    table::{Key, MAIN, Task},
    tasklet::Handle,
    wake::Waiting,
};

/// How often [`kill_all`] looks for tasklets that have come into being meanwhile.
const ROUNDS: usize = 16;

/// Runs `f` on a new thread, as main of a scheduler of its own. Dropping what it returns lets the thread go its way.
///
/// When `f` returns or panics, the tasklets that it leaves behind are ended as by [`kill_all`], while the thread-locals
/// live: nothing is leaked. A tasklet that nobody holds and that panics meanwhile makes the thread end with that panic,
/// unless `f` has panicked itself.
///
/// Threads share nothing: what they have to say goes through a [`thread_queue`](crate::thread_queue) or the result.
///
/// # Errors
/// When the system refuses another thread.
///
/// ```
/// # use pila_runtime as pila;
/// let thread = pila::spawn_thread(|| {
///     let tasklets: Vec<_> = (1..=10).map(|i| pila::tasklet(move || i * i)).collect();
///     tasklets.into_iter().map(|tasklet| tasklet.join().unwrap()).sum::<u32>()
/// })?;
/// assert_eq!(thread.join().unwrap(), 385);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn spawn_thread<F, T>(f: F) -> io::Result<ThreadHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    start(thread::Builder::new(), f)
}

/// As [`spawn_thread`], with a name for messages and debuggers.
///
/// # Errors
/// As [`spawn_thread`].
///
/// # Panics
/// When the name contains a null byte.
///
/// ```
/// # use pila_runtime as pila;
/// let thread = pila::spawn_thread_named("mails", || ())?;
/// assert_eq!(thread.thread().name(), Some("mails"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn spawn_thread_named<F, T>(name: impl Into<String>, f: F) -> io::Result<ThreadHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    start(thread::Builder::new().name(name.into()), f)
}

fn start<F, T>(builder: thread::Builder, f: F) -> io::Result<ThreadHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let place = Arc::new(Place { end: Mutex::new(End { result: None, joiner: None }) });
    let theirs = place.clone();
    let thread = builder.spawn(move || theirs.set(tidily(f)))?.thread().clone();
    Ok(ThreadHandle { thread, place })
}

/// Calls `f` as main and ends the tasklets that it leaves behind. The first panic of all is what it gives.
pub(crate) fn tidily<T>(f: impl FnOnce() -> T) -> thread::Result<T> {
    let result = catch_unwind(AssertUnwindSafe(f));
    let ending = catch_unwind(|| drop(kill_all()));
    match (result, ending) {
        (result, Ok(())) => result,
        (Ok(value), Err(payload)) => {
            drop_quietly(value);
            Err(payload)
        }
        (Err(payload), Err(second)) => {
            drop_quietly(second);
            Err(payload)
        }
    }
}

/// Ends every tasklet of the calling thread but main and the caller, those that are made meanwhile too. Gives those that
/// are still alive: they caught their kill and go on, or the caller cannot wait for them; or always another was made.
///
/// They end in the order in which they were made, each as by [`Handle::kill`]. What they hold is dropped by then, which a
/// thread that simply ends does not do: the tasklets that it leaves behind are leaked.
///
/// # Panics
/// When all have been killed, with the first panic of a tasklet that nobody holds the handle of, when it is main that
/// calls.
///
/// ```
/// # use pila_runtime as pila;
/// let sleeper = pila::tasklet(|| pila::sleep(std::time::Duration::MAX));
/// pila::schedule();
/// assert!(pila::kill_all().is_empty());
/// assert!(!sleeper.is_alive());
/// ```
pub fn kill_all() -> Vec<Handle> {
    let mut panic = None;
    for _ in 0..ROUNDS {
        let others = others();
        if others.is_empty() {
            break;
        }
        for handle in others {
            // Whoever cannot be killed is among the others after the last round.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| _ = handle.kill())) {
                keep_first(&mut panic, payload);
            }
        }
    }
    if let Some(payload) = panic {
        resume_unwind(payload);
    }
    others()
}

fn keep_first(first: &mut Option<Box<dyn Any + Send>>, payload: Box<dyn Any + Send>) {
    if first.is_none() {
        *first = Some(payload);
        return;
    }
    with(|scheduler| scheduler.panic_was_not_read());
    // The payload's destructor is the user's.
    drop_quietly(payload);
}

/// The tasklets of this thread but main and the caller, the oldest first.
fn others() -> Vec<Handle> {
    let mut handles: Vec<Handle> = with(|scheduler| {
        let core = scheduler.core.borrow();
        let others =
            core.tasks.iter().filter(|(index, _)| ![MAIN, core.current].contains(&(*index as u32)));
        let key = |index, task: &Task| Key { index: index as u32, id: task.id };
        others.map(|(index, task)| Handle::new(key(index, task), task.name())).collect()
    });
    handles.sort_unstable_by_key(Handle::id);
    handles
}

/// A thread made by [`spawn_thread`]. Dropping it lets the thread go its way.
///
/// ```
/// # use pila_runtime as pila;
/// let thread = pila::spawn_thread(|| pila::current().is_main())?;
/// assert!(thread.thread().id() != std::thread::current().id());
/// assert!(thread.join().unwrap());
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct ThreadHandle<T> {
    thread: thread::Thread,
    place: Arc<Place<T>>,
}

/// Where a thread leaves its result.
struct Place<T> {
    end: Mutex<End<T>>,
}

struct End<T> {
    result: Option<Result<T, JoinError>>,
    /// Wakes the one that joins it.
    joiner: Option<Waker>,
}

impl<T> ThreadHandle<T> {
    /// Waits until `f` has returned and all tasklets of the thread have ended, and gives the result. Parks only the
    /// calling tasklet.
    ///
    /// The thread's own thread-locals are destroyed after that. When the calling thread ends first, the result is leaked
    /// with the tasklet that waits for it.
    ///
    /// # Errors
    /// [`JoinError::Panicked`] with the panic that ended the thread; [`JoinError::Refused`] when the caller may not wait
    /// and the thread has not ended; [`JoinError::Thrown`].
    ///
    /// # Panics
    /// On the thread itself, which would wait for ever.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let thread = pila::spawn_thread(|| panic!("no way"))?;
    /// assert_eq!(thread.join().unwrap_err().to_string(), "the tasklet panicked: no way");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn join(self) -> Result<T, JoinError> {
        assert!(self.thread.id() != thread::current().id(), "a thread cannot wait for its own end");
        loop {
            if let Some(result) = self.place.end().result.take() {
                return result;
            }
            let ticket = park::begin().map_err(join_error)?;
            if self.place.is_awaited_by(park::waker(ticket)) {
                park::wait(ticket, Waiting::JoinThread, None).map_err(join_error)?;
            }
        }
    }

    /// Whether there is a result: [`join`](ThreadHandle::join) would not wait.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let (sender, receiver) = pila::thread_queue::<()>(1);
    /// let thread = pila::spawn_thread(move || receiver.receive().is_err())?;
    /// assert!(!thread.is_finished());
    /// drop(sender);
    /// while !thread.is_finished() {
    ///     pila::sleep(std::time::Duration::from_millis(1));
    /// }
    /// assert!(thread.join().unwrap());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.place.end().result.is_some()
    }

    /// The thread itself: its name and number.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let thread = pila::spawn_thread(|| std::thread::current().id())?;
    /// let id = thread.thread().id();
    /// assert_eq!(thread.join().unwrap(), id);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn thread(&self) -> &thread::Thread {
        &self.thread
    }
}

fn join_error(interrupt: Interrupt) -> JoinError {
    match interrupt {
        Interrupt::Deadlock(report) => JoinError::Deadlock(report),
        Interrupt::Refused(refused) => JoinError::Refused(refused),
        Interrupt::Thrown(error) => JoinError::Thrown(error),
        Interrupt::Deadline => unreachable!("a join has no deadline"),
    }
}

impl<T> Place<T> {
    fn set(&self, result: thread::Result<T>) {
        let mut end = self.end();
        end.result = Some(result.map_err(|payload| JoinError::Panicked(Panic::new(payload))));
        let joiner = end.joiner.take();
        drop(end);
        if let Some(joiner) = joiner {
            joiner.wake();
        }
    }

    /// Whether there is no result yet, and `joiner` will be woken for it.
    fn is_awaited_by(&self, joiner: Waker) -> bool {
        let mut end = self.end();
        end.joiner = Some(joiner);
        end.result.is_none()
    }

    /// No code that can panic runs under this lock, so a poisoned one is still sound.
    fn end(&self) -> MutexGuard<'_, End<T>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for ThreadHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut handle = f.debug_struct("ThreadHandle");
        handle.field("thread", &self.thread).field("is_finished", &self.is_finished()).finish()
    }
}
