//! What sockets do when nothing goes as it should: bytes that come one by one, buffers that are full, connections that
//! break at any place, peers that fall silent, signals, descriptors that run out, readiness that is none. Nothing is lost,
//! nothing comes twice, nobody waits for ever.
//!
//! What happens is chance; a test that fails says the seed with which it can be had again.

mod storm;
mod wire;

#[path = "../net_support/mod.rs"]
mod net_support;
#[path = "../random/mod.rs"]
mod random;
#[allow(dead_code, reason = "the example uses all of it")]
#[path = "../../examples/smtp/mod.rs"]
mod smtp;
#[path = "../system/mod.rs"]
mod system;

use std::{
    cell::Cell,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr},
    rc::Rc,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use pila::net::{TcpListener, TcpStream};
use random::{Random, Seed};
use rustix::net::sockopt::{
    set_socket_linger, set_socket_recv_buffer_size, set_socket_send_buffer_size,
};
use smtp::{
    client::{Envelope, Timeouts, send_data},
    ledger::{Ledger, Report},
    letter::Letter,
    sink::Sink,
};
use system::{alone, bounded, tell, until};
use wire::{Chances, Wire};

/// How many mails a test sends.
const MAILS: u32 = if cfg!(debug_assertions) { 200 } else { 1_000 };

/// How large they are: larger than a small buffer.
const SIZE: usize = 6_000;

/// Many times what anything here takes.
const LIMIT: Duration = Duration::from_secs(100);

impl Timeouts for TcpStream {
    fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        TcpStream::set_read_timeout(self, limit)
    }

    fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        TcpStream::set_write_timeout(self, limit)
    }
}

/// What came of a run of mails.
#[derive(Debug)]
struct Mailing {
    /// Those that the sink has said it had.
    sent: usize,
    /// What it has.
    report: Report,
}

