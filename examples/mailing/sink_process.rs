//! The sink of our own, a child process: `SinkProcess` is the parent's end of it, `main` the child's.
//!
//! The child says its port on standard output, serves until its standard input ends, then says what it has received.
//! So it also ends when the parent is killed.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::SocketAddr,
    process::{Child, ChildStdout, Command, ExitCode, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use pila::net::TcpListener;

use super::{descriptors, options::Options};
use crate::smtp::{
    ledger::{Ledger, Report},
    sink::Sink,
};

/// A running sink.
pub(crate) struct SinkProcess {
    child: Child,
    output: BufReader<ChildStdout>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl SinkProcess {
    /// Starts a sink that expects the mails `options` speak of.
    pub(crate) fn start(options: &Options) -> io::Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .arg("--sink")
            .args(["--mails", &options.mails.to_string()])
            .args(["--body-size", &options.body_size.to_string()])
            .args(["--delay", &format!("{}s", options.delay.as_secs_f64())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut output = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
        let mut line = String::new();
        output.read_line(&mut line)?;
        let address =
            line.trim().parse().map_err(|_| io::Error::other("the sink did not start"))?;
        Ok(Self { child, output, address })
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

/// What the child does.
pub(crate) fn main(options: &Options) -> ExitCode {
    match receive(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stackless: the sink: {error}");
            ExitCode::FAILURE
        }
    }
}

fn receive(options: &Options) -> io::Result<()> {
    descriptors::raise_limit();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    writeln!(io::stdout(), "{}", listener.local_addr()?)?;
    let ledger = Arc::new(Mutex::new(Ledger::new(options.mails, options.body_size as usize)));
    let sink = Sink { ledger: ledger.clone(), delay: options.delay };
    // This thread has to wait for the end of standard input, which is no socket: so another one serves.
    thread::spawn(move || sink.serve(&listener));
    io::copy(&mut io::stdin(), &mut io::sink())?;
    // A parent that was killed does not read it.
    let report = ledger.lock().unwrap_or_else(PoisonError::into_inner).report();
    writeln!(io::stdout(), "{report}").ok();
    Ok(())
}
