//! A server that sends back what it gets: 64 bytes a request, over 1, 50, 1,000 and 10,000 loopback connections. The
//! throughput is that of requests.
//!
//! - `pila`: a tasklet for each connection, reading and writing plainly, on one thread.
//! - `epoll`: the floor. A bare `epoll` loop, level-triggered, that reads and writes whatever is ready.
//! - The load is the same for both: each connection sends its next request when it has the answer. The server is a process
//!   of its own and keeps to the first processor this one may use, the load to the last, if there are two. A row for whose
//!   connections the limit of descriptors is too low is left out.
//!
//! Both rows depend first on how far apart the machine has put the two processors. The time of a cache line's way from
//! one to the other and back, taken before each row and after it, is printed on standard error: compare rows of like
//! times only.
//!
//! ```text
//! cargo bench --bench echo
//! ```

mod processors;
mod ready;
mod settings;

use std::{
    env,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Throughput};
use rustix::{
    event::{Timespec, epoll::Event},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::{
    processors::{Side, print_distance},
    ready::Ready,
    settings::in_rounds,
};

const CONNECTIONS: [usize; 4] = [1, 50, 1_000, 10_000];
const MESSAGE: usize = 64;
/// The load only looks and never sleeps: to wake its processor would take the server longer than the request.
const LOOK: Option<&Timespec> = Some(&Timespec { tv_sec: 0, tv_nsec: 0 });
/// What a process needs beside its connections.
const OTHER_DESCRIPTORS: u64 = 50;
/// With this in its environment a process is the server of that name.
const SERVER: &str = "PILA_BENCH_ECHO_SERVER";

/// A server that ends when all its connections have come and gone.
type Serve = fn(TcpListener, usize);

const ROWS: [(&str, Serve); 2] = [("pila", serve_with_pila), ("epoll", serve_with_epoll)];

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
    let ready = Ready::new();
    let mut streams: Vec<_> = (0..connections)
        .map(|number| {
            let (stream, _) = listener.accept().expect("the load connects");
            stream.set_nodelay(true).expect("it is a socket");
            stream.set_nonblocking(true).expect("it is a socket");
            ready.add(&stream, number);
            Some(stream)
        })
        .collect();
    let (mut buffer, mut open, mut events) = ([0; 1024], connections, Vec::new());
    while open > 0 {
        for number in ready.wait(None, &mut events) {
            let Some(stream) = &mut streams[number] else { continue };
            match stream.read(&mut buffer) {
                Ok(0) => {
                    streams[number] = None;
                    open -= 1;
                }
                Ok(read) => stream.write_all(&buffer[..read]).expect("64 bytes find room"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
    }
}

/// What a server's process does: it says where it listens, and serves.
fn server(name: &str) {
    let (row, connections) = name.split_once(' ').expect("a row and a number");
    let (_, serve) = ROWS.iter().find(|(known, _)| *known == row).expect("it is a row");
    Side::Measured.keep_to();
    // As std's `bind`, but with room in its queue for all who connect while it is busy.
    let listener = pila::net::TcpListener::bind("127.0.0.1:0").expect("there is a loopback");
    let listener = TcpListener::from(listener);
    listener.set_nonblocking(false).expect("it is a socket");
    println!("{}", listener.local_addr().expect("it is bound"));
    serve(listener, connections.parse().expect("it is a number"));
}

/// The connections from which the requests come, and the server at their other end.
struct Load {
    streams: Vec<TcpStream>,
    ready: Ready,
    events: Vec<Event>,
    server: Child,
}

impl Load {
    fn new(row: &str, connections: usize) -> Load {
        let mut server = Command::new(env::current_exe().expect("this program has a file"))
            .env(SERVER, format!("{row} {connections}"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started");
        let mut address = String::new();
        let answer = server.stdout.take().expect("it is piped");
        BufReader::new(answer).read_line(&mut address).expect("the server says where it listens");
        let address = address.trim().parse().expect("an address");
        let ready = Ready::new();
        let streams = (0..connections).map(|number| connect(address, &ready, number)).collect();
        Load { streams, ready, events: Vec::new(), server }
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
            for number in self.ready.wait(LOOK, &mut self.events) {
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
    stream.set_nonblocking(true).expect("it is a socket");
    ready.add(&stream, number);
    stream
}

impl Drop for Load {
    fn drop(&mut self) {
        self.streams.clear();
        let status = self.server.wait().expect("it is our child");
        assert!(status.success(), "the server ended with {status}");
    }
}

/// Whether a process may have so many connections.
fn has_room_for(connections: usize) -> bool {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // More than the usual soft limit. A failure shows below.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let needed = connections as u64 + OTHER_DESCRIPTORS;
    getrlimit(Resource::Nofile).current.is_none_or(|limit| limit >= needed)
}

fn main() {
    if let Ok(name) = env::var(SERVER) {
        return server(&name);
    }
    Side::Load.keep_to();
    let mut criterion = settings::criterion();
    let mut group = criterion.benchmark_group("echo");
    group.throughput(Throughput::Elements(1));
    for connections in CONNECTIONS {
        if !has_room_for(connections) {
            eprintln!("echo/{connections}: left out, `ulimit -Hn` is lower");
            continue;
        }
        for (row, _) in ROWS {
            let mut load = None;
            group.bench_function(BenchmarkId::new(row, connections), |bencher| {
                let load = load.get_or_insert_with(|| {
                    print_distance("before");
                    Load::new(row, connections)
                });
                bencher.iter_custom(|requests| in_rounds(requests, connections, |n| load.run(n)));
            });
            if load.is_some() {
                drop(load);
                print_distance("after");
            }
        }
    }
    group.finish();
    criterion.final_summary();
}
