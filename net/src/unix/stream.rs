//! [`UnixStream`]: a connection within the machine whose reads and writes let only the tasklet wait.
//!
//! - What std can do without waiting is left to std's stream inside: names, the face.
//! - The system does not say when a listener whose queue was full has room again. Who connects to it tries again.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::{self, SocketAddr};
use std::path::Path;
use std::time::Duration;

use socket2::Domain;

use super::address;
use crate::readiness::Direction;
use crate::source::{Operation, Source};
use crate::{budget, convert, syscall};

/// A connection through a Unix socket, as [`std::os::unix::net::UnixStream`], on which only the calling tasklet waits.
///
/// Dropping it closes the connection. `&UnixStream` reads and writes too, so one tasklet may read while another writes,
/// and any number may wait for the same thing.
///
/// ```
/// use pila_net::UnixStream;
/// use std::io::{Read, Write};
///
/// # fn main() -> std::io::Result<()> {
/// let (mut ours, mut theirs) = UnixStream::pair()?;
/// let reader = pila_runtime::tasklet(move || {
///     let mut received = String::new();
///     theirs.read_to_string(&mut received).map(|_| received)
/// });
/// ours.write_all(b"hello")?;
/// drop(ours);
/// assert_eq!(reader.join().unwrap()?, "hello");
/// # Ok(())
/// # }
/// ```
pub struct UnixStream {
    /// The connection; std's stream inside has the face and the names.
    pub(crate) source: Source<net::UnixStream>,
}

