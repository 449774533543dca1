//! What is done with stacks besides running tasklets on them: larger ones for a while, overflows, the census, giving
//! memory back.

use std::{fmt, io, panic::Location, thread};

use super::Scheduler;
use crate::{
    census::{self, User},
    context::{self, Owner},
    error::{Refused, StackError},
    stack::{self, Size, Slot, Stack},
    wake::TaskletId,
};

impl Scheduler {
    /// Calls `f` on a stack of at least `size` bytes, as the one that runs. Its panic is part of the result.
    pub(crate) fn call_on_stack(
        &self,
        size: usize,
        place: &'static Location<'static>,
        f: &mut dyn FnMut(),
    ) -> io::Result<thread::Result<()>> {
        let stack = self.larger_stack(size)?;
        let result = context::call_on(&stack, f);
        // The pool it came from was leaked with it, when the thread's end was seen in the middle of the call.
        if !self.has_ended() {
            let mut core = self.core.borrow_mut();
            if core.stacks.is_counted()
                && let Some(slot) = stack::slot_at(stack.bottom().addr().get())
            {
                census::count(place, User::Call, &slot);
            }
            core.stacks.give(stack);
        }
        Ok(result)
    }

    fn larger_stack(&self, size: usize) -> io::Result<Stack> {
        if self.has_ended() {
            return Err(io::Error::other(Refused::ThreadEnded));
        }
        let mut core = self.core.borrow_mut();
        self.settle_in(&mut core);
        let class = core.stacks.class(size)?;
        let stack = core.stacks.take(class);
        stack.map_err(|StackError { live, source }| {
            let size = Size(core.stacks.size(class));
            let message = format!("no stack of {size} for a call, {live} live: {source}");
            io::Error::new(source.kind(), message)
        })
    }

    /// Writes who it is that ran off the stack in `slot`. False, and nothing written, when whoever runs does not stand on
    /// it. A signal handler calls this.
    pub(crate) fn who_overflows(
        &self,
        slot: &Slot,
        stack_pointer: Option<usize>,
        text: &mut dyn fmt::Write,
    ) -> bool {
        // The frame that has no room may be so large that the stack pointer lies beyond.
        let running = self.switch.place();
        if !running.into_iter().chain(stack_pointer).any(|address| slot.contains(address)) {
            return false;
        }
        let Some(Owner { id, created }) = self.switch.owner(slot) else {
            // It never fails: what cannot be written is lost.
            let _ = write!(text, "tasklet 'main' ({})", TaskletId::MAIN);
            return true;
        };
        let (file, line) = (created.file(), created.line());
        // What the core is busy with cannot be looked at now.
        let core = self.core.try_borrow().ok();
        let tasks = core.as_ref().map(|core| &core.tasks);
        let task = tasks.and_then(|tasks| tasks.iter().find(|(_, task)| task.id == id));
        let rare = task.and_then(|(_, task)| task.rare.as_ref());
        let _ = match rare.and_then(|rare| rare.name.as_deref()) {
            Some(name) => write!(text, "tasklet '{name}' ({id}, created at {file}:{line})"),
            None => write!(text, "tasklet {id} (created at {file}:{line})"),
        };
        true
    }

    /// Counts the stacks that are still in use at the end of the thread.
    pub(super) fn count_stacks_in_use(&self) {
        let core = self.core.borrow();
        if !core.stacks.is_counted() {
            return;
        }
        for (index, stand) in core.stands.iter().enumerate() {
            if let Some(context) = &stand.context {
                core.count_stack(index as u32, context.place());
            }
        }
        // The one that ends the process, if it is not main.
        if let Some(place) = self.switch.place() {
            core.count_stack(core.current, place);
        }
    }

    /// Gives back the memory of free stacks and of what the tables have no more use for. Gives the bytes of the stacks.
    pub(crate) fn trim(&self) -> usize {
        self.forget_packets();
        let bytes = self.core.borrow_mut().trim();
        stack::release_freed();
        bytes
    }
}
