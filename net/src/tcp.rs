//! TCP with std's face: streams and listeners.

mod convert;
mod listener;
mod stream;
mod transfer;

pub use listener::{Incoming, TcpListener};
pub use stream::TcpStream;
