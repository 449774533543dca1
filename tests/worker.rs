//! Workers: typed calls to processes of the same program, and what is left of them when those die.
//!
//! Not under AddressSanitizer: a process of its takes longer to start and to end than is waited for here.

#![cfg(not(feature = "sanitizer"))]

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    env, fs,
    io::{self, BufRead, BufReader, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    path::PathBuf,
    process::{self, Command, Stdio},
    rc::Rc,
    sync::Mutex,
    time::{Duration, Instant},
};

use net_support::{again_portably, bounded};
use pila::process::{CallError, CallReason, Pool, Role, StartError, Worker, WorkerDied};
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, kill_process, pidfd_getfd, pidfd_open,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

mod net_support;

/// Held by the test of whether workers are copies of it.
static LOCK: Mutex<()> = Mutex::new(());

/// What the tests' worker is asked.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
enum Job {
    Double(u64),
    /// Comes back after so many milliseconds.
    Nap(u64),
    /// Writes the number into the file, naps, and comes back with it.
    Note {
        path: PathBuf,
        number: u64,
        nap: u64,
    },
    /// Stops the worker's thread for so many milliseconds.
    Block(u64),
    Bytes(usize),
    Length(Vec<u8>),
    Moody(Moody),
    Panic(String),
    Exit(i32),
    /// Ends the other tasklets of the worker.
    KillOthers,
    /// Says something on the channel.
    Say(Vec<u8>),
    /// Closes the channel, and lives on.
    HangUp,
    /// Takes a lock that the test holds in its own process.
    Lock,
    /// Dies, and leaves the channel to another process.
    DieWithHeir,
    /// Runs this program again, as it is run by a user.
    RunProgram,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
enum Answer {
    Number(u64),
    Bytes(Vec<u8>),
    Moody(Moody),
}

/// A number that cannot be written when it is 7, and not be read when it is 13.
#[derive(Clone, PartialEq, Debug)]
struct Moody(u32);

impl Serialize for Moody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            7 => Err(ser::Error::custom("not a 7")),
            number => number.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Moody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            13 => Err(de::Error::custom("not a 13")),
            number => Ok(Self(number)),
        }
    }
}

/// The worker's end of the channel, dug out from behind its back.
fn channel() -> UnixStream {
    let own =
        pidfd_open(Pid::from_raw(process::id() as i32).unwrap(), PidfdFlags::empty()).unwrap();
    let sockets = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| {
        let path = entry.ok()?.path();
        let is_socket = fs::read_link(&path).ok()?.to_str()?.starts_with("socket:");
        is_socket.then(|| path.file_name()?.to_str()?.parse::<i32>().ok()).flatten()
    });
    let number = sockets.min().unwrap();
    UnixStream::from(pidfd_getfd(own, number, PidfdGetfdFlags::empty()).unwrap())
}

fn handle(job: Job) -> Answer {
    match job {
        Job::Double(number) => return Answer::Number(2 * number),
        Job::Nap(time) => {
            pila::sleep(Duration::from_millis(time));
            return Answer::Number(time);
        }
        Job::Note { path, number, nap } => {
            let mut file = fs::File::options().append(true).create(true).open(path).unwrap();
            file.write_all(format!("{number}\n").as_bytes()).unwrap();
            pila::sleep(Duration::from_millis(nap));
            return Answer::Number(number);
        }
        #[allow(clippy::disallowed_methods, reason = "it is what a worker should not do")]
        Job::Block(time) => std::thread::sleep(Duration::from_millis(time)),
        Job::Bytes(count) => return Answer::Bytes(vec![7; count]),
        Job::Length(bytes) => return Answer::Number(bytes.len() as u64),
        Job::Moody(moody) => return Answer::Moody(Moody(moody.0 + 1)),
        Job::Panic(message) => panic!("{message}"),
        Job::Exit(status) => process::exit(status),
        Job::Lock => drop(LOCK.lock().unwrap()),
        Job::KillOthers => return Answer::Number(pila::kill_all().len() as u64),
        Job::Say(bytes) => channel().write_all(&bytes).unwrap(),
        Job::HangUp => {
            channel().shutdown(Shutdown::Both).unwrap();
            return handle(Job::Block(1_000_000));
        }
        Job::DieWithHeir => {
            let channel = Stdio::from(OwnedFd::from(channel()));
            Command::new("sleep").arg("3").stdin(channel).spawn().unwrap();
            process::abort()
        }
        Job::RunProgram => {
            let mut program = Command::new(env::current_exe().unwrap());
            let status = program.args(IN_A_TEST).stdout(Stdio::null()).status().unwrap();
            return Answer::Number(status.code().unwrap() as u64);
        }
    }
    Answer::Number(0)
}

