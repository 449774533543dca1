//! What std's streams and listeners do.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::types::{Spawned, TcpListener, TcpStream, spawn};
use crate::net_support::{FLOOD, refusing};
use crate::outcome::{Failure, failure};

const SHORT: Duration = Duration::from_millis(20);

/// Listeners at both kinds of loopback address, if this machine has them.
fn listeners() -> impl Iterator<Item = (TcpListener, SocketAddr)> {
    ["127.0.0.1:0", "[::1]:0"].into_iter().filter_map(|address| {
        let listener = TcpListener::bind(address).ok()?;
        let address = listener.local_addr().unwrap();
        Some((listener, address))
    })
}

/// Both ends of a connection, the accepted one second.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Reads one byte, which must come.
fn byte(mut stream: impl Read) -> u8 {
    let mut byte = [0];
    assert_eq!(stream.read(&mut byte).unwrap(), 1);
    byte[0]
}

pub(crate) fn a_foreign_address_cannot_be_bound() -> Failure {
    let failure = failure(TcpListener::bind("1.1.1.1:9999"));
    assert_eq!(failure.0, ErrorKind::AddrNotAvailable);
    failure
}

pub(crate) fn an_address_cannot_be_bound_twice() -> Vec<Failure> {
    listeners()
        .map(|(_listener, address)| {
            let failure = failure(TcpListener::bind(address));
            assert_eq!(failure.0, ErrorKind::AddrInUse);
            failure
        })
        .collect()
}

pub(crate) fn an_address_can_be_bound_again_at_once() {
    for (listener, address) in listeners() {
        let mut client = TcpStream::connect(address).unwrap();
        let mut server = listener.accept().unwrap().0;
        server.write_all(&[1]).unwrap();
        // The server's end closes first, so it is its port that the system remembers.
        drop((server, listener));
        client.read_to_end(&mut Vec::new()).unwrap();
        drop(client);
        TcpListener::bind(address).unwrap();
    }
}

pub(crate) fn no_address_is_invalid() -> [Failure; 5] {
    let none: &[SocketAddr] = &[];
    let failures = [
        failure(TcpListener::bind(none)),
        failure(TcpStream::connect(none)),
        failure(TcpStream::connect("no port")),
        failure(TcpStream::connect("127.0.0.1:65536")),
        failure(TcpListener::bind("127.0.0.1")),
    ];
    for failure in &failures {
        assert_eq!(failure.0, ErrorKind::InvalidInput);
    }
    failures
}

pub(crate) fn connecting_where_nobody_listens_is_refused() -> [Failure; 3] {
    let (_bound, nobody) = refusing();
    let failures = [
        failure(TcpStream::connect("0.0.0.0:1")),
        failure(TcpStream::connect(nobody)),
        failure(TcpStream::connect_timeout(&nobody, Duration::from_secs(5))),
    ];
    for failure in &failures {
        assert_eq!(failure.0, ErrorKind::ConnectionRefused);
    }
    failures
}

pub(crate) fn connecting_by_name_tries_its_addresses() -> u8 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = spawn(move || {
        let (_bound, nobody) = refusing();
        drop(TcpStream::connect(&[nobody, address][..]).unwrap());
        TcpStream::connect(("localhost", address.port())).unwrap().write_all(&[144]).unwrap();
    });
    drop(listener.accept().unwrap());
    let sent = byte(listener.accept().unwrap().0);
    client.join().unwrap();
    sent
}

pub(crate) fn connecting_within_a_time() -> Failure {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    TcpStream::connect_timeout(&address, Duration::from_secs(2)).unwrap();
    TcpStream::connect_timeout(&address, Duration::MAX).unwrap();
    let failure = failure(TcpStream::connect_timeout(&address, Duration::ZERO));
    assert_eq!(failure.0, ErrorKind::InvalidInput);
    failure
}

pub(crate) fn both_ends_know_both_names() {
    for (listener, address) in listeners() {
        let client = TcpStream::connect(address).unwrap();
        let (server, from) = listener.accept().unwrap();
        assert_eq!(client.peer_addr().unwrap(), address);
        assert_eq!(server.local_addr().unwrap(), address);
        assert_eq!(client.local_addr().unwrap(), from);
        assert_eq!(server.peer_addr().unwrap(), from);
    }
}

