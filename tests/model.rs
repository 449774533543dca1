//! Random small programs, run by pila and by a plain model of its rules: both must tell the same story, step by step.
//!
//! The model keeps the ring of the specification as a list whose first member runs; "the tail" is its end. It knows no
//! queue of positions, no tickets and no stacks, only who is where. A failing program is shrunk and printed with its
//! seed.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use pila::{Channel, Handle, JoinError, ReceiveError, SendReason, Tasklet, TaskletError, driver};

/// One step of a script. Numbers are of scripts, of channels, and of milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    Create(usize),
    Bind(usize),
    Insert(usize),
    Remove(usize),
    RunOne(usize),
    Switch(usize),
    Schedule,
    ScheduleRemove,
    Send(usize),
    Receive(usize),
    Close(usize),
    Join(usize),
    Detach(usize),
    Sleep(u64),
    Run,
    Panic,
}

/// What each tasklet does once created; the first is main's. Each is created at most once.
type Scripts = Vec<Vec<Op>>;

const CHANNELS: usize = 2;
const MAIN: usize = 0;

// Random programs.

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    fn scripts(&mut self) -> Scripts {
        let count = 3 + self.below(5);
        let mut scripts: Scripts =
            (0..count).map(|_| (0..self.below(9)).map(|_| self.op(count)).collect()).collect();
        // Without company main's script would be dull.
        let created = (1..count).filter(|_| self.below(4) > 0).map(Op::Create);
        scripts[MAIN] = created.chain(scripts[MAIN].clone()).chain([Op::Run]).collect();
        scripts
    }

    fn op(&mut self, count: usize) -> Op {
        let other = 1 + self.below(count - 1);
        let anyone = self.below(count);
        let channel = self.below(CHANNELS);
        match self.below(44) {
            0..3 => Op::Create(other),
            3..5 => Op::Bind(other),
            5..10 => Op::Insert(anyone),
            10..14 => Op::Remove(anyone),
            14..18 => Op::Schedule,
            18..20 => Op::ScheduleRemove,
            20..24 => Op::Send(channel),
            24..28 => Op::Receive(channel),
            28 => Op::Close(channel),
            29..32 => Op::Join(other),
            32 => Op::Detach(other),
            33..36 => Op::Sleep(1 + self.below(3) as u64),
            36..39 => Op::Run,
            39..42 => Op::RunOne(anyone),
            42 => Op::Switch(anyone),
            _ => Op::Panic,
        }
    }
}

// What pila does.

struct World {
    scripts: Scripts,
    channels: Vec<Channel<usize>>,
    handles: RefCell<Vec<Option<Handle>>>,
    tasklets: RefCell<Vec<Option<Tasklet<usize>>>>,
    start: Instant,
    trace: RefCell<Vec<String>>,
    over: Cell<bool>,
}

/// Runs the scripts on this thread, which must have a virtual clock. Says too whether all tasklets have ended.
fn perform(scripts: &Scripts) -> (Vec<String>, bool) {
    let world = Rc::new(World {
        scripts: scripts.clone(),
        channels: (0..CHANNELS).map(|_| Channel::new()).collect(),
        handles: RefCell::new(vec![None; scripts.len()]),
        tasklets: RefCell::new(scripts.iter().map(|_| None).collect()),
        start: driver::now(),
        trace: RefCell::default(),
        over: Cell::new(false),
    });
    world.handles.borrow_mut()[MAIN] = Some(pila::main_tasklet());
    world.follow(MAIN);
    world.over.set(true);
    let trace = world.trace.take();
    (trace, world.tidy())
}

impl World {
    fn follow(self: &Rc<World>, me: usize) -> usize {
        for (place, &op) in self.scripts[me].iter().enumerate() {
            if op == Op::Panic && me != MAIN {
                self.log(me, "panics");
                // Past the panic hook, so that nothing is printed.
                resume_unwind(Box::new(me));
            }
            let done = catch_unwind(AssertUnwindSafe(|| self.step(me, place, op)));
            self.log(me, &done.unwrap_or_else(|payload| told(&*payload)));
            if self.over.get() {
                break;
            }
        }
        me
    }

