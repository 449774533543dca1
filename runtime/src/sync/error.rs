//! What can go wrong with a lock, an event or the like: one small type for each family of operations.
//!
//! - Every error is `Send + Sync + 'static`. None leaves its caller with something that it has to give up.

use std::{error::Error, fmt};

use crate::{
    error::{Interrupt, Refused, Thrown},
    report::{Report, Who},
    wake::LockId,
};

/// Why a lock could not be had.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::sync::{LockError, Mutex};
///
/// let mutex = Mutex::new(0);
/// let _guard = mutex.lock()?;
/// let again = mutex.lock().unwrap_err();
/// assert!(matches!(again, LockError::AlreadyLocked { .. }));
/// assert!(again.to_string().starts_with("tasklet 'main' (#0) has locked mutex 1 "));
/// # Ok::<(), LockError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LockError {
    /// The time was up, or it would have had to wait and was not to.
    Timeout,
    /// The caller has locked it itself: it would wait for ever.
    AlreadyLocked {
        /// The caller.
        who: Who,
        /// What it has locked.
        lock: LockId,
    },
    /// Nobody is left who could unlock it.
    Deadlock(Report),
    /// The caller cannot wait now.
    Refused(Refused),
    /// Another tasklet threw this error into the call.
    Thrown(Thrown),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Timeout => f.write_str("not unlocked in time"),
            LockError::AlreadyLocked { who, lock } => {
                write!(f, "tasklet {who} has locked {lock} already")
            }
            LockError::Deadlock(report) => report.fmt(f),
            LockError::Refused(refused) => refused.fmt(f),
            LockError::Thrown(error) => error.fmt(f),
        }
    }
}

impl Error for LockError {}

impl From<Interrupt> for LockError {
    fn from(interrupt: Interrupt) -> LockError {
        match interrupt {
            Interrupt::Deadline => LockError::Timeout,
            Interrupt::Deadlock(report) => LockError::Deadlock(report),
            Interrupt::Refused(refused) => LockError::Refused(refused),
            Interrupt::Thrown(error) => LockError::Thrown(error),
        }
    }
}

/// Why a wait for a notification or an event ended without it.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::sync::{Event, WaitError};
///
/// assert!(matches!(Event::new().wait(), Err(WaitError::Deadlock(_))));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WaitError {
    /// Nobody is left who could end the wait.
    Deadlock(Report),
    /// The caller cannot wait now.
    Refused(Refused),
    /// Another tasklet threw this error into the call.
    Thrown(Thrown),
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitError::Deadlock(report) => report.fmt(f),
            WaitError::Refused(refused) => refused.fmt(f),
            WaitError::Thrown(error) => error.fmt(f),
        }
    }
}

impl Error for WaitError {}

impl WaitError {
    /// Tells a wait that was interrupted from one whose time was up.
    pub(super) fn unless_timeout(interrupt: Interrupt) -> Result<(), WaitError> {
        match interrupt {
            Interrupt::Deadline => Ok(()),
            Interrupt::Deadlock(report) => Err(WaitError::Deadlock(report)),
            Interrupt::Refused(refused) => Err(WaitError::Refused(refused)),
            Interrupt::Thrown(error) => Err(WaitError::Thrown(error)),
        }
    }
}

/// Why permits could not be had.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::sync::{AcquireError, Semaphore};
///
/// let semaphore = Semaphore::bounded(2, 2);
/// let never = semaphore.acquire_many(3);
/// assert!(matches!(never, Err(AcquireError::TooMany { wanted: 3, max: 2 })));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AcquireError {
    /// The time was up, or it would have had to wait and was not to.
    Timeout,
    /// The semaphore never has as many.
    TooMany {
        /// How many were asked for.
        wanted: usize,
        /// How many there can be.
        max: usize,
    },
    /// Nobody is left who could give any.
    Deadlock(Report),
    /// The caller cannot wait now.
    Refused(Refused),
    /// Another tasklet threw this error into the call.
    Thrown(Thrown),
}

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcquireError::Timeout => f.write_str("no permits in time"),
            AcquireError::TooMany { wanted, max } => {
                write!(f, "{wanted} permits of a semaphore that never has more than {max}")
            }
            AcquireError::Deadlock(report) => report.fmt(f),
            AcquireError::Refused(refused) => refused.fmt(f),
            AcquireError::Thrown(error) => error.fmt(f),
        }
    }
}

impl Error for AcquireError {}

impl From<Interrupt> for AcquireError {
    fn from(interrupt: Interrupt) -> AcquireError {
        match interrupt {
            Interrupt::Deadline => AcquireError::Timeout,
            Interrupt::Deadlock(report) => AcquireError::Deadlock(report),
            Interrupt::Refused(refused) => AcquireError::Refused(refused),
            Interrupt::Thrown(error) => AcquireError::Thrown(error),
        }
    }
}

/// More permits were given to a semaphore than it can have. It was left as it was.
///
/// ```
/// # use pila_runtime as pila;
/// let error = pila::sync::Semaphore::bounded(1, 1).release(1).unwrap_err();
/// assert_eq!(error.to_string(), "1 permits more than the 1 that the semaphore can have");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyPermits {
    /// By how many they exceed what it can have.
    pub excess: usize,
    /// How many it can have.
    pub max: usize,
}

impl fmt::Display for TooManyPermits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TooManyPermits { excess, max } = self;
        write!(f, "{excess} permits more than the {max} that the semaphore can have")
    }
}

impl Error for TooManyPermits {}

/// Why not all met at a barrier.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::sync::{Barrier, BarrierError};
///
/// let barrier = Barrier::new(2);
/// barrier.abort();
/// assert!(matches!(barrier.wait(), Err(BarrierError::Broken)));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BarrierError {
    /// One of the others did not wait until all were there, or the barrier was aborted or reset.
    Broken,
    /// The time was up. The barrier is broken.
    Timeout,
    /// Nobody is left who could come. The barrier is broken.
    Deadlock(Report),
    /// The caller cannot wait now.
    Refused(Refused),
    /// Another tasklet threw this error into the call. The barrier is broken.
    Thrown(Thrown),
}

impl fmt::Display for BarrierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BarrierError::Broken => f.write_str("the barrier is broken: not all will meet there"),
            BarrierError::Timeout => f.write_str("not all met at the barrier in time"),
            BarrierError::Deadlock(report) => report.fmt(f),
            BarrierError::Refused(refused) => refused.fmt(f),
            BarrierError::Thrown(error) => error.fmt(f),
        }
    }
}

impl Error for BarrierError {}

impl From<Interrupt> for BarrierError {
    fn from(interrupt: Interrupt) -> BarrierError {
        match interrupt {
            Interrupt::Deadline => BarrierError::Timeout,
            Interrupt::Deadlock(report) => BarrierError::Deadlock(report),
            Interrupt::Refused(refused) => BarrierError::Refused(refused),
            Interrupt::Thrown(error) => BarrierError::Thrown(error),
        }
    }
}
