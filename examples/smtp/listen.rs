//! Several sockets that listen at one address, among which the system deals out the connections.

use std::{io, net::SocketAddr};

use pila::net::TcpListener;
use socket2::{Domain, Socket, Type};

/// One of several sockets that listen at `address`. If its port is 0, the first one chooses it for the others.
pub(crate) fn shared(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::MAX)?;
    Ok(TcpListener::from(std::net::TcpListener::from(socket)))
}
