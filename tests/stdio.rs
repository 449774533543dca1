//! The standard streams of a process, from which and to which only the tasklet waits.

#![cfg(target_os = "linux")]

use std::{
    cell::Cell,
    env,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    os::fd::AsFd,
    process::{Command, Stdio},
    time::Duration,
};

use pila::process::{stdin, stdout};
use rustix::fs::OFlags;
use system::{PATIENCE, Process, until};

mod system;

const ROLE: &str = "PILA_TEST_ROLE";

/// This test, to be run again in a process of its own.
fn again(name: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture"]).env(ROLE, "child");
    command
}

fn is_child() -> bool {
    env::var_os(ROLE).is_some()
}

/// What the child does: gives lines back, and says "others run" as soon as it waits for the next one.
fn answer_lines() {
    let (asks, has_ended) = (Cell::new(false), Cell::new(false));
    pila::scope(|s| {
        s.tasklet(|| {
            while !has_ended.get() {
                pila::sleep(Duration::from_millis(1));
                if asks.replace(false) {
                    stdout().write_all(b"others run\n").unwrap();
                }
            }
        });
        let mut input = BufReader::new(stdin());
        loop {
            let mut line = String::new();
            asks.set(true);
            if input.read_line(&mut line).unwrap() == 0 {
                break;
            }
            stdout().write_all(format!("you said {line}").as_bytes()).unwrap();
        }
        has_ended.set(true);
    });
}

fn is_nonblocking(descriptor: impl AsFd) -> bool {
    rustix::fs::fcntl_getfl(descriptor).unwrap().contains(OFlags::NONBLOCK)
}

/// Talks to a child that answers lines, and looks again and again whether what it shares with us is as it was.
fn converse(mut to_child: impl Write, from_child: impl Read, shared: impl AsFd) {
    let lines = BufReader::new(from_child).lines().map(|line| line.unwrap().trim_end().to_string());
    // Without what the harness says first, and what a terminal shows of what is typed.
    let mut lines = lines.filter(|line| line == "others run" || line.starts_with("you said "));
    for word in ["one", "two", "three"] {
        assert_eq!(lines.next().unwrap(), "others run");
        assert!(!is_nonblocking(&shared));
        writeln!(to_child, "{word}").unwrap();
        assert_eq!(lines.next().unwrap(), format!("you said {word}"));
    }
}

#[test]
fn others_run_while_a_tasklet_waits_for_a_pipe() {
    if is_child() {
        return answer_lines();
    }
    let ((input, ours), (output, theirs)) = (io::pipe().unwrap(), io::pipe().unwrap());
    let same_input = input.try_clone().unwrap();
    let mut command = again("others_run_while_a_tasklet_waits_for_a_pipe");
    let _child = Process::start(command.stdin(input).stdout(theirs));
    drop(command);
    converse(ours, output, same_input);
}

#[test]
fn others_run_while_a_tasklet_waits_for_a_terminal() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    if is_child() {
        return answer_lines();
    }
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let user = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let same_terminal = user.try_clone().unwrap();
    let mut command = again("others_run_while_a_tasklet_waits_for_a_terminal");
    let _child = Process::start(command.stdin(user.try_clone().unwrap()).stdout(user));
    drop(command);
    let ours = File::from(ours);
    converse(&ours, &ours, same_terminal);
}

/// More than any pipe holds.
const FLOOD: usize = 1 << 20;

#[test]
fn others_run_while_a_tasklet_waits_for_room() {
    if is_child() {
        let writer = pila::tasklet(|| stdout().write_all(&vec![b'x'; FLOOD]));
        pila::sleep(Duration::from_millis(50));
        assert!(writer.is_blocked());
        // Only now does anyone read.
        io::stderr().write_all(b"still here\n").unwrap();
        writer.join().unwrap().unwrap();
        return;
    }
    let mut command = again("others_run_while_a_tasklet_waits_for_room");
    let (mut output, theirs) = io::pipe().unwrap();
    let same_output = theirs.try_clone().unwrap();
    let mut child = Process::start(command.stdout(theirs).stderr(Stdio::piped()));
    drop(command);
    let mut said = String::new();
    let mut errors = BufReader::new(child.0.stderr.take().unwrap());
    errors.read_line(&mut said).unwrap();
    assert_eq!(said, "still here\n");
    assert!(!is_nonblocking(&same_output));
    drop(same_output);
    let mut flood = Vec::new();
    output.read_to_end(&mut flood).unwrap();
    assert_eq!(flood.iter().filter(|&&byte| byte == b'x').count(), FLOOD);
    assert!(until("the child's end", PATIENCE, || child.0.try_wait().unwrap()).success());
}

#[test]
fn a_file_is_read_to_its_end() {
    if is_child() {
        let mut text = String::new();
        stdin().read_to_string(&mut text).unwrap();
        assert_eq!(text, include_str!("stdio.rs"));
        return;
    }
    let mut command = again("a_file_is_read_to_its_end");
    let file = File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stdio.rs")).unwrap();
    assert!(command.stdin(file).output().unwrap().status.success());
}

#[test]
fn a_kill_ends_the_wait_and_takes_nothing() {
    if is_child() {
        let first = pila::tasklet(|| stdin().read(&mut [0; 16]));
        pila::sleep(Duration::from_millis(1));
        first.kill().unwrap();
        let second = pila::tasklet(|| {
            let mut line = String::new();
            BufReader::new(stdin()).read_line(&mut line).map(|_| line)
        });
        pila::sleep(Duration::from_millis(1));
        io::stderr().write_all(b"go\n").unwrap();
        assert_eq!(second.join().unwrap().unwrap(), "whole\n");
        return;
    }
    let mut command = again("a_kill_ends_the_wait_and_takes_nothing");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = Process::start(&mut command);
    let mut said = String::new();
    BufReader::new(child.0.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "go\n");
    child.0.stdin.take().unwrap().write_all(b"whole\n").unwrap();
    assert!(until("the child's end", PATIENCE, || child.0.try_wait().unwrap()).success());
}
