//! Ten thousand connections that say nothing do not slow down a hundred that do.
//!
//! The clients are another process, which runs this test a second time: the environment tells it where the server is. It
//! is told what to do line by line, and answers so; the server waits for those answers as for any other descriptor.

use std::cell::Cell;
use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use pila::net::{SocketAddr, TcpListener, TcpStream, readable};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use system::{Process, bounded, left_out, tell};

mod system;

const IDLE: usize = 10_000;
const BUSY: usize = 100;

/// What a process needs beside its sockets.
const SPARE: usize = 100;

/// How long the busy ones are counted at a time, and how often.
const WINDOW: Duration = Duration::from_millis(200);
const WINDOWS: usize = 5;

/// Tells the clients where the server is.
const SERVER_VARIABLE: &str = "PILA_TEST_SERVER";

/// How many descriptors this process may have from now on.
fn descriptor_limit() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    maximum.map_or(usize::MAX, |maximum| maximum as usize)
}

/// Reads a line of standard input, for which only the calling tasklet waits.
fn order() -> String {
    let mut line = String::new();
    // They come one at a time, so nothing is left over from the last.
    readable(&io::stdin()).unwrap();
    io::stdin().read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// The lines that the clients write.
struct Answers(BufReader<ChildStdout>);

impl Answers {
    /// The number on the next line that has one: the harness has something to say as well.
    fn next(&mut self) -> usize {
        loop {
            let mut line = String::new();
            if self.0.buffer().is_empty() {
                readable(self.0.get_ref()).unwrap();
            }
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the clients have gone");
            if let Some(number) = line.trim_end().strip_prefix("answer ") {
                return number.parse().unwrap();
            }
        }
    }
}

/// The clients: they ask as they are told, until there is nothing more to read.
fn ask(server: SocketAddr) {
    let (asked, stop) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    for _ in 0..BUSY {
        let (asked, stop) = (Rc::clone(&asked), Rc::clone(&stop));
        pila::tasklet(move || {
            let mut stream = TcpStream::connect(server).unwrap();
            while !stop.get() {
                stream.write_all(&[7; 64]).unwrap();
                stream.read_exact(&mut [0; 64]).unwrap();
                asked.set(asked.get() + 1);
            }
        });
    }
    let mut idle = Vec::new();
    let mut output = io::stdout();
    loop {
        let answer = match &*order() {
            "count" => {
                let before = asked.get();
                let start = Instant::now();
                pila::sleep(WINDOW);
                let (count, time) = (asked.get() - before, start.elapsed());
                (count as f64 / time.as_secs_f64()) as usize
            }
            "connect" => {
                let connect = |_| pila::tasklet(move || TcpStream::connect(server).unwrap());
                let connecting: Vec<_> = (0..IDLE).map(connect).collect();
                idle = connecting.into_iter().map(|one| one.join().unwrap()).collect();
                idle.len()
            }
            "close" => std::mem::take(&mut idle).len(),
            _ => break,
        };
        // Not println, which the harness would keep to itself.
        writeln!(output, "answer {answer}").unwrap();
        output.flush().unwrap();
    }
    stop.set(true);
    pila::run();
}

/// Serves the clients and counts what they ask, alone and beside the idle ones.
fn compare() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = Rc::new(Cell::new(0));
    let mut clients = Process::start(
        Command::new(env::current_exe().unwrap())
            .args(["ten_thousand_idle_connections_do_not_slow_down_busy_ones", "--exact"])
            .env(SERVER_VARIABLE, listener.local_addr().unwrap().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped()),
    );
    let mut answers = Answers(BufReader::new(clients.0.stdout.take().expect("it is a pipe")));
    let mut orders = clients.0.stdin.take().expect("it is a pipe");
    let served = Rc::clone(&open);
    let server = pila::tasklet(move || {
        for stream in listener.incoming() {
            let (mut stream, open) = (stream.unwrap(), Rc::clone(&served));
            open.set(open.get() + 1);
            pila::tasklet(move || {
                let mut buffer = [0; 64];
                while stream.read_exact(&mut buffer).is_ok() && stream.write_all(&buffer).is_ok() {}
                open.set(open.get() - 1);
            });
        }
    });

    let mut order = |what: &str| {
        writeln!(orders, "{what}").unwrap();
        answers.next()
    };
    let fastest = |order: &mut dyn FnMut(&str) -> usize| {
        (0..WINDOWS).map(|_| order("count")).max().expect("there are several")
    };
    // As fast as alone, in one of a few rounds: the machine may have had something else to do in the others.
    let in_a_round = (0..4).any(|_| {
        let alone = fastest(&mut order);
        assert_eq!(order("connect"), IDLE);
        wait_for(&open, IDLE + BUSY);
        let beside = fastest(&mut order);
        assert_eq!(order("close"), IDLE);
        wait_for(&open, BUSY);
        tell(&format!(
            "{BUSY} busy connections: {alone} requests a second alone, {beside} beside {IDLE} idle ones"
        ));
        beside * 10 >= alone * 9
    });
    assert!(in_a_round, "the idle ones cost the busy ones a tenth");
    end(orders, server);
}

fn wait_for(open: &Cell<usize>, count: usize) {
    let start = Instant::now();
    while open.get() != count {
        assert!(start.elapsed() < Duration::from_secs(60), "{} are open", open.get());
        pila::sleep(Duration::from_millis(1));
    }
}

fn end(orders: ChildStdin, server: pila::Tasklet<()>) {
    drop(orders);
    server.kill().unwrap();
    // Until the last of the busy ones has gone.
    pila::run();
}

#[test]
fn ten_thousand_idle_connections_do_not_slow_down_busy_ones() {
    let limit = descriptor_limit();
    if let Ok(server) = env::var(SERVER_VARIABLE) {
        return ask(server.parse().unwrap());
    }
    if limit < IDLE + BUSY + SPARE {
        return left_out(&format!("a process may have {limit} descriptors at most"));
    }
    bounded(Duration::from_secs(180), compare);
}
