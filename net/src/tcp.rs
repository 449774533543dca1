//! TCP with std's face: streams and listeners.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

mod convert;
mod listener;
mod stream;
mod transfer;

pub use listener::{Incoming, TcpListener};
pub use stream::TcpStream;

/// Tries each address that `name` stands for until one works. Fails like the last, as std does.
fn each_address<T>(
    name: impl ToSocketAddrs,
    mut attempt: impl FnMut(&SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut failure = None;
    for address in name.to_socket_addrs()? {
        match attempt(&address) {
            Ok(done) => return Ok(done),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "could not resolve to any addresses")
    }))
}
