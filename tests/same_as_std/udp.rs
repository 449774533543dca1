//! What std's sockets for UDP do.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use super::types::{UdpSocket, spawn};
use crate::outcome::{Failure, failure};

const SHORT: Duration = Duration::from_millis(20);

/// Two sockets at each kind of loopback address that this machine has.
fn sockets() -> impl Iterator<Item = (UdpSocket, UdpSocket)> {
    ["127.0.0.1:0", "[::1]:0"].into_iter().filter_map(|address| {
        Some((UdpSocket::bind(address).ok()?, UdpSocket::bind(address).unwrap()))
    })
}

fn socket() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

pub(crate) fn a_foreign_address_cannot_be_bound() -> Failure {
    let failure = failure(UdpSocket::bind("1.1.1.1:9999"));
    assert_eq!(failure.0, ErrorKind::AddrNotAvailable);
    failure
}

pub(crate) fn an_address_cannot_be_bound_twice() -> Failure {
    let (_socket, address) = socket();
    let failure = failure(UdpSocket::bind(address));
    assert_eq!(failure.0, ErrorKind::AddrInUse);
    failure
}

pub(crate) fn no_address_is_invalid() -> [Failure; 5] {
    let none: &[SocketAddr] = &[];
    let (socket, _) = socket();
    let failures = [
        failure(UdpSocket::bind(none)),
        failure(UdpSocket::bind("no port")),
        failure(socket.connect(none)),
        failure(socket.send_to(b"x", none)),
        failure(socket.send_to(b"x", "no port")),
    ];
    for failure in &failures {
        assert_eq!(failure.0, ErrorKind::InvalidInput);
    }
    failures
}

pub(crate) fn a_datagram_arrives_with_its_sender() {
    for (server, client) in sockets() {
        let (address, from) = (server.local_addr().unwrap(), client.local_addr().unwrap());
        let receiver = spawn(move || {
            let mut datagram = [0; 8];
            let (count, from) = server.recv_from(&mut datagram).unwrap();
            (datagram[..count].to_vec(), from)
        });
        assert_eq!(client.send_to(&[99], address).unwrap(), 1);
        assert_eq!(receiver.join().unwrap(), (vec![99], from));
    }
}

pub(crate) fn both_ends_know_both_names() -> Vec<Failure> {
    let mut outcome = Vec::new();
    for (one, other) in sockets() {
        outcome.push(failure(one.peer_addr()));
        one.connect(other.local_addr().unwrap()).unwrap();
        other.connect(one.local_addr().unwrap()).unwrap();
        assert_eq!(one.peer_addr().unwrap(), other.local_addr().unwrap());
        assert_eq!(other.peer_addr().unwrap(), one.local_addr().unwrap());
    }
    outcome
}

pub(crate) fn a_connected_socket_sends_and_receives() {
    for (socket, _) in sockets() {
        socket.connect(socket.local_addr().unwrap()).unwrap();
        assert_eq!(socket.send(b"hello world").unwrap(), 11);
        let mut received = [0; 16];
        assert_eq!(socket.recv(&mut received).unwrap(), 11);
        assert_eq!(&received[..11], b"hello world");
        // It may still send to others.
        socket.send_to(b"once more", socket.local_addr().unwrap()).unwrap();
        assert_eq!(socket.recv_from(&mut received).unwrap(), (9, socket.local_addr().unwrap()));
    }
}

pub(crate) fn a_connected_socket_hears_its_peer_only() -> usize {
    let (server, address) = socket();
    let ((stranger, _), (peer, from)) = (socket(), socket());
    server.connect(from).unwrap();
    stranger.send_to(b"from a stranger", address).unwrap();
    peer.send_to(b"hello", address).unwrap();
    server.recv(&mut [0; 64]).unwrap()
}

pub(crate) fn an_unconnected_socket_cannot_send() -> Failure {
    failure(socket().0.send(b"to whom?"))
}

