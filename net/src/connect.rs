//! A connection from its first packet to the answer.
//!
//! - Before it opens a socket it has the thread's poller made: one that could not be waited on would be of no use.
//! - The socket is registered once, when the first packet is out; the same registration serves its reads
//!   and writes.
//! - Whether it worked is asked once, after the socket became writable or broke (`SO_ERROR`).

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use crate::budget;
use crate::poller::Poller;
use crate::source::{Ended, Operation, Source};
use crate::syscall;

/// Connects to `address`, waiting no longer than until `deadline`.
pub(crate) fn connect(
    address: &SocketAddr,
    deadline: Option<Instant>,
) -> io::Result<Source<TcpStream>> {
    let socket = budget::obtain(deadline, || match Poller::prepare() {
        Err(error) if budget::is_shortage(&error) => Err(error),
        // What else stands in its way, if anything, is told to whoever has to wait.
        _ => syscall::stream_socket(address),
    })?;
    // From here on whoever waits for its descriptor hears when it is closed.
    let source = Source::new(TcpStream::from(socket));
    if syscall::connect(source.io(), address)? {
        return Ok(source);
    }
    let ended = source.wait_once(Operation::Connect, deadline)?;
    if let Some(error) = source.io().take_error()? {
        return Err(error);
    }
    // A busy thread may be past the deadline before it has seen that the connection stands.
    if ended == Ended::Deadline && source.io().peer_addr().is_err() {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "connection timed out"));
    }
    Ok(source)
}
