//! Unix sockets with std's face: what [`std::os::unix::net`] has, where only the calling tasklet waits.
//!
//! ```
//! use pila_net::unix::UnixStream; // for std::os::unix::net::UnixStream
//! use std::io::{Read, Write};
//!
//! # fn main() -> std::io::Result<()> {
//! let (mut ours, mut theirs) = UnixStream::pair()?;
//! let echo = pila_runtime::tasklet(move || {
//!     let mut line = [0; 5];
//!     theirs.read_exact(&mut line).and_then(|()| theirs.write_all(&line))
//! });
//! ours.write_all(b"hello")?;
//! let mut answer = String::new();
//! ours.read_to_string(&mut answer)?;
//! assert_eq!(answer, "hello");
//! # echo.join().unwrap()
//! # }
//! ```

use std::os::unix::net;

use crate::convert::conversions;
use crate::transfer::reads_and_writes;

mod address;
mod datagram;
mod listener;
mod stream;

pub use std::os::unix::net::SocketAddr;

pub use datagram::UnixDatagram;
pub use listener::{Incoming, UnixListener};
pub use stream::UnixStream;

reads_and_writes!(UnixStream, &UnixStream);
conversions!(UnixStream, net::UnixStream);
conversions!(UnixListener, net::UnixListener);
conversions!(UnixDatagram, net::UnixDatagram);
