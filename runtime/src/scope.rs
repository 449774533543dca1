//! Scopes: tasklets that may borrow, for the call that made them does not return before they have ended.
//!
//! - A scope is a call and no value: there is nothing that could be forgotten. It returns, and unwinds, only when every
//!   tasklet on its list has left its stack or was dropped unstarted.
//! - What ends the call's body ends its tasklets: a panic, a kill, a limit around it, a panic of one of them.
//! - Nothing is waited for while the stack unwinds: the unwinding is caught, all have ended, then it goes on.
#![allow(unsafe_code)]

use std::{
    fmt, io,
    marker::PhantomData,
    mem,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
};

use crate::{
    current::with,
    ending::{is_kill, is_strike},
    error::{Interrupt, JoinError, NO_UNWINDING, Refused},
    frame::FrameKey,
    scheduler::{Birth, OnReturn, Payload, Scheduler, drop_quietly},
    stack::SizeClass,
    table::{Job, Key},
    tasklet::{Builder, Handle, Scoped, create_scoped},
    wake::Waiting,
};

/// Calls `f` with a scope in which tasklets can be made that borrow from the caller; returns when all of them have ended,
/// by whatever road.
///
/// - When `f` has returned, this waits for the tasklets.
/// - When `f` panics, is killed or is ended by a [`timeout`](crate::timeout) around the scope, the tasklets are killed, all
///   have ended, and the unwinding goes on.
/// - When a tasklet panics whose handle nobody holds, `f` is ended at its next call that waits, the other tasklets are
///   killed, and the panic goes on here.
/// - When nothing can run any more, the tasklets are killed, and this panics with the report.
///
/// Tasklets of the scope may make others in it. In a tasklet that is being ended, a scope drops its closures unstarted.
///
/// # Panics
/// With the first panic of `f` and of the tasklets whose handles are not held; with the report of a deadlock; with the
/// error when such a tasklet found no stack; naming the [`no_switch`](crate::no_switch) guard that is in force when it has
/// to wait.
///
/// ```
/// # use pila_runtime as pila;
/// use std::cell::Cell;
///
/// let (letters, names) = (Cell::new(0), vec!["ana", "juan", "eva"]);
/// let longest = pila::scope(|s| {
///     for name in &names {
///         let letters = &letters;
///         s.tasklet(move || {
///             pila::schedule();
///             letters.set(letters.get() + name.len());
///         });
///     }
///     s.tasklet(|| names.iter().map(|name| name.len()).max()).join().unwrap()
/// });
/// assert_eq!((letters.get(), longest), (10, Some(4)));
/// ```
#[doc(alias = "nursery")]
pub fn scope<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    let begun = with(Scheduler::begin_scope);
    // When the thread has ended there is none, and all closures are dropped unstarted.
    let number = begun.map_or(u32::MAX, |(number, _)| number);
    let scope = Scope { number, scope: PhantomData, env: PhantomData, here: PhantomData };
    let Some((number, frame)) = begun else { return f(&scope) };
    let body = catch_unwind(AssertUnwindSafe(|| {
        let value = f(&scope);
        (value, with(|scheduler| scheduler.wait_for_children(number)))
    }));
    let (first, late) = with(|scheduler| {
        if scheduler.has_ended() {
            // What is left of the scope is leaked and never runs: it may borrow what goes now.
            return (None, [None, None]);
        }
        let first = scheduler.core.borrow_mut().scopes.get(number).panic.take();
        if let (true, Ok((_, Some(obstacle)))) = (cfg!(panic = "abort"), &body) {
            scheduler.assert_unstarted(number, obstacle);
        }
        let came = scheduler.end_children(number);
        // Now no tasklet of the scope is left: what they borrow may go.
        let second = match scheduler.has_ended() {
            true => None,
            false => scheduler.core.borrow_mut().scopes.end(number).panic,
        };
        scheduler.end_frame(frame);
        (first, [came, second])
    });
    let (value, obstacle, unwinding) = match body {
        Ok((value, obstacle)) => (Some(value), obstacle, None),
        // Its own strike has done its work.
        Err(payload) if Scheduler::is_for(&payload, frame) => (None, None, None),
        Err(payload) => (None, None, Some(payload)),
    };
    // A kill goes through everything; what only ends a limit around the scope comes after any panic.
    let rank = |payload: &Payload| match () {
        () if is_kill(&**payload) => 0,
        () if is_strike(&**payload) => 2,
        () => 1,
    };
    let mut raised: Vec<Payload> = [first, unwinding].into_iter().chain(late).flatten().collect();
    raised.sort_by_key(rank);
    if let Some(payload) = keep_first(raised) {
        drop_quietly(value);
        resume_unwind(payload);
    }
    match obstacle {
        Some(Interrupt::Deadlock(report)) => {
            drop_quietly(value);
            panic!("the tasklets of a scope could not go on and were ended: {report}");
        }
        Some(Interrupt::Refused(guard @ Refused::NoSwitch(_))) => {
            drop_quietly(value);
            panic!("scope: {guard}");
        }
        _ => value.expect("a call that did not unwind has a value"),
    }
}

