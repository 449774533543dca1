//! What std's Unix sockets do.

use std::fmt::Debug;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::types::{UnixDatagram, UnixListener, UnixStream, spawn};
use crate::outcome::{Directory, Failure, failure};

const SHORT: Duration = Duration::from_millis(20);

/// A name that nobody else has.
fn abstract_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{}-{}-{number}", module_path!(), std::process::id());
    SocketAddr::from_abstract_name(name).unwrap()
}

/// Reads one byte, which must come.
fn byte(mut stream: impl Read) -> u8 {
    let mut byte = [0];
    assert_eq!(stream.read(&mut byte).unwrap(), 1);
    byte[0]
}

/// What `one` sends comes to `other`, and back, and then the end.
fn converse(mut one: UnixStream, mut other: UnixStream) -> Vec<u8> {
    let answering = spawn(move || {
        let mut question = [0; 5];
        other.read_exact(&mut question).unwrap();
        assert_eq!(&question, b"hello");
        other.write_all(b"world!").unwrap();
    });
    one.write_all(b"hello").unwrap();
    let mut answer = Vec::new();
    one.read_to_end(&mut answer).unwrap();
    answering.join().unwrap();
    answer
}

pub(crate) fn a_stream_goes_there_and_back() -> Vec<u8> {
    let directory = Directory::new();
    let path = directory.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    assert_eq!(listener.local_addr().unwrap().as_pathname(), Some(&*path));
    let accepting = spawn(move || listener.accept().unwrap());
    let client = UnixStream::connect(&path).unwrap();
    assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(&*path));
    let (server, from) = accepting.join().unwrap();
    assert!(from.is_unnamed());
    assert!(server.peer_addr().unwrap().is_unnamed());
    assert_eq!(server.local_addr().unwrap().as_pathname(), Some(&*path));
    converse(client, server)
}

pub(crate) fn pairs_have_no_names() -> Vec<u8> {
    let (one, other) = UnixStream::pair().unwrap();
    assert!(one.local_addr().unwrap().is_unnamed());
    assert!(other.peer_addr().unwrap().is_unnamed());
    converse(one, other)
}

pub(crate) fn several_buffers_are_one() -> (usize, usize, Vec<u8>) {
    let (mut one, mut other) = UnixStream::pair().unwrap();
    let parts = [IoSlice::new(b"hello"), IoSlice::new(b" "), IoSlice::new(b"world!")];
    let written = one.write_vectored(&parts).unwrap();
    let (mut head, mut tail) = ([0; 6], [0; 7]);
    let parts = &mut [IoSliceMut::new(&mut head), IoSliceMut::new(&mut tail)];
    let read = other.read_vectored(parts).unwrap();
    (written, read, [&head[..], &tail].concat())
}

pub(crate) fn nothing_is_read_and_written_without_a_wait() -> Vec<usize> {
    let (mut one, _other) = UnixStream::pair().unwrap();
    one.set_write_timeout(Some(SHORT)).unwrap();
    while one.write(&[0; 1 << 16]).is_ok() {}
    vec![
        one.read_vectored(&mut [IoSliceMut::new(&mut [])]).unwrap(),
        one.write(&[]).unwrap(),
        one.write_vectored(&[IoSlice::new(&[])]).unwrap(),
    ]
}

pub(crate) fn clones_read_from_one_stream() -> Vec<u8> {
    let (one, mut other) = UnixStream::pair().unwrap();
    let readers = [one.try_clone().unwrap(), one].map(|one| spawn(move || byte(one)));
    other.write_all(&[1]).unwrap();
    other.write_all(&[2]).unwrap();
    let mut read: Vec<u8> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    read.sort_unstable();
    read
}

pub(crate) fn the_end_is_read_again_and_again() -> Vec<Failure> {
    let (one, mut other) = UnixStream::pair().unwrap();
    (&one).write_all(b"bye").unwrap();
    let reader = spawn(move || {
        let mut reads = vec![other.read(&mut [0; 2]).unwrap(), other.read(&mut [0; 2]).unwrap()];
        reads.extend([(); 3].map(|()| other.read(&mut [0; 2]).unwrap()));
        (reads, failure(other.write(&[1])))
    });
    drop(one);
    let (reads, broken) = reader.join().unwrap();
    assert_eq!(reads, [2, 1, 0, 0, 0]);
    // What nobody has read makes it a reset.
    let (one, mut other) = UnixStream::pair().unwrap();
    other.write_all(b"never read").unwrap();
    drop(one);
    vec![broken, failure(other.read(&mut [0]))]
}

