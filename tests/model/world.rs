//! What pila does.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt::Write,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    time::{Duration, Instant},
};

use pila::{
    Channel, Handle, JoinError, NoSwitch, Preference, ReceiveError, Refused, Select, SendError,
    SendReason, Tasklet, TaskletError, driver,
};

use crate::programs::{Arm, MAIN, Op, Program};

struct World {
    program: Program,
    channels: Vec<Channel<Value>>,
    handles: RefCell<Vec<Option<Handle>>>,
    tasklets: RefCell<Vec<Option<Tasklet<usize>>>>,
    start: Instant,
    trace: RefCell<Vec<String>>,
    over: Cell<bool>,
    /// How many values there are.
    values: Rc<Cell<isize>>,
}

/// Whose script or last words are spoken.
#[derive(Clone, Copy)]
enum Voice {
    Script(usize),
    Words(usize),
}

/// What is sent. Counted, so that one that is lost or dropped twice shows.
struct Value {
    number: usize,
    values: Rc<Cell<isize>>,
}

impl Drop for Value {
    fn drop(&mut self) {
        self.values.set(self.values.get() - 1);
    }
}

/// Runs the program on this thread, which must have a virtual clock, and leaves nothing of it.
pub(crate) fn perform(program: &Program) -> Vec<String> {
    let count = program.scripts.len();
    let world = Rc::new(World {
        program: program.clone(),
        channels: program.capacities.iter().map(|&room| Channel::with_capacity(room)).collect(),
        handles: RefCell::new(vec![None; count]),
        tasklets: RefCell::new((0..count).map(|_| None).collect()),
        start: driver::now(),
        trace: RefCell::default(),
        over: Cell::new(false),
        values: Rc::default(),
    });
    world.handles.borrow_mut()[MAIN] = Some(pila::main_tasklet());
    world.follow(MAIN);
    world.over.set(true);
    let mut trace = world.trace.take();
    trace.extend(world.tidy());
    trace
}

impl World {
    fn follow(self: &Rc<World>, me: usize) -> usize {
        let script = &self.program.scripts[me];
        let mut guards = Vec::new();
        for (place, op) in script.steps.iter().enumerate() {
            if self.over.get() {
                break;
            }
            if *op == Op::Panic && me != MAIN {
                self.log(Voice::Script(me), "panics");
                // Past the panic hook, so that nothing is printed.
                resume_unwind(Box::new(me));
            }
            self.speak(Voice::Script(me), place, op, &mut guards, script.stubborn);
        }
        me
    }

    fn speak(
        self: &Rc<World>,
        voice: Voice,
        place: usize,
        op: &Op,
        guards: &mut Vec<NoSwitch>,
        stubborn: bool,
    ) {
        let done = catch_unwind(AssertUnwindSafe(|| self.step(voice, place, op, guards)));
        let event = done.unwrap_or_else(|payload| match told(&*payload) {
            Some(event) => event,
            None if stubborn => "survives".into(),
            None => resume_unwind(payload),
        });
        self.log(voice, &event);
    }

