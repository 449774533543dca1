//! A test again, in a process of its own: for what ends a process, changes it for good, or is printed.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::{
    env,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStderr, Command, Output, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether this is the process that [`again`] or [`Started`] has made.
pub(crate) fn is_child() -> bool {
    env::var_os("PILA_TEST_CHILD").is_some()
}

/// The test `name` of this file, alone in a process of its own.
pub(crate) fn command(name: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--include-ignored"]);
    command
        .env("PILA_TEST_CHILD", "1")
        .env_remove("RUST_BACKTRACE")
        .env_remove("PILA_STALL_MS")
        .env_remove("RUST_TEST_THREADS");
    command
}

/// Runs the test `name` of this file in a process of its own. It must succeed.
#[track_caller]
pub(crate) fn again(name: &str) -> Output {
    let output = command(name).output().unwrap();
    assert!(output.status.success(), "{output:#?}");
    output
}

/// What a process wrote to standard error.
pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A test that runs in a process of its own, and is killed if it still runs in the end.
#[derive(Debug)]
pub(crate) struct Started {
    child: Child,
    lines: Receiver<String>,
    /// What it wrote to standard error so far.
    pub(crate) errors: Vec<String>,
}

impl Started {
    pub(crate) fn new(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = read(child.stderr.take().unwrap());
        // What nobody reads must not fill a pipe.
        let mut output = child.stdout.take().unwrap();
        thread::spawn(move || output.read_to_end(&mut Vec::new()));
        Self { child, lines, errors: Vec::new() }
    }

    pub(crate) fn number(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    /// Waits for a line on standard error that `is_it`.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, is_it: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now()))
            else {
                panic!("no such line: {:#?}", self.errors);
            };
            self.errors.push(line.clone());
            if is_it(&line) {
                return line;
            }
        }
    }

    /// Lets it go on, if it waits for that, and gives all that it wrote to standard error.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Vec<String> {
        drop(self.child.stdin.take());
        let status = self.child.wait().unwrap();
        self.errors.extend(self.lines.iter());
        assert!(status.success(), "{status}: {:#?}", self.errors);
        std::mem::take(&mut self.errors)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn read(pipe: ChildStderr) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        BufReader::new(pipe).lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
    });
    lines
}

/// In the child: says that it is ready, and waits until the parent lets it go on. Blocks the thread.
pub(crate) fn ready() {
    eprintln!("ready");
    std::io::stdin().read_to_end(&mut Vec::new()).ok();
}
