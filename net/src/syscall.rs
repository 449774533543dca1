//! The calls that a socket makes, none of which ever blocks its thread.
//!
//! - Streams and datagrams say so with every call (`MSG_DONTWAIT`), so nothing depends on a flag that the socket
//!   shares with duplicates that std, or another process, may hold. Listeners have no such call and are made
//!   nonblocking; where somebody else may have one, again before each `accept`.
//! - No call raises `SIGPIPE`.
//! - One system call each.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrAny};
use socket2::{Domain, SockRef, Socket, Type};

use crate::readiness::Direction;

// Apple's systems have no such flag; there std makes its sockets so that they never raise it.
#[cfg(not(target_vendor = "apple"))]
const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
#[cfg(target_vendor = "apple")]
const SEND: SendFlags = SendFlags::DONTWAIT;

/// Receives into `buffer` what is there.
#[inline]
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::net::recv(socket, buffer, RecvFlags::DONTWAIT)?.0)
}

/// Receives into `buffer` what is there, and leaves it there.
pub(crate) fn peek(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::net::recv(socket, buffer, RecvFlags::DONTWAIT | RecvFlags::PEEK)?.0)
}

/// Receives a datagram into `buffer`, which cuts it off if it is shorter, and tells who it is from, if the sender has an
/// address.
pub(crate) fn receive_from(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<SocketAddrAny>)> {
    let (_, received, from) = rustix::net::recvfrom(socket, &mut *buffer, RecvFlags::DONTWAIT)?;
    Ok((received.min(buffer.len()), from))
}

/// The same, and leaves the datagram there.
pub(crate) fn peek_from(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<SocketAddrAny>)> {
    let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    let (_, received, from) = rustix::net::recvfrom(socket, &mut *buffer, flags)?;
    Ok((received.min(buffer.len()), from))
}

/// The internet address that the system wrote. Fails as std does when it is of another kind.
pub(crate) fn internet_address(address: Option<SocketAddrAny>) -> io::Result<SocketAddr> {
    address
        .and_then(|address| SocketAddr::try_from(address).ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "invalid argument"))
}

/// Receives into several buffers at once.
pub(crate) fn receive_vectored(
    socket: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
) -> io::Result<usize> {
    let mut control = RecvAncillaryBuffer::default();
    let received = rustix::net::recvmsg(socket, buffers, &mut control, RecvFlags::DONTWAIT)?;
    Ok(received.bytes)
}

/// Sends as much of `buffer` as there is room for.
#[inline]
pub(crate) fn send(socket: BorrowedFd<'_>, buffer: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, buffer, SEND)?)
}

/// Sends `datagram` to `address`, whole or not at all.
pub(crate) fn send_to(
    socket: BorrowedFd<'_>,
    datagram: &[u8],
    address: &impl SocketAddrArg,
) -> io::Result<usize> {
    Ok(rustix::net::sendto(socket, datagram, SEND, address)?)
}

/// Sends as much of several buffers as there is room for.
pub(crate) fn send_vectored(socket: BorrowedFd<'_>, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut control = SendAncillaryBuffer::default();
    Ok(rustix::net::sendmsg(socket, buffers, &mut control, SEND)?)
}

/// Shuts a stream for sending: its peer reads the end. One whose peer is gone is as good as shut.
pub(crate) fn shut_sending(socket: BorrowedFd<'_>) -> io::Result<()> {
    match rustix::net::shutdown(socket, rustix::net::Shutdown::Write) {
        Err(Errno::NOTCONN) => Ok(()),
        done => Ok(done?),
    }
}

/// Whether `direction` of `descriptor` is ready, or broken. `WouldBlock` if it is neither.
pub(crate) fn check_ready(descriptor: BorrowedFd<'_>, direction: Direction) -> io::Result<()> {
    let wanted = match direction {
        Direction::Read => PollFlags::IN,
        Direction::Write => PollFlags::OUT,
    };
    match poll(descriptor, wanted)? {
        PollFlags::NVAL => Err(Errno::BADF.into()),
        nothing if nothing.is_empty() => Err(Errno::WOULDBLOCK.into()),
        _ => Ok(()),
    }
}