pub(crate) fn connections_are_served_in_a_row() -> Vec<u8> {
    let mut served = Vec::new();
    for (listener, address) in listeners() {
        let client = spawn(move || {
            for number in 0..10 {
                TcpStream::connect(address).unwrap().write_all(&[number]).unwrap();
            }
        });
        served.extend(listener.incoming().take(10).map(|stream| byte(stream.unwrap())));
        client.join().unwrap();
    }
    served
}

pub(crate) fn connections_are_served_though_they_interleave() -> Vec<u8> {
    const MOST: u8 = 10;

    /// Connects, has the next one connect, and only then writes.
    fn connect(number: u8, address: SocketAddr) {
        if number < MOST {
            let mut stream = TcpStream::connect(address).unwrap();
            spawn(move || connect(number + 1, address)).join().unwrap();
            stream.write_all(&[number]).unwrap();
        }
    }

    let mut served = Vec::new();
    for (listener, address) in listeners() {
        let acceptor = spawn(move || {
            let incoming = listener.incoming().take(MOST.into());
            incoming.map(|stream| spawn(move || byte(stream.unwrap()))).collect::<Vec<_>>()
        });
        connect(0, address);
        let servers: Vec<Spawned<u8>> = acceptor.join().unwrap();
        served.extend(servers.into_iter().map(|server| server.join().unwrap()));
    }
    served
}

pub(crate) fn listeners_can_be_cloned() {
    for (listener, address) in listeners() {
        let clone = listener.try_clone().unwrap();
        let clients = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        let froms = [listener.accept().unwrap().1, clone.accept().unwrap().1];
        assert_eq!(froms, clients.map(|client| client.local_addr().unwrap()));
        // The queue goes with the last of them.
        drop(listener);
        TcpStream::connect(address).unwrap();
        drop(clone);
        assert!(TcpStream::connect(address).is_err());
    }
}

pub(crate) fn clones_accept_at_once() {
    for (listener, address) in listeners() {
        let listeners = [listener.try_clone().unwrap(), listener];
        let acceptors = listeners.map(|listener| spawn(move || listener.accept().unwrap().1));
        let clients = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        let mut froms = acceptors.map(|acceptor| acceptor.join().unwrap());
        let mut names = clients.map(|client| client.local_addr().unwrap());
        froms.sort_unstable();
        names.sort_unstable();
        assert_eq!(froms, names);
    }
}

