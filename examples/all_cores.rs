//! A mail server that uses every core: on each a thread with a scheduler of its own, and nothing is shared.
//!
//!     cargo run --release --example all_cores
//!
//! All threads listen at the same address, each with a socket of its own (`SO_REUSEPORT`), and the system deals the
//! connections out. Send it mails from another terminal,
//!
//!     cargo run --release --example stackless -- --server 127.0.0.1:2525
//!
//! and end it with Ctrl-C, or say `--seconds 10` at the start:
//!
//!     listening at 127.0.0.1:2525 on 2 threads
//!     thread 0: 5031 mails, at most 2513 connections at once
//!     thread 1: 4969 mails, at most 2498 connections at once

use std::{
    io,
    net::SocketAddr,
    num::NonZero,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use clap::Parser;
use pila::{Signal, net::TcpListener};
use smtp::{ledger::Ledger, listen, sink::Sink};

#[allow(dead_code, reason = "the sink is here, who sends to it is another example")]
mod smtp;

/// Takes mails on every core, and says how many each has taken
#[derive(Parser)]
struct Options {
    /// Where to listen; port 0 lets the system choose
    #[arg(long, default_value = "127.0.0.1:2525")]
    address: SocketAddr,

    /// How many threads to serve with [default: one for each core]
    #[arg(long)]
    threads: Option<NonZero<usize>>,

    /// How long to serve [default: until Ctrl-C]
    #[arg(long)]
    seconds: Option<u64>,
}

/// Serves on a thread of its own, for ever, and notes what comes in the ledger.
fn serve(listener: TcpListener, ledger: Arc<Mutex<Ledger>>) -> io::Result<()> {
    let (delay, reply_delay) = (Duration::ZERO, Duration::ZERO);
    let serve = move || Sink { ledger, delay, reply_delay }.serve(&listener);
    pila::spawn_thread(serve).map(drop)
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let signals = pila::signals([Signal::INTERRUPT, Signal::TERMINATE])?;
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = options.threads.map_or(cores, NonZero::get);

    let first = listen::shared(options.address)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..threads {
        listeners.push(listen::shared(address)?);
    }
    println!("listening at {address} on {threads} threads");
    let mut ledgers = Vec::new();
    for listener in listeners {
        let ledger = Arc::new(Mutex::new(Ledger::new(0, 0)));
        serve(listener, ledger.clone())?;
        ledgers.push(ledger);
    }

    match options.seconds {
        Some(seconds) => signals.receive_timeout(Duration::from_secs(seconds)).ok(),
        None => signals.receive().ok(),
    };
    for (number, ledger) in ledgers.iter().enumerate() {
        let report = ledger.lock().unwrap_or_else(PoisonError::into_inner).report();
        // It is to expect none in particular, so all are others than it expects.
        let mails = report.damaged;
        println!("thread {number}: {mails} mails, at most {} connections at once", report.peak);
    }
    Ok(())
}
