//! A connection from its first packet to the answer.
//!
//! - Before it opens a socket it has the thread's poller made: one that could not be waited on would be of no use.
//! - The socket is registered once, when the first packet is out; the same registration serves its reads
//!   and writes.
//! - Whether it worked is asked once, after the socket became writable or broke (`SO_ERROR`).

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use socket2::Socket;

use crate::budget;
use crate::poller::Poller;
use crate::source::{Ended, Operation, Source};
use crate::syscall;

/// Connects to `address`, waiting no longer than until `deadline`.
pub(crate) fn connect(
    address: &SocketAddr,
    deadline: Option<Instant>,
) -> io::Result<Source<TcpStream>> {
    let socket = budget::obtain(deadline, || socket(address))?;
    let (source, connected) = begin(socket, address)?;
    if connected {
        return Ok(source);
    }
    let ended = source.wait_once(Operation::Connect, deadline)?;
    check(&source)?;
    // A busy thread may be past the deadline before it has seen that the connection stands.
    if ended == Ended::Deadline && source.io().peer_addr().is_err() {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "connection timed out"));
    }
    Ok(source)
}

/// A socket to connect with, when there are descriptors for it and for whatever it takes to wait for it.
pub(crate) fn socket(address: &SocketAddr) -> io::Result<Socket> {
    match Poller::prepare() {
        Err(error) if budget::is_shortage(&error) => Err(error),
        // What else stands in its way, if anything, is told to whoever has to wait.
        _ => syscall::stream_socket(address),
    }
}

/// Sends the first packet; true when there is a connection already.
pub(crate) fn begin(socket: Socket, address: &SocketAddr) -> io::Result<(Source<TcpStream>, bool)> {
    // From here on whoever waits for its descriptor hears when it is closed.
    let source = Source::new(TcpStream::from(socket));
    let connected = syscall::connect(source.io(), address)?;
    Ok((source, connected))
}

/// What came of it, once `source` is ready.
pub(crate) fn check(source: &Source<TcpStream>) -> io::Result<()> {
    source.io().take_error()?.map_or(Ok(()), Err)
}