/// Whether `socket` was shut for receiving.
pub(crate) fn is_shut(socket: BorrowedFd<'_>) -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    let shut = PollFlags::RDHUP;
    #[cfg(not(target_os = "linux"))]
    let shut = PollFlags::HUP;
    Ok(poll(socket, shut)?.contains(shut))
}

/// What holds of `wanted`, and what is broken.
fn poll(descriptor: BorrowedFd<'_>, wanted: PollFlags) -> io::Result<PollFlags> {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut asked = [PollFd::new(&descriptor, wanted)];
    loop {
        match rustix::event::poll(&mut asked, Some(&at_once)) {
            Err(Errno::INTR) => {}
            Ok(_) => return Ok(asked[0].revents()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes the next connection off the queue of `listener`.
pub(crate) fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (socket, address) = accept_from(listener.as_fd())?;
    Ok((TcpStream::from(socket), internet_address(address)?))
}

/// Takes the next connection off the queue of any kind of listener, and tells who it is from.
#[cfg(target_os = "linux")]
pub(crate) fn accept_from(
    listener: BorrowedFd<'_>,
) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    use rustix::net::SocketFlags;

    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    loop {
        match rustix::net::acceptfrom_with(listener, flags) {
            // As in std, where accepting is never interrupted.
            Err(Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
}

/// Takes the next connection off the queue of any kind of listener, and tells who it is from.
#[cfg(not(target_os = "linux"))]
pub(crate) fn accept_from(
    listener: BorrowedFd<'_>,
) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    let (socket, address) = loop {
        match rustix::net::acceptfrom(listener) {
            Err(Errno::INTR) => {}
            done => break done?,
        }
    };
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok((socket, address))
}

/// Whether a connection is in the queue of `listener`. Accepting does not tell when there is no descriptor left.
pub(crate) fn is_pending(listener: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(!poll(listener, PollFlags::IN)?.is_empty())
}

/// A socket for streams to or from addresses like `address`, nonblocking and closed on exec.
pub(crate) fn stream_socket(address: &SocketAddr) -> io::Result<Socket> {
    stream_socket_in(Domain::for_address(*address))
}

/// A socket for streams between addresses of `domain`, nonblocking and closed on exec.
pub(crate) fn stream_socket_in(domain: Domain) -> io::Result<Socket> {
    #[cfg(target_os = "linux")]
    return Socket::new(domain, Type::STREAM.nonblocking(), None);
    #[cfg(not(target_os = "linux"))]
    {
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// Has the system know a socket as nonblocking, or not.
pub(crate) fn set_nonblocking(socket: BorrowedFd<'_>, nonblocking: bool) {
    SockRef::from(&socket)
        .set_nonblocking(nonblocking)
        .expect("an open socket can be made blocking or nonblocking");
}

/// Starts to connect; true when that is done already, and otherwise `socket` will become writable.
pub(crate) fn connect(socket: &TcpStream, address: &SocketAddr) -> io::Result<bool> {
    let in_progress = Errno::INPROGRESS.raw_os_error();
    match SockRef::from(socket).connect(&(*address).into()) {
        Ok(()) => Ok(true),
        // A signal does not stop the connecting.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) if error.raw_os_error() == Some(in_progress) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocking_socket_does_not_block() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let kind = |result: io::Result<usize>| result.unwrap_err().kind();
        assert_eq!(kind(receive(client.as_fd(), &mut [0])), io::ErrorKind::WouldBlock);
        assert_eq!(kind(peek(client.as_fd(), &mut [0])), io::ErrorKind::WouldBlock);
        let mut byte = [0];
        let buffers = &mut [IoSliceMut::new(&mut byte)];
        assert_eq!(kind(receive_vectored(client.as_fd(), buffers)), io::ErrorKind::WouldBlock);
        let much = vec![0; 1 << 20];
        while send(client.as_fd(), &much).is_ok() {}
        assert_eq!(kind(send(client.as_fd(), &much)), io::ErrorKind::WouldBlock);
        let buffers = &[IoSlice::new(&much)];
        assert_eq!(kind(send_vectored(client.as_fd(), buffers)), io::ErrorKind::WouldBlock);
    }
}