    fn step(self: &Rc<World>, me: usize, place: usize, op: Op) -> String {
        match op {
            Op::Create(other) | Op::Bind(other) => {
                if self.handles.borrow()[other].is_some() {
                    return "skips".into();
                }
                let world = self.clone();
                let body = move || world.follow(other);
                let tasklet = match op {
                    Op::Create(_) => pila::tasklet(body),
                    _ => Tasklet::bind(body),
                };
                self.handles.borrow_mut()[other] = Some((*tasklet).clone());
                self.tasklets.borrow_mut()[other] = Some(tasklet);
                format!("creates {other}")
            }
            Op::Insert(other) | Op::Remove(other) | Op::RunOne(other) | Op::Switch(other) => {
                let Some(handle) = self.handles.borrow()[other].clone() else {
                    return "skips".into();
                };
                let done = match op {
                    Op::Insert(_) => handle.insert(),
                    Op::Remove(_) => handle.remove(),
                    Op::RunOne(_) => handle.run(),
                    _ => handle.switch(),
                };
                match done {
                    Ok(()) => format!("moves {other}"),
                    Err(TaskletError::Dead(_)) => "dead".into(),
                    Err(TaskletError::Blocked(_)) => "blocked".into(),
                    Err(error) => {
                        assert!(matches!(error, TaskletError::Current(_)));
                        "current".into()
                    }
                }
            }
            Op::Schedule => {
                pila::schedule();
                "scheduled".into()
            }
            Op::ScheduleRemove => {
                pila::schedule_remove();
                "back".into()
            }
            Op::Send(channel) => match self.channels[channel].send(me * 100 + place) {
                Ok(()) => "sent".into(),
                Err(error) => {
                    assert_eq!(error.value, me * 100 + place, "another's value came back");
                    match error.reason {
                        SendReason::Closed => "closed".into(),
                        SendReason::Deadlock(_) => "deadlock".into(),
                        other => format!("{other:?}"),
                    }
                }
            },
            Op::Receive(channel) => match self.channels[channel].receive() {
                Ok(value) => format!("received {value}"),
                Err(ReceiveError::Closed) => "closed".into(),
                Err(ReceiveError::Deadlock(_)) => "deadlock".into(),
                Err(other) => format!("{other:?}"),
            },
            Op::Close(channel) => {
                self.channels[channel].close();
                "closes".into()
            }
            Op::Join(other) => {
                let Some(tasklet) = self.tasklets.borrow_mut()[other].take() else {
                    return "skips".into();
                };
                match tasklet.join() {
                    Ok(value) => format!("joined {value}"),
                    Err(JoinError::Panicked(panic)) => told(&*panic.into_payload()),
                    Err(JoinError::Deadlock(_)) => "deadlock".into(),
                    Err(other) => format!("{other:?}"),
                }
            }
            Op::Detach(other) => {
                let tasklet = self.tasklets.borrow_mut()[other].take();
                if tasklet.is_some() { format!("detaches {other}") } else { "skips".into() }
            }
            Op::Sleep(duration) => {
                pila::sleep(Duration::from_millis(duration));
                format!("slept until {}", (driver::now() - self.start).as_millis())
            }
            Op::Run => {
                let done = pila::run();
                let (finished, blocked) = (done.finished, done.blocked);
                let (paused, unread) = (done.paused, done.unread_panics);
                format!(
                    "ran: {finished} finished {blocked} blocked {paused} paused {unread} unread"
                )
            }
            Op::Panic => "skips".into(),
        }
    }

    fn log(&self, me: usize, event: &str) {
        if !self.over.get() {
            self.trace.borrow_mut().push(format!("{me} {event}"));
        }
    }

