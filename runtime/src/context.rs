//! The switch: a suspended flow of control on a stack of its own. The only file that names corosensei.
//!
//! A narrow seam of four verbs, so that another kind of switch can take its place without touching another file:
//! make ([`Context::new`]), enter ([`Switch::enter`]), leave ([`Switch::leave`]) and finish ([`Context::finish`]).
//! A call that needs more stack than its caller has can be lent another: [`on_stack`].
//! A fifth, [`call_on`], lets whoever runs stand on another stack for the time of a call.
//!
//! - A context is entered by the thread's native flow of control only, and leaves to whoever entered it, whatever
//!   stacks the two stand on meanwhile.
//! - Who is entered next is loaded before that, usually by the one that leaves: between the two jumps of a switch, each of
//!   which the processor mispredicts, lies nothing but a load of the next stack pointer.
//! - A context that is dropped before it has finished is leaked, never unwound: its stack may hold references to
//!   what is already gone.
//!
//! What a switch touches lies together at the top of the stack:
//!
//! ```text
//!   top   | Record: whose it is, for emergencies
//!         | corosensei's saved stack pointer, the stack            one line
//!         | the link back to the loop, written at each entry
//!         | frames of the tasklet's body, growing down
//! ```
//!
//! # In place of corosensei
//!
//! Here a switch from one tasklet to the next is two jumps: from the one that leaves to the loop in [`Switch::enter`], and
//! from there to the next. A symmetric switch makes one of them, straight to what is loaded. It would have to provide:
//!
//! - *make*: a context on a [`Stack`] whose body runs when it is first entered, with all callee-saved registers and the
//!   control words of the floating-point units as the ABI wants them at a function's start.
//! - *leave*: saves what a call preserves, publishes its own stack pointer in its [`Record`], and jumps to the record that is
//!   loaded, or back to the native stack when none is. The jumped-to side must not end in a `ret` that no `call` on this
//!   stack matches, or the return-address predictor is lost again.
//! - *finish*: nobody frees the stack he stands on. A body that has returned jumps on, and whoever comes next is told which
//!   context has finished, in the place of what [`Switch::enter`] returns.
//! - a chain of frame pointers, and unwind tables, from the bottom of each tasklet's stack to the frame of `enter` on the
//!   native stack, which is the same for all who run within it: dumps, the stall watch, gdb and perf walk it.
//! - that a panic ends at the body's root, as it does here: nothing unwinds across.
//! - to tell AddressSanitizer of each switch, in both halves, and of the end of a stack.
//! - [`on_stack`] and [`call_on`] as they are: they are calls, and switch nothing.
#![allow(unsafe_code)]

use std::{
    cell::Cell,
    mem,
    num::NonZeroUsize,
    ops::Range,
    panic::{AssertUnwindSafe, Location, catch_unwind},
    ptr::{self, NonNull},
    thread,
};

use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::{
    stack::{Slot, Stack, slot_at},
    wake::TaskletId,
};

/// A flow of control that is not running.
#[derive(Debug)]
pub(crate) struct Context {
    record: NonNull<Record>,
}

/// Who runs and who is next. One for each thread.
#[derive(Debug)]
pub(crate) struct Switch {
    /// The way back from the context that runs. Set only while one is being entered on this thread.
    running: Cell<Option<NonNull<Yielder<(), ()>>>>,
    /// The one that is entered next; the one that runs, until it has chosen another.
    loaded: Cell<Option<NonNull<Record>>>,
}

/// What lies at the top of a stack.
#[repr(C, align(64))]
struct Record {
    coroutine: Coroutine<(), (), (), Span>,
    stack: Stack,
    owner: Owner,
}

/// Whose a context is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    pub(crate) id: TaskletId,
    pub(crate) created: &'static Location<'static>,
}

/// The part of a stack below its record.
struct Span {
    base: NonZeroUsize,
    limit: NonZeroUsize,
}

// SAFETY: a `Stack` is at least 32 KiB with a guard page at `bottom`, its record, if any, takes less than 256 bytes of
// it, and `base` is a multiple of 64. The pool keeps the memory until the stack is given back.
unsafe impl corosensei::stack::Stack for Span {
    #[inline]
    fn base(&self) -> NonZeroUsize {
        self.base
    }

    #[inline]
    fn limit(&self) -> NonZeroUsize {
        self.limit
    }
}

impl Context {
    /// Prepares `stack` to run `body`, which must not unwind. `switch` is the one it is going to be entered with.
    #[inline]
    pub(crate) fn new(
        stack: Stack,
        owner: Owner,
        body: impl FnOnce(Entrance<'_>) + 'static,
    ) -> Context {
        // SAFETY: a stack is far larger than a record, and its top is a multiple of 64.
        let record = unsafe { stack.top().byte_sub(mem::size_of::<Record>()) }.cast::<Record>();
        let span = Span { base: record.addr(), limit: stack.bottom().addr() };
        let coroutine = Coroutine::with_stack(span, move |yielder, ()| body(Entrance(yielder)));
        // SAFETY: the record's place is aligned, lies inside the stack and above the part that the coroutine uses.
        unsafe { record.write(Record { coroutine, stack, owner }) };
        Context { record }
    }

    /// Gives back the stack of a context that has finished.
    #[inline]
    pub(crate) fn finish(self) -> Stack {
        // SAFETY: `new` wrote the record, and consuming `self` makes this the last access to it.
        let record = unsafe { self.record.as_ref() };
        // What is still suspended would be lost.
        assert!(record.coroutine.done(), "a context has finished when its stack is taken back");
        // SAFETY: nothing reads it again. The coroutine, which has finished, owns nothing and is left where it is: to read
        // it would wait for the stores that the switch has just made.
        unsafe { ptr::read(&raw const record.stack) }
    }

    /// The addresses of its stack, the guard page included.
    pub(crate) fn addresses(&self) -> Range<usize> {
        // SAFETY: `new` wrote the record, and nobody writes to it while its context is suspended.
        let record = unsafe { self.record.as_ref() };
        record.stack.bottom().addr().get()..record.stack.top().addr().get()
    }

    /// An address on its stack.
    pub(crate) fn place(&self) -> usize {
        self.record.addr().get()
    }

    /// Starts to load what the next [`Switch::enter`] is going to touch.
    #[inline]
    pub(crate) fn prefetch(&self) {
        // The record's line and the four below it.
        for line in 0..5 {
            prefetch(self.record.as_ptr().cast::<u8>().wrapping_sub(64 * line));
        }
    }
}

/// Proof that a context has just been entered for the first time.
pub(crate) struct Entrance<'a>(&'a Yielder<(), ()>);

