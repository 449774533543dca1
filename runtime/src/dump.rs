//! A dump: every tasklet of a thread, what it waits for and where it is.
//!
//! - It is taken on the native stack, with everyone suspended: nothing moves meanwhile, and no code of the user runs.
//! - It holds copies only, so it outlives its tasklets and may go to another thread.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt::{self, Write as _},
    panic::Location,
    rc::Rc,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    backtrace::{Backtrace, Missing, Names, Trace},
    current::with,
    report::{Several, Who},
    scheduler::Scheduler,
    state::Core,
    table::{MAIN, State, Task},
    wake::{TaskletId, Waiting},
};

/// Lines about the tasklets at one place before the rest of them is only counted.
const LINES: usize = 5;

/// Shows every tasklet of the calling thread: its state, what it waits for and since when, where it was created, and its
/// backtrace.
///
/// No tasklet goes on meanwhile: each is asked where it is and answers from within the call that it waits in. The run
/// queue, deadlines and counters stay as they are, and callbacks that watch switches see nothing. It may be called by main
/// and by any tasklet, also inside a [`no_switch`](crate::no_switch) guard, in a destructor while a panic unwinds, and in a
/// panic hook. A thread that has ended, or whose scheduler was interrupted by a panic in the middle of its work, has
/// nothing to show.
///
/// It takes some 2 µs for each tasklet and, the first time, some milliseconds to find names. Of each suspended tasklet's
/// stack it touches 200 bytes (800 without optimization) below the call that it waits in: where those lie on another
/// page, the tasklet takes up a page more from then on. One that has less than 4 KiB left of its stack is not traced.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::TaskletState;
///
/// let channel = pila::Channel::<()>::new();
/// for _ in 0..1000 {
///     let channel = channel.clone();
///     pila::tasklet(move || channel.receive());
/// }
/// pila::schedule();
/// let dump = pila::dump();
/// let blocked = dump.tasklets().iter().filter(|tasklet| tasklet.state == TaskletState::Blocked);
/// assert_eq!(blocked.count(), 1000);
/// let text = dump.to_string();
/// assert!(text.contains("1,000 tasklets at:\n   0: "), "{text}");
/// assert!(text.contains("waits for a sender on channel 1"), "{text}");
/// # channel.close();
/// # pila::run();
/// ```
#[must_use]
pub fn dump() -> Dump {
    let place = Rc::new(RefCell::new(None));
    let theirs = place.clone();
    with(|scheduler| {
        scheduler.on_native_stack(move |scheduler| drop(theirs.replace(Some(Dump::of(scheduler)))))
    });
    let dump = place.take();
    dump.unwrap_or_else(|| Dump { thread: thread_name(), tasklets: Vec::new() })
}

/// Every tasklet of a thread, as [`dump`] found them.
///
/// `Display` gives a text for people, in which tasklets that wait at one place stand together.
///
/// ```
/// # use pila_runtime as pila;
/// let dump = pila::dump();
/// assert_eq!(dump.tasklets().len(), 1);
/// assert!(dump.to_string().contains("'main' (#0): runs"));
/// ```
#[derive(Clone, Debug)]
pub struct Dump {
    thread: Option<Box<str>>,
    /// Main first, then by age.
    tasklets: Vec<DumpedTasklet>,
}

/// One tasklet of a [`Dump`].
///
/// ```
/// # use pila_runtime as pila;
/// use pila::{Channel, TaskletState, Waiting};
///
/// let channel = Channel::<()>::new();
/// let theirs = channel.clone();
/// let tasklet = pila::Builder::new().name("reader").tasklet(move || theirs.receive())?;
/// pila::schedule();
/// let dump = pila::dump();
/// let reader = &dump.tasklets()[1];
/// assert_eq!((reader.who.id, reader.who.name.as_deref()), (tasklet.id(), Some("reader")));
/// assert_eq!(reader.state, TaskletState::Blocked);
/// assert_eq!(reader.waiting, Some(Waiting::Receive(channel.id())));
/// assert_eq!(reader.created.line(), line!() - 7);
/// # channel.close();
/// # pila::run();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DumpedTasklet {
    /// Which one.
    pub who: Who,
    /// Where it was created.
    pub created: &'static Location<'static>,
    /// What it does.
    pub state: TaskletState,
    /// What it waits for, if it does.
    pub waiting: Option<Waiting>,
    /// Who holds the lock that it waits for; one of them, when several read.
    pub holder: Option<Who>,
    /// For how long it has been waiting.
    pub since: Option<Duration>,
    /// Where it is.
    pub backtrace: Backtrace,
}