pub(crate) fn incoming_never_ends() -> (usize, Option<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut incoming = listener.incoming();
    for _ in 0..3 {
        let error = incoming.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
    incoming.size_hint()
}

pub(crate) fn a_nonblocking_listener_does_not_wait() -> Failure {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let empty = failure(listener.accept());
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    // What it accepts is not nonblocking.
    let reader = spawn(move || byte(server));
    client.write_all(&[5]).unwrap();
    assert_eq!(reader.join().unwrap(), 5);
    listener.set_nonblocking(false).unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = spawn(move || listener.accept().unwrap());
    TcpStream::connect(address).unwrap();
    acceptor.join().unwrap();
    empty
}

pub(crate) fn a_read_gives_what_is_there() -> [usize; 2] {
    let (mut client, mut server) = pair();
    let writer = spawn(move || {
        server.write_all(&[10]).unwrap();
        assert_eq!(byte(&server), 1);
        server.write_all(&[11, 12]).unwrap();
    });
    let mut buffer = [0; 10];
    let first = client.read(&mut buffer).unwrap();
    client.write_all(&[1]).unwrap();
    let second = client.read(&mut buffer).unwrap();
    writer.join().unwrap();
    [first, second]
}

pub(crate) fn empty_reads_and_writes_do_nothing() -> [usize; 5] {
    let (mut client, mut server) = pair();
    let mut outcome = [9; 5];
    outcome[0] = client.write(&[]).unwrap();
    outcome[1] = client.write_vectored(&[]).unwrap();
    client.flush().unwrap();
    client.write_all(&[1]).unwrap();
    outcome[2] = usize::from(byte(&server));
    client.write_all(&[1]).unwrap();
    outcome[3] = server.read(&mut []).unwrap();
    outcome[4] = server.read_vectored(&mut []).unwrap();
    assert_eq!(byte(&server), 1);
    outcome
}

pub(crate) fn several_buffers_are_one() -> (usize, usize, Vec<u8>) {
    let (mut client, mut server) = pair();
    let parts = [IoSlice::new(&[]), IoSlice::new(&[10]), IoSlice::new(&[11, 12])];
    let written = client.write_vectored(&parts).unwrap();
    let (mut one, mut other) = ([0], [0; 3]);
    let parts =
        &mut [IoSliceMut::new(&mut []), IoSliceMut::new(&mut one), IoSliceMut::new(&mut other)];
    let read = (&server).read_vectored(parts).unwrap();
    drop(client);
    assert_eq!(server.read_vectored(&mut [IoSliceMut::new(&mut [0])]).unwrap(), 0);
    (written, read, [&one[..], &other].concat())
}

pub(crate) fn peeking_takes_nothing() -> Failure {
    let (mut client, mut server) = pair();
    let peeker = spawn(move || {
        let mut buffer = [0; 10];
        for _ in 0..3 {
            assert_eq!(client.peek(&mut buffer).unwrap(), 4);
        }
        assert_eq!(client.peek(&mut buffer[..2]).unwrap(), 2);
        assert_eq!(client.read(&mut buffer).unwrap(), 4);
        assert_eq!(buffer[..4], [1, 3, 3, 7]);
        client.set_nonblocking(true).unwrap();
        let empty = failure(client.peek(&mut buffer));
        assert_eq!(empty.0, ErrorKind::WouldBlock);
        (client, empty)
    });
    server.write_all(&[1, 3, 3, 7]).unwrap();
    let (client, empty) = peeker.join().unwrap();
    client.set_nonblocking(false).unwrap();
    drop(server);
    assert_eq!(client.peek(&mut [0; 10]).unwrap(), 0);
    empty
}

pub(crate) fn much_arrives_whole() -> (usize, u64) {
    let (mut client, mut server) = pair();
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    let bytes: Vec<u8> = (0..FLOOD / 4).map(|number| number as u8).collect();
    let expected = sum(&bytes);
    let writer = spawn(move || client.write_all(&bytes).unwrap());
    let mut received = Vec::new();
    server.read_to_end(&mut received).unwrap();
    writer.join().unwrap();
    assert_eq!(sum(&received), expected);
    (received.len(), expected)
}

pub(crate) fn the_end_is_read_again_and_again() -> Vec<usize> {
    let mut outcome = Vec::new();
    for (listener, address) in listeners() {
        let client = spawn(move || drop(TcpStream::connect(address).unwrap()));
        let mut server = listener.accept().unwrap().0;
        outcome.extend([(); 3].map(|()| server.read(&mut [0; 8]).unwrap()));
        client.join().unwrap();
    }
    outcome
}

pub(crate) fn writing_to_whom_has_gone_fails_in_the_end() -> Failure {
    let (client, mut server) = pair();
    drop(client);
    loop {
        // The first ones reach a closed end, which answers with a reset.
        match server.write(&[0]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            broken => break failure(broken),
        }
    }
}

pub(crate) fn after_shutting_down_writing_the_other_may_answer() -> Vec<Failure> {
    let mut outcome = Vec::new();
    for (listener, address) in listeners() {
        let server = spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            stream.write_all(&[1]).unwrap();
        });
        let mut client = TcpStream::connect(address).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        outcome.push(failure(client.write(&[1])));
        let mut answer = [0; 2];
        assert_eq!(client.read(&mut answer).unwrap(), 1);
        assert_eq!(answer[0], 1);
        server.join().unwrap();
    }
    outcome
}

pub(crate) fn shutting_down_is_for_all_clones() -> Vec<Failure> {
    let (client, server) = pair();
    let older = client.try_clone().unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut outcome = vec![failure((&client).write(&[0]))];
    client.shutdown(Shutdown::Read).unwrap();
    let newer = client.try_clone().unwrap();
    for stream in [&client, &older, &newer] {
        let mut stream = stream;
        outcome.push(failure(stream.write(&[0])));
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        // Once more is no error as long as the other end is there.
        stream.shutdown(Shutdown::Both).unwrap();
    }
    drop(server);
    // Now it is closed on both sides.
    while (&client).read(&mut [0]).is_ok_and(|read| read > 0) {}
    outcome.extend(client.shutdown(Shutdown::Both).is_err().then(|| failure(client.peer_addr())));
    outcome
}

