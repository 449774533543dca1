//! Backtraces: the calls in which a tasklet waits, taken as addresses and named later.
//!
//! - Taking one allocates nothing and touches little of the tasklet's own stack: the walk is done on another.
//! - Addresses are named once each, however many tasklets are there. Names cost far more than the walk.
//! - What is shown begins with the function of pila that was called and ends where the tasklet began: what lies inside
//!   and below is pila's own.

use std::{
    collections::HashMap,
    env,
    fmt::{self, Write as _},
    ops::{ControlFlow, Range},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    context::{Context, on_stack},
    stack::{Stack, page_size},
    walk::{Call, walk},
};

/// The most calls that are kept, the innermost ones.
pub(crate) const MAX_CALLS: usize = 128;

/// A tasklet that has less than this left of its stack is not made to call anything, though 200 bytes would do.
const ROOM: usize = 4 * 1024;

/// The calls of a tasklet, without names.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Trace {
    /// Return addresses, the innermost first.
    Calls(Box<[usize]>),
    Missing(Missing),
}

/// Why there is no trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Missing {
    NotStarted,
    /// Too little of its stack is left to call anything.
    NoRoom,
    /// No stack could be had to walk on.
    NoStack,
    /// The unwinder found nothing.
    Nothing,
}

/// Takes the trace of one tasklet after the other, each on the tasklet's own stack.
#[derive(Debug)]
pub(crate) struct Tracer {
    /// Where the walk is done: it takes more stack than a parked tasklet shall be made to touch for it.
    stack: Stack,
    /// The stack of the one to trace, its guard page first.
    target: Range<usize>,
    /// What was found last.
    trace: Result<Vec<usize>, Missing>,
    /// Where the one goes on that was traced.
    suspended: Option<Context>,
}

impl Tracer {
    pub(crate) fn new(stack: Stack) -> Tracer {
        Tracer { stack, target: 0..0, trace: Err(Missing::Nothing), suspended: None }
    }

    /// The next to be traced is the one whose stack has these addresses.
    pub(crate) fn aim(&mut self, target: Range<usize>) {
        self.target = target;
        match &mut self.trace {
            Ok(calls) => calls.clear(),
            missing => *missing = Ok(Vec::with_capacity(MAX_CALLS)),
        }
    }

    /// Traces the caller.
    #[inline(never)]
    pub(crate) fn trace(&mut self) {
        let here = std::ptr::from_ref(&self).addr();
        // It may stand on a larger stack, for the time of a call.
        if self.target.contains(&here) && here - self.target.start < page_size() + ROOM {
            self.trace = Err(Missing::NoRoom);
            return;
        }
        let Tracer { stack, target, trace: Ok(calls), .. } = self else { return };
        let lent = stack.bottom().addr().get()..stack.top().addr().get();
        on_stack(stack, || {
            let mut is_at_home = false;
            walk(&mut |call: Call| {
                let was_at_home = is_at_home;
                is_at_home = target.contains(&call.stack);
                // First come the calls on the stack lent for the walk, last those of the loop and of main.
                if was_at_home && !is_at_home {
                    return ControlFlow::Break(());
                }
                if !lent.contains(&call.stack) {
                    calls.push(call.address);
                }
                match calls.len() {
                    MAX_CALLS => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            });
        });
    }

    /// The one that was traced goes on here.
    pub(crate) fn leave(&mut self, suspended: Option<Context>) {
        self.suspended = suspended;
    }

    pub(crate) fn suspended(&mut self) -> Option<Context> {
        self.suspended.take()
    }

    /// What [`trace`](Self::trace) has found.
    pub(crate) fn found(&self) -> Trace {
        match &self.trace {
            Ok(calls) => Trace::of(calls),
            Err(missing) => Trace::Missing(*missing),
        }
    }

    /// Gives its stack back.
    pub(crate) fn finish(self) -> Stack {
        self.stack
    }
}

impl Trace {
    pub(crate) fn of(calls: &[usize]) -> Trace {
        match calls {
            [] => Trace::Missing(Missing::Nothing),
            calls => Trace::Calls(calls.into()),
        }
    }