/// What a tasklet of a [`Dump`] does.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::{Tasklet, TaskletState};
///
/// let _paused = Tasklet::bind(|| ());
/// let scheduled = pila::tasklet(|| {
///     pila::dump().tasklets().iter().map(|tasklet| tasklet.state).collect::<Vec<_>>()
/// });
/// pila::run();
/// let states = scheduled.join().unwrap();
/// assert_eq!(states, [TaskletState::InRun, TaskletState::Paused, TaskletState::Running]);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum TaskletState {
    /// It runs: it called [`dump`], or was the last that ran.
    Running,
    /// It is in the run queue.
    Scheduled,
    /// It waits for something.
    Blocked,
    /// It waits to be inserted into the run queue.
    Paused,
    /// It waits in [`run`](crate::run), for the others.
    InRun,
}

impl Dump {
    /// The tasklets, main first and then in the order of their creation.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let tasklet = pila::tasklet(|| ());
    /// let numbers: Vec<_> = pila::dump().tasklets().iter().map(|tasklet| tasklet.who.id).collect();
    /// assert_eq!(numbers, [pila::main_tasklet().id(), tasklet.id()]);
    /// # pila::run();
    /// ```
    #[must_use]
    pub fn tasklets(&self) -> &[DumpedTasklet] {
        &self.tasklets
    }

    /// The name of the thread that they belong to, if it has one.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let thread = pila::spawn_thread_named("mails", pila::dump)?;
    /// assert_eq!(thread.join().unwrap().thread(), Some("mails"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn thread(&self) -> Option<&str> {
        self.thread.as_deref()
    }

    /// All of it in one line of JSON.
    ///
    /// An object with `thread`, `tasklets` and `stacks`. A tasklet has `id`, `name`, `created`, `state` (`running`,
    /// `scheduled`, `blocked`, `paused` or `in run`), `waits` (a text), `holder` (a number), `seconds` and `stack`, the
    /// place of its backtrace among `stacks`. A stack has `tasklets`, their number, `missing` (a text) and `frames`, each with
    /// `function`, `file`, `line`, `column` and `address` (a text). What is not known is `null`.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// let json = pila::dump().to_json();
    /// assert!(json.starts_with(r#"{"thread":"main","tasklets":[{"id":0,"name":"main","#), "{json}");
    /// ```
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = String::new();
        self.write_json(&mut json).expect("a string takes all there is");
        json
    }

    /// On the native stack.
    pub(crate) fn of(scheduler: &Scheduler) -> Dump {
        scheduler.current();
        let mut stacks = Stacks::default();
        let mut places = HashMap::new();
        scheduler.trace_all(|index, trace| _ = places.insert(index, stacks.add(trace)));
        places.insert(MAIN, stacks.add(Trace::here()));
        let not_started = stacks.add(Trace::Missing(Missing::NotStarted));
        let now = scheduler.time();
        let Ok(core) = scheduler.core.try_borrow() else {
            return Dump { thread: thread_name(), tasklets: Vec::new() };
        };
        let backtraces = stacks.name();
        let mut tasklets: Vec<DumpedTasklet> = core
            .tasks
            .iter()
            .map(|(index, task)| {
                let index = index as u32;
                let place = places.get(&index).copied().unwrap_or(not_started);
                DumpedTasklet::of(&core, index, task, now, backtraces[place].clone())
            })
            .collect();
        tasklets.sort_unstable_by_key(|tasklet| tasklet.who.id);
        Dump { thread: thread_name(), tasklets }
    }

    /// Those that are at one place: first the one that runs, then by their number.
    fn groups(&self) -> Vec<Vec<&DumpedTasklet>> {
        let (mut groups, mut places) = (Vec::<Vec<_>>::new(), HashMap::new());
        for tasklet in &self.tasklets {
            let runs = tasklet.state == TaskletState::Running;
            let place = *places.entry((runs, tasklet.backtrace.key())).or_insert(groups.len());
            match groups.get_mut(place) {
                Some(group) => group.push(tasklet),
                None => groups.push(vec![tasklet]),
            }
        }
        groups.sort_by_key(|group| {
            (group[0].state != TaskletState::Running, usize::MAX - group.len())
        });
        groups
    }

    fn write_json(&self, json: &mut String) -> fmt::Result {
        let (mut places, mut stacks) = (HashMap::new(), Vec::<(&Backtrace, usize)>::new());
        write!(json, r#"{{"thread":{},"tasklets":["#, Json(self.thread()))?;
        for (number, tasklet) in self.tasklets.iter().enumerate() {
            let place = *places.entry(tasklet.backtrace.key()).or_insert(stacks.len());
            match stacks.get_mut(place) {
                Some((_, count)) => *count += 1,
                None => stacks.push((&tasklet.backtrace, 1)),
            }
            json.push_str(if number > 0 { "," } else { "" });
            tasklet.write_json(json, place)?;
        }
        json.push_str(r#"],"stacks":["#);
        for (number, (backtrace, count)) in stacks.into_iter().enumerate() {
            json.push_str(if number > 0 { "," } else { "" });
            backtrace.write_json(json, count)?;
        }
        json.push_str("]}");
        Ok(())
    }
}

fn thread_name() -> Option<Box<str>> {
    thread::current().name().map(Into::into)
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of thread ", Count(self.tasklets.len()))?;
        match &self.thread {
            Some(name) => writeln!(f, "'{name}'")?,
            None => writeln!(f, "without a name")?,
        }
        for group in self.groups() {
            match group[0].backtrace.missing() {
                Some(missing) => writeln!(f, "\n{}, {missing}:", Count(group.len()))?,
                None => writeln!(f, "\n{} at:\n{}", Count(group.len()), group[0].backtrace)?,
            }
            write_lines(f, &group)?;
        }
        Ok(())
    }
}

