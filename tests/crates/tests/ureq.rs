//! ureq's client on pila's sockets, against a server in Python. The connector and the resolver below are all it takes.
//!
//! crate: ureq | how: `Agent::with_parts` with a `Connector` and a `Resolver` of 90 lines, to be copied from the test; they are what ureq calls unversioned. One agent may serve all tasklets of a thread

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use books::Books;
use pila::net::{TcpStream, ToSocketAddrs};
use python::{Python, has_python_with};
use system::{PATIENCE, bounded, tell};
use ureq::{
    Agent, Error,
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport},
    },
};

mod books;
mod python;
#[path = "../../system/mod.rs"]
mod system;

/// Makes `call`, for as long as ureq allows.
fn within<T>(timeout: NextTimeout, call: impl FnOnce() -> std::io::Result<T>) -> Result<T, Error> {
    let Some(limit) = timeout.not_zero() else { return Ok(call()?) };
    match pila::timeout(*limit, call) {
        Ok(result) => Ok(result?),
        Err(_elapsed) => Err(Error::Timeout(timeout.reason)),
    }
}

/// Looks names up as pila does: only the tasklet waits.
#[derive(Debug)]
struct Names;

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(Error::BadUri(uri.to_string()));
        };
        let host = DefaultResolver::host_and_port(scheme, authority)
            .ok_or_else(|| Error::BadUri(uri.to_string()))?;
        let found = within(timeout, || host.to_socket_addrs())?;
        let mut addresses = self.empty();
        for address in config.ip_family().keep_wanted(found).take(16) {
            addresses.push(address);
        }
        if addresses.is_empty() { Err(Error::HostNotFound) } else { Ok(addresses) }
    }
}

/// Connects pila's sockets. Of several addresses the first that answers is taken.
#[derive(Debug)]
struct Sockets;

impl Connector for Sockets {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<Connection>, Error> {
        let config = details.config;
        let stream = within(details.timeout, || TcpStream::connect(&details.addrs[..]))?;
        stream.set_nodelay(config.no_delay())?;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Connection { stream, buffers }))
    }
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    buffers: LazyBuffers,
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let output = &self.buffers.output()[..amount];
        within(timeout.for_write(), || self.stream.write_all(output))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let room = self.buffers.input_append_buf();
        let count = within(timeout.for_read(), || self.stream.read(room))?;
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    /// Nothing has come, and not the end either.
    fn is_open(&mut self) -> bool {
        let looked = self.stream.set_nonblocking(true).and_then(|()| self.stream.peek(&mut [0]));
        let is_quiet = looked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        is_quiet && self.stream.set_nonblocking(false).is_ok()
    }
}

/// Keeps connections, takes 100 ms for each answer, says its number of connections, and echoes what is posted.
const SERVER: &str = r#"
import http.server, time, itertools
count = itertools.count(1)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def setup(self):
        super().setup()
        self.number = next(count)
    def answer(self, body):
        time.sleep(0 if self.path == "/never" else 0.1)
        if self.path == "/never": time.sleep(1000)
        self.send_response(404 if self.path == "/no" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(f"{self.path} on connection {self.number}".encode())
    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["content-length"])))
    def log_message(self, *arguments):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
    def handle_error(self, *client):
        pass # it went away in the middle
server = Server(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"#;

fn agent() -> Agent {
    let config =
        Agent::config_builder().max_idle_connections(200).max_idle_connections_per_host(200);
    Agent::with_parts(config.build(), Sockets, Names)
}

#[test]
fn a_hundred_tasklets_share_an_agent() {
    let _books = Books::open();
    if !has_python_with("http") {
        return;
    }
    let server = Python::serve(SERVER);
    let port = server.address.port();
    bounded(PATIENCE, move || {
        let agent = agent();
        // Twice: the second time on the connections of the first.
        for _ in 0..2 {
            let begun = Instant::now();
            pila::scope(|s| {
                for number in 0..100 {
                    let agent = &agent;
                    s.tasklet(move || {
                        let url = format!("http://localhost:{port}/{number}");
                        let mut answer = agent.get(&url).call().unwrap();
                        let text = answer.body_mut().read_to_string().unwrap();
                        let (path, connection) = text.split_once(" on connection ").unwrap();
                        assert_eq!(path, format!("/{number}"));
                        assert!((1..=100).contains(&connection.parse::<u32>().unwrap()), "{text}");
                    });
                }
            });
            let elapsed = begun.elapsed();
            tell(&format!("ureq: 100 requests of 100 ms each took {elapsed:?}"));
            // One after the other they would take ten seconds.
            assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
        }
    });
}

#[test]
fn what_is_posted_comes_back_and_statuses_are_errors() {
    let _books = Books::open();
    if !has_python_with("http") {
        return;
    }
    let server = Python::serve(SERVER);
    let url = format!("http://{}", server.address);
    bounded(PATIENCE, move || {
        let agent = agent();
        let body: Vec<u8> = (0..300_000_u32).flat_map(u32::to_ne_bytes).collect();
        let mut answer = agent.post(format!("{url}/echo")).send(&body).unwrap();
        assert!(answer.body_mut().read_to_vec().unwrap() == body);
        let refused = agent.get(format!("{url}/no")).call();
        assert!(matches!(refused, Err(Error::StatusCode(404))), "{refused:?}");
    });
}

#[test]
fn timeouts_of_ureq_and_of_pila_are_kept() {
    let _books = Books::open();
    if !has_python_with("http") {
        return;
    }
    let server = Python::serve(SERVER);
    let url = format!("http://{}/never", server.address);
    bounded(PATIENCE, move || {
        let limit = Duration::from_millis(200);
        let agent = agent();
        let begun = Instant::now();
        let request = agent.get(&url).config().timeout_global(Some(limit)).build();
        assert!(matches!(request.call(), Err(Error::Timeout(_))));
        assert!(pila::timeout(limit, || agent.get(&url).call().map(drop)).is_err());
        assert!(begun.elapsed() >= 2 * limit && begun.elapsed() < Duration::from_secs(10));
    });
}