/// Has the worker come to the declaration, and to nothing else of this file.
const IN_A_TEST: [&str; 5] = ["--exact", "the_worker", "--nocapture", "--test-threads=1", "-q"];

fn role() -> Role<Job, Answer> {
    Role::declare("test", handle).args(IN_A_TEST)
}

#[test]
fn the_worker() {
    role();
}

fn worker() -> Worker<Job, Answer> {
    role().start().unwrap()
}

type Error = CallError<Job>;

fn died(error: &Error) -> &WorkerDied {
    let CallReason::Died(died) = &error.reason else { panic!("{error:?}") };
    died
}

/// Calls in a tasklet of its own.
fn begin(worker: &Worker<Job, Answer>, job: Job) -> pila::Tasklet<Result<Answer, Error>> {
    let worker = worker.clone();
    pila::tasklet(move || worker.call(job))
}

fn signal(id: u32, signal: Signal) {
    kill_process(Pid::from_raw(id as i32).unwrap(), signal).unwrap();
}

/// A file that is removed when the test is done with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(env::temp_dir().join(format!("pila-worker-{name}-{}", process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// Looks every millisecond until it is so.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}: not within 20 s");
        pila::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_call_is_a_call() {
    bounded(|| {
        let worker = worker();
        assert_eq!(worker.call(Job::Double(21)).unwrap(), Answer::Number(42));
        let long = vec![1; 3 << 20];
        assert_eq!(worker.call(Job::Length(long)).unwrap(), Answer::Number(3 << 20));
        assert_eq!(worker.call(Job::Bytes(3 << 20)).unwrap(), Answer::Bytes(vec![7; 3 << 20]));
        assert!(worker.join().unwrap().success());
    });
}

#[test]
fn handlers_that_wait_do_not_hold_each_other_up() {
    bounded(|| {
        let worker = worker();
        let start = Instant::now();
        let slow = begin(&worker, Job::Nap(300));
        let naps: Vec<_> = (0..15).map(|_| begin(&worker, Job::Nap(200))).collect();
        for nap in naps {
            assert_eq!(nap.join().unwrap().unwrap(), Answer::Number(200));
        }
        assert!(slow.is_alive(), "answers come as they are ready");
        slow.join().unwrap().unwrap();
        assert!(start.elapsed() < Duration::from_secs(2), "one after the other take 3.3 s");
    });
}

#[test]
fn a_panic_is_an_answer_and_the_worker_lives_on() {
    bounded(|| {
        let worker = worker();
        let id = worker.id();
        let error = worker.call(Job::Panic("a bad day".into())).unwrap_err();
        assert!(
            matches!(&error.reason, CallReason::Panicked(text) if text == "a bad day"),
            "{error:?}"
        );
        assert_eq!((error.request, error.may_have_run), (Job::Panic("a bad day".into()), true));
        assert_eq!(worker.call(Job::Double(1)).unwrap(), Answer::Number(2));
        assert_eq!(worker.id(), id);
    });
}

#[test]
fn a_handler_that_is_ended_in_the_worker_is_an_answer() {
    bounded(|| {
        let worker = worker();
        let nap = begin(&worker, Job::Nap(1_000_000));
        pila::schedule();
        worker.call(Job::KillOthers).unwrap();
        let error = nap.join().unwrap().unwrap_err();
        assert!(matches!(error.reason, CallReason::Killed), "{error:?}");
        assert_eq!(worker.call(Job::Double(1)).unwrap(), Answer::Number(2));
    });
}

#[test]
fn messages_that_are_too_long_or_make_no_sense_are_errors_of_their_calls() {
    bounded(|| {
        let worker = role().max_message(100_000).start().unwrap();
        let mut reasons = Vec::new();
        let jobs = [
            Job::Length(vec![0; 100_000]),
            Job::Bytes(100_000),
            Job::Moody(Moody(7)),
            Job::Moody(Moody(13)),
            Job::Moody(Moody(6)),
            Job::Moody(Moody(12)),
        ];
        for job in jobs {
            let error = worker.call(job.clone()).unwrap_err();
            assert_eq!(error.request, job);
            reasons.push((format!("{:?}", error.reason), error.may_have_run));
            assert_eq!(worker.call(Job::Double(1)).unwrap(), Answer::Number(2));
        }
        let expected = [
            ("RequestTooLong { length: 100013, limit: 100000 }", false),
            ("ReplyTooLong { length: 100012, limit: 100000 }", true),
            ("Unwritten(\"not a 7\")", false),
            ("Unread(\"not a 13\")", false),
            ("Unreadable(\"not a 7\")", true),
            ("Unreadable(\"not a 13\")", true),
        ];
        let expected = expected.map(|(reason, may_have_run)| (reason.to_string(), may_have_run));
        assert_eq!(reasons, expected);
    });
}

