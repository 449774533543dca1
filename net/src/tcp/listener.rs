//! [`TcpListener`]: accepts connections, and lets only the tasklet wait for the next.
//!
//! - Accepting takes one system call. The new stream is registered with no poller before it has to wait.

use std::io;
use std::iter::FusedIterator;
use std::net::{self, SocketAddr};

use super::TcpStream;
use crate::reserve::Listening;
use crate::resolve::{ToSocketAddrs, each_address};
use crate::source::Source;
use crate::{accept, budget, convert, syscall};

/// Asks for the longest queue of connections there is: the system cuts it down to its `somaxconn`.
const BACKLOG: i32 = i32::MAX;

/// A TCP socket that takes connections, as [`std::net::TcpListener`], where only the calling tasklet
/// waits for the next.
///
/// ```
/// use pila_net::{TcpListener, TcpStream};
/// use std::io::{Read, Write};
///
/// # fn main() -> std::io::Result<()> {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// # let server =
/// pila_runtime::tasklet(move || {
///     for stream in listener.incoming().take(2) {
///         pila_runtime::tasklet(move || stream.unwrap().write_all(b"welcome").unwrap());
///     }
/// });
/// # drop(server);
/// for _ in 0..2 {
///     let mut greeting = String::new();
///     TcpStream::connect(address)?.read_to_string(&mut greeting)?;
///     assert_eq!(greeting, "welcome");
/// }
/// # Ok(())
/// # }
/// ```
pub struct TcpListener {
    /// The queue of connections; std's listener inside has the options.
    pub(super) source: Source<net::TcpListener>,
    /// Has the process keep a descriptor back for it.
    _reserve: Listening,
}

