//! A bad wire: it stands between a client and a server, on sockets and threads of std's, and does to every connection
//! what a table of chances says.
//!
//! - What comes out at one end is what went in at the other, up to the fault: it never changes a byte.
//! - Each connection ends, and both its sockets are closed by then.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::net::sockopt::{
    set_socket_linger, set_socket_recv_buffer_size, set_socket_send_buffer_size,
};

use super::random::Random;

/// How long a thread waits for bytes before it looks whether the connection has ended.
const GLANCE: Duration = Duration::from_millis(5);

/// The smallest buffer that there is.
const SMALL: usize = 1;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// When both ends have said all.
    Orderly,
    /// After so many bytes of one direction it is reset, at both ends.
    Reset(usize),
    /// After so many bytes it is closed, in an orderly way, at both ends.
    Closed(usize),
    /// After so many bytes nothing comes through any more for a time, then it is closed.
    Silent(usize),
}

impl End {
    fn after(self) -> usize {
        match self {
            Self::Orderly => usize::MAX,
            Self::Reset(bytes) | Self::Closed(bytes) | Self::Silent(bytes) => bytes,
        }
    }
}

/// What a wire may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chances {
    /// One connection in so many ends early; none if this is 0.
    pub(crate) early_end: usize,
    /// How many bytes come through before that, at most.
    pub(crate) bytes: usize,
    /// For how long a connection is silent that falls silent.
    pub(crate) silence: Duration,
}

/// A wire to one server.
#[derive(Debug)]
pub(crate) struct Wire {
    /// Where its clients connect.
    pub(crate) address: SocketAddr,
    count: Arc<Count>,
}

#[derive(Default, Debug)]
struct Count {
    /// Connections that are not over.
    open: AtomicUsize,
    /// Connections that were meant to end early, and those that did.
    meant: AtomicUsize,
    ended: AtomicUsize,
}

impl Wire {
    /// A wire whose connections go on to `server`.
    pub(crate) fn to(server: SocketAddr, chances: Chances, seed: u64) -> Self {
        let listener = pila::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // Of ours only for its long queue.
        let listener = TcpListener::from(listener);
        let count = Arc::<Count>::default();
        let counted = count.clone();
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let (client, count) = (client.unwrap(), counted.clone());
                let random = Random::new(seed.wrapping_add(number as u64));
                count.open.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    let server = TcpStream::connect(server).unwrap();
                    Connection::new(client, server, chances, &random, count.clone()).carry(&random);
                    count.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, count }
    }

    /// How many connections are not over.
    pub(crate) fn open(&self) -> usize {
        self.count.open.load(Ordering::SeqCst)
    }

    /// How many of them were to end early.
    pub(crate) fn meant_to_end(&self) -> usize {
        self.count.meant.load(Ordering::SeqCst)
    }

    /// How many did.
    pub(crate) fn ended_early(&self) -> usize {
        self.count.ended.load(Ordering::SeqCst)
    }
}

/// One connection through the wire.
#[derive(Debug)]
struct Connection {
    client: TcpStream,
    server: TcpStream,
    end: End,
    /// Whether it is the client's bytes that count until then.
    counts_client: bool,
    silence: Duration,
    /// Whether nothing is carried any more, and whether that is as it was meant.
    has_ended: AtomicBool,
    ended_early: AtomicBool,
    count: Arc<Count>,
}

impl Connection {
    fn new(
        client: TcpStream,
        server: TcpStream,
        chances: Chances,
        random: &Random,
        count: Arc<Count>,
    ) -> Self {
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(GLANCE)).unwrap();
            socket.set_write_timeout(Some(GLANCE)).unwrap();
            socket.set_nodelay(true).unwrap();
            if random.once_in(3) {
                set_socket_recv_buffer_size(socket, SMALL).unwrap();
                set_socket_send_buffer_size(socket, SMALL).unwrap();
            }
        }
        let mut end = End::Orderly;
        if chances.early_end > 0 && random.once_in(chances.early_end) {
            count.meant.fetch_add(1, Ordering::SeqCst);
            let bytes = random.below(chances.bytes);
            end = [End::Reset(bytes), End::Closed(bytes), End::Silent(bytes)][random.below(3)];
        }
        let counts_client = random.once_in(2);
        let (has_ended, ended_early) = (AtomicBool::new(false), AtomicBool::new(false));
        let silence = chances.silence;
        Self { client, server, end, counts_client, silence, has_ended, ended_early, count }
    }

    fn carry(self, random: &Random) {
        let (there, back) = (random.clone(), Random::new(random.below(usize::MAX) as u64));
        thread::scope(|scope| {
            let this = &self;
            scope.spawn(move || {
                let after = if this.counts_client { this.end.after() } else { usize::MAX };
                this.pump(&this.client, &this.server, after, &there);
            });
            let after = if self.counts_client { usize::MAX } else { self.end.after() };
            self.pump(&self.server, &self.client, after, &back);
        });
        if !self.ended_early.load(Ordering::SeqCst) {
            return;
        }
        match self.end {
            // What is closed without lingering is reset.
            End::Reset(_) => {
                for socket in [&self.client, &self.server] {
                    set_socket_linger(socket, Some(Duration::ZERO)).unwrap();
                }
            }
            End::Silent(_) => pause(self.silence),
            End::Orderly | End::Closed(_) => {}
        }
    }

    /// Carries bytes one way until they end, or until `after` of them.
    fn pump(&self, mut from: &TcpStream, to: &TcpStream, mut after: usize, random: &Random) {
        let largest = [1, 2, 7, 100, 4096][random.below(5)];
        let mut buffer = [0; 4096];
        while !self.has_ended.load(Ordering::SeqCst) {
            let wanted = (1 + random.below(largest)).min(after.max(1));
            let count = match from.read(&mut buffer[..wanted]) {
                Ok(0) => {
                    // Who has gone already need not be told.
                    to.shutdown(Shutdown::Write).ok();
                    return;
                }
                Ok(count) => count,
                Err(error) if is_nothing_yet(&error) => continue,
                // Whoever was there is gone, and so is the connection.
                Err(_) => return self.has_ended.store(true, Ordering::SeqCst),
            };
            if after == 0 {
                return self.end_early();
            }
            after -= count;
            if random.once_in(64) {
                pause(random.time(Duration::from_millis(2)));
            }
            if !self.write_all(to, &buffer[..count]) {
                return;
            }
        }
    }

    /// False when there is nobody any more to write to, or the connection has ended.
    fn write_all(&self, mut to: &TcpStream, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() && !self.has_ended.load(Ordering::SeqCst) {
            match to.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_nothing_yet(&error) => {}
                Err(_) => {
                    self.has_ended.store(true, Ordering::SeqCst);
                    return false;
                }
            }
        }
        bytes.is_empty()
    }

    fn end_early(&self) {
        self.count.ended.fetch_add(1, Ordering::SeqCst);
        self.ended_early.store(true, Ordering::SeqCst);
        self.has_ended.store(true, Ordering::SeqCst);
    }
}

fn is_nothing_yet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[allow(clippy::disallowed_methods, reason = "a thread that has no tasklets")]
pub(crate) fn pause(duration: Duration) {
    let end = Instant::now() + duration;
    thread::sleep(end.saturating_duration_since(Instant::now()));
}
