//! An echo server that stops kindly: on Ctrl-C it takes no more connections, lets those it has end what they are at, and
//! ends whoever takes too long. A second Ctrl-C ends it at once.
//!
//!     cargo run --release --example graceful_echo -- --listen 127.0.0.1:7007 --grace 2
//!
//! Talk to it with `nc 127.0.0.1 7007`, twice, and press Ctrl-C:
//!
//!     listening at 127.0.0.1:7007
//!     SIGINT: 2 connections have 2s to end
//!     2 ended by themselves, 0 killed, 0 still alive

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use pila::{
    Group, Signal,
    net::{TcpListener, TcpStream},
};

/// An echo server that stops kindly.
#[derive(Parser)]
struct Options {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// How many seconds connections have to end after the first Ctrl-C.
    #[arg(long, default_value_t = 5.0)]
    grace: f64,
}

/// Gives back what comes. A stop ends the wait for more, but never an answer that is under way.
fn serve(group: &Group, mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    while let Some(length) = group.until_stop(|| stream.read(&mut buffer)) {
        match length? {
            0 => break,
            length => stream.write_all(&buffer[..length])?,
        }
    }
    Ok(())
}

/// Takes connections until the group stops.
fn accept(group: &Group, listener: &TcpListener) {
    while let Some(accepted) = group.until_stop(|| listener.accept()) {
        let (stream, peer) = accepted.expect("there are descriptors enough");
        let theirs = group.clone();
        group.tasklet(move || {
            if let Err(error) = serve(&theirs, stream) {
                eprintln!("{peer}: {error}");
            }
        });
    }
}

fn main() -> io::Result<ExitCode> {
    let options = Options::parse();
    let grace = Duration::from_secs_f64(options.grace);
    let signals = pila::signals([Signal::INTERRUPT, Signal::TERMINATE])?;
    let listener = TcpListener::bind(options.listen)?;
    println!("listening at {}", listener.local_addr()?);

    let group = Group::new();
    let theirs = group.clone();
    pila::tasklet(move || accept(&theirs, &listener));

    let signal = signals.receive().map_err(io::Error::other)?;
    println!("{signal}: {} connections have {grace:?} to end", group.len());
    let stopped = group.stop(grace);
    println!("{stopped}");
    Ok(if stopped.alive.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
