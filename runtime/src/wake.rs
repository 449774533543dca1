//! The vocabulary of waiting: who a tasklet is, what it waits for, and what may wake it.
//!
//! - A [`Ticket`] wakes one wait of one tasklet. Its sequence number never repeats on its thread, so a ticket that
//!   was left behind in a timer, a channel or a socket is recognised as stale, whoever uses the table slot by then.
//! - The first wake of a wait wins; later ones find no wait with their number and change nothing.

use std::{
    fmt,
    mem::{self, Discriminant},
    num::NonZeroU32,
    panic::Location,
};

/// The number of a tasklet: never used twice on its thread. Main is number 0.
///
/// ```
/// # use pila_runtime as pila;
/// let tasklet = pila::tasklet(|| ());
/// assert_eq!(format!("{}", tasklet.id()), "#1");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskletId(pub(crate) u64);

impl TaskletId {
    /// The number of every thread's main tasklet.
    pub(crate) const MAIN: TaskletId = TaskletId(0);

    /// The number itself.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// assert_eq!(pila::main_tasklet().id().get(), 0);
    /// assert_eq!(pila::tasklet(|| pila::current().id().get()).join().unwrap(), 1);
    /// ```
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TaskletId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Debug for TaskletId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskletId(#{})", self.0)
    }
}

/// An index into a slab, such that an option of it is no larger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot(NonZeroU32);

impl Slot {
    pub(crate) fn new(index: usize) -> Slot {
        let number = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
        Slot(number.expect("fewer than four thousand million of them fit into memory"))
    }

    pub(crate) fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// Permission to wake one wait of one tasklet, once. It means something only on the thread that made it.
///
/// [`park::begin`](crate::park::begin) hands it out; copies of it may sit in several places at once.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::park;
///
/// let ticket = park::begin()?;
/// let copy = ticket;
/// assert_eq!(ticket, copy);
/// assert_ne!(ticket, park::begin()?); // another wait of the same tasklet
/// # Ok::<(), park::Interrupt>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    /// Where the tasklet is in its thread's table.
    pub(crate) index: u32,
    /// The number of the wait. Never repeats on its thread.
    pub(crate) sequence: u64,
}

/// What a parked tasklet waits for. It is what reports print.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::Waiting;
///
/// let id = pila::tasklet(|| ()).id();
/// assert_eq!(Waiting::Join(id).to_string(), "waits for the end of tasklet #1");
/// assert_eq!(Waiting::Read(3).to_string(), "waits for something to read, on descriptor 3");
/// # pila::run();
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Waiting {
    /// For time to pass.
    Sleep,
    /// For someone to put it back into the run queue.
    Insert,
    /// For another tasklet's end.
    Join(TaskletId),
    /// For a receiver on a channel.
    Send(ChannelId),
    /// For a sender on a channel.
    Receive(ChannelId),
    /// For the first of several things.
    Select,
    /// For a mutex to be unlocked.
    Lock(LockId),
    /// To read what a lock keeps.
    ReadLock(LockId),
    /// To write what a lock keeps.
    WriteLock(LockId),
    /// For a notification of a condition variable or a signal.
    Notification(LockId),
    /// For permits of a semaphore.
    Permits(LockId),
    /// For an event to be set.
    Event(LockId),
    /// For the others to come to a barrier.
    Barrier(LockId),
    /// For a connection to be made, on this descriptor.
    Connect(i32),
    /// For a connection to come in, on this descriptor.
    Accept(i32),
    /// For something to read, on this descriptor.
    Read(i32),
    /// For room to write, on this descriptor.
    Write(i32),
    /// For the end of the child process with this number.
    Child(u32),
    /// For a worker process to answer, or to end.
    Worker,
    /// For another thread, which holds a [`Waker`](crate::park::Waker).
    Outside,
    /// For a future to be ready: [`block_on`](crate::block_on).
    Future {
        /// In how many places its waker, or a socket that has it woken, was kept when the wait began. While there is
        /// one, another thread may wake it.
        wakers: usize,
    },
    /// For room in a thread queue.
    QueueSend,
    /// For a message in a thread queue.
    QueueReceive,
    /// For a signal of the system.
    Signal,
    /// For the tasklets of a group to end.
    Group,
    /// For the end of another thread.
    JoinThread,
    /// For work that was handed to the pool of threads.
    Offload,
    /// For the tasklets of a scope to end.
    Scope,
    /// For a descriptor, when there are none left.
    Descriptor,
    /// For the addresses of a host.
    Lookup,
}

impl Waiting {
    /// What those have in common who wait alike, each for a thing of its own: the kind of wait, and where the thing was
    /// made.
    pub(crate) fn kind(self) -> (Discriminant<Waiting>, Option<&'static Location<'static>>) {
        let made = match self {
            Waiting::Send(channel) | Waiting::Receive(channel) => Some(channel.created),
            Waiting::Lock(lock)
            | Waiting::ReadLock(lock)
            | Waiting::WriteLock(lock)
            | Waiting::Notification(lock)
            | Waiting::Permits(lock)
            | Waiting::Event(lock)
            | Waiting::Barrier(lock) => Some(lock.created),
            _ => None,
        };
        (mem::discriminant(&self), made)
    }

