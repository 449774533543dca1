//! A limit on descriptors, met by a program that knows nothing of it: it waits its turn, in order, and nothing is lost,
//! nothing spins and nothing hangs.
//!
//! Each test runs itself a second time, as a process of its own with a limit of its own.

use std::{
    cell::{Cell, RefCell},
    env,
    fs::File,
    io::{self, ErrorKind, Read, Write},
    net,
    os::linux::net::SocketAddrExt,
    process::Command,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use pila::net::{
    Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixListener,
    UnixStream, unix,
};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use system::{Outcome, PATIENCE, alone, finish, tell};

mod system;

/// How many mails the big test sends.
const MAILS: usize = if cfg!(debug_assertions) { 5_000 } else { 20_000 };

/// Tells the second run of a test that it is one, and how many descriptors it may have.
const LIMIT: &str = "PILA_TEST_DESCRIPTORS";

/// Tells it where the server is that the first run has.
const SERVER: &str = "PILA_TEST_SERVER";

/// Runs the test `name` as a process that may have `limit` descriptors; `None` if this is that process.
fn limited(name: &str, limit: u64, server: Option<SocketAddr>) -> Option<Outcome> {
    if let Ok(limit) = env::var(LIMIT) {
        let current = Some(limit.parse().unwrap());
        setrlimit(Resource::Nofile, Rlimit { current, ..getrlimit(Resource::Nofile) }).unwrap();
        return None;
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(LIMIT, limit.to_string());
    if let Some(server) = server {
        command.env(SERVER, server.to_string());
    }
    let outcome = finish(&mut command, PATIENCE);
    assert_eq!(outcome.status, Some(0), "{}\n{}", outcome.stdout, outcome.stderr);
    Some(outcome)
}

/// Runs the test `name` as a process of its own that may have `limit` descriptors and does `body`.
fn with_limit(name: &str, limit: u64, body: impl FnOnce()) -> Option<Outcome> {
    let _alone = env::var_os(LIMIT).is_none().then(alone);
    let outcome = limited(name, limit, None);
    if outcome.is_none() {
        body();
    }
    outcome
}

/// Opens files until no descriptor is left.
fn take_all() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A server on a thread of its own, whose queue holds all that come.
fn queue() -> (net::TcpListener, SocketAddr) {
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn is_shortage(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::MFILE)
}

/// One mail, sent by somebody who never thought of descriptors.
fn send_mail(server: SocketAddr, number: usize) -> io::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    let mut reply = [0; 64];
    let mut expect = |stream: &mut TcpStream, code: &[u8]| {
        let count = stream.read(&mut reply)?;
        assert!(reply[..count].starts_with(code), "{:?}", &reply[..count]);
        io::Result::Ok(())
    };
    expect(&mut stream, b"220")?;
    stream.write_all(format!("MAIL {number}\r\n").as_bytes())?;
    expect(&mut stream, b"250")
}

/// Takes so many mails and counts how often each came. It greets after 5 ms.
fn sink(listener: TcpListener, mails: usize) -> Vec<usize> {
    let received = Rc::new(RefCell::new(vec![0; mails]));
    for stream in listener.incoming().take(mails) {
        let (mut stream, received) = (stream.unwrap(), received.clone());
        pila::tasklet(move || {
            pila::sleep(Duration::from_millis(5));
            stream.write_all(b"220 go\r\n").unwrap();
            let mut line = [0; 64];
            let count = stream.read(&mut line).unwrap();
            let line = str::from_utf8(&line[..count]).unwrap();
            let number: usize = line.strip_prefix("MAIL ").unwrap().trim().parse().unwrap();
            received.borrow_mut()[number] += 1;
            stream.write_all(b"250 received\r\n").unwrap();
            // It hangs up second: so it is the client whose port is not free again for a minute.
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        });
    }
    assert_eq!(pila::run().blocked, 0);
    received.take()
}

/// As [`with_limit`], with a server outside of the limit, which `serve`s until the process has ended.
fn with_limit_and_server(
    name: &str,
    limit: u64,
    serve: fn(net::TcpListener),
    body: impl FnOnce(SocketAddr),
) {
    if env::var_os(LIMIT).is_some() {
        limited(name, limit, None);
        return body(env::var(SERVER).unwrap().parse().unwrap());
    }
    let _alone = alone();
    let (listener, address) = queue();
    thread::spawn(move || serve(listener));
    limited(name, limit, Some(address));
}

/// Greets everyone and hangs up.
fn greet(listener: net::TcpListener) {
    for stream in listener.incoming() {
        // It may have gone.
        let _ = stream.unwrap().write_all(b"ok");
    }
}

/// Has the mails sent by a process with `limit` descriptors.
fn send_all_with(name: &str, limit: u64) -> Outcome {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let server = listener.local_addr().unwrap();
    let sink = thread::spawn(move || sink(listener, MAILS));
    let outcome = limited(name, limit, Some(server)).expect("this is the first run");
    assert_eq!(sink.join().unwrap(), vec![1; MAILS]);
    outcome
}

#[test]
fn mails_by_the_thousand_are_sent_with_256_descriptors() {
    const NAME: &str = "mails_by_the_thousand_are_sent_with_256_descriptors";
    if env::var_os(LIMIT).is_some() {
        limited(NAME, 0, None);
        let server: SocketAddr = env::var(SERVER).unwrap().parse().unwrap();
        let sent = Rc::new(Cell::new(0));
        for number in 0..MAILS {
            let sent = sent.clone();
            pila::tasklet(move || {
                // With one address so many connections would leave the system searching for free ports.
                let host = Ipv4Addr::new(127, 0, 0, 1 + (number % 8) as u8);
                send_mail((host, server.port()).into(), number).unwrap();
                sent.set(sent.get() + 1);
            });
        }
        pila::run();
        assert_eq!(sent.get(), MAILS);
        return;
    }
    let _alone = alone();
    let raised =
        Rlimit { current: getrlimit(Resource::Nofile).maximum, ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, raised).unwrap();
    let plenty = raised.current.map_or(MAILS as u64 + 100, |limit| limit.min(MAILS as u64 + 100));
    // What else the machine does may fall on one of the two runs, but not always on the same.
    let is_cheap = (0..3).any(|_| {
        let free = send_all_with(NAME, plenty);
        let tight = send_all_with(NAME, 256);
        tell(&format!(
            "{MAILS} mails: {:?} CPU in {:?} with {plenty} descriptors, {:?} in {:?} with 256",
            free.cpu, free.elapsed, tight.cpu, tight.elapsed
        ));
        // Two ticks: the time of a short run is not known better than that.
        tight.cpu <= free.cpu * 3 / 2 + Duration::from_millis(20)
    });
    assert!(is_cheap, "with 256 descriptors it takes over 3/2 of the processor time");
}

#[test]
fn whoever_came_first_connects_first() {
    with_limit_and_server("whoever_came_first_connects_first", 40, greet, |address| {
        const ALL: usize = 500;
        let (order, open) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0)));
        let connect = move |number: usize, order: &RefCell<Vec<usize>>| {
            let stream = TcpStream::connect(address).unwrap();
            order.borrow_mut().push(number);
            stream
        };
        for number in 0..ALL {
            let (order, open) = (order.clone(), open.clone());
            pila::tasklet(move || {
                let stream = connect(number, &order);
                open.set(open.get() + 1);
                assert!(open.get() < 40);
                (0..number % 3).for_each(|_| pila::schedule());
                drop(stream);
                open.set(open.get() - 1);
                if number == 0 {
                    // A latecomer, which stands behind all of them.
                    connect(ALL, &order);
                }
            });
        }
        assert_eq!(pila::run().finished, ALL);
        // They get their sockets one after the other. How soon each is connected is not for the line to say, but there
        // are 40 at most who may overtake each other meanwhile.
        let order = order.take();
        let place = |number| order.iter().position(|&other| other == number).unwrap();
        assert!((0..=ALL).all(|number| place(number).abs_diff(number) <= 40), "{order:?}");
    });
}

