//! Tracing: every suspended tasklet shows where it is, without going on, and nothing else changes.
//!
//! - A tasklet is switched to with [`Flags::TRACE`] in place of its own flags, finds that where it comes back from the
//!   switch, walks over its calls and leaves again. No code of the user runs, nobody who watches switches is told.
//! - Only the native stack may enter a tasklet. One that runs has that done there: [`Scheduler::on_native_stack`].

use std::{fmt, time::Instant};

use super::Scheduler;
use crate::{
    backtrace::{Missing, Trace, Tracer},
    context::Context,
    stack::SizeClass,
    table::Flags,
};

/// What a tasklet wants done on the native stack before it goes on.
pub(crate) struct Errand {
    work: Box<dyn FnOnce(&Scheduler)>,
    /// What `turns_left` was before it.
    turns_left: u32,
}

impl Scheduler {
    /// Calls `work` on the native stack, with the caller suspended if it is a tasklet. Nobody else runs, and the run queue
    /// stays as it is. Also while the caller unwinds or must not switch: for it, this is no switch. False when nothing
    /// could be done, for the scheduler itself was interrupted by a panic.
    pub(crate) fn on_native_stack(&self, work: impl FnOnce(&Scheduler) + 'static) -> bool {
        if !self.switch.is_inside() {
            work(self);
            return true;
        }
        let Ok(mut core) = self.core.try_borrow_mut() else { return false };
        if self.has_ended() {
            return false;
        }
        let work = Box::new(work);
        self.errand.replace(Some(Errand { work, turns_left: core.turns_left }));
        // Its state stays `Running`: it is on its way back already.
        let current = core.current;
        core.queue.push_front(current);
        core.turns_left = 0;
        core.stands[current as usize].context = self.switch.load(None);
        drop(core);
        self.switch.leave();
        self.show_calls();
        true
    }

    /// Does what the tasklet that has just left wants done, if that is why it left.
    pub(super) fn do_errand(&self) -> bool {
        let Some(Errand { work, turns_left }) = self.errand.take() else {
            return false;
        };
        work(self);
        // The caller's turn, which is next, is not counted.
        self.core.borrow_mut().turns_left = turns_left + 1;
        true
    }

    /// Tells `each` of the calls of every suspended tasklet, by its slot. On the native stack only.
    pub(crate) fn trace_all(&self, mut each: impl FnMut(u32, Trace)) {
        let Ok(mut core) = self.core.try_borrow_mut() else { return };
        let stack = core.stacks.take(SizeClass::DEFAULT);
        let is_suspended = |index: &usize| core.stands[*index].context.is_some();
        let suspended: Vec<usize> =
            core.tasks.iter().map(|(index, _)| index).filter(is_suspended).collect();
        let Ok(stack) = stack else {
            return suspended
                .iter()
                .for_each(|&index| each(index as u32, Trace::Missing(Missing::NoStack)));
        };
        self.tracer.replace(Some(Tracer::new(stack)));
        let flags = self.flags.get();
        for index in suspended {
            let Some(context) = core.stands[index].context.take() else { continue };
            drop(core);
            let context = self.trace_one(context);
            core = self.core.borrow_mut();
            core.stands[index].context = Some(context);
            if let Some(tracer) = &*self.tracer.borrow() {
                each(index as u32, tracer.found());
            }
        }
        self.flags.set(flags);
        if let Some(tracer) = self.tracer.take() {
            core.stacks.give(tracer.finish());
        }
    }

    /// The driver's clock, unless the driver is at work.
    pub(crate) fn time(&self) -> Option<Instant> {
        let driver = self.driver.try_borrow().ok()?;
        Some(driver.as_ref().map_or_else(Instant::now, |driver| driver.now()))
    }

    /// Has the tasklet of `context` show its calls.
    fn trace_one(&self, context: Context) -> Context {
        if let Some(tracer) = &mut *self.tracer.borrow_mut() {
            tracer.aim(context.addresses());
        }
        self.flags.set(Flags::TRACE);
        self.switch.load(Some(context));
        let finished = self.switch.enter();
        assert!(finished.is_none(), "one that is asked to show its calls does no more");
        let context = self.tracer.borrow_mut().as_mut().and_then(Tracer::suspended);
        context.expect("one that has shown its calls has left where it goes on")
    }

    /// Shows where the tasklet is that has just been switched to, as long as it was switched to for that.
    #[cold]
    #[inline(never)]
    pub(super) fn show_calls(&self) {
        while self.flags.get().any(Flags::TRACE) {
            if let Some(tracer) = &mut *self.tracer.borrow_mut() {
                tracer.trace();
                tracer.leave(self.switch.load(None));
            }
            self.switch.leave();
        }
    }
}

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Errand").field("turns_left", &self.turns_left).finish_non_exhaustive()
    }
}