/// The first of `raised`. The others are counted as panics that nobody has read.
fn keep_first(raised: Vec<Payload>) -> Option<Payload> {
    let mut raised = raised.into_iter();
    let first = raised.next();
    for payload in raised {
        if !is_kill(&*payload) && !is_strike(&*payload) {
            with(|scheduler| scheduler.panic_was_not_read());
        }
        drop_quietly(payload);
    }
    first
}

/// What [`scope`](scope()) gives its closure: where tasklets are made that may borrow.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::Scope;
///
/// fn count<'scope>(s: &'scope Scope<'scope, '_>, total: &'scope std::cell::Cell<u32>) {
///     s.tasklet(|| total.set(total.get() + 1));
/// }
///
/// let total = std::cell::Cell::new(0);
/// pila::scope(|s| {
///     count(s, &total);
///     count(s, &total);
/// });
/// assert_eq!(total.get(), 2);
/// ```
pub struct Scope<'scope, 'env: 'scope> {
    number: u32,
    // Invariant in both, as std's.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
    /// A number means something on one thread only.
    here: PhantomData<*const ()>,
}

impl<'scope, 'env> Scope<'scope, 'env> {
    /// Creates a tasklet that runs `f`, which may borrow what outlives the scope, and puts it at the tail of the run queue.
    /// Dropping what it returns detaches it from its handle, not from the scope.
    ///
    /// While the scope or the caller is being ended, `f` is dropped unstarted.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let mut lines = vec![String::new(); 3];
    /// pila::scope(|s| {
    ///     for (number, line) in lines.iter_mut().enumerate() {
    ///         s.tasklet(move || line.push_str(&number.to_string()));
    ///     }
    /// });
    /// assert_eq!(lines.concat(), "012");
    /// ```
    #[doc(alias = "spawn")]
    #[track_caller]
    pub fn tasklet<F, T>(&'scope self, f: F) -> ScopedTasklet<'scope, T>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        let how = (SizeClass::DEFAULT, None, Birth::Queued);
        ScopedTasklet { tasklet: create_scoped(self.number, f, how, lengthen) }
    }

    /// Creates a tasklet that is paused: it is not in the run queue until it is inserted. One that never is is a deadlock
    /// when nothing else can run.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let word = String::from("pila");
    /// let length = pila::scope(|s| {
    ///     let tasklet = s.bind(|| word.len());
    ///     tasklet.insert().unwrap();
    ///     tasklet.join().unwrap()
    /// });
    /// assert_eq!(length, 4);
    /// ```
    #[track_caller]
    pub fn bind<F, T>(&'scope self, f: F) -> ScopedTasklet<'scope, T>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        let how = (SizeClass::DEFAULT, None, Birth::Paused);
        ScopedTasklet { tasklet: create_scoped(self.number, f, how, lengthen) }
    }
}

