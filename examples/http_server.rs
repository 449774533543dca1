//! An HTTP/1.1 server: a tasklet for each connection, which it keeps for as long as the client likes. `httparse` reads the
//! heads of requests; all else is below.
//!
//!     cargo run --release --example http_server -- --listen 127.0.0.1:8080
//!
//! Ask it from another terminal, with `curl 127.0.0.1:8080`, `curl -d 'what comes back' 127.0.0.1:8080/echo`, or ten thousand
//! times at once, `wrk -t 1 -c 10000 --timeout 10s http://127.0.0.1:8080`. It prints
//!
//!     listening at http://127.0.0.1:8080

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr},
    time::{Duration, SystemTime},
};

use clap::Parser;
use httparse::Status;
use pila::net::{TcpListener, TcpStream};

/// How many bytes the head of a request may have, and its body.
const LONGEST_HEAD: usize = 8 << 10;
const LONGEST_BODY: usize = 1 << 20;
/// How many headers it may have.
const HEADERS: usize = 64;
/// How long a client may take for its next request or a part of it, and to receive a part of an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// An HTTP/1.1 server
#[derive(Parser)]
struct Options {
    /// Where to listen; port 0 lets the system choose
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

/// A request, as far as it matters here.
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    head_length: usize,
    body_length: usize,
    /// Whether the client waits for a word before it sends the body.
    expects_continue: bool,
    /// Whether the client wants nothing more after it.
    is_last: bool,
}

/// The status of a request that cannot be served. What comes after it cannot be made sense of.
type Refusal = &'static str;

impl<'a> Request<'a> {
    /// The request whose head `input` begins with, if it is there as a whole.
    fn parse(input: &'a [u8]) -> Result<Option<Self>, Refusal> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(input) {
            Ok(Status::Complete(head_length)) => Self::new(&parsed, head_length).map(Some),
            Ok(Status::Partial) if input.len() < LONGEST_HEAD => Ok(None),
            Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                Err("431 Request Header Fields Too Large")
            }
            Err(_) => Err("400 Bad Request"),
        }
    }

    fn new(parsed: &httparse::Request<'_, 'a>, head_length: usize) -> Result<Self, Refusal> {
        let mut request = Self {
            method: parsed.method.unwrap_or_default(),
            path: parsed.path.unwrap_or_default(),
            head_length,
            body_length: 0,
            expects_continue: false,
            is_last: parsed.version == Some(0),
        };
        let (mut hosts, mut lengths) = (0, 0);
        for header in &*parsed.headers {
            let is = |name| header.name.eq_ignore_ascii_case(name);
            if is("host") {
                hosts += 1;
            } else if is("content-length") {
                lengths += 1;
                request.body_length = length(header.value)?;
            } else if is("transfer-encoding") {
                return Err("501 Not Implemented");
            } else if is("connection") {
                request.is_last |= header.value.eq_ignore_ascii_case(b"close");
            } else if is("expect") {
                request.expects_continue = header.value.eq_ignore_ascii_case(b"100-continue");
            }
        }
        // Who is behind a proxy must not see another request than the proxy does.
        let is_clear = lengths <= 1 && (hosts == 1 || parsed.version == Some(0));
        if is_clear { Ok(request) } else { Err("400 Bad Request") }
    }

    fn length(&self) -> usize {
        self.head_length + self.body_length
    }

    /// Whether the client, of whom so many bytes have come, sends the body only after a word from here.
    fn awaits_word(&self, received: usize) -> bool {
        self.expects_continue && received == self.head_length
    }
}

/// The number of a `Content-Length`.
fn length(value: &[u8]) -> Result<usize, Refusal> {
    let digits = std::str::from_utf8(value).ok().filter(|text| !text.starts_with('+'));
    match digits.map(str::parse) {
        Some(Ok(length)) if length <= LONGEST_BODY => Ok(length),
        Some(Ok(_)) => Err("413 Content Too Large"),
        _ => Err("400 Bad Request"),
    }
}

struct Connection {
    stream: TcpStream,
    /// What has come and is not answered yet.
    input: Vec<u8>,
    /// Answers that were not sent yet: those to requests that came together leave together.
    output: Vec<u8>,
}

impl Connection {
    /// Answers everything, until the client has enough or makes no sense.
    fn serve(&mut self) -> io::Result<()> {
        loop {
            match Request::parse(&self.input) {
                Ok(Some(request)) if request.length() <= self.input.len() => {
                    let (length, is_last) = (request.length(), request.is_last);
                    answer(&request, &self.input[request.head_length..length], &mut self.output);
                    self.input.drain(..length);
                    if is_last {
                        return self.send();
                    }
                }
                Ok(request) => {
                    if request.is_some_and(|request| request.awaits_word(self.input.len())) {
                        self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    if !self.receive()? {
                        return Ok(());
                    }
                }
                Err(status) => {
                    respond(&mut self.output, status, b"", true);
                    return self.send().and_then(|()| self.linger());
                }
            }
        }
    }

    fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    /// Sends what is due and waits for more. False if the client has ended.
    fn receive(&mut self) -> io::Result<bool> {
        self.send()?;
        let end = self.input.len();
        self.input.resize(end + 4096, 0);
        let received = self.stream.read(&mut self.input[end..])?;
        self.input.truncate(end + received);
        Ok(received > 0)
    }

    /// Lets the client read why it is refused: closing with something unread would take the answer back.
    fn linger(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        self.stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        io::copy(&mut (&self.stream).take(LONGEST_BODY as u64), &mut io::sink()).map(drop)
    }
}

/// The site.
fn answer(request: &Request, body: &[u8], output: &mut Vec<u8>) {
    let (status, body) = match (request.method, request.path) {
        ("GET" | "HEAD", "/") => ("200 OK", &b"Hello, world!\n"[..]),
        ("POST", "/echo") => ("200 OK", body),
        _ => ("404 Not Found", &b"There is / to GET, and /echo to POST to.\n"[..]),
    };
    respond(output, status, body, request.is_last);
    if request.method == "HEAD" {
        output.truncate(output.len() - body.len());
    }
}

/// Adds an answer to `output`.
fn respond(output: &mut Vec<u8>, status: &str, body: &[u8], is_last: bool) {
    let date = httpdate::HttpDate::from(SystemTime::now());
    let connection = if is_last { "connection: close\r\n" } else { "" };
    let length = body.len();
    write!(
        output,
        "HTTP/1.1 {status}\r\ndate: {date}\r\n{connection}content-length: {length}\r\n\r\n"
    )
    .expect("memory takes everything");
    output.extend_from_slice(body);
}

fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Connection { stream, input: Vec::new(), output: Vec::new() }.serve()
}

fn main() -> io::Result<()> {
    let listener = TcpListener::bind(Options::parse().listen)?;
    println!("listening at http://{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        // A client that goes away in the middle, or is too slow, is nothing to stop for.
        pila::tasklet(move || serve(stream));
    }
    Ok(())
}