pub(crate) fn shutting_down_is_for_all_clones() -> Vec<Failure> {
    let (one, mut other) = UnixStream::pair().unwrap();
    let older = one.try_clone().unwrap();
    one.shutdown(Shutdown::Write).unwrap();
    assert_eq!(other.read(&mut [0]).unwrap(), 0);
    other.write_all(&[1]).unwrap();
    assert_eq!(byte(&one), 1);
    one.shutdown(Shutdown::Both).unwrap();
    let newer = one.try_clone().unwrap();
    let mut outcome = Vec::new();
    for stream in [&one, &older, &newer] {
        let mut stream = stream;
        outcome.push(failure(stream.write(&[0])));
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        stream.shutdown(Shutdown::Both).unwrap();
    }
    outcome
}

pub(crate) fn shutting_down_reading_wakes_the_reader() -> usize {
    let (one, _other) = UnixStream::pair().unwrap();
    let mut clone = one.try_clone().unwrap();
    let reader = spawn(move || clone.read(&mut [0]).unwrap());
    one.shutdown(Shutdown::Read).unwrap();
    reader.join().unwrap()
}

pub(crate) fn a_listener_serves_in_a_row() -> Vec<u8> {
    let directory = Directory::new();
    let path = directory.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let clone = listener.try_clone().unwrap();
    let clients = spawn(move || {
        for number in 0..6 {
            UnixStream::connect(&path).unwrap().write_all(&[number]).unwrap();
        }
    });
    let mut served: Vec<u8> =
        listener.incoming().take(3).map(|stream| byte(stream.unwrap())).collect();
    for stream in (&clone).into_iter().take(3) {
        served.push(byte(stream.unwrap()));
    }
    clients.join().unwrap();
    served
}

