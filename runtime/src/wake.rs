//! The vocabulary of waiting: who a tasklet is, what it waits for, and what may wake it.
//!
//! - A [`Ticket`] wakes one wait of one tasklet. Its sequence number never repeats on its thread, so a ticket that
//!   was left behind in a timer, a channel or a socket is recognised as stale, whoever uses the table slot by then.
//! - The first wake of a wait wins; later ones find no wait with their number and change nothing.

use std::{fmt, panic::Location};

/// The number of a tasklet: never used twice on its thread. Main is number 0.
///
/// ```
/// let tasklet = pila_runtime::tasklet(|| ());
/// assert_eq!(format!("{}", tasklet.id()), "#1");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskletId(pub(crate) u64);

impl TaskletId {
    /// The number of every thread's main tasklet.
    pub(crate) const MAIN: TaskletId = TaskletId(0);

    /// The number itself.
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

/// Permission to wake one wait of one tasklet, once. It means something only on the thread that made it.
///
/// [`park::begin`](crate::park::begin) hands it out; copies of it may sit in several places at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    /// Where the tasklet is in its thread's table.
    pub(crate) index: u32,
    /// The number of the wait. Never repeats on its thread.
    pub(crate) sequence: u64,
}

/// What a parked tasklet waits for. It is what reports print.
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
    /// For a connection to be made, on this descriptor.
    Connect(i32),
    /// For a connection to come in, on this descriptor.
    Accept(i32),
    /// For something to read, on this descriptor.
    Read(i32),
    /// For room to write, on this descriptor.
    Write(i32),
}

impl Waiting {
    /// Whether something other than a tasklet of this thread can end this wait.
    pub(crate) fn on_outside(self) -> bool {
        match self {
            Waiting::Sleep
            | Waiting::Connect(_)
            | Waiting::Accept(_)
            | Waiting::Read(_)
            | Waiting::Write(_) => true,
            Waiting::Insert
            | Waiting::Select
            | Waiting::Join(_)
            | Waiting::Send(_)
            | Waiting::Receive(_) => false,
        }
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
            Waiting::Connect(fd) => write!(f, "connects, on descriptor {fd}"),
            Waiting::Accept(fd) => write!(f, "waits for a connection, on descriptor {fd}"),
            Waiting::Read(fd) => write!(f, "waits for something to read, on descriptor {fd}"),
            Waiting::Write(fd) => write!(f, "waits for room to write, on descriptor {fd}"),
        }
    }
}

/// Which channel a tasklet waits on, for reports.
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
