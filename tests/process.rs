//! Child processes: std's behaviours, and only the tasklet waits.

use std::{
    cell::Cell,
    fs,
    io::{ErrorKind, Read, Write},
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use net_support::{again_portably, bounded};
use pila::process::{Child, ChildStdout, Command, Stdio};

mod net_support;

/// What `$body` gives with either module's types.
macro_rules! on_both {
    ($result:ty, $body:block) => {{
        mod with_std {
            #[allow(unused_imports, reason = "not every body uses what is around it")]
            use super::*;
            use std::process::{Command, Stdio};
            pub(super) fn outcome() -> $result $body
        }
        mod with_pila {
            #[allow(unused_imports, reason = "not every body uses what is around it")]
            use super::*;
            use pila::process::{Command, Stdio};
            pub(super) fn outcome() -> $result $body
        }
        (bounded(with_std::outcome), bounded(with_pila::outcome))
    }};
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// One that sleeps for longer than any test takes.
fn sleeper() -> Child {
    Command::new("sleep").arg("1000").spawn().unwrap()
}

#[test]
fn statuses_and_errors_are_stds() {
    let (std, pila) = on_both!(Vec<String>, {
        let sh = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stderr(Stdio::null());
            command
        };
        let mut outcome = vec![
            format!("{:?}", sh("exit 0").status()),
            format!("{:?}", sh("exit 77").status()),
            format!("{:?}", sh("kill -9 $$").status()),
            format!("{:?}", Command::new("/nowhere/at/all").status()),
            format!("{:?}", Command::new("/etc/passwd").status().map_err(|error| error.kind())),
            format!("{:?}", Command::new("true").current_dir("/nowhere").status()),
        ];
        let mut child = sh("exec sleep 1000").spawn().unwrap();
        outcome.push(format!("{:?}", child.try_wait()));
        outcome.push(format!("{:?}", child.kill()));
        outcome.push(format!("{:?}", child.wait()));
        outcome.push(format!("{:?}", child.wait()));
        outcome.push(format!("{:?}", child.try_wait()));
        outcome.push(format!("{:?}", child.kill()));
        outcome
    });
    assert_eq!(std, pila);
}

#[test]
fn pipes_are_stds() {
    let (std, pila) = on_both!(Vec<String>, {
        let sh = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let mut outcome = vec![
            // Nothing to read, and both outputs captured.
            format!("{:?}", sh("cat; echo out; echo err >&2").output()),
            format!("{:?}", sh("echo out; echo err >&2").stderr(Stdio::null()).output()),
            format!("{:?}", sh("echo out").stdout(Stdio::null()).output()),
            format!("{:?}", sh("echo $A $B").env("A", "1").env_remove("B").output()),
            format!("{:?}", Command::new("pwd").current_dir("/tmp").output()),
        ];
        let mut cat = sh("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        outcome.push(format!(
            "{:?}",
            [cat.stdin.is_some(), cat.stdout.is_some(), cat.stderr.is_some()]
        ));
        cat.stdin.as_mut().unwrap().write_all(b"through").unwrap();
        outcome.push(format!("{:?}", cat.stdin.as_mut().unwrap().write(&[])));
        // It closes the standard input, or cat would not end.
        outcome.push(format!("{:?}", cat.wait()));
        let mut text = String::new();
        outcome.push(format!("{:?}", cat.stdout.as_mut().unwrap().read_to_string(&mut text)));
        outcome.push(text);
        let mut deaf = sh("exec <&-; echo; exec sleep 1000");
        let mut deaf = deaf.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        deaf.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let mut written = deaf.stdin.as_mut().unwrap().write(b"x");
        // A child that another test is about to start has the other end too, for a moment.
        for _ in 0..1000 {
            if written.is_err() {
                break;
            }
            pila::sleep(Duration::from_millis(5));
            written = deaf.stdin.as_mut().unwrap().write(b"x");
        }
        outcome.push(format!("{:?}", written.map_err(|error| error.to_string())));
        deaf.kill().unwrap();
        outcome.push(format!("{:?}", deaf.wait_with_output()));
        // Standard output is chosen for `output` alone: now it is the parent's, so nothing is there to read.
        let mut again = sh("true");
        again.output().unwrap();
        let mut again = again.spawn().unwrap();
        outcome.push(format!("{:?} {:?}", again.stdout.is_none(), again.wait()));
        outcome
    });
    assert_eq!(std, pila);
}

#[test]
fn output_captures_both_streams_whatever_fills_first() {
    let output = bounded(|| {
        let script = "head -c 1000000 /dev/zero >&2; head -c 3000000 /dev/zero; printf x >&2";
        shell(script).output().unwrap()
    });
    assert_eq!((output.stdout.len(), output.stderr.len()), (3_000_000, 1_000_001));
    assert!(output.status.success());
}

