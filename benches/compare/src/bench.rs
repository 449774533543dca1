//! Rounds of runs: all programs in turn, and again, so that whatever changes on the machine meets all of them.

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    echo,
    mail::{Mail, Sender},
    peers::{PEERS, Places, Program},
    results::{Cell, Figures},
    run::{self, Answers},
    work::{Ask, Work},
};

/// All that can be run here.
pub(crate) struct Bench {
    programs: Vec<Program>,
    mail: Result<Mail, String>,
    quick: bool,
    progress: ProgressBar,
    /// How far apart the two processors were in each run of an echo, in nanoseconds.
    pub(crate) distances: Vec<f64>,
}

impl Bench {
    /// Builds the peers that are `wanted`, and says which are skipped and why.
    pub(crate) fn prepare(
        places: &Places,
        wanted: impl Fn(&str) -> bool,
        with_mail: bool,
        quick: bool,
    ) -> Bench {
        let progress = ProgressBar::no_length().with_style(
            ProgressStyle::with_template("{spinner} [{elapsed_precise}] {pos}/{len} {msg}")
                .expect("the template is right"),
        );
        let mut programs = Vec::new();
        // pila is what the others are compared with.
        for peer in PEERS.iter().filter(|peer| peer.name == "pila" || wanted(peer.name)) {
            progress.set_message(format!("building {}", peer.name));
            progress.tick();
            match peer.build(places) {
                Ok(program) => programs.push(program),
                Err(why) => progress.suspend(|| eprintln!("{}: skipped: {why}", peer.name)),
            }
        }
        let mail = if with_mail {
            progress.set_message("building the example `stackless`");
            Mail::prepare(places, quick)
        } else {
            Err("not asked for".to_owned())
        };
        if let (Err(why), true) = (&mail, with_mail) {
            progress.suspend(|| eprintln!("mail: skipped: {why}"));
        }
        Bench { programs, mail, quick, progress, distances: Vec::new() }
    }

    pub(crate) fn expect_runs(&self, runs: usize) {
        self.progress.set_length(runs as u64);
    }

    pub(crate) fn finish(&self) {
        self.progress.finish_and_clear();
    }

    /// Those of these names that could be built, pila first.
    pub(crate) fn names(&self) -> Vec<String> {
        self.programs.iter().map(|program| program.peer.name.to_owned()).collect()
    }

    /// Has all of these programs do a work, round after round, and gives a filled row for each of its metrics.
    pub(crate) fn measure(&mut self, work: &Work, names: &[&str], rounds: usize) -> Vec<Figures> {
        let names: Vec<&str> = match work.ask {
            Ask::Mail => vec!["pila", "smtp-source"],
            _ => names.to_vec(),
        };
        let mut outcomes: Vec<Vec<Result<Answers, String>>> = vec![Vec::new(); names.len()];
        for round in 0..rounds {
            for (name, outcomes) in names.iter().zip(&mut outcomes) {
                self.progress.set_message(format!("{}: {name}, round {}", work.name(), round + 1));
                self.progress.tick();
                // What it cannot do once it cannot do twice.
                let outcome = match outcomes.first() {
                    Some(Err(why)) => Err(why.clone()),
                    _ => self.once(work, name),
                };
                self.progress.inc(1);
                outcomes.push(outcome);
            }
        }
        let row = |row: &crate::work::Row| Figures {
            row: row.clone(),
            cells: names
                .iter()
                .zip(&outcomes)
                .map(|(name, all)| cell(name, all, row.metric))
                .collect(),
        };
        work.rows.iter().map(row).collect()
    }

    fn once(&mut self, work: &Work, name: &str) -> Result<Answers, String> {
        if work.ask == Ask::Mail {
            let sender = if name == "pila" { Sender::Pila } else { Sender::SmtpSource };
            return self.mail.as_ref().map_err(Clone::clone)?.once(sender);
        }
        let program = self.programs.iter().find(|program| program.peer.name == name);
        let program = program.ok_or("not built")?;
        if work.ask != Ask::Echo {
            return run::once(program, work, self.quick);
        }
        let answers = echo::once(program, work, self.quick)?;
        let distance = answers["distance"];
        self.distances.push(distance);
        self.progress.suspend(|| {
            let rate = answers["rate"];
            eprintln!("{}: {name}: {rate:.0}/s, cache line {distance:.0} ns", work.name());
        });
        Ok(answers)
    }
}

fn cell(name: &str, outcomes: &[Result<Answers, String>], metric: &str) -> Cell {
    let figure = |outcome: &Result<Answers, String>| outcome.as_ref().ok()?.get(metric).copied();
    Cell {
        program: name.to_owned(),
        is_floor: PEERS.iter().any(|peer| peer.name == name && peer.is_floor),
        figures: outcomes.iter().map(figure).collect(),
        why_not: outcomes.iter().find_map(|outcome| outcome.clone().err()),
    }
}