    /// Lets everyone go who can be let go. Those that join each other in a circle stay.
    fn tidy(self: &Rc<World>) -> bool {
        for _ in 0..32 {
            for channel in &self.channels {
                channel.close();
                while channel.balance() > 0 && channel.receive().is_ok() {}
            }
            for handle in self.handles.borrow().iter().flatten() {
                let _ = handle.insert();
            }
            let _ = catch_unwind(pila::run);
        }
        self.tasklets.borrow_mut().clear();
        self.handles.borrow().iter().flatten().all(|handle| handle.is_main() || !handle.is_alive())
    }
}

/// What a caught panic means.
fn told(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<usize>(), payload.downcast_ref::<String>()) {
        (Some(whose), _) => format!("panic of {whose}"),
        (_, Some(text)) if text.starts_with("the last runnable tasklet left") => "deadlock".into(),
        (_, Some(text)) => text.clone(),
        (None, None) => "a strange panic".into(),
    }
}

// What the rules say.

struct Model {
    tasks: Vec<Task>,
    /// The run ring: the first one runs.
    ring: Vec<usize>,
    channels: Vec<Line>,
    /// Deadline, order of going to sleep, who.
    sleepers: Vec<(u64, usize, usize)>,
    slept: usize,
    now: u64,
    /// Those in `run`, the innermost last.
    runners: Vec<usize>,
    /// Who left the ring last by waiting or pausing; `None` when the last one ended.
    leaver: Option<usize>,
    /// A panic on its way: to whom, and whose.
    raised: Option<(usize, usize)>,
    finished: usize,
    unread: usize,
    trace: Vec<String>,
}

#[derive(Clone)]
struct Task {
    state: State,
    /// Its next step.
    place: usize,
    /// What it is going to say when it goes on.
    then: Then,
    /// Who can get its result.
    holder: Holder,
    outcome: Option<Result<(), ()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unborn,
    Ready,
    Paused,
    Blocked,
    Dead,
}

#[derive(Clone)]
enum Then {
    Nothing,
    Say(String),
    /// What time it is.
    SayTime,
    /// Ends its run, which began with so many finished and so many panics unread.
    EndRun(usize, usize),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    Table,
    Joiner(usize),
    Nobody,
}

#[derive(Clone, Default)]
struct Line {
    senders: Vec<(usize, usize)>,
    receivers: Vec<usize>,
    closing: bool,
}

fn predict(scripts: &Scripts) -> Vec<String> {
    let task = Task {
        state: State::Unborn,
        place: 0,
        then: Then::Nothing,
        holder: Holder::Nobody,
        outcome: None,
    };
    let mut model = Model {
        tasks: vec![task; scripts.len()],
        ring: vec![MAIN],
        channels: vec![Line::default(); CHANNELS],
        sleepers: Vec::new(),
        slept: 0,
        now: 0,
        runners: Vec::new(),
        leaver: None,
        raised: None,
        finished: 0,
        unread: 0,
        trace: Vec::new(),
    };
    model.tasks[MAIN].state = State::Ready;
    while let Some(me) = model.turn() {
        model.go_on(me);
        match scripts[me].get(model.tasks[me].place) {
            Some(Op::Panic) if me != MAIN => {
                model.trace.push(format!("{me} panics"));
                model.end(me, Err(()));
            }
            Some(&op) => {
                if let Some(event) = model.step(me, op) {
                    model.log(me, &event);
                }
            }
            None if me == MAIN => break,
            None => model.end(me, Ok(())),
        }
    }
    model.trace
}

impl Model {
    /// Whose turn it is.
    fn turn(&mut self) -> Option<usize> {
        while self.ring.is_empty() {
            self.wait_or_resolve();
        }
        self.ring.first().copied()
    }

    fn log(&mut self, me: usize, event: &str) {
        self.trace.push(format!("{me} {event}"));
        self.tasks[me].place += 1;
    }