impl TcpListener {
    /// Listens at the first of the addresses that can be bound. Port 0 lets the system choose.
    ///
    /// Connections queue up to the system's `somaxconn`, not to std's 128, until they are accepted.
    ///
    /// # Errors
    /// When `addr` stands for no address, and otherwise with the error of the last one tried. With no descriptor left it
    /// waits as [`TcpStream::connect`] does.
    ///
    /// ```
    /// # use pila_net::TcpListener;
    /// # fn main() -> std::io::Result<()> {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// assert_ne!(listener.local_addr()?.port(), 0);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "listen")]
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        each_address(addr, |address| {
            let socket = budget::obtain(None, || syscall::stream_socket(address))?;
            socket.set_reuse_address(true)?;
            socket.bind(&(*address).into())?;
            socket.listen(BACKLOG)?;
            Ok(Self::from_source(Source::new(net::TcpListener::from(socket))))
        })
    }

    /// The address listened at.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::TcpListener;
    /// # fn main() -> std::io::Result<()> {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// assert!(listener.local_addr()?.ip().is_loopback());
    /// # Ok(())
    /// # }
    /// ```
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.source.io().local_addr()
    }

    /// A second handle to the same queue of connections, with a descriptor of its own.
    ///
    /// # Errors
    /// When there is no descriptor left. It does not wait for one, for its caller has one itself: those who each have one
    /// and want two would wait for each other.
    ///
    /// ```
    /// # use pila_net::{TcpListener, TcpStream};
    /// # fn main() -> std::io::Result<()> {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let clone = listener.try_clone()?;
    /// let stream = TcpStream::connect(listener.local_addr()?)?;
    /// assert_eq!(clone.accept()?.1, stream.local_addr()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::from_source(self.source.share(self.source.io().try_clone()?)))
    }

    /// Takes the next connection, waiting for one if need be, and tells who it is from.
    ///
    /// While the process has no descriptor left for it, it stays in the queue and the tasklet waits in line with those
    /// that [connect](TcpStream::connect), for as long as it takes: no client is turned away. Every such wait is worth a
    /// line on standard error, one a second at most:
    ///
    /// ```text
    /// pila: accept on 127.0.0.1:8025: no descriptor left (RLIMIT_NOFILE 256): waiting; raise it with ulimit -n
    /// ```
    ///
    /// It looks for a free descriptor when a socket of this crate is closed, and by itself after 10 ms, then ever less
    /// often, down to once a second, for what is closed elsewhere. A process that listens keeps one descriptor in
    /// reserve, for accepting alone: so a server keeps on serving, if only one client after the other, though files,
    /// other sockets or its own connections to somewhere else have taken all the rest.
    ///
    /// # Errors
    /// Those of the system call. A connection that was reset while it waited in the queue does not end the listener:
    /// call again. Running out of descriptors is an error only where nothing may wait:
    /// [`set_nonblocking`](Self::set_nonblocking).
    ///
    /// ```
    /// # use pila_net::{TcpListener, TcpStream};
    /// # fn main() -> std::io::Result<()> {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let client = TcpStream::connect(listener.local_addr()?)?;
    /// let (stream, from) = listener.accept()?;
    /// assert_eq!(from, client.local_addr()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let name = |io: &net::TcpListener| match io.local_addr() {
            Ok(address) => address.to_string(),
            Err(error) => error.to_string(),
        };
        let (stream, address) = accept::accept(&self.source, syscall::accept, name)?;
        Ok((TcpStream::from_source(Source::accepted(stream, &self.source)), address))
    }

    /// An iterator that [accepts](Self::accept) for ever.
    ///
    /// ```
    /// # use pila_net::{TcpListener, TcpStream};
    /// # fn main() -> std::io::Result<()> {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let client = TcpStream::connect(listener.local_addr()?)?;
    /// for stream in listener.incoming() {
    ///     assert_eq!(stream?.peer_addr()?, client.local_addr()?);
    ///     break;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// Sets how many routers a packet of the accepted connections may pass.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::TcpListener;
    /// # fn main() -> std::io::Result<()> {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// listener.set_ttl(100)?;
    /// assert_eq!(listener.ttl()?, 100);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.source.io().set_ttl(ttl)
    }

    /// How many routers a packet of the accepted connections may pass.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::TcpListener;
    /// # fn main() -> std::io::Result<()> {
    /// assert!(TcpListener::bind("127.0.0.1:0")?.ttl()? > 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn ttl(&self) -> io::Result<u32> {
        self.source.io().ttl()
    }

    /// Sets whether a listener for IPv6 takes connections from IPv6 only. Comes too late: the socket is bound.
    ///
    /// # Errors
    /// Those of the system call, which refuses it.
    ///
    /// ```
    /// # use pila_net::TcpListener;
    /// # #[allow(deprecated)]
    /// # fn main() -> std::io::Result<()> {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// assert!(listener.set_only_v6(true).is_err());
    /// # Ok(())
    /// # }
    /// ```
    #[deprecated = "as in std: this option can only be set before the socket is bound"]
    pub fn set_only_v6(&self, only_v6: bool) -> io::Result<()> {
        #[allow(deprecated, reason = "it stands for the same here")]
        self.source.io().set_only_v6(only_v6)
    }

    /// Whether a listener for IPv6 takes connections from IPv6 only.
    ///
    /// # Errors
    /// Those of the system call, which has no answer for an IPv4 listener.
    ///
    /// ```
    /// # use pila_net::TcpListener;
    /// # #[allow(deprecated)]
    /// # fn main() -> std::io::Result<()> {
    /// if let Ok(listener) = TcpListener::bind("[::1]:0") {
    ///     listener.only_v6()?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[deprecated = "as in std: this option can only be set before the socket is bound"]
    pub fn only_v6(&self) -> io::Result<bool> {
        #[allow(deprecated, reason = "it stands for the same here")]
        self.source.io().only_v6()
    }

    /// Takes the error that has struck the listener since the last call, if any.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::TcpListener;
    /// # fn main() -> std::io::Result<()> {
    /// assert!(TcpListener::bind("127.0.0.1:0")?.take_error()?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.source.io().take_error()
    }

    /// Makes accepting fail with `WouldBlock` instead of waiting, here and for clones. The accepted
    /// connections wait.
    ///
    /// # Errors
    /// None; the signature is std's.
    ///
    /// ```
    /// # use pila_net::TcpListener;
    /// # fn main() -> std::io::Result<()> {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// listener.set_nonblocking(true)?;
    /// assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        convert::set_nonblocking(&self.source, nonblocking);
        Ok(())
    }

    pub(super) fn from_source(source: Source<net::TcpListener>) -> Self {
        Self { source, _reserve: Listening::new() }
    }

    pub(super) fn into_source(self) -> Source<net::TcpListener> {
        self.source
    }
}

/// The endless iterator that [`TcpListener::incoming`] makes.
///
/// ```
/// # use pila_net::{TcpListener, TcpStream};
/// # fn main() -> std::io::Result<()> {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let _client = TcpStream::connect(listener.local_addr()?)?;
/// let stream = listener.incoming().next().expect("it never ends")?;
/// # drop(stream);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl FusedIterator for Incoming<'_> {}
