//! Random small programs, run by pila and by a plain model of its rules: both must tell the same story, step by step.
//!
//! A story says after every step what came of it, the state of every tasklet, and of every channel its balance and who
//! waits for it in which order. A failing program is shrunk and printed with its seed; `PILA_MODEL_SEED` sets the seed
//! and `PILA_MODEL_PROGRAMS` how many programs.

use std::{
    env,
    panic::{set_hook, take_hook},
    sync::Mutex,
    thread,
};

use pila::driver::{self, VirtualClock};
use programs::{Op, Program, Random, Script};
use rules::predict;
use shrink::shrink;
use world::perform;

mod programs;
mod rules;
mod shrink;
mod world;

/// How many programs are run.
const PROGRAMS: u64 = match (cfg!(debug_assertions), cfg!(feature = "sanitizer")) {
    (_, true) => 10_000,
    (true, _) => 20_000,
    (false, _) => 200_000,
};

/// Of how many programs the order is looked at, and how often each is run.
const TRACED: u64 = 50;
const TIMES: usize = 20;

/// The panic hook is the process's.
static HOOK: Mutex<()> = Mutex::new(());

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().expect("it is a number"))
}

fn seed() -> u64 {
    setting("PILA_MODEL_SEED", 20_261_122)
}

fn program(number: u64) -> Program {
    Random(seed().wrapping_add(number << 20)).program()
}

/// Runs `f` on a thread with a virtual clock.
fn apart<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> thread::Result<R> {
    let thread = thread::spawn(move || {
        driver::install(Box::new(VirtualClock::new())).unwrap();
        f()
    });
    thread.join()
}

/// Keeps the panics that programs are meant to have from being printed.
fn in_silence<R>(f: impl FnOnce() -> R) -> R {
    let _alone = HOOK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let result = f();
    set_hook(hook);
    result
}

/// What pila does and what it should, side by side, if they differ.
fn difference(program: &Program) -> Option<String> {
    let (real, expected) = (perform(program), predict(program));
    if real == expected {
        return None;
    }
    let mut text = format!("  capacities {:?}\n", program.capacities);
    for (number, script) in program.scripts.iter().enumerate() {
        text += &format!("  {number}: {script:?}\n");
    }
    for place in 0..real.len().max(expected.len()) {
        let line = |trace: &[String]| trace.get(place).cloned().unwrap_or_default();
        let (real, expected) = (line(&real), line(&expected));
        let mark = if real == expected { ' ' } else { '!' };
        text += &format!("{mark} pila: {real:<60} rules: {expected}\n");
    }
    Some(text)
}

/// As [`difference`], on a thread of its own.
fn difference_apart(program: &Program) -> Option<String> {
    let program = program.clone();
    apart(move || difference(&program)).unwrap_or_else(|_| Some("it panicked".into()))
}

#[test]
fn random_programs_run_as_the_rules_say() {
    let programs = setting("PILA_MODEL_PROGRAMS", PROGRAMS);
    let failed = in_silence(|| {
        // Program after program on one thread, each of which has to leave it as it was.
        let failed = apart(move || {
            (0..programs).find_map(|number| Some((number, difference(&program(number))?)))
        });
        let (number, there) = failed.expect("a program does not end its thread")?;
        let fails = |program: &Program| difference_apart(program).is_some();
        let what = match difference_apart(&program(number)) {
            Some(_) => {
                let shrunk = shrink(program(number), fails);
                format!("shrunk:\n{}", difference_apart(&shrunk).unwrap_or_default())
            }
            None => format!("only after the programs before it:\n{there}"),
        };
        Some(format!("seed {}, program {number}, {what}", seed()))
    });
    if let Some(failed) = failed {
        panic!("{failed}");
    }
}

/// A program of scripts without last words, with one channel.
fn plain(scripts: &[&[Op]]) -> Program {
    let script = |steps: &&[Op]| Script { steps: steps.to_vec(), ..Script::default() };
    Program { scripts: scripts.iter().map(script).collect(), capacities: vec![0] }
}

#[track_caller]
fn assert_as_the_rules_say(program: &Program) {
    if let Some(difference) = in_silence(|| difference_apart(program)) {
        panic!("{difference}");
    }
}

#[test]
fn a_panic_goes_on_from_a_run_whose_caller_was_killed_to_the_next() {
    use Op::*;
    assert_as_the_rules_say(&plain(&[
        &[Create(1), Create(2), Create(3), Detach(3), Run, Run],
        &[Run],
        &[KillLater(1)],
        &[Panic],
    ]));
}

#[test]
fn schedule_with_nobody_else_to_run_is_free_inside_a_guard_however_often() {
    let schedules = std::iter::repeat_n(Op::Schedule, 200);
    let steps: Vec<Op> = [Op::Hold].into_iter().chain(schedules).collect();
    assert_as_the_rules_say(&plain(&[&steps]));
    assert_as_the_rules_say(&plain(&[&[Op::Create(1), Op::Run], &steps]));
}

/// Without this the model could be right about little.
#[test]
fn the_random_programs_come_to_everything_that_can_come_of_a_step() {
    let stories: String = (0..5_000).flat_map(|number| predict(&program(number))).collect();
    let events = [
        "kills",
        "main",
        "pending",
        "survives",
        "goes",
        "was killed",
        "throws at",
        "cannot throw",
        "thrown",
        "unwinding",
        "killed",
        "no switch",
        "trapped",
        "nobody to tell",
        "deadlock",
        "closed",
        "timeout",
        "slept until",
        "panics",
        "panic of",
        "joined",
        "received error",
        "dead",
        "blocked",
        "current",
        "arm 0 sent",
        "arm 0 received",
        "arm 0 closed",
        "arm 0 deadlock",
        "arm 0 thrown",
        "arm 0 killed",
        "arm 0 unwinding",
        "arm 0 no switch",
        "arm 0 trapped",
        "arm 2 sent",
        "arm 2 received",
        "arm 3 at",
        "3 blocked",
        "1 unread",
    ];
    let missing: Vec<_> = events.iter().filter(|&&event| !stories.contains(event)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_order_is_a_function_of_the_program_alone() {
    in_silence(|| {
        for number in 0..TRACED {
            let first = apart(move || perform(&program(number))).unwrap();
            for _ in 0..TIMES / 2 {
                assert_eq!(apart(move || perform(&program(number))).unwrap(), first);
            }
        }
        let all: Vec<Vec<String>> =
            (0..TRACED).map(|number| apart(move || perform(&program(number))).unwrap()).collect();
        // One after another on one thread, too.
        let again = move || {
            for _ in 0..TIMES / 2 {
                for (number, first) in all.iter().enumerate() {
                    assert_eq!(&perform(&program(number as u64)), first);
                }
            }
        };
        apart(again).unwrap();
    });
}