/// Sends the mails, `at_once` at a time, from tasklets to a sink of tasklets. `server_as_seen` says where the clients find
/// the sink that listens at an address, and `timeout` how long a step may take.
fn send_mails(
    at_once: usize,
    timeout: Duration,
    server_as_seen: impl FnOnce(SocketAddr) -> SocketAddr,
) -> Mailing {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = server_as_seen(listener.local_addr().unwrap());
    let ledger = Arc::new(Mutex::new(Ledger::new(MAILS, SIZE)));
    let sink = Sink { ledger: ledger.clone(), delay: Duration::ZERO, reply_delay: Duration::ZERO };
    let sink = pila::tasklet(move || sink.serve(&listener));

    let envelope = Rc::new(Envelope {
        host: "client.example.org".into(),
        from: "sender@example.org".into(),
        to: "recipient@example.org".into(),
        timeout,
    });
    let letter = Rc::new(Letter::new("From: <sender@example.org>\r\n".into(), SIZE));
    let (next, sent) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let clients: Vec<_> = (0..at_once)
        .map(|_| {
            let (envelope, letter) = (envelope.clone(), letter.clone());
            let (next, sent) = (next.clone(), sent.clone());
            pila::tasklet(move || {
                while next.get() < MAILS {
                    let number = next.replace(next.get() + 1);
                    let mut stream = TcpStream::connect(server).unwrap();
                    if send_data(&mut stream, &envelope, letter.text(number)).is_ok() {
                        sent.set(sent.get() + 1);
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    // Those that the sink still talks to are its last ones.
    sink.kill().unwrap();
    assert_eq!(pila::run().blocked, 0);
    let report = ledger.lock().unwrap().report();
    tell(&format!("{} of {MAILS} mails sent; {report}", sent.get()));
    Mailing { sent: sent.get(), report }
}

#[test]
fn every_mail_comes_through_a_wire_that_is_only_slow() {
    let _alone = alone();
    let seed = Seed::new();
    let number = seed.0;
    let mailing = bounded(LIMIT, move || {
        let chances = Chances { early_end: 0, bytes: 1, silence: Duration::ZERO };
        send_mails(20, LIMIT, |server| Wire::to(server, chances, number).address)
    });
    assert_eq!(mailing.sent, MAILS as usize);
    let Report { once, missing, doubled, damaged, .. } = mailing.report;
    assert_eq!((once, missing, doubled, damaged), (MAILS as usize, 0, 0, 0));
}

#[test]
fn no_mail_is_lost_or_doubled_by_a_wire_that_breaks() {
    let _alone = alone();
    let seed = Seed::new();
    let number = seed.0;
    let (mailing, wire) = bounded(LIMIT, move || {
        let chances =
            Chances { early_end: 2, bytes: SIZE + 600, silence: Duration::from_millis(800) };
        let mut wire = None;
        let mailing = send_mails(30, Duration::from_millis(400), |server| {
            wire.insert(Wire::to(server, chances, number)).address
        });
        (mailing, wire.unwrap())
    });
    until("the end of the wire's connections", LIMIT, || (wire.open() == 0).then_some(()));
    let Report { once, doubled, damaged, .. } = mailing.report;
    // The sink may have one whose client never heard of it, but never the other way round.
    assert!(once >= mailing.sent, "{mailing:?}");
    assert_eq!((doubled, damaged), (0, 0), "{mailing:?}");
    // Each that was not sent met a fault, and there were enough of them.
    assert!(mailing.sent + wire.meant_to_end() >= MAILS as usize, "{mailing:?}, {wire:?}");
    assert!(wire.ended_early() >= MAILS as usize / 10, "{wire:?}");
}

/// The byte at `place` of what is sent in `direction`.
fn byte(direction: usize, place: usize) -> u8 {
    Random::new((place / 8 * 2 + direction) as u64).below(256) as u8 ^ place as u8
}

/// Writes the first `length` bytes of `direction` in pieces of all sizes, then says that this was all.
fn talk(mut stream: &TcpStream, direction: usize, length: usize, random: &Random) {
    let all: Vec<u8> = (0..length).map(|place| byte(direction, place)).collect();
    let mut rest = &all[..];
    while !rest.is_empty() {
        let (piece, others) = rest.split_at((1 + random.below(5_000)).min(rest.len()));
        if random.once_in(2) {
            stream.write_all(piece).unwrap();
            rest = others;
        } else {
            let (one, other) = piece.split_at(random.below(piece.len()));
            let pieces = [io::IoSlice::new(one), io::IoSlice::new(other)];
            rest = &rest[stream.write_vectored(&pieces).unwrap()..];
        }
        if random.once_in(20) {
            pila::sleep(random.time(Duration::from_millis(1)));
        }
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

/// Reads until the end, in pieces of all sizes, and asserts that these are the first `length` bytes of `direction`.
fn listen(mut stream: &TcpStream, direction: usize, length: usize, random: &Random) {
    let (mut came, mut buffer) = (0, [0; 5_000]);
    loop {
        let wanted = [1, 2, 3, 100, 1_000, 5_000][random.below(6)];
        let count = match random.below(3) {
            0 => {
                let (one, other) = buffer[..wanted].split_at_mut(wanted / 2);
                let mut buffers = [io::IoSliceMut::new(one), io::IoSliceMut::new(other)];
                stream.read_vectored(&mut buffers).unwrap()
            }
            1 => {
                // Looking changes nothing.
                let seen = stream.peek(&mut buffer[..wanted]).unwrap();
                assert!((0..seen).all(|place| buffer[place] == byte(direction, came + place)));
                stream.read(&mut buffer[..wanted]).unwrap()
            }
            _ => stream.read(&mut buffer[..wanted]).unwrap(),
        };
        if count == 0 {
            break;
        }
        assert!((0..count).all(|place| buffer[place] == byte(direction, came + place)));
        came += count;
    }
    assert_eq!(came, length);
    assert_eq!(stream.read(&mut buffer).unwrap(), 0, "an end stays an end");
}

/// Makes the buffers of `stream` as small as they can be, sometimes.
fn narrow(stream: &TcpStream, random: &Random) {
    if random.once_in(2) {
        set_socket_send_buffer_size(stream, 1).unwrap();
        set_socket_recv_buffer_size(stream, 1).unwrap();
    }
}

/// Both directions of one end at once, each with a tasklet of its own; the end of one says nothing about the other.
fn converse(stream: TcpStream, sends: usize, lengths: [usize; 2], random: &Random) {
    narrow(&stream, random);
    let (stream, theirs) = (Rc::new(stream), random.clone());
    let talking = stream.clone();
    let talker = pila::tasklet(move || talk(&talking, sends, lengths[sends], &theirs));
    listen(&stream, 1 - sends, lengths[1 - sends], &Random::new(random.below(1 << 40) as u64));
    talker.join().unwrap();
}

#[test]
fn bytes_keep_their_order_and_number_through_narrow_buffers_and_half_closes() {
    let _alone = alone();
    let seed = Seed::new();
    let number = seed.0;
    bounded(LIMIT, move || {
        let random = Random::new(number);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let chances = Chances { early_end: 0, bytes: 1, silence: Duration::ZERO };
        let direct = listener.local_addr().unwrap();
        let wire = Wire::to(direct, chances, number).address;
        let tasklets: Vec<_> = (0..30_usize)
            .flat_map(|connection| {
                // The wire takes its time for each byte.
                let (address, most) = match connection % 3 {
                    0 => (wire, 3_000),
                    _ => (direct, if connection % 3 == 1 { 3_000 } else { 30_000 }),
                };
                let lengths = [random.below(most), random.below(most)];
                let client = TcpStream::connect(address).unwrap();
                let (server, _) = listener.accept().unwrap();
                [(client, 0), (server, 1)].map(|(stream, sends)| {
                    let random = Random::new(random.below(1 << 40) as u64);
                    pila::tasklet(move || converse(stream, sends, lengths, &random))
                })
            })
            .collect();
        for tasklet in tasklets {
            tasklet.join().unwrap();
        }
    });
}

/// Both ends of a connection.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn a_reset_ends_the_wait_of_everyone_at_the_socket() {
    let _alone = alone();
    bounded(LIMIT, || {
        let (near, far) = pair();
        let near = Rc::new(near);
        let readers = [(); 3].map(|()| {
            let near = near.clone();
            pila::tasklet(move || (&*near).read(&mut [0; 8]).map(drop))
        });
        let writers = [(); 3].map(|()| {
            let near = near.clone();
            pila::tasklet(move || (&*near).write_all(&vec![0; 32 << 20]))
        });
        pila::sleep(Duration::from_millis(20));
        assert!(readers.iter().chain(&writers).all(|tasklet| tasklet.is_blocked()));
        set_socket_linger(&far, Some(Duration::ZERO)).unwrap();
        drop(far);
        let mut kinds = Vec::new();
        for tasklet in readers.into_iter().chain(writers) {
            kinds.extend(tasklet.join().unwrap().map_err(|error| error.kind()).err());
        }
        // The system tells of a reset once; whoever comes later finds the end of the stream, or a broken pipe.
        assert!(kinds.contains(&ErrorKind::ConnectionReset), "{kinds:?}");
        let known = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(kinds.iter().all(|kind| known.contains(kind)), "{kinds:?}");
        assert!(kinds.len() >= 3, "no write can have succeeded: {kinds:?}");
    });
}

#[test]
fn what_somebody_else_reads_is_waited_for_again() {
    const BYTES: usize = 20_000;
    let _alone = alone();
    bounded(LIMIT, || {
        let (mut near, far) = pair();
        // A thief has the same socket and takes bytes at any moment, so that readiness is often none when looked at.
        let mut thief = std::net::TcpStream::from(far);
        let mut far = TcpStream::from(thief.try_clone().unwrap());
        let thief = thread::spawn(move || {
            let mut stolen = Vec::new();
            let mut buffer = [0; 3];
            loop {
                match thief.read(&mut buffer) {
                    Ok(0) => break stolen,
                    Ok(count) => stolen.extend_from_slice(&buffer[..count]),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
        });
        let writer = pila::tasklet(move || {
            for number in 0..BYTES {
                near.write_all(&[number as u8]).unwrap();
                if number % 7 == 0 {
                    pila::sleep(Duration::from_micros(50));
                }
            }
        });
        let mut read = Vec::new();
        far.read_to_end(&mut read).unwrap();
        writer.join().unwrap();
        let stolen = thief.join().unwrap();
        tell(&format!("{} bytes read, {} taken by somebody else", read.len(), stolen.len()));
        assert_eq!(read.len() + stolen.len(), BYTES);
        assert!(!read.is_empty() && !stolen.is_empty());
        // Each is somewhere, once.
        let mut counts = [0; 256];
        read.iter().chain(&stolen).for_each(|&byte| counts[byte as usize] += 1);
        let expected = |byte: usize| (0..BYTES).filter(|number| number % 256 == byte).count();
        assert!((0..256).all(|byte| counts[byte] == expected(byte)));
    });
}

#[test]
fn a_peer_that_falls_silent_is_bounded_by_a_timeout_around_it() {
    let _alone = alone();
    bounded(LIMIT, || {
        let limit = Duration::from_millis(100);
        let tasklets: Vec<_> = (0..200)
            .map(|number| {
                pila::tasklet(move || {
                    let (mut near, far) = pair();
                    let outcome = pila::timeout(limit, move || match number % 2 {
                        0 => near.read(&mut [0; 8]).map(drop),
                        _ => near.write_all(&vec![0; 32 << 20]),
                    });
                    drop(far);
                    outcome.unwrap_err().limit()
                })
            })
            .collect();
        for tasklet in tasklets {
            assert_eq!(tasklet.join().unwrap(), limit);
        }
    });
}

#[test]
fn all_this_holds_portably() {
    let _alone = alone();
    net_support::again_portably();
}