    /// The caller's.
    pub(crate) fn here() -> Trace {
        let mut calls = Vec::with_capacity(MAX_CALLS);
        walk(&mut |call: Call| {
            calls.push(call.address);
            match calls.len() {
                MAX_CALLS => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        Trace::of(&calls)
    }
}

/// The names of addresses, each looked up once.
#[derive(Default, Debug)]
pub(crate) struct Names(HashMap<usize, Arc<[Frame]>>);

impl Names {
    /// `trace` with names.
    pub(crate) fn name(&mut self, trace: &Trace) -> Backtrace {
        let calls = match trace {
            Trace::Missing(missing) => return Backtrace::missing_because(*missing),
            Trace::Calls(calls) => calls,
        };
        let mut frames = Vec::new();
        for call in calls {
            frames.extend_from_slice(self.of(*call));
            // Further out no name is needed, and that of the C library may take longest.
            if frames.iter().any(Frame::is_start) {
                break;
            }
        }
        let is_cut = calls.len() == MAX_CALLS && !frames.iter().any(Frame::is_start);
        Backtrace { frames: shown(&frames).into(), missing: None, is_cut }
    }

    /// The function that `address` lies in, after those that were inlined there.
    fn of(&mut self, address: usize) -> &[Frame] {
        self.0.entry(address).or_insert_with(|| {
            let mut frames = Vec::new();
            let look_up = || {
                backtrace::resolve(std::ptr::without_provenance_mut(address), |symbol| {
                    frames.push(Frame {
                        address,
                        function: symbol.name().map(|name| format!("{name:#}")),
                        file: symbol.filename().map(Path::to_owned),
                        line: symbol.lineno(),
                        column: symbol.colno(),
                    });
                });
            };
            // It panics when somebody else's use of it did.
            drop(catch_unwind(AssertUnwindSafe(look_up)));
            if frames.is_empty() {
                frames.push(Frame {
                    address,
                    function: None,
                    file: None,
                    line: None,
                    column: None,
                });
            }
            frames.into()
        })
    }
}

/// The calls in which a tasklet waits, the innermost first.
///
/// It begins with the function of pila that was called and ends where the tasklet began. `Display` gives it as std prints
/// backtraces; the names are as good as the program's debug information.
///
/// ```
/// # use pila_runtime as pila;
/// fn patient() {
///     pila::sleep(std::time::Duration::MAX);
/// }
/// pila::tasklet(patient);
/// pila::schedule();
/// let dump = pila::dump();
/// let text = dump.tasklets()[1].backtrace.to_string();
/// assert!(text.contains("::patient"), "{text}");
/// ```
#[derive(Clone, Debug)]
pub struct Backtrace {
    frames: Arc<[Frame]>,
    missing: Option<Missing>,
    is_cut: bool,
}

impl Backtrace {
    fn missing_because(missing: Missing) -> Backtrace {
        Backtrace { frames: Arc::default(), missing: Some(missing), is_cut: false }
    }

    /// The calls, the innermost first; of a very deep stack only the innermost ones. Empty when there is nothing to
    /// show: see [`missing`](Self::missing).
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let dump = pila::dump();
    /// let main = &dump.tasklets()[0].backtrace;
    /// assert!(main.frames().iter().any(|frame| frame.function.as_ref().is_some_and(|f| f.contains("main"))));
    /// ```
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Why there are no calls to show: the tasklet has not started, for one.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// pila::tasklet(|| ());
    /// let dump = pila::dump();
    /// assert_eq!(dump.tasklets()[1].backtrace.missing(), Some("not started"));
    /// # pila::run();
    /// ```
    #[must_use]
    pub fn missing(&self) -> Option<&'static str> {
        self.missing.map(|missing| match missing {
            Missing::NotStarted => "not started",
            Missing::NoRoom => "not traced: too near to the end of its stack",
            Missing::NoStack => "not traced: no stack could be had to do it on",
            Missing::Nothing => "not traced: the program has no tables to walk its stacks with",
        })
    }

    /// The same for clones of one.
    pub(crate) fn key(&self) -> (*const Frame, Option<Missing>) {
        (self.frames.as_ptr(), self.missing)
    }
}

impl fmt::Display for Backtrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(missing) = self.missing() {
            return write!(f, "  {missing}");
        }
        let here = env::current_dir().unwrap_or_default();
        for (number, frame) in self.frames.iter().enumerate() {
            if number > 0 {
                f.write_char('\n')?;
            }
            write!(f, "{number:4}: ")?;
            frame.write(f, &here)?;
        }
        if self.is_cut {
            write!(f, "\n      and calls further out, which are left out")?;
        }
        Ok(())
    }
}

/// One call of a [`Backtrace`].
///
/// ```
/// # use pila_runtime as pila;
/// let dump = pila::dump();
/// let frame = &dump.tasklets()[0].backtrace.frames()[0];
/// assert_ne!(frame.address, 0);
/// println!("{:?} at {:?}:{:?}:{:?}", frame.function, frame.file, frame.line, frame.column);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct Frame {
    /// Where the function goes on when the call returns. Functions that were inlined there have the same.
    pub address: usize,
    /// The function, if the program has symbols.
    pub function: Option<String>,
    /// The source file, if the program has debug information; so for the next two.
    pub file: Option<PathBuf>,
    /// The line of the call, from 1.
    pub line: Option<u32>,
    /// Its column, from 1.
    pub column: Option<u32>,
}

