//! A server that sends back what it gets: 64 bytes a request, over 1, 50 and 1,000 loopback connections. The throughput
//! is that of requests.
//!
//! - `pila`: a tasklet for each connection, reading and writing plainly, on one thread.
//! - `epoll`: the floor. A bare `epoll` loop, level-triggered, that reads and writes whatever is ready.
//! - The load is the same for both, from a second thread: each connection sends its next request when it has the answer.
//!   The server keeps to the first processor this process may use and the load to the last, if there are two.
//!
//! Both rows depend first on how far apart the machine has put the two processors. The time of a cache line's way from
//! one to the other and back, taken before each row and after it, is printed on standard error: compare rows of like
//! times only.
//!
//! ```text
//! cargo bench --bench echo
//! ```

mod settings;

use std::{
    hint,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Throughput};
use rustix::{
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

use crate::settings::in_rounds;

const CONNECTIONS: [usize; 3] = [1, 50, 1_000];
const MESSAGE: usize = 64;
/// Events taken from the kernel at a time.
const EVENTS: usize = 1024;

/// The load only looks and never sleeps: to wake its processor would take the server longer than the request.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Which processor a thread keeps to.
#[derive(Clone, Copy)]
enum Side {
    Server,
    Load,
}

impl Side {
    /// Binds the calling thread, as far as the system lets it.
    fn keep_to(self) {
        // Asked once, for threads inherit to what the one that made them was bound.
        static ALLOWED: OnceLock<CpuSet> = OnceLock::new();
        let allowed = ALLOWED.get_or_init(|| sched_getaffinity(None).unwrap_or_default());
        let mut processors = (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor));
        let chosen = match self {
            Side::Server => processors.next(),
            Side::Load => processors.next_back(),
        };
        let mut only = CpuSet::new();
        chosen.into_iter().for_each(|processor| only.set(processor));
        // Unbound, the rows are only noisier.
        let _ = sched_setaffinity(None, &only);
    }
}

/// A server that has accepted all its connections.
type Serve = fn(TcpListener, usize);

fn serve_with_pila(listener: TcpListener, connections: usize) {
    let listener = pila::net::TcpListener::from(listener);
    pila::tasklet(move || {
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().expect("the load connects");
            stream.set_nodelay(true).expect("it is a socket");
            pila::tasklet(move || {
                let mut buffer = [0; 1024];
                loop {
                    match stream.read(&mut buffer).expect("the load closes in order") {
                        0 => return,
                        read => stream.write_all(&buffer[..read]).expect("the load reads"),
                    }
                }
            });
        }
    });
    pila::run();
}

fn serve_with_epoll(listener: TcpListener, connections: usize) {
    let mut streams = Vec::with_capacity(connections);
    let ready = Ready::new();
    for number in 0..connections {
        let (stream, _) = listener.accept().expect("the load connects");
        stream.set_nodelay(true).expect("it is a socket");
        ready.add(&stream, number);
        streams.push(stream);
    }
    let (mut buffer, mut open) = ([0; 1024], connections);
    let mut events = Vec::with_capacity(EVENTS);
    while open > 0 {
        for number in ready.wait(None, &mut events) {
            let mut stream = &streams[number];
            match stream.read(&mut buffer) {
                Ok(0) => {
                    epoll::delete(&ready.epoll, stream).expect("it was added");
                    open -= 1;
                }
                Ok(read) => stream.write_all(&buffer[..read]).expect("64 bytes find room"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
    }
}

/// Sockets that are watched for something to read, by number.
struct Ready {
    epoll: OwnedFd,
}

impl Ready {
    fn new() -> Ready {
        Ready { epoll: epoll::create(CreateFlags::CLOEXEC).expect("a descriptor is left") }
    }

    fn add(&self, stream: &TcpStream, number: usize) {
        stream.set_nonblocking(true).expect("it is a socket");
        let data = EventData::new_u64(number as u64);
        epoll::add(&self.epoll, stream.as_fd(), data, EventFlags::IN).expect("it is a socket");
    }

    /// Waits until some are ready, or only looks, and says which.
    fn wait<'a>(
        &self,
        timeout: Option<&Timespec>,
        events: &'a mut Vec<Event>,
    ) -> impl Iterator<Item = usize> + 'a {
        events.clear();
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), timeout)
            .expect("nothing interrupts it");
        events.drain(..).map(|event| event.data.u64() as usize)
    }
}

