//! A connection from its first packet to the answer.
//!
//! - The socket is registered once, when the first packet is out; the same registration serves its reads
//!   and writes.
//! - Whether it worked is asked once, after the socket became writable or broke (`SO_ERROR`).

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use crate::source::{Ended, Operation, Source};
use crate::syscall;

/// Connects to `address`, waiting no longer than until `deadline`.
pub(crate) fn connect(
    address: &SocketAddr,
    deadline: Option<Instant>,
) -> io::Result<Source<TcpStream>> {
    let socket = syscall::stream_socket(address)?;
    let connected = syscall::connect(&socket, address)?;
    let source = Source::new(TcpStream::from(socket));
    if connected {
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