impl Switch {
    pub(crate) const fn new() -> Switch {
        Switch { running: Cell::new(None), loaded: Cell::new(None) }
    }

    /// Has `context` entered next. Gives the one that was loaded: the one that runs, if it has not chosen before.
    #[inline]
    pub(crate) fn load(&self, context: Option<Context>) -> Option<Context> {
        let loaded = self.loaded.replace(context.map(|context| context.record));
        loaded.map(|record| Context { record })
    }

    /// Whether a context runs.
    #[inline]
    pub(crate) fn is_inside(&self) -> bool {
        self.running.get().is_some()
    }

    /// Enters what is loaded, and whatever that loads before it leaves, until nothing is or one has finished, which is
    /// given back.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Context> {
        assert!(!self.is_inside(), "contexts are entered from the native stack");
        let finished = loop {
            let Some(record) = self.loaded.get() else { break None };
            // SAFETY: `new` wrote the record and `finish` consumes its context, which is in `loaded` or, once it has
            // loaded another, with the scheduler. Nothing runs, so this is the only access to the coroutine: code that runs
            // on a stack knows nothing of its record, nobody else enters (asserted above, one switch a thread), and
            // `owner` reads beside it.
            let coroutine = unsafe { &mut (*record.as_ptr()).coroutine };
            if let CoroutineResult::Return(()) = coroutine.resume(()) {
                break self.load(None);
            }
        };
        self.running.set(None);
        finished
    }

    /// The first thing a context's body does: lets [`leave`](Self::leave) find its way back.
    #[inline]
    pub(crate) fn arrive(&self, entrance: &Entrance<'_>) {
        self.running.set(Some(NonNull::from(entrance.0)));
    }

    /// Says whose the context is from now on that runs and has not chosen another.
    #[inline]
    pub(crate) fn rename(&self, owner: Owner) {
        let record = self.loaded.get().expect("whoever runs is loaded until it chooses");
        // SAFETY: `new` wrote the record, which lasts as long as its context runs. Beside the coroutine, which `enter` has
        // borrowed, nobody else has a reference to it.
        unsafe { (*record.as_ptr()).owner = owner };
    }

    /// An address on the stack that the context which runs was made for.
    pub(crate) fn place(&self) -> Option<usize> {
        self.running.get().map(|yielder| yielder.addr().get())
    }

    /// Whose the context is that runs; if none does, of the one that is being entered on the stack in `slot`. A signal
    /// handler may ask.
    pub(crate) fn owner(&self, slot: &Slot) -> Option<Owner> {
        let entered = || self.loaded.get().map(|record| record.addr().get());
        let place = self.place().or_else(|| entered().filter(|&place| slot.contains(place)))?;
        let top = slot_at(place)?.top();
        // SAFETY: a stack is far larger than a record.
        let record = unsafe { top.byte_sub(mem::size_of::<Record>()) }.cast::<Record>();
        // SAFETY: the stack is that of a context which has begun and has not finished. So there lies the record that `new`
        // wrote, and nobody writes to this part of it but `rename`, which has returned.
        Some(unsafe { (*record.as_ptr()).owner })
    }

    /// Suspends the context that runs until it is entered again. False, at once, on the native stack.
    // Inlined down to the switch itself: corosensei pairs `call` and `ret` across it, so each frame in between
    // costs the return-address predictor two misses, some 20 ns.
    #[inline(always)]
    pub(crate) fn leave(&self) -> bool {
        let Some(yielder) = self.running.get() else {
            return false;
        };
        // SAFETY: `running` is set only while `enter` goes on in this thread's native flow of control, so the coroutine's
        // root frame, which owns the yielder, is alive, and it is the one running, if perhaps on a stack of `call_on`.
        unsafe { yielder.as_ref() }.suspend(());
        self.running.set(Some(yielder));
        true
    }
}

/// Calls `f`, which must not panic, on `stack`. A walk over the calls goes on from there to the caller's.
pub(crate) fn on_stack(stack: &mut Stack, f: impl FnOnce()) {
    let span = Span { base: stack.top().addr(), limit: stack.bottom().addr() };
    corosensei::on_stack(span, f);
}

/// Calls `f` on `stack`, as the flow of control that calls this. It may leave and be entered again in there.
///
/// No panic crosses to the caller's stack as such: it is part of the result.
pub(crate) fn call_on(stack: &Stack, f: &mut dyn FnMut()) -> thread::Result<()> {
    let span = Span { base: stack.top().addr(), limit: stack.bottom().addr() };
    corosensei::on_stack(span, || catch_unwind(AssertUnwindSafe(f)))
}

/// Starts to load the cache line at `address`, which need not be valid.
#[inline]
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing the program can see and never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").field("stack", &self.stack).finish_non_exhaustive()
    }
}
