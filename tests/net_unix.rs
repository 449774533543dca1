//! What Unix sockets promise beyond what std's do (`same_as_std`): only the tasklet waits, and nothing is lost.

use std::cell::Cell;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use net_support::{FLOOD, again_portably, bounded};
use pila::net::unix::{Incoming, SocketAddr};
use pila::net::{UnixDatagram, UnixListener, UnixStream};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix};

mod net_support;

const SHORT: Duration = Duration::from_millis(20);

fn address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("pila-unix-{}-{number}", std::process::id());
    SocketAddr::from_abstract_name(name).unwrap()
}

/// A listener whose queue holds one connection, or two, and some of them; their clients come second.
fn full_listener() -> (UnixListener, Vec<net::UnixStream>) {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    let address = address();
    let name = SocketAddrUnix::new_abstract_name(address.as_abstract_name().unwrap()).unwrap();
    rustix::net::bind(&socket, &name).unwrap();
    socket.listen(1).unwrap();
    let listener = UnixListener::from(OwnedFd::from(socket));
    let mut clients = Vec::new();
    loop {
        let client = rustix::net::socket_with(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::NONBLOCK,
            None,
        );
        let client = client.unwrap();
        match rustix::net::connect(&client, &name) {
            Ok(()) => clients.push(net::UnixStream::from(client)),
            Err(full) => {
                assert_eq!(full, rustix::io::Errno::AGAIN);
                return (listener, clients);
            }
        }
    }
}

#[test]
fn only_the_tasklet_waits() {
    bounded(|| {
        let listener = UnixListener::bind_addr(&address()).unwrap();
        let name = listener.local_addr().unwrap();
        let acceptor = pila::tasklet(move || listener.accept().unwrap().0);
        let (one, other) = UnixDatagram::pair().unwrap();
        let receiver = pila::tasklet(move || other.recv(&mut [0; 8]).unwrap());
        let turns = Rc::new(Cell::new(0));
        let counted = Rc::clone(&turns);
        let client = pila::tasklet(move || {
            for _ in 0..100 {
                counted.set(counted.get() + 1);
                pila::schedule();
            }
            one.send(b"hello").unwrap();
            UnixStream::connect_addr(&name).unwrap()
        });
        assert_eq!(receiver.join().unwrap(), 5);
        let mut server = acceptor.join().unwrap();
        assert_eq!(turns.get(), 100);
        let mut client = client.join().unwrap();
        let reader = pila::tasklet(move || client.read(&mut [0; 8]).unwrap());
        pila::schedule();
        server.write_all(b"hello").unwrap();
        assert_eq!(reader.join().unwrap(), 5);
    });
}

#[test]
fn both_directions_flow_at_once() {
    bounded(|| {
        let (one, other) = UnixStream::pair().unwrap();
        let ends = [Rc::new(one), Rc::new(other)];
        let writers = ends.clone().map(|end| {
            pila::tasklet(move || {
                (&*end).write_all(&vec![7; FLOOD]).unwrap();
                end.shutdown(std::net::Shutdown::Write).unwrap();
            })
        });
        let readers = ends.map(|end| {
            pila::tasklet(move || std::io::copy(&mut &*end, &mut std::io::sink()).unwrap())
        });
        for writer in writers {
            writer.join().unwrap();
        }
        for reader in readers {
            assert_eq!(reader.join().unwrap(), FLOOD as u64);
        }
    });
}

#[test]
fn descriptors_that_come_along_hide_no_bytes() {
    bounded(|| {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let reader = pila::tasklet(move || {
            let mut received = Vec::new();
            // A read ends behind the bytes that a descriptor came with, however much follows.
            while received.len() < 15 {
                let mut bytes = [0; 64];
                let count = ours.read(&mut bytes).unwrap();
                received.extend_from_slice(&bytes[..count]);
            }
            received
        });
        pila::schedule();
        for word in [b"first", b"then ", b"last."] {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let descriptors = [theirs.as_fd()];
            assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
            let words = [IoSlice::new(word)];
            rustix::net::sendmsg(&theirs, &words, &mut control, SendFlags::empty()).unwrap();
        }
        assert_eq!(reader.join().unwrap(), b"firstthen last.");
    });
}