    /// The end of the step in which it left, if it did.
    fn go_on(&mut self, me: usize) {
        let then = std::mem::replace(&mut self.tasks[me].then, Then::Nothing);
        if matches!(then, Then::EndRun(..)) {
            self.leave_run(me);
        }
        if let Some((_, whose)) = self.raised.take_if(|(target, _)| *target == me) {
            return self.log(me, &format!("panic of {whose}"));
        }
        match then {
            Then::Nothing => {}
            Then::Say(event) => self.log(me, &event),
            Then::SayTime => self.log(me, &format!("slept until {}", self.now)),
            Then::EndRun(finished, unread) => {
                let event = self.summary(finished, unread);
                self.log(me, &event);
            }
        }
    }

    /// One step of who runs: what it says, or nothing yet when it left.
    fn step(&mut self, me: usize, op: Op) -> Option<String> {
        match op {
            Op::Create(other) | Op::Bind(other) => {
                if self.tasks[other].state != State::Unborn {
                    return Some("skips".into());
                }
                self.tasks[other].holder = Holder::Table;
                self.tasks[other].state = State::Paused;
                if matches!(op, Op::Create(_)) {
                    self.append(other);
                }
                Some(format!("creates {other}"))
            }
            Op::Insert(other) => Some(match self.tasks[other].state {
                State::Unborn => "skips".into(),
                State::Dead => "dead".into(),
                State::Blocked => "blocked".into(),
                State::Ready => format!("moves {other}"),
                State::Paused => {
                    self.append(other);
                    format!("moves {other}")
                }
            }),
            Op::Remove(other) => Some(match self.tasks[other].state {
                State::Unborn => "skips".into(),
                State::Blocked => "blocked".into(),
                State::Ready if other == me => "current".into(),
                State::Ready => {
                    self.ring.retain(|&member| member != other);
                    self.tasks[other].state = State::Paused;
                    format!("moves {other}")
                }
                State::Paused | State::Dead => format!("moves {other}"),
            }),
            Op::RunOne(other) | Op::Switch(other) => {
                match self.tasks[other].state {
                    State::Unborn => return Some("skips".into()),
                    State::Dead => return Some("dead".into()),
                    State::Blocked => return Some("blocked".into()),
                    State::Ready if other == me => return Some(format!("moves {other}")),
                    State::Ready => {}
                    State::Paused => {
                        // Just before the caller.
                        self.append(other);
                    }
                }
                if op == Op::Switch(other) {
                    self.leave_ring(me, State::Paused);
                }
                let place = self.ring.iter().position(|&member| member == other);
                self.ring.rotate_left(place.expect("it is in the ring"));
                self.then_say(me, &format!("moves {other}"))
            }
            Op::Schedule => {
                self.ring.rotate_left(1);
                self.then_say(me, "scheduled")
            }
            Op::ScheduleRemove => {
                self.leave_ring(me, State::Paused);
                self.leaver = Some(me);
                self.then_say(me, "back")
            }
            Op::Send(channel) => {
                let value = me * 100 + self.tasks[me].place;
                let line = &mut self.channels[channel];
                if line.closing {
                    return Some("closed".into());
                }
                if line.receivers.is_empty() {
                    line.senders.push((me, value));
                    return self.block(me);
                }
                let receiver = line.receivers.remove(0);
                self.then_say(receiver, &format!("received {value}"));
                // Right after the sender, and the turn goes to it.
                self.tasks[receiver].state = State::Ready;
                self.ring.insert(1, receiver);
                self.ring.rotate_left(1);
                self.then_say(me, "sent")
            }
            Op::Receive(channel) => {
                let line = &mut self.channels[channel];
                if !line.senders.is_empty() {
                    let (sender, value) = line.senders.remove(0);
                    self.wake(sender, "sent");
                    return Some(format!("received {value}"));
                }
                if line.closing {
                    return Some("closed".into());
                }
                line.receivers.push(me);
                self.block(me)
            }
            Op::Close(channel) => {
                self.channels[channel].closing = true;
                for receiver in std::mem::take(&mut self.channels[channel].receivers) {
                    self.wake(receiver, "closed");
                }
                Some("closes".into())
            }
            Op::Join(other) => {
                if self.tasks[other].holder != Holder::Table {
                    return Some("skips".into());
                }
                if let Some(outcome) = self.tasks[other].outcome {
                    self.tasks[other].holder = Holder::Nobody;
                    return Some(joined(other, outcome));
                }
                self.tasks[other].holder = Holder::Joiner(me);
                self.block(me)
            }
            Op::Detach(other) => {
                if self.tasks[other].holder != Holder::Table {
                    return Some("skips".into());
                }
                self.tasks[other].holder = Holder::Nobody;
                self.unread += usize::from(self.tasks[other].outcome == Some(Err(())));
                Some(format!("detaches {other}"))
            }
            Op::Sleep(duration) => {
                self.sleepers.push((self.now + duration, self.slept, me));
                self.slept += 1;
                self.block(me)
            }
            Op::Run => {
                if self.ring.len() == 1 && self.sleepers.is_empty() {
                    return Some(self.summary(self.finished, self.unread));
                }
                self.leave_ring(me, State::Paused);
                self.runners.push(me);
                self.tasks[me].then = Then::EndRun(self.finished, self.unread);
                None
            }
            Op::Panic => Some("skips".into()),
        }
    }

