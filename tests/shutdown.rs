//! Stopping a group of tasklets: time to end, then the kill, and a report of those that go on.

use std::{
    cell::Cell,
    io::{Read, Write},
    net::{self, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    process::exit,
    rc::Rc,
    time::{Duration, Instant},
};

use child::{Child, role, say};
use pila::{
    Builder, Channel, Group, JoinError, Refused, Signal, TaskletError,
    driver::{self, VirtualClock},
    net::TcpListener,
};
use rustix::process::{self, Resource, Rlimit, getrlimit, setrlimit};
use system::{PATIENCE, Stopwatch, alone, bounded, example, in_line, left_out, tell};

mod child;
mod system;

const SECOND: Duration = Duration::from_secs(1);

/// Counts the destructors that ran.
#[derive(Clone, Default)]
struct Count(Rc<Cell<usize>>);

/// Counts when it is dropped.
struct Counted(Count);

impl Count {
    fn one(&self) -> Counted {
        Counted(self.clone())
    }

    fn get(&self) -> usize {
        self.0.get()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.set(self.0.get() + 1);
    }
}

/// Runs `body` on a thread of its own where time passes when nothing can run.
#[track_caller]
fn in_virtual_time(body: impl FnOnce() + Send + 'static) {
    bounded(PATIENCE, || {
        driver::install(Box::new(VirtualClock::new())).unwrap();
        body();
    });
}

/// Catches whatever ends it and goes on for ever.
fn be_stubborn() {
    loop {
        let _ = catch_unwind(|| pila::sleep(Duration::MAX));
    }
}

#[test]
fn a_stop_takes_as_long_as_its_last_member() {
    in_virtual_time(|| {
        let (group, dropped, start) = (Group::new(), Count::default(), driver::now());
        for seconds in 1..=3 {
            let counted = dropped.one();
            group.tasklet(move || {
                pila::sleep(seconds * SECOND);
                drop(counted);
            });
        }
        let stopped = group.stop(5 * SECOND);
        assert_eq!(driver::now() - start, 3 * SECOND);
        assert_eq!(stopped.to_string(), "3 ended by themselves, 0 killed, 0 still alive");
        assert_eq!((dropped.get(), group.len()), (3, 0));
    });
}

#[test]
fn at_the_end_of_the_grace_the_others_are_killed_and_their_destructors_run() {
    in_virtual_time(|| {
        let (group, dropped, start) = (Group::new(), Count::default(), driver::now());
        let nobody_sends = Channel::<()>::new();
        for seconds in 1..=10 {
            let counted = dropped.one();
            group.tasklet(move || {
                let _counted = counted;
                pila::sleep(seconds * SECOND);
            });
        }
        let (theirs, counted) = (nobody_sends.clone(), dropped.one());
        let waiter = group.tasklet(move || theirs.receive().map(|()| counted));
        let stopped = group.stop(Duration::from_millis(4_500));
        assert_eq!(driver::now() - start, Duration::from_millis(4_500));
        assert_eq!(stopped.to_string(), "4 ended by themselves, 7 killed, 0 still alive");
        assert_eq!(dropped.get(), 11);
        assert!(matches!(waiter.join(), Err(JoinError::Killed)));
    });
}

#[test]
fn without_a_grace_nothing_runs_before_the_kill() {
    in_virtual_time(|| {
        let (group, dropped) = (Group::new(), Count::default());
        for _ in 0..3 {
            let counted = dropped.one();
            group.tasklet(move || {
                drop(counted);
                unreachable!("it never starts");
            });
        }
        let stopped = group.stop(Duration::ZERO);
        assert_eq!((stopped.ended, stopped.killed, dropped.get()), (0, 3, 3));
    });
}

#[test]
fn whoever_ignores_the_stop_is_named_with_the_place_where_it_was_created() {
    in_virtual_time(|| {
        let group = Group::new();
        group.tasklet(|| ());
        group.tasklet(|| pila::sleep(Duration::MAX));
        let builder = Builder::new().name("stubborn");
        group.tasklet_with(builder, be_stubborn).unwrap();
        let line = line!() - 1;
        let stopped = group.stop(SECOND);
        let expected = format!(
            "1 ended by themselves, 1 killed, 1 still alive: 'stubborn' (#3, created at {}:{line}:15)",
            file!()
        );
        assert_eq!(stopped.to_string(), expected);
        assert!(matches!(stopped.alive[0].error, TaskletError::StillAlive(_)));
        assert_eq!(group.len(), 1);
        for _ in 0..4 {
            // Too late to be stopped with the others.
            assert!(group.tasklet(be_stubborn).join().is_err());
        }
    });
}

#[test]
fn a_line_names_three_survivors_and_counts_the_others() {
    in_virtual_time(|| {
        let group = Group::new();
        let place = format!("created at {}:{}:19", file!(), line!() + 2);
        for _ in 0..5 {
            group.tasklet(be_stubborn);
        }
        pila::schedule();
        let expected = format!(
            "0 ended by themselves, 0 killed, 5 still alive: #1 ({place}), #2 ({place}), #3 ({place}) and 2 more"
        );
        assert_eq!(group.stop(Duration::ZERO).to_string(), expected);
    });
}

#[test]
fn a_group_that_is_being_stopped_takes_no_tasklets() {
    in_virtual_time(|| {
        let (group, dropped) = (Group::new(), Count::default());
        let (late, counted) = (group.clone(), dropped.one());
        let member = group.tasklet(move || {
            pila::sleep(SECOND);
            assert!(late.is_stopping());
            let refused = late.tasklet(move || drop(counted));
            let named = late.tasklet_with(Builder::new().name("late"), || ()).unwrap();
            assert!(!refused.is_alive() && !named.is_alive());
            refused.join()
        });
        assert_eq!(group.stop(5 * SECOND).ended, 1);
        let refused = member.join().unwrap();
        assert!(matches!(refused, Err(JoinError::Refused(Refused::Stopping))), "{refused:?}");
        assert_eq!(dropped.get(), 1);
    });
}

#[test]
fn when_a_stop_returns_every_destructor_has_run() {
    /// A result whose destructor takes its time.
    struct Slow {
        _counted: Counted,
    }
    impl Drop for Slow {
        fn drop(&mut self) {
            pila::sleep(SECOND);
        }
    }
    pila::task_local! {
        static LAST: std::cell::RefCell<Option<Slow>> = const { std::cell::RefCell::new(None) };
    }
    in_virtual_time(|| {
        let (group, dropped, start) = (Group::new(), Count::default(), driver::now());
        let (first, second) = (Slow { _counted: dropped.one() }, Slow { _counted: dropped.one() });
        // Nobody holds it, so its result is dropped on its own stack.
        group.tasklet(move || {
            LAST.set(Some(second));
            pila::sleep(SECOND);
            first
        });
        let stopped = group.stop(10 * SECOND);
        assert_eq!((stopped.ended, dropped.get()), (1, 2));
        assert_eq!(driver::now() - start, 3 * SECOND);
    });
}

#[test]
fn members_may_stop_their_own_group() {
    in_virtual_time(|| {
        let (group, start) = (Group::new(), driver::now());
        group.tasklet(|| pila::sleep(2 * SECOND));
        let stoppers: Vec<_> = (0..2)
            .map(|_| {
                let theirs = group.clone();
                group.tasklet(move || theirs.stop(5 * SECOND).to_string())
            })
            .collect();
        for stopper in stoppers {
            let told = stopper.join().unwrap();
            assert_eq!(told, "1 ended by themselves, 0 killed, 0 still alive");
        }
        assert_eq!(driver::now() - start, 2 * SECOND);
    });
}

#[test]
fn a_panic_meanwhile_is_raised_when_all_is_over() {
    in_virtual_time(|| {
        let (group, dropped, start) = (Group::new(), Count::default(), driver::now());
        group.tasklet(|| {
            pila::sleep(SECOND);
            panic!("the first");
        });
        for _ in 0..2 {
            let counted = dropped.one();
            group.tasklet(move || {
                let _counted = counted;
                let _ = catch_unwind(|| pila::sleep(Duration::MAX));
                panic!("another");
            });
        }
        let panic = catch_unwind(AssertUnwindSafe(|| group.stop(2 * SECOND))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"the first"));
        assert_eq!((dropped.get(), group.len()), (2, 0));
        assert_eq!(driver::now() - start, 2 * SECOND);
    });
}

