//! The same program on std's types and on these: the same values, the same errors, the same text.

use std::io::{ErrorKind, Read, Write};
use std::net::{self, Shutdown};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use net_support::{again_portably, bounded, pair, pair_with_std, refusing};
use pila::net as ours;

mod net_support;

/// What `$body` gives with either module's types.
macro_rules! on_both {
    ($result:ty, $body:block) => {{
        mod with_std {
            use super::*;
            use std::net::{TcpListener, TcpStream};
            pub(super) fn outcome() -> $result $body
        }
        mod with_pila {
            use super::*;
            use pila::net::{TcpListener, TcpStream};
            pub(super) fn outcome() -> $result $body
        }
        (bounded(with_std::outcome), bounded(with_pila::outcome))
    }};
}

/// Kind and text of an error, and the system's number.
type Failure = (ErrorKind, String, Option<i32>);

fn failure<T>(result: std::io::Result<T>) -> Option<Failure> {
    let error = result.err()?;
    Some((error.kind(), error.to_string(), error.raw_os_error()))
}

#[test]
fn errors_are_stds() {
    let (std, pila) = on_both!(Vec<Option<Failure>>, {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        let mut outcome = vec![
            failure(TcpListener::bind(address)),
            failure(TcpListener::bind("192.0.2.1:0")),
            failure(TcpListener::bind(&[][..])),
            failure(TcpStream::connect(&[][..])),
            failure(TcpStream::connect("no port")),
        ];
        let (_refuses, refusing) = refusing();
        outcome.push(failure(TcpStream::connect_timeout(&refusing, Duration::ZERO)));
        outcome.push(failure(client.set_read_timeout(Some(Duration::ZERO))));
        outcome.push(failure(client.set_write_timeout(Some(Duration::ZERO))));
        client.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        outcome.push(failure(client.read(&mut [0])));
        outcome.push(failure(client.peek(&mut [0])));
        client.set_nonblocking(true).unwrap();
        outcome.push(failure(client.read(&mut [0])));
        listener.set_nonblocking(true).unwrap();
        outcome.push(failure(listener.accept()));
        client.shutdown(Shutdown::Write).unwrap();
        outcome.push(failure(client.write(b"x")));
        drop(server);
        let mut end = 1;
        while end != 0 {
            end = client.read(&mut [0]).unwrap_or(1);
        }
        outcome.push(failure(client.shutdown(Shutdown::Both)));
        outcome.push(failure(client.peer_addr()));
        outcome.push(failure(TcpStream::connect(refusing)));
        outcome.push(failure(TcpStream::connect_timeout(&refusing, Duration::from_secs(5))));
        outcome
    });
    assert_eq!(pila, std);
    assert!(std.iter().filter(|failure| failure.is_some()).count() >= 15);
}

#[test]
fn options_are_stds() {
    let (std, pila) = on_both!(String, {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut outcome = format!(
            "{:?} {:?} {:?} {:?} {:?}",
            client.nodelay(),
            client.ttl(),
            client.read_timeout(),
            client.take_error(),
            listener.ttl(),
        );
        client.set_nodelay(true).unwrap();
        client.set_ttl(9).unwrap();
        listener.set_ttl(8).unwrap();
        client.set_read_timeout(Some(Duration::from_micros(1))).unwrap();
        client.set_write_timeout(Some(Duration::from_secs(3))).unwrap();
        outcome += &format!(
            "{:?} {:?} {:?} {:?} {:?} {:?}",
            client.nodelay(),
            client.ttl(),
            client.read_timeout(),
            client.write_timeout(),
            listener.ttl(),
            listener.take_error(),
        );
        assert_eq!(client.peer_addr().unwrap(), listener.local_addr().unwrap());
        outcome
    });
    assert_eq!(pila, std);
}

#[test]
fn ends_and_partial_reads_are_stds() {
    let (std, pila) = on_both!(Vec<usize>, {
        let listener =
            TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"0123456789").unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        let mut buffer = [0; 4];
        let mut outcome = vec![client.read(&mut []).unwrap(), client.peek(&mut buffer).unwrap()];
        for _ in 0..5 {
            outcome.push(client.read(&mut buffer).unwrap());
        }
        outcome
    });
    assert_eq!(pila, std);
    assert_eq!(std, [0, 4, 4, 4, 2, 0, 0]);
}