impl Frame {
    /// Writes it in two lines, its file as seen from the directory `here`.
    fn write(&self, f: &mut fmt::Formatter<'_>, here: &Path) -> fmt::Result {
        match &self.function {
            Some(function) => f.write_str(function)?,
            None => write!(f, "<unknown> at {:#x}", self.address)?,
        }
        let (Some(file), Some(line)) = (&self.file, self.line) else { return Ok(()) };
        let file = file.strip_prefix(here).unwrap_or(file);
        write!(f, "\n             at {}:{line}", file.display())?;
        match self.column {
            Some(column) => write!(f, ":{column}"),
            None => Ok(()),
        }
    }

    /// The name without what a method of a trait or of a reference begins with.
    fn plain_name(&self) -> &str {
        self.function.as_deref().unwrap_or_default().trim_start_matches(['<', '&', '('])
    }

    /// Whether it belongs to pila or to what carries it.
    fn is_inside(&self) -> bool {
        let inside = ["pila_runtime::", "pila_net::", "corosensei::", "stack_call_", "stack_init_"];
        inside.iter().any(|name| self.plain_name().starts_with(name)) || self.is_in(sources::pila)
    }

    /// Whether it is what starts a tasklet, or a thread.
    fn is_start(&self) -> bool {
        self.plain_name().starts_with("pila_runtime::packet::Packet<")
            || self.plain_name().contains("__rust_begin_short_backtrace")
            || self.plain_name().starts_with("run<") && self.is_in(sources::packet)
    }

    /// Whether it is what closures and thread-locals are called through.
    fn is_glue(&self) -> bool {
        let glue = [
            "core::ops::function::",
            "core::panic::unwind_safe::",
            "alloc::boxed::Box<",
            "std::panic::catch_unwind",
            "std::panicking::",
            "std::thread::local::",
            "__rust_try",
        ];
        let name = self.plain_name();
        glue.iter().any(|glue| name.starts_with(glue))
            || name.contains("AssertUnwindSafe<")
            || name.contains(" as core::ops::function::Fn")
            || self.is_in(sources::glue)
    }

    fn is_in(&self, sources: fn(&Path) -> bool) -> bool {
        self.file.as_deref().is_some_and(sources)
    }
}

