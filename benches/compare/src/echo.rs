//! The load of the echo: each connection sends 64 bytes when it has its answer. It keeps to the last processor.
//!
//! The rates depend first on how far apart the machine has put its two processors, so that the time of a cache line's way
//! from one to the other and back is taken before and after each run.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::Child,
    time::{Duration, Instant},
};

use rustix::event::{Timespec, epoll::Event};

use crate::{
    peers::Program,
    processors::cache_line_round_trip,
    ready::Ready,
    run::{Answers, start},
    work::Work,
};

const MESSAGE: [u8; 64] = [b'x'; 64];
/// So many connect before one of them has its answer: a server's queue is never full.
const AT_ONCE: usize = 64;
/// For a server that hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Has a server answer for a while, and says how many requests it answered and what its processor worked for one.
pub(crate) fn once(program: &Program, work: &Work, quick: bool) -> Result<Answers, String> {
    let before = cache_line_round_trip();
    let mut server = start(&program.command, &work.words(program.peer, quick))
        .map_err(|error| error.to_string())?;
    let outcome = measure(&mut server, work.tasks, quick);
    // Whatever came of it, the server has to go.
    let _ = server.kill();
    let _ = server.wait();
    let mut answers = outcome?;
    let distance = before.max(cache_line_round_trip());
    answers.insert("distance".to_owned(), distance.as_nanos() as f64);
    Ok(answers)
}

fn measure(server: &mut Child, connections: usize, quick: bool) -> Result<Answers, String> {
    let mut line = String::new();
    let said = server.stdout.take().expect("it is piped");
    BufReader::new(said).read_line(&mut line).map_err(|error| error.to_string())?;
    let Some(port) = line.strip_prefix("port ").and_then(|port| port.trim().parse::<f64>().ok())
    else {
        return Err(if line.trim() == "unsupported" { "has none" } else { "no port" }.to_owned());
    };
    let (warm_up, window) = if quick { (50, 100) } else { (300, 700) };
    let mut load = Load::new(port as u16, connections).map_err(|error| error.to_string())?;
    let mut run = |time| load.run(Duration::from_millis(time)).map_err(|error| error.to_string());
    run(warm_up)?;
    let (start, worked) = (Instant::now(), worked(server.id()));
    let answered = run(window)? as f64;
    let (time, worked) = (start.elapsed(), self::worked(server.id()) - worked);
    Ok(Answers::from([
        ("rate".to_owned(), answered / time.as_secs_f64()),
        ("cpu".to_owned(), worked as f64 / answered),
    ]))
}

/// How long a process's threads have run, in nanoseconds.
fn worked(process: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return 0 };
    let time = |thread: io::Result<fs::DirEntry>| -> Option<u64> {
        let stat = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse().ok()
    };
    threads.filter_map(time).sum()
}

struct Load {
    streams: Vec<TcpStream>,
    ready: Ready,
    events: Vec<Event>,
}

impl Load {
    fn new(port: u16, connections: usize) -> io::Result<Load> {
        let (mut streams, ready) = (Vec::with_capacity(connections), Ready::new());
        for number in 0..connections {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            // Closed without a word, so that its port is free at once.
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
            if number % AT_ONCE == AT_ONCE - 1 || number + 1 == connections {
                stream.write_all(&MESSAGE)?;
                stream.read_exact(&mut [0; MESSAGE.len()])?;
            }
            streams.push(stream);
        }
        for (number, stream) in streams.iter_mut().enumerate() {
            stream.set_nonblocking(true)?;
            ready.add(stream, number);
            stream.write_all(&MESSAGE)?;
        }
        Ok(Load { streams, ready, events: Vec::new() })
    }

    /// How many requests were answered in `time`. It only looks and never sleeps: to wake its processor would take the
    /// server longer than the request.
    fn run(&mut self, time: Duration) -> io::Result<u64> {
        let look = Timespec { tv_sec: 0, tv_nsec: 0 };
        let (start, mut answered, mut buffer) = (Instant::now(), 0, [0; MESSAGE.len()]);
        let mut last = start;
        loop {
            let now = Instant::now();
            if now - start >= time {
                return Ok(answered);
            }
            if now - last > PATIENCE {
                return Err(io::ErrorKind::TimedOut.into());
            }
            for number in self.ready.wait(Some(&look), &mut self.events) {
                let mut stream = &self.streams[number];
                stream.read_exact(&mut buffer)?;
                stream.write_all(&MESSAGE)?;
                answered += 1;
                last = now;
            }
        }
    }
}