/// The connections from which the requests come, and the server at their other end.
struct Load {
    streams: Vec<TcpStream>,
    ready: Ready,
    events: Vec<Event>,
    server: Option<JoinHandle<()>>,
}

impl Load {
    fn new(serve: Serve, connections: usize) -> Load {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a loopback");
        let address = listener.local_addr().expect("it is bound");
        let server = thread::spawn(move || {
            Side::Server.keep_to();
            serve(listener, connections);
        });
        let ready = Ready::new();
        let streams = (0..connections).map(|number| connect(address, &ready, number)).collect();
        Load { streams, ready, events: Vec::with_capacity(EVENTS), server: Some(server) }
    }

    /// The time of so many requests on each connection.
    fn run(&mut self, rounds: u64) -> Duration {
        let message = [b'x'; MESSAGE];
        let mut buffer = [0; MESSAGE];
        let total = rounds * self.streams.len() as u64;
        let (mut sent, mut answered) = (0, 0);
        let start = Instant::now();
        for mut stream in &self.streams {
            stream.write_all(&message).expect("the server lives");
            sent += 1;
        }
        while answered < total {
            for number in self.ready.wait(Some(&LOOK), &mut self.events) {
                let mut stream = &self.streams[number];
                stream.read_exact(&mut buffer).expect("an answer comes in one piece");
                answered += 1;
                if sent < total {
                    stream.write_all(&message).expect("the server lives");
                    sent += 1;
                }
            }
        }
        start.elapsed()
    }
}

fn connect(address: SocketAddr, ready: &Ready, number: usize) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).expect("it is a socket");
    ready.add(&stream, number);
    stream
}

impl Drop for Load {
    fn drop(&mut self) {
        self.streams.clear();
        let server = self.server.take().expect("a load is dropped once");
        server.join().expect("the server has not panicked");
    }
}

/// How long a cache line takes from one side's processor to the other's and back.
fn cache_line_round_trip() -> Duration {
    const TRIPS: u64 = 20_000;
    static LINE: AtomicU64 = AtomicU64::new(0);
    let wait_for = |turn| {
        let mut spins = 0_u32;
        while LINE.load(Ordering::Acquire) != turn {
            hint::spin_loop();
            spins += 1;
            // Where both sides share one processor.
            if spins.is_multiple_of(10_000) {
                thread::yield_now();
            }
        }
    };
    LINE.store(0, Ordering::Release);
    let other = thread::spawn(move || {
        Side::Server.keep_to();
        for trip in 0..TRIPS {
            wait_for(2 * trip + 1);
            LINE.store(2 * trip + 2, Ordering::Release);
        }
    });
    LINE.store(1, Ordering::Release);
    wait_for(2);
    let start = Instant::now();
    for trip in 1..TRIPS {
        LINE.store(2 * trip + 1, Ordering::Release);
        wait_for(2 * trip + 2);
    }
    let time = start.elapsed() / (TRIPS as u32 - 1);
    other.join().expect("it does not panic");
    time
}

/// Two descriptors a connection are more than the usual soft limit.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

fn main() {
    raise_descriptor_limit();
    Side::Load.keep_to();
    let mut criterion = settings::criterion();
    let mut group = criterion.benchmark_group("echo");
    group.throughput(Throughput::Elements(1));
    let rows: [(_, Serve); 2] = [("pila", serve_with_pila), ("epoll", serve_with_epoll)];
    for connections in CONNECTIONS {
        for (row, serve) in rows {
            let mut load = None;
            group.bench_function(BenchmarkId::new(row, connections), |bencher| {
                let load = load.get_or_insert_with(|| {
                    eprintln!("cache line there and back: {:?} before", cache_line_round_trip());
                    Load::new(serve, connections)
                });
                bencher.iter_custom(|requests| in_rounds(requests, connections, |n| load.run(n)));
            });
            if load.is_some() {
                drop(load);
                eprintln!("cache line there and back: {:?} after", cache_line_round_trip());
            }
        }
    }
    group.finish();
    criterion.final_summary();
}