/// Whose sources a file belongs to: functions that were inlined have names without modules in a program whose debug
/// information is line tables only.
mod sources {
    use std::path::Path;

    const RUNTIME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

    /// Those of pila's packages, and of corosensei, wherever they came from.
    pub(super) fn pila(file: &Path) -> bool {
        let is_beside = |file: &Path| {
            let mut names = file.iter().filter_map(|name| name.to_str());
            let versioned = concat!("pila-net-", env!("CARGO_PKG_VERSION"));
            names.next().is_some_and(|name| name == "net" || name == versioned)
                && names.next() == Some("src")
        };
        let packages = Path::new(RUNTIME).parent().and_then(Path::parent);
        let beside = packages.and_then(|packages| file.strip_prefix(packages).ok());
        file.starts_with(RUNTIME)
            || beside.is_some_and(is_beside)
            || file.iter().any(|name| name.to_str().is_some_and(|n| n.starts_with("corosensei-")))
    }

    pub(super) fn packet(file: &Path) -> bool {
        file == Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/packet.rs"))
    }

    /// Those of std in which closures and thread-locals are called.
    pub(super) fn glue(file: &Path) -> bool {
        let files = [
            "library/core/src/ops/function.rs",
            "library/core/src/panic/unwind_safe.rs",
            "library/alloc/src/boxed.rs",
            "library/std/src/panic.rs",
            "library/std/src/panicking.rs",
            "library/std/src/thread/local.rs",
        ];
        files.iter().any(|end| file.ends_with(end))
    }
}

