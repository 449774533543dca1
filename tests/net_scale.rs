//! Many connections, and nothing left behind. One test: it counts the descriptors of the whole process.

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use net_support::{again_portably, bounded, pair};
use pila::net::{TcpListener, TcpStream, readable};

mod net_support;

const CONNECTIONS: usize = 2_000;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux has it").count()
}

/// How many descriptors the pollers of the process know.
fn registrations() -> usize {
    let known = |number: &std::ffi::OsStr| {
        let link = std::fs::read_link(std::path::Path::new("/proc/self/fd").join(number)).ok()?;
        let info = std::fs::read_to_string(std::path::Path::new("/proc/self/fdinfo").join(number));
        let is_poller = link.to_str() == Some("anon_inode:[eventpoll]");
        is_poller.then(|| info.unwrap().lines().filter(|line| line.starts_with("tfd:")).count())
    };
    let numbers = std::fs::read_dir("/proc/self/fd").expect("Linux has it");
    numbers.filter_map(|number| known(&number.unwrap().file_name())).sum()
}

fn talk(mut stream: TcpStream, message: usize) {
    for _ in 0..3 {
        stream.write_all(&message.to_le_bytes()).unwrap();
        let mut answer = [0; size_of::<usize>()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(usize::from_le_bytes(answer), message);
    }
}

fn thousands_of_connections_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = pila::tasklet(move || {
        for stream in listener.incoming().take(CONNECTIONS) {
            let mut stream = stream.unwrap();
            pila::tasklet(move || {
                std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap()
            });
        }
    });
    let open = Rc::new(Cell::new(0));
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let open = Rc::clone(&open);
            pila::tasklet(move || {
                let stream = TcpStream::connect(address).unwrap();
                open.set(open.get() + 1);
                while open.get() < CONNECTIONS {
                    pila::schedule();
                }
                talk(stream, number);
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    server.join().unwrap();
    pila::run();
}

fn a_listener_that_threads_come_and_go_on() {
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    for _ in 0..50 {
        let acceptor = Arc::clone(&listener);
        let thread = thread::spawn(move || drop(acceptor.accept().unwrap()));
        drop(TcpStream::connect(address).unwrap());
        thread.join().unwrap();
    }
    // The listener lives; the pollers of the threads are gone.
    assert!(descriptors() < 50, "{} descriptors", descriptors());
}

fn sockets_that_change_hands() {
    for _ in 0..50 {
        let (client, mut server) = pair();
        let reader =
            thread::spawn(move || (&client).read_exact(&mut [0]).map(|()| client).unwrap());
        server.write_all(b"x").unwrap();
        drop(std::net::TcpStream::from(reader.join().unwrap()));
    }
}

fn waits_for_a_descriptor_that_come_and_go() {
    let (output, mut input) = std::io::pipe().unwrap();
    let output = Rc::new(output);
    // The first wait makes the poller, which has registrations of its own.
    pila::timeout(Duration::from_millis(1), || readable(&*output)).unwrap_err();
    let before = (descriptors(), registrations());
    for _ in 0..50 {
        let wait = || {
            let output = Rc::clone(&output);
            pila::tasklet(move || readable(&*output))
        };
        let [served, also_served, killed] = [wait(), wait(), wait()];
        pila::schedule();
        // The second and the third wait with a duplicate.
        assert_eq!((descriptors(), registrations()), (before.0 + 2, before.1 + 3));
        killed.kill().unwrap();
        input.write_all(b"x").unwrap();
        served.join().unwrap().unwrap();
        also_served.join().unwrap().unwrap();
        (&*output).read_exact(&mut [0]).unwrap();
        assert_eq!((descriptors(), registrations()), before);
    }
}

#[test]
fn no_descriptor_is_left_open() {
    let before = descriptors();
    bounded(thousands_of_connections_at_once);
    assert_eq!(descriptors(), before);
    bounded(a_listener_that_threads_come_and_go_on);
    assert_eq!(descriptors(), before);
    bounded(sockets_that_change_hands);
    assert_eq!(descriptors(), before);
    bounded(waits_for_a_descriptor_that_come_and_go);
    assert_eq!(descriptors(), before);
    // The same once more, and that process must not do so again.
    if std::env::var_os("PILA_POLLER").is_none() {
        again_portably();
    }
}
