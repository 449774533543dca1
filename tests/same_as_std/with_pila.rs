//! The programs on pila's types.

pub(crate) mod types {
    pub(crate) use pila::net::{TcpListener, TcpStream, UdpSocket};
    pub(crate) use pila::net::{UnixDatagram, UnixListener, UnixStream};
    pub(crate) use pila::{Tasklet as Spawned, tasklet as spawn};
}

#[path = "tcp.rs"]
pub(crate) mod tcp;
#[path = "udp.rs"]
pub(crate) mod udp;
#[path = "unix.rs"]
pub(crate) mod unix;