#[test]
fn a_connect_that_is_killed_in_line_leaves_its_place_to_the_next() {
    with_limit("a_connect_that_is_killed_in_line_leaves_its_place_to_the_next", 40, || {
        let (_listener, address) = queue();
        let first = TcpStream::connect(address).unwrap();
        let taken = take_all();
        let waiting: Vec<_> =
            (0..3).map(|_| pila::tasklet(move || TcpStream::connect(address))).collect();
        pila::schedule();
        assert!(waiting.iter().all(|tasklet| tasklet.is_blocked()));
        // Both the one whose turn is next and one in the middle.
        waiting[0].kill().unwrap();
        waiting[1].kill().unwrap();
        drop(first);
        let last = waiting.into_iter().next_back().unwrap();
        assert_eq!(last.join().unwrap().unwrap().peer_addr().unwrap(), address);
        drop(taken);
    });
}

#[test]
fn a_connect_that_is_killed_with_the_descriptor_at_hand_passes_it_on() {
    with_limit("a_connect_that_is_killed_with_the_descriptor_at_hand_passes_it_on", 40, || {
        let (_listener, address) = queue();
        let first = TcpStream::connect(address).unwrap();
        let _taken = take_all();
        let killed = pila::tasklet(move || TcpStream::connect(address));
        let served = pila::tasklet(move || {
            let start = Instant::now();
            TcpStream::connect(address).unwrap();
            start.elapsed()
        });
        pila::schedule();
        // It is told of the descriptor, and killed before its turn.
        drop(first);
        killed.kill().unwrap();
        // Not by its own trying: that would begin 10 ms later at the earliest.
        assert!(served.join().unwrap() < Duration::from_millis(9));
    });
}