#[test]
fn a_full_queue_is_waited_for() {
    bounded(|| {
        let (listener, first) = full_listener();
        let name = listener.local_addr().unwrap();
        let client = pila::tasklet(move || UnixStream::connect_addr(&name).unwrap());
        pila::sleep(SHORT);
        assert!(client.is_alive());
        for _ in &first {
            listener.accept().unwrap();
        }
        client.join().unwrap();
        listener.accept().unwrap();
    });
}

#[test]
fn waiting_for_a_full_queue_can_be_ended() {
    bounded(|| {
        let (listener, first) = full_listener();
        let name = listener.local_addr().unwrap();
        let start = Instant::now();
        let late = pila::timeout(SHORT, || UnixStream::connect_addr(&name));
        assert!(late.is_err());
        assert!(start.elapsed() >= SHORT);
        let victim = pila::tasklet(move || UnixStream::connect_addr(&name));
        pila::sleep(Duration::from_millis(1));
        victim.kill().unwrap();
        assert!(matches!(victim.join(), Err(pila::JoinError::Killed)));
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.incoming().map_while(Result::ok).count(), first.len());
    });
}

#[test]
fn datagrams_come_in_order_and_none_is_lost() {
    const MANY: u32 = 10_000;
    bounded(|| {
        let receiver = Rc::new(UnixDatagram::bind_addr(&address()).unwrap());
        let name = receiver.local_addr().unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect_addr(&name).unwrap();
        let senders = [
            pila::tasklet(move || {
                for number in 0..MANY {
                    sender.send(&number.to_le_bytes()).unwrap();
                }
            }),
            pila::tasklet(move || {
                let sender = UnixDatagram::unbound().unwrap();
                for number in 1..=300_u32 {
                    sender.send_to_addr(&(number << 20).to_le_bytes(), &name).unwrap();
                }
            }),
        ];
        let (mut next, mut next_other) = (0, 1);
        while next < MANY || next_other <= 300 {
            let mut datagram = [0; 4];
            assert_eq!(receiver.recv(&mut datagram).unwrap(), 4);
            match u32::from_le_bytes(datagram) {
                number if number == next => next += 1,
                number => {
                    assert_eq!(number, next_other << 20);
                    next_other += 1;
                }
            }
        }
        for sender in senders {
            sender.join().unwrap();
        }
    });
}

