//! The same work on pila and on its peers, in turn: a table and a plot of medians and ratios.
//!
//! ```text
//! cd benches/compare
//! cargo run --release                            everything that is installed, some fifteen minutes
//! cargo run --release -- --only echo,spawn --peers tokio,go --rounds 3
//! cargo run --release -- --check                 whether pila keeps its bars; fails if it does not
//! ```
//!
//! The table and the plot are written to `target/compare` in the repository, and, with `--write`, the table into
//! `docs/performance.md`. What is measured keeps to the first processor, what loads it to the last.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program for people")]

mod bench;
mod check;
mod echo;
mod machine;
mod mail;
mod peers;
mod plot;
#[allow(dead_code, reason = "the benches print distances")]
#[path = "../../processors/mod.rs"]
mod processors;
#[path = "../../ready/mod.rs"]
mod ready;
mod results;
mod run;
mod work;

use std::{error::Error, fs, process::ExitCode};

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    bench::Bench,
    check::GROUPS,
    peers::Places,
    results::{Figures, median},
    work::{Ask, Work},
};

/// Compares pila with its peers
#[derive(Parser)]
struct Options {
    /// Only works whose names begin so: spawn, switch, switch/deep, ring, idle, sleeps, timeouts, echo/1000, mail. With
    /// --check: switch, deep, random, spawn, channel, idle, sleeps, timeouts, echo, mail
    #[arg(long, value_delimiter = ',', value_name = "WORK")]
    only: Vec<String>,
    /// Only these, next to pila: corosensei, epoll, tokio, smol, monoio, may, go, boost-fiber, state-threads, greenlet, gevent
    #[arg(long, value_delimiter = ',', value_name = "PEER")]
    peers: Vec<String>,
    /// How often each program does each work [default: 5, or what the bars of --check ask for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// A tenth of the work, for a look whether everything runs
    #[arg(long)]
    quick: bool,
    /// Evaluate the bars that pila has to keep, print them, and fail if one does not hold
    #[arg(long)]
    check: bool,
    /// Put the table between the marks in docs/performance.md
    #[arg(long, conflicts_with = "check")]
    write: bool,
}

impl Options {
    fn wants(&self, work: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| work.starts_with(only.as_str()))
    }

    fn wants_peer(&self, name: &str) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|peer| peer == name)
    }

    fn rounds(&self) -> Option<usize> {
        self.rounds.map(|rounds| rounds as usize)
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let options = Options::parse();
    raise_descriptor_limit();
    let places = Places::new();
    fs::create_dir_all(&places.target)?;
    if options.check { check(&options, &places) } else { compare(&options, &places) }
}

fn compare(options: &Options, places: &Places) -> Result<ExitCode, Box<dyn Error>> {
    let works: Vec<_> =
        Work::all(options.quick).into_iter().filter(|work| options.wants(&work.name())).collect();
    let with_mail = works.iter().any(|work| work.ask == Ask::Mail);
    let mut bench =
        Bench::prepare(places, |name| options.wants_peer(name), with_mail, options.quick);
    let names = bench.names();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let rounds = options.rounds().unwrap_or(5);
    bench.expect_runs(works.len() * all.len() * rounds);
    let mut figures = Vec::new();
    for work in &works {
        figures.extend(bench.measure(work, &all, rounds));
    }
    bench.finish();

    let report = describe(&figures, &bench, places, rounds);
    fs::write(places.target.join("table.md"), &report)?;
    let plot = places.target.join("plot.svg");
    plot::draw(&figures, &plot)?;
    println!("{report}\n{}", results::empty_cells(&figures));
    println!("written to {} and {}", places.target.join("table.md").display(), plot.display());
    if options.write {
        write_into_docs(&report, places)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The table and what one has to know to read it.
fn describe(figures: &[Figures], bench: &Bench, places: &Places, rounds: usize) -> String {
    let distance = match median(bench.distances.clone()) {
        Some(distance) => {
            let least = bench.distances.iter().copied().fold(f64::INFINITY, f64::min);
            let most = bench.distances.iter().copied().fold(0.0, f64::max);
            format!(
                " A cache line's way between the two processors and back: {distance:.0} ns, from {least:.0} to {most:.0}."
            )
        }
        None => String::new(),
    };
    format!(
        "{}. {}.\n\nMedians of {rounds} rounds, each program once a round; in parentheses the median of its ratios to \
         pila in the same round.{distance}\n\n{}\nWhere a peer is ahead of pila by 5 % or more:\n\n{}",
        machine::describe(),
        machine::versions(places, &bench.names()),
        results::table(figures),
        results::not_first(figures),
    )
}

const BEGIN: &str = "<!-- measured: begin -->\n";
const END: &str = "<!-- measured: end -->";

fn write_into_docs(report: &str, places: &Places) -> Result<(), Box<dyn Error>> {
    let path = places.repository.join("docs/performance.md");
    let text = fs::read_to_string(&path)?;
    let (Some(begin), Some(end)) = (text.find(BEGIN), text.find(END)) else {
        return Err(format!("{} has no marks", path.display()).into());
    };
    let (before, after) = (&text[..begin + BEGIN.len()], &text[end..]);
    fs::write(&path, format!("{before}\n{report}\n{after}"))?;
    Ok(())
}

fn check(options: &Options, places: &Places) -> Result<ExitCode, Box<dyn Error>> {
    let groups: Vec<_> = GROUPS.iter().filter(|group| options.wants(group.name)).collect();
    let needs = |name: &str| groups.iter().any(|group| group.programs.contains(&name));
    let with_mail = groups.iter().any(|group| group.name == "mail");
    let mut bench = Bench::prepare(places, needs, with_mail, options.quick);
    let runs = groups.iter().map(|group| group.runs * options.rounds().unwrap_or(group.rounds));
    bench.expect_runs(runs.sum());
    let mut verdicts = Vec::new();
    for group in &groups {
        verdicts.extend(group.evaluate(&mut bench, options.rounds()));
    }
    bench.finish();
    let (report, all_hold) = check::report(&verdicts);
    let report = format!("{}\n\n{report}", machine::describe());
    fs::write(places.target.join("check.md"), &report)?;
    println!("{report}");
    Ok(if all_hold { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The load of 10,000 connections needs more descriptors than the usual soft limit.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where it is too low all the same, the row says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
