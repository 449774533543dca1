//! Sending mails, each over a connection of its own, a thousand at once. The time is that which the sender's processor
//! works for one mail, the system's part of it included; so the throughput is what it could send if nothing held it up.
//!
//! - `pila`: a tasklet for each of the thousand, which speaks SMTP in plain `std::io` code, on one thread.
//! - `epoll`: the floor. A bare `epoll` loop, level-triggered, over as many little state machines that say the same.
//! - The server is the same for both, the example's, on a thread of its own. It keeps to the last processor this process
//!   may use, the sender to the first, if there are two.
//!
//! As with `echo`, how far apart the two processors are is printed on standard error around the rows.
//!
//! ```text
//! cargo bench --bench mail
//! ```

mod processors;
mod ready;
mod settings;
#[allow(dead_code, reason = "the bench uses the server only")]
#[path = "../examples/smtp/mod.rs"]
mod smtp;
mod worker;

use std::{
    cell::{Cell, LazyCell},
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use criterion::{BenchmarkId, Throughput};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, connect, socket_with},
    time::{ClockId, clock_gettime},
};

use crate::{
    processors::{Side, print_distance},
    ready::Ready,
    settings::in_rounds,
    smtp::{ledger::Ledger, sink::Sink},
    worker::Worker,
};

const AT_ONCE: usize = 1_000;
/// What is said, each after a reply. After the last comes one more.
const WORDS: [&[u8]; 6] = [
    b"EHLO bench\r\n",
    b"MAIL FROM:<a@example.org>\r\n",
    b"RCPT TO:<b@example.org>\r\n",
    b"DATA\r\n",
    b"Subject: bench\r\n\r\nOne line, for what is measured is that there are many.\r\n.\r\n",
    b"QUIT\r\n",
];
/// Room for a reply.
const REPLY: usize = 512;

/// Where mail `number` goes: to one of fifty loopback addresses, so that there are ports enough for any number.
fn address(port: u16, number: u64) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(127, 0, 1, (number % 50) as u8 + 1), port)
}

/// Whether `reply` is complete: its last line has no hyphen behind its code.
fn is_whole(reply: &[u8]) -> bool {
    let Some(text) = reply.strip_suffix(b"\r\n") else { return false };
    let line = text.rsplit(|&byte| byte == b'\n').next();
    line.is_some_and(|line| line.get(3) == Some(&b' '))
}

fn send_mail(stream: &mut (impl Read + Write)) -> io::Result<()> {
    let mut buffer = [0; REPLY];
    hear(stream, &mut buffer)?;
    for words in WORDS {
        stream.write_all(words)?;
        hear(stream, &mut buffer)?;
    }
    Ok(())
}

fn hear(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while !is_whole(&buffer[..filled]) {
        match stream.read(&mut buffer[filled..])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
    if matches!(buffer[0], b'2' | b'3') { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

fn send_with_pila(port: u16, mails: u64) {
    let next = Rc::new(Cell::new(0));
    for _ in 0..AT_ONCE {
        let next = next.clone();
        pila::tasklet(move || {
            while next.get() < mails {
                let number = next.replace(next.get() + 1);
                let mut stream =
                    pila::net::TcpStream::connect(address(port, number)).expect("the sink listens");
                stream.set_nodelay(true).expect("it is a socket");
                send_mail(&mut stream).expect("the sink takes everything");
            }
        });
    }
    pila::run();
}

/// A mail on its way.
struct Mail {
    stream: TcpStream,
    /// How many of the words have been said.
    said: usize,
    reply: [u8; REPLY],
    filled: usize,
}

impl Mail {
    fn new(port: u16, number: u64, ready: &Ready, place: usize) -> Mail {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
            .expect("there are descriptors for so few");
        match connect(&socket, &address(port, number)) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => panic!("the sink does not listen: {error}"),
        }
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).expect("it is a socket");
        ready.add(&stream, place);
        Mail { stream, said: 0, reply: [0; REPLY], filled: 0 }
    }

    /// Goes on when there is something to hear. Whether all has been said and answered.
    fn go_on(&mut self) -> bool {
        let read = self.stream.read(&mut self.reply[self.filled..]).expect("the sink answers");
        assert_ne!(read, 0, "the sink hung up");
        self.filled += read;
        if !is_whole(&self.reply[..self.filled]) {
            return false;
        }
        assert!(matches!(self.reply[0], b'2' | b'3'), "the sink takes everything");
        self.filled = 0;
        let Some(words) = WORDS.get(self.said) else { return true };
        self.stream.write_all(words).expect("words find room");
        self.said += 1;
        false
    }
}

fn send_with_epoll(port: u16, mails: u64) {
    let (ready, mut events) = (Ready::new(), Vec::new());
    let at_once = mails.min(AT_ONCE as u64);
    let mut under_way: Vec<_> =
        (0..at_once).map(|number| Some(Mail::new(port, number, &ready, number as usize))).collect();
    let (mut next, mut sent) = (at_once, 0);
    while sent < mails {
        for place in ready.wait(None, &mut events) {
            if under_way[place].as_mut().is_some_and(Mail::go_on) {
                sent += 1;
                under_way[place] = None;
                if next < mails {
                    under_way[place] = Some(Mail::new(port, next, &ready, place));
                    next += 1;
                }
            }
        }
    }
}

/// The time the calling thread's processor has worked for it.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Starts the server, and says on which port it is. It ends with the process.
fn start_sink(ledger: &Arc<Mutex<Ledger>>) -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").expect("there is a loopback");
    let port = listener.local_addr().expect("it is bound").port();
    let ledger = ledger.clone();
    pila::spawn_thread(move || {
        Side::Load.keep_to();
        Sink { ledger, delay: Duration::ZERO, reply_delay: Duration::ZERO }.serve(&listener.into());
    })
    .expect("a thread can be started");
    port
}

type Send = fn(u16, u64);

fn main() {
    Side::Load.keep_to();
    let mut criterion = settings::criterion();
    let mut group = criterion.benchmark_group("mail");
    group.throughput(Throughput::Elements(1));
    let rows: [(_, Send); 2] = [("pila", send_with_pila), ("epoll", send_with_epoll)];
    // It expects none of the mails, so it counts all of them as damaged.
    let ledger = Arc::new(Mutex::new(Ledger::new(0, 0)));
    let received = || ledger.lock().expect("the sink has not panicked").report().damaged as u64;
    let port = LazyCell::new(|| start_sink(&ledger));
    for (row, send) in rows {
        let worker = LazyCell::new(|| {
            print_distance("before");
            let port = *port;
            Worker::start(move || {
                Side::Measured.keep_to();
                move |batches| {
                    let start = worked();
                    send(port, batches * AT_ONCE as u64);
                    worked() - start
                }
            })
        });
        group.bench_function(BenchmarkId::new(row, AT_ONCE), |bencher| {
            bencher.iter_custom(|mails| {
                in_rounds(mails, AT_ONCE, |batches| {
                    let before = received();
                    let time = worker.measure(batches);
                    assert_eq!(received() - before, batches * AT_ONCE as u64);
                    time
                })
            });
        });
    }
    group.finish();
    print_distance("after");
    criterion.final_summary();
}