#[test]
fn a_stop_that_is_killed_leaves_the_rest_to_the_next() {
    in_virtual_time(|| {
        let (group, start) = (Group::new(), driver::now());
        group.tasklet(|| pila::sleep(Duration::MAX));
        let theirs = group.clone();
        let stopper = pila::tasklet(move || theirs.stop(5 * SECOND).killed);
        pila::sleep(SECOND);
        stopper.kill().unwrap();
        assert!(matches!(stopper.join(), Err(JoinError::Killed)));
        assert_eq!(group.len(), 1);
        assert_eq!(group.stop(SECOND).killed, 1);
        assert_eq!(driver::now() - start, 2 * SECOND);
    });
}

#[test]
fn a_caller_that_unwinds_kills_without_waiting() {
    struct Last(Group, Rc<Cell<bool>>);
    impl Drop for Last {
        fn drop(&mut self) {
            let stopped = self.0.stop(SECOND);
            assert_eq!((stopped.ended, stopped.killed), (0, 1));
            self.1.set(matches!(stopped.alive[0].error, TaskletError::Pending(_)));
        }
    }
    in_virtual_time(|| {
        let (group, was_pending) = (Group::new(), Rc::new(Cell::new(false)));
        group.tasklet(|| pila::sleep(Duration::MAX));
        pila::schedule();
        group.tasklet(|| unreachable!("it never starts"));
        let last = Last(group.clone(), was_pending.clone());
        let unwinds = pila::tasklet(move || {
            let _last = last;
            panic!("no way");
        });
        // It goes before the one that was created before it.
        unwinds.run().unwrap();
        assert!(unwinds.join().is_err() && was_pending.get());
        // The one whose kill was pending has ended as soon as it could.
        pila::run();
        assert!(group.is_empty());
    });
}

