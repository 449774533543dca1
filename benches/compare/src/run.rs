//! One run of a program: on the first processor, until it has answered.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    peers::Program,
    processors::Side,
    work::{Ask, Work},
};

/// What a run gave, by metric.
pub(crate) type Answers = BTreeMap<String, f64>;

/// A run that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a program on the processor that is measured.
pub(crate) fn start(command: &[String], words: &[String]) -> io::Result<Child> {
    let (program, first) = command.split_first().expect("a command is not empty");
    // A child keeps to what its parent was bound to.
    Side::Measured.keep_to();
    let child = Command::new(program)
        .args(first)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    Side::Load.keep_to();
    child
}

/// Has a program do a work, once. The error says why there is no figure.
pub(crate) fn once(program: &Program, work: &Work, quick: bool) -> Result<Answers, String> {
    if work.tasks > program.peer.most_tasks && work.ask != Ask::Echo {
        return Err("too many tasks".to_owned());
    }
    let words = work.words(program.peer, quick);
    let child = start(&program.command, &words).map_err(|error| error.to_string())?;
    let said = finish(child)?;
    let mut answers = parse(&said)?;
    if let (Some(resident), Some(tables)) = (answers.get("resident"), answers.get("page_tables")) {
        answers.insert("memory".to_owned(), resident + tables);
    }
    if let Some(cpu) = answers.get("cpu") {
        answers.insert("cpu_ms".to_owned(), cpu / 1e6);
    }
    Ok(answers)
}

/// Waits for the end of a program, and gives what it said.
fn finish(mut child: Child) -> Result<String, String> {
    let start = Instant::now();
    let (said, complained) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if start.elapsed() > PATIENCE => {
                // It may end this very moment.
                let _ = child.kill();
                let _ = child.wait();
                return Err("took too long".to_owned());
            }
            None => thread::sleep(Duration::from_millis(5)),
        }
    };
    let (said, complained) = (gathered(said), gathered(complained));
    if status.success() {
        return Ok(said);
    }
    let line = complained.lines().find(|line| !line.is_empty()).unwrap_or("no word").to_owned();
    Err(format!("{status}: {line}"))
}

type Reader = thread::JoinHandle<io::Result<String>>;

fn collect(pipe: Option<impl Read + Send + 'static>) -> Reader {
    let mut pipe = pipe.expect("it is piped");
    thread::spawn(move || {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    })
}

fn gathered(reader: Reader) -> String {
    reader.join().expect("it does not panic").unwrap_or_default()
}

/// Lines of a metric and a number.
fn parse(said: &str) -> Result<Answers, String> {
    if said.trim() == "unsupported" {
        return Err("has none".to_owned());
    }
    let answers: Option<Answers> = said
        .lines()
        .map(|line| {
            let (metric, value) = line.split_once(' ')?;
            Some((metric.to_owned(), value.trim().parse().ok()?))
        })
        .collect();
    answers.filter(|answers| !answers.is_empty()).ok_or_else(|| format!("said {said:?}"))
}