#[test]
fn the_error_of_a_dead_worker_says_how_it_ended_and_hands_the_request_back() {
    bounded(|| {
        let exits = worker();
        let error = exits.call(Job::Exit(3)).unwrap_err();
        assert_eq!(died(&error).status.unwrap().code(), Some(3));
        assert_eq!(died(&error).unanswered, 1);
        assert_eq!((&error.request, error.may_have_run), (&Job::Exit(3), true));
        let id = died(&error).id;
        assert_eq!(
            error.to_string(),
            format!(
                "worker 'test' (process {id}) has ended: exit status: 3, with a request unanswered; \
                 this request may have run: make it again only if it may run twice"
            )
        );
        // And it stays so.
        let later = exits.call(Job::Double(1)).unwrap_err();
        assert_eq!((died(&later).status.unwrap().code(), later.may_have_run), (Some(3), false));
        assert_eq!(exits.join().unwrap().code(), Some(3));

        let worker = role().max_in_flight(3).start().unwrap();
        let naps: Vec<_> = (0..5).map(|_| begin(&worker, Job::Nap(1_000_000))).collect();
        pila::schedule();
        worker.kill().unwrap();
        let errors: Vec<_> = naps.into_iter().map(|nap| nap.join().unwrap().unwrap_err()).collect();
        assert!(errors.iter().all(|error| died(error).status.unwrap().signal() == Some(9)));
        assert_eq!(died(&errors[0]).unanswered, 3);
        // The last two were in line, and nobody has heard of them.
        assert_eq!(
            errors.iter().map(|error| error.may_have_run).collect::<Vec<_>>(),
            [true, true, true, false, false]
        );
    });
}

#[test]
fn garbage_is_the_end_of_the_worker() {
    bounded(|| {
        let frame = |length: u32, kind: u8, number: u64| {
            [&length.to_le_bytes()[..], &[kind], &number.to_le_bytes()].concat()
        };
        for (garbage, said) in [
            (b"HTTP/1.1 200 OK\r\n".to_vec(), "a message of"),
            (frame(3, 1, 1), "a frame of 3 bytes"),
            (frame(9, 99, 1), "a frame of kind 99"),
            (frame(9, 4, 77), "Reply to request 77, which it does not have"),
            (frame(9, 1, 0), "Hello, which no worker that serves says"),
            (frame(9, 9, 2), "a length that is no number"),
        ] {
            let worker = worker();
            let nap = begin(&worker, Job::Nap(1_000_000));
            let error = worker.call(Job::Say(garbage)).unwrap_err();
            let fault = died(&error).fault.as_deref().unwrap();
            assert!(fault.starts_with("it sent garbage: ") && fault.contains(said), "{fault}");
            assert_eq!(died(&error).status.unwrap().signal(), Some(9));
            nap.join().unwrap().unwrap_err();
        }
    });
}

#[test]
fn one_that_hangs_up_is_ended() {
    bounded(|| {
        let worker = worker();
        let error = worker.call(Job::HangUp).unwrap_err();
        let fault = died(&error).fault.as_deref().unwrap();
        assert!(fault.starts_with("it closed its end of the channel"), "{fault}");
    });
}

#[test]
fn one_that_leaves_its_channel_to_another_is_dead_all_the_same() {
    bounded(|| {
        let worker = worker();
        let start = Instant::now();
        let error = worker.call(Job::DieWithHeir).unwrap_err();
        assert_eq!(died(&error).status.unwrap().signal(), Some(6));
        assert!(start.elapsed() < Duration::from_secs(2), "not when the heir dies");
    });
}

/// How long after it was killed a worker's callers were told, the last of them.
fn time_of_death() -> Duration {
    let worker = role().max_in_flight(100).start().unwrap();
    let last = Rc::new(Cell::new(None));
    let naps: Vec<_> = (0..100)
        .map(|_| {
            let (worker, last) = (worker.clone(), last.clone());
            pila::tasklet(move || {
                worker.call(Job::Nap(1_000_000)).unwrap_err();
                last.set(Some(Instant::now()));
            })
        })
        .collect();
    // So that the worker has them all.
    pila::sleep(Duration::from_millis(20));
    let killed = Instant::now();
    signal(worker.id().unwrap(), Signal::KILL);
    naps.into_iter().for_each(|nap| nap.join().unwrap());
    last.get().unwrap() - killed
}

#[test]
fn all_who_wait_are_told_of_a_death_within_10_ms() {
    bounded(|| {
        assert_soon(20, time_of_death);
    });
}

