//! What a listener promises: every connection to one acceptor, and a queue longer than std's.

use std::cell::Cell;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{self, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix;
use std::rc::Rc;
use std::time::Duration;

use net_support::{again_portably, bounded};
use pila::net::{TcpListener, TcpStream, UnixListener};

mod net_support;

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn many_acceptors_share_one_listener() {
    bounded(|| {
        let (listener, address) = listen();
        let listener = Rc::new(listener);
        let acceptors = [(); 16].map(|()| {
            let listener = Rc::clone(&listener);
            pila::tasklet(move || listener.accept().unwrap().1)
        });
        pila::schedule();
        let clients = [(); 16].map(|()| TcpStream::connect(address).unwrap());
        let mut accepted = acceptors.map(|acceptor| acceptor.join().unwrap());
        let mut connected = clients.map(|client| client.local_addr().unwrap());
        accepted.sort_unstable();
        connected.sort_unstable();
        assert_eq!(accepted, connected);
    });
}

#[test]
fn connections_that_come_together_are_all_accepted() {
    bounded(|| {
        let (listener, address) = listen();
        let acceptor =
            pila::tasklet(move || listener.incoming().take(100).filter(Result::is_ok).count());
        pila::schedule();
        let clients: Vec<_> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert_eq!(acceptor.join().unwrap(), 100);
        drop(clients);
    });
}

#[test]
fn the_queue_is_longer_than_stds() {
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
    let Some(somaxconn) = somaxconn.ok().and_then(|text| text.trim().parse::<usize>().ok()) else {
        return;
    };
    let wanted = somaxconn.min(600);
    bounded(move || {
        let (_listener, address) = listen();
        let clients: Vec<_> = (0..wanted).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert_eq!(clients.len(), wanted);
    });
}

#[test]
fn accepting_nothing_would_block_when_nonblocking() {
    bounded(|| {
        let (listener, address) = listen();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        let mut client = TcpStream::connect(address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        // The accepted connection is not.
        let reader = pila::tasklet(move || server.read(&mut [0; 8]).unwrap());
        pila::schedule();
        client.write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap(), 1);
    });
}

#[test]
fn a_clone_accepts_from_the_same_queue() {
    bounded(|| {
        let (listener, address) = listen();
        let clone = listener.try_clone().unwrap();
        let accepted = Rc::new(Cell::new(0));
        let acceptors = [listener, clone].map(|listener| {
            let accepted = Rc::clone(&accepted);
            pila::tasklet(move || {
                while accepted.get() < 8 {
                    listener.accept().unwrap();
                    accepted.set(accepted.get() + 1);
                }
            })
        });
        pila::schedule();
        let mut clients = Vec::new();
        while accepted.get() < 9 && clients.len() < 9 {
            clients.push(TcpStream::connect(address).unwrap());
        }
        for acceptor in acceptors {
            acceptor.join().unwrap();
        }
        assert!(accepted.get() >= 8);
    });
}

#[test]
fn the_port_can_be_bound_again_at_once() {
    bounded(|| {
        let (listener, address) = listen();
        let client = TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        drop((server, client, listener));
        TcpListener::bind(address).unwrap();
    });
}

#[test]
fn a_reset_in_the_queue_does_not_end_the_listener() {
    bounded(|| {
        let (listener, address) = listen();
        drop(TcpStream::connect(address).unwrap());
        let client = TcpStream::connect(address).unwrap();
        let accepted = [(); 2].map(|()| listener.accept().unwrap().1);
        assert_eq!(accepted[1], client.local_addr().unwrap());
    });
}

#[test]
fn a_listener_never_blocks_its_thread_whoever_has_another_of_its_descriptors() {
    bounded(|| {
        let soon = Duration::from_millis(5);
        let (listener, address) = listen();
        let accept_none = || pila::timeout(soon, || listener.accept()).unwrap_err();
        let std = net::TcpListener::from(listener.try_clone().unwrap());
        accept_none();
        std.set_nonblocking(false).unwrap();
        accept_none();
        let seen = listener.as_fd().try_clone_to_owned().unwrap();
        net::TcpListener::from(seen).set_nonblocking(false).unwrap();
        accept_none();
        // One of ours that is left is enough.
        drop(OwnedFd::from(listener.try_clone().unwrap()));
        accept_none();
        let client = TcpStream::connect(address).unwrap();
        assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());

        let path = std::env::temp_dir().join(format!("pila-listener-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        fs::remove_file(path).unwrap();
        let _std = unix::net::UnixListener::from(listener.try_clone().unwrap());
        pila::timeout(soon, || listener.accept()).unwrap_err();
    });
}

#[test]
fn a_listener_of_std_blocks_when_the_last_of_ours_is_gone() {
    let blocks = |listener: &net::TcpListener| {
        !rustix::fs::fcntl_getfl(listener).unwrap().contains(rustix::fs::OFlags::NONBLOCK)
    };
    let listener = listen().0;
    let std = net::TcpListener::from(listener.try_clone().unwrap());
    assert!(!blocks(&std));
    drop(listener);
    assert!(blocks(&std));
    let listener = listen().0;
    let std = net::TcpListener::from(listener.try_clone().unwrap());
    let last = net::TcpListener::from(listener);
    assert!(blocks(&std) && blocks(&last));
    // As the user of the last one wants it.
    let kept = std.try_clone().unwrap();
    let listener = TcpListener::from(std);
    listener.set_nonblocking(true).unwrap();
    drop(listener);
    assert!(!blocks(&kept));
}

#[test]
fn all_this_holds_portably() {
    again_portably();
}