#[test]
fn debug_reads_as_stds() {
    bounded(|| {
        let listener = ours::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = ours::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (listener_text, stream_text) = (format!("{listener:?}"), format!("{stream:#?}"));
        let (listener, stream) = (net::TcpListener::from(listener), net::TcpStream::from(stream));
        assert_eq!(format!("{listener:?}"), listener_text);
        assert_eq!(format!("{stream:#?}"), stream_text);
        assert!(stream_text.starts_with("TcpStream {"));
    });
}

#[test]
fn every_address_is_tried_until_one_answers() {
    bounded(|| {
        let listener = ours::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (_refuses, gone) = refusing();
        let stream = ours::TcpStream::connect(&[gone, address][..]).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        let failure = ours::TcpStream::connect(&[gone, gone][..]).unwrap_err();
        assert_eq!(failure.kind(), ErrorKind::ConnectionRefused);
    });
}

/// Whether the system has `socket` as nonblocking.
fn is_nonblocking(socket: impl AsRawFd) -> bool {
    const NONBLOCK: u32 = 0o4000;
    let path = format!("/proc/self/fdinfo/{}", socket.as_raw_fd());
    let text = std::fs::read_to_string(path).expect("Linux has it");
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).expect("it has flags");
    u32::from_str_radix(flags.trim(), 8).expect("they are octal") & NONBLOCK != 0
}

#[test]
fn what_is_given_to_std_blocks_unless_asked_otherwise() {
    for nonblocking in [false, true] {
        let listener = ours::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = ours::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        for stream in [client, server] {
            stream.set_nonblocking(nonblocking).unwrap();
            assert_eq!(is_nonblocking(net::TcpStream::from(stream)), nonblocking);
        }
        listener.set_nonblocking(nonblocking).unwrap();
        assert_eq!(is_nonblocking(net::TcpListener::from(listener)), nonblocking);
    }
}

#[test]
fn stds_sockets_wait_as_ours_once_taken_over() {
    bounded(|| {
        for nonblocking in [false, true] {
            let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            listener.set_nonblocking(nonblocking).unwrap();
            let listener = ours::TcpListener::from(listener);
            let acceptor = pila::tasklet(move || listener.accept().unwrap().0);
            pila::schedule();
            let client = net::TcpStream::connect(address).unwrap();
            client.set_nonblocking(nonblocking).unwrap();
            let mut client = ours::TcpStream::from(client);
            let mut server = acceptor.join().unwrap();
            let reader = pila::tasklet(move || client.read(&mut [0; 8]).unwrap());
            pila::schedule();
            server.write_all(b"hello").unwrap();
            assert_eq!(reader.join().unwrap(), 5);
        }
    });
}

#[test]
fn a_duplicate_that_std_keeps_is_not_disturbed() {
    bounded(|| {
        let (client, mut server) = pair_with_std();
        let client = net::TcpStream::from(client);
        let mut duplicate = client.try_clone().unwrap();
        let mut client = ours::TcpStream::from(client);
        // std's read blocks a thread of its own while a tasklet waits on the same connection.
        let blocked = std::thread::spawn(move || duplicate.read(&mut [0; 1]).unwrap());
        let reader = pila::tasklet(move || client.read(&mut [0; 1]).unwrap());
        pila::schedule();
        server.write_all(b"xy").unwrap();
        assert_eq!(reader.join().unwrap(), 1);
        assert_eq!(blocked.join().unwrap(), 1);
    });
}

#[test]
fn descriptors_go_out_and_come_back() {
    bounded(|| {
        let (client, mut server) = pair();
        let number = client.as_raw_fd();
        assert_eq!(client.as_fd().as_raw_fd(), number);
        let descriptor = OwnedFd::from(client);
        assert_eq!(descriptor.as_raw_fd(), number);
        let mut client = ours::TcpStream::from(descriptor);
        let reader = pila::tasklet(move || {
            client.read_exact(&mut [0]).unwrap();
            client
        });
        pila::schedule();
        server.write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap().into_raw_fd(), number);

        let listener = ours::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = ours::TcpListener::from(OwnedFd::from(listener));
        assert_eq!(listener.local_addr().unwrap(), address);
    });
}

#[test]
fn all_this_holds_portably() {
    again_portably();
}
