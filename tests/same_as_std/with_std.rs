//! The programs on std's types.

pub(crate) mod types {
    pub(crate) use std::net::{TcpListener, TcpStream, UdpSocket};
    pub(crate) use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
    pub(crate) use std::thread::{JoinHandle as Spawned, spawn};
}

#[path = "tcp.rs"]
pub(crate) mod tcp;
#[path = "udp.rs"]
pub(crate) mod udp;
#[path = "unix.rs"]
pub(crate) mod unix;