/// The part of `frames` that says something to whoever wrote the program: from the call into pila to what the tasklet
/// began with. Of calls of pila in between only the outermost is shown. All, if nothing would be left.
fn shown(frames: &[Frame]) -> Vec<Frame> {
    let start = frames.iter().position(Frame::is_start);
    let outermost = start.unwrap_or(frames.len());
    let mut shown: Vec<&Frame> = Vec::new();
    // The call of pila that leads to what was shown last, and glue that may belong to it.
    let (mut inside, mut glue) = (None, Vec::new());
    for frame in &frames[..outermost] {
        if frame.is_inside() {
            inside = Some(frame);
            glue.clear();
        } else if frame.is_glue() {
            glue.push(frame);
        } else {
            shown.extend(inside.take());
            // What led into pila is pila's own; between others it is theirs.
            if !shown.last().is_none_or(|last| last.is_inside()) {
                shown.append(&mut glue);
            }
            glue.clear();
            shown.push(frame);
        }
    }
    // What lies between the closure and its start is what starts it.
    if start.is_none() || shown.is_empty() {
        shown.extend(inside);
    }
    match shown.is_empty() {
        true => frames.to_vec(),
        false => shown.into_iter().cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown_of(names: &[&'static str]) -> Vec<String> {
        let frame = |(address, name): (usize, &&str)| Frame {
            address,
            function: (!name.is_empty()).then(|| (*name).to_owned()),
            file: None,
            line: None,
            column: None,
        };
        let frames: Vec<_> = names.iter().enumerate().map(frame).collect();
        shown(&frames).iter().map(|frame| frame.function.clone().unwrap_or_default()).collect()
    }

    #[test]
    fn a_tasklet_is_shown_from_the_call_into_pila_to_its_closure() {
        let shown = shown_of(&[
            "pila_runtime::backtrace::Tracer::trace",
            "pila_runtime::scheduler::turns::<impl pila_runtime::scheduler::Scheduler>::wait",
            "std::thread::local::LocalKey<T>::with",
            "pila_runtime::channel::Channel<T>::receive",
            "app::read_reply",
            "std::io::copy",
            "app::main::{{closure}}",
            "<core::panic::unwind_safe::AssertUnwindSafe<F> as core::ops::function::FnOnce<()>>::call_once",
            "std::panicking::catch_unwind",
            "<pila_runtime::packet::Packet<F,T> as pila_runtime::table::Job>::run",
            "stack_init_trampoline_return",
        ]);
        let expected = [
            "pila_runtime::channel::Channel<T>::receive",
            "app::read_reply",
            "std::io::copy",
            "app::main::{{closure}}",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn functions_without_modules_are_known_by_their_files() {
        let (runtime, net) = (env!("CARGO_MANIFEST_DIR"), "net/src/tcp/stream.rs");
        let beside = Path::new(runtime).with_file_name(net);
        let std = "/rustc/0123/library/";
        let frames: Vec<_> = [
            ("wait", format!("{runtime}/src/scheduler/turns.rs")),
            ("with<(), closure>", format!("{std}std/src/thread/local.rs")),
            ("read", beside.to_str().unwrap().to_owned()),
            ("read_reply", "/home/me/app/src/main.rs".into()),
            ("run", "/home/me/app/src/tasklet.rs".into()),
            ("{closure#0}", "/home/me/app/runtime/src/main.rs".into()),
            ("do_call<closure>", format!("{std}std/src/panicking.rs")),
            ("with<(), closure>", format!("{runtime}/src/current.rs")),
            ("run<closure, (), false>", format!("{runtime}/src/packet.rs")),
            ("on_stack", "/registry/corosensei-0.3.4/src/coroutine.rs".into()),
        ]
        .into_iter()
        .map(|(name, file)| Frame {
            address: 1,
            function: Some(name.into()),
            file: Some(file.into()),
            line: Some(1),
            column: None,
        })
        .collect();
        let shown = shown(&frames);
        let names: Vec<_> = shown.iter().filter_map(|frame| frame.function.as_deref()).collect();
        assert_eq!(names, ["read", "read_reply", "run", "{closure#0}"]);
    }

    #[test]
    fn of_pila_only_the_calls_into_it_are_shown() {
        let shown = shown_of(&[
            "pila_runtime::time::sleep",
            "app::nap",
            "core::ops::function::FnOnce::call_once",
            "<core::panic::unwind_safe::AssertUnwindSafe<F> as core::ops::function::FnOnce<()>>::call_once",
            "std::panicking::catch_unwind",
            "pila_runtime::limits::timeout",
            "core::ops::function::FnOnce::call_once",
            "app::main::{{closure}}",
        ]);
        let expected = [
            "pila_runtime::time::sleep",
            "app::nap",
            "pila_runtime::limits::timeout",
            "app::main::{{closure}}",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn glue_between_calls_of_the_program_is_shown() {
        let names = ["app::compare", "core::ops::function::FnMut::call_mut", "app::sort"];
        assert_eq!(shown_of(&names), names);
    }

    #[test]
    fn main_is_shown_to_its_first_line() {
        let shown = shown_of(&[
            "pila_runtime::scheduler::Scheduler::leave_main",
            "pila_runtime::tasklet::run",
            "app::main",
            "core::ops::function::FnOnce::call_once",
            "std::sys::backtrace::__rust_begin_short_backtrace",
            "std::rt::lang_start",
            "main",
        ]);
        assert_eq!(shown, ["pila_runtime::tasklet::run", "app::main"]);
    }

    #[test]
    fn what_has_no_names_is_shown_whole() {
        assert_eq!(shown_of(&["", ""]).len(), 2);
        assert_eq!(shown_of(&["core::ops::function::a", "std::panicking::b"]).len(), 2);
    }

    #[test]
    fn a_tasklet_that_is_nothing_but_a_call_into_pila_is_shown_in_it() {
        let shown = shown_of(&[
            "pila_runtime::scheduler::Scheduler::leave",
            "pila_runtime::time::sleep",
            "core::ops::function::FnOnce::call_once",
            "<pila_runtime::packet::Packet<F,T> as pila_runtime::table::Job>::run",
        ]);
        assert_eq!(shown, ["pila_runtime::time::sleep"]);
    }
}