#[test]
fn a_stop_ends_the_waits_of_until_stop_and_what_comes_after_them_waits_as_ever() {
    in_virtual_time(|| {
        let (group, dropped, start) = (Group::new(), Count::default(), driver::now());
        let nobody_sends = Channel::<()>::new();
        let waits: [Rc<dyn Fn()>; 3] = [
            Rc::new(|| pila::sleep(Duration::MAX)),
            Rc::new(move || nobody_sends.receive().unwrap()),
            Rc::new(pila::schedule_remove),
        ];
        let mut waiters = Vec::new();
        for wait in waits {
            // A member, and one that is none.
            for tasklet in [Group::tasklet::<Box<dyn FnOnce() -> bool>, bool>, |_: &Group, f| {
                pila::tasklet::<Box<dyn FnOnce() -> bool>, bool>(f)
            }] {
                let (ours, wait, counted) = (group.clone(), wait.clone(), dropped.one());
                let until_stop = move || {
                    let ended = ours.until_stop(move || {
                        let _counted = counted;
                        wait();
                    });
                    assert!(ours.is_stopping());
                    pila::sleep(SECOND);
                    ended.is_none()
                };
                waiters.push(tasklet(&group, Box::new(until_stop)));
            }
        }
        pila::sleep(SECOND);
        assert_eq!(dropped.get(), 0);
        let stopped = group.stop(5 * SECOND);
        assert_eq!((stopped.ended, stopped.killed, dropped.get()), (3, 0, 6));
        assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap()));
        assert_eq!(driver::now() - start, 2 * SECOND);
    });
}

#[test]
fn main_returns_from_until_stop_as_well() {
    in_virtual_time(|| {
        let group = Group::new();
        let theirs = group.clone();
        let stopper = pila::tasklet(move || {
            pila::sleep(SECOND);
            theirs.stop(SECOND).to_string()
        });
        let mut turns = 0;
        while let Some(()) = group.until_stop(|| pila::sleep(SECOND / 10)) {
            turns += 1;
        }
        assert!((9..=10).contains(&turns), "{turns}");
        assert_eq!(group.until_stop(|| unreachable!("it is too late")), None::<()>);
        assert_eq!(stopper.join().unwrap(), "0 ended by themselves, 0 killed, 0 still alive");
    });
}

#[test]
fn what_a_wait_has_brought_is_not_lost_to_the_stop() {
    in_virtual_time(|| {
        let (group, work) = (Group::new(), Channel::new());
        let (ours, theirs) = (group.clone(), work.clone());
        let worker = group.tasklet(move || {
            let mut got = Vec::new();
            while let Some(number) = ours.until_stop(|| theirs.receive().unwrap()) {
                got.push(number);
            }
            got
        });
        work.send(1).unwrap();
        // The worker waits again; now it is given a number and has no turn before the stop.
        work.set_preference(pila::Preference::Sender);
        work.send(2).unwrap();
        assert_eq!(group.stop(SECOND).ended, 1);
        assert_eq!(worker.join().unwrap(), [1, 2]);
    });
}

