//! Timeouts, shields and `catch_unwind`, nested at random, against a model of what each wait in them has to do.
//!
//! Time is virtual, so the model knows to the millisecond when each wait ends. `PILA_SEED=n` plays one seed again.

use std::{
    cell::RefCell,
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use pila::{
    JoinError,
    driver::{self, VirtualClock},
    shield, sleep, tasklet, timeout,
};

/// A part of a program. Times are in units that the kill, at half a unit, never meets.
#[derive(Debug)]
enum Part {
    Wait(u64),
    Timeout(u64, Vec<Part>),
    Shield(Vec<Part>),
    Catch(Vec<Part>),
}

const UNIT: Duration = Duration::from_millis(2);

/// Which part came to an end, how, and when in half units.
type Log = Vec<(u32, End, u64)>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Waited,
    InTime,
    Elapsed,
    Shielded,
    Caught,
    Killed,
}

struct Random(u64);

impl Random {
    fn draw(&mut self, bound: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn program(&mut self, depth: u32) -> Vec<Part> {
        let part = |random: &mut Random| match random.draw(if depth == 0 { 1 } else { 7 }) {
            0 => Part::Wait(random.draw(8)),
            1..4 => Part::Timeout(random.draw(16), random.program(depth - 1)),
            4 | 5 => Part::Shield(random.program(depth - 1)),
            _ => Part::Catch(random.program(depth - 1)),
        };
        (0..=self.draw(3)).map(|_| part(self)).collect()
    }
}

/// Does what a program says.
struct Player {
    log: RefCell<Log>,
    start: Instant,
}

impl Player {
    fn note(&self, number: u32, end: End) {
        let half_units = (driver::now() - self.start).as_nanos() / (UNIT / 2).as_nanos();
        self.log.borrow_mut().push((number, end, half_units as u64));
    }

    fn play(&self, program: &[Part], number: &mut u32) {
        for part in program {
            let mine = *number;
            *number += 1;
            // What an unwinding skips is numbered all the same.
            let mut inner = *number;
            match part {
                Part::Wait(units) => {
                    sleep(UNIT * *units as u32);
                    self.note(mine, End::Waited);
                }
                Part::Timeout(units, body) => {
                    *number += count(body);
                    let ended = timeout(UNIT * *units as u32, || self.play(body, &mut inner));
                    self.note(mine, if ended.is_ok() { End::InTime } else { End::Elapsed });
                }
                Part::Shield(body) => {
                    *number += count(body);
                    shield(|| self.play(body, &mut inner));
                    self.note(mine, End::Shielded);
                }
                Part::Catch(body) => {
                    *number += count(body);
                    let body = || self.play(body, &mut inner);
                    let caught = catch_unwind(AssertUnwindSafe(body)).is_err();
                    self.note(mine, if caught { End::Caught } else { End::InTime });
                }
            }
        }
    }
}

fn count(program: &[Part]) -> u32 {
    let inner = |part: &Part| match part {
        Part::Wait(_) => 0,
        Part::Timeout(_, body) | Part::Shield(body) | Part::Catch(body) => count(body),
    };
    program.iter().map(|part| 1 + inner(part)).sum()
}

/// What a program has to do.
struct Model {
    log: Log,
    /// In half units.
    now: u64,
    frames: Vec<Frame>,
    /// When the kill comes, if it has not come yet.
    kill: Option<u64>,
    doomed: bool,
    /// Whether the next call that may wait unwinds.
    raise: bool,
}

#[derive(Clone, Copy, Debug)]
enum Frame {
    Limit { deadline: u64, struck: bool },
    Shield { raise: bool },
}

/// To where it unwinds: to the frame of this index, or out of everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unwinds {
    To(usize),
    Out,
}

impl Model {
    /// The first frame that no shield hides.
    fn visible(&self) -> usize {
        let shield = self.frames.iter().rposition(|frame| matches!(frame, Frame::Shield { .. }));
        shield.map_or(0, |shield| shield + 1)
    }

    fn killed(&self) -> bool {
        self.doomed && self.visible() == 0
    }

    fn struck(&self) -> Option<usize> {
        let struck =
            |&frame: &usize| matches!(self.frames[frame], Frame::Limit { struck: true, .. });
        (self.visible()..self.frames.len()).find(struck)
    }

    fn unwinds(&mut self) -> Unwinds {
        self.raise = false;
        if self.killed() { Unwinds::Out } else { Unwinds::To(self.struck().expect("what raises")) }
    }

    /// Forgets what is to be raised when nothing ends the calls any more.
    fn settle(&mut self) {
        self.raise &= self.killed() || self.struck().is_some();
    }

    /// What comes next until `end`: its time, and the limit that is struck, or none for the kill.
    fn next_event(&self, end: u64) -> Option<(u64, Option<usize>)> {
        let limits = self.frames.iter().enumerate().filter_map(|(place, frame)| match *frame {
            Frame::Limit { deadline, struck: false } => Some((deadline.max(self.now), Some(place))),
            _ => None,
        });
        // Of those that pass at once the outer one was set first.
        let kill = self.kill.map(|at| (at.max(self.now), None));
        limits.chain(kill).filter(|&(at, _)| at <= end).min_by_key(|&(at, _)| at)
    }

