//! The bars that pila's figures have to keep, each evaluated from a run of its own: few programs, directly in turn.

use std::fmt::Write;

use crate::{
    bench::Bench,
    results::{Cell, Figures},
    work::Work,
};

/// What other runtimes reach that no registry packages, in nanoseconds, measured on one 4.1 GHz core of an AMD EPYC:
/// Photon (4dd4570) and Stackless Python (3.7.0a4+).
const PHOTON_SPAWN: f64 = 55.0;
const PHOTON_CHANNEL: [f64; 2] = [125.0, 131.0];
const STACKLESS_CHANNEL: [f64; 2] = [53.0, 72.0];

/// One bar and what came of it.
pub(crate) struct Verdict {
    what: String,
    bar: String,
    /// What was measured; none when it could not be.
    figure: Option<f64>,
    /// How `figure` is written.
    unit: &'static str,
    passes: bool,
}

impl Verdict {
    fn at_most(
        what: impl Into<String>,
        figure: Option<f64>,
        bar: f64,
        unit: &'static str,
    ) -> Verdict {
        let passes = figure.is_some_and(|figure| figure <= bar);
        Verdict { what: what.into(), bar: format!("≤ {bar}{unit}"), figure, unit, passes }
    }

    fn at_least(
        what: impl Into<String>,
        figure: Option<f64>,
        bar: f64,
        unit: &'static str,
    ) -> Verdict {
        let passes = figure.is_some_and(|figure| figure >= bar);
        Verdict { what: what.into(), bar: format!("≥ {bar}{unit}"), figure, unit, passes }
    }

    fn below(
        what: impl Into<String>,
        figure: Option<f64>,
        bar: f64,
        unit: &'static str,
    ) -> Verdict {
        let passes = figure.is_some_and(|figure| figure < bar);
        Verdict { what: what.into(), bar: format!("< {bar:.1}{unit}"), figure, unit, passes }
    }
}

/// A group of bars that one work or a few decide.
pub(crate) struct Group {
    /// For `--only`.
    pub(crate) name: &'static str,
    /// The programs it needs.
    pub(crate) programs: &'static [&'static str],
    /// How many runs it makes in a round.
    pub(crate) runs: usize,
    /// The least number of rounds the bars are worth anything with.
    pub(crate) rounds: usize,
    evaluate: fn(&mut Bench, usize) -> Vec<Verdict>,
}

pub(crate) const GROUPS: [Group; 10] = [
    Group { name: "switch", programs: &["pila"], runs: 6, rounds: 5, evaluate: switch },
    Group { name: "deep", programs: &["pila", "corosensei"], runs: 12, rounds: 5, evaluate: deep },
    Group { name: "random", programs: &["pila"], runs: 3, rounds: 5, evaluate: random },
    Group {
        name: "spawn",
        programs: &["pila", "tokio", "monoio", "go", "may"],
        runs: 5,
        rounds: 5,
        evaluate: spawn,
    },
    Group {
        name: "channel",
        programs: &["pila", "go", "tokio", "may", "boost-fiber"],
        runs: 18,
        rounds: 5,
        evaluate: channel,
    },
    Group { name: "idle", programs: &["pila"], runs: 1, rounds: 3, evaluate: idle },
    Group { name: "sleeps", programs: &["pila", "tokio"], runs: 2, rounds: 5, evaluate: sleeps },
    Group { name: "timeouts", programs: &["pila"], runs: 1, rounds: 5, evaluate: timeouts },
    Group {
        name: "echo",
        programs: &["pila", "epoll", "tokio"],
        runs: 9,
        rounds: 7,
        evaluate: echo,
    },
    Group { name: "mail", programs: &["pila"], runs: 2, rounds: 7, evaluate: mail },
];

impl Group {
    pub(crate) fn evaluate(&self, bench: &mut Bench, rounds: Option<usize>) -> Vec<Verdict> {
        (self.evaluate)(bench, rounds.unwrap_or(self.rounds))
    }
}

/// The one row of a work that has one.
fn only(bench: &mut Bench, work: &Work, names: &[&str], rounds: usize) -> Figures {
    bench.measure(work, names, rounds).swap_remove(0)
}

