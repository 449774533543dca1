//! The example `http_server` beside the same site on tokio and hyper: ten thousand clients that keep their connections.
//!
//! crate: httparse | how: as it is: it reads slices. [`examples/http_server.rs`](../examples/http_server.rs) is a server on it

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    rc::Rc,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::sched_getaffinity;
use system::{
    PATIENCE, Process, alone, example, finish, left_out, number_after, peer, tell, until,
};

#[path = "../../system/mod.rs"]
mod system;

const CLIENTS: u64 = 10_000;
/// How often each server is measured, in turns.
const ROUNDS: usize = if cfg!(debug_assertions) { 1 } else { 3 };

/// Has the processes that are started from here on have as many descriptors as they may. Returns whether that is enough.
fn raise_descriptor_limit() -> bool {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    maximum.is_none_or(|maximum| maximum >= CLIENTS + 100)
}

/// `command` on the processor with this index among those that there are, if there are several.
fn pinned(command: &Command, index: usize) -> Command {
    let allowed = sched_getaffinity(None).unwrap();
    let processors: Vec<_> = (0..1024).filter(|&number| allowed.is_set(number)).collect();
    let number = processors[index % processors.len()];
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", &number.to_string()]).arg(command.get_program()).args(command.get_args());
    pinned
}

/// A server of its own for each measurement, so that none has another's memory.
struct Server {
    process: Process,
    url: String,
}

impl Server {
    fn start(name: &str) -> Self {
        let mut command = pinned(&example(name), 0);
        let mut process = Process::start(command.stdout(Stdio::piped()));
        let mut line = String::new();
        BufReader::new(process.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening at ").expect("it says where").to_string();
        Self { process, url }
    }

    fn child(&self) -> &Child {
        &self.process.0
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child().id())).unwrap().count()
    }

    /// The processor time it has used, in seconds.
    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child().id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / 100.0
    }

    fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child().id())).unwrap();
        number_after(&status, "VmRSS:").unwrap()
    }
}

/// What one run of wrk came to.
#[derive(Debug)]
struct Measured {
    /// Requests in a second by the clock, which is as true as the machine is quiet.
    by_clock: f64,
    /// Requests in a second of the server's own processor time: what it does on a core that it has to itself.
    by_cpu: f64,
    resident: u64,
}

/// Asks a new server `name` with all clients at once, for so many seconds. Every request must be answered, and every
/// connection kept. `None` if wrk did not get to open them all: it does that first, one after the other, and the time
/// counts, on a machine that has other things to do.
fn measure_for(seconds: u32, name: &str) -> Option<Measured> {
    let server = Server::start(name);
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", &format!("-c{CLIENTS}"), &format!("-d{seconds}s"), "--timeout=60s"]);
    let mut wrk = pinned(wrk.arg(&server.url), 1);
    let server = Rc::new(server);
    let watched = server.clone();
    let watcher = pila::tasklet(move || {
        while watched.descriptors() < CLIENTS as usize {
            pila::sleep(Duration::from_millis(20));
        }
    });
    let outcome = finish(&mut wrk, PATIENCE);
    let (resident, cpu) = (server.resident(), server.cpu());
    let had_all = !watcher.is_alive();
    watcher.kill().unwrap();

    let text = &outcome.stdout;
    let is_clean = !text.contains("Socket errors") && !text.contains("Non-2xx");
    assert!(outcome.status == Some(0) && is_clean, "{name}: {outcome:?}");
    let (requests, _) = text.split_once(" requests in ").expect("wrk counts them");
    let requests: f64 = requests.split_whitespace().last().unwrap().parse().unwrap();
    let (_, rate) = text.split_once("Requests/sec:").expect("wrk counts them");
    let by_clock = rate.split_whitespace().next().unwrap().parse().unwrap();

    // What it has besides is made when it first waits: no more than a poller.
    let are_closed = || (server.descriptors() < 20).then_some(());
    until("all connections closed", PATIENCE, are_closed);
    let has_begun = had_all && requests >= 2.0 * CLIENTS as f64;
    has_begun.then_some(Measured { by_clock, by_cpu: requests / cpu, resident })
}

fn measure(name: &str) -> Measured {
    let measured = [8, 20, 50].into_iter().find_map(|seconds| measure_for(seconds, name));
    measured.unwrap_or_else(|| panic!("{name}: wrk does not get to its requests"))
}

fn median(runs: &[Measured], figure: impl Fn(&Measured) -> f64) -> f64 {
    let mut figures: Vec<f64> = runs.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

#[test]
fn ten_thousand_connections_are_kept_and_served_as_fast_as_by_hyper() {
    let _alone = alone();
    if peer("wrk").is_none() || peer("taskset").is_none() {
        return;
    }
    if !raise_descriptor_limit() {
        return left_out("ulimit -Hn is too low for 10,000 connections");
    }
    let (mut pila, mut hyper) = (Vec::new(), Vec::new());
    let is_as_fast = |ratio: f64| cfg!(debug_assertions) || ratio >= 0.9;
    // A machine that others share may be slow in one server's turns and not in the other's: then it takes more of them.
    let (by_clock, by_cpu) = loop {
        pila.push(measure("http_server"));
        hyper.push(measure("hyper_server"));
        let ratio = |figure: fn(&Measured) -> f64| median(&pila, figure) / median(&hyper, figure);
        // By the processor, for other processes want it, too.
        let (by_clock, by_cpu) = (ratio(|run| run.by_clock), ratio(|run| run.by_cpu));
        let rounds = pila.len();
        if rounds == 3 * ROUNDS || (rounds >= ROUNDS && is_as_fast(by_cpu)) {
            break (by_clock, by_cpu);
        }
    };
    for (name, runs) in [("pila", &pila), ("tokio and hyper", &hyper)] {
        let (clock, cpu) = (median(runs, |run| run.by_clock), median(runs, |run| run.by_cpu));
        let mib = median(runs, |run| run.resident as f64 / 1024.0);
        tell(&format!(
            "{name}: {clock:.0} requests/s, {cpu:.0} in a second of its own, {mib:.0} MiB, \
             {CLIENTS} connections"
        ));
    }
    tell(&format!(
        "pila against tokio and hyper: {by_clock:.2} by the clock, {by_cpu:.2} by the processor"
    ));
    assert!(is_as_fast(by_cpu), "{pila:?}\n{hyper:?}");
}

#[test]
fn a_connection_that_says_nothing_costs_no_more_than_a_stack_page_and_a_buffer() {
    let _alone = alone();
    if !raise_descriptor_limit() {
        return left_out("ulimit -Hn is too low for 10,000 connections");
    }
    let server = Server::start("http_server");
    let address = server.url.strip_prefix("http://").unwrap().to_string();
    let before = server.resident();
    let connections: Vec<_> =
        (0..CLIENTS).map(|_| std::net::TcpStream::connect(&address).unwrap()).collect();
    let clients = connections.len();
    until("all accepted", PATIENCE, || (server.descriptors() >= clients).then_some(()));
    // It sleeps now, or will in a moment: everything that a connection needs before its first byte is there.
    until("at rest", Duration::from_secs(20), || {
        let cpu = server.cpu();
        pila::sleep(Duration::from_millis(100));
        (server.cpu() == cpu).then_some(())
    });
    let each = (server.resident() - before) as f64 / clients as f64;
    tell(&format!("an idle connection of http_server: {each:.1} KiB"));
    assert!(each < 14.0, "{each:.1} KiB");
}