    /// Has it come. True when it ends a wait that is under way.
    fn come(&mut self, event: Option<usize>) -> bool {
        let (place, inside) = match event {
            None => {
                self.kill = None;
                self.doomed = true;
                (0, 0)
            }
            Some(place) => {
                let Frame::Limit { struck, .. } = &mut self.frames[place] else { unreachable!() };
                *struck = true;
                (place, place + 1)
            }
        };
        // What is outside of it and ends, within the same shield, ends it too.
        let zone = self.frames[..place].iter().rposition(|f| matches!(f, Frame::Shield { .. }));
        let zone = zone.map_or(0, |shield| shield + 1);
        let outer_ends = |frame: &Frame| matches!(frame, Frame::Limit { struck: true, .. });
        if event.is_some() && self.frames[zone..place].iter().any(outer_ends) {
            return false;
        }
        let shield = |frame: &&mut Frame| matches!(frame, Frame::Shield { .. });
        if let Some(Frame::Shield { raise }) = self.frames[inside..].iter_mut().find(shield) {
            *raise = true;
            return false;
        }
        if event.is_some() && self.killed() {
            return false;
        }
        self.raise = true;
        true
    }

    fn wait(&mut self, units: u64) -> Result<(), Unwinds> {
        if self.killed() || self.struck().is_some() {
            return if self.raise { Err(self.unwinds()) } else { Ok(()) };
        }
        let end = self.now + 2 * units;
        while let Some((at, event)) = self.next_event(end) {
            self.now = at;
            if self.come(event) {
                return Err(self.unwinds());
            }
        }
        self.now = end;
        Ok(())
    }

    fn play(&mut self, program: &[Part], number: &mut u32) -> Result<(), Unwinds> {
        for part in program {
            let mine = *number;
            *number += 1;
            let mut inner = *number;
            let end = match part {
                Part::Wait(units) => {
                    self.wait(*units)?;
                    End::Waited
                }
                Part::Timeout(units, body) => {
                    *number += count(body);
                    let place = self.frames.len();
                    let deadline = self.now + 2 * units;
                    self.frames.push(Frame::Limit { deadline, struck: false });
                    let ended = self.play(body, &mut inner);
                    self.frames.truncate(place);
                    self.settle();
                    match ended {
                        Ok(()) => End::InTime,
                        Err(Unwinds::To(frame)) if frame == place => End::Elapsed,
                        Err(further) => return Err(further),
                    }
                }
                Part::Shield(body) => {
                    *number += count(body);
                    let place = self.frames.len();
                    self.frames.push(Frame::Shield { raise: self.raise });
                    self.raise = false;
                    let ended = self.play(body, &mut inner);
                    let Some(Frame::Shield { raise }) = self.frames.drain(place..).next() else {
                        unreachable!("it is where it was put")
                    };
                    self.raise |= raise;
                    self.settle();
                    ended?;
                    End::Shielded
                }
                Part::Catch(body) => {
                    *number += count(body);
                    let place = self.frames.len();
                    let caught = self.play(body, &mut inner).is_err();
                    self.frames.truncate(place);
                    if caught { End::Caught } else { End::InTime }
                }
            };
            self.log.push((mine, end, self.now));
        }
        Ok(())
    }
}

fn seen_and_foreseen(seed: u64) -> (Vec<Part>, Option<u64>, Log, Log) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let program = Rc::new(random.program(4));
    let kill = Some(2 * random.draw(40) + 1).filter(|_| random.draw(3) > 0);

    let mut model =
        Model { log: Vec::new(), now: 0, frames: Vec::new(), kill, doomed: false, raise: false };
    let ended = model.play(&program, &mut 0);
    let mut foreseen = model.log;
    if let Err(out) = ended {
        assert_eq!(out, Unwinds::Out);
        foreseen.push((u32::MAX, End::Killed, model.now));
    }

    driver::install(Box::new(VirtualClock::new())).unwrap();
    let player = Rc::new(Player { log: RefCell::default(), start: driver::now() });
    let (theirs, its) = (player.clone(), program.clone());
    let victim = tasklet(move || theirs.play(&its, &mut 0));
    if let Some(kill) = kill {
        let victim = victim.handle();
        // Some of them are shielded, or go on.
        tasklet(move || {
            sleep(UNIT / 2 * kill as u32);
            let _ = victim.kill();
        });
    }
    if let Err(JoinError::Killed) = victim.join() {
        player.note(u32::MAX, End::Killed);
    }
    let seen = player.log.take();
    drop(player);
    (Rc::into_inner(program).expect("the victim has ended"), kill, seen, foreseen)
}

#[test]
fn nested_limits_and_shields_end_what_the_model_says_and_when() {
    let seeds = match env::var("PILA_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (0..if cfg!(debug_assertions) { 2000 } else { 20_000 }).collect::<Vec<u64>>(),
    };
    let mut ends = 0;
    for seed in seeds {
        let played = thread::spawn(move || seen_and_foreseen(seed)).join();
        let (program, kill, seen, foreseen) =
            played.unwrap_or_else(|_| panic!("PILA_SEED={seed} panicked"));
        assert!(
            seen == foreseen,
            "PILA_SEED={seed}: {program:#?}\nkilled at {kill:?}\nseen      {seen:?}\nforeseen  {foreseen:?}"
        );
        ends += seen.iter().filter(|(_, end, _)| matches!(end, End::Elapsed | End::Killed)).count();
    }
    assert!(ends > 0, "nothing was ended");
}