fn pila_alone(bench: &mut Bench, work: &Work, rounds: usize) -> Option<f64> {
    only(bench, work, &["pila"], rounds).pila().median()
}

const ORDERS: [&str; 2] = ["creation", "random"];
const FEW: [usize; 3] = [2, 100, 1_000];

fn switch(bench: &mut Bench, rounds: usize) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for order in ORDERS {
        for tasks in FEW {
            let figure = pila_alone(bench, &Work::switch(tasks, "inlined", order), rounds);
            let what = format!("switch, inlined, {tasks} tasklets, {order} order");
            verdicts.push(Verdict::at_most(what, figure, 10.0, " ns"));
        }
    }
    verdicts
}

fn deep(bench: &mut Bench, rounds: usize) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for order in ORDERS {
        for tasks in FEW {
            let work = Work::switch(tasks, "deep", order);
            let figures = only(bench, &work, &["pila", "corosensei"], rounds);
            let ratio = pila_to(&figures, "corosensei");
            let what = format!(
                "switch below three calls, {tasks} tasklets, {order} order, to bare corosensei"
            );
            verdicts.push(Verdict::at_most(what, ratio, 1.2, " ×"));
        }
    }
    verdicts
}

/// How many times as much pila takes, or gives, as another.
fn pila_to(figures: &Figures, other: &str) -> Option<f64> {
    figures.pila().ratio_to(figures.cell(other)?)
}

fn random(bench: &mut Bench, rounds: usize) -> Vec<Verdict> {
    let mut at = |tasks| pila_alone(bench, &Work::switch(tasks, "deep", "random"), rounds);
    let hundred = at(100);
    [(10_000, 1.5), (100_000, 3.5)]
        .map(|(tasks, bar)| {
            let ratio = at(tasks).zip(hundred).map(|(many, few)| many / few);
            let what = format!("switch below three calls, random order, {tasks} tasklets to 100");
            Verdict::at_most(what, ratio, bar, " ×")
        })
        .into()
}

fn spawn(bench: &mut Bench, rounds: usize) -> Vec<Verdict> {
    let names = ["pila", "tokio", "monoio", "go", "may"];
    let figures = only(bench, &Work::spawn(), &names, rounds);
    let figure = figures.pila().median();
    let mut verdicts = vec![
        Verdict::at_most("spawn, run, finish", figure, 40.0, " ns"),
        Verdict::below("spawn, run, finish, to Photon", figure, PHOTON_SPAWN, " ns"),
    ];
    verdicts.extend(behind(&figures, "spawn, run, finish"));
    verdicts
}

/// All peers of a row have to be behind pila.
fn behind(figures: &Figures, what: &str) -> Vec<Verdict> {
    let of = |cell: &Cell| {
        let what = format!("{what}, to {}", cell.program);
        Verdict::below(what, figures.pila().ratio_to(cell), 1.0, " ×")
    };
    figures.cells[1..].iter().map(of).collect()
}

fn channel(bench: &mut Bench, rounds: usize) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let noted = PHOTON_CHANNEL.into_iter().zip(STACKLESS_CHANNEL);
    for (tasks, (photon, stackless)) in [2, 1_000].into_iter().zip(noted) {
        let name = if tasks == 2 { "ping-pong" } else { "ring of 1,000" };
        for depth in ["inlined", "deep"] {
            let names: &[&str] = match depth {
                "deep" => &["pila", "go", "tokio", "may", "boost-fiber"],
                _ => &["pila"],
            };
            // One after the other in each round, as the two are compared with each other.
            let (mut values, mut switches) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                values.push(only(bench, &Work::ring(tasks, depth), names, 1));
                switches.push(only(bench, &Work::switch(tasks, depth, "creation"), &["pila"], 1));
            }
            let (values, switches) = (joined(values), joined(switches));
            let ratio = values.pila().ratio_to(switches.pila());
            let what = format!("channel, {name}, {depth}, to a switch");
            verdicts.push(Verdict::at_most(what, ratio, 1.4, " ×"));
            if depth == "deep" {
                let figure = values.pila().median();
                verdicts.push(Verdict::below(format!("{name}, to Photon"), figure, photon, " ns"));
                let what = format!("{name}, to Stackless Python");
                verdicts.push(Verdict::below(what, figure, stackless, " ns"));
                verdicts.extend(behind(&values, name));
            }
        }
    }
    verdicts
}

