//! The sink of our own, a child process: `SinkProcess` is the parent's end of it, `main` the child's.
//!
//! The child says its port on standard output, and from then on what it has received, whenever a line comes on standard
//! input and once more when that ends. So it also ends when the parent is killed.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use pila::process::{Child, ChildStdout, Command, Stdio};
use serde::{Deserialize, Serialize};

use super::descriptors;
use crate::smtp::{
    ledger::{Ledger, Report},
    listen,
    sink::Sink,
};

/// The system holds 4,096 connections for each listening socket until they are accepted, and has those that come beyond
/// that try again after a second. This many sockets at one address hold a burst of ten thousand.
const LISTENERS: usize = 4;

/// What a sink is to expect, and how slow it is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    /// How many numbered mails there are.
    pub(crate) mails: u32,
    /// How many bytes each body has.
    pub(crate) body_size: usize,
    /// How long a connection waits for the greeting.
    pub(crate) greeting_delay: Duration,
    /// How long a client waits for each later reply.
    pub(crate) reply_delay: Duration,
}

impl Order {
    /// Reads what `SinkProcess::start` puts on the child's command line.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}

/// A running sink.
pub(crate) struct SinkProcess {
    child: Child,
    output: BufReader<ChildStdout>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl SinkProcess {
    /// Starts this program again, as a sink.
    pub(crate) fn start(order: &Order) -> io::Result<Self> {
        let order = serde_json::to_string(order)?;
        let mut command = Command::new(env::current_exe()?);
        command.args(["--sink", &order]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // Ctrl-C is for the parent alone, which knows what to do about its children.
        command.as_std_mut().process_group(0);
        let mut child = command.spawn()?;
        let mut output = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
        let mut line = String::new();
        output.read_line(&mut line)?;
        let address =
            line.trim().parse().map_err(|_| io::Error::other("the sink did not start"))?;
        Ok(Self { child, output, address })
    }

    /// What it has received so far.
    #[allow(dead_code, reason = "one of the two programs that have a sink asks before the end")]
    pub(crate) fn ask(&mut self) -> io::Result<Report> {
        let input = self.child.stdin.as_mut().expect("standard input is a pipe, open to the end");
        input.write_all(b"\n")?;
        let mut report = String::new();
        self.output.read_line(&mut report)?;
        report.parse().map_err(io::Error::other)
    }

    /// Ends the sink, and returns what it has received.
    pub(crate) fn finish(mut self) -> io::Result<Report> {
        drop(self.child.stdin.take());
        let mut report = String::new();
        self.output.read_to_string(&mut report)?;
        self.child.wait()?;
        report.parse().map_err(io::Error::other)
    }
}

/// What the child does; `program` is who complains.
pub(crate) fn main(program: &str, order: &Order) -> ExitCode {
    match receive(order) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: the sink: {error}");
            ExitCode::FAILURE
        }
    }
}

fn receive(order: &Order) -> io::Result<()> {
    descriptors::raise_limit();
    let first = listen::shared((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..LISTENERS {
        listeners.push(listen::shared(address)?);
    }
    writeln!(io::stdout(), "{address}")?;
    let ledger = Arc::new(Mutex::new(Ledger::new(order.mails, order.body_size)));
    let Order { greeting_delay, reply_delay, .. } = *order;
    let sink = Sink { ledger: ledger.clone(), delay: greeting_delay, reply_delay };
    // This thread has to wait for standard input, which is no socket: so another one serves.
    thread::spawn(move || {
        for listener in listeners {
            let sink = sink.clone();
            pila::tasklet(move || sink.serve(&listener));
        }
        pila::run();
    });
    let report = || ledger.lock().unwrap_or_else(PoisonError::into_inner).report();
    for line in io::stdin().lines() {
        line?;
        writeln!(io::stdout(), "{}", report())?;
    }
    // A parent that was killed does not read it.
    writeln!(io::stdout(), "{}", report()).ok();
    Ok(())
}