pub(crate) fn incoming_never_ends() -> (usize, Option<usize>) {
    let listener = UnixListener::bind_addr(&abstract_address()).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut incoming = listener.incoming();
    for _ in 0..3 {
        let error = incoming.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
    incoming.size_hint()
}

pub(crate) fn a_nonblocking_listener_does_not_wait() -> Failure {
    let listener = UnixListener::bind_addr(&abstract_address()).unwrap();
    listener.set_nonblocking(true).unwrap();
    let empty = failure(listener.accept());
    let mut client = UnixStream::connect_addr(&listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let reader = spawn(move || byte(server));
    client.write_all(&[5]).unwrap();
    assert_eq!(reader.join().unwrap(), 5);
    empty
}

pub(crate) fn a_nonblocking_stream_does_not_wait() -> Vec<Failure> {
    let (mut one, mut other) = UnixStream::pair().unwrap();
    let mut clone = one.try_clone().unwrap();
    one.set_nonblocking(true).unwrap();
    let mut outcome = vec![failure(one.read(&mut [0])), failure(clone.read(&mut [0]))];
    let much = vec![0; 1 << 20];
    outcome.push(loop {
        if let Err(error) = one.write(&much) {
            break failure::<()>(Err(error));
        }
    });
    one.set_nonblocking(false).unwrap();
    other.write_all(&[1]).unwrap();
    assert_eq!(byte(&clone), 1);
    outcome
}

pub(crate) fn what_cannot_be_connected_to() -> Vec<Failure> {
    let directory = Directory::new();
    let (nothing, file, left) =
        (directory.join("nothing"), directory.join("file"), directory.join("left"));
    std::fs::write(&file, b"no socket").unwrap();
    drop(UnixListener::bind(&left).unwrap());
    let datagrams = directory.join("datagrams");
    let _socket = UnixDatagram::bind(&datagrams).unwrap();
    let unnamed = UnixStream::pair().unwrap().0.local_addr().unwrap();
    let failures = vec![
        failure(UnixStream::connect(nothing)),
        failure(UnixStream::connect(file)),
        failure(UnixStream::connect(left)),
        failure(UnixStream::connect(datagrams)),
        failure(UnixStream::connect("")),
        failure(UnixStream::connect("\0abstract")),
        failure(UnixStream::connect("in\0side")),
        failure(UnixStream::connect("x".repeat(108))),
        failure(UnixStream::connect_addr(&unnamed)),
        failure(UnixStream::connect_addr(&abstract_address())),
    ];
    assert_eq!(failures[0].0, ErrorKind::NotFound);
    assert_eq!(failures[7].0, ErrorKind::InvalidInput);
    failures
}

pub(crate) fn what_cannot_be_bound() -> Vec<Failure> {
    let directory = Directory::new();
    let taken = directory.join("taken");
    let _taken = UnixListener::bind(&taken).unwrap();
    let nowhere = Path::new("/does/not/exist");
    let address = abstract_address();
    let _address = UnixListener::bind_addr(&address).unwrap();
    vec![
        failure(UnixListener::bind(&taken)),
        failure(UnixDatagram::bind(&taken)),
        failure(UnixListener::bind(nowhere)),
        failure(UnixDatagram::bind(nowhere)),
        failure(UnixListener::bind("x".repeat(108))),
        failure(UnixDatagram::bind("x".repeat(108))),
        failure(UnixListener::bind("in\0side")),
        failure(UnixListener::bind_addr(&address)),
    ]
}

pub(crate) fn a_path_may_be_as_long_as_it_fits() -> Vec<u8> {
    let directory = Directory::new();
    let room = 107 - directory.join("").as_os_str().len();
    let (one, other) = (directory.join("a".repeat(room)), directory.join("b".repeat(room)));
    let sockets = [UnixDatagram::bind(&one).unwrap(), UnixDatagram::bind(&other).unwrap()];
    sockets[0].send_to(b"hello world", &other).unwrap();
    let mut received = [0; 11];
    let (_, from) = sockets[1].recv_from(&mut received).unwrap();
    assert_eq!(from.as_pathname(), Some(&*one));
    drop(sockets);

    std::fs::remove_file(&one).unwrap();
    let listener = UnixListener::bind(&one).unwrap();
    let client = UnixStream::connect(&one).unwrap();
    assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(&*one));
    drop(listener);
    received.to_vec()
}

pub(crate) fn timeouts_are_kept() -> Vec<Option<Duration>> {
    let (stream, _peer) = UnixStream::pair().unwrap();
    let datagram = UnixDatagram::unbound().unwrap();
    let mut outcome = Vec::new();
    for timeout in [None, Some(Duration::new(15410, 0)), Some(Duration::from_micros(1)), None] {
        stream.set_read_timeout(timeout).unwrap();
        datagram.set_write_timeout(timeout).unwrap();
        outcome.extend([stream.read_timeout().unwrap(), stream.write_timeout().unwrap()]);
        outcome.extend([datagram.read_timeout().unwrap(), datagram.write_timeout().unwrap()]);
        stream.set_write_timeout(timeout).unwrap();
        datagram.set_read_timeout(timeout).unwrap();
    }
    outcome
}

pub(crate) fn a_timeout_of_zero_is_invalid() -> [Failure; 4] {
    let (stream, _peer) = UnixStream::pair().unwrap();
    let datagram = UnixDatagram::unbound().unwrap();
    let zero = Some(Duration::ZERO);
    let failures = [
        failure(stream.set_read_timeout(zero)),
        failure(stream.set_write_timeout(zero)),
        failure(datagram.set_read_timeout(zero)),
        failure(datagram.set_write_timeout(zero)),
    ];
    for failure in &failures {
        assert_eq!(failure.0, ErrorKind::InvalidInput);
    }
    failures
}

pub(crate) fn a_read_is_out_of_time() -> [Failure; 4] {
    let (mut stream, _peer) = UnixStream::pair().unwrap();
    let (datagram, _other) = UnixDatagram::pair().unwrap();
    stream.set_read_timeout(Some(SHORT)).unwrap();
    datagram.set_read_timeout(Some(SHORT)).unwrap();
    let start = Instant::now();
    let failures = [
        failure(stream.read(&mut [0; 8])),
        failure(stream.read_exact(&mut [0; 8])),
        failure(datagram.recv(&mut [0; 8])),
        failure(datagram.recv_from(&mut [0; 8])),
    ];
    assert!(start.elapsed() >= 4 * SHORT);
    failures
}

pub(crate) fn a_read_in_time_leaves_the_timeout() -> Failure {
    let (mut one, mut other) = UnixStream::pair().unwrap();
    one.set_read_timeout(Some(SHORT)).unwrap();
    other.write_all(b"hello world").unwrap();
    let mut received = [0; 11];
    one.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"hello world");
    failure(one.read_exact(&mut received))
}

