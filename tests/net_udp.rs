//! What sockets for UDP promise beyond what std's do (`same_as_std`): only the tasklet waits.

use std::cell::Cell;
use std::io::ErrorKind;
use std::net;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use net_support::{again_portably, bounded};
use pila::net::{SocketAddr, UdpSocket};

mod net_support;

const SHORT: Duration = Duration::from_millis(20);

fn socket() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[test]
fn only_the_tasklet_waits() {
    bounded(|| {
        let ((server, address), (client, from)) = (socket(), socket());
        let receiver = pila::tasklet(move || server.recv_from(&mut [0; 8]).unwrap());
        let turns = Rc::new(Cell::new(0));
        let counted = Rc::clone(&turns);
        pila::tasklet(move || {
            for _ in 0..100 {
                counted.set(counted.get() + 1);
                pila::schedule();
            }
            client.send_to(b"at last", address).unwrap();
        });
        assert_eq!(receiver.join().unwrap(), (7, from));
        assert_eq!(turns.get(), 100);
    });
}

#[test]
fn every_receiver_of_one_socket_gets_one() {
    bounded(|| {
        let (server, address) = socket();
        let server = Rc::new(server);
        let receivers = [(); 16].map(|()| {
            let server = Rc::clone(&server);
            pila::tasklet(move || {
                let mut datagram = [0];
                server.recv(&mut datagram).unwrap();
                datagram[0]
            })
        });
        pila::schedule();
        let (client, _) = socket();
        for number in 0..16 {
            client.send_to(&[number], address).unwrap();
        }
        let mut received = receivers.map(|receiver| receiver.join().unwrap());
        received.sort_unstable();
        assert_eq!(received, std::array::from_fn(|number| number as u8));
    });
}

#[test]
fn hundreds_converse_with_one_server() {
    bounded(|| {
        let (server, address) = socket();
        let server = pila::tasklet(move || {
            let mut datagram = [0; 64];
            for _ in 0..200 * 20 {
                let (count, from) = server.recv_from(&mut datagram).unwrap();
                server.send_to(&datagram[..count], from).unwrap();
            }
        });
        let clients: Vec<_> = (0..200_u32)
            .map(|number| {
                pila::tasklet(move || {
                    let (client, _) = socket();
                    client.connect(address).unwrap();
                    for round in 0..20_u32 {
                        let question = (number << 16 | round).to_le_bytes();
                        client.send(&question).unwrap();
                        let mut answer = [0; 64];
                        assert_eq!(client.recv(&mut answer).unwrap(), 4);
                        assert_eq!(answer[..4], question);
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        server.join().unwrap();
    });
}

#[test]
fn a_refusal_wakes_who_waits_for_the_answer() {
    bounded(|| {
        let (client, _) = socket();
        let (gone, address) = socket();
        client.connect(address).unwrap();
        let client = Rc::new(client);
        let waiting = Rc::clone(&client);
        let receiver = pila::tasklet(move || waiting.recv(&mut [0; 8]));
        pila::schedule();
        drop(gone);
        client.send(b"anyone?").unwrap();
        let refused = receiver.join().unwrap().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_timeout_around_it_strikes_and_a_kill_ends_it() {
    bounded(|| {
        let (server, address) = socket();
        let start = Instant::now();
        assert!(pila::timeout(SHORT, || server.recv_from(&mut [0; 8])).is_err());
        assert!(start.elapsed() >= SHORT);
        let server = Rc::new(server);
        let waiting = Rc::clone(&server);
        let victim = pila::tasklet(move || waiting.recv_from(&mut [0; 8]));
        pila::schedule();
        victim.kill().unwrap();
        assert!(matches!(victim.join(), Err(pila::JoinError::Killed)));
        let receiver = pila::tasklet(move || server.recv(&mut [0; 8]).unwrap());
        pila::schedule();
        socket().0.send_to(b"x", address).unwrap();
        assert_eq!(receiver.join().unwrap(), 1);
    });
}

#[test]
fn sockets_go_to_std_and_come_back() {
    bounded(|| {
        for nonblocking in [false, true] {
            let (server, address) = socket();
            server.set_read_timeout(Some(SHORT)).unwrap();
            server.set_nonblocking(nonblocking).unwrap();
            let server = net::UdpSocket::from(server);
            let start = Instant::now();
            assert_eq!(server.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            assert_eq!(start.elapsed() < SHORT, nonblocking);
            let server = UdpSocket::from(server);
            let start = Instant::now();
            assert_eq!(server.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            assert!(start.elapsed() >= SHORT);
            server.set_read_timeout(None).unwrap();
            let server = UdpSocket::from(OwnedFd::from(server));
            let receiver = pila::tasklet(move || {
                assert_eq!(server.recv(&mut [0; 8]).unwrap(), 1);
                server
            });
            pila::schedule();
            socket().0.send_to(b"x", address).unwrap();
            drop(net::UdpSocket::from(receiver.join().unwrap()));
        }
    });
}

#[test]
fn tasklets_of_several_threads_share_a_socket() {
    bounded(|| {
        let (server, address) = socket();
        let server = Arc::new(server);
        let threads = [(); 4].map(|()| {
            let server = Arc::clone(&server);
            thread::spawn(move || (0..8).map(|_| server.recv(&mut [0; 8]).unwrap()).sum::<usize>())
        });
        let (client, _) = socket();
        for _ in 0..32 {
            client.send_to(b"x", address).unwrap();
        }
        for thread in threads {
            assert_eq!(thread.join().unwrap(), 8);
        }
    });
}

#[test]
fn all_this_holds_portably() {
    again_portably();
}
