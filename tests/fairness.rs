//! What those whose sockets are always ready leave to everybody else: a turn, and time that is not late.
//!
//! None of the busy ones here ever has to wait, so nothing but the stint makes them let others run.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write, pipe};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use net_support::{again_portably, pair};
use pila::net::{TcpListener, UdpSocket, UnixDatagram, UnixStream, Watch};

mod net_support;

/// How many calls a tasklet makes before it lets others run, and how many bytes go as one more of them.
const STINT: usize = 128;
const PIECE: usize = 8192;

/// Something that a busy tasklet does over and over, and how many of its calls that is.
type Busy = Box<dyn FnMut() -> usize>;

/// Writes to one end and reads from the other.
fn there_and_back(mut one: impl Write + 'static, mut other: impl Read + 'static) -> Busy {
    Box::new(move || {
        one.write_all(&[7; 64]).unwrap();
        other.read_exact(&mut [0; 64]).unwrap();
        2
    })
}

fn on_tcp() -> Busy {
    let (client, server) = pair();
    there_and_back(client, server)
}

fn on_unix() -> Busy {
    let (one, other) = UnixStream::pair().unwrap();
    there_and_back(one, other)
}

fn on_udp() -> Busy {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    Box::new(move || {
        socket.send_to(b"hello", address).unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 5);
        2
    })
}

fn on_datagrams() -> Busy {
    let (one, other) = UnixDatagram::pair().unwrap();
    Box::new(move || {
        one.send(b"hello").unwrap();
        other.recv_from(&mut [0; 8]).unwrap();
        2
    })
}

fn on_peeks() -> Busy {
    let (client, mut server) = pair();
    server.write_all(b"x").unwrap();
    Box::new(move || client.peek(&mut [0; 8]).unwrap())
}

fn on_a_watch() -> Busy {
    let (output, mut input) = pipe().unwrap();
    input.write_all(b"x").unwrap();
    let output = Watch::new(output);
    Box::new(move || {
        output.readable().unwrap();
        1
    })
}