/// How many tasklets: `4,812 tasklets`.
struct Count(usize);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tasklet{}", Thousands(self.0), if self.0 == 1 { "" } else { "s" })
    }
}

/// A number: `4,812`.
struct Thousands(usize);

impl fmt::Display for Thousands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (place, digit) in digits.char_indices() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                f.write_char(',')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// Says of tasklets at one place who they are: those that were created at one place and do the same in one line.
fn write_lines(f: &mut fmt::Formatter<'_>, group: &[&DumpedTasklet]) -> fmt::Result {
    let (mut lines, mut places) = (Vec::<Vec<&DumpedTasklet>>::new(), HashMap::new());
    let mut left_out = 0;
    for tasklet in group {
        let key = (tasklet.created, tasklet.what(), tasklet.holder.clone());
        // All that are left out have the place behind the last line.
        let place = *places.entry(key).or_insert(lines.len());
        if place == lines.len() && place < LINES {
            lines.push(Vec::new());
        }
        match lines.get_mut(place) {
            Some(line) => line.push(tasklet),
            None => left_out += 1,
        }
    }
    for line in &lines {
        writeln!(f, "  {}", Line(line))?;
    }
    match left_out {
        0 => Ok(()),
        _ => writeln!(f, "  and {} more", Thousands(left_out)),
    }
}

/// Tasklets that one line tells about. There is at least one.
struct Line<'a>(&'a [&'a DumpedTasklet]);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line(tasklets) = self;
        let first = tasklets[0];
        write!(f, "{}", Several(tasklets.iter().map(|tasklet| &tasklet.who)))?;
        if first.who.id != TaskletId::MAIN {
            write!(f, ", created at {}", first.created)?;
        }
        write!(f, ": {}", first.what())?;
        if let Some(holder) = &first.holder {
            write!(f, ", held by {holder}")?;
        }
        match tasklets.iter().filter_map(|tasklet| tasklet.since).max() {
            Some(since) if since >= Duration::from_millis(1) => write!(f, ", for {since:.1?}"),
            _ => Ok(()),
        }
    }
}

impl DumpedTasklet {
    fn of(
        core: &Core,
        index: u32,
        task: &Task,
        now: Option<Instant>,
        backtrace: Backtrace,
    ) -> DumpedTasklet {
        let (state, waiting) = match core.stands[index as usize].state {
            State::Running => (TaskletState::Running, None),
            State::Queued(_) | State::Starved => (TaskletState::Scheduled, None),
            State::Parked(_) => (TaskletState::Blocked, Some(task.waiting)),
            State::Paused if core.runners.contains(&index) => (TaskletState::InRun, None),
            State::Paused => (TaskletState::Paused, Some(Waiting::Insert)),
        };
        let holder =
            waiting.and_then(Waiting::lock).and_then(|lock| core.holders.get(&lock.number));
        let holder = holder.map(|key| match core.find(*key) {
            Some(task) => task.who(),
            None => Who { id: key.id, name: None },
        });
        let now = match (now, core.epoch) {
            (Some(now), Some(epoch)) => now.saturating_duration_since(epoch),
            _ => Duration::from_nanos(core.now),
        };
        let since = now.saturating_sub(Duration::from_nanos(task.since));
        let waits =
            matches!(state, TaskletState::Blocked | TaskletState::Paused | TaskletState::InRun);
        DumpedTasklet {
            who: task.who(),
            created: task.created,
            state,
            waiting,
            holder,
            since: waits.then_some(since),
            backtrace,
        }
    }

