//! [`UnixDatagram`]: a socket for messages within the machine that lets only the tasklet wait.
//!
//! - What std can do without waiting is left to std's socket inside: binding, connecting, names.
//! - The system says when the socket that ours is connected to has room again, but not so of any other: who sends to that
//!   tries again.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{self, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::address;
use crate::readiness::Direction;
use crate::source::{Operation, Source};
use crate::{budget, convert, syscall};

/// A Unix socket for datagrams, as [`std::os::unix::net::UnixDatagram`], on which only the calling tasklet waits.
///
/// Within a machine datagrams are neither lost nor reordered: sending waits for the receiver.
///
/// ```
/// use pila_net::UnixDatagram;
///
/// # fn main() -> std::io::Result<()> {
/// let (ours, theirs) = UnixDatagram::pair()?;
/// let receiver = pila_runtime::tasklet(move || {
///     let mut message = [0; 64];
///     theirs.recv(&mut message)
/// });
/// ours.send(b"hello")?;
/// assert_eq!(receiver.join().unwrap()?, 5);
/// # Ok(())
/// # }
/// ```
pub struct UnixDatagram {
    /// The socket; std's inside has the names.
    pub(super) source: Source<net::UnixDatagram>,
}

impl UnixDatagram {
    /// A socket with the name `path`, which is made for it and stays when it goes.
    ///
    /// # Errors
    /// `AddrInUse` when there is something at `path`, `InvalidInput` when it is too long for a socket or has a NUL in it.
    ///
    /// ```
    /// # use pila_net::UnixDatagram;
    /// # fn main() -> std::io::Result<()> {
    /// # let path = std::env::temp_dir().join(format!("pila-doc-{}-datagrams", std::process::id()));
    /// let socket = UnixDatagram::bind(&path)?;
    /// assert_eq!(socket.local_addr()?.as_pathname(), Some(path.as_path()));
    /// # std::fs::remove_file(path)
    /// # }
    /// ```
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        budget::obtain(None, || net::UnixDatagram::bind(&path)).map(Self::from)
    }

    /// A socket with a name that may be an abstract one.
    ///
    /// # Errors
    /// `AddrInUse` when another socket has it.
    ///
    /// ```
    /// # use pila_net::{UnixDatagram, unix::SocketAddr};
    /// # fn main() -> std::io::Result<()> {
    /// # let path = std::env::temp_dir().join(format!("pila-doc-{}-named", std::process::id()));
    /// let socket = UnixDatagram::bind_addr(&SocketAddr::from_pathname(&path)?)?;
    /// assert_eq!(socket.local_addr()?.as_pathname(), Some(path.as_path()));
    /// # std::fs::remove_file(path)
    /// # }
    /// ```
    pub fn bind_addr(socket_addr: &SocketAddr) -> io::Result<Self> {
        budget::obtain(None, || net::UnixDatagram::bind_addr(socket_addr)).map(Self::from)
    }

    /// A socket without a name, which can send and cannot be answered.
    ///
    /// # Errors
    /// Those of the system call. With no descriptor left it waits as [`TcpStream::connect`](crate::TcpStream::connect) does.
    ///
    /// ```
    /// # use pila_net::UnixDatagram;
    /// # fn main() -> std::io::Result<()> {
    /// assert!(UnixDatagram::unbound()?.local_addr()?.is_unnamed());
    /// # Ok(())
    /// # }
    /// ```
    pub fn unbound() -> io::Result<Self> {
        budget::obtain(None, net::UnixDatagram::unbound).map(Self::from)
    }

    /// Two sockets that are connected to each other and have no name.
    ///
    /// # Errors
    /// Those of the system call. With no descriptors left it waits as [`TcpStream::connect`](crate::TcpStream::connect) does.
    ///
    /// ```
    /// # use pila_net::UnixDatagram;
    /// # fn main() -> std::io::Result<()> {
    /// let (ours, theirs) = UnixDatagram::pair()?;
    /// ours.send(b"hello")?;
    /// assert_eq!(theirs.recv(&mut [0; 64])?, 5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = budget::obtain(None, net::UnixDatagram::pair)?;
        Ok((Self::from(one), Self::from(other)))
    }

    /// Has [`send`](Self::send) send to the socket at `path`, and [`recv`](Self::recv) receive from that one only.
    ///
    /// # Errors
    /// When there is no such socket.
    ///
    /// ```
    /// # use pila_net::UnixDatagram;
    /// # fn main() -> std::io::Result<()> {
    /// # let path = std::env::temp_dir().join(format!("pila-doc-{}-to", std::process::id()));
    /// let server = UnixDatagram::bind(&path)?;
    /// let client = UnixDatagram::unbound()?;
    /// client.connect(&path)?;
    /// client.send(b"hello")?;
    /// assert_eq!(server.recv(&mut [0; 64])?, 5);
    /// # std::fs::remove_file(path)
    /// # }
    /// ```
    pub fn connect<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.source.io().connect(path)
    }

    /// As [`connect`](Self::connect), to an address that may be an abstract one.
    ///
    /// # Errors
    /// When there is no such socket.
    ///
    /// ```
    /// # use pila_net::UnixDatagram;
    /// # fn main() -> std::io::Result<()> {
    /// # let path = std::env::temp_dir().join(format!("pila-doc-{}-to-address", std::process::id()));
    /// let server = UnixDatagram::bind(&path)?;
    /// let client = UnixDatagram::unbound()?;
    /// client.connect_addr(&server.local_addr()?)?;
    /// assert_eq!(client.peer_addr()?.as_pathname(), Some(path.as_path()));
    /// # std::fs::remove_file(path)
    /// # }
    /// ```
    pub fn connect_addr(&self, socket_addr: &SocketAddr) -> io::Result<()> {
        self.source.io().connect_addr(socket_addr)
    }

    /// A second handle to the same socket, with a descriptor of its own. Options, timeouts included, are shared.
    ///
    /// # Errors
    /// When there is no descriptor left: it does not wait for one.
    ///
    /// ```
    /// # use pila_net::UnixDatagram;
    /// # fn main() -> std::io::Result<()> {
    /// let (ours, theirs) = UnixDatagram::pair()?;
    /// ours.try_clone()?.send(b"hello")?;
    /// assert_eq!(theirs.recv(&mut [0; 64])?, 5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::from_source(self.source.share(self.source.io().try_clone()?)))
    }

    /// The name of this socket.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UnixDatagram;
    /// # fn main() -> std::io::Result<()> {
    /// assert!(UnixDatagram::unbound()?.local_addr()?.as_pathname().is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.source.io().local_addr()
    }

    /// The name of the socket that this one is connected to.
    ///
    /// # Errors
    /// `NotConnected` when there is none.
    ///
    /// ```
    /// # use pila_net::UnixDatagram;
    /// # fn main() -> std::io::Result<()> {
    /// let alone = UnixDatagram::unbound()?.peer_addr().unwrap_err();
    /// assert_eq!(alone.kind(), std::io::ErrorKind::NotConnected);
    /// # Ok(())
    /// # }
    /// ```
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.source.io().peer_addr()
    }

    /// Receives a datagram, waiting for one if need be, and tells who it is from. What does not fit into `buf` is lost.
    ///
    /// A sender whose path leaves no room for its NUL (108 bytes on Linux), which std lets nobody bind to, is told as
    /// unnamed.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UnixDatagram;
    /// # fn main() -> std::io::Result<()> {
    /// let (ours, theirs) = UnixDatagram::pair()?;
    /// ours.send(b"hello")?;
    /// let (count, from) = theirs.recv_from(&mut [0; 64])?;
    /// assert_eq!(count, 5);
    /// assert!(from.is_unnamed());
    /// # Ok(())
    /// # }
    /// ```
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (received, from) = self.source.receive_datagram_from(buf)?;
        let from = address::from_system(from)?.map_or_else(address::unnamed, Ok)?;
        Ok((received, from))
    }

    /// Receives a datagram, waiting for one if need be. What does not fit into `buf` is lost.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UnixDatagram;
    /// # fn main() -> std::io::Result<()> {
    /// let (ours, theirs) = UnixDatagram::pair()?;
    /// ours.send(b"too long")?;
    /// assert_eq!(theirs.recv(&mut [0; 4])?, 4);
    /// # Ok(())
    /// # }
    /// ```
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.source.receive_datagram(buf)
    }

    /// Sends a datagram to the socket at `path`, waiting for room in its queue if need be.
    ///
    /// # Errors
    /// When there is no such socket, or the datagram is larger than the system allows.
    ///
    /// ```
    /// # use pila_net::UnixDatagram;
    /// # fn main() -> std::io::Result<()> {
    /// # let path = std::env::temp_dir().join(format!("pila-doc-{}-send-to", std::process::id()));
    /// let server = UnixDatagram::bind(&path)?;
    /// UnixDatagram::unbound()?.send_to(b"hello", &path)?;
    /// assert_eq!(server.recv(&mut [0; 64])?, 5);
    /// # std::fs::remove_file(path)
    /// # }
    /// ```
    pub fn send_to<P: AsRef<Path>>(&self, buf: &[u8], path: P) -> io::Result<usize> {
        self.send_to_addr(buf, &SocketAddr::from_pathname(path)?)
    }

    /// As [`send_to`](Self::send_to), to an address that may be an abstract one.
    ///
    /// # Errors
    /// When there is no such socket, or the datagram is larger than the system allows.
    ///
    /// ```
    /// # use pila_net::UnixDatagram;
    /// # fn main() -> std::io::Result<()> {
    /// # let path = std::env::temp_dir().join(format!("pila-doc-{}-send-addr", std::process::id()));
    /// let server = UnixDatagram::bind(&path)?;
    /// UnixDatagram::unbound()?.send_to_addr(b"hello", &server.local_addr()?)?;
    /// assert_eq!(server.recv(&mut [0; 64])?, 5);
    /// # std::fs::remove_file(path)
    /// # }
    /// ```
    pub fn send_to_addr(&self, buf: &[u8], socket_addr: &SocketAddr) -> io::Result<usize> {
        let address = address::to_system(socket_addr)?;
        let send = |io: &net::UnixDatagram| syscall::send_to(io.as_fd(), buf, &address);
        self.source.run_unannounced(Operation::Write, send)
    }

    /// Sends a datagram to the socket that this one is connected to, waiting for room in its queue if need be.
    ///
    /// # Errors
    /// `NotConnected`, `ConnectionRefused` when the other has gone, or that of a datagram which is larger than the system
    /// allows.
    ///
    /// ```
    /// # use pila_net::UnixDatagram;
    /// # fn main() -> std::io::Result<()> {
    /// let (ours, theirs) = UnixDatagram::pair()?;
    /// drop(theirs);
    /// let gone = ours.send(b"hello").unwrap_err();
    /// assert_eq!(gone.kind(), std::io::ErrorKind::ConnectionRefused);
    /// # Ok(())
    /// # }
    /// ```
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.source.send_datagram(buf)
    }

    /// Lets receiving wait for no longer than `timeout`; it then fails with `WouldBlock`, as in std.
    ///
    /// # Errors
    /// `InvalidInput` when `timeout` is zero.
    ///
    /// ```
    /// # use pila_net::UnixDatagram;
    /// # use std::time::Duration;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UnixDatagram::unbound()?;
    /// socket.set_read_timeout(Some(Duration::from_millis(10)))?;
    /// let late = socket.recv(&mut [0; 64]).unwrap_err();
    /// assert_eq!(late.kind(), std::io::ErrorKind::WouldBlock);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.source.set_timeout(Direction::Read, timeout)
    }

    /// Lets sending wait for no longer than `timeout`; it then fails with `WouldBlock`, as in std.
    ///
    /// # Errors
    /// `InvalidInput` when `timeout` is zero.
    ///
    /// ```
    /// # use pila_net::UnixDatagram;
    /// # use std::time::Duration;
    /// # fn main() -> std::io::Result<()> {
    /// let (ours, _theirs) = UnixDatagram::pair()?;
    /// ours.set_write_timeout(Some(Duration::from_millis(10)))?;
    /// while ours.send(b"nobody reads this").is_ok() {}
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.source.set_timeout(Direction::Write, timeout)
    }

    /// How long receiving may wait, rounded up to what the system can represent. `None` is for ever.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UnixDatagram;
    /// # fn main() -> std::io::Result<()> {
    /// assert_eq!(UnixDatagram::unbound()?.read_timeout()?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        self.source.timeout(Direction::Read)
    }

    /// How long sending may wait, rounded up to what the system can represent. `None` is for ever.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UnixDatagram;
    /// # fn main() -> std::io::Result<()> {
    /// assert_eq!(UnixDatagram::unbound()?.write_timeout()?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        self.source.timeout(Direction::Write)
    }

    /// Makes calls on this socket and its clones fail with `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// None; the signature is std's.
    ///
    /// ```
    /// # use pila_net::UnixDatagram;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UnixDatagram::unbound()?;
    /// socket.set_nonblocking(true)?;
    /// let empty = socket.recv(&mut [0; 64]).unwrap_err();
    /// assert_eq!(empty.kind(), std::io::ErrorKind::WouldBlock);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        convert::set_nonblocking(&self.source, nonblocking);
        Ok(())
    }

    /// Takes the error that has struck the socket since the last call, if any.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UnixDatagram;
    /// # fn main() -> std::io::Result<()> {
    /// assert!(UnixDatagram::unbound()?.take_error()?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.source.io().take_error()
    }

    /// Ends receiving, sending, or both. Tasklets that wait for it are woken.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::{Shutdown, UnixDatagram};
    /// # fn main() -> std::io::Result<()> {
    /// let (ours, _theirs) = UnixDatagram::pair()?;
    /// ours.shutdown(Shutdown::Both)?;
    /// assert_eq!(ours.recv(&mut [0; 64])?, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.source.io().shutdown(how)
    }

    pub(super) fn from_source(source: Source<net::UnixDatagram>) -> Self {
        Self { source }
    }

    pub(super) fn into_source(self) -> Source<net::UnixDatagram> {
        self.source
    }
}
