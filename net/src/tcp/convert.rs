//! Streams and listeners from and to std's, and from and to bare descriptors.
//!
//! - What goes out is known to no poller any more, and blocks or not as its user asked.
//! - What comes in brings the timeouts that the kernel keeps for it, and waits.

use std::net;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use super::{TcpListener, TcpStream};
use crate::readiness::Direction;
use crate::source::Source;
use crate::syscall;

/// Takes over a connection together with its timeouts. Calls on it wait, whether it was nonblocking or not.
impl From<net::TcpStream> for TcpStream {
    fn from(io: net::TcpStream) -> Self {
        syscall::adopt_stream(&io);
        let timeouts =
            [io.read_timeout(), io.write_timeout()].map(|timeout| timeout.ok().flatten());
        let source = Source::new(io);
        source.set_timeout(Direction::Read, timeouts[0]);
        source.set_timeout(Direction::Write, timeouts[1]);
        Self::from_source(source)
    }
}

/// Gives a connection, together with its timeouts, to std. Calls on it block, unless
/// [`set_nonblocking`](TcpStream::set_nonblocking) said otherwise.
impl From<TcpStream> for net::TcpStream {
    fn from(stream: TcpStream) -> Self {
        let (io, nonblocking) = stream.source.into_inner();
        io.set_nonblocking(nonblocking).expect("an open socket can be made blocking");
        io
    }
}

/// Takes over a descriptor, which must be that of a TCP connection for anything to work.
impl From<OwnedFd> for TcpStream {
    fn from(socket: OwnedFd) -> Self {
        Self::from(net::TcpStream::from(socket))
    }
}

/// Gives the descriptor away, in the state in which std would have it.
impl From<TcpStream> for OwnedFd {
    fn from(stream: TcpStream) -> Self {
        net::TcpStream::from(stream).into()
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.source.as_raw_fd()
    }
}

impl IntoRawFd for TcpStream {
    fn into_raw_fd(self) -> RawFd {
        OwnedFd::from(self).into_raw_fd()
    }
}

/// Takes over a listener. Accepting waits, whether it was nonblocking or not; a receive timeout is kept.
impl From<net::TcpListener> for TcpListener {
    fn from(io: net::TcpListener) -> Self {
        syscall::adopt_listener(&io);
        // std has no name for it on a listener, but obeys it.
        let timeout = socket2::SockRef::from(&io).read_timeout().ok().flatten();
        let source = Source::new(io);
        source.set_timeout(Direction::Read, timeout);
        Self::from_source(source)
    }
}

/// Gives a listener to std. Accepting blocks, unless [`set_nonblocking`](TcpListener::set_nonblocking)
/// said otherwise.
impl From<TcpListener> for net::TcpListener {
    fn from(listener: TcpListener) -> Self {
        let (io, nonblocking) = listener.source.into_inner();
        io.set_nonblocking(nonblocking).expect("an open socket can be made blocking");
        io
    }
}

/// Takes over a descriptor, which must be that of a TCP listener for anything to work.
impl From<OwnedFd> for TcpListener {
    fn from(socket: OwnedFd) -> Self {
        Self::from(net::TcpListener::from(socket))
    }
}

/// Gives the descriptor away, in the state in which std would have it.
impl From<TcpListener> for OwnedFd {
    fn from(listener: TcpListener) -> Self {
        net::TcpListener::from(listener).into()
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl AsRawFd for TcpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.source.as_raw_fd()
    }
}

impl IntoRawFd for TcpListener {
    fn into_raw_fd(self) -> RawFd {
        OwnedFd::from(self).into_raw_fd()
    }
}