/// What a busy socket is called, and how it is made.
type Kind = (&'static str, fn() -> Busy);

const KINDS: [Kind; 6] = [
    ("tcp", on_tcp),
    ("unix", on_unix),
    ("udp", on_udp),
    ("datagrams", on_datagrams),
    ("peeks", on_peeks),
    ("a watch", on_a_watch),
];

/// How many calls others make between two turns of a tasklet that only yields, at most.
fn most_between_turns(busy: Vec<Busy>) -> usize {
    let (calls, stop) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let tasklets: Vec<_> = busy
        .into_iter()
        .map(|mut busy| {
            let (calls, stop) = (Rc::clone(&calls), Rc::clone(&stop));
            pila::tasklet(move || {
                while !stop.get() {
                    // Others run in there.
                    let made = busy();
                    calls.set(calls.get() + made);
                }
            })
        })
        .collect();
    let mut most = 0;
    for _ in 0..200 {
        calls.set(0);
        pila::schedule();
        most = most.max(calls.get());
    }
    stop.set(true);
    for tasklet in tasklets {
        tasklet.join().unwrap();
    }
    most
}

/// Asserts that a tasklet is not late, as a rule, that sleeps for a millisecond again and again.
#[track_caller]
fn assert_in_time(name: &str) {
    const TICK: Duration = Duration::from_millis(1);
    const TICKS: usize = 100;
    const LATE: Duration = Duration::from_millis(2);

    let round = || {
        let mut late = [(); TICKS].map(|()| {
            let start = Instant::now();
            pila::sleep(TICK);
            start.elapsed() - TICK
        });
        late.sort_unstable();
        (late[TICKS / 2], late[TICKS - 1])
    };
    let mut rounds: Vec<_> = Vec::new();
    // Somebody else may have had the processor in one of them.
    while rounds.len() < 10 && rounds.iter().all(|&(middle, _)| middle >= LATE) {
        rounds.push(round());
    }
    let (middle, worst) = rounds.into_iter().min().expect("there is one");
    eprintln!("{name}: a tick of 1 ms is late by {middle:?}, {worst:?} at the worst");
    assert!(middle < LATE, "{name}: late by {middle:?}");
}

/// As [`bounded`](net_support::bounded), one after the other, for what is measured here is the thread's time.
#[track_caller]
fn bounded(body: impl FnOnce() + Send + 'static) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    net_support::bounded(body);
}

/// Runs `busy` until `body` is done.
fn beside<T>(mut busy: Busy, body: impl FnOnce() -> T) -> T {
    let stop = Rc::new(Cell::new(false));
    let stopped = Rc::clone(&stop);
    let tasklet = pila::tasklet(move || {
        while !stopped.get() {
            busy();
        }
    });
    let done = body();
    stop.set(true);
    tasklet.join().unwrap();
    done
}

#[test]
fn a_busy_socket_lets_others_run_after_its_stint() {
    bounded(|| {
        for (name, kind) in KINDS {
            let most = most_between_turns(vec![kind()]);
            assert!(most > STINT / 2, "{name} makes way after {most} calls");
            // The first call of all may have had to wait, which costs nothing.
            assert!(most <= STINT + 1, "{name} makes way only after {most} calls");
        }
    });
}

#[test]
fn each_of_several_busy_sockets_has_its_stint() {
    bounded(|| {
        let most = most_between_turns(KINDS.map(|(_, kind)| kind()).into());
        assert!(most <= KINDS.len() * (STINT + 1), "{most} calls");
    });
}

#[test]
fn many_bytes_count_as_many_calls() {
    bounded(|| {
        for size in [4 * PIECE, 16 * PIECE] {
            let (mut one, mut other) = UnixStream::pair().unwrap();
            let (sizes, mut buffer) = (vec![7; size], vec![0; size]);
            let busy: Busy = Box::new(move || {
                one.write_all(&sizes).unwrap();
                other.read_exact(&mut buffer).unwrap();
                2 * size / PIECE
            });
            // What a call has moved is counted after it.
            let most = most_between_turns(vec![busy]);
            assert!(most <= STINT + 2 * size / PIECE, "{size} at a time: {most} pieces");
        }
    });
}

#[test]
fn a_timer_is_not_late_though_a_socket_is_always_ready() {
    bounded(|| {
        for (name, kind) in KINDS {
            beside(kind(), || assert_in_time(name));
        }
    });
}

#[test]
fn a_timer_is_not_late_though_two_play_ping_pong() {
    bounded(|| {
        let stop = Rc::new(Cell::new(false));
        let (client, server) = pair();
        let players = [client, server].map(|mut stream| {
            let stop = Rc::clone(&stop);
            pila::tasklet(move || {
                // Several balls, so that there is always one to play.
                stream.write_all(&[0; 64 * 8]).unwrap();
                let mut ball = [0; 64];
                while !stop.get() && stream.read_exact(&mut ball).is_ok() {
                    if stream.write_all(&ball).is_err() {
                        break;
                    }
                }
            })
        });
        assert_in_time("ping-pong");
        stop.set(true);
        for player in players {
            player.join().unwrap();
        }
    });
}

#[test]
fn a_timer_is_not_late_though_another_thread_floods() {
    bounded(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let flood = thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            while stream.write_all(&[7; 1 << 16]).is_ok() {}
        });
        let mut stream = listener.accept().unwrap().0;
        let mut buffer = vec![0; 1 << 16];
        let busy: Busy = Box::new(move || stream.read(&mut buffer).unwrap());
        beside(busy, || assert_in_time("a flood"));
        flood.join().unwrap();
    });
}