pub(crate) fn peeking_takes_nothing() {
    for (socket, _) in sockets() {
        let address = socket.local_addr().unwrap();
        socket.connect(address).unwrap();
        socket.send(b"hello world").unwrap();
        let mut received = [0; 16];
        for _ in 0..3 {
            assert_eq!(socket.peek(&mut received).unwrap(), 11);
            assert_eq!(socket.peek_from(&mut received).unwrap(), (11, address));
            assert_eq!(&received[..11], b"hello world");
        }
        assert_eq!(socket.recv_from(&mut received).unwrap(), (11, address));
        socket.set_nonblocking(true).unwrap();
        assert_eq!(socket.peek(&mut received).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(socket.peek_from(&mut received).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

pub(crate) fn what_does_not_fit_is_cut_off() -> Vec<usize> {
    let (socket, address) = socket();
    socket.connect(address).unwrap();
    let mut outcome = Vec::new();
    for _ in 0..4 {
        socket.send(b"hello world").unwrap();
    }
    outcome.push(socket.peek(&mut [0; 4]).unwrap());
    outcome.push(socket.recv(&mut [0; 4]).unwrap());
    outcome.push(socket.recv_from(&mut [0; 5]).unwrap().0);
    outcome.push(socket.recv(&mut []).unwrap());
    outcome.push(socket.recv(&mut [0; 64]).unwrap());
    outcome
}

pub(crate) fn an_empty_datagram_arrives() -> usize {
    let (socket, address) = socket();
    assert_eq!(socket.send_to(&[], address).unwrap(), 0);
    let (count, from) = socket.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(from, address);
    count
}

pub(crate) fn too_long_a_datagram_is_refused() -> [Failure; 2] {
    let (socket, address) = socket();
    let long = vec![0; 1 << 16];
    let unconnected = failure(socket.send_to(&long, address));
    socket.connect(address).unwrap();
    [unconnected, failure(socket.send(&long))]
}

pub(crate) fn a_closed_port_refuses() -> Vec<Failure> {
    let (client, _) = socket();
    let (gone, address) = socket();
    drop(gone);
    client.connect(address).unwrap();
    client.send(b"anyone?").unwrap();
    // Whoever waits is told.
    let mut outcome = vec![failure(client.recv(&mut [0; 8]))];
    client.send(b"anyone?").unwrap();
    outcome.push(loop {
        // The answer comes at once on a loopback, but for the system that is somebody else.
        if let Err(error) = client.send(b"anyone?") {
            break failure::<()>(Err(error));
        }
    });
    assert_eq!(outcome[0].0, ErrorKind::ConnectionRefused);
    outcome
}

pub(crate) fn clones_receive_from_one_socket() -> Vec<u8> {
    let ((server, address), (client, _)) = (socket(), socket());
    let receivers = [server.try_clone().unwrap(), server].map(|server| {
        spawn(move || {
            let mut byte = [0];
            server.recv_from(&mut byte).unwrap();
            byte[0]
        })
    });
    client.send_to(&[1], address).unwrap();
    client.send_to(&[2], address).unwrap();
    let mut received: Vec<u8> = receivers.into_iter().map(|one| one.join().unwrap()).collect();
    received.sort_unstable();
    received
}

pub(crate) fn clones_send_from_one_socket() {
    let ((server, address), (client, from)) = (socket(), socket());
    let senders = [client.try_clone().unwrap(), client]
        .map(|client| spawn(move || client.send_to(&[1], address).unwrap()));
    for sender in senders {
        assert_eq!(server.recv_from(&mut [0; 8]).unwrap(), (1, from));
        sender.join().unwrap();
    }
}

pub(crate) fn timeouts_are_kept() -> Vec<Option<Duration>> {
    let (socket, _) = socket();
    let mut outcome = vec![socket.read_timeout().unwrap(), socket.write_timeout().unwrap()];
    let long = Duration::new(15410, 0);
    for timeout in [Some(long), Some(Duration::from_micros(1)), None] {
        socket.set_read_timeout(timeout).unwrap();
        outcome.extend([socket.read_timeout().unwrap(), socket.write_timeout().unwrap()]);
        socket.set_write_timeout(timeout).unwrap();
        outcome.extend([socket.read_timeout().unwrap(), socket.write_timeout().unwrap()]);
    }
    assert_eq!(outcome[..4], [None, None, Some(long), None]);
    outcome
}

pub(crate) fn a_timeout_of_zero_is_invalid() -> [Failure; 2] {
    let (socket, _) = socket();
    let zero = Some(Duration::ZERO);
    [failure(socket.set_read_timeout(zero)), failure(socket.set_write_timeout(zero))]
}

pub(crate) fn receiving_is_out_of_time() -> [Failure; 4] {
    let (socket, _) = socket();
    socket.set_read_timeout(Some(SHORT)).unwrap();
    let start = Instant::now();
    let failures = [
        failure(socket.recv_from(&mut [0; 8])),
        failure(socket.recv(&mut [0; 8])),
        failure(socket.peek_from(&mut [0; 8])),
        failure(socket.peek(&mut [0; 8])),
    ];
    assert!(start.elapsed() >= 4 * SHORT);
    assert_eq!(failures[0].0, ErrorKind::WouldBlock);
    failures
}

pub(crate) fn receiving_in_time_leaves_the_timeout() -> Failure {
    let (socket, address) = socket();
    socket.set_read_timeout(Some(SHORT)).unwrap();
    socket.send_to(b"hello world", address).unwrap();
    assert_eq!(socket.recv_from(&mut [0; 11]).unwrap(), (11, address));
    let start = Instant::now();
    let failure = failure(socket.recv_from(&mut [0; 11]));
    assert!(start.elapsed() >= SHORT);
    failure
}

pub(crate) fn a_nonblocking_socket_does_not_wait() -> [Failure; 2] {
    let (socket, address) = socket();
    let clone = socket.try_clone().unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.set_nonblocking(false).unwrap();
    socket.connect(address).unwrap();
    socket.set_nonblocking(false).unwrap();
    socket.set_nonblocking(true).unwrap();
    let failures = [failure(socket.recv(&mut [0])), failure(clone.recv(&mut [0]))];
    assert_eq!(failures[0].0, ErrorKind::WouldBlock);
    socket.set_nonblocking(false).unwrap();
    let receiver = spawn(move || clone.recv(&mut [0]).unwrap());
    socket.send(&[1]).unwrap();
    assert_eq!(receiver.join().unwrap(), 1);
    failures
}

pub(crate) fn options_are_kept() -> String {
    let (socket, _) = socket();
    let mut outcome =
        format!("{:?} {:?} {:?}", socket.ttl(), socket.broadcast(), socket.take_error());
    socket.set_ttl(100).unwrap();
    socket.set_broadcast(true).unwrap();
    outcome += &format!(" {:?} {:?}", socket.ttl(), socket.broadcast());
    let through = socket2::SockRef::from(&socket);
    through.set_recv_buffer_size(20_000).unwrap();
    outcome + &format!(" {:?}", through.recv_buffer_size())
}

pub(crate) fn multicast_options_are_kept() -> String {
    let (socket, _) = socket();
    let mut outcome = format!("{:?} {:?}", socket.multicast_loop_v4(), socket.multicast_ttl_v4());
    socket.set_multicast_loop_v4(false).unwrap();
    socket.set_multicast_ttl_v4(7).unwrap();
    outcome += &format!(" {:?} {:?}", socket.multicast_loop_v4(), socket.multicast_ttl_v4());
    // These are not for IPv4.
    outcome += &format!(" {:?} {:?}", socket.multicast_loop_v6(), failure_of_v6(&socket));
    for (socket, _) in sockets().skip(1) {
        outcome += &format!(" {:?}", socket.multicast_loop_v6());
        socket.set_multicast_loop_v6(false).unwrap();
        outcome += &format!(" {:?}", socket.multicast_loop_v6());
    }
    outcome
}

fn failure_of_v6(socket: &UdpSocket) -> Failure {
    failure(socket.join_multicast_v6(&Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb), 0))
}

pub(crate) fn groups_are_joined_and_left() -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let (group, here) = (Ipv4Addr::new(224, 0, 0, 251), Ipv4Addr::LOCALHOST);
    let mut outcome = format!("{:?}", failure(socket.leave_multicast_v4(&group, &here)));
    outcome += &format!("{:?}", failure(socket.join_multicast_v4(&here, &here)));
    if socket.join_multicast_v4(&group, &here).is_ok() {
        let port = socket.local_addr().unwrap().port();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        // It goes out where the system sends multicast, or nowhere: that is the machine's matter.
        outcome += &format!("{:?}", sender.send_to(b"hello", (group, port)).map_err(|e| e.kind()));
        outcome += &format!("{:?}", failure(socket.join_multicast_v4(&group, &here)));
        outcome += &format!("{:?}", socket.leave_multicast_v4(&group, &here));
    }
    if let Ok(socket) = UdpSocket::bind("[::1]:0") {
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
        outcome += &format!("{:?}", socket.leave_multicast_v6(&group, 1));
        outcome += &format!("{:?}", socket.join_multicast_v6(&group, 1));
        outcome += &format!("{:?}", socket.leave_multicast_v6(&group, 1));
    }
    outcome
}

pub(crate) fn broadcasting_has_to_be_allowed() -> Failure {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Without a network there is no way there either: the same for both.
    failure(socket.send_to(b"all of you", "255.255.255.255:9"))
}

pub(crate) fn shutting_down_wakes_the_receiver() -> (usize, Failure) {
    let (socket, address) = socket();
    socket.connect(address).unwrap();
    let clone = socket.try_clone().unwrap();
    let receiver = spawn(move || clone.recv(&mut [0; 8]).unwrap());
    socket2::SockRef::from(&socket).shutdown(Shutdown::Read).unwrap();
    let received = receiver.join().unwrap();
    (received, failure(socket.recv_from(&mut [0; 8])))
}

pub(crate) fn debug_shows_address_and_descriptor() {
    use std::os::fd::AsRawFd;

    let (socket, address) = socket();
    let number = socket.as_raw_fd();
    let expected = format!("UdpSocket {{ addr: {address}, fd: {number} }}");
    assert_eq!(format!("{socket:?}"), expected);
}
