//! Storms: signals that interrupt what waits, a process that is stopped and continued, descriptors that come and go.
//!
//! Each runs its test a second time, as a process of its own.

use std::{
    env,
    fs::File,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::{
    pthread::{pthread_kill, pthread_self},
    signal::{Signal, kill},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{
    LIMIT, MAILS, Mailing,
    random::{Random, Seed},
    send_mails,
    system::{Process, alone, bounded, finish, stackless, tell},
    wire::pause,
};

/// Tells the second run of a test that it is one.
const OWN_PROCESS: &str = "PILA_TEST_OWN_PROCESS";

/// Runs the test `name` of this file as a process of its own; false if this is that process.
fn runs_elsewhere(name: &str) -> bool {
    if env::var_os(OWN_PROCESS).is_some() {
        return false;
    }
    let _alone = alone();
    let mut command = Command::new(env::current_exe().unwrap());
    let name = format!("storm::{name}");
    command.args([&name, "--exact", "--nocapture", "--test-threads=1"]).env(OWN_PROCESS, "1");
    let outcome = finish(&mut command, LIMIT);
    assert_eq!(outcome.status, Some(0), "{}\n{}", outcome.stdout, outcome.stderr);
    outcome.stderr.lines().for_each(tell);
    true
}

fn assert_all_sent(mailing: &Mailing) {
    assert_eq!(mailing.sent, MAILS as usize);
    let report = &mailing.report;
    let counts = (report.once, report.missing, report.doubled, report.damaged);
    assert_eq!(counts, (MAILS as usize, 0, 0, 0));
}

#[test]
fn signals_interrupt_no_mail() {
    let _alone = alone();
    let came = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(Signal::SIGALRM as i32, came.clone()).unwrap();
    let mailing = bounded(LIMIT, || {
        let (sent, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (theirs, is_over) = (sent.clone(), over.clone());
        let victim = pthread_self();
        let storm = thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                pthread_kill(victim, Signal::SIGALRM).unwrap();
                theirs.fetch_add(1, Ordering::Relaxed);
                pause(Duration::from_micros(30));
            }
        });
        let mailing = send_mails(20, LIMIT, |server| server);
        // What only sleeps does so for as long as it should.
        let start = Instant::now();
        pila::sleep(Duration::from_millis(200));
        assert!(start.elapsed() >= Duration::from_millis(200));
        over.store(true, Ordering::Relaxed);
        storm.join().unwrap();
        tell(&format!("{} signals", sent.load(Ordering::Relaxed)));
        mailing
    });
    assert_all_sent(&mailing);
    assert!(came.load(Ordering::Relaxed));
}

#[test]
fn being_stopped_and_continued_loses_no_mail() {
    let _alone = alone();
    let mails = MAILS.to_string();
    let mut command = stackless(["--mails", &mails, "--delay", "300ms", "--at-once", "100"]);
    let mut process = Process::start(command.stdout(std::process::Stdio::piped()));
    let pid = nix::unistd::Pid::from_raw(process.0.id() as i32);
    let random = Random::new(Seed::new().0);
    let status = loop {
        if let Some(status) = process.0.try_wait().unwrap() {
            break status;
        }
        // It may have ended meanwhile.
        for signal in [Signal::SIGSTOP, Signal::SIGCONT] {
            let _ = kill(pid, signal);
            pause(random.time(Duration::from_millis(2)));
        }
    };
    let mut output = String::new();
    let mut pipe = process.0.stdout.take().unwrap();
    std::io::Read::read_to_string(&mut pipe, &mut output).unwrap();
    assert!(status.success(), "{output}");
    assert!(output.contains(&format!("sent {MAILS} of {MAILS} mails")), "{output}");
}

#[test]
fn descriptors_that_come_and_go_lose_no_mail() {
    if runs_elsewhere("descriptors_that_come_and_go_lose_no_mail") {
        return;
    }
    let few = Rlimit { current: Some(64), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, few).unwrap();
    let (times, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (theirs, is_over) = (times.clone(), over.clone());
    let seed = Seed::new();
    let random = Random::new(seed.0);
    let thief = thread::spawn(move || {
        while !is_over.load(Ordering::Relaxed) {
            let all: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
            theirs.fetch_add(usize::from(!all.is_empty()), Ordering::Relaxed);
            pause(random.time(Duration::from_millis(10)));
            drop(all);
            pause(random.time(Duration::from_millis(10)));
        }
    });
    while times.load(Ordering::Relaxed) < 30 {
        // Far more at once than there are descriptors for, at both ends.
        assert_all_sent(&send_mails(100, LIMIT, |server| server));
    }
    over.store(true, Ordering::Relaxed);
    thief.join().unwrap();
}