/// How long after it was killed those were told who only join, and who are in line.
fn time_of_death_for_those_who_joined() -> Duration {
    let worker = role().max_in_flight(1).start().unwrap();
    let last = Rc::new(Cell::new(None));
    let calls: Vec<_> = (0..3).map(|_| begin(&worker, Job::Nap(1_000_000))).collect();
    let joins: Vec<_> = (0..10)
        .map(|_| {
            let (worker, last) = (worker.clone(), last.clone());
            pila::tasklet(move || {
                let status = worker.join().unwrap();
                last.set(Some(Instant::now()));
                status
            })
        })
        .collect();
    until("all wait", || joins.iter().all(|join| join.is_blocked()));
    assert_eq!((worker.in_flight(), worker.in_line()), (1, 2));
    let killed = Instant::now();
    signal(worker.id().unwrap(), Signal::KILL);
    for call in calls {
        died(&call.join().unwrap().unwrap_err());
    }
    for join in joins {
        assert_eq!(join.join().unwrap().signal(), Some(9));
    }
    last.get().unwrap() - killed
}

#[test]
fn whoever_joins_or_is_in_line_is_told_of_a_death_within_10_ms() {
    bounded(|| {
        assert_soon(20, time_of_death_for_those_who_joined);
    });
}

/// Asserts that it can be so within 10 ms: what the machine does besides can delay it now and then, but not always.
#[track_caller]
fn assert_soon(rounds: usize, mut measure: impl FnMut() -> Duration) -> Vec<Duration> {
    let mut times = Vec::new();
    while times.iter().all(|&time| time >= Duration::from_millis(10)) {
        assert!(times.len() < rounds, "{times:?}");
        times.push(measure());
    }
    times
}

#[test]
fn a_worker_that_does_not_read_parks_its_callers() {
    bounded(|| {
        let worker = role().max_in_flight(8).start().unwrap();
        signal(worker.id().unwrap(), Signal::STOP);
        let calls: Vec<_> =
            (0..20).map(|_| begin(&worker, Job::Length(vec![0; 1 << 20]))).collect();
        until("all wait", || calls.iter().all(|call| call.is_blocked()));
        pila::sleep(Duration::from_millis(50));
        assert!(calls.iter().all(|call| call.is_blocked()));
        assert_eq!((worker.in_flight(), worker.in_line()), (8, 12));
        signal(worker.id().unwrap(), Signal::CONT);
        for call in calls {
            assert_eq!(call.join().unwrap().unwrap(), Answer::Number(1 << 20));
        }
        assert_eq!((worker.in_flight(), worker.in_line()), (0, 0));
    });
}

#[test]
fn callers_that_are_killed_or_out_of_time_leave_the_channel_in_order() {
    bounded(|| {
        let worker = role().max_in_flight(2).start().unwrap();
        worker.call(Job::Nap(1)).unwrap();
        // One is sent, one in the middle of being sent, one is in line.
        signal(worker.id().unwrap(), Signal::STOP);
        let long = || Job::Length(vec![0; 2 << 20]);
        let doomed = [begin(&worker, Job::Nap(20)), begin(&worker, long()), begin(&worker, long())];
        let next = begin(&worker, Job::Double(4));
        pila::schedule();
        assert_eq!((worker.in_flight(), worker.in_line()), (2, 2));
        for call in &doomed {
            call.kill().unwrap();
        }
        let late = pila::timeout(Duration::from_millis(5), || worker.call(Job::Double(1)));
        assert!(late.is_err());
        assert_eq!((worker.in_flight(), worker.in_line()), (2, 1));
        signal(worker.id().unwrap(), Signal::CONT);
        // Their answers come, late, and are nobody's; the others get their own.
        assert_eq!(next.join().unwrap().unwrap(), Answer::Number(8));
        for number in 0..100 {
            assert_eq!(worker.call(Job::Double(number)).unwrap(), Answer::Number(2 * number));
        }
        assert_eq!(worker.in_flight(), 0);
    });
}

#[test]
fn a_request_of_which_nothing_was_sent_is_taken_back() {
    bounded(|| {
        let notes = Scratch::new("taken-back");
        let worker = role().max_in_flight(4).start().unwrap();
        worker.call(Job::Nap(1)).unwrap();
        signal(worker.id().unwrap(), Signal::STOP);
        let filler = begin(&worker, Job::Length(vec![0; 4 << 20]));
        let note = begin(&worker, Job::Note { path: notes.0.clone(), number: 1, nap: 0 });
        pila::schedule();
        assert_eq!(worker.in_flight(), 2);
        note.kill().unwrap();
        assert_eq!(worker.in_flight(), 1);
        signal(worker.id().unwrap(), Signal::CONT);
        filler.join().unwrap().unwrap();
        assert!(worker.join().unwrap().success());
        assert!(!notes.0.exists());
    });
}