pub(crate) fn a_write_is_out_of_time() -> Failure {
    let (mut one, _other) = UnixStream::pair().unwrap();
    one.set_write_timeout(Some(SHORT)).unwrap();
    let much = vec![0; 1 << 20];
    loop {
        let start = Instant::now();
        if let Err(error) = one.write(&much) {
            assert!(start.elapsed() >= SHORT);
            break failure::<()>(Err(error));
        }
    }
}

pub(crate) fn errors_are_taken_once() -> String {
    let (one, other) = UnixStream::pair().unwrap();
    let listener = UnixListener::bind_addr(&abstract_address()).unwrap();
    let datagram = UnixDatagram::unbound().unwrap();
    let mut outcome = format!("{:?} {:?}", listener.take_error(), datagram.take_error());
    (&one).write_all(b"never read").unwrap();
    drop(other);
    outcome += &format!(" {:?} {:?}", one.take_error(), one.take_error());
    outcome
}

pub(crate) fn debug_shows_names_and_descriptor() {
    let directory = Directory::new();
    let path = directory.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    shows(&listener, "UnixListener", &format!("local: {path:?} (pathname)"));
    assert!(format!("{:?}", listener.incoming()).starts_with("Incoming { listener: UnixL"));
    let stream = UnixStream::connect(&path).unwrap();
    let names = format!("local: (unnamed), peer: {path:?} (pathname)");
    shows(&stream, "UnixStream", &names);
    shows(&UnixDatagram::unbound().unwrap(), "UnixDatagram", "local: (unnamed)");
}

/// Asserts that `socket` shows itself as `kind` with its number and `names`.
#[track_caller]
fn shows(socket: &(impl AsRawFd + Debug), kind: &str, names: &str) {
    let text = format!("{socket:?}");
    assert!(text.starts_with(&format!("{kind} {{ fd: ")), "{text}");
    assert!(text.contains(&socket.as_raw_fd().to_string()), "{text}");
    assert!(text.ends_with(&format!(", {names} }}")), "{text}");
}

pub(crate) fn abstract_streams_go_there_and_back() -> Vec<u8> {
    let address = abstract_address();
    let listener = UnixListener::bind_addr(&address).unwrap();
    let client = UnixStream::connect_addr(&address).unwrap();
    let peer = client.peer_addr().unwrap();
    assert_eq!(peer.as_abstract_name(), address.as_abstract_name());
    let (server, from) = listener.accept().unwrap();
    assert!(from.is_unnamed());
    converse(client, server)
}

pub(crate) fn abstract_names_are_told() -> [usize; 3] {
    // A name of one byte, one of none, and one that fills all the room.
    let id = std::process::id().to_ne_bytes();
    [1, 0, 107 - 4 - 8].map(|length| {
        let name = [&id[..], module_path!().as_bytes(), &vec![7; length]].concat();
        let name = &name[..(length + 4 + 8).min(name.len())];
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.send_to_addr(b"x", &address).unwrap();
        let (_, from) = socket.recv_from(&mut [0; 8]).unwrap();
        assert!(from.as_pathname().is_none());
        assert_eq!(from.as_abstract_name(), Some(name));
        name.len()
    })
}

pub(crate) fn a_datagram_arrives_with_its_sender() -> Vec<u8> {
    let directory = Directory::new();
    let (one, other) = (directory.join("one"), directory.join("other"));
    let (sender, receiver) =
        (UnixDatagram::bind(&one).unwrap(), UnixDatagram::bind(&other).unwrap());
    let receiving = spawn(move || {
        let mut received = [0; 16];
        let (count, from) = receiver.recv_from(&mut received).unwrap();
        assert_eq!(from.as_pathname(), Some(&*one));
        received[..count].to_vec()
    });
    sender.send_to(b"hello world", &other).unwrap();
    receiving.join().unwrap()
}

