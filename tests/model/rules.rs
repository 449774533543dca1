//! What the rules say.
//!
//! The ring of the specification is a list whose first member runs; "the tail" is its end. There are no positions, no
//! tickets and no stacks, only who is where and what each is going to say when it goes on.

use std::{collections::VecDeque, fmt::Write};

use crate::programs::{Arm, MAIN, Op, Program};

struct Model<'p> {
    program: &'p Program,
    tasks: Vec<Task<'p>>,
    /// The run ring: the first one runs.
    ring: Vec<usize>,
    channels: Vec<Line>,
    /// Deadline, order of beginning to wait, who.
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
struct Task<'p> {
    state: State,
    started: bool,
    /// What it is in the middle of, the innermost last.
    frames: Vec<Frame<'p>>,
    /// What it is going to say when it goes on.
    then: Then,
    /// What it waits for, while it is blocked.
    wait: Wait,
    /// Whose result it waits for, until it has gone on.
    joining: Option<usize>,
    /// Who can get its result.
    holder: Holder,
    /// How it ended, until someone has read that.
    outcome: Option<Outcome>,
    /// None of its calls waits any more.
    killed: bool,
    /// It was killed and does not know yet.
    unwind: bool,
    /// It unwinds, and is going to end so.
    unwinding: Option<Outcome>,
    /// It was killed before it started: its closure is dropped, and nothing unwinds.
    unstarted: bool,
    trapped: bool,
}

/// A list of steps that someone goes through.
#[derive(Clone)]
struct Frame<'p> {
    /// Whose last words these are; `None` for a script.
    words: Option<usize>,
    steps: &'p [Op],
    place: usize,
    /// `no_switch` guards.
    guards: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unborn,
    Ready,
    Paused,
    Blocked,
    Dead,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Value,
    Panic,
    Killed,
}

#[derive(Clone)]
enum Then {
    Nothing,
    Say(String),
    /// How the one it joins has ended.
    SayOutcome,
    /// What time it is.
    SayTime(String),
    /// Ends its run, which began with so many finished and so many panics unread.
    EndRun(usize, usize),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Nothing,
    Call,
    Sleep,
    /// The first branch of all, and the one of the deadline.
    Select(Option<usize>, Option<usize>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    Table,
    Joiner(usize),
    Nobody,
}

#[derive(Clone, Default)]
struct Line {
    /// Who waits, with which branch of a select, and what it sends.
    senders: Vec<(usize, usize, String)>,
    receivers: Vec<(usize, usize)>,
    buffer: VecDeque<String>,
    capacity: usize,
    /// −1, 0 or 1.
    preference: i8,
    schedule_all: bool,
    closing: bool,
}

/// What an operation that finds someone waiting does with the turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HandOff {
    /// It goes to the one that waited.
    Switch,
    /// It goes round.
    ScheduleAll,
    /// The caller keeps it.
    Stay,
}

/// What became of an operation that did not wait.
enum Tried {
    /// It is over, and this is what it says.
    Over(String),
    /// It is over, but others run before it says this.
    Left(String),
    WouldBlock,
}