#[test]
fn an_error_thrown_into_a_call_says_whether_the_request_may_have_run() {
    bounded(|| {
        let worker = role().max_in_flight(1).start().unwrap();
        let (sent, in_line) = (begin(&worker, Job::Nap(50)), begin(&worker, Job::Nap(50)));
        pila::schedule();
        for call in [&sent, &in_line] {
            call.throw_later("enough").unwrap();
        }
        let [sent, in_line] = [sent, in_line].map(|call| call.join().unwrap().unwrap_err());
        assert!(matches!(sent.reason, CallReason::Interrupted(_)), "{sent:?}");
        assert_eq!([sent.may_have_run, in_line.may_have_run], [true, false]);
        assert_eq!(worker.call(Job::Double(1)).unwrap(), Answer::Number(2));
    });
}

#[test]
fn where_nobody_may_wait_nothing_is_sent() {
    bounded(|| {
        let worker = worker();
        let guard = pila::no_switch();
        let error = worker.call(Job::Double(1)).unwrap_err();
        assert!(matches!(error.reason, CallReason::Interrupted(_)), "{error:?}");
        assert!(!error.may_have_run);
        assert!(matches!(role().start(), Err(StartError::Interrupted(_))));
        assert!(worker.join().is_err());
        drop(guard);
        assert_eq!(worker.in_flight(), 0);
    });
}

#[test]
fn join_lets_the_worker_finish_what_it_has() {
    bounded(|| {
        let worker = role().max_in_flight(2).start().unwrap();
        let naps: Vec<_> = (0..5).map(|_| begin(&worker, Job::Nap(20))).collect();
        pila::schedule();
        assert!(worker.join().unwrap().success());
        for nap in naps {
            assert_eq!(nap.join().unwrap().unwrap(), Answer::Number(20));
        }
        assert!(matches!(worker.call(Job::Nap(1)).unwrap_err().reason, CallReason::Closed));
        assert!(worker.join().unwrap().success(), "as often as one likes");
    });
}

#[test]
fn join_lets_the_other_tasklets_run() {
    bounded(|| {
        let worker = worker();
        let nap = begin(&worker, Job::Nap(200));
        pila::schedule();
        assert_eq!(worker.in_flight(), 1);
        let ticks = Rc::new(Cell::new(0));
        let ours = ticks.clone();
        pila::tasklet(move || {
            while nap.is_alive() {
                ours.set(ours.get() + 1);
                pila::sleep(Duration::from_millis(1));
            }
        });
        assert!(worker.join().unwrap().success());
        assert!(ticks.get() > 5, "{} ticks while it was joined", ticks.get());
    });
}

#[test]
fn a_worker_is_a_new_process_and_no_copy_of_one_with_threads() {
    bounded(|| {
        let (locked, told) = std::sync::mpsc::channel();
        let (done, end) = std::sync::mpsc::channel::<()>();
        let holder = std::thread::spawn(move || {
            let _held = LOCK.lock().unwrap();
            locked.send(()).unwrap();
            end.recv().ok();
        });
        told.recv().unwrap();
        // In a copy of this process nobody would ever release it.
        assert_eq!(worker().call(Job::Lock).unwrap(), Answer::Number(0));
        drop(done);
        holder.join().unwrap();
    });
}

#[test]
fn an_idle_worker_keeps_nobody_waiting_for_the_end() {
    bounded(|| {
        let _worker = worker();
        pila::tasklet(|| ());
        assert_eq!(pila::run().finished, 1);
    });
}

#[test]
fn a_worker_has_workers_and_children_of_its_own() {
    bounded(|| {
        let outer = outer_role().start().unwrap();
        assert_eq!(outer.call(20).unwrap(), 42);
        assert_eq!(worker().call(Job::RunProgram).unwrap(), Answer::Number(0));
    });
}

/// Has a worker of its own add one, and doubles that.
fn outer_role() -> Role<u64, u64> {
    let entry =
        ["--exact", "the_outer_and_the_inner_worker", "--nocapture", "--test-threads=1", "-q"];
    let inner = Role::declare("inner", |number: u64| number + 1).args(entry);
    let outer = move |number| 2 * inner.start().unwrap().call(number).unwrap();
    Role::declare("outer", outer).args(entry)
}

#[test]
fn the_outer_and_the_inner_worker() {
    outer_role();
}

