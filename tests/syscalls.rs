//! What an echo costs in system calls, counted by strace from outside.
//!
//! Each test runs itself a second time under strace, as the process that is counted; the environment tells it so, and
//! for how many requests. The other end is plain std code on a thread of the first process, which nobody counts.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{self, SocketAddr},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use pila::net::{TcpListener, TcpStream};
use system::{Directory, PATIENCE, Process, alone, peer, tell, until};

mod system;

/// Tells the counted process how many requests there will be.
const REQUESTS_VARIABLE: &str = "PILA_TEST_REQUESTS";

/// Tells it where the other end is, if that listens.
const SERVER_VARIABLE: &str = "PILA_TEST_SERVER";

const REQUESTS: usize = if cfg!(debug_assertions) { 10_000 } else { 100_000 };

/// Stands before the address that a counted server says.
const LISTENING: &str = "counted server listens at ";

type Message = [u8; 64];

/// How often each system call was made.
type Calls = BTreeMap<String, usize>;

/// How many requests this process is to be counted for, if it is the counted one.
fn counted() -> Option<usize> {
    env::var(REQUESTS_VARIABLE).ok().map(|requests| requests.parse().unwrap())
}

/// The echo server that is counted: one connection, until its end.
fn serve(timeout: Option<Duration>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Not println, which the harness would keep to itself.
    let mut output = io::stdout();
    writeln!(output, "{LISTENING}{}", listener.local_addr().unwrap()).unwrap();
    let echo = pila::tasklet(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(timeout).unwrap();
        stream.set_write_timeout(timeout).unwrap();
        let mut buffer = [0; 1024];
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return,
                count => stream.write_all(&buffer[..count]).unwrap(),
            }
        }
    });
    echo.join().unwrap();
}

/// The client that is counted.
fn ask(requests: usize) {
    let server: SocketAddr = env::var(SERVER_VARIABLE).unwrap().parse().unwrap();
    let client = pila::tasklet(move || converse(TcpStream::connect(server).unwrap(), requests));
    client.join().unwrap();
}

/// Sends one request after the other, and expects each to come back.
fn converse(mut stream: impl Read + Write, requests: usize) {
    let mut buffer = [0; 1024];
    for number in 0..requests {
        let message: Message = [number as u8; 64];
        stream.write_all(&message).unwrap();
        let count = stream.read(&mut buffer).unwrap();
        assert_eq!(buffer[..count], message, "loopback delivers a short message in one piece");
    }
}

/// Runs the test `name` under strace, for so many requests.
fn trace(name: &str, directory: &Directory, requests: usize) -> Command {
    let mut command = Command::new(peer("strace").unwrap());
    command
        .args(["-c", "-f", "-o"])
        .arg(directory.join("calls"))
        .arg(env::current_exe().unwrap())
        .args([name, "--exact"])
        .env(REQUESTS_VARIABLE, requests.to_string())
        .stdout(Stdio::piped());
    command
}

/// Waits for the end of a traced process, and reads what strace wrote about it.
fn calls(mut process: Process, directory: &Directory) -> Calls {
    let status =
        until("the end of the counted process", PATIENCE, || process.0.try_wait().unwrap());
    assert!(status.success(), "the counted process: {status}");
    let table = fs::read_to_string(directory.join("calls")).unwrap();
    let row = |line: &str| {
        // % time, seconds, µs a call, calls, errors if any, name
        let columns: Vec<&str> = line.split_whitespace().collect();
        let calls = columns.get(3)?.parse().ok()?;
        columns.last().filter(|name| **name != "total").map(|name| (name.to_string(), calls))
    };
    table.lines().filter_map(row).collect()
}

/// What a server of `requests` requests calls.
fn calls_of_server(name: &str, requests: usize) -> Calls {
    let directory = Directory::new("syscalls");
    let mut process = Process::start(&mut trace(name, &directory, requests));
    let mut output = BufReader::new(process.0.stdout.take().expect("it is a pipe"));
    let mut said = String::new();
    let address = loop {
        said.clear();
        assert_ne!(output.read_line(&mut said).unwrap(), 0, "the counted server did not start");
        if let Some((_, address)) = said.split_once(LISTENING) {
            break address.trim();
        }
    };
    let stream = net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    converse(stream, requests);
    // Or what the harness still has to say would meet a closed pipe.
    io::copy(&mut output, &mut io::sink()).unwrap();
    calls(process, &directory)
}