pub(crate) fn shutting_down_reading_wakes_the_reader() -> usize {
    let (client, server) = pair();
    let mut clone = client.try_clone().unwrap();
    let reader = spawn(move || clone.read(&mut [0]).unwrap());
    client.shutdown(Shutdown::Read).unwrap();
    let read = reader.join().unwrap();
    drop(server);
    read
}

pub(crate) fn clones_read_from_one_stream() -> Vec<u8> {
    let (client, mut server) = pair();
    let readers = [client.try_clone().unwrap(), client].map(|client| spawn(move || byte(client)));
    server.write_all(&[1]).unwrap();
    server.write_all(&[2]).unwrap();
    let mut read: Vec<u8> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    read.sort_unstable();
    read
}

pub(crate) fn clones_write_to_one_stream() -> Vec<u8> {
    let (client, mut server) = pair();
    let clone = client.try_clone().unwrap();
    let writers = [(client, 1), (clone, 2)]
        .map(|(mut client, byte)| spawn(move || client.write_all(&[byte]).unwrap()));
    let mut read = Vec::new();
    server.read_to_end(&mut read).unwrap();
    for writer in writers {
        writer.join().unwrap();
    }
    read.sort_unstable();
    read
}

pub(crate) fn a_clone_can_be_made_of_what_is_being_read() -> u8 {
    let (client, mut server) = pair();
    let clone = client.try_clone().unwrap();
    let reader = spawn(move || byte(clone));
    drop(client.try_clone().unwrap());
    server.write_all(&[7]).unwrap();
    reader.join().unwrap()
}

pub(crate) fn nothing_is_read_and_written_without_a_wait() -> Vec<usize> {
    let (mut client, _server) = pair();
    client.set_write_timeout(Some(SHORT)).unwrap();
    client.set_read_timeout(Some(SHORT)).unwrap();
    failure(client.read(&mut [0]));
    while client.write(&[0; 1 << 16]).is_ok() {}
    vec![
        client.read(&mut []).unwrap(),
        client.read_vectored(&mut []).unwrap(),
        client.read_vectored(&mut [IoSliceMut::new(&mut [])]).unwrap(),
        client.write(&[]).unwrap(),
        client.write_vectored(&[]).unwrap(),
        client.write_vectored(&[IoSlice::new(&[])]).unwrap(),
    ]
}

pub(crate) fn of_very_many_buffers_the_first_are_taken() -> [usize; 2] {
    let (mut client, mut server) = pair();
    let bytes = [7; 3_000];
    let buffers: Vec<_> = bytes.chunks(1).map(IoSlice::new).collect();
    let written = client.write_vectored(&buffers).unwrap();
    client.write_all(&bytes).unwrap();
    let mut read = [0; 3_000];
    server.peek(&mut read).unwrap();
    let mut buffers: Vec<_> = read.chunks_mut(1).map(IoSliceMut::new).collect();
    [written, server.read_vectored(&mut buffers).unwrap()]
}

pub(crate) fn timeouts_may_be_longer_than_time() -> Vec<Option<Duration>> {
    let (client, _server) = pair();
    [Duration::MAX, Duration::from_secs(100_000_000_000), Duration::from_secs(20_000_000_000)]
        .into_iter()
        .flat_map(|timeout| {
            client.set_read_timeout(Some(timeout)).unwrap();
            client.set_write_timeout(Some(timeout)).unwrap();
            [client.read_timeout().unwrap(), client.write_timeout().unwrap()]
        })
        .collect()
}

pub(crate) fn timeouts_that_others_set_are_obeyed() -> Vec<Option<Duration>> {
    let (mut client, server) = pair();
    SockRef::from(&client).set_read_timeout(Some(SHORT)).unwrap();
    let start = Instant::now();
    failure(client.read(&mut [0]));
    assert!(start.elapsed() >= SHORT);
    // Who has a second descriptor sets those of the socket.
    let mut second = TcpStream::from(server.as_fd().try_clone_to_owned().unwrap());
    server.set_read_timeout(Some(SHORT)).unwrap();
    failure(second.read(&mut [0]));
    second.set_read_timeout(Some(3 * SHORT)).unwrap();
    let start = Instant::now();
    failure((&server).read(&mut [0]));
    assert!(start.elapsed() >= 3 * SHORT);
    vec![
        client.read_timeout().unwrap(),
        second.read_timeout().unwrap(),
        server.read_timeout().unwrap(),
    ]
}