pub(crate) fn a_datagram_of_whom_has_no_name() -> String {
    let directory = Directory::new();
    let path = directory.join("socket");
    let receiver = UnixDatagram::bind(&path).unwrap();
    UnixDatagram::unbound().unwrap().send_to(b"hello world", &path).unwrap();
    let (count, from) = receiver.recv_from(&mut [0; 16]).unwrap();
    assert!(from.is_unnamed());
    format!("{count} {from:?}")
}

pub(crate) fn a_sender_can_be_answered() -> usize {
    let directory = Directory::new();
    let one = UnixDatagram::bind(directory.join("one")).unwrap();
    let other = UnixDatagram::bind(directory.join("other")).unwrap();
    other.send_to_addr(b"hello world", &one.local_addr().unwrap()).unwrap();
    let (_, from) = one.recv_from(&mut [0; 16]).unwrap();
    one.connect_addr(&from).unwrap();
    one.send(b"hello back").unwrap();
    other.recv(&mut [0; 16]).unwrap()
}

pub(crate) fn a_connected_datagram_socket_sends() -> (Failure, Vec<Failure>) {
    let directory = Directory::new();
    let (one, other) = (directory.join("one"), directory.join("other"));
    let receivers = [UnixDatagram::bind(&one).unwrap(), UnixDatagram::bind(&other).unwrap()];
    let sender = UnixDatagram::unbound().unwrap();
    let unconnected = failure(sender.send(b"to whom?"));
    let refused = vec![
        failure(sender.connect(directory.join("nothing"))),
        failure(sender.connect("x".repeat(108))),
        failure(sender.send_to(b"x", directory.join("nothing"))),
        failure(sender.send_to(b"x", "in\0side")),
    ];
    // It may change its mind.
    for (path, receiver) in [&one, &other].into_iter().zip(&receivers) {
        sender.connect(path).unwrap();
        assert_eq!(sender.peer_addr().unwrap().as_pathname(), Some(&**path));
        sender.send(b"hello there").unwrap();
        let (count, from) = receiver.recv_from(&mut [0; 16]).unwrap();
        assert!(count == 11 && from.is_unnamed());
    }
    (unconnected, refused)
}

pub(crate) fn datagrams_of_a_pair_go_there_and_back() -> Vec<u8> {
    let (one, other) = UnixDatagram::pair().unwrap();
    let answering = spawn(move || {
        assert_eq!(other.recv(&mut [0; 16]).unwrap(), 5);
        other.try_clone().unwrap().send(b"world!").unwrap();
    });
    one.send(b"hello").unwrap();
    let mut answer = [0; 16];
    let count = one.recv(&mut answer).unwrap();
    answering.join().unwrap();
    answer[..count].to_vec()
}

pub(crate) fn abstract_datagrams_arrive() -> usize {
    let (one, other) = (abstract_address(), abstract_address());
    let (sender, receiver) =
        (UnixDatagram::bind_addr(&one).unwrap(), UnixDatagram::bind_addr(&other).unwrap());
    assert_eq!(sender.local_addr().unwrap().as_abstract_name(), one.as_abstract_name(),);
    sender.send_to_addr(b"hello world", &other).unwrap();
    let (_, from) = receiver.recv_from(&mut [0; 16]).unwrap();
    assert_eq!(from.as_abstract_name(), one.as_abstract_name());
    let nameless = UnixDatagram::unbound().unwrap();
    nameless.connect_addr(&other).unwrap();
    nameless.send(b"hello").unwrap();
    let (count, from) = receiver.recv_from(&mut [0; 16]).unwrap();
    assert!(from.is_unnamed());
    count
}

pub(crate) fn what_does_not_fit_is_cut_off() -> [usize; 4] {
    let (one, other) = UnixDatagram::pair().unwrap();
    for _ in 0..4 {
        one.send(b"hello world").unwrap();
    }
    [
        other.recv(&mut [0; 4]).unwrap(),
        other.recv_from(&mut [0; 5]).unwrap().0,
        other.recv(&mut []).unwrap(),
        other.recv(&mut [0; 64]).unwrap(),
    ]
}

pub(crate) fn an_empty_datagram_arrives() -> [usize; 3] {
    let (one, other) = UnixDatagram::pair().unwrap();
    let sent = one.send(&[]).unwrap();
    one.send(&[1]).unwrap();
    [sent, other.recv(&mut [0; 8]).unwrap(), other.recv_from(&mut [0; 8]).unwrap().0]
}