#[test]
fn who_waits_for_room_can_be_killed_and_is_told_when_the_receiver_goes() {
    bounded(|| {
        let receiver = UnixDatagram::bind_addr(&address()).unwrap();
        let name = receiver.local_addr().unwrap();
        let flood = |connected: bool| {
            let (name, sender) = (name.clone(), UnixDatagram::unbound().unwrap());
            pila::tasklet(move || {
                if connected {
                    sender.connect_addr(&name).unwrap();
                }
                loop {
                    let sent = match connected {
                        true => sender.send(b"x"),
                        false => sender.send_to_addr(b"x", &name),
                    };
                    if let Err(error) = sent {
                        return error.kind();
                    }
                }
            })
        };
        let tasklets = [flood(true), flood(false), flood(true), flood(false)];
        pila::sleep(SHORT);
        let [connected, unconnected, victim, other_victim] = tasklets;
        for victim in [victim, other_victim] {
            assert!(victim.is_alive());
            victim.kill().unwrap();
            assert!(matches!(victim.join(), Err(pila::JoinError::Killed)));
        }
        drop(receiver);
        assert_eq!(connected.join().unwrap(), ErrorKind::ConnectionRefused);
        assert_eq!(unconnected.join().unwrap(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_name_that_fills_all_its_room_is_told_or_left_out() {
    bounded(|| {
        let directory = std::env::temp_dir().join(format!("pila-unix-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let room = 108 - directory.join("").as_os_str().len();
        let path = directory.join("x".repeat(room));
        let full = SocketAddrUnix::new(&*path).unwrap();

        let receiver = UnixDatagram::bind_addr(&address()).unwrap();
        let sender = net::UnixDatagram::unbound().unwrap();
        rustix::net::bind(&sender, &full).unwrap();
        sender.send_to_addr(b"hello", &receiver.local_addr().unwrap()).unwrap();
        let (count, from) = receiver.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(count, 5);
        assert!(from.is_unnamed());
        std::fs::remove_file(&path).unwrap();

        let listener = UnixListener::bind_addr(&address()).unwrap();
        let name = listener.local_addr().unwrap();
        let name = SocketAddrUnix::new_abstract_name(name.as_abstract_name().unwrap()).unwrap();
        let client = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
        let client = client.unwrap();
        rustix::net::bind(&client, &full).unwrap();
        rustix::net::connect(&client, &name).unwrap();
        let (stream, from) = listener.accept().unwrap();
        assert_eq!(format!("{from:?}"), format!("{:?}", stream.peer_addr().unwrap()));
        std::fs::remove_dir_all(&directory).unwrap();
    });
}

#[test]
fn sockets_go_to_std_and_come_back() {
    bounded(|| {
        for nonblocking in [false, true] {
            let (one, mut other) = UnixStream::pair().unwrap();
            one.set_read_timeout(Some(SHORT)).unwrap();
            one.set_nonblocking(nonblocking).unwrap();
            let mut one = net::UnixStream::from(one);
            let start = Instant::now();
            assert_eq!(one.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            assert_eq!(start.elapsed() < SHORT, nonblocking);
            // Back here it waits, as long as it was told.
            let mut one = UnixStream::from(one);
            let start = Instant::now();
            assert_eq!(one.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            assert!(start.elapsed() >= SHORT);
            one.set_read_timeout(None).unwrap();
            let mut one = UnixStream::from(OwnedFd::from(one));
            let reader = pila::tasklet(move || one.read(&mut [0; 8]).unwrap());
            pila::schedule();
            other.write_all(b"hello").unwrap();
            assert_eq!(reader.join().unwrap(), 5);

            let listener = UnixListener::bind_addr(&address()).unwrap();
            let name = listener.local_addr().unwrap();
            listener.set_nonblocking(nonblocking).unwrap();
            let listener = UnixListener::from(net::UnixListener::from(listener));
            let acceptor = pila::tasklet(move || listener.accept().unwrap());
            pila::schedule();
            let client = UnixStream::connect_addr(&name).unwrap();
            acceptor.join().unwrap();
            drop(client);

            let (one, other) = UnixDatagram::pair().unwrap();
            one.set_nonblocking(nonblocking).unwrap();
            let one = UnixDatagram::from(net::UnixDatagram::from(one));
            let receiver = pila::tasklet(move || one.recv(&mut [0; 8]).unwrap());
            pila::schedule();
            other.send(b"hello").unwrap();
            assert_eq!(receiver.join().unwrap(), 5);
        }
    });
}

#[test]
fn a_duplicate_that_std_keeps_is_not_disturbed() {
    bounded(|| {
        let (kept, taken) = net::UnixDatagram::pair().unwrap();
        let duplicate = taken.try_clone().unwrap();
        let taken = UnixDatagram::from(taken);
        // std's call blocks a thread of its own while a tasklet waits on the same socket.
        let blocked = thread::spawn(move || duplicate.recv(&mut [0; 8]).unwrap());
        let receiver = pila::tasklet(move || taken.recv(&mut [0; 8]).unwrap());
        pila::schedule();
        kept.send(b"one").unwrap();
        kept.send(b"two").unwrap();
        assert_eq!(receiver.join().unwrap(), 3);
        assert_eq!(blocked.join().unwrap(), 3);
    });
}

#[test]
fn tasklets_of_several_threads_share_a_socket() {
    bounded(|| {
        let (one, other) = UnixDatagram::pair().unwrap();
        let one = Arc::new(one);
        let threads = [(); 4].map(|()| {
            let one = Arc::clone(&one);
            thread::spawn(move || {
                let receivers = [(); 8].map(|()| {
                    let one = Arc::clone(&one);
                    pila::tasklet(move || one.recv(&mut [0; 8]).unwrap())
                });
                receivers.map(|receiver| assert_eq!(receiver.join().unwrap(), 1)).len()
            })
        });
        for _ in 0..32 {
            other.send(b"x").unwrap();
        }
        for thread in threads {
            assert_eq!(thread.join().unwrap(), 8);
        }
    });
}

#[test]
fn sockets_go_where_stds_go() {
    fn everywhere<T>()
    where
        T: Send + Sync + std::fmt::Debug + Unpin + std::panic::UnwindSafe + 'static,
        T: std::panic::RefUnwindSafe,
    {
    }
    everywhere::<UnixStream>();
    everywhere::<UnixListener>();
    everywhere::<UnixDatagram>();
    everywhere::<Incoming<'static>>();
    everywhere::<pila::net::UdpSocket>();
}

#[test]
fn all_this_holds_portably() {
    again_portably();
}