#[test]
fn who_never_comes_to_the_declaration_is_told_so() {
    bounded(|| {
        let forgets = role().args(["--skip", "the_worker"]);
        let Err(StartError::Died(died)) = forgets.start() else { panic!("it ends by itself") };
        assert_eq!(died.status.unwrap().code(), Some(0));

        let elsewhere = Role::<(), ()>::declare("elsewhere", |()| ());
        let entry = ["--exact", "one_that_never_declares", "--nocapture", "-q"];
        let elsewhere = elsewhere.args(entry).env("PILA_TEST", "sleep");
        let start = Instant::now();
        let error = elsewhere.start_timeout(Duration::from_millis(300)).start().unwrap_err();
        assert!(matches!(error, StartError::Silent { .. }), "{error:?}");
        assert!(error.to_string().ends_with("before anything else is done"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));

        let speaks =
            Role::<(), ()>::declare("speaks", |()| ()).args(entry).env("PILA_TEST", "speak");
        let Err(StartError::Died(died)) = speaks.start() else { panic!("it is no worker") };
        assert!(died.fault.unwrap().starts_with("it sent garbage"));
    });
}

#[test]
fn one_that_never_declares() {
    match env::var("PILA_TEST").as_deref() {
        Ok("sleep") => pila::sleep(Duration::from_secs(1000)),
        Ok("speak") => {
            rustix::io::write(io::stdin().as_fd(), b"HTTP/1.1 200 OK\r\n").unwrap();
            pila::sleep(Duration::from_secs(1000));
        }
        Ok("start") => {
            // What a `main` does that was not told to declare first.
            let error = role().start().unwrap_err();
            assert!(
                matches!(&error, StartError::Undeclared { role } if role.starts_with("starts: ")),
                "{error:?}"
            );
            assert!(matches!(role().pool(4), Err(StartError::Undeclared { .. })));
            process::exit(42);
        }
        _ => {}
    }
}

#[test]
fn a_worker_that_was_not_declared_starts_no_other() {
    bounded(|| {
        let entry = ["--exact", "one_that_never_declares", "--nocapture", "-q"];
        let starts =
            Role::<(), ()>::declare("starts", |()| ()).args(entry).env("PILA_TEST", "start");
        let Err(StartError::Died(died)) = starts.start() else { panic!("it exits") };
        assert_eq!(died.status.unwrap().code(), Some(42));
    });
}

/// Whether there is such a process, and it runs.
fn runs(id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

#[test]
fn workers_end_with_who_started_them() {
    bounded(|| {
        let mut parent = Command::new(env::current_exe().unwrap());
        parent.args(["--exact", "one_that_dies", "--nocapture", "-q"]).env("PILA_TEST_DIES", "1");
        let mut parent = parent.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
        let line = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("workers ")?.1.to_string()));
        let ids: Vec<u32> = line.unwrap().split(' ').map(|id| id.parse().unwrap()).collect();
        assert!(ids.len() == 2 && ids.iter().all(|&id| runs(id)));
        parent.kill().unwrap();
        parent.wait().unwrap();
        until("the idle worker and the busy one end", || !ids.iter().any(|&id| runs(id)));
    });
}

#[test]
fn one_that_dies() {
    if env::var_os("PILA_TEST_DIES").is_some() {
        let (idle, busy) = (worker(), worker());
        begin(&busy, Job::Block(1_000_000));
        pila::schedule();
        // It has the request now.
        pila::sleep(Duration::from_millis(50));
        println!("\nworkers {} {}", idle.id().unwrap(), busy.id().unwrap());
        pila::sleep(Duration::from_secs(1000));
    }
}

#[test]
fn a_worker_ends_with_the_thread_that_started_it() {
    bounded(|| {
        let thread = pila::spawn_thread(|| {
            let worker = worker();
            let id = worker.id().unwrap();
            std::mem::forget(worker);
            id
        });
        let id = thread.unwrap().join().unwrap();
        until("the worker ends", || !runs(id));
    });
}

#[test]
fn a_pool_replaces_the_dead_and_repeats_nothing() {
    bounded(|| {
        let notes = Scratch::new("replaced");
        let pool = role().max_in_flight(1).pool(2).unwrap();
        let before = pool.ids();
        let call = |number, nap| {
            let (pool, path) = (pool.clone(), notes.0.clone());
            pila::tasklet(move || pool.call(Job::Note { path, number, nap }))
        };
        let long = [call(1, 1_000_000), call(2, 300)];
        let in_line = [call(3, 0), call(4, 0)];
        until("both are noted", || {
            fs::read_to_string(&notes.0).is_ok_and(|text| text.lines().count() == 2)
        });
        signal(before[0], Signal::KILL);
        let [first, second] = long.map(|call| call.join().unwrap());
        let error = first.unwrap_err();
        assert_eq!((died(&error).id, error.may_have_run), (before[0], true));
        assert_eq!(second.unwrap(), Answer::Number(2));
        for (call, number) in in_line.into_iter().zip(3..) {
            assert_eq!(call.join().unwrap().unwrap(), Answer::Number(number));
        }
        let mut noted: Vec<_> =
            fs::read_to_string(&notes.0).unwrap().lines().map(str::to_string).collect();
        noted.sort();
        assert_eq!(noted, ["1", "2", "3", "4"]);
        assert_eq!((pool.ids().len(), pool.replaced()), (2, 1));
        assert!(pool.join().unwrap().iter().all(|status| status.success()));
    });
}

