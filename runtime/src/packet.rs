//! Packets: what a tasklet is to run and where its result will be.
//!
//! - The closure and the result share one allocation, owned by the scheduler until the tasklet ends and by the handle while
//!   there is one. Whoever lets go last drops the result; when that is the tasklet, on its own stack.
//! - No panic leaves a tasklet's stack by unwinding: it is caught at the root and sent on.

use std::{
    cell::Cell,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use crate::{
    current::with,
    ending::{is_kill, kill_payload},
    error::{Interrupt, JoinError, Panic, Refused},
    scheduler::{Payload, Scheduler},
    table::{Flags, Job, Key},
    task_local,
    wake::{TaskletId, Ticket, Waiting},
};

/// A closure and a place for its result, in one allocation.
pub(crate) struct Packet<F, T, const SCOPED: bool> {
    /// Taken when the tasklet starts.
    closure: Cell<Option<F>>,
    slot: Slot<T>,
    /// What to do with it when nobody needs it any more.
    retire: fn(Rc<Self>),
}

impl<F: FnOnce() -> T + 'static, T: 'static> Packet<F, T, false> {
    /// One with `f` in it, made of one that was kept if there is one.
    #[inline]
    pub(crate) fn kept_or_new(scheduler: &Scheduler, f: F) -> Rc<Self> {
        let kept = scheduler.packets.borrow_mut().take::<Self>();
        match kept {
            Some(packet) => {
                packet.closure.set(Some(f));
                packet
            }
            None => Rc::new(Packet::new(f, Self::keep)),
        }
    }

    fn keep(self: Rc<Self>) {
        // One that never started has its closure yet, whose destructor is the user's.
        drop(self.closure.take());
        self.slot.joiner.set(None);
        with(|scheduler| {
            if !scheduler.has_ended() {
                scheduler.packets.borrow_mut().keep(self);
            }
        });
    }
}

impl<F: FnOnce() -> T, T, const SCOPED: bool> Packet<F, T, SCOPED> {
    pub(crate) fn new(f: F, retire: fn(Rc<Self>)) -> Self {
        Packet { closure: Cell::new(Some(f)), slot: Slot::new(), retire }
    }

    /// What is left to do when its tasklet has ended without a panic: nobody but the holder of the handle needs it.
    #[inline]
    fn end(self: Rc<Self>) -> Option<Payload> {
        if Rc::strong_count(&self) > 1 {
            return None;
        }
        let value = self.slot.value.take();
        let dropped = match mem::needs_drop::<T>() {
            // A result that nobody holds is dropped here, on the tasklet's stack.
            true => catch_unwind(AssertUnwindSafe(|| drop(value))),
            false => Ok(()),
        };
        (self.retire)(self);
        dropped.err().filter(|payload| !is_kill(&**payload))
    }

    /// Hears what there is to hear before it starts. When it was killed, drops the closure and gives what ends it.
    #[cold]
    fn end_at_start(&self, scheduler: &Scheduler) -> Option<Payload> {
        let end = match catch_unwind(AssertUnwindSafe(|| scheduler.arrive_killed())) {
            Ok(false) => return None,
            Ok(true) => kill_payload(),
            Err(payload) => payload,
        };
        // Not while it unwinds: its destructors may panic.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(self.closure.take())));
        dropped.err().or(Some(end))
    }

    /// What names the tasklet, also when there is none, for nothing may start any more.
    pub(crate) fn settle(&self, created: Result<Key, (Rc<dyn Job>, Refused)>) -> Key {
        created.unwrap_or_else(|(job, refused)| {
            self.slot.fail(match refused {
                Refused::Killed => JoinError::Killed,
                refused => JoinError::Refused(refused),
            });
            job.drop_closure();
            Key { index: u32::MAX, id: TaskletId(u64::MAX) }
        })
    }
}

/// Where a tasklet leaves its result.
pub(crate) struct Slot<T> {
    /// One of the two is set when the tasklet ends, and taken by whoever joins it.
    value: Cell<Option<T>>,
    error: Cell<Option<Box<JoinError>>>,
    /// Wakes the one that joins it.
    joiner: Cell<Option<Ticket>>,
}

impl<T> Slot<T> {
    fn new() -> Slot<T> {
        Slot { value: Cell::new(None), error: Cell::new(None), joiner: Cell::new(None) }
    }

    #[inline]
    fn set(&self, value: T) {
        self.value.set(Some(value));
        self.wake_joiner();
    }

    #[cold]
    fn fail(&self, error: JoinError) {
        self.error.set(Some(Box::new(error)));
        self.wake_joiner();
    }

    #[inline]
    fn wake_joiner(&self) {
        if let Some(joiner) = self.joiner.take() {
            with(|scheduler| scheduler.unpark(joiner));
        }
    }

    /// Waits until the tasklet of this number has left its result.
    pub(crate) fn join(&self, id: TaskletId) -> Result<T, JoinError> {
        loop {
            if let Some(value) = self.value.take() {
                return Ok(value);
            }
            if let Some(error) = self.error.take() {
                return Err(*error);
            }
            with(|scheduler| {
                let ticket = scheduler.begin().map_err(JoinError::Refused)?;
                self.joiner.set(Some(ticket));
                match scheduler.wait(ticket, &Waiting::Join(id), None) {
                    Ok(()) => Ok(()),
                    Err(Interrupt::Deadlock(report)) => Err(JoinError::Deadlock(report)),
                    Err(Interrupt::Refused(refused)) => Err(JoinError::Refused(refused)),
                    Err(Interrupt::Thrown(error)) => Err(JoinError::Thrown(error)),
                    Err(Interrupt::Deadline) => unreachable!("a join has no deadline"),
                }
            })?;
        }
    }

    /// Nobody is going to read the result.
    pub(crate) fn let_go(&self) {
        drop(self.value.take());
        if let Some(error) = self.error.take()
            && let JoinError::Panicked(_) = *error
        {
            with(|scheduler| scheduler.panic_was_not_read());
        }
    }
}

/// A packet of any closure, as its handle sees it.
pub(crate) trait Outcome<T> {
    fn slot(&self) -> &Slot<T>;

    /// Nobody is going to read the result.
    fn let_go(self: Rc<Self>);
}

impl<F, T, const SCOPED: bool> Outcome<T> for Packet<F, T, SCOPED> {
    fn slot(&self) -> &Slot<T> {
        &self.slot
    }

    fn let_go(self: Rc<Self>) {
        self.slot.let_go();
        if Rc::strong_count(&self) == 1 {
            (self.retire)(self);
        }
    }
}

impl<F: FnOnce() -> T, T, const SCOPED: bool> Job for Packet<F, T, SCOPED> {
    fn run(self: Rc<Self>) {
        with(|scheduler| {
            let has_news = scheduler.flags.get().any(Flags::UNWIND.with(Flags::SWITCHES_SEEN));
            let result = match has_news.then(|| self.end_at_start(scheduler)).flatten() {
                Some(payload) => Err(payload),
                None => {
                    let closure = self.closure.take().expect("a tasklet starts once");
                    catch_unwind(AssertUnwindSafe(closure))
                }
            };
            let result = task_local::drop_all(scheduler, result);
            let is_held = Rc::strong_count(&self) > 1;
            let unheld_panic = match result {
                Err(payload) if is_kill(&*payload) => {
                    self.slot.fail(JoinError::Killed);
                    None
                }
                Ok(value) => {
                    self.slot.set(value);
                    self.end()
                }
                Err(payload) if is_held => {
                    self.slot.fail(JoinError::Panicked(Panic::new(payload)));
                    None
                }
                Err(payload) => Some(payload),
            };
            if let Some(payload) = unheld_panic {
                scheduler.raise(payload);
            }
        });
    }

    fn refuse(&self, error: JoinError) {
        self.slot.fail(error);
    }

    fn drop_closure(&self) {
        drop(self.closure.take());
    }

    fn is_scoped(&self) -> bool {
        SCOPED
    }

    fn is_held(self: Rc<Self>) -> bool {
        // The scheduler has one, and this is another.
        Rc::strong_count(&self) > 2
    }
}