#[test]
fn only_the_tasklet_waits() {
    bounded(|| {
        let ticks = Rc::new(Cell::new(0));
        let theirs = ticks.clone();
        let ticker = pila::tasklet(move || {
            loop {
                pila::sleep(Duration::from_millis(1));
                theirs.set(theirs.get() + 1);
            }
        });
        let start = Instant::now();
        let naps: Vec<_> = (0..30)
            .map(|_| pila::tasklet(|| shell("sleep 1; echo awake").output().unwrap()))
            .collect();
        for nap in naps {
            assert_eq!(nap.join().unwrap().stdout, b"awake\n");
        }
        assert!(start.elapsed() < Duration::from_secs(20), "one after the other take 30 s");
        assert!(ticks.get() > 30, "{} ticks, no more than between one and the next", ticks.get());
        ticker.kill().unwrap();
    });
}

#[test]
fn an_end_is_seen_at_once() {
    bounded(|| {
        let mut child = sleeper();
        let pid = child.id();
        let killer = thread::spawn(move || {
            thread::yield_now();
            let killed = Instant::now();
            let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            killed
        });
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        let seen = Instant::now();
        assert!(seen - killer.join().unwrap() < Duration::from_millis(500));
    });
}

#[test]
fn killed_and_late_waiters_leave_the_child_to_be_waited_for_again() {
    bounded(|| {
        let child = Rc::new(std::cell::RefCell::new(sleeper()));
        let theirs = child.clone();
        let waiter = pila::tasklet(move || theirs.borrow_mut().wait());
        pila::schedule();
        assert!(waiter.is_blocked());
        waiter.kill().unwrap();

        let late = pila::timeout(Duration::from_millis(5), || child.borrow_mut().wait());
        assert!(late.is_err());
        assert_eq!(child.borrow_mut().try_wait().unwrap(), None);
        child.borrow_mut().kill().unwrap();
        assert_eq!(child.borrow_mut().wait().unwrap().signal(), Some(9));
    });
}

#[test]
fn a_killed_reader_loses_nothing() {
    bounded(|| {
        let mut child = shell("read line; echo $line")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = Rc::new(std::cell::RefCell::new(child.stdout.take().unwrap()));
        let theirs = stdout.clone();
        let reader = pila::tasklet(move || theirs.borrow_mut().read(&mut [0; 64]));
        pila::schedule();
        reader.kill().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"still here\n").unwrap();
        let mut text = String::new();
        stdout.borrow_mut().read_to_string(&mut text).unwrap();
        assert_eq!(text, "still here\n");
        child.wait().unwrap();
    });
}

#[test]
fn a_child_that_does_not_read_parks_its_writer() {
    bounded(|| {
        let mut child = shell("read go < /dev/stderr; exec wc -c");
        let (go_out, mut go_in) = std::io::pipe().unwrap();
        let mut child = child
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(OwnedFd::from(go_out)))
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = pila::tasklet(move || stdin.write_all(&vec![7; 1 << 20]));
        pila::sleep(Duration::from_millis(20));
        assert!(writer.is_blocked());
        go_in.write_all(b"\n").unwrap();
        writer.join().unwrap().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.stdout.trim_ascii(), b"1048576");
    });
}

#[test]
fn a_pipe_given_to_another_child_blocks_again() {
    bounded(|| {
        let mut slow = shell("sleep 0.1; echo late").stdout(Stdio::piped()).spawn().unwrap();
        let stdout = slow.stdout.take().unwrap();
        // A nonblocking standard input makes cat complain.
        let cat = Command::new("cat").stdin(stdout).output().unwrap();
        assert_eq!((cat.stdout, cat.stderr), (b"late\n".to_vec(), vec![]));
        slow.wait().unwrap();
    });
}

#[test]
fn pipes_go_to_std_and_back() {
    bounded(|| {
        let mut child = shell("sleep 0.05; echo to std; sleep 0.05; echo and back")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut std: std::process::ChildStdout = child.stdout.take().unwrap().into();
        let mut line = [0; 7];
        std.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"to std\n");
        let mut ours = ChildStdout::from(std);
        let mut rest = String::new();
        ours.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "and back\n");
        child.wait().unwrap();
    });
}

#[test]
fn a_child_can_be_waited_for_on_another_thread() {
    bounded(|| {
        let mut child = sleeper();
        let late = pila::timeout(Duration::from_millis(5), || child.wait());
        assert!(late.is_err(), "it is registered here");
        let thread = pila::spawn_thread(move || {
            let late = pila::timeout(Duration::from_millis(5), || child.wait());
            assert!(late.is_err());
            child.kill().unwrap();
            child.wait().unwrap()
        });
        assert_eq!(thread.unwrap().join().unwrap().signal(), Some(9));
    });
}

#[test]
fn what_cannot_be_waited_for_is_not_started() {
    bounded(|| {
        let file = std::env::temp_dir().join(format!("pila-not-started-{}", std::process::id()));
        let guard = pila::no_switch();
        let script = format!("echo > {}", file.display());
        assert_eq!(shell(&script).status().unwrap_err().kind(), ErrorKind::Other);
        assert_eq!(shell(&script).output().unwrap_err().kind(), ErrorKind::Other);
        drop(guard);
        pila::sleep(Duration::from_millis(100));
        assert!(!file.exists());
        shell(&script).status().unwrap();
        fs::remove_file(file).unwrap();
    });
}

#[test]
fn all_this_holds_portably() {
    again_portably();
}