/// What a client of `requests` requests calls.
fn calls_of_client(name: &str, requests: usize) -> Calls {
    let directory = Directory::new("syscalls");
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut command = trace(name, &directory, requests);
    let process = Process::start(command.env(SERVER_VARIABLE, address).stdout(Stdio::null()));
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap()
    });
    let calls = calls(process, &directory);
    assert_eq!(server.join().unwrap(), (requests * size_of::<Message>()) as u64);
    calls
}

/// Asserts what the calls for `REQUESTS` requests, less those for one, may be.
fn assert_lean(name: &str, calls_of: impl Fn(&str, usize) -> Calls) {
    let (many, one) = (calls_of(name, REQUESTS), calls_of(name, 1));
    let names = many.keys().chain(one.keys());
    let more: BTreeMap<&str, isize> = names
        .map(|name| {
            let count = |calls: &Calls| calls.get(name).copied().unwrap_or(0) as isize;
            (name.as_str(), count(&many) - count(&one))
        })
        .filter(|(_, more)| *more != 0)
        .collect();
    tell(&format!("{name}: for {REQUESTS} requests, less those for 1: {more:?}"));
    let count = |names: &[&str]| -> isize { names.iter().filter_map(|name| more.get(name)).sum() };

    let requests = REQUESTS as isize - 1;
    // Whether the connection and the first request are there when they are asked for is chance: a wait more or less, and
    // the registrations for it.
    let waits = ["epoll_wait", "epoll_pwait", "epoll_pwait2"];
    assert!(count(&waits) <= requests + 2, "{more:?}");
    let receiving = ["read", "readv", "recvfrom", "recvmsg"];
    // The file of strace's own making, and the harness, may have a read more or less.
    assert!((count(&receiving) - requests).abs() <= 2, "{more:?}");
    assert!((count(&["recvfrom"]) - requests).abs() <= 1, "{more:?}");
    let sending = ["write", "writev", "sendto", "sendmsg"];
    assert!((count(&sending) - requests).abs() <= 2, "{more:?}");
    assert_eq!(count(&["sendto"]), requests, "{more:?}");

    for (name, more) in &more {
        let forbidden = ["epoll_ctl", "eventfd2", "timerfd_create", "timerfd_settime"];
        assert!(!forbidden.contains(name) || more.abs() <= 3, "{name}: {more} more");
        // Nothing else depends on the number of requests; the harness' threads make it vary by a few.
        let allowed = [&waits[..], &receiving, &sending].concat().contains(name);
        assert!(allowed || more.abs() <= 20, "{name}: {more} more");
    }
}

/// Whether strace is there and may look at other processes.
fn strace_works() -> bool {
    let Some(strace) = peer("strace") else { return false };
    let status = Command::new(strace).args(["-c", "-o", "/dev/null", "true"]).status().unwrap();
    if !status.success() {
        system::left_out("strace may not look at other processes");
    }
    status.success()
}

#[test]
fn an_echo_server_makes_three_calls_a_request() {
    if counted().is_some() {
        return serve(None);
    }
    let _alone = alone();
    if strace_works() {
        assert_lean("an_echo_server_makes_three_calls_a_request", calls_of_server);
    }
}

#[test]
fn timeouts_make_no_calls() {
    if counted().is_some() {
        return serve(Some(Duration::from_secs(60)));
    }
    let _alone = alone();
    if strace_works() {
        assert_lean("timeouts_make_no_calls", calls_of_server);
    }
}

#[test]
fn a_client_makes_three_calls_a_request() {
    if let Some(requests) = counted() {
        return ask(requests);
    }
    let _alone = alone();
    if strace_works() {
        assert_lean("a_client_makes_three_calls_a_request", calls_of_client);
    }
}