#[test]
fn the_time_in_line_counts() {
    with_limit("the_time_in_line_counts", 40, || {
        let (_listener, address) = queue();
        let _first = TcpStream::connect(address).unwrap();
        let _taken = take_all();
        let timeout = Duration::from_millis(50);
        let start = Instant::now();
        let error = TcpStream::connect_timeout(&address, timeout).unwrap_err();
        assert!(
            start.elapsed() >= timeout && start.elapsed() < 5 * timeout,
            "{:?}",
            start.elapsed()
        );
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let text =
            "connection timed out: no descriptor left (RLIMIT_NOFILE 40); raise it with ulimit -n";
        assert_eq!(error.to_string(), text);

        let start = Instant::now();
        let late = pila::timeout(timeout, || TcpStream::connect(address));
        assert_eq!(late.unwrap_err().limit(), timeout);
        assert!(start.elapsed() < 5 * timeout, "{:?}", start.elapsed());
    });
}

#[test]
fn a_descriptor_that_somebody_else_gives_back_is_found() {
    with_limit("a_descriptor_that_somebody_else_gives_back_is_found", 40, || {
        let (_listener, address) = queue();
        drop(TcpStream::connect(address).unwrap());
        let taken = take_all();
        let connects = pila::tasklet(move || TcpStream::connect(address).unwrap());
        pila::sleep(Duration::from_millis(100));
        assert!(connects.is_blocked());
        drop(taken);
        connects.join().unwrap();
    });
}

#[test]
fn where_others_have_all_descriptors_connecting_fails_within_seconds() {
    with_limit("where_others_have_all_descriptors_connecting_fails_within_seconds", 40, || {
        let (_listener, address) = queue();
        // The poller has what it needs.
        drop(TcpStream::connect(address).unwrap());
        let _taken = take_all();
        let start = Instant::now();
        let connects: Vec<_> =
            (0..2_000).map(|_| pila::tasklet(move || TcpStream::connect(address))).collect();
        for connect in connects {
            assert!(is_shortage(&connect.join().unwrap().unwrap_err()));
            assert!(start.elapsed() >= Duration::from_secs(1));
        }
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    });
}

#[test]
fn a_thread_without_descriptors_for_its_poller_is_told_so() {
    with_limit("a_thread_without_descriptors_for_its_poller_is_told_so", 40, || {
        let (_listener, address) = queue();
        let _taken = take_all();
        let error = pila::tasklet(move || TcpStream::connect(address)).join().unwrap().unwrap_err();
        assert!(is_shortage(&error), "{error}");
    });
}

#[test]
fn a_thread_gets_its_poller_when_there_are_descriptors_again() {
    with_limit("a_thread_gets_its_poller_when_there_are_descriptors_again", 40, || {
        let (listener, address) = queue();
        let mut near = net::TcpStream::connect(address).unwrap();
        let far = TcpStream::from(listener.accept().unwrap().0);
        let mut taken = take_all();
        let reader = thread::spawn(move || (&far).read(&mut [0; 8]).unwrap());
        thread_sleep(Duration::from_millis(50));
        // One after the other: a poller takes several.
        for _ in 0..4 {
            taken.pop();
            thread_sleep(Duration::from_millis(20));
        }
        near.write_all(b"hello").unwrap();
        assert_eq!(reader.join().unwrap(), 5);
    });
}

#[allow(clippy::disallowed_methods, reason = "a thread that has no tasklets")]
fn thread_sleep(duration: Duration) {
    thread::sleep(duration);
}