#[test]
fn a_call_that_catches_the_stop_has_every_wait_refused_until_it_returns() {
    in_virtual_time(|| {
        let group = Group::new();
        let ours = group.clone();
        let stubborn = group.tasklet(move || {
            let given = ours.until_stop(|| {
                let _ = catch_unwind(|| pila::sleep(Duration::MAX));
                Channel::<()>::new().receive().unwrap_err().to_string()
            });
            pila::sleep(SECOND);
            given
        });
        pila::schedule();
        assert_eq!(group.stop(2 * SECOND).ended, 1);
        assert_eq!(stubborn.join().unwrap().unwrap(), Refused::Stopping.to_string());
    });
}

#[test]
fn whoever_stops_the_group_is_not_ended_by_it() {
    in_virtual_time(|| {
        let (group, start) = (Group::new(), driver::now());
        group.tasklet(|| pila::sleep(SECOND));
        let stop = || {
            let stopped = group.stop(2 * SECOND);
            pila::sleep(SECOND);
            stopped
        };
        let stopped = group.until_stop(stop).unwrap();
        assert_eq!((stopped.ended, stopped.killed), (1, 0));
        assert_eq!(driver::now() - start, 2 * SECOND);
    });
}

#[test]
fn a_shielded_goodbye_is_finished_and_reported_as_pending_when_it_takes_too_long() {
    in_virtual_time(|| {
        let (group, said) = (Group::new(), Count::default());
        for seconds in [1, 9] {
            let (ours, goodbye) = (group.clone(), said.one());
            group.tasklet(move || {
                ours.until_stop(|| {
                    pila::shield(|| pila::sleep(seconds * SECOND));
                    drop(goodbye);
                    pila::sleep(Duration::MAX);
                });
            });
        }
        pila::schedule();
        let stopped = group.stop(3 * SECOND);
        assert_eq!((stopped.ended, stopped.killed, said.get()), (1, 0, 1));
        assert!(matches!(stopped.alive[0].error, TaskletError::Pending(_)));
        pila::run();
        assert_eq!((said.get(), group.len()), (2, 0));
    });
}

#[test]
fn a_timeout_around_a_stop_ends_it() {
    in_virtual_time(|| {
        let (group, start) = (Group::new(), driver::now());
        group.tasklet(|| pila::sleep(Duration::MAX));
        assert!(pila::timeout(SECOND, || group.stop(9 * SECOND)).is_err());
        assert_eq!((driver::now() - start, group.len()), (SECOND, 1));
        assert_eq!(group.stop(Duration::ZERO).killed, 1);
    });
}

#[test]
fn the_second_ctrl_c_ends_a_process_that_hangs_in_its_stop() {
    const NAME: &str = "the_second_ctrl_c_ends_a_process_that_hangs_in_its_stop";
    let Some(role) = role() else {
        let _alone = alone();
        for (second, status, name) in
            [(process::Signal::INT, 130, "SIGINT"), (process::Signal::TERM, 143, "SIGTERM")]
        {
            for role in ["computes", "waits", "holds stderr"] {
                let child = Child::of(NAME, role);
                assert_eq!(child.line(), "ready");
                child.send(process::Signal::INT);
                assert_eq!(child.line(), "stopping");
                child.send(process::Signal::HUP);
                child.send(second);
                let end = child.end(PATIENCE);
                assert_eq!(end.status.code(), Some(status), "{role}: {end:?}");
                let said =
                    format!("{name} while tasklets were being stopped: the process ends at once\n");
                let expected = if role == "holds stderr" { "" } else { &said };
                assert_eq!(end.errors, expected, "{role}");
                assert!(end.took < SECOND, "{role}: {:?}", end.took);
            }
        }
        return;
    };
    let asked = [Signal::INTERRUPT, Signal::TERMINATE, Signal::HANGUP];
    let signals = pila::signals(asked).unwrap();
    let group = Group::new();
    let stops = group.clone();
    group.tasklet(move || {
        while !stops.is_stopping() {
            pila::sleep(Duration::from_millis(1));
        }
        let _stderr = (role == "holds stderr").then(|| std::io::stderr().lock());
        say("stopping");
        if role == "waits" {
            pila::sleep(PATIENCE);
        }
        loop {
            std::hint::spin_loop();
        }
    });
    say("ready");
    assert_eq!(signals.receive().unwrap(), Signal::INTERRUPT);
    let _ = group.stop(PATIENCE);
    unreachable!("it hangs");
}