    /// What it does.
    fn what(&self) -> String {
        match (self.waiting, self.state) {
            (Some(waiting), _) => waiting.to_string(),
            (None, TaskletState::Running) => "runs".into(),
            (None, TaskletState::InRun) => "waits for its run to end".into(),
            (None, _) => "is in the run queue".into(),
        }
    }

    fn write_json(&self, json: &mut String, stack: usize) -> fmt::Result {
        let state = match self.state {
            TaskletState::Running => "running",
            TaskletState::Scheduled => "scheduled",
            TaskletState::Blocked => "blocked",
            TaskletState::Paused => "paused",
            TaskletState::InRun => "in run",
        };
        let created = self.created.to_string();
        let waits = self.waiting.map(|waiting| waiting.to_string());
        write!(json, r#"{{"id":{},"name":{}"#, self.who.id.get(), Json(self.who.name.as_deref()))?;
        write!(json, r#","created":{},"state":"{state}""#, Json(Some(&created)))?;
        write!(json, r#","waits":{}"#, Json(waits.as_deref()))?;
        write!(json, r#","holder":{}"#, Known(self.holder.as_ref().map(|holder| holder.id.get())))?;
        write!(json, r#","seconds":{}"#, Known(self.since.map(|since| since.as_secs_f64())))?;
        write!(json, r#","stack":{stack}}}"#)
    }
}

impl Backtrace {
    fn write_json(&self, json: &mut String, tasklets: usize) -> fmt::Result {
        write!(json, r#"{{"tasklets":{tasklets},"missing":{},"frames":["#, Json(self.missing()))?;
        for (number, frame) in self.frames().iter().enumerate() {
            let file = frame.file.as_ref().map(|file| file.to_string_lossy());
            json.push_str(if number > 0 { "," } else { "" });
            write!(json, r#"{{"function":{}"#, Json(frame.function.as_deref()))?;
            write!(json, r#","file":{},"line":{}"#, Json(file.as_deref()), Known(frame.line))?;
            write!(
                json,
                r#","column":{},"address":"{:#x}"}}"#,
                Known(frame.column),
                frame.address
            )?;
        }
        json.push_str("]}");
        Ok(())
    }
}

/// A text in JSON.
struct Json<'a>(Option<&'a str>);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(text) = self.0 else { return f.write_str("null") };
        f.write_char('"')?;
        for character in text.chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                '\0'..='\x1f' => write!(f, "\\u{:04x}", u32::from(character))?,
                _ => f.write_char(character)?,
            }
        }
        f.write_char('"')
    }
}

/// A number in JSON.
struct Known<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Known<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(number) => number.fmt(f),
            None => f.write_str("null"),
        }
    }
}

/// Traces, each once.
#[derive(Default)]
struct Stacks {
    places: HashMap<Arc<Trace>, usize>,
    traces: Vec<Arc<Trace>>,
}

impl Stacks {
    /// Where `trace` is among them.
    fn add(&mut self, trace: Trace) -> usize {
        if let Some(&place) = self.places.get(&trace) {
            return place;
        }
        let trace = Arc::new(trace);
        self.traces.push(trace.clone());
        self.places.insert(trace, self.traces.len() - 1);
        self.traces.len() - 1
    }

    fn name(&self) -> Vec<Backtrace> {
        let mut names = Names::default();
        self.traces.iter().map(|trace| names.name(trace)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_texts_are_escaped() {
        let text = Json(Some("a\"b\\c\n\u{1}\u{e9}")).to_string();
        assert_eq!(text, r#""a\"b\\c\u000a\u0001é""#);
        assert_eq!(Json(None).to_string(), "null");
    }

    #[test]
    fn counts_have_thousands() {
        let counts = [1, 999, 4812, 1_234_567].map(|count| Count(count).to_string());
        assert_eq!(counts, ["1 tasklet", "999 tasklets", "4,812 tasklets", "1,234,567 tasklets"]);
    }
}