#[test]
fn tasklets_that_hold_a_connection_and_want_another_are_not_stuck_for_ever() {
    with_limit(
        "tasklets_that_hold_a_connection_and_want_another_are_not_stuck_for_ever",
        40,
        || {
            // A proxy: all that it may have is taken by those who have come before one could be passed on.
            let (backend, backend_address) = queue();
            let (listener, address) = listen();
            let served = Rc::new(Cell::new(0));
            let failed = Rc::new(Cell::new(0));
            let clients: Vec<_> = thread::spawn(move || {
                // The clients live in this process as well, but are made before the limit is.
                (0..8).map(|_| net::TcpStream::connect(address).unwrap()).collect()
            })
            .join()
            .unwrap();
            let streams: Vec<_> = (0..8).map(|_| listener.accept().unwrap().0).collect();
            let taken = take_all();
            for stream in streams {
                let (served, failed) = (served.clone(), failed.clone());
                pila::tasklet(move || {
                    match TcpStream::connect(backend_address) {
                        Ok(_upstream) => served.set(served.get() + 1),
                        Err(error) => {
                            assert!(is_shortage(&error), "{error}");
                            failed.set(failed.get() + 1);
                        }
                    }
                    drop(stream);
                });
            }
            let start = Instant::now();
            assert_eq!(pila::run().blocked, 0);
            // One had to go; what it had was enough for all the others.
            assert_eq!((served.get(), failed.get()), (7, 1));
            assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
            drop((taken, clients, backend));
        },
    );
}

#[test]
fn a_line_goes_on_though_somebody_in_it_ended_with_its_thread() {
    with_limit("a_line_goes_on_though_somebody_in_it_ended_with_its_thread", 40, || {
        let (_listener, address) = queue();
        let first = TcpStream::connect(address).unwrap();
        let taken = take_all();
        // The thread's main leaves without looking after its tasklet, which is the head of the line.
        let other = thread::spawn(move || {
            pila::tasklet(move || TcpStream::connect(address));
            pila::schedule();
        });
        other.join().unwrap();
        let connects = pila::tasklet(move || TcpStream::connect(address).unwrap());
        pila::schedule();
        drop(first);
        connects.join().unwrap();
        drop(taken);
    });
}

#[test]
fn threads_share_the_line() {
    with_limit_and_server("threads_share_the_line", 64, greet, |address| {
        const EACH: usize = 300;
        let threads = [(); 3].map(|()| {
            thread::spawn(move || {
                for _ in 0..EACH {
                    pila::tasklet(move || {
                        let mut stream = TcpStream::connect(address).unwrap();
                        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 2);
                    });
                }
                pila::run().finished
            })
        });
        assert_eq!(threads.map(|thread| thread.join().unwrap()), [EACH; 3]);
    });
}

#[test]
fn a_listener_without_descriptors_waits_and_says_so_once_a_second() {
    const NAME: &str = "a_listener_without_descriptors_waits_and_says_so_once_a_second";
    let outcome = with_limit(NAME, 40, || {
        let (listener, address) = listen();
        let mut clients: Vec<_> =
            (0..3).map(|_| net::TcpStream::connect(address).unwrap()).collect();
        println!("listens at {address}.");
        let mut taken = take_all();
        let server = pila::tasklet(move || {
            let streams: Vec<_> = (0..3).map(|_| listener.accept().unwrap().0).collect();
            streams.into_iter().map(|mut stream| stream.read(&mut [0; 8]).unwrap()).sum::<usize>()
        });
        // The first is served from the reserve, the others wait.
        pila::sleep(Duration::from_millis(1_500));
        assert!(server.is_blocked());
        taken.truncate(taken.len() - 2);
        for client in &mut clients {
            client.write_all(b"hello").unwrap();
        }
        assert_eq!(server.join().unwrap(), 15);
    });
    let Some(outcome) = outcome else { return };
    let (_, address) = outcome.stdout.split_once("listens at ").unwrap();
    let address = address.split_once(".\n").unwrap().0;
    let line = format!(
        "pila: accept on {address}: no descriptor left (RLIMIT_NOFILE 40): waiting; raise it with ulimit -n"
    );
    let lines = outcome.stderr.lines().filter(|&said| said == line).count();
    assert!((2..=3).contains(&lines), "{}", outcome.stderr);
    assert!(outcome.cpu <= Duration::from_millis(50), "{:?} of processor time", outcome.cpu);
}