impl Builder {
    /// Creates the tasklet in a scope, as [`Scope::tasklet`] does.
    ///
    /// # Errors
    /// As [`Builder::tasklet`].
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let word = String::from("pila");
    /// let name = pila::scope(|s| {
    ///     let named = pila::Builder::new().name("n").tasklet_scoped(s, || word.len())?;
    ///     assert_eq!(named.name(), Some("n"));
    ///     named.join().map_err(std::io::Error::other)
    /// })?;
    /// assert_eq!(name, 4);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "spawn_scoped")]
    #[track_caller]
    pub fn tasklet_scoped<'scope, 'env, F, T>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        f: F,
    ) -> io::Result<ScopedTasklet<'scope, T>>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        let (class, name) = self.settle()?;
        let how = (class, name, Birth::Queued);
        Ok(ScopedTasklet { tasklet: create_scoped(scope.number, f, how, lengthen) })
    }

    /// Creates the tasklet in a scope, paused, as [`Scope::bind`] does.
    ///
    /// # Errors
    /// As [`Builder::tasklet`].
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let word = String::from("pila");
    /// pila::scope(|s| {
    ///     let later = pila::Builder::new().name("later").bind_scoped(s, || word.len())?;
    ///     assert!(later.is_paused());
    ///     later.insert().map_err(std::io::Error::other)
    /// })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn bind_scoped<'scope, 'env, F, T>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        f: F,
    ) -> io::Result<ScopedTasklet<'scope, T>>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        let (class, name) = self.settle()?;
        let how = (class, name, Birth::Paused);
        Ok(ScopedTasklet { tasklet: create_scoped(scope.number, f, how, lengthen) })
    }
}

/// Lets the scheduler keep a tasklet of a scope.
fn lengthen<'scope>(job: Rc<dyn Job + 'scope>) -> Rc<dyn Job> {
    // SAFETY: only the lifetime changes. `create_scoped` hands the job to the scheduler alone, which puts it on the list of
    // a scope that has not returned, or back to be dropped at once. The scheduler lets go of it when the tasklet has left
    // its stack or when its closure is dropped, both before it goes off the list; and `scope` does not return, by any road,
    // before the list is empty. What its thread's end finds unstarted is leaked (`Scheduler::end`). A handle that is left
    // after that holds a packet without a closure, and its own type does not outlive `'scope`.
    unsafe { mem::transmute::<Rc<dyn Job + 'scope>, Rc<dyn Job>>(job) }
}

/// A tasklet of a scope, whose result can be had. Dropping it detaches the tasklet, which still ends within the scope.
///
/// Dereferences to [`Handle`].
///
/// ```
/// # use pila_runtime as pila;
/// let words = ["one", "two", "three"];
/// let total: usize = pila::scope(|s| {
///     let lengths: Vec<pila::ScopedTasklet<'_, usize>> =
///         words.iter().map(|word| s.tasklet(|| word.len())).collect();
///     lengths.into_iter().map(|length| length.join().unwrap()).sum()
/// });
/// assert_eq!(total, 11);
/// ```
pub struct ScopedTasklet<'scope, T> {
    tasklet: Scoped<'scope, T>,
}

impl<T> ScopedTasklet<'_, T> {
    /// Waits until the tasklet has ended and gives its result.
    ///
    /// # Errors
    /// As [`Tasklet::join`](crate::Tasklet::join).
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let text = String::from("42");
    /// let number = pila::scope(|s| s.tasklet(|| text.parse::<u32>()).join().unwrap());
    /// assert_eq!(number, Ok(42));
    /// ```
    pub fn join(self) -> Result<T, JoinError> {
        self.tasklet.outcome.slot().join(self.id())
    }

    /// A handle to keep when this is joined or dropped.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let handle = pila::scope(|s| s.tasklet(|| ()).handle());
    /// assert!(!handle.is_alive());
    /// ```
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.tasklet.handle.clone()
    }
}

