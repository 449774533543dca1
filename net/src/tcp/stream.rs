//! [`TcpStream`]: a connection whose reads and writes let only the tasklet wait.
//!
//! - What std can do without waiting is left to std's stream inside: options, addresses, the face.
//! - Timeouts are kept twice: in the source, which obeys them, and in the kernel, where a duplicate or std
//!   finds them.

use std::io;
use std::net::{self, Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::readiness::Direction;
use crate::resolve::ToSocketAddrs;
use crate::source::{Operation, Source};
use crate::{attempts, connect, convert, syscall};

/// A TCP connection, as [`std::net::TcpStream`], on which only the calling tasklet waits.
///
/// Dropping it closes the connection. `&TcpStream` reads and writes too, so one tasklet may read while
/// another writes, and any number may wait for the same thing.
///
/// ```
/// use pila_net::{TcpListener, TcpStream};
/// use std::io::{Read, Write};
///
/// # fn main() -> std::io::Result<()> {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let mut client = TcpStream::connect(listener.local_addr()?)?;
/// let (mut server, _) = listener.accept()?;
///
/// let echo = pila_runtime::tasklet(move || {
///     let mut line = [0; 5];
///     server.read_exact(&mut line).and_then(|()| server.write_all(&line))
/// });
/// client.write_all(b"hello")?;
/// let mut answer = String::new();
/// client.read_to_string(&mut answer)?;
/// assert_eq!(answer, "hello");
/// # echo.join().unwrap()
/// # }
/// ```
pub struct TcpStream {
    /// The connection; std's stream inside has the face and the options.
    pub(crate) source: Source<net::TcpStream>,
}

impl TcpStream {
    /// Opens a connection to the first of the addresses that takes it.
    ///
    /// A host name is looked up first: see [`ToSocketAddrs`]. Of several addresses the next one is tried when the last one
    /// has failed or has not answered for 250 ms, IPv6 and IPv4 in turns; the first connection that stands is taken.
    ///
    /// While the process has no descriptor left, the tasklet waits in line for one, behind those that came before it, on
    /// whatever thread. So a program may connect more often at once than `ulimit -n` allows: the rest wait until sockets
    /// of this crate are closed; what is closed elsewhere is noticed within a second.
    ///
    /// # Errors
    /// When `addr` stands for no address. With the error of the address, or when there are several, with one that is of
    /// the same kind as that of the last one tried and names them all.
    ///
    /// With the system's "too many open files" only when waiting is hopeless: when for a second no socket of this crate
    /// has been closed and no tasklet has waited for a connection of its own, whose news might make it close it; or when
    /// for a minute no socket has been closed at all. Tasklets that each hold a connection and want another one would
    /// otherwise wait for each other for ever. One is told first, then two, then four, as long as that frees nothing.
    ///
    /// ```
    /// use pila_net::{TcpListener, TcpStream};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let stream = TcpStream::connect(listener.local_addr()?)?;
    /// assert_eq!(stream.peer_addr()?, listener.local_addr()?);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "dial")]
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        attempts::connect_to_one_of(addr.to_socket_addrs()?).map(Self::from_source)
    }

    /// Opens a connection, waiting for `timeout` at most, the time in line for a descriptor included.
    ///
    /// # Errors
    /// `TimedOut` when the time is up, `InvalidInput` when `timeout` is zero, and as [`connect`](Self::connect).
    ///
    /// ```
    /// use pila_net::{TcpListener, TcpStream};
    /// use std::time::Duration;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// TcpStream::connect_timeout(&listener.local_addr()?, Duration::from_secs(5))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<Self> {
        if timeout.is_zero() {
            let message = "cannot set a 0 duration timeout";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        // A deadline that does not fit is never reached.
        let deadline = Instant::now().checked_add(timeout);
        connect::connect(addr, deadline).map(Self::from_source)
    }

    /// The address at the other end.
    ///
    /// # Errors
    /// When the connection is gone.
    ///
    /// ```
    /// # use pila_net::{TcpListener, TcpStream};
    /// # fn main() -> std::io::Result<()> {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let stream = TcpStream::connect(listener.local_addr()?)?;
    /// assert_eq!(stream.peer_addr()?, listener.local_addr()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.source.io().peer_addr()
    }

    /// The address at this end.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::{TcpListener, TcpStream};
    /// # fn main() -> std::io::Result<()> {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let stream = TcpStream::connect(listener.local_addr()?)?;
    /// assert_eq!(stream.local_addr()?, listener.accept()?.1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.source.io().local_addr()
    }

    /// Ends one direction of the connection, or both. Tasklets that wait for it are woken.
    ///
    /// # Errors
    /// When the connection is gone.
    ///
    /// ```
    /// # use pila_net::{TcpListener, TcpStream};
    /// use pila_net::Shutdown;
    /// use std::io::Read;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let mut client = TcpStream::connect(listener.local_addr()?)?;
    /// # let server = listener.accept()?.0;
    /// server.shutdown(Shutdown::Write)?;
    /// assert_eq!(client.read(&mut [0; 8])?, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.source.io().shutdown(how)
    }

    /// A second handle to the same connection, with a descriptor of its own. Options, timeouts included,
    /// are shared.
    ///
    /// # Errors
    /// When there is no descriptor left. It does not wait for one, for its caller has one itself: those who each have one
    /// and want two would wait for each other.
    ///
    /// ```
    /// # use pila_net::{TcpListener, TcpStream};
    /// use std::io::{Read, Write};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let mut client = TcpStream::connect(listener.local_addr()?)?;
    /// # let mut server = listener.accept()?.0;
    /// drop(client.try_clone()?);
    /// client.write_all(b"still open")?;
    /// server.read_exact(&mut [0; 10])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::from_source(self.source.share(self.source.io().try_clone()?)))
    }

    /// Lets a read wait for no longer than `timeout`; it then fails with `WouldBlock`, as in std on Unix.
    ///
    /// # Errors
    /// `InvalidInput` when `timeout` is zero.
    ///
    /// ```
    /// # use pila_net::{TcpListener, TcpStream};
    /// use std::{io::{ErrorKind, Read}, time::Duration};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let mut stream = TcpStream::connect(listener.local_addr()?)?;
    /// stream.set_read_timeout(Some(Duration::from_millis(10)))?;
    /// assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.source.set_timeout(Direction::Read, timeout)
    }

    /// Lets a write wait for no longer than `timeout`; it then fails with `WouldBlock`, as in std on Unix.
    ///
    /// # Errors
    /// `InvalidInput` when `timeout` is zero.
    ///
    /// ```
    /// # use pila_net::{TcpListener, TcpStream};
    /// # use std::time::Duration;
    /// # fn main() -> std::io::Result<()> {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let stream = TcpStream::connect(listener.local_addr()?)?;
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
    /// # use pila_net::{TcpListener, TcpStream};
    /// # use std::time::Duration;
    /// # fn main() -> std::io::Result<()> {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let stream = TcpStream::connect(listener.local_addr()?)?;
    /// assert_eq!(stream.read_timeout()?, None);
    /// stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    /// assert_eq!(stream.read_timeout()?, Some(Duration::from_secs(5)));
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
    /// # use pila_net::{TcpListener, TcpStream};
    /// # fn main() -> std::io::Result<()> {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let stream = TcpStream::connect(listener.local_addr()?)?;
    /// assert_eq!(stream.write_timeout()?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        self.source.timeout(Direction::Write)
    }

    /// Reads without taking: the next read finds the same bytes. Waits for the first, as a read does.
    ///
    /// # Errors
    /// As reading.
    ///
    /// ```
    /// # use pila_net::{TcpListener, TcpStream};
    /// use std::io::{Read, Write};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let mut client = TcpStream::connect(listener.local_addr()?)?;
    /// # let mut server = listener.accept()?.0;
    /// server.write_all(b"hi")?;
    /// let mut bytes = [0; 2];
    /// assert_eq!(client.peek(&mut bytes)?, 2);
    /// assert_eq!(client.read(&mut bytes)?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.source.run(Operation::Read, |io| syscall::peek(io.as_fd(), buf))
    }

    /// Sends small writes at once (`TCP_NODELAY`) instead of gathering them.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::{TcpListener, TcpStream};
    /// # fn main() -> std::io::Result<()> {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let stream = TcpStream::connect(listener.local_addr()?)?;
    /// stream.set_nodelay(true)?;
    /// assert!(stream.nodelay()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.source.io().set_nodelay(nodelay)
    }

    /// Whether small writes are sent at once.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::{TcpListener, TcpStream};
    /// # fn main() -> std::io::Result<()> {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let stream = TcpStream::connect(listener.local_addr()?)?;
    /// assert!(!stream.nodelay()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn nodelay(&self) -> io::Result<bool> {
        self.source.io().nodelay()
    }

    /// Has what was received acknowledged at once (`TCP_QUICKACK`) instead of a little later. The system may take it back
    /// by itself.
    ///
    /// std has it in `std::os::linux::net::TcpStreamExt`.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::{TcpListener, TcpStream};
    /// # fn main() -> std::io::Result<()> {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let stream = TcpStream::connect(listener.local_addr()?)?;
    /// stream.set_quickack(true)?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(target_os = "linux")]
    pub fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        Ok(rustix::net::sockopt::set_tcp_quickack(self.source.io(), quickack)?)
    }

    /// Whether what was received is acknowledged at once.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::{TcpListener, TcpStream};
    /// # fn main() -> std::io::Result<()> {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let stream = TcpStream::connect(listener.local_addr()?)?;
    /// stream.set_quickack(true)?;
    /// assert!(stream.quickack()?);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(target_os = "linux")]
    pub fn quickack(&self) -> io::Result<bool> {
        Ok(rustix::net::sockopt::tcp_quickack(self.source.io())?)
    }

    /// Sets how many routers a packet of this connection may pass.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::{TcpListener, TcpStream};
    /// # fn main() -> std::io::Result<()> {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let stream = TcpStream::connect(listener.local_addr()?)?;
    /// stream.set_ttl(100)?;
    /// assert_eq!(stream.ttl()?, 100);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.source.io().set_ttl(ttl)
    }

    /// How many routers a packet of this connection may pass.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::{TcpListener, TcpStream};
    /// # fn main() -> std::io::Result<()> {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let stream = TcpStream::connect(listener.local_addr()?)?;
    /// assert!(stream.ttl()? > 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn ttl(&self) -> io::Result<u32> {
        self.source.io().ttl()
    }

    /// Takes the error that has struck the connection since the last call, if any.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::{TcpListener, TcpStream};
    /// # fn main() -> std::io::Result<()> {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let stream = TcpStream::connect(listener.local_addr()?)?;
    /// assert!(stream.take_error()?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.source.io().take_error()
    }

    /// Makes calls on this connection and its clones fail with `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// None; the signature is std's.
    ///
    /// ```
    /// # use pila_net::{TcpListener, TcpStream};
    /// use std::io::{ErrorKind, Read};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let mut stream = TcpStream::connect(listener.local_addr()?)?;
    /// stream.set_nonblocking(true)?;
    /// assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        convert::set_nonblocking(&self.source, nonblocking);
        Ok(())
    }

    pub(super) fn from_source(source: Source<net::TcpStream>) -> Self {
        Self { source }
    }

    pub(super) fn into_source(self) -> Source<net::TcpStream> {
        self.source
    }
}