#[test]
fn a_pool_whose_workers_always_die_answers_every_call() {
    bounded(|| {
        let pool = role().pool(2).unwrap();
        let start = Instant::now();
        for _ in 0..10 {
            let error = pool.call(Job::Exit(1)).unwrap_err();
            assert_eq!(died(&error).status.unwrap().code(), Some(1));
        }
        // Ten starts, the last ones with a pause: it does not burn the machine, and it is still there.
        assert!(start.elapsed() >= Duration::from_millis(10));
        assert_eq!(pool.call(Job::Double(2)).unwrap(), Answer::Number(4));
    });
}

#[test]
fn a_pool_that_cannot_start_workers_says_so_and_tries_again() {
    bounded(|| {
        let broken = Scratch::new("broken");
        let entry =
            ["--exact", "the_worker_unless_broken", "--nocapture", "--test-threads=1", "-q"];
        let role = Role::declare("test", handle).args(entry).env("PILA_TEST_BROKEN", &broken.0);
        let pool = role.pool(2).unwrap();
        fs::write(&broken.0, "").unwrap();
        pool.kill().unwrap();
        let error = pool.call(Job::Double(1)).unwrap_err();
        let CallReason::NoWorker(reason) = &error.reason else { panic!("{error:?}") };
        let StartError::Died(died) = &**reason else { panic!("{reason:?}") };
        assert_eq!((died.status.unwrap().code(), error.may_have_run), (Some(9), false));

        fs::remove_file(&broken.0).unwrap();
        until("it starts others", || pool.call(Job::Double(1)).is_ok());
    });
}

#[test]
fn the_worker_unless_broken() {
    let broken = env::var_os("PILA_TEST_BROKEN");
    if broken.is_some_and(|path| PathBuf::from(path).exists()) {
        process::exit(9);
    }
    role();
}

/// 1,000 requests in flight over 4 workers, one of which is killed: what became of each, and how long after the death the
/// last one was told.
fn kill_one_of_four(notes: &Scratch) -> Duration {
    fs::remove_file(&notes.0).ok();
    let pool = role().max_in_flight(250).pool(4).unwrap();
    let victim = pool.ids()[1];
    let answered = Rc::new(RefCell::new(HashMap::new()));
    let last = Rc::new(Cell::new(None));
    let calls: Vec<_> = (0..1000)
        .map(|number| {
            let (pool, path) = (pool.clone(), notes.0.clone());
            let (answered, last) = (answered.clone(), last.clone());
            pila::tasklet(move || {
                let outcome = pool.call(Job::Note { path, number, nap: 1500 });
                if outcome.is_err() {
                    last.set(Some(Instant::now()));
                }
                assert!(answered.borrow_mut().insert(number, outcome).is_none());
            })
        })
        .collect();
    until("all are in flight", || pool.in_flight() == 1000);
    until("the victim has them all", || {
        fs::read_to_string(&notes.0).is_ok_and(|text| text.lines().count() == 1000)
    });
    let killed = Instant::now();
    signal(victim, Signal::KILL);
    calls.into_iter().for_each(|call| call.join().unwrap());

    let answered = answered.borrow();
    let mut reported = 0;
    for number in 0..1000 {
        match &answered[&number] {
            Ok(answer) => assert_eq!(*answer, Answer::Number(number)),
            Err(error) => {
                assert_eq!((died(error).id, died(error).unanswered), (victim, 250));
                let Job::Note { number: handed_back, .. } = error.request else {
                    panic!("{error:?}")
                };
                assert_eq!((handed_back, error.may_have_run), (number, true));
                reported += 1;
            }
        }
    }
    assert_eq!(reported, 250);
    let text = fs::read_to_string(&notes.0).unwrap();
    let mut ran: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
    ran.sort();
    assert_eq!(ran, (0..1000).collect::<Vec<_>>(), "each has run once");
    last.get().unwrap() - killed
}

