//! What timeouts promise: std's kinds, never early, never in the way of what came in time.

use std::io::{ErrorKind, Read, Write};
use std::net;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use net_support::{again_portably, bounded, pair, pair_with_std};
use pila::net::{TcpListener, TcpStream};
use rustix::net::sockopt::{Timeout, socket_timeout};

mod net_support;

const SHORT: Duration = Duration::from_millis(20);

#[test]
fn a_read_that_is_out_of_time_would_block_and_is_never_early() {
    bounded(|| {
        let (mut client, _server) = pair();
        for micros in [1, 999, 1_000, 1_001, 1_500, 20_000] {
            let timeout = Duration::from_micros(micros);
            client.set_read_timeout(Some(timeout)).unwrap();
            let start = Instant::now();
            let failure = client.read(&mut [0; 8]).unwrap_err();
            assert!(
                start.elapsed() >= timeout,
                "{:?} is shorter than {timeout:?}",
                start.elapsed()
            );
            assert_eq!(failure.kind(), ErrorKind::WouldBlock);
            assert_eq!(client.peek(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        }
    });
}

#[test]
fn a_write_that_is_out_of_time_would_block() {
    bounded(|| {
        let (mut client, _server) = pair();
        client.set_write_timeout(Some(SHORT)).unwrap();
        let chunk = vec![0; 1 << 20];
        let mut start = Instant::now();
        let mut sent = 0;
        let failure = loop {
            match client.write(&chunk) {
                Ok(some) => sent += some,
                Err(error) => break error,
            }
            start = Instant::now();
        };
        assert!(sent > 0);
        assert_eq!(failure.kind(), ErrorKind::WouldBlock);
        assert!(start.elapsed() >= SHORT);
    });
}

#[test]
fn a_read_that_is_served_in_time_forgets_its_timeout() {
    bounded(|| {
        let (client, mut server) = pair();
        let client = Rc::new(client);
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let parked = Rc::clone(&client);
        let reader = pila::tasklet(move || (&*parked).read(&mut [0; 8]).unwrap());
        pila::schedule();
        server.write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap(), 1);
        client.set_read_timeout(Some(SHORT)).unwrap();
        assert_eq!((&*client).read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn a_reader_out_of_time_leaves_the_next_bytes_to_others() {
    bounded(|| {
        let (client, mut server) = pair();
        let client = Rc::new(client);
        let patient = Rc::clone(&client);
        let reader = pila::tasklet(move || (&*patient).read(&mut [0; 8]).unwrap());
        pila::schedule();
        client.set_read_timeout(Some(SHORT)).unwrap();
        assert!((&*client).read(&mut [0; 8]).is_err());
        server.write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap(), 1);
    });
}

#[test]
fn what_came_in_time_is_read_though_the_thread_was_busy() {
    bounded(|| {
        let (mut client, mut server) = pair();
        client.set_read_timeout(Some(SHORT)).unwrap();
        let reader = pila::tasklet(move || client.read(&mut [0; 8]));
        pila::schedule();
        let start = Instant::now();
        server.write_all(b"x").unwrap();
        while start.elapsed() < 2 * SHORT {}
        assert_eq!(reader.join().unwrap().unwrap(), 1);
    });
}

#[test]
fn a_timeout_of_zero_is_invalid_and_changes_nothing() {
    let (client, _server) = pair();
    client.set_read_timeout(Some(SHORT)).unwrap();
    let zero = Some(Duration::ZERO);
    for refused in [client.set_read_timeout(zero), client.set_write_timeout(zero)] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert!(client.read_timeout().unwrap().unwrap() >= SHORT);
    assert_eq!(client.write_timeout().unwrap(), None);
}

#[test]
fn clones_share_timeouts_whichever_sets_them() {
    bounded(|| {
        let (client, _server) = pair();
        let mut clone = client.try_clone().unwrap();
        client.set_read_timeout(Some(SHORT)).unwrap();
        assert_eq!(clone.read_timeout().unwrap(), client.read_timeout().unwrap());
        assert_eq!(clone.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        clone.set_read_timeout(Some(2 * SHORT)).unwrap();
        let start = Instant::now();
        assert_eq!((&client).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(start.elapsed() >= 2 * SHORT);
    });
}

#[test]
fn timeouts_go_to_std_and_come_back() {
    bounded(|| {
        let (client, _server) = pair_with_std();
        client.set_read_timeout(Some(SHORT)).unwrap();
        let mut client = net::TcpStream::from(client);
        let start = Instant::now();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(start.elapsed() >= SHORT);
        client.set_read_timeout(Some(2 * SHORT)).unwrap();
        let mut client = TcpStream::from(client);
        let start = Instant::now();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(start.elapsed() >= 2 * SHORT);
    });
}

#[test]
fn the_system_knows_the_timeouts_as_soon_as_anyone_may_look() {
    let timeouts = |socket: BorrowedFd<'_>| {
        [Timeout::Recv, Timeout::Send].map(|which| socket_timeout(socket, which).unwrap())
    };
    let (short, long) = (Some(SHORT), Some(2 * SHORT));
    let (client, _server) = pair();
    client.set_read_timeout(short).unwrap();
    client.set_write_timeout(long).unwrap();
    assert_eq!(timeouts(client.as_fd()), [short, long]);
    // Whoever has seen the descriptor may have kept it.
    let kept = client.as_fd().try_clone_to_owned().unwrap();
    client.set_read_timeout(long).unwrap();
    client.try_clone().unwrap().set_write_timeout(None).unwrap();
    assert_eq!(timeouts(kept.as_fd()), [long, None]);
    // And who made it may have a second one.
    let (_client, std) = pair_with_std();
    let kept = std.try_clone().unwrap();
    let client = TcpStream::from(std);
    client.set_read_timeout(short).unwrap();
    assert_eq!(timeouts(kept.as_fd()), [short, None]);
    // A clone stays while the other goes to std.
    let (client, _server) = pair();
    client.set_read_timeout(short).unwrap();
    let clone = client.try_clone().unwrap();
    let std = net::TcpStream::from(client);
    clone.set_read_timeout(long).unwrap();
    assert_eq!(std.read_timeout().unwrap(), long);
    // The shortest is not rounded to none.
    clone.set_write_timeout(Some(Duration::from_nanos(1))).unwrap();
    assert!(std.write_timeout().unwrap().is_some());
}

#[test]
fn connecting_is_out_of_time_when_nobody_answers() {
    bounded(|| {
        // std's backlog is 128. Once it is full the system drops what knocks, and nothing comes back.
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut connected = Vec::new();
        let failure = loop {
            assert!(connected.len() < 1_000, "the backlog never fills");
            let start = Instant::now();
            match TcpStream::connect_timeout(&address, 5 * SHORT) {
                Ok(stream) => connected.push(stream),
                Err(error) => {
                    assert!(start.elapsed() >= 5 * SHORT);
                    break error;
                }
            }
        };
        assert_eq!(failure.kind(), ErrorKind::TimedOut);
        assert_eq!(failure.to_string(), "connection timed out");
    });
}

#[test]
fn connecting_within_no_time_is_invalid() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let failure = TcpStream::connect_timeout(&address, Duration::ZERO).unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_connection_made_in_time_stands_though_the_thread_was_busy() {
    bounded(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = pila::tasklet(move || TcpStream::connect_timeout(&address, SHORT));
        pila::schedule();
        let start = Instant::now();
        while start.elapsed() < 2 * SHORT {}
        client.join().unwrap().unwrap();
    });
}

#[test]
fn a_timeout_beyond_all_time_is_none() {
    bounded(|| {
        let (mut client, mut server) = pair();
        client.set_read_timeout(Some(Duration::from_secs(1 << 33))).unwrap();
        let reader = pila::tasklet(move || client.read(&mut [0; 8]).unwrap());
        pila::schedule();
        server.write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap(), 1);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        TcpStream::connect_timeout(&listener.local_addr().unwrap(), Duration::MAX).unwrap();
    });
}

#[test]
fn all_this_holds_portably() {
    again_portably();
}