pub(crate) fn a_listener_and_its_connections_obey_a_timeout_of_its() -> (Failure, Failure) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    SockRef::from(&listener).set_read_timeout(Some(SHORT)).unwrap();
    let start = Instant::now();
    let accept = failure(listener.accept().map(drop));
    assert!(start.elapsed() >= SHORT);
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut server = listener.accept().unwrap().0;
    assert_eq!(server.read_timeout().unwrap(), Some(SHORT));
    let start = Instant::now();
    let read = failure(server.read(&mut [0]));
    assert!(start.elapsed() >= SHORT);
    (accept, read)
}

pub(crate) fn to_others_a_stream_blocks_unless_it_was_set() -> Vec<bool> {
    let (client, server) = pair();
    let is_nonblocking = |stream: &TcpStream| {
        rustix::fs::fcntl_getfl(stream).unwrap().contains(rustix::fs::OFlags::NONBLOCK)
    };
    let mut outcome = vec![is_nonblocking(&client), is_nonblocking(&server)];
    for nonblocking in [true, false] {
        client.set_nonblocking(nonblocking).unwrap();
        outcome.push(is_nonblocking(&client));
    }
    let clone = server.try_clone().unwrap();
    clone.set_nonblocking(true).unwrap();
    outcome.push(is_nonblocking(&server));
    outcome
}

pub(crate) fn timeouts_are_kept() -> Vec<Option<Duration>> {
    let (client, _server) = pair();
    let clone = client.try_clone().unwrap();
    let mut outcome = vec![client.read_timeout().unwrap(), client.write_timeout().unwrap()];
    let long = Duration::new(15410, 0);
    for timeout in [long, Duration::from_micros(1), Duration::from_millis(1_500)] {
        client.set_read_timeout(Some(timeout)).unwrap();
        outcome.extend([client.read_timeout().unwrap(), client.write_timeout().unwrap()]);
        client.set_write_timeout(Some(timeout)).unwrap();
        outcome.extend([clone.read_timeout().unwrap(), clone.write_timeout().unwrap()]);
    }
    assert_eq!(outcome[2..4], [Some(long), None]);
    client.set_read_timeout(None).unwrap();
    client.set_write_timeout(None).unwrap();
    outcome.extend([client.read_timeout().unwrap(), client.write_timeout().unwrap()]);
    outcome
}

pub(crate) fn a_timeout_of_zero_is_invalid() -> [Failure; 2] {
    let (client, _server) = pair();
    let zero = Some(Duration::ZERO);
    let failures =
        [failure(client.set_read_timeout(zero)), failure(client.set_write_timeout(zero))];
    for failure in &failures {
        assert_eq!(failure.0, ErrorKind::InvalidInput);
    }
    assert_eq!(client.read_timeout().unwrap(), None);
    failures
}

pub(crate) fn a_read_is_out_of_time() -> [Failure; 4] {
    let (mut client, _server) = pair();
    client.set_read_timeout(Some(SHORT)).unwrap();
    let start = Instant::now();
    let failures = [
        failure(client.read(&mut [0; 8])),
        failure(client.read_exact(&mut [0; 8])),
        failure(client.read_vectored(&mut [IoSliceMut::new(&mut [0; 8])])),
        failure(client.peek(&mut [0; 8])),
    ];
    assert!(start.elapsed() >= 4 * SHORT);
    assert_eq!(failures[0].0, ErrorKind::WouldBlock);
    failures
}

pub(crate) fn a_read_in_time_leaves_the_timeout() -> Failure {
    let (mut client, mut server) = pair();
    client.set_read_timeout(Some(SHORT)).unwrap();
    server.write_all(b"hello world").unwrap();
    let mut received = [0; 11];
    client.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"hello world");
    let start = Instant::now();
    let failure = failure(client.read_exact(&mut received));
    assert!(start.elapsed() >= SHORT);
    failure
}

pub(crate) fn a_write_is_out_of_time() -> Failure {
    let (mut client, _server) = pair();
    client.set_write_timeout(Some(SHORT)).unwrap();
    let much = vec![0; 1 << 20];
    loop {
        let start = Instant::now();
        if let Err(error) = client.write(&much) {
            assert!(start.elapsed() >= SHORT);
            break failure::<()>(Err(error));
        }
    }
}

