//! One descriptor that a process with listeners keeps back, so that files and other sockets cannot take the last one
//! from those who connect to it.
//!
//! - It is there while there are listeners. Who has no other may have it to accept one connection with.
//! - Once lent it is owed, until a socket of pila's is closed that replaces it.

use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The process's.
static RESERVE: Mutex<Reserve> = Mutex::new(Reserve { listeners: 0, kept: None });

/// Whether there should be a descriptor in reserve and is none. Written under the lock; read by everyone who closes a
/// socket.
static OWED: AtomicBool = AtomicBool::new(false);

#[derive(Debug)]
struct Reserve {
    /// How many there are in the process.
    listeners: usize,
    /// A socket that is bound to nothing takes a descriptor, and needs no file of a name.
    kept: Option<UnixDatagram>,
}

impl Reserve {
    fn fill(&mut self) {
        if self.kept.is_none() && self.listeners > 0 {
            self.kept = UnixDatagram::unbound().ok();
        }
        OWED.store(self.kept.is_none() && self.listeners > 0, Ordering::Relaxed);
    }
}

/// Has a descriptor kept in reserve while it lives. Every listener has one.
#[derive(Debug)]
pub(crate) struct Listening(());

impl Listening {
    pub(crate) fn new() -> Self {
        let mut reserve = lock();
        reserve.listeners += 1;
        reserve.fill();
        Self(())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut reserve = lock();
        reserve.listeners -= 1;
        if reserve.listeners == 0 {
            reserve.kept = None;
            OWED.store(false, Ordering::Relaxed);
        }
    }
}

/// Gives up the descriptor for somebody else to take. False if there is none.
pub(crate) fn lend() -> bool {
    let mut reserve = lock();
    let lent = reserve.kept.take().is_some();
    if lent {
        OWED.store(true, Ordering::Relaxed);
    }
    lent
}

/// Whether [`restore`] has something to do.
#[inline]
pub(crate) fn is_owed() -> bool {
    OWED.load(Ordering::Relaxed)
}

/// Puts a descriptor back, if there is one. Whether there is one then.
pub(crate) fn restore() -> bool {
    let mut reserve = lock();
    reserve.fill();
    reserve.kept.is_some()
}

/// No code that can panic runs under this lock, so a poisoned one is still sound.
fn lock() -> MutexGuard<'static, Reserve> {
    RESERVE.lock().unwrap_or_else(PoisonError::into_inner)
}
