//! [`UnixListener`]: accepts connections, and lets only the tasklet wait for the next.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{self, SocketAddr};
use std::path::Path;

use super::{UnixStream, address};
use crate::reserve::Listening;
use crate::source::Source;
use crate::{accept, budget, convert, syscall};

/// A Unix socket that takes connections, as [`std::os::unix::net::UnixListener`], where only the calling tasklet waits for
/// the next.
///
/// A path that is listened at stays when the listener goes, and nobody can listen there again before it is removed.
///
/// ```
/// use pila_net::{UnixListener, UnixStream};
/// use std::io::{Read, Write};
///
/// # fn main() -> std::io::Result<()> {
/// # let path = std::env::temp_dir().join(format!("pila-doc-{}-listener", std::process::id()));
/// let listener = UnixListener::bind(&path)?;
/// let server = pila_runtime::tasklet(move || {
///     for stream in listener.incoming().take(2) {
///         stream?.write_all(b"welcome")?;
///     }
///     Ok::<(), std::io::Error>(())
/// });
/// for _ in 0..2 {
///     let mut greeting = String::new();
///     UnixStream::connect(&path)?.read_to_string(&mut greeting)?;
///     assert_eq!(greeting, "welcome");
/// }
/// server.join().unwrap()?;
/// # std::fs::remove_file(path)
/// # }
/// ```
pub struct UnixListener {
    /// The queue of connections; std's listener inside has the name.
    pub(super) source: Source<net::UnixListener>,
    /// Has the process keep a descriptor back for it.
    _reserve: Listening,
}