pub(crate) fn a_nonblocking_stream_does_not_wait() -> Vec<Failure> {
    let (mut client, mut server) = pair();
    let mut clone = client.try_clone().unwrap();
    client.set_nonblocking(false).unwrap();
    client.set_nonblocking(true).unwrap();
    // It is the connection that is, with all its clones.
    let mut outcome = vec![failure(client.read(&mut [0])), failure(clone.read(&mut [0]))];
    let much = vec![0; 1 << 20];
    outcome.push(loop {
        if let Err(error) = client.write(&much) {
            break failure::<()>(Err(error));
        }
    });
    client.set_nonblocking(false).unwrap();
    server.write_all(&[1]).unwrap();
    assert_eq!(byte(&clone), 1);
    outcome
}

pub(crate) fn options_are_kept() -> String {
    let (listener, address) = listeners().last().unwrap();
    let client = TcpStream::connect(address).unwrap();
    let mut outcome = format!("{:?} {:?} {:?}", client.nodelay(), client.ttl(), listener.ttl());
    client.set_nodelay(true).unwrap();
    client.set_ttl(9).unwrap();
    listener.set_ttl(100).unwrap();
    outcome += &format!(" {:?} {:?} {:?}", client.nodelay(), client.ttl(), listener.ttl());
    client.set_nodelay(false).unwrap();
    outcome += &format!(" {:?}", client.nodelay());
    #[allow(deprecated)]
    let only = (listener.only_v6(), failure(listener.set_only_v6(true)));
    outcome + &format!(" {only:?}")
}

/// What std has no name for, users do as they do it with std's types.
pub(crate) fn options_are_set_through_socket2() -> String {
    let (client, server) = pair();
    let socket = socket2::SockRef::from(&client);
    let mut outcome = format!("{:?} {:?} ", socket.linger(), socket.keepalive());
    socket.set_linger(Some(Duration::from_secs(1))).unwrap();
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive).unwrap();
    socket.set_recv_buffer_size(20_000).unwrap();
    socket.set_send_buffer_size(20_000).unwrap();
    outcome += &format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        socket.linger(),
        socket.keepalive(),
        socket.tcp_keepalive_time(),
        socket.tcp_keepalive_interval(),
        socket.tcp_keepalive_retries(),
        socket.recv_buffer_size(),
        socket.send_buffer_size(),
    );
    // Lingering for no time: closing sends a reset at once.
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let reset = failure((&server).read(&mut [0]));
    assert_eq!(reset.0, ErrorKind::ConnectionReset);
    outcome + &format!(" {reset:?}")
}

/// What has to be set before a socket is bound.
pub(crate) fn a_port_is_shared_through_socket2() -> Failure {
    let share = |address: SocketAddr| {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            None,
        )?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(128)?;
        Ok::<_, std::io::Error>(TcpListener::from(OwnedFd::from(socket)))
    };
    let first = share("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = first.local_addr().unwrap();
    let second = share(address).unwrap();
    // Whoever does not share is kept out.
    let stranger = failure(TcpListener::bind(address));

    let clients: Vec<_> = (0..32).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut accepted = 0;
    for listener in [first, second] {
        listener.set_nonblocking(true).unwrap();
        let some = listener.incoming().map_while(Result::ok).count();
        // 32 coins that all fall on the same side: once in two thousand million times.
        assert!(some > 0);
        accepted += some;
    }
    assert_eq!(accepted, clients.len());
    stranger
}

pub(crate) fn errors_are_taken_once() -> String {
    let (client, server) = pair();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut outcome = format!("{:?} {:?} ", client.take_error(), listener.take_error());
    socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    let reset = loop {
        if let Some(error) = client.take_error().unwrap() {
            break error;
        }
    };
    outcome += &format!("{reset:?} {:?}", client.take_error());
    outcome
}

pub(crate) fn debug_shows_addresses_and_descriptor() {
    use std::os::fd::AsRawFd;

    for (listener, address) in listeners() {
        let client = TcpStream::connect(address).unwrap();
        let number = listener.as_raw_fd();
        assert_eq!(
            format!("{listener:?}"),
            format!("TcpListener {{ addr: {address}, fd: {number} }}"),
        );
        let (from, number) = (client.local_addr().unwrap(), client.as_raw_fd());
        assert_eq!(
            format!("{client:?}"),
            format!("TcpStream {{ addr: {from}, peer: {address}, fd: {number} }}"),
        );
        assert!(format!("{:?}", listener.incoming()).starts_with("Incoming { listener: TcpL"));
    }
}