pub(crate) fn too_long_a_datagram_is_refused() -> Failure {
    let (one, _other) = UnixDatagram::pair().unwrap();
    failure(one.send(&vec![0; 1 << 24]))
}

pub(crate) fn who_has_gone_refuses_datagrams() -> Vec<Failure> {
    let (one, other) = UnixDatagram::pair().unwrap();
    drop(other);
    let address = abstract_address();
    let sender = UnixDatagram::unbound().unwrap();
    let receiver = UnixDatagram::bind_addr(&address).unwrap();
    sender.connect_addr(&address).unwrap();
    drop(receiver);
    vec![
        failure(one.send(b"anyone?")),
        failure(sender.send(b"anyone?")),
        failure(sender.send_to_addr(b"anyone?", &address)),
    ]
}

/// The queue of a receiver is short. Whoever sends more waits, connected or not.
pub(crate) fn datagrams_wait_for_room() -> [usize; 3] {
    const MANY: usize = 300;

    let address = abstract_address();
    let receiver = UnixDatagram::bind_addr(&address).unwrap();
    let (one, other) = UnixDatagram::pair().unwrap();
    let connected = UnixDatagram::unbound().unwrap();
    connected.connect_addr(&address).unwrap();
    let unconnected = UnixDatagram::unbound().unwrap();
    let senders = [
        spawn(move || (0..MANY).for_each(|_| assert_eq!(connected.send(&[1]).unwrap(), 1))),
        spawn(move || {
            let send = |_| assert_eq!(unconnected.send_to_addr(&[2], &address).unwrap(), 1);
            (0..MANY).for_each(send);
        }),
        spawn(move || (0..MANY).for_each(|_| assert_eq!(one.send(&[0; 9_000]).unwrap(), 9_000))),
    ];
    let mut received = [0; 3];
    let mut datagram = [0; 9_000];
    for _ in 0..2 * MANY {
        receiver.recv(&mut datagram).unwrap();
        received[usize::from(datagram[0])] += 1;
    }
    for _ in 0..MANY {
        assert_eq!(other.recv(&mut datagram).unwrap(), 9_000);
        received[0] += 1;
    }
    for sender in senders {
        sender.join().unwrap();
    }
    received
}

pub(crate) fn sending_without_room_is_out_of_time() -> [Failure; 4] {
    let address = abstract_address();
    let _receiver = UnixDatagram::bind_addr(&address).unwrap();
    let connected = UnixDatagram::unbound().unwrap();
    connected.connect_addr(&address).unwrap();
    let unconnected = UnixDatagram::unbound().unwrap();
    for sender in [&connected, &unconnected] {
        sender.set_write_timeout(Some(SHORT)).unwrap();
    }
    let unconnected_fails = || loop {
        let start = Instant::now();
        if let Err(error) = unconnected.send_to_addr(&[1], &address) {
            assert!(start.elapsed() >= SHORT);
            break failure::<()>(Err(error));
        }
    };
    let connected_fails = || {
        let start = Instant::now();
        let failure = failure(connected.send(&[1]));
        assert!(start.elapsed() >= SHORT);
        failure
    };
    let out_of_time = [unconnected_fails(), connected_fails()];
    connected.set_nonblocking(true).unwrap();
    unconnected.set_nonblocking(true).unwrap();
    let [one, other] = out_of_time;
    [one, other, failure(connected.send(&[1])), failure(unconnected.send_to_addr(&[1], &address))]
}

pub(crate) fn receiving_after_shutdown_gives_nothing() -> (usize, Vec<usize>, String, Vec<Failure>)
{
    let (one, other) = UnixDatagram::pair().unwrap();
    let clone = one.try_clone().unwrap();
    let receiver = spawn(move || clone.recv(&mut [0; 8]).unwrap());
    one.shutdown(Shutdown::Read).unwrap();
    let woken = receiver.join().unwrap();
    let again = vec![one.recv(&mut [0; 8]).unwrap(), one.recv(&mut [0; 8]).unwrap()];
    let from = format!("{:?}", one.recv_from(&mut [0; 8]));
    let mut failures = vec![failure(other.send(b"x"))];
    one.shutdown(Shutdown::Both).unwrap();
    failures.push(failure(one.send(b"x")));
    one.set_nonblocking(true).unwrap();
    failures.push(failure(one.recv(&mut [0; 8])));
    (woken, again, from, failures)
}