impl UnixListener {
    /// Listens at `path`, which is made for it. Connections queue up to the system's `somaxconn`, as in std.
    ///
    /// # Errors
    /// `AddrInUse` when there is something at `path`, `InvalidInput` when it is too long for a socket or has a NUL in it.
    ///
    /// ```
    /// # use pila_net::UnixListener;
    /// # fn main() -> std::io::Result<()> {
    /// # let path = std::env::temp_dir().join(format!("pila-doc-{}-bind", std::process::id()));
    /// let listener = UnixListener::bind(&path)?;
    /// let again = UnixListener::bind(&path).unwrap_err();
    /// assert_eq!(again.kind(), std::io::ErrorKind::AddrInUse);
    /// # drop(listener);
    /// # std::fs::remove_file(path)
    /// # }
    /// ```
    #[doc(alias = "listen")]
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        budget::obtain(None, || net::UnixListener::bind(&path)).map(Self::from)
    }

    /// Listens at an address, which may be an abstract one.
    ///
    /// # Errors
    /// `AddrInUse` when someone else does.
    ///
    /// ```
    /// # use pila_net::{UnixListener, UnixStream, unix::SocketAddr};
    /// # #[cfg(target_os = "linux")]
    /// # fn main() -> std::io::Result<()> {
    /// use std::os::linux::net::SocketAddrExt;
    ///
    /// # let name = format!("pila-doc-{}-listen", std::process::id());
    /// let address = SocketAddr::from_abstract_name(name)?;
    /// let listener = UnixListener::bind_addr(&address)?;
    /// UnixStream::connect_addr(&address)?;
    /// # drop(listener);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(target_os = "linux"))]
    /// # fn main() {}
    /// ```
    pub fn bind_addr(socket_addr: &SocketAddr) -> io::Result<Self> {
        budget::obtain(None, || net::UnixListener::bind_addr(socket_addr)).map(Self::from)
    }

    /// Takes the next connection, waiting for one if need be, and tells who it is from: most clients have no name.
    ///
    /// # Errors
    /// Those of the system call. With no descriptor left it waits as [`TcpListener::accept`](crate::TcpListener::accept)
    /// does.
    ///
    /// ```
    /// # use pila_net::{UnixListener, UnixStream};
    /// # fn main() -> std::io::Result<()> {
    /// # let path = std::env::temp_dir().join(format!("pila-doc-{}-accept", std::process::id()));
    /// let listener = UnixListener::bind(&path)?;
    /// let client = UnixStream::connect(&path)?;
    /// let (stream, from) = listener.accept()?;
    /// assert!(from.is_unnamed());
    /// assert_eq!(stream.local_addr()?.as_pathname(), Some(path.as_path()));
    /// # drop(client);
    /// # std::fs::remove_file(path)
    /// # }
    /// ```
    pub fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let call = |io: &net::UnixListener| syscall::accept_from(io.as_fd());
        let name = |io: &net::UnixListener| match io.local_addr() {
            Ok(address) => format!("{address:?}"),
            Err(error) => error.to_string(),
        };
        let (socket, from) = accept::accept(&self.source, call, name)?;
        let socket = net::UnixStream::from(socket);
        // A name that fills all the space there is for one can be read by std alone.
        let from = address::from_system(from)?.map_or_else(|| socket.peer_addr(), Ok)?;
        Ok((UnixStream::from_source(Source::new(socket)), from))
    }

    /// A second handle to the same queue of connections, with a descriptor of its own.
    ///
    /// # Errors
    /// When there is no descriptor left: it does not wait for one.
    ///
    /// ```
    /// # use pila_net::{UnixListener, UnixStream};
    /// # fn main() -> std::io::Result<()> {
    /// # let path = std::env::temp_dir().join(format!("pila-doc-{}-clone", std::process::id()));
    /// let listener = UnixListener::bind(&path)?;
    /// let clone = listener.try_clone()?;
    /// let stream = UnixStream::connect(&path)?;
    /// clone.accept()?;
    /// # drop((listener, stream));
    /// # std::fs::remove_file(path)
    /// # }
    /// ```
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::from_source(self.source.share(self.source.io().try_clone()?)))
    }

    /// The address listened at.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UnixListener;
    /// # fn main() -> std::io::Result<()> {
    /// # let path = std::env::temp_dir().join(format!("pila-doc-{}-local", std::process::id()));
    /// let listener = UnixListener::bind(&path)?;
    /// assert_eq!(listener.local_addr()?.as_pathname(), Some(path.as_path()));
    /// # std::fs::remove_file(path)
    /// # }
    /// ```
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.source.io().local_addr()
    }

    /// Makes accepting fail with `WouldBlock` instead of waiting, here and for clones. The accepted connections wait.
    ///
    /// # Errors
    /// None; the signature is std's.
    ///
    /// ```
    /// # use pila_net::UnixListener;
    /// # fn main() -> std::io::Result<()> {
    /// # let path = std::env::temp_dir().join(format!("pila-doc-{}-nonblocking", std::process::id()));
    /// let listener = UnixListener::bind(&path)?;
    /// listener.set_nonblocking(true)?;
    /// assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    /// # std::fs::remove_file(path)
    /// # }
    /// ```
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        convert::set_nonblocking(&self.source, nonblocking);
        Ok(())
    }

    /// Takes the error that has struck the listener since the last call, if any.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UnixListener;
    /// # fn main() -> std::io::Result<()> {
    /// # let path = std::env::temp_dir().join(format!("pila-doc-{}-error", std::process::id()));
    /// assert!(UnixListener::bind(&path)?.take_error()?.is_none());
    /// # std::fs::remove_file(path)
    /// # }
    /// ```
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.source.io().take_error()
    }

    /// An iterator that [accepts](Self::accept) for ever. `&listener` is one as well.
    ///
    /// ```
    /// # use pila_net::{UnixListener, UnixStream};
    /// # fn main() -> std::io::Result<()> {
    /// # let path = std::env::temp_dir().join(format!("pila-doc-{}-incoming", std::process::id()));
    /// let listener = UnixListener::bind(&path)?;
    /// let client = UnixStream::connect(&path)?;
    /// for stream in &listener {
    ///     assert!(stream?.peer_addr()?.is_unnamed());
    ///     break;
    /// }
    /// # drop(client);
    /// # std::fs::remove_file(path)
    /// # }
    /// ```
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    pub(super) fn from_source(source: Source<net::UnixListener>) -> Self {
        Self { source, _reserve: Listening::new() }
    }

    pub(super) fn into_source(self) -> Source<net::UnixListener> {
        self.source
    }
}

impl<'a> IntoIterator for &'a UnixListener {
    type Item = io::Result<UnixStream>;
    type IntoIter = Incoming<'a>;

    fn into_iter(self) -> Incoming<'a> {
        self.incoming()
    }
}

/// The endless iterator that [`UnixListener::incoming`] makes.
///
/// ```
/// # use pila_net::{UnixListener, UnixStream};
/// # fn main() -> std::io::Result<()> {
/// # let path = std::env::temp_dir().join(format!("pila-doc-{}-endless", std::process::id()));
/// let listener = UnixListener::bind(&path)?;
/// let _client = UnixStream::connect(&path)?;
/// let stream = listener.incoming().next().expect("it never ends")?;
/// # drop(stream);
/// # std::fs::remove_file(path)
/// # }
/// ```
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct Incoming<'a> {
    listener: &'a UnixListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<UnixStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::MAX, None)
    }
}