#[test]
fn a_server_goes_on_though_files_have_taken_all_descriptors() {
    with_limit("a_server_goes_on_though_files_have_taken_all_descriptors", 40, || {
        let (listener, address) = listen();
        let listener = Rc::new(listener);
        let theirs = listener.clone();
        let mut clients: Vec<_> =
            (0..5).map(|_| net::TcpStream::connect(address).unwrap()).collect();
        // From here on everything is taken but the reserve.
        let taken = take_all();
        let server = pila::tasklet(move || {
            for stream in theirs.incoming().take(5) {
                let mut stream = stream.unwrap();
                pila::tasklet(move || {
                    let mut buffer = [0; 8];
                    let count = stream.read(&mut buffer).unwrap();
                    stream.write_all(&buffer[..count]).unwrap();
                });
            }
        });
        for client in &mut clients {
            client.write_all(b"hello").unwrap();
        }
        server.join().unwrap();
        pila::run();
        for client in &mut clients {
            let mut answer = [0; 5];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"hello");
        }
        // And the last one is kept again, as long as there is a listener.
        assert!(File::open("/dev/null").is_err());
        drop(listener);
        assert!(File::open("/dev/null").is_ok());
        drop(taken);
    });
}

#[test]
fn a_server_and_its_clients_get_by_in_one_process() {
    const NAME: &str = "a_server_and_its_clients_get_by_in_one_process";
    with_limit(NAME, 40, || {
        // At first the clients take all there is, and wait for a server that has nothing to accept them with.
        let (listener, address) = listen();
        let server = pila::tasklet(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                pila::tasklet(move || io::copy(&mut &stream, &mut &stream).unwrap());
            }
        });
        let clients: Vec<_> = (0..500_u32)
            .map(|number| {
                pila::tasklet(move || {
                    let (mut stream, mut answer) = (TcpStream::connect(address).unwrap(), [0; 4]);
                    stream.write_all(&number.to_le_bytes()).unwrap();
                    stream.read_exact(&mut answer).unwrap();
                    assert_eq!(u32::from_le_bytes(answer), number);
                })
            })
            .collect();
        let start = Instant::now();
        for client in clients {
            client.join().unwrap();
        }
        server.kill().unwrap();
        assert_eq!(pila::run().blocked, 0);
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    });
}

#[test]
fn unix_sockets_and_datagrams_wait_their_turn_as_well() {
    const NAME: &str = "unix_sockets_and_datagrams_wait_their_turn_as_well";
    with_limit(NAME, 40, || {
        let name = format!("{NAME}-{}", std::process::id());
        let address = unix::SocketAddr::from_abstract_name(name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let server = pila::tasklet(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                pila::tasklet(move || io::copy(&mut &stream, &mut &stream).unwrap());
            }
        });
        let clients: Vec<_> = (0..300_u32)
            .map(|number| {
                let address = address.clone();
                pila::tasklet(move || {
                    let mut answer = [0; 4];
                    let mut stream = UnixStream::connect_addr(&address).unwrap();
                    stream.write_all(&number.to_le_bytes()).unwrap();
                    stream.read_exact(&mut answer).unwrap();
                    assert_eq!(u32::from_le_bytes(answer), number);
                    drop(stream);
                    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                    socket.send_to(b"hello", socket.local_addr().unwrap()).unwrap();
                    assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 5);
                    drop(socket);
                    let (one, other) = UnixDatagram::pair().unwrap();
                    one.send(b"hello").unwrap();
                    assert_eq!(other.recv(&mut [0; 8]).unwrap(), 5);
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        server.kill().unwrap();
        assert_eq!(pila::run().blocked, 0);
    });
}

#[test]
fn an_acceptor_without_a_client_takes_no_place_in_line() {
    with_limit("an_acceptor_without_a_client_takes_no_place_in_line", 40, || {
        let (listener, address) = listen();
        let (_other, other_address) = queue();
        let first = TcpStream::connect(other_address).unwrap();
        let _taken = take_all();
        let acceptor = pila::tasklet(move || listener.accept().map(|(stream, _)| stream));
        let connects = pila::tasklet(move || TcpStream::connect(other_address).unwrap());
        pila::schedule();
        drop(first);
        let stream = connects.join().unwrap();
        assert!(acceptor.is_blocked());
        drop(stream);
        let client = TcpStream::connect(address).unwrap();
        acceptor.join().unwrap().unwrap();
        drop(client);
    });
}

#[test]
fn a_listener_that_must_not_wait_is_told_at_once() {
    with_limit("a_listener_that_must_not_wait_is_told_at_once", 40, || {
        let (listener, address) = listen();
        let _client = net::TcpStream::connect(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let _taken = take_all();
        assert!(is_shortage(&listener.accept().unwrap_err()));
    });
}