#[test]
fn signals_are_received_during_a_stop_that_no_signal_asked_for() {
    const NAME: &str = "signals_are_received_during_a_stop_that_no_signal_asked_for";
    if role().is_none() {
        let _alone = alone();
        let child = Child::of(NAME, "child");
        for _ in 0..2 {
            assert_eq!(child.line(), "stopping");
            child.send(process::Signal::TERM);
            // The first since the last stop was over.
            assert_eq!(child.line(), "SIGTERM");
        }
        assert_eq!(child.end(PATIENCE).status.code(), Some(7));
        return;
    }
    let signals = Rc::new(pila::signals([Signal::TERMINATE]).unwrap());
    for _ in 0..2 {
        let (group, theirs) = (Group::new(), signals.clone());
        let stuck = group.tasklet(|| pila::sleep(Duration::MAX)).handle();
        pila::tasklet(move || {
            say("stopping");
            say(&theirs.receive().unwrap().to_string());
            stuck.kill().unwrap();
        });
        assert_eq!(group.stop(PATIENCE).ended, 1);
    }
    exit(7);
}

const CONNECTIONS: usize = 5_000;
const GRACE: Duration = Duration::from_secs(2);

/// Lets this process have a descriptor for each connection. False when the system forbids it.
fn may_have_all_connections() -> bool {
    let limit = getrlimit(Resource::Nofile);
    let enough = CONNECTIONS as u64 + 200;
    if limit.maximum.is_some_and(|maximum| maximum < enough) {
        left_out(&format!(
            "{CONNECTIONS} connections take {enough} descriptors: ulimit -Hn {enough}"
        ));
        return false;
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    true
}

/// Of 5,000 connections 4,000 end when they are asked to, 999 wait for their peer whatever happens, and one catches its
/// kill.
#[test]
fn five_thousand_connections_are_stopped_within_the_grace_and_a_second() {
    const NAME: &str = "five_thousand_connections_are_stopped_within_the_grace_and_a_second";
    if !may_have_all_connections() {
        return;
    }
    if role().is_some() {
        return serve_five_thousand();
    }
    let _alone = alone();
    let child = Child::of(NAME, "server");
    let address: SocketAddr = child.line().parse().unwrap();
    // On the side of the peers, plain sockets do.
    let mut peers: Vec<net::TcpStream> = (0..CONNECTIONS)
        .map(|_| {
            let mut peer = net::TcpStream::connect(address).unwrap();
            peer.write_all(b"x").unwrap();
            peer
        })
        .collect();
    assert_eq!(child.line(), "5000 connections");
    for peer in &mut peers {
        peer.read_exact(&mut [0]).unwrap();
    }
    child.send(process::Signal::TERM);
    let (begun, watch) = (Instant::now(), Stopwatch::start());
    let place = child.line();
    let report = child.line();
    let dropped = child.line();
    let in_line = Duration::from_millis(child.line().parse().unwrap());
    let end = child.end(PATIENCE);
    let (took, ours) = (begun.elapsed(), watch.elapsed().saturating_sub(in_line));
    assert_eq!(
        report,
        format!(
            "4000 ended by themselves, 999 killed, 1 still alive: 'stubborn' (#2501, created at {place})"
        )
    );
    assert_eq!(dropped, "4999 of 5000 dropped");
    assert_eq!(end.status.code(), Some(7), "{end:?}");
    assert!(took >= GRACE && ours < GRACE + SECOND, "{took:?}, {ours:?} of it ours");
    tell(&format!("5,000 connections stopped: {took:?} with a grace of {GRACE:?}"));
    // Each peer has been told, as far as its connection was ended before the process.
    for mut peer in peers {
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    }
}

fn serve_five_thousand() {
    let signals = pila::signals([Signal::TERMINATE]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    say(&listener.local_addr().unwrap().to_string());
    let (group, dropped, place) = (Group::new(), Count::default(), Rc::new(Cell::new(0)));
    let (ours, count, line) = (group.clone(), dropped.clone(), place.clone());
    // Not one of them, so that their numbers say which connection they serve: the first has number 2.
    pila::tasklet(move || {
        let mut accepted = 0;
        while let Some(connection) = ours.until_stop(|| listener.accept()) {
            let (mut stream, _) = connection.unwrap();
            let (theirs, counted) = (ours.clone(), count.one());
            accepted += 1;
            let name = match accepted {
                2_500 => "stubborn",
                1..=999 => "patient",
                _ => "kind",
            };
            let serve = move || {
                let _counted = counted;
                stream.read_exact(&mut [0]).unwrap();
                stream.write_all(b"y").unwrap();
                match name {
                    "stubborn" => loop {
                        let _ = catch_unwind(AssertUnwindSafe(|| stream.read(&mut [0]).is_err()));
                    },
                    "patient" => drop(stream.read(&mut [0])),
                    _ => _ = theirs.until_stop(|| stream.read(&mut [0])),
                }
            };
            line.set(line!() + 1);
            let tasklet = ours.tasklet_with(Builder::new().name(name), serve);
            drop(tasklet.unwrap());
            if accepted == CONNECTIONS {
                say(&format!("{accepted} connections"));
            }
        }
    });
    assert_eq!(signals.receive().unwrap(), Signal::TERMINATE);
    let before = in_line("/proc/thread-self");
    let stopped = group.stop(GRACE);
    say(&format!("{}:{}:32", file!(), place.get()));
    say(&stopped.to_string());
    say(&format!("{} of {CONNECTIONS} dropped", dropped.get()));
    say(&(in_line("/proc/thread-self") - before).as_millis().to_string());
    exit(7);
}

/// The example, listening, and its address.
fn graceful_echo(arguments: &[&str]) -> (Child, SocketAddr) {
    let mut command = example("graceful_echo");
    let child = Child::start(command.args(arguments));
    let line = child.line();
    let address = line.strip_prefix("listening at ").expect("it says where it listens").parse();
    (child, address.unwrap())
}

/// A connection that has had its first answer.
fn talk(address: SocketAddr) -> net::TcpStream {
    let mut stream = net::TcpStream::connect(address).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
    stream
}

#[test]
fn graceful_echo_lets_its_connections_end() {
    for (signal, name) in [(process::Signal::INT, "SIGINT"), (process::Signal::TERM, "SIGTERM")] {
        let (child, address) = graceful_echo(&["--grace", "60"]);
        let peers: Vec<_> = (0..3).map(|_| talk(address)).collect();
        child.send(signal);
        assert_eq!(child.line(), format!("{name}: 3 connections have 60s to end"));
        assert_eq!(child.line(), "3 ended by themselves, 0 killed, 0 still alive");
        let end = child.end(PATIENCE);
        assert_eq!((end.status.code(), end.errors.as_str()), (Some(0), ""));
        for mut peer in peers {
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        }
    }
}

#[test]
fn graceful_echo_ends_whoever_does_not_listen() {
    let (child, address) = graceful_echo(&["--grace", "0.5"]);
    let (_kind, deaf) = (talk(address), talk(address));
    // What comes back is not read, until the server waits for room.
    deaf.set_nonblocking(true).unwrap();
    while (&deaf).write(&[0; 65_536]).is_ok() || still_drains(&deaf) {}
    child.send(process::Signal::INT);
    assert_eq!(child.line(), "SIGINT: 2 connections have 500ms to end");
    assert_eq!(child.line(), "1 ended by themselves, 1 killed, 0 still alive");
    assert_eq!(child.end(PATIENCE).status.code(), Some(0));
}

/// Whether there is room again a moment after there was none.
fn still_drains(mut stream: &net::TcpStream) -> bool {
    pila::sleep(Duration::from_millis(50));
    stream.write(&[0]).is_ok()
}

#[test]
fn graceful_echo_ends_at_once_at_the_second_ctrl_c() {
    let (mut child, address) = graceful_echo(&["--grace", "60"]);
    let deaf = talk(address);
    deaf.set_nonblocking(true).unwrap();
    while (&deaf).write(&[0; 65_536]).is_ok() || still_drains(&deaf) {}
    child.send(process::Signal::INT);
    assert_eq!(child.line(), "SIGINT: 1 connections have 60s to end");
    // What comes before the stop has begun waits to be received.
    let begun = Stopwatch::start();
    while !child.has_ended() {
        child.send(process::Signal::INT);
        pila::sleep(Duration::from_millis(10));
    }
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    let end = child.end(PATIENCE);
    assert_eq!(end.status.code(), Some(130), "{end:?}");
    assert_eq!(end.errors, "SIGINT while tasklets were being stopped: the process ends at once\n");
}