/// The rounds of one row, measured apart.
fn joined(rounds: Vec<Figures>) -> Figures {
    rounds
        .into_iter()
        .reduce(|mut all, round| {
            for (cell, more) in all.cells.iter_mut().zip(round.cells) {
                cell.figures.extend(more.figures);
            }
            all
        })
        .expect("there is a round")
}

fn idle(bench: &mut Bench, rounds: usize) -> Vec<Verdict> {
    let rows = bench.measure(&Work::idle(1_000_000), &["pila"], rounds);
    let of = |metric| {
        let row = rows.iter().find(|figures| figures.row.metric == metric);
        row.and_then(|figures| figures.pila().median())
    };
    vec![
        Verdict::at_most(
            "1,000,000 waiting, resident + page tables each",
            of("memory"),
            4_608.0,
            " B",
        ),
        Verdict::at_most("1,000,000 waiting, made in", of("make"), 2_000.0, " ns"),
        all_end(of("end")),
    ]
}

/// There is a figure only if all of them ended.
fn all_end(figure: Option<f64>) -> Verdict {
    let (what, bar) = ("1,000,000 waiting, all woken and ended in".to_owned(), "all".to_owned());
    Verdict { what, bar, figure, unit: " ns", passes: figure.is_some() }
}

fn sleeps(bench: &mut Bench, rounds: usize) -> Vec<Verdict> {
    let figures = only(bench, &Work::sleeps(100_000), &["pila", "tokio"], rounds);
    let ratio = figures.pila().median().zip(figures.cell("tokio").and_then(Cell::median));
    let ratio = ratio.map(|(pila, tokio)| pila / tokio);
    vec![Verdict::at_most("100,000 × 10 sleeps, processor time, to tokio", ratio, 1.1, " ×")]
}

fn timeouts(bench: &mut Bench, rounds: usize) -> Vec<Verdict> {
    let figure = pila_alone(bench, &Work::timeouts(), rounds);
    vec![Verdict::at_most("timeouts set and cancelled", figure, 60.0, " ns")]
}

fn echo(bench: &mut Bench, rounds: usize) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for connections in [50, 1_000, 10_000] {
        let rows = bench.measure(&Work::echo(connections), &["pila", "epoll", "tokio"], rounds);
        for other in ["epoll", "tokio"] {
            let what = format!("echo, {connections} connections, requests, to {other}");
            verdicts.push(Verdict::at_least(what, pila_to(&rows[0], other), 0.95, " ×"));
            let what = format!("echo, {connections} connections, processor time, to {other}");
            verdicts.push(Verdict::at_most(what, pila_to(&rows[1], other), 1.05, " ×"));
        }
    }
    verdicts
}

fn mail(bench: &mut Bench, rounds: usize) -> Vec<Verdict> {
    let figures = only(bench, &Work::mail(), &[], rounds);
    let ratio = pila_to(&figures, "smtp-source");
    vec![Verdict::at_most("20,000 mails, processor time, to smtp-source", ratio, 0.9, " ×")]
}

/// All of them, in Markdown, and whether each passes.
pub(crate) fn report(verdicts: &[Verdict]) -> (String, bool) {
    let mut text = "| what | bar | figure | |\n|---|---:|---:|---|\n".to_owned();
    for Verdict { what, bar, figure, unit, passes } in verdicts {
        let figure = match figure {
            Some(figure) if *unit == " B" || *figure >= 100.0 => format!("{figure:.0}{unit}"),
            Some(figure) => format!("{figure:.2}{unit}"),
            None => "not measured".to_owned(),
        };
        let verdict = if *passes { "holds" } else { "**FAILS**" };
        writeln!(text, "| {what} | {bar} | {figure} | {verdict} |").expect("it is text");
    }
    (text, verdicts.iter().all(|verdict| verdict.passes))
}
