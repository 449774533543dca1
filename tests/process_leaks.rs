//! What is left of child processes when nobody needs them any more: no descriptor and no zombie.
//!
//! One test, for it counts what the whole process has.

use std::{
    fs,
    io::{Read, Write},
    process,
    time::{Duration, Instant},
};

use pila::process::{Command, Role, StartError, Stdio};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Has the worker run this file's one test, which begins with the declaration.
fn role() -> Role<u64, u64> {
    let handle = |number| match number {
        0 => process::abort(),
        1 => {
            pila::sleep(Duration::from_secs(1000));
            1
        }
        number => 2 * number,
    };
    Role::declare("test", handle).args(["--nocapture", "--test-threads=1", "-q"])
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The children of this process, those included that have ended and that nobody has asked for.
fn children() -> Vec<String> {
    let own = process::id().to_string();
    let stats = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let stat = fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
        let parent = stat.rsplit(") ").next()?.split(' ').nth(1)?.to_string();
        (parent == own).then_some(stat)
    });
    stats.collect()
}

fn run_commands() {
    let tasklets: Vec<_> = (0..20)
        .map(|number| {
            pila::tasklet(move || {
                assert_eq!(Command::new("echo").arg("x").output().unwrap().stdout, b"x\n");
                assert!(Command::new("true").status().unwrap().success());
                let mut cat = Command::new("cat");
                let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
                cat.stdin.as_mut().unwrap().write_all(b"y").unwrap();
                // Some are waited for in vain first, some to their ends, some are killed.
                if number % 3 == 0 {
                    let mut out = cat.stdout.take().unwrap();
                    assert!(
                        pila::timeout(Duration::from_millis(5), || out
                            .read_to_end(&mut Vec::new()))
                        .is_err()
                    );
                    cat.kill().unwrap();
                }
                cat.wait().unwrap();
            })
        })
        .collect();
    tasklets.into_iter().for_each(|tasklet| tasklet.join().unwrap());
}

fn run_workers() {
    let joined = role().start().unwrap();
    assert_eq!(joined.call(21).unwrap(), 42);
    joined.join().unwrap();

    let dropped = role().start().unwrap();
    assert!(pila::timeout(Duration::from_millis(5), || dropped.call(1)).is_err());
    drop(dropped);

    let dead = role().start().unwrap();
    dead.call(0).unwrap_err();

    let pool = role().pool(3).unwrap();
    for number in [0, 2, 0, 3] {
        assert_eq!(pool.call(number).is_err(), number == 0);
    }
    drop(pool);

    // It may be quicker than that.
    let late = role().start_timeout(Duration::ZERO).start();
    assert!(matches!(late, Ok(_) | Err(StartError::Silent { .. })), "{late:?}");
}

/// With no descriptor left a child is waited for all the same.
fn wait_without_descriptors() {
    let mut child = Command::new("sh").args(["-c", "sleep 0.05; exit 5"]).spawn().unwrap();
    let limits = getrlimit(Resource::Nofile);
    // The next one would get this number.
    let next = std::os::fd::AsRawFd::as_raw_fd(&fs::File::open("/dev/null").unwrap());
    setrlimit(Resource::Nofile, Rlimit { current: Some(next as u64), ..limits }).unwrap();
    assert!(fs::File::open("/dev/null").is_err());
    let status = child.wait();
    let worker = role().start();
    setrlimit(Resource::Nofile, limits).unwrap();
    assert_eq!(status.unwrap().code(), Some(5));
    assert!(matches!(worker, Err(StartError::Spawn(_))), "{worker:?}");
}

#[test]
fn nothing_is_left_of_processes_that_are_done_with() {
    role();
    // What is there for good: the thread's poller.
    run_commands();
    let before = descriptors();
    for _ in 0..3 {
        run_commands();
        run_workers();
        wait_without_descriptors();
    }
    // Those that were dropped may be ending.
    let start = Instant::now();
    while !children().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", children());
        pila::sleep(Duration::from_millis(1));
    }
    assert_eq!(descriptors(), before);
}