pub(crate) fn predict(program: &Program) -> Vec<String> {
    let task = |steps| Task {
        state: State::Unborn,
        started: false,
        frames: vec![Frame { words: None, steps, place: 0, guards: 0 }],
        then: Then::Nothing,
        wait: Wait::Nothing,
        joining: None,
        holder: Holder::Nobody,
        outcome: None,
        killed: false,
        unwind: false,
        unwinding: None,
        unstarted: false,
        trapped: false,
    };
    let line = |&capacity| Line { capacity, preference: -1, ..Line::default() };
    let mut model = Model {
        program,
        tasks: program.scripts.iter().map(|script| task(&*script.steps)).collect(),
        ring: vec![MAIN],
        channels: program.capacities.iter().map(line).collect(),
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
    loop {
        let me = model.turn();
        model.go_on(me);
        if model.ring.first() != Some(&me) {
            continue;
        }
        let frame = model.tasks[me].frames.last().expect("it lives");
        let (steps, place, is_script) = (frame.steps, frame.place, frame.words.is_none());
        match steps.get(place) {
            Some(Op::Panic) if is_script && me != MAIN => {
                model.tell(me, "panics");
                model.tasks[me].unwinding = Some(Outcome::Panic);
                model.last_words(me);
            }
            Some(op) => {
                if let Some(event) = model.step(me, op) {
                    model.log(me, &event);
                }
            }
            None if me == MAIN && is_script => return model.trace,
            None => model.leave_frame(me),
        }
    }
}

impl<'p> Model<'p> {
    /// Whose turn it is.
    fn turn(&mut self) -> usize {
        while self.ring.is_empty() {
            self.wait_or_resolve();
        }
        self.ring[0]
    }

    /// What it says is the end of a step.
    fn log(&mut self, me: usize, event: &str) {
        self.tell(me, event);
        self.frame(me).place += 1;
    }

    fn tell(&mut self, me: usize, event: &str) {
        let voice = self.frame(me).words.map_or(format!("{me}"), |whose| format!("~{whose}"));
        self.trace.push(format!("{voice} {event} {}", self.snapshot()));
    }

    fn frame(&mut self, me: usize) -> &mut Frame<'p> {
        self.tasks[me].frames.last_mut().expect("it lives")
    }

    fn snapshot(&self) -> String {
        let mut text = format!("[{} ", self.ring.len());
        for (number, task) in self.tasks.iter().enumerate() {
            text.push(match task.state {
                State::Unborn => '-',
                State::Ready if self.ring[0] == number => '*',
                State::Ready => 's',
                State::Paused => 'p',
                State::Blocked => 'b',
                State::Dead => 'x',
            });
        }
        for line in &self.channels {
            let balance = (line.senders.len() + line.buffer.len()) as isize;
            let closed = if line.closing { "c" } else { "" };
            write!(text, "|{}{closed}", balance - line.receivers.len() as isize).unwrap();
            let senders = line.senders.iter().map(|&(who, ..)| who);
            let receivers = line.receivers.iter().map(|&(who, _)| who);
            let shown: Vec<usize> =
                if line.senders.is_empty() { receivers.collect() } else { senders.collect() };
            for who in shown {
                write!(text, " {who}").unwrap();
            }
        }
        text + "]"
    }

    /// The end of the step in which it left, if it did.
    fn go_on(&mut self, me: usize) {
        let was_started = std::mem::replace(&mut self.tasks[me].started, true);
        let then = std::mem::replace(&mut self.tasks[me].then, Then::Nothing);
        let joined = self.tasks[me].joining.take();
        if matches!(then, Then::EndRun(..)) {
            self.leave_run(me);
        }
        if std::mem::take(&mut self.tasks[me].unwind) {
            self.let_go(joined);
            if let Some((_, whose)) = self.raised.take_if(|(to, _)| *to == me) {
                // The next to read it is next after the one that unwinds.
                self.ring.remove(0);
                self.raise(whose);
                self.ring.insert(0, me);
            }
            return self.unwind(me, was_started);
        }
        if let Some((_, whose)) = self.raised.take_if(|(to, _)| *to == me) {
            self.let_go(joined);
            return self.log(me, &format!("panic of {whose}"));
        }
        let event = match then {
            Then::Nothing => return,
            Then::Say(event) => {
                self.let_go(joined);
                event
            }
            Then::SayOutcome => self.outcome(joined.expect("it joins someone")),
            Then::SayTime(what) => format!("{what} {}", self.now),
            Then::EndRun(finished, unread) => self.summary(finished, unread),
        };
        self.log(me, &event);
    }

    /// Nobody is going to read how `joined` ended.
    fn let_go(&mut self, joined: Option<usize>) {
        if let Some(other) = joined {
            self.tasks[other].holder = Holder::Nobody;
            self.unread += usize::from(self.tasks[other].outcome.take() == Some(Outcome::Panic));
        }
    }

    /// What whoever joins `other` gets to hear.
    fn outcome(&mut self, other: usize) -> String {
        self.tasks[other].holder = Holder::Nobody;
        match self.tasks[other].outcome.take().expect("it has ended") {
            Outcome::Value => format!("joined {other}"),
            Outcome::Panic => format!("panic of {other}"),
            Outcome::Killed => format!("{other} was killed"),
        }
    }

    /// A kill reaches the one that runs.
    fn unwind(&mut self, me: usize, was_started: bool) {
        let outer = self.tasks[me].frames[0].words;
        if self.program.scripts[me].stubborn && outer.is_none() && was_started {
            self.tasks[me].frames.truncate(1);
            return self.log(me, "survives");
        }
        self.tasks[me].unwinding = Some(Outcome::Killed);
        self.tasks[me].unstarted = !was_started;
        match outer {
            None => self.last_words(me),
            Some(_) => self.end(me, Outcome::Killed),
        }
    }

    /// The closure of `me`, which has run or unwinds, goes.
    fn last_words(&mut self, me: usize) {
        self.tasks[me].frames.clear();
        self.speak(me, me);
    }

    /// On the stack of `me`.
    fn speak(&mut self, me: usize, whose: usize) {
        let steps = &*self.program.scripts[whose].last_words;
        self.tasks[me].frames.push(Frame { words: Some(whose), steps, place: 0, guards: 0 });
        self.tell(me, "goes");
    }

    /// It has gone through all steps of a frame.
    fn leave_frame(&mut self, me: usize) {
        let frame = self.tasks[me].frames.pop().expect("it lives");
        match frame.words {
            None => self.speak(me, me),
            Some(_) if self.tasks[me].frames.is_empty() => {
                let outcome = self.tasks[me].unwinding.unwrap_or(Outcome::Value);
                self.end(me, outcome);
            }
            // Another's, whom it has killed before it started.
            Some(whose) => self.log(me, &format!("kills {whose}")),
        }
    }

    /// One step of who runs: what it says, or nothing yet.
    fn step(&mut self, me: usize, op: &Op) -> Option<String> {
        let (words, place) = (self.frame(me).words, self.frame(me).place);
        let number = words.map_or(me, |whose| 50 + whose) * 1000 + place * 10;
        match *op {
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
                    State::Ready | State::Paused => {}
                }
                if let Some(refused) = self.may_not_switch(me) {
                    return Some(refused);
                }
                if self.tasks[other].state == State::Paused {
                    // Just before the caller.
                    self.append(other);
                }
                if matches!(op, Op::Switch(_)) {
                    self.leave_ring(me, State::Paused);
                }
                self.turn_to(other);
                self.then_say(me, format!("moves {other}"))
            }
            Op::Kill(other) => self.kill(me, other, false),
            Op::KillLater(other) => self.kill(me, other, true),
            Op::Throw(other) | Op::ThrowLater(other) => {
                let now = matches!(op, Op::Throw(_));
                match self.tasks[other].state {
                    State::Unborn => return Some("skips".into()),
                    State::Dead => return Some("dead".into()),
                    State::Blocked if self.tasks[other].wait != Wait::Sleep => {}
                    _ => return Some("cannot throw".into()),
                }
                if let (true, Some(refused)) = (now, self.may_not_switch(me)) {
                    return Some(refused);
                }
                self.interrupt(other, &format!("thrown {number}"));
                let event = format!("throws at {other}");
                if !now {
                    return Some(event);
                }
                self.run_first(other);
                self.then_say(me, event)
            }
            Op::Trap(other, trapped) => Some(match self.tasks[other].state {
                State::Unborn => "skips".into(),
                State::Dead => "dead".into(),
                _ => {
                    self.tasks[other].trapped = trapped;
                    format!("traps {other}")
                }
            }),
            Op::Schedule => {
                if self.refused(me).is_some() || self.ring.len() == 1 {
                    return Some("scheduled".into());
                }
                if self.is_held(me) {
                    return Some("no switch".into());
                }
                self.ring.rotate_left(1);
                self.then_say(me, "scheduled".into())
            }
            Op::ScheduleRemove => {
                if self.refused(me).is_some() {
                    return Some("back".into());
                }
                if self.is_held(me) {
                    return Some("no switch".into());
                }
                self.leave_ring(me, State::Paused);
                self.leaver = Some(me);
                self.then_say(me, "back".into())
            }
            Op::Send(channel) | Op::TrySend(channel) | Op::SendTimeout(channel, _) => {
                let tried = self.try_send(me, channel, number.to_string(), "");
                self.finish_or_wait(me, op, tried, |model| {
                    model.channels[channel].senders.push((me, 0, number.to_string()));
                })
            }
            Op::SendError(channel) => {
                let error = || format!("error {number}");
                let tried = self.try_send(me, channel, error(), "");
                self.finish_or_wait(me, op, tried, |model| {
                    model.channels[channel].senders.push((me, 0, error()));
                })
            }
            Op::Receive(channel) | Op::TryReceive(channel) | Op::ReceiveTimeout(channel, _) => {
                let tried = self.try_receive(me, channel, "");
                self.finish_or_wait(me, op, tried, |model| {
                    model.channels[channel].receivers.push((me, 0));
                })
            }
            Op::Select(ref arms) => self.select(me, arms, number),
            Op::Close(channel) => {
                self.channels[channel].closing = true;
                for (receiver, arm) in std::mem::take(&mut self.channels[channel].receivers) {
                    // One that waits with two branches of a select is there twice.
                    if self.tasks[receiver].state == State::Blocked {
                        self.wake(receiver, arm, "closed");
                        self.append(receiver);
                    }
                }
                Some("closes".into())
            }
            Op::Open(channel) => {
                self.channels[channel].closing = false;
                Some("opens".into())
            }
            Op::Prefer(channel, preference) => {
                self.channels[channel].preference = preference;
                Some("prefers".into())
            }
            Op::ScheduleAll(channel, schedule_all) => {
                self.channels[channel].schedule_all = schedule_all;
                Some("sets".into())
            }
            Op::Join(other) => {
                if self.tasks[other].holder != Holder::Table {
                    return Some("skips".into());
                }
                if self.tasks[other].outcome.is_some() {
                    return Some(self.outcome(other));
                }
                if let Some(refused) = self.may_not_block(me) {
                    self.tasks[other].holder = Holder::Nobody;
                    return Some(refused);
                }
                self.tasks[other].holder = Holder::Joiner(me);
                self.tasks[me].joining = Some(other);
                self.block(me, Wait::Call, None)
            }
            Op::Detach(other) => {
                if self.tasks[other].holder != Holder::Table {
                    return Some("skips".into());
                }
                self.let_go(Some(other));
                Some(format!("detaches {other}"))
            }
            Op::Sleep(time) => {
                if self.refused(me).is_some() {
                    return Some(format!("slept until {}", self.now));
                }
                if self.is_held(me) {
                    return Some("no switch".into());
                }
                self.block(me, Wait::Sleep, Some(time))
            }
            Op::Run => {
                if self.refused(me).is_some() {
                    return Some("ran: 0 finished 0 blocked 0 paused 0 unread".into());
                }
                if self.ring.len() == 1 && self.sleepers.is_empty() {
                    return Some(self.summary(self.finished, self.unread));
                }
                if self.is_held(me) {
                    return Some("no switch".into());
                }
                self.leave_ring(me, State::Paused);
                self.runners.push(me);
                self.tasks[me].then = Then::EndRun(self.finished, self.unread);
                None
            }
            Op::Hold => {
                self.frame(me).guards += 1;
                Some("holds".into())
            }
            Op::Release => {
                let guards = &mut self.frame(me).guards;
                *guards = guards.saturating_sub(1);
                Some("releases".into())
            }
            Op::Panic => Some("skips".into()),
        }
    }

    // Who may do what.

    /// Why no call of it may wait.
    fn refused(&self, me: usize) -> Option<String> {
        let task = &self.tasks[me];
        match (task.unwinding, task.killed) {
            (Some(_), false) => Some("unwinding".into()),
            (_, true) => Some("killed".into()),
            (None, false) => None,
        }
    }

    fn is_held(&self, me: usize) -> bool {
        self.tasks[me].frames.iter().any(|frame| frame.guards > 0)
    }

    fn may_not_switch(&self, me: usize) -> Option<String> {
        self.refused(me).or_else(|| self.is_held(me).then(|| "no switch".into()))
    }

    fn may_not_block(&self, me: usize) -> Option<String> {
        self.may_not_switch(me).or_else(|| self.tasks[me].trapped.then(|| "trapped".into()))
    }

    // Ending.

    fn kill(&mut self, me: usize, other: usize, later: bool) -> Option<String> {
        let event = format!("kills {other}");
        match self.tasks[other].state {
            State::Unborn => return Some("skips".into()),
            _ if other == MAIN => return Some("main".into()),
            State::Dead => return Some(event),
            _ => {}
        }
        if other == me {
            self.tasks[me].killed = true;
            if self.tasks[me].unwinding.is_some() && !self.tasks[me].unstarted {
                return Some("pending".into());
            }
            self.unwind(me, true);
            return None;
        }
        if !later && !self.tasks[other].started {
            // It has no stack: its closure is dropped here and now.
            self.ring.retain(|&member| member != other);
            self.tasks[other].state = State::Dead;
            self.tell_holder(other, Outcome::Killed);
            self.speak(me, other);
            return None;
        }
        let refused = self.refused(me).is_some();
        if !later && !refused && self.is_held(me) {
            return Some("no switch".into());
        }
        self.tasks[other].unwind |= !self.tasks[other].killed;
        self.tasks[other].killed = true;
        if later || refused {
            if self.tasks[other].state != State::Ready {
                self.forget_wait(other);
                self.append(other);
            }
            return Some(if later { event } else { "pending".into() });
        }
        self.forget_wait(other);
        self.run_first(other);
        self.then_say(me, event)
    }

    /// The one that runs ends.
    fn end(&mut self, me: usize, outcome: Outcome) {
        self.leave_ring(me, State::Dead);
        self.leaver = None;
        self.tell_holder(me, outcome);
    }

    fn tell_holder(&mut self, me: usize, outcome: Outcome) {
        self.finished += 1;
        match self.tasks[me].holder {
            Holder::Nobody if outcome == Outcome::Panic => self.raise(me),
            Holder::Nobody => {}
            Holder::Table => self.tasks[me].outcome = Some(outcome),
            Holder::Joiner(joiner) => {
                self.tasks[me].outcome = Some(outcome);
                // Unless something else has ended its wait already.
                if self.tasks[joiner].state == State::Blocked {
                    self.tasks[joiner].then = Then::SayOutcome;
                    self.forget_wait(joiner);
                    self.append(joiner);
                }
            }
        }
    }

    /// The panic of `whose` goes to the innermost `run`, or to main, which is next.
    fn raise(&mut self, whose: usize) {
        let target = self.runners.last().copied().unwrap_or(MAIN);
        self.unread += usize::from(self.raised.is_some());
        self.raised = Some((target, whose));
        if self.ring.contains(&target) {
            return self.turn_to(target);
        }
        self.forget_wait(target);
        self.tasks[target].state = State::Ready;
        self.ring.insert(0, target);
    }

    // Channels.

    fn try_send(&mut self, me: usize, channel: usize, what: String, said: &str) -> Tried {
        let side = match self.hand_off(me, channel, -1, said) {
            Ok(side) => side,
            Err(refused) => return Tried::Over(refused),
        };
        let is_held = self.is_held(me);
        let line = &mut self.channels[channel];
        if let Some(&(receiver, arm)) = line.receivers.first() {
            if is_held && side != HandOff::Stay {
                return Tried::Over(said.to_owned() + "no switch");
            }
            self.wake(receiver, arm, &format!("received {what}"));
            return self.meet(side, receiver, said.to_owned() + "sent");
        }
        if !line.closing && line.buffer.len() < line.capacity {
            line.buffer.push_back(what);
            return Tried::Over(said.to_owned() + "sent");
        }
        self.closed_or_blocked(me, channel, said)
    }

    fn try_receive(&mut self, me: usize, channel: usize, said: &str) -> Tried {
        let side = match self.hand_off(me, channel, 1, said) {
            Ok(side) => side,
            Err(refused) => return Tried::Over(refused),
        };
        let is_held = self.is_held(me);
        let line = &mut self.channels[channel];
        if let Some((sender, arm, what)) = line.senders.first().cloned() {
            if is_held && side != HandOff::Stay {
                return Tried::Over(said.to_owned() + "no switch");
            }
            line.buffer.push_back(what);
            let what = line.buffer.pop_front().expect("one was just put in");
            self.wake(sender, arm, "sent");
            return self.meet(side, sender, format!("{said}received {what}"));
        }
        if let Some(what) = line.buffer.pop_front() {
            return Tried::Over(format!("{said}received {what}"));
        }
        self.closed_or_blocked(me, channel, said)
    }

    /// What happens should the other side wait, which `preferred` stands for; or what is said when that is refused.
    fn hand_off(
        &self,
        me: usize,
        channel: usize,
        preferred: i8,
        said: &str,
    ) -> Result<HandOff, String> {
        let frame = self.tasks[me].frames.last().expect("it lives");
        let never_waits =
            matches!(frame.steps.get(frame.place), Some(Op::TrySend(_) | Op::TryReceive(_)));
        let line = &self.channels[channel];
        match self.refused(me) {
            // What does not wait is possible, as long as it does not switch either.
            Some(_) if never_waits => Ok(HandOff::Stay),
            Some(refused) => Err(said.to_owned() + &refused),
            None if line.schedule_all => Ok(HandOff::ScheduleAll),
            None if line.preference == preferred => Ok(HandOff::Switch),
            None => Ok(HandOff::Stay),
        }
    }

    /// Where the one that waited goes, and who runs.
    fn meet(&mut self, hand_off: HandOff, waiter: usize, event: String) -> Tried {
        match hand_off {
            HandOff::Stay => {
                self.append(waiter);
                return Tried::Over(event);
            }
            HandOff::ScheduleAll => self.append(waiter),
            // Right after the caller, and the turn goes to it.
            HandOff::Switch => {
                self.tasks[waiter].state = State::Ready;
                self.ring.insert(1, waiter);
            }
        }
        self.ring.rotate_left(1);
        Tried::Left(event)
    }

    fn closed_or_blocked(&self, me: usize, channel: usize, said: &str) -> Tried {
        match (self.channels[channel].closing, self.tasks[me].trapped) {
            (false, _) => Tried::WouldBlock,
            (true, true) => Tried::Over(said.to_owned() + "trapped"),
            (true, false) => Tried::Over(said.to_owned() + "closed"),
        }
    }

    fn finish_or_wait(
        &mut self,
        me: usize,
        op: &Op,
        tried: Tried,
        wait: impl FnOnce(&mut Self),
    ) -> Option<String> {
        match tried {
            Tried::Over(event) => return Some(event),
            Tried::Left(event) => return self.then_say(me, event),
            Tried::WouldBlock => {}
        }
        let deadline = match *op {
            Op::TrySend(_) | Op::TryReceive(_) => return Some("timeout".into()),
            Op::SendTimeout(_, time) | Op::ReceiveTimeout(_, time) => Some(time),
            _ => None,
        };
        if let Some(refused) = self.may_not_block(me) {
            return Some(refused);
        }
        wait(self);
        self.block(me, Wait::Call, deadline)
    }

    fn select(&mut self, me: usize, arms: &[Arm], number: usize) -> Option<String> {
        let what = |arm: usize| (number + arm).to_string();
        for (arm, &branch) in arms.iter().enumerate() {
            let said = format!("arm {arm} ");
            let tried = match branch {
                Arm::Send(channel) => self.try_send(me, channel, what(arm), &said),
                Arm::Receive(channel) => self.try_receive(me, channel, &said),
                Arm::After(_) => Tried::WouldBlock,
            };
            match tried {
                Tried::Over(event) => return Some(event),
                Tried::Left(event) => return self.then_say(me, event),
                Tried::WouldBlock => {}
            }
        }
        let first = arms.iter().position(|arm| !matches!(arm, Arm::After(_)));
        let mut after = None;
        for (arm, &branch) in arms.iter().enumerate() {
            if let Arm::After(time) = branch
                && after.is_none_or(|(shortest, _)| time < shortest)
            {
                after = Some((time, arm));
            }
        }
        let wait = Wait::Select(first, after.map(|(_, arm)| arm));
        if let Some(refused) = self.may_not_block(me) {
            return Some(interrupted(wait, &refused));
        }
        for (arm, &branch) in arms.iter().enumerate() {
            match branch {
                Arm::Send(channel) => self.channels[channel].senders.push((me, arm, what(arm))),
                Arm::Receive(channel) => self.channels[channel].receivers.push((me, arm)),
                Arm::After(_) => {}
            }
        }
        self.block(me, wait, after.map(|(time, _)| time))
    }

    // Moving.

    fn then_say(&mut self, me: usize, event: String) -> Option<String> {
        self.tasks[me].then = Then::Say(event);
        None
    }

    /// At the tail.
    fn append(&mut self, who: usize) {
        self.tasks[who].state = State::Ready;
        self.ring.push(who);
    }

    /// The turn is that of `who`; those before it are passed over.
    fn turn_to(&mut self, who: usize) {
        let place = self.ring.iter().position(|&member| member == who);
        self.ring.rotate_left(place.expect("it is in the ring"));
    }

    /// The turn is that of `who`, wherever it was, and the caller's next.
    fn run_first(&mut self, who: usize) {
        self.ring.retain(|&member| member != who);
        self.tasks[who].state = State::Ready;
        self.ring.insert(0, who);
    }

    fn leave_ring(&mut self, me: usize, state: State) {
        assert_eq!(self.ring.remove(0), me);
        self.tasks[me].state = state;
    }

    fn block(&mut self, me: usize, wait: Wait, time: Option<u64>) -> Option<String> {
        self.leave_ring(me, State::Blocked);
        self.leaver = Some(me);
        self.tasks[me].wait = wait;
        if let Some(time) = time {
            self.sleepers.push((self.now + time, self.slept, me));
            self.slept += 1;
        }
        None
    }

    /// The wait of `who` ends with branch `arm`, if it is a select; the caller puts it into the ring.
    fn wake(&mut self, who: usize, arm: usize, event: &str) {
        let event = match self.tasks[who].wait {
            Wait::Select(..) => format!("arm {arm} {event}"),
            _ => event.to_owned(),
        };
        self.tasks[who].then = Then::Say(event);
        self.forget_wait(who);
    }

    /// The wait of `who` ends for another reason than what it waits for: it goes to the tail.
    fn interrupt(&mut self, who: usize, event: &str) {
        self.tasks[who].then = Then::Say(interrupted(self.tasks[who].wait, event));
        self.forget_wait(who);
        self.append(who);
    }

    fn forget_wait(&mut self, who: usize) {
        for line in &mut self.channels {
            line.senders.retain(|&(sender, ..)| sender != who);
            line.receivers.retain(|&(receiver, _)| receiver != who);
        }
        self.sleepers.retain(|&(_, _, sleeper)| sleeper != who);
        self.tasks[who].wait = Wait::Nothing;
    }

    /// The ring is empty: time goes on, or a `run` ends, or main goes on, or it is a deadlock.
    fn wait_or_resolve(&mut self) {
        if let Some(&(deadline, ..)) = self.sleepers.iter().min() {
            self.now = deadline;
            self.sleepers.sort_unstable();
            while self.sleepers.first().is_some_and(|&(deadline, ..)| deadline == self.now) {
                let (_, _, sleeper) = self.sleepers[0];
                self.tasks[sleeper].then = match self.tasks[sleeper].wait {
                    Wait::Sleep => Then::SayTime("slept until".into()),
                    Wait::Select(_, after) => {
                        Then::SayTime(format!("arm {} at", after.expect("it has one")))
                    }
                    Wait::Call | Wait::Nothing => Then::Say("timeout".into()),
                };
                self.forget_wait(sleeper);
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
        self.interrupt(victim, "deadlock");
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

/// What a wait says that something has ended that it did not wait for.
fn interrupted(wait: Wait, event: &str) -> String {
    match wait {
        Wait::Select(Some(first), _) => format!("arm {first} {event}"),
        Wait::Select(None, _) => "nobody to tell".into(),
        _ => event.to_owned(),
    }
}