impl UnixStream {
    /// Connects to whoever listens at `path`, waiting for a place in its queue if that is full.
    ///
    /// # Errors
    /// `NotFound` when there is nothing at `path`, `ConnectionRefused` when nobody listens there any more, `InvalidInput`
    /// when it is too long for a socket or has a NUL in it. With no descriptor left it waits as
    /// [`TcpStream::connect`](crate::TcpStream::connect) does.
    ///
    /// ```
    /// # use pila_net::{UnixListener, UnixStream};
    /// # fn main() -> std::io::Result<()> {
    /// # let path = std::env::temp_dir().join(format!("pila-doc-{}-connect", std::process::id()));
    /// let listener = UnixListener::bind(&path)?;
    /// let stream = UnixStream::connect(&path)?;
    /// assert_eq!(stream.peer_addr()?.as_pathname(), Some(path.as_path()));
    /// # drop(listener);
    /// # std::fs::remove_file(path)
    /// # }
    /// ```
    #[doc(alias = "dial")]
    pub fn connect<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        Self::connect_addr(&SocketAddr::from_pathname(path)?)
    }

    /// Connects to whoever listens at an address, which may be an abstract one.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); `InvalidInput` when the address is unnamed.
    ///
    /// ```
    /// # use pila_net::{UnixListener, UnixStream};
    /// # fn main() -> std::io::Result<()> {
    /// # let path = std::env::temp_dir().join(format!("pila-doc-{}-address", std::process::id()));
    /// let listener = UnixListener::bind(&path)?;
    /// UnixStream::connect_addr(&listener.local_addr()?)?;
    /// # std::fs::remove_file(path)
    /// # }
    /// ```
    pub fn connect_addr(socket_addr: &SocketAddr) -> io::Result<Self> {
        let address = address::to_system(socket_addr)?;
        let socket = budget::obtain(None, || syscall::stream_socket_in(Domain::UNIX))?;
        let source = Source::new(net::UnixStream::from(socket));
        source.run_unannounced(Operation::Connect, |io| Ok(rustix::net::connect(io, &address)?))?;
        Ok(Self::from_source(source))
    }

    /// Two streams that are connected to each other and have no name.
    ///
    /// # Errors
    /// Those of the system call. With no descriptors left it waits as [`TcpStream::connect`](crate::TcpStream::connect) does.
    ///
    /// ```
    /// # use pila_net::UnixStream;
    /// # use std::io::{Read, Write};
    /// # fn main() -> std::io::Result<()> {
    /// let (mut ours, mut theirs) = UnixStream::pair()?;
    /// ours.write_all(b"hello")?;
    /// theirs.read_exact(&mut [0; 5])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = budget::obtain(None, net::UnixStream::pair)?;
        Ok((Self::from(one), Self::from(other)))
    }

    /// A second handle to the same connection, with a descriptor of its own. Options, timeouts included, are shared.
    ///
    /// # Errors
    /// When there is no descriptor left: it does not wait for one.
    ///
    /// ```
    /// # use pila_net::UnixStream;
    /// # use std::io::{Read, Write};
    /// # fn main() -> std::io::Result<()> {
    /// let (mut ours, mut theirs) = UnixStream::pair()?;
    /// drop(ours.try_clone()?);
    /// ours.write_all(b"still open")?;
    /// theirs.read_exact(&mut [0; 10])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::from_source(self.source.share(self.source.io().try_clone()?)))
    }

    /// The address at this end.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UnixStream;
    /// # fn main() -> std::io::Result<()> {
    /// assert!(UnixStream::pair()?.0.local_addr()?.is_unnamed());
    /// # Ok(())
    /// # }
    /// ```
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.source.io().local_addr()
    }

    /// The address at the other end.
    ///
    /// # Errors
    /// When there is no other end.
    ///
    /// ```
    /// # use pila_net::UnixStream;
    /// # fn main() -> std::io::Result<()> {
    /// assert!(UnixStream::pair()?.0.peer_addr()?.is_unnamed());
    /// # Ok(())
    /// # }
    /// ```
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.source.io().peer_addr()
    }

    /// Lets a read wait for no longer than `timeout`; it then fails with `WouldBlock`, as in std.
    ///
    /// # Errors
    /// `InvalidInput` when `timeout` is zero.
    ///
    /// ```
    /// # use pila_net::UnixStream;
    /// use std::{io::{ErrorKind, Read}, time::Duration};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (mut stream, _peer) = UnixStream::pair()?;
    /// stream.set_read_timeout(Some(Duration::from_millis(10)))?;
    /// assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.source.set_timeout(Direction::Read, timeout)
    }

    /// Lets a write wait for no longer than `timeout`; it then fails with `WouldBlock`, as in std.
    ///
    /// # Errors
    /// `InvalidInput` when `timeout` is zero.
    ///
    /// ```
    /// # use pila_net::UnixStream;
    /// # use std::time::Duration;
    /// # fn main() -> std::io::Result<()> {
    /// let (stream, _peer) = UnixStream::pair()?;
    /// stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    /// assert!(stream.set_write_timeout(Some(Duration::ZERO)).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.source.set_timeout(Direction::Write, timeout)
    }

    /// How long a read may wait, rounded up to what the system can represent. `None` is for ever.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UnixStream;
    /// # fn main() -> std::io::Result<()> {
    /// assert_eq!(UnixStream::pair()?.0.read_timeout()?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        self.source.timeout(Direction::Read)
    }

    /// How long a write may wait, rounded up to what the system can represent. `None` is for ever.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UnixStream;
    /// # fn main() -> std::io::Result<()> {
    /// assert_eq!(UnixStream::pair()?.0.write_timeout()?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        self.source.timeout(Direction::Write)
    }

    /// Makes calls on this connection and its clones fail with `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// None; the signature is std's.
    ///
    /// ```
    /// # use pila_net::UnixStream;
    /// use std::io::{ErrorKind, Read};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (mut stream, _peer) = UnixStream::pair()?;
    /// stream.set_nonblocking(true)?;
    /// assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        convert::set_nonblocking(&self.source, nonblocking);
        Ok(())
    }

    /// Takes the error that has struck the connection since the last call, if any.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UnixStream;
    /// # fn main() -> std::io::Result<()> {
    /// assert!(UnixStream::pair()?.0.take_error()?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.source.io().take_error()
    }

    /// Ends one direction of the connection, or both. Tasklets that wait for it are woken.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::{Shutdown, UnixStream};
    /// use std::io::Read;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (ours, mut theirs) = UnixStream::pair()?;
    /// ours.shutdown(Shutdown::Write)?;
    /// assert_eq!(theirs.read(&mut [0; 8])?, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.source.io().shutdown(how)
    }

    pub(super) fn from_source(source: Source<net::UnixStream>) -> Self {
        Self { source }
    }

    pub(super) fn into_source(self) -> Source<net::UnixStream> {
        self.source
    }
}