impl<T> Deref for ScopedTasklet<'_, T> {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.tasklet.handle
    }
}

impl<T> Drop for ScopedTasklet<'_, T> {
    fn drop(&mut self) {
        self.tasklet.outcome.slot().let_go();
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("number", &self.number).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for ScopedTasklet<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScopedTasklet").field(&self.tasklet.handle).finish()
    }
}

impl Scheduler {
    /// Begins a scope of the tasklet that runs. None when the thread has ended.
    fn begin_scope(&self) -> Option<(u32, FrameKey)> {
        let frame = self.begin_limit(Refused::ScopeEnds, None)?;
        let mut core = self.core.borrow_mut();
        let owner = core.current_key();
        Some((core.scopes.begin(owner, frame), frame))
    }

    /// Waits for the end of the scope's tasklets; may unwind. Says what it was that kept it from waiting.
    fn wait_for_children(&self, scope: u32) -> Option<Interrupt> {
        loop {
            self.drop_unstarted(scope);
            if self.has_no_children(scope) {
                return None;
            }
            let ticket = match self.begin_sleep() {
                Ok(ticket) => ticket,
                Err(refused) => return Some(Interrupt::Refused(refused)),
            };
            self.core.borrow_mut().scopes.get(scope).waiter = Some(ticket);
            if let Err(interrupt) = self.wait(ticket, &Waiting::Scope, None) {
                return Some(interrupt);
            }
        }
    }

    /// Ends the scope's tasklets and waits until they have ended, whatever happens. Gives the first panic that came to the
    /// owner meanwhile.
    fn end_children(&self, scope: u32) -> Option<Payload> {
        self.core.borrow_mut().scopes.get(scope).ending = true;
        if self.has_no_children(scope) {
            return None;
        }
        let shield = self.begin_shield();
        let mut raised = Vec::new();
        let mut note = |step: &dyn Fn()| {
            raised.extend(catch_unwind(AssertUnwindSafe(step)).err());
        };
        for child in self.children(scope) {
            note(&|| self.end_child(child));
        }
        loop {
            note(&|| self.drop_unstarted(scope));
            if self.has_no_children(scope) {
                break;
            }
            // Those that caught their kill, or are shielded, or end scopes of their own.
            note(&|| {
                let ticket = self.ticket();
                self.core.borrow_mut().scopes.get(scope).waiter = Some(ticket);
                // Only their end counts.
                let _ = self.wait(ticket, &Waiting::Scope, None);
            });
        }
        if let Some(shield) = shield {
            self.end_frame(shield);
        }
        keep_first(raised)
    }

    /// Panics, where nothing can be unwound, when some of the scope's tasklets have started and cannot go on.
    fn assert_unstarted(&self, scope: u32, obstacle: &Interrupt) {
        let children = self.children(scope);
        let core = self.core.borrow();
        if children.iter().any(|&child| core.find(child).is_some_and(|task| task.job.is_none())) {
            drop(core);
            panic!(
                "a scope cannot end its tasklets, which could not go on: {NO_UNWINDING}\n{obstacle}"
            );
        }
    }

    fn children(&self, scope: u32) -> Vec<Key> {
        let mut core = self.core.borrow_mut();
        core.scopes.get(scope).children.iter().map(|(_, &child)| child).collect()
    }

    /// Also when its thread has ended: none of them runs any more.
    fn has_no_children(&self, scope: u32) -> bool {
        self.has_ended() || self.core.borrow_mut().scopes.get(scope).children.is_empty()
    }

    /// Drops the closures that found no stack.
    fn drop_unstarted(&self, scope: u32) {
        while !self.has_ended() {
            let unstarted = self.core.borrow_mut().scopes.get(scope).leftovers.pop();
            let Some((member, job)) = unstarted else { return };
            let _left = OnReturn(|| self.core.borrow_mut().leave_scope(member));
            job.drop_closure();
        }
    }
}