#[test]
fn of_1000_requests_over_4_workers_one_of_which_is_killed_each_is_answered_or_reported() {
    bounded(|| {
        let notes = Scratch::new("four");
        let times = assert_soon(6, || kill_one_of_four(&notes));
        writeln!(io::stderr(), "killed under load: all told after {times:?}").ok();
    });
}

/// A stream of numbers, the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[test]
fn whoever_is_ended_in_whatever_order_everyone_else_goes_on() {
    bounded(|| {
        let pool: Pool<Job, Answer> = role().max_in_flight(5).pool(3).unwrap();
        let numbers = Rc::new(RefCell::new(Numbers(42)));
        let counts = Rc::new(RefCell::new(HashMap::<&str, u32>::new()));
        let callers: Vec<_> = (0..60)
            .map(|_| {
                let (pool, numbers, counts) = (pool.clone(), numbers.clone(), counts.clone());
                pila::tasklet(move || {
                    for _ in 0..20 {
                        let [nap, time, way] =
                            [8, 12, 4].map(|bound| numbers.borrow_mut().below(bound));
                        let call = || pool.call(Job::Nap(nap));
                        let outcome = match way {
                            0 => pila::timeout(Duration::from_millis(time), call).map_err(drop),
                            1 => {
                                let pool = pool.clone();
                                let call = pila::tasklet(move || pool.call(Job::Nap(nap)));
                                pila::sleep(Duration::from_millis(time));
                                call.kill().ok();
                                call.join().map_err(drop)
                            }
                            _ => Ok(call()),
                        };
                        let kind = match outcome {
                            Ok(Ok(answer)) => {
                                assert_eq!(answer, Answer::Number(nap));
                                "answered"
                            }
                            Ok(Err(error)) => {
                                died(&error);
                                "died"
                            }
                            Err(()) => "ended",
                        };
                        *counts.borrow_mut().entry(kind).or_default() += 1;
                    }
                })
            })
            .collect();
        let killer = {
            let (pool, numbers) = (pool.clone(), numbers.clone());
            pila::tasklet(move || {
                loop {
                    pila::sleep(Duration::from_millis(40));
                    let ids = pool.ids();
                    let victim = ids.get(numbers.borrow_mut().below(3) as usize);
                    // It may have ended already, unnoticed; it is not reaped before it is noticed.
                    victim.inspect(|&&id| signal(id, Signal::KILL));
                }
            })
        };
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        killer.kill().unwrap();
        let counts = counts.borrow();
        assert_eq!(counts.values().sum::<u32>(), 1200, "{counts:?}");
        assert!(counts["answered"] > 100 && counts["ended"] > 10, "{counts:?}");
        // What was abandoned is answered, too, and nobody waits for it.
        until("all is answered", || {
            pool.call(Job::Double(1)).unwrap();
            pool.in_flight() == 0
        });
        // One of them may have been killed last of all.
        assert_eq!(pool.join().unwrap().len(), 3);
    });
}

#[test]
fn what_10_000_round_trips_cost() {
    bounded(|| {
        let worker = worker();
        let start = Instant::now();
        for number in 0..10_000 {
            assert_eq!(worker.call(Job::Double(number)).unwrap(), Answer::Number(2 * number));
        }
        let one_by_one = start.elapsed();

        let start = Instant::now();
        let callers: Vec<_> = (0..16)
            .map(|_| {
                let worker = worker.clone();
                pila::tasklet(move || {
                    for number in 0..625 {
                        assert_eq!(
                            worker.call(Job::Double(number)).unwrap(),
                            Answer::Number(2 * number)
                        );
                    }
                })
            })
            .collect();
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        let sixteen = start.elapsed();

        // What two processes pay at least: a byte there, a byte back, through the same kind of socket.
        let mut cat = Command::new("sh");
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let cat = cat
            .args(["-c", "exec cat"])
            .stdin(Stdio::from(OwnedFd::from(theirs.try_clone().unwrap())));
        let mut cat = cat.stdout(Stdio::from(OwnedFd::from(theirs))).spawn().unwrap();
        let start = Instant::now();
        for _ in 0..10_000 {
            ours.write_all(b"x").unwrap();
            io::Read::read_exact(&mut ours, &mut [0]).unwrap();
        }
        let floor = start.elapsed();
        cat.kill().unwrap();
        cat.wait().unwrap();
        writeln!(
            io::stderr(),
            "10,000 calls: {one_by_one:?} one by one, {sixteen:?} sixteen at a time; a byte through cat and back {floor:?}"
        )
        .ok();
        assert!(one_by_one < Duration::from_secs(20));
    });
}

#[test]
fn all_this_holds_portably() {
    again_portably();
}