    fn step(
        self: &Rc<World>,
        voice: Voice,
        place: usize,
        op: &Op,
        guards: &mut Vec<NoSwitch>,
    ) -> String {
        let number = |arm| voice.number() * 1000 + place * 10 + arm;
        let handle = |other: &usize| self.handles.borrow()[*other].clone();
        match op {
            Op::Create(other) | Op::Bind(other) => {
                let other = *other;
                if self.handles.borrow()[other].is_some() {
                    return "skips".into();
                }
                let world = self.clone();
                let words = LastWords { world: self.clone(), whose: other };
                let body = move || {
                    let _words = words;
                    world.follow(other)
                };
                let tasklet = match op {
                    Op::Create(_) => pila::tasklet(body),
                    _ => Tasklet::bind(body),
                };
                self.handles.borrow_mut()[other] = Some((*tasklet).clone());
                self.tasklets.borrow_mut()[other] = Some(tasklet);
                format!("creates {other}")
            }
            Op::Insert(other)
            | Op::Remove(other)
            | Op::RunOne(other)
            | Op::Switch(other)
            | Op::Kill(other)
            | Op::KillLater(other)
            | Op::Throw(other)
            | Op::ThrowLater(other)
            | Op::Trap(other, _) => {
                let Some(handle) = handle(other) else {
                    return "skips".into();
                };
                let (done, event) = match op {
                    Op::Insert(_) => (handle.insert(), "moves"),
                    Op::Remove(_) => (handle.remove(), "moves"),
                    Op::RunOne(_) => (handle.run(), "moves"),
                    Op::Switch(_) => (handle.switch(), "moves"),
                    Op::Kill(_) => (handle.kill(), "kills"),
                    Op::KillLater(_) => (handle.kill_later(), "kills"),
                    Op::Throw(_) => (handle.throw(number(0).to_string()), "throws at"),
                    Op::ThrowLater(_) => (handle.throw_later(number(0).to_string()), "throws at"),
                    Op::Trap(_, trapped) => (handle.set_block_trap(*trapped), "traps"),
                    _ => unreachable!(),
                };
                match done {
                    Ok(()) => format!("{event} {other}"),
                    Err(TaskletError::Dead(_)) => "dead".into(),
                    Err(TaskletError::Blocked(_)) => "blocked".into(),
                    Err(TaskletError::Current(_)) => "current".into(),
                    Err(TaskletError::Main(_)) => "main".into(),
                    Err(TaskletError::Pending(_)) => "pending".into(),
                    Err(TaskletError::CannotThrow(_)) => "cannot throw".into(),
                    Err(TaskletError::Refused(_, refused)) => reason(refused),
                    Err(error) => format!("{error:?}"),
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
            Op::Send(channel) => {
                sent(number(0), self.channels[*channel].send(self.value(number(0))))
            }
            Op::TrySend(channel) => {
                sent(number(0), self.channels[*channel].try_send(self.value(number(0))))
            }
            Op::SendTimeout(channel, time) => {
                let value = self.value(number(0));
                let time = Duration::from_millis(*time);
                sent(number(0), self.channels[*channel].send_timeout(value, time))
            }
            Op::SendError(channel) => {
                match self.channels[*channel].send_error(number(0).to_string()) {
                    Ok(()) => "sent".into(),
                    Err(reason) => unsent(reason),
                }
            }
            Op::Receive(channel) => received(self.channels[*channel].receive()),
            Op::TryReceive(channel) => received(self.channels[*channel].try_receive()),
            Op::ReceiveTimeout(channel, time) => {
                received(self.channels[*channel].receive_timeout(Duration::from_millis(*time)))
            }
            Op::Select(arms) => {
                let mut select = Select::new();
                for (arm, &what) in arms.iter().enumerate() {
                    select = match what {
                        Arm::Send(channel) => {
                            let value = self.value(number(arm));
                            let then = move |done| format!("arm {arm} {}", sent(number(arm), done));
                            select.send(&self.channels[channel], value, then)
                        }
                        Arm::Receive(channel) => {
                            let then = move |got| format!("arm {arm} {}", received(got));
                            select.receive(&self.channels[channel], then)
                        }
                        Arm::After(time) => {
                            let now = move || self.milliseconds();
                            let then = move || format!("arm {arm} at {}", now());
                            select.after(Duration::from_millis(time), then)
                        }
                    };
                }
                select.wait()
            }
            Op::Close(channel) => {
                self.channels[*channel].close();
                "closes".into()
            }
            Op::Open(channel) => {
                self.channels[*channel].open();
                "opens".into()
            }
            Op::Prefer(channel, side) => {
                self.channels[*channel].set_preference(match side {
                    -1 => Preference::Receiver,
                    0 => Preference::Neither,
                    _ => Preference::Sender,
                });
                "prefers".into()
            }
            Op::ScheduleAll(channel, all) => {
                self.channels[*channel].set_schedule_all(*all);
                "sets".into()
            }
            Op::Join(other) => {
                let Some(tasklet) = self.tasklets.borrow_mut()[*other].take() else {
                    return "skips".into();
                };
                match tasklet.join() {
                    Ok(value) => format!("joined {value}"),
                    Err(JoinError::Panicked(panic)) => {
                        told(&*panic.into_payload()).unwrap_or_default()
                    }
                    Err(JoinError::Killed) => format!("{other} was killed"),
                    Err(JoinError::Deadlock(_)) => "deadlock".into(),
                    Err(JoinError::Thrown(error)) => format!("thrown {error}"),
                    Err(JoinError::Refused(refused)) => reason(refused),
                    Err(other) => format!("{other:?}"),
                }
            }
            Op::Detach(other) => {
                let tasklet = self.tasklets.borrow_mut()[*other].take();
                if tasklet.is_some() { format!("detaches {other}") } else { "skips".into() }
            }
            Op::Sleep(time) => {
                pila::sleep(Duration::from_millis(*time));
                format!("slept until {}", self.milliseconds())
            }
            Op::Run => {
                let done = pila::run();
                let (finished, blocked) = (done.finished, done.blocked);
                let (paused, unread) = (done.paused, done.unread_panics);
                format!(
                    "ran: {finished} finished {blocked} blocked {paused} paused {unread} unread"
                )
            }
            Op::Hold => {
                guards.push(pila::no_switch());
                "holds".into()
            }
            Op::Release => {
                guards.pop();
                "releases".into()
            }
            Op::Panic => "skips".into(),
        }
    }

    fn value(&self, number: usize) -> Value {
        self.values.set(self.values.get() + 1);
        Value { number, values: self.values.clone() }
    }

    fn milliseconds(&self) -> u128 {
        (driver::now() - self.start).as_millis()
    }

    fn log(&self, voice: Voice, event: &str) {
        if self.over.get() {
            return;
        }
        let voice = match voice {
            Voice::Script(me) => format!("{me}"),
            Voice::Words(whose) => format!("~{whose}"),
        };
        let line = format!("{voice} {event} {}", self.snapshot());
        self.trace.borrow_mut().push(line);
    }

    /// The state of everyone, and of every channel: its balance and who waits for it.
    fn snapshot(&self) -> String {
        let mut text = format!("[{} ", pila::run_count());
        let handles = self.handles.borrow();
        for handle in &*handles {
            text.push(match handle {
                None => '-',
                Some(handle) if handle.is_current() => '*',
                Some(handle) if handle.is_blocked() => 'b',
                Some(handle) if handle.is_paused() => 'p',
                Some(handle) if handle.is_scheduled() => 's',
                Some(_) => 'x',
            });
        }
        for channel in &self.channels {
            let closed = if channel.is_closing() { "c" } else { "" };
            write!(text, "|{}{closed}", channel.balance()).unwrap();
            for waiter in channel.waiters() {
                let is_it = |handle: &Option<Handle>| {
                    handle.as_ref().is_some_and(|handle| handle.id() == waiter.id())
                };
                let number = handles.iter().position(is_it);
                write!(text, " {}", number.map_or(99, |number| number)).unwrap();
            }
        }
        text + "]"
    }

    /// Ends everyone and says what is left.
    fn tidy(&self) -> Option<String> {
        pila::main_tasklet().set_block_trap(false).unwrap();
        let handles: Vec<Handle> = self.handles.take().into_iter().flatten().collect();
        for handle in handles.iter().filter(|handle| !handle.is_main()) {
            let _ = catch_unwind(AssertUnwindSafe(|| handle.kill()));
        }
        self.tasklets.borrow_mut().clear();
        let stale = catch_unwind(pila::run);
        for channel in &self.channels {
            while channel.balance() > 0 {
                let _ = channel.try_receive();
            }
        }
        let alive = handles.iter().filter(|handle| !handle.is_main() && handle.is_alive()).count();
        let values = self.values.get();
        let clean = alive == 0 && values == 0 && stale.is_ok();
        (!clean).then(|| format!("leaves {alive} tasklets, {values} values, {stale:?}"))
    }
}

impl Voice {
    /// Distinguishes what is sent and thrown.
    fn number(self) -> usize {
        match self {
            Voice::Script(me) => me,
            Voice::Words(whose) => 50 + whose,
        }
    }
}

/// What every closure owns: dropped when it has run, when it unwinds, or when it never ran.
struct LastWords {
    world: Rc<World>,
    whose: usize,
}

impl Drop for LastWords {
    fn drop(&mut self) {
        let voice = Voice::Words(self.whose);
        self.world.log(voice, "goes");
        let mut guards = Vec::new();
        let words = &self.world.program.scripts[self.whose].last_words;
        for (place, op) in words.iter().enumerate() {
            if self.world.over.get() {
                break;
            }
            self.world.speak(voice, place, op, &mut guards, false);
        }
    }
}

fn sent(number: usize, done: Result<(), SendError<Value>>) -> String {
    match done {
        Ok(()) => "sent".into(),
        Err(error) => {
            assert_eq!(error.value.number, number, "another's value came back");
            unsent(error.reason)
        }
    }
}

fn unsent(why: SendReason) -> String {
    match why {
        SendReason::Closed => "closed".into(),
        SendReason::Deadlock(_) => "deadlock".into(),
        SendReason::Timeout => "timeout".into(),
        SendReason::Refused(refused) => reason(refused),
        SendReason::Thrown(error) => format!("thrown {error}"),
        other => format!("{other:?}"),
    }
}

fn received(got: Result<Value, ReceiveError>) -> String {
    match got {
        Ok(value) => format!("received {}", value.number),
        Err(ReceiveError::Sent(error)) => format!("received error {error}"),
        Err(ReceiveError::Closed) => "closed".into(),
        Err(ReceiveError::Deadlock(_)) => "deadlock".into(),
        Err(ReceiveError::Timeout) => "timeout".into(),
        Err(ReceiveError::Refused(refused)) => reason(refused),
        Err(ReceiveError::Thrown(error)) => format!("thrown {error}"),
        Err(other) => format!("{other:?}"),
    }
}

fn reason(refused: Refused) -> String {
    match refused {
        Refused::Unwinding => "unwinding".into(),
        Refused::Killed => "killed".into(),
        Refused::NoSwitch(_) => "no switch".into(),
        Refused::BlockTrap => "trapped".into(),
        other => format!("{other:?}"),
    }
}

/// What a caught panic means; `None` for a kill.
fn told(payload: &(dyn Any + Send)) -> Option<String> {
    if let Some(whose) = payload.downcast_ref::<usize>() {
        return Some(format!("panic of {whose}"));
    }
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        (None, None) => return None,
    };
    Some(match text {
        _ if text.starts_with("a select without a branch") => "nobody to tell".into(),
        _ if text.starts_with("the last runnable tasklet left") => "deadlock".into(),
        _ if text.contains("the no_switch guard made at") => "no switch".into(),
        _ => text.into(),
    })
}