    /// Whether something other than a tasklet of this thread can end this wait.
    pub(crate) fn on_outside(self) -> bool {
        match self {
            Waiting::Sleep
            | Waiting::Connect(_)
            | Waiting::Accept(_)
            | Waiting::Read(_)
            | Waiting::Write(_)
            | Waiting::Child(_)
            | Waiting::Worker
            | Waiting::Outside
            | Waiting::QueueSend
            | Waiting::QueueReceive
            | Waiting::Signal
            | Waiting::JoinThread
            | Waiting::Offload
            | Waiting::Descriptor
            | Waiting::Lookup => true,
            Waiting::Future { wakers } => wakers > 0,
            Waiting::Insert
            | Waiting::Group
            | Waiting::Select
            | Waiting::Join(_)
            | Waiting::Send(_)
            | Waiting::Receive(_)
            | Waiting::Lock(_)
            | Waiting::ReadLock(_)
            | Waiting::WriteLock(_)
            | Waiting::Notification(_)
            | Waiting::Permits(_)
            | Waiting::Event(_)
            | Waiting::Barrier(_)
            | Waiting::Scope => false,
        }
    }

    /// The lock that it is for, if that is something that a tasklet can hold.
    pub(crate) fn lock(self) -> Option<LockId> {
        let (Waiting::Lock(lock) | Waiting::ReadLock(lock) | Waiting::WriteLock(lock)) = self
        else {
            return None;
        };
        Some(lock)
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waiting::Sleep => write!(f, "sleeps"),
            Waiting::Select => write!(f, "waits for the first of several channels"),
            Waiting::Insert => write!(f, "is paused: waits to be inserted"),
            Waiting::Join(id) => write!(f, "waits for the end of tasklet {id}"),
            Waiting::Send(channel) => write!(f, "waits for a receiver on {channel}"),
            Waiting::Receive(channel) => write!(f, "waits for a sender on {channel}"),
            Waiting::Lock(lock) => write!(f, "waits to lock {lock}"),
            Waiting::ReadLock(lock) => write!(f, "waits to read {lock}"),
            Waiting::WriteLock(lock) => write!(f, "waits to write {lock}"),
            Waiting::Notification(lock) => write!(f, "waits for a notification of {lock}"),
            Waiting::Permits(lock) => write!(f, "waits for permits of {lock}"),
            Waiting::Event(lock) => write!(f, "waits for {lock} to be set"),
            Waiting::Barrier(lock) => write!(f, "waits for the others at {lock}"),
            Waiting::Connect(fd) => write!(f, "connects, on descriptor {fd}"),
            Waiting::Accept(fd) => write!(f, "waits for a connection, on descriptor {fd}"),
            Waiting::Read(fd) => write!(f, "waits for something to read, on descriptor {fd}"),
            Waiting::Write(fd) => write!(f, "waits for room to write, on descriptor {fd}"),
            Waiting::Child(pid) => write!(f, "waits for the end of process {pid}"),
            Waiting::Worker => write!(f, "waits for a worker process"),
            Waiting::Outside => write!(f, "waits for another thread"),
            Waiting::Future { wakers: 0 } => {
                write!(f, "waits for a future, whose waker nobody has kept")
            }
            Waiting::Future { wakers: 1 } => {
                write!(f, "waits for a future, whose waker is kept in 1 place")
            }
            Waiting::Future { wakers } => {
                write!(f, "waits for a future, whose waker is kept in {wakers} places")
            }
            Waiting::QueueSend => write!(f, "waits for room in a thread queue"),
            Waiting::QueueReceive => write!(f, "waits for a message in a thread queue"),
            Waiting::Signal => write!(f, "waits for a signal of the system"),
            Waiting::Group => write!(f, "waits for the tasklets of a group to end"),
            Waiting::JoinThread => write!(f, "waits for the end of a thread"),
            Waiting::Offload => write!(f, "waits for offloaded work"),
            Waiting::Scope => write!(f, "waits for the tasklets of its scope to end"),
            Waiting::Descriptor => write!(f, "waits for a free descriptor"),
            Waiting::Lookup => write!(f, "waits for the addresses of a host"),
        }
    }
}

/// Which channel a tasklet waits on, for reports.
///
/// ```
/// # use pila_runtime as pila;
/// let (one, two) = (pila::Channel::<()>::new(), pila::Channel::<()>::new());
/// assert!(one.id().to_string().starts_with("channel 1 (created at "));
/// assert_ne!(one.id(), two.id());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChannelId {
    /// Counts the channels of the thread, from 1.
    pub(crate) number: u32,
    /// Where it was made.
    pub(crate) created: &'static Location<'static>,
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "channel {} (created at {})", self.number, self.created)
    }
}

/// Which lock, event or other part of [`sync`](crate::sync) a tasklet waits for, for reports.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::sync::{LockError, Mutex};
///
/// let mutex = Mutex::new(());
/// let _guard = mutex.lock()?;
/// let Err(LockError::AlreadyLocked { lock, .. }) = mutex.lock() else { unreachable!() };
/// assert!(lock.to_string().starts_with("mutex 1 (created at "));
/// # Ok::<(), LockError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockId {
    pub(crate) kind: LockKind,
    /// Counts all of them on the thread, from 1.
    pub(crate) number: u32,
    /// Where it was made.
    pub(crate) created: &'static Location<'static>,
}

/// What a [`LockId`] stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LockKind {
    Mutex,
    RwLock,
    Condvar,
    Signal,
    Semaphore,
    Event,
    Barrier,
}

impl fmt::Display for LockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            LockKind::Mutex => "mutex",
            LockKind::RwLock => "rwlock",
            LockKind::Condvar => "condvar",
            LockKind::Signal => "signal",
            LockKind::Semaphore => "semaphore",
            LockKind::Event => "event",
            LockKind::Barrier => "barrier",
        };
        write!(f, "{kind} {} (created at {})", self.number, self.created)
    }
}
