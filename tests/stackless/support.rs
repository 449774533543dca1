//! What the groups share: a log, the states of a tasklet, panics without a message, destructors that tell.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    env,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    process::{Command, Output},
    rc::Rc,
};

use pila::{Handle, Tasklet};

/// What happened, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, event: impl Into<String>) {
        self.0.borrow_mut().push(event.into());
    }

    pub(crate) fn text(&self) -> String {
        self.0.borrow().join(" ")
    }

    #[track_caller]
    pub(crate) fn assert(&self, expected: &str) {
        assert_eq!(self.text(), expected);
    }

    /// A tasklet that logs `a0`, yields, and logs `a.`.
    pub(crate) fn two_turns(&self, name: &'static str) -> Tasklet<()> {
        let log = self.clone();
        pila::tasklet(move || {
            log.add(format!("{name}0"));
            pila::schedule();
            log.add(format!("{name}."));
        })
    }

    /// A tasklet that logs `x0`, `x1` and `x2` with yields in between, and `x!` when it is ended before that.
    pub(crate) fn three_turns(&self, name: &'static str) -> Tasklet<()> {
        let log = self.clone();
        pila::tasklet(move || {
            let end = log.clone();
            let mut killed = OnDrop::new(move || end.add(format!("{name}!")));
            for turn in 0..3 {
                if turn > 0 {
                    pila::schedule();
                }
                log.add(format!("{name}{turn}"));
            }
            killed.disarm();
        })
    }
}

/// What a handle says of itself: alive, blocked, scheduled, paused, current.
pub(crate) fn states(handle: &Handle) -> [bool; 5] {
    [
        handle.is_alive(),
        handle.is_blocked(),
        handle.is_scheduled(),
        handle.is_paused(),
        handle.is_current(),
    ]
}

pub(crate) const PAUSED: [bool; 5] = [true, false, false, true, false];
pub(crate) const SCHEDULED: [bool; 5] = [true, false, true, false, false];
pub(crate) const CURRENT: [bool; 5] = [true, false, true, false, true];
pub(crate) const BLOCKED: [bool; 5] = [true, true, true, false, false];
pub(crate) const DEAD: [bool; 5] = [false; 5];

/// A panic without a message on standard error.
pub(crate) fn silent_panic(text: &'static str) -> ! {
    resume_unwind(Box::new(text))
}

pub(crate) fn text_of(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&'static str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_string(),
        (_, Some(text)) => text.clone(),
        (None, None) => panic!("a panic without a text"),
    }
}

/// The text of what comes out of `f` by unwinding.
#[track_caller]
pub(crate) fn panic_of<T>(f: impl FnOnce() -> T) -> String {
    text_of(&*catch_unwind(AssertUnwindSafe(f)).err().expect("a panic"))
}

/// Calls its function when it is dropped, unless it was disarmed.
pub(crate) struct OnDrop<F: FnMut()>(Option<F>);

impl<F: FnMut()> OnDrop<F> {
    pub(crate) fn new(f: F) -> OnDrop<F> {
        OnDrop(Some(f))
    }

    pub(crate) fn disarm(&mut self) {
        self.0 = None;
    }
}

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(f) = &mut self.0 {
            f();
        }
    }
}

/// A flag that is set when the value beside it is dropped.
pub(crate) fn drop_flag() -> (Rc<Cell<bool>>, OnDrop<impl FnMut()>) {
    let flag = Rc::new(Cell::new(false));
    let theirs = flag.clone();
    (flag, OnDrop::new(move || theirs.set(true)))
}

/// Runs the test `name` again, alone, in a process of its own.
pub(crate) fn again(name: &str) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env("PILA_TEST_CHILD", "1");
    command.output().unwrap()
}

pub(crate) fn is_child() -> bool {
    env::var_os("PILA_TEST_CHILD").is_some()
}
