//! Calls that are polled: made for a task of async code, which is woken when the next attempt is worth it.
//!
//! - A ticket is for one wait of one tasklet, and a tasklet may poll many sockets before it waits. So a task stands at a socket
//!   with a relay: the poller rings it, and the `block_on` that polled wakes the task, on its tasklet's stack. No waker is
//!   touched on the loop, where none of the user's code may run.
//! - Each direction of each stream has one standing, so the waker of the last poll counts, as the traits demand.
//! - Who stops standing takes his waker back first. So whoever drops a relay after that drops nothing of the user's.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use pila_runtime::park::{self, Relay};

use crate::source::{Operation, Source};

/// Where a task stands while one direction of a stream is not ready.
#[derive(Debug, Default)]
pub struct Standing {
    relay: Mutex<Option<Arc<Relay>>>,
    /// Whether its last poll has let others go first. Then the next one goes ahead: an executor that polls at once whatever was
    /// woken would come back here for ever.
    made_way: AtomicBool,
}

impl Standing {
    /// The relay of the task of `waker` at the `block_on` that polls.
    fn relay(&self, waker: &Waker) -> io::Result<Arc<Relay>> {
        let last = self.with(|relay| relay.clone());
        if let Some(relay) = last.filter(|relay| relay.renew(waker)) {
            return Ok(relay);
        }
        let relay = Arc::new(Relay::new(waker).ok_or_else(|| {
            io::Error::other(
                "an AsyncStream that is not ready was polled outside of pila::block_on, \
                 and nothing there could wake its task",
            )
        })?);
        self.change(Some(relay.clone()));
        Ok(relay)
    }

    fn change(&self, relay: Option<Arc<Relay>>) {
        let last = self.with(|place| std::mem::replace(place, relay));
        if let Some(last) = last {
            last.cancel();
        }
    }

    /// No code that can panic runs under this lock, so a poisoned one is still sound.
    fn with<T>(&self, look: impl FnOnce(&mut Option<Arc<Relay>>) -> T) -> T {
        look(&mut self.relay.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.change(None);
    }
}

impl<S: AsFd> Source<S> {
    /// Makes `call`, which must never block, if it is worth trying. While it would block, the task of `context` stands at the
    /// socket.
    pub(crate) fn poll<T>(
        &self,
        operation: Operation,
        standing: &Standing,
        context: &Context<'_>,
        mut call: impl FnMut(&S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        // As whoever calls without polling: others go first now and then, where they may. The task is woken before its poll
        // ends, by which an executor of many sees that it had better let others run than go through all of them.
        if park::is_spent()
            && !standing.made_way.load(Ordering::Relaxed)
            && park::begin().is_ok()
            && let Ok(relay) = standing.relay(context.waker())
        {
            standing.made_way.store(true, Ordering::Relaxed);
            relay.cancel();
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        standing.made_way.store(false, Ordering::Relaxed);
        park::spend(1);
        loop {
            match self.attempt(operation, &mut call) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
            let registration = self.register(operation, None)?;
            if registration.readiness().is_ready(operation.direction()) {
                continue;
            }
            let relay = standing.relay(context.waker())?;
            registration.add_relay(operation.direction(), relay);
            // Wakers are the user's code: the one that was dropped for this may have waited, and news have come meanwhile.
            if registration.readiness().is_ready(operation.direction()) {
                continue;
            }
            return Poll::Pending;
        }
    }
}
