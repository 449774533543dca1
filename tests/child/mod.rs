//! A test that runs itself once more as a process of its own: what it prints, the signals it is sent, how it ends.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::system::{PATIENCE, Process, Stopwatch, until};

/// Tells a second run of a test that it is the child, and of which kind.
const ROLE: &str = "PILA_TEST_ROLE";

/// What this process is to be, if it is a child of a test.
pub(crate) fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// Prints a line for the parent, which waits for it.
pub(crate) fn say(line: &str) {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).expect("the parent reads it");
}

/// A process that a test started, killed when the test is done with it.
pub(crate) struct Child {
    process: Process,
    lines: Receiver<String>,
    errors: thread::JoinHandle<String>,
}

/// How a child ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) status: ExitStatus,
    /// The lines that nobody asked for before, and stderr.
    pub(crate) lines: Vec<String>,
    pub(crate) errors: String,
    /// How long it took from the call of `end` on, less what the caller stood in line for a processor.
    pub(crate) took: Duration,
}

impl Child {
    /// Runs the test `name` of this file as `role`.
    pub(crate) fn of(name: &str, role: &str) -> Child {
        // What a shell starts with `&` ignores Ctrl-C, and so would its children.
        let mut command = Command::new("env");
        command.arg("--default-signal=INT").arg(env::current_exe().expect("a test knows its path"));
        command.args([name, "--exact", "--nocapture"]).env(ROLE, role);
        let child = Child::start(&mut command);
        // What the harness says before it begins.
        assert_eq!((child.line(), child.line()), (String::new(), "running 1 test".to_owned()));
        child
    }

    pub(crate) fn start(command: &mut Command) -> Child {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::start(command);
        let stdout = BufReader::new(process.0.stdout.take().expect("it is a pipe"));
        let mut stderr = process.0.stderr.take().expect("it is a pipe");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let errors = thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).expect("errors are UTF-8");
            text
        });
        Child { process, lines, errors }
    }

    /// The next line that it prints.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line within two minutes")
    }

    #[track_caller]
    pub(crate) fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process.0), signal).expect("it runs");
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.0.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(mut self, limit: Duration) -> End {
        let begun = Stopwatch::start();
        let status = until("a child that ends", limit, || self.process.0.try_wait().unwrap());
        let took = begun.elapsed();
        let lines = self.lines.iter().collect();
        End { status, lines, errors: self.errors.join().unwrap(), took }
    }
}