#[test]
fn other_sockets_are_heard_beside_a_busy_one() {
    bounded(|| {
        let (mut client, mut server) = pair();
        let echo = pila::tasklet(move || {
            std::io::copy(&mut server.try_clone().unwrap(), &mut server).unwrap()
        });
        let (middle, count) = beside(on_tcp(), || {
            let mut times: Vec<_> = (0..100)
                .map(|_| {
                    let start = Instant::now();
                    client.write_all(b"hello").unwrap();
                    client.read_exact(&mut [0; 5]).unwrap();
                    start.elapsed()
                })
                .collect();
            times.sort_unstable();
            (times[50], times.len())
        });
        assert_eq!(count, 100);
        assert!(middle < Duration::from_millis(20), "an answer takes {middle:?}");
        drop(client);
        assert_eq!(echo.join().unwrap(), 500);
    });
}

#[test]
fn a_timeout_strikes_who_never_waits_and_a_kill_ends_it() {
    bounded(|| {
        for (name, kind) in KINDS {
            let mut busy = kind();
            let start = Instant::now();
            let struck = pila::timeout(Duration::from_millis(10), || {
                loop {
                    busy();
                }
            });
            assert!(struck.map(|never: std::convert::Infallible| never).is_err(), "{name}");
            assert!(start.elapsed() >= Duration::from_millis(10), "{name}");
            let mut busy = kind();
            let victim = pila::tasklet(move || {
                loop {
                    busy();
                }
            });
            pila::schedule();
            victim.kill().unwrap();
            assert!(matches!(victim.join(), Err(pila::JoinError::Killed)), "{name}");
        }
    });
}

#[test]
fn no_byte_is_lost_when_a_timeout_strikes_who_makes_way() {
    const MANY: u32 = 1 << 20;
    bounded(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let writer = thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            let numbers: Vec<u8> = (0..MANY).flat_map(u32::to_le_bytes).collect();
            stream.write_all(&numbers).unwrap();
        });
        let mut stream = listener.accept().unwrap().0;
        let (received, struck) = (RefCell::new(Vec::new()), Cell::new(0));
        let mut bytes = [0; 512];
        while received.borrow().len() < 4 * MANY as usize {
            let outcome = pila::timeout(Duration::from_micros(50), || {
                loop {
                    match stream.read(&mut bytes).unwrap() {
                        0 => return,
                        count => received.borrow_mut().extend_from_slice(&bytes[..count]),
                    }
                }
            });
            struck.set(struck.get() + u32::from(outcome.is_err()));
        }
        writer.join().unwrap();
        let received = received.into_inner();
        let numbers = received.chunks(4).map(|four| u32::from_le_bytes(four.try_into().unwrap()));
        assert!(numbers.eq(0..MANY));
        assert!(struck.get() > 10, "struck {} times", struck.get());
    });
}

#[test]
fn who_may_not_switch_goes_on() {
    bounded(|| {
        let mut busy = on_tcp();
        let turns = Rc::new(Cell::new(0));
        let counted = Rc::clone(&turns);
        let other = pila::tasklet(move || {
            loop {
                counted.set(counted.get() + 1);
                pila::schedule();
            }
        });
        let guard = pila::no_switch();
        for _ in 0..10 * STINT {
            busy();
        }
        assert_eq!(turns.get(), 0);
        drop(guard);
        busy();
        assert_eq!(turns.get(), 1);
        other.kill().unwrap();
    });
}

#[test]
fn nonblocking_calls_let_nobody_run() {
    bounded(|| {
        let (mut client, mut server) = pair();
        let turns = Rc::new(Cell::new(0));
        let counted = Rc::clone(&turns);
        let other = pila::tasklet(move || counted.set(1));
        client.set_nonblocking(true).unwrap();
        server.set_nonblocking(true).unwrap();
        for _ in 0..10 * STINT {
            client.write_all(b"x").unwrap();
            while server.read(&mut [0; 8]).is_err() {}
        }
        assert_eq!(turns.get(), 0);
        other.join().unwrap();
    });
}

#[test]
fn a_thread_that_has_no_tasklets_is_not_disturbed() {
    bounded(|| {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        for _ in 0..10 * STINT {
            one.write_all(b"x").unwrap();
            other.read_exact(&mut [0]).unwrap();
        }
        assert_eq!(pila::run().finished, 0);
    });
}

#[test]
fn all_this_holds_portably() {
    again_portably();
}