    fn then_say(&mut self, me: usize, event: &str) -> Option<String> {
        self.tasks[me].then = Then::Say(event.into());
        None
    }

    fn append(&mut self, who: usize) {
        self.tasks[who].state = State::Ready;
        self.ring.push(who);
    }

    fn wake(&mut self, who: usize, event: &str) {
        self.then_say(who, event);
        self.append(who);
    }

    fn leave_ring(&mut self, me: usize, state: State) {
        assert_eq!(self.ring.remove(0), me);
        self.tasks[me].state = state;
    }

    fn block(&mut self, me: usize) -> Option<String> {
        self.leave_ring(me, State::Blocked);
        self.leaver = Some(me);
        None
    }

    fn end(&mut self, me: usize, outcome: Result<(), ()>) {
        self.leave_ring(me, State::Dead);
        self.leaver = None;
        self.finished += 1;
        match self.tasks[me].holder {
            Holder::Table => self.tasks[me].outcome = Some(outcome),
            Holder::Joiner(joiner) => {
                self.tasks[me].holder = Holder::Nobody;
                self.wake(joiner, &joined(me, outcome));
            }
            Holder::Nobody if outcome.is_err() => self.raise(me),
            Holder::Nobody => {}
        }
    }

    /// The panic of `whose` goes to the innermost `run`, or to main, which is next.
    fn raise(&mut self, whose: usize) {
        let target = self.runners.last().copied().unwrap_or(MAIN);
        self.raised = Some((target, whose));
        if let Some(place) = self.ring.iter().position(|&member| member == target) {
            return self.ring.rotate_left(place);
        }
        self.give_up_wait(target);
        self.tasks[target].state = State::Ready;
        self.ring.insert(0, target);
    }

    fn give_up_wait(&mut self, who: usize) {
        for line in &mut self.channels {
            line.senders.retain(|&(sender, _)| sender != who);
            line.receivers.retain(|&receiver| receiver != who);
        }
        self.sleepers.retain(|&(_, _, sleeper)| sleeper != who);
        for task in &mut self.tasks {
            if task.holder == Holder::Joiner(who) {
                task.holder = Holder::Nobody;
            }
        }
    }

    /// The ring is empty: time goes on, or a `run` ends, or main goes on, or it is a deadlock.
    fn wait_or_resolve(&mut self) {
        if let Some(&(deadline, ..)) = self.sleepers.iter().min() {
            self.now = deadline;
            self.sleepers.sort_unstable();
            while self.sleepers.first().is_some_and(|&(deadline, ..)| deadline == self.now) {
                let (_, _, sleeper) = self.sleepers.remove(0);
                self.tasks[sleeper].then = Then::SayTime;
                self.append(sleeper);
            }
            return;
        }
        if let Some(&runner) = self.runners.last() {
            return self.append(runner);
        }
        if self.tasks[MAIN].state == State::Paused {
            return self.append(MAIN);
        }
        let victim = self.leaver.unwrap_or(MAIN);
        self.give_up_wait(victim);
        self.wake(victim, "deadlock");
    }

