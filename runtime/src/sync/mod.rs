//! Locks, conditions, semaphores, events and barriers for the tasklets of one thread.
//!
//! What waits here lets the other tasklets run. Nothing here is `Send`: threads pass messages.
//!
//! - Tasklets are switched only where they wait, so a lock is needed only around a wait: data that is used between two
//!   waits needs none.
//! - Everyone is served in the order of coming, and what is given up goes straight to the first in line: whoever comes
//!   later cannot snatch it away, so nobody starves.
//! - A turn is never lost: one that ends before it could use its turn (by a kill, an error thrown into it, or because
//!   its time was up) gives it to the next.
//! - What is free can be had by anyone at any time, also by a tasklet that was killed or unwinds. Only waiting is
//!   refused to those.
//! - A wait that nothing can end fails with a [`Report`](crate::Report) that names what is waited for, where it was
//!   created, and who holds it.
//!
//! ```compile_fail
//! # use pila_runtime as pila;
//! let mutex = pila::sync::Mutex::new(0);
//! std::thread::spawn(move || mutex.lock());
//! ```

mod line;

mod error;

mod barrier;
mod condvar;
mod event;
mod mutex;
mod rwlock;
mod semaphore;
mod signal;

pub use barrier::{Barrier, BarrierWaitResult};
pub use condvar::{Condvar, WaitTimeoutResult};
pub use error::{AcquireError, BarrierError, LockError, TooManyPermits, WaitError};
pub use event::Event;
pub use mutex::{Mutex, MutexGuard};
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{Permit, Semaphore};
pub use signal::Signal;
