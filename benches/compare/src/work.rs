//! The works that are compared, and the rows of figures each gives.

use crate::peers::Peer;

/// How a figure is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Nanoseconds,
    Milliseconds,
    Bytes,
    PerSecond,
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Unit::Nanoseconds => "ns",
            Unit::Milliseconds => "ms",
            Unit::Bytes => "B",
            Unit::PerSecond => "/s",
        }
    }

    /// Whether less of it is better.
    pub(crate) fn is_cost(self) -> bool {
        self != Unit::PerSecond
    }
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// As the program names it.
    pub(crate) metric: &'static str,
    pub(crate) title: String,
    pub(crate) unit: Unit,
}

/// Who does a work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Spawn,
    Switch {
        depth: &'static str,
        order: &'static str,
    },
    Ring {
        depth: &'static str,
    },
    Idle,
    Sleeps,
    Timeouts,
    /// The program is a server, and the load comes from here.
    Echo,
    /// pila's example against Postfix' `smtp-source`.
    Mail,
}

/// A work, for so many tasks or connections.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) ask: Ask,
    pub(crate) tasks: usize,
    pub(crate) rows: Vec<Row>,
}

/// Switches, hops, tasks and timeouts in one run; a quick one has a tenth of them.
const COUNT: u64 = 2_000_000;

impl Work {
    fn new(ask: Ask, tasks: usize, rows: &[(&'static str, String, Unit)]) -> Work {
        let rows = rows.iter().cloned();
        let rows = rows.map(|(metric, title, unit)| Row { metric, title, unit }).collect();
        Work { ask, tasks, rows }
    }

    pub(crate) fn spawn() -> Work {
        let title = "make, run and end a task".to_owned();
        Work::new(Ask::Spawn, 1_000, &[("ns", title, Unit::Nanoseconds)])
    }

    pub(crate) fn switch(tasks: usize, depth: &'static str, order: &'static str) -> Work {
        let (inlined, random) = (
            if depth == "inlined" { ", inlined" } else { "" },
            if order == "random" { ", random order" } else { "" },
        );
        let title = format!("switch, {} tasks{inlined}{random}", grouped(tasks));
        Work::new(Ask::Switch { depth, order }, tasks, &[("ns", title, Unit::Nanoseconds)])
    }

    pub(crate) fn ring(tasks: usize, depth: &'static str) -> Work {
        let title = match tasks {
            2 => "channel, ping-pong".to_owned(),
            tasks => format!("channel, ring of {}", grouped(tasks)),
        };
        let title = if depth == "inlined" { format!("{title}, inlined") } else { title };
        Work::new(Ask::Ring { depth }, tasks, &[("ns", title, Unit::Nanoseconds)])
    }

    pub(crate) fn idle(tasks: usize) -> Work {
        let of = grouped(tasks);
        Work::new(
            Ask::Idle,
            tasks,
            &[
                ("memory", format!("a waiting task's memory, {of} tasks"), Unit::Bytes),
                ("make", format!("make one until it waits, {of} tasks"), Unit::Nanoseconds),
                ("end", format!("wake and end one, {of} tasks"), Unit::Nanoseconds),
            ],
        )
    }

    pub(crate) fn sleeps(tasks: usize) -> Work {
        let title = format!("{} tasks sleep ten times, processor time", grouped(tasks));
        Work::new(Ask::Sleeps, tasks, &[("cpu_ms", title, Unit::Milliseconds)])
    }

    pub(crate) fn timeouts() -> Work {
        let title = "set and cancel a timeout".to_owned();
        Work::new(Ask::Timeouts, 1, &[("ns", title, Unit::Nanoseconds)])
    }

    pub(crate) fn echo(connections: usize) -> Work {
        let of = grouped(connections);
        Work::new(
            Ask::Echo,
            connections,
            &[
                ("rate", format!("echo, {of} connections"), Unit::PerSecond),
                (
                    "cpu",
                    format!("echo, {of} connections, processor time a request"),
                    Unit::Nanoseconds,
                ),
            ],
        )
    }

    pub(crate) fn mail() -> Work {
        let title = "20,000 mails, processor time".to_owned();
        Work::new(Ask::Mail, 1_000, &[("cpu_ms", title, Unit::Milliseconds)])
    }

    /// All works of the table.
    pub(crate) fn all(quick: bool) -> Vec<Work> {
        let mut all = vec![Work::spawn()];
        all.extend([2, 100, 1_000, 10_000, 100_000].map(|n| Work::switch(n, "deep", "creation")));
        all.push(Work::switch(1_000, "inlined", "creation"));
        all.extend([Work::ring(2, "deep"), Work::ring(1_000, "deep"), Work::idle(10_000)]);
        if !quick {
            all.extend([Work::idle(100_000), Work::idle(1_000_000)]);
        }
        all.extend([Work::sleeps(if quick { 10_000 } else { 100_000 }), Work::timeouts()]);
        all.extend([50, 1_000, 10_000].map(Work::echo));
        all.push(Work::mail());
        all
    }

    /// Its name, for `--only`.
    pub(crate) fn name(&self) -> String {
        match self.ask {
            Ask::Spawn => "spawn".to_owned(),
            Ask::Switch { depth, order } => format!("switch/{depth}/{order}/{}", self.tasks),
            Ask::Ring { depth } => format!("ring/{depth}/{}", self.tasks),
            Ask::Idle => format!("idle/{}", self.tasks),
            Ask::Sleeps => format!("sleeps/{}", self.tasks),
            Ask::Timeouts => "timeouts".to_owned(),
            Ask::Echo => format!("echo/{}", self.tasks),
            Ask::Mail => "mail".to_owned(),
        }
    }

    /// What a peer's program is asked for.
    pub(crate) fn words(&self, peer: &Peer, quick: bool) -> Vec<String> {
        let count = COUNT / peer.slowness / if quick { 10 } else { 1 };
        let tasks = self.tasks.to_string();
        match self.ask {
            Ask::Spawn => vec!["spawn".into(), (count / 2).to_string()],
            Ask::Switch { depth, order } => {
                let rounds = (count / self.tasks as u64).max(3).to_string();
                vec!["switch".into(), tasks, rounds, depth.into(), order.into()]
            }
            Ask::Ring { depth } => {
                vec!["ring".into(), tasks, (count / 2).to_string(), depth.into()]
            }
            Ask::Idle => vec!["idle".into(), tasks],
            Ask::Sleeps => vec!["sleeps".into(), tasks],
            Ask::Timeouts => vec!["timeouts".into(), (count / 2).to_string()],
            Ask::Echo | Ask::Mail => vec!["echo".into()],
        }
    }
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