    /// Ends the run of `me`, if it still is one: those inside it end too, each at its turn.
    fn leave_run(&mut self, me: usize) {
        let Some(place) = self.runners.iter().position(|&runner| runner == me) else { return };
        for inner in self.runners.split_off(place).into_iter().skip(1).rev() {
            if self.tasks[inner].state == State::Paused {
                self.append(inner);
            }
        }
    }

    fn summary(&self, finished: usize, unread: usize) -> String {
        let tasks = || self.tasks.iter().enumerate();
        let count = |state| {
            tasks().filter(|(me, task)| task.state == state && !self.runners.contains(me)).count()
        };
        let (finished, unread) = (self.finished - finished, self.unread - unread);
        let (blocked, paused) = (count(State::Blocked), count(State::Paused));
        format!("ran: {finished} finished {blocked} blocked {paused} paused {unread} unread")
    }
}

fn joined(whose: usize, outcome: Result<(), ()>) -> String {
    match outcome {
        Ok(()) => format!("joined {whose}"),
        Err(()) => format!("panic of {whose}"),
    }
}

// The comparison.

/// Both stories, on a thread of their own, if they differ.
fn difference(scripts: &Scripts) -> Option<(Vec<String>, Vec<String>)> {
    let (ours, theirs) = (scripts.clone(), predict(scripts));
    let real = thread::spawn(move || {
        driver::install(Box::new(driver::VirtualClock::new())).unwrap();
        perform(&ours).0
    });
    let real = real.join().unwrap_or_else(|_| vec!["it panicked".into()]);
    (real != theirs).then_some((real, theirs))
}

/// Drops steps for as long as the two still differ.
fn shrink(mut scripts: Scripts) -> Scripts {
    let mut again = true;
    while std::mem::take(&mut again) {
        for script in 0..scripts.len() {
            for place in (0..scripts[script].len()).rev() {
                let mut smaller = scripts.clone();
                smaller[script].remove(place);
                if difference(&smaller).is_some() {
                    scripts = smaller;
                    again = true;
                }
            }
        }
    }
    scripts
}

#[test]
fn random_programs_run_as_the_rules_say() {
    const SEED: u64 = 20_261_122;
    let seed = std::env::var("PILA_MODEL_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let programs = if cfg!(debug_assertions) { 20_000 } else { 200_000 };
    let hook = take_hook();
    set_hook(Box::new(|_| {}));

    // One thread runs program after program, until one leaves tasklets behind that nothing can end.
    let mut next = 0;
    let mut failed = None;
    while next < programs && failed.is_none() {
        let from = next;
        let thread = thread::spawn(move || {
            driver::install(Box::new(driver::VirtualClock::new())).unwrap();
            for number in from..programs {
                let scripts = Random(seed.wrapping_add(number << 20)).scripts();
                let (trace, tidy) = perform(&scripts);
                if trace != predict(&scripts) {
                    return (number, Some(scripts));
                }
                if !tidy {
                    return (number + 1, None);
                }
            }
            (programs, None)
        });
        (next, failed) = thread.join().expect("the program's thread ends");
    }
    let report = failed.map(|scripts| {
        let scripts = if difference(&scripts).is_some() { shrink(scripts) } else { scripts };
        let mut text = format!("seed {seed}, program {next}, shrunk:\n");
        for (number, script) in scripts.iter().enumerate() {
            text += &format!("  {number}: {script:?}\n");
        }
        let (real, expected) = difference(&scripts).unwrap_or_default();
        for place in 0..real.len().max(expected.len()) {
            let line = |trace: &[String]| trace.get(place).cloned().unwrap_or_default();
            let (real, expected) = (line(&real), line(&expected));
            let mark = if real == expected { ' ' } else { '!' };
            text += &format!("{mark} pila: {real:<55} rules: {expected}\n");
        }
        text
    });
    set_hook(hook);
    if let Some(report) = report {
        panic!("{report}");
    }
}
