//! TCP with std's face: streams and listeners.

use std::net;

use crate::convert::conversions;
use crate::transfer::reads_and_writes;

mod listener;
mod stream;

pub use listener::{Incoming, TcpListener};
pub use stream::TcpStream;

reads_and_writes!(TcpStream, &TcpStream);
conversions!(TcpStream, net::TcpStream);
conversions!(TcpListener, net::TcpListener);
