//! Connections by the hundred thousand, which end well or badly, and nothing that is left of them.
//!
//! Client and server are tasklets of one thread. What there is after a warm-up must be all there is at the end.

use std::{
    cell::Cell,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    panic,
    rc::Rc,
    time::Duration,
};

use pila::net::{TcpListener, TcpStream};
use possessions::Possessions;
use rustix::net::sockopt::set_socket_linger;
use system::{alone, bounded, tell};

mod possessions;
mod system;

/// How many connections end well.
const CONNECTIONS: usize = if cfg!(debug_assertions) { 20_000 } else { 200_000 };

/// How many end badly, of each kind.
const ACCIDENTS: usize = 10_000;

/// How many the same thing is done with before anything is measured.
const WARM_UP: usize = 5_000;

/// How many clients there are at one time.
const AT_ONCE: usize = 200;

/// How many there are in the warm-up: more, so that it has needed more of everything.
const WARM_UP_AT_ONCE: usize = 300;

/// Many times what anything here takes.
const LIMIT: Duration = Duration::from_secs(400);

/// Who hangs up, and how the other end notices.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Client,
    Server,
    Reset,
    Timeout,
    Panic,
}

/// What the handlers' panics say, so that they can be told from those of the test.
const EXPECTED: &str = "a request nobody foresaw";

/// One connection from the server's side.
fn handle(mut stream: TcpStream, ending: Ending) {
    if let Ending::Timeout = ending {
        stream.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        let error = stream.read(&mut [0; 64]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        return;
    }
    let mut buffer = [0; 64];
    let count = stream.read(&mut buffer).unwrap();
    stream.write_all(&buffer[..count]).unwrap();
    match ending {
        Ending::Server | Ending::Timeout => {}
        Ending::Client => assert_eq!(stream.read(&mut buffer).unwrap(), 0),
        Ending::Reset => {
            let error = stream.read(&mut buffer).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        Ending::Panic => panic!("{EXPECTED}"),
    }
}

/// The same connection from the client's side.
fn call(address: SocketAddr, number: usize, ending: Ending) {
    let mut stream = TcpStream::connect(address).unwrap();
    if let Ending::Timeout = ending {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        return;
    }
    let question = number.to_le_bytes();
    let mut answer = [0; size_of::<usize>()];
    stream.write_all(&question).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, question);
    match ending {
        Ending::Client | Ending::Timeout => {}
        Ending::Server | Ending::Panic => assert_eq!(stream.read(&mut [0]).unwrap(), 0),
        Ending::Reset => set_socket_linger(&stream, Some(Duration::ZERO)).unwrap(),
    }
}

/// Opens and closes so many connections, which all end alike.
fn exchange(listener: &Rc<TcpListener>, connections: usize, at_once: usize, ending: Ending) {
    let port = listener.local_addr().unwrap().port();
    let accepting = listener.clone();
    let server = pila::tasklet(move || {
        for stream in accepting.incoming().take(connections) {
            let stream = stream.unwrap();
            pila::tasklet(move || supervise(stream, ending));
        }
    });
    let next = Rc::new(Cell::new(0));
    let clients: Vec<_> = (0..at_once)
        .map(|_| {
            let next = next.clone();
            pila::tasklet(move || {
                while next.get() < connections {
                    let number = next.replace(next.get() + 1);
                    // With one address the ports would not suffice: some are not free again for a minute.
                    let host = Ipv4Addr::new(127, 0, 0, 1 + (number % 8) as u8);
                    call(SocketAddr::from((host, port)), number, ending);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    server.join().unwrap();
    // For the handlers that have yet to hear of their connection's end.
    let summary = pila::run();
    assert_eq!(summary.blocked, 0);
}

fn supervise(stream: TcpStream, ending: Ending) {
    let handler = pila::tasklet(move || handle(stream, ending));
    match (handler.join(), ending) {
        (Err(error), Ending::Panic) => assert!(error.to_string().contains(EXPECTED), "{error}"),
        (outcome, _) => outcome.unwrap(),
    }
}

/// Asserts that `connections` connections leave nothing behind.
fn assert_leaves_nothing(name: &str, connections: usize, ending: Ending) {
    let _alone = alone();
    let (before, after) = bounded(LIMIT, move || {
        let listener = Rc::new(TcpListener::bind("0.0.0.0:0").unwrap());
        exchange(&listener, WARM_UP, WARM_UP_AT_ONCE, ending);
        let before = Possessions::now();
        exchange(&listener, connections, AT_ONCE, ending);
        (before, Possessions::now())
    });
    tell(&format!("{name}: {connections} connections\n  before {before:?}\n  after  {after:?}"));
    // Or there would be nothing to compare: the listener and the poller are there, and the stacks are kept warm.
    assert!(before.registered >= 1 && before.stack_mappings >= 1, "{before:?}");
    after.assert_back_at(&before);
}

/// Keeps the handlers' panics from being shown.
fn hush() {
    // What names a panicking tasklet is then a part of the hook that this one calls.
    drop(pila::current());
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.to_string().contains(EXPECTED) {
            previous(info);
        }
    }));
}

#[test]
fn soak_of_clients_that_hang_up_leaves_nothing() {
    assert_leaves_nothing("the client hangs up", CONNECTIONS / 2, Ending::Client);
}

#[test]
fn soak_of_servers_that_hang_up_leaves_nothing() {
    assert_leaves_nothing("the server hangs up", CONNECTIONS / 2, Ending::Server);
}

#[test]
fn soak_of_resets_leaves_nothing() {
    assert_leaves_nothing("reset", ACCIDENTS, Ending::Reset);
}

#[test]
fn soak_of_timeouts_leaves_nothing() {
    assert_leaves_nothing("read timeout", ACCIDENTS, Ending::Timeout);
}

#[test]
fn soak_of_panics_leaves_nothing() {
    hush();
    assert_leaves_nothing("the handler panics", ACCIDENTS, Ending::Panic);
}
