//! [`AsyncStream`]: a connection for async code.
//!
//! - What it implements of whose traits is a matter of features; the files below this one have them, and none of them does
//!   more than pass on.

#[cfg(feature = "futures-io")]
mod futures_io;
#[cfg(feature = "hyper")]
mod hyper_rt;
#[cfg(feature = "tokio-io")]
mod tokio_io;

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll};

use crate::standing::Standing;
use crate::{TcpStream, UnixStream};

/// A stream of this crate for async code: where a read or a write would wait, it is pending instead, and its task is woken
/// when it is worth trying again.
///
/// So crates that are written for async streams work in a tasklet: one makes the connection here, gives it to the crate and
/// drives the crate's futures with [`block_on`](pila_runtime::block_on), each in a tasklet of its own if they are to go on
/// at once. With the features of this name it implements
///
/// - `futures-io`: `futures_io::{AsyncRead, AsyncWrite}`,
/// - `tokio-io`: `tokio::io::{AsyncRead, AsyncWrite}`,
/// - `hyper`: `hyper::rt::{Read, Write}`;
///
/// for the traits of other crates it has the [same](Self::poll_read) [calls](Self::poll_write) itself.
///
/// It is `Send`, and may be polled in a tasklet of any thread, now on one and then on another; each direction is its own, so
/// it may be split. What is set on the stream for calls that wait, as its timeouts, means nothing here: use
/// [`timeout`](pila_runtime::timeout) around `block_on`. Outside of a `block_on`, in the executor of another crate, a call
/// that would have to wait fails, for nothing there waits for sockets.
///
/// ```
/// use pila_net::{AsyncStream, TcpListener, TcpStream};
/// use std::{future::poll_fn, io::Write};
///
/// # fn main() -> std::io::Result<()> {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// pila_runtime::tasklet(move || listener.accept().unwrap().0.write_all(b"hello").unwrap());
///
/// let stream = AsyncStream::new(TcpStream::connect(address)?);
/// let mut greeting = [0; 5];
/// let count = pila_runtime::block_on(poll_fn(|context| stream.poll_read(context, &mut greeting)))?;
/// assert_eq!(&greeting[..count], b"hello");
/// # Ok(())
/// # }
/// ```
pub struct AsyncStream<S: PollStream> {
    stream: S,
    /// Where the task stands that waits to read, and the one that waits to write.
    reads: Standing,
    writes: Standing,
}

/// A stream that can be polled: [`TcpStream`], [`UnixStream`].
pub trait PollStream: AsFd + sealed::PollStream {}

impl PollStream for TcpStream {}
impl PollStream for UnixStream {}

mod sealed {
    use super::{Context, IoSlice, Poll, Standing, TcpStream, UnixStream, io};

    pub trait PollStream {
        fn poll_receive(
            &self,
            standing: &Standing,
            context: &Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<io::Result<usize>>;

        fn poll_send(
            &self,
            standing: &Standing,
            context: &Context<'_>,
            buffers: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>>;
    }

    macro_rules! poll_streams {
        ($($stream:ty),+) => {$(
            impl PollStream for $stream {
                fn poll_receive(
                    &self,
                    standing: &Standing,
                    context: &Context<'_>,
                    buffer: &mut [u8],
                ) -> Poll<io::Result<usize>> {
                    self.source.poll_receive(standing, context, buffer)
                }

                fn poll_send(
                    &self,
                    standing: &Standing,
                    context: &Context<'_>,
                    buffers: &[IoSlice<'_>],
                ) -> Poll<io::Result<usize>> {
                    self.source.poll_send(standing, context, buffers)
                }
            }
        )+};
    }

    poll_streams!(TcpStream, UnixStream);
}

impl<S: PollStream> AsyncStream<S> {
    /// `stream`, for async code.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let (ours, _theirs) = pila_net::UnixStream::pair()?;
    /// let ours = pila_net::AsyncStream::new(ours);
    /// # drop(ours);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(stream: S) -> Self {
        Self { stream, reads: Standing::default(), writes: Standing::default() }
    }

    /// The stream inside, for its addresses and options.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # let (ours, _theirs) = pila_net::UnixStream::pair()?;
    /// let ours = pila_net::AsyncStream::new(ours);
    /// assert!(ours.get_ref().peer_addr()?.is_unnamed());
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The stream, for code that waits. A task that was waiting for it is not woken any more.
    ///
    /// ```
    /// use std::io::Write;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// # let (ours, _theirs) = pila_net::UnixStream::pair()?;
    /// let ours = pila_net::AsyncStream::new(ours);
    /// ours.into_inner().write_all(b"hello")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// Reads what is there into `buffer`: 0 bytes at the end of the stream.
    ///
    /// # Errors
    /// Those of the stream's `read`, as errors of the connection; never `WouldBlock`. `Other` where it would have to wait
    /// outside of any [`block_on`](pila_runtime::block_on).
    ///
    /// ```
    /// use std::{future::poll_fn, io::Write, task::{Context, Poll, Waker}};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (ours, mut theirs) = pila_net::UnixStream::pair()?;
    /// let ours = pila_net::AsyncStream::new(ours);
    /// let mut buffer = [0; 8];
    /// let read = pila_runtime::block_on(poll_fn(|context| {
    ///     let read = ours.poll_read(context, &mut buffer);
    ///     if read.is_pending() {
    ///         theirs.write_all(b"hello").unwrap();
    ///     }
    ///     read
    /// }))?;
    /// assert_eq!(&buffer[..read], b"hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn poll_read(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_receive(&self.reads, context, buffer)
    }

    /// Writes as much of `buffer` as there is room for.
    ///
    /// # Errors
    /// As [`poll_read`](Self::poll_read).
    ///
    /// ```
    /// use std::future::poll_fn;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// # let (ours, _theirs) = pila_net::UnixStream::pair()?;
    /// let ours = pila_net::AsyncStream::new(ours);
    /// assert_eq!(pila_runtime::block_on(poll_fn(|context| ours.poll_write(context, b"hello")))?, 5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn poll_write(&self, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(buffer)])
    }

    /// As [`poll_write`](Self::poll_write), from several buffers in turn.
    ///
    /// # Errors
    /// As [`poll_read`](Self::poll_read).
    ///
    /// ```
    /// use std::{future::poll_fn, io::IoSlice};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// # let (ours, _theirs) = pila_net::UnixStream::pair()?;
    /// let ours = pila_net::AsyncStream::new(ours);
    /// let words = [IoSlice::new(b"hello "), IoSlice::new(b"there")];
    /// let write = poll_fn(|context| ours.poll_write_vectored(context, &words));
    /// assert_eq!(pila_runtime::block_on(write)?, 11);
    /// # Ok(())
    /// # }
    /// ```
    pub fn poll_write_vectored(
        &self,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_send(&self.writes, context, buffers)
    }

    /// Tells the peer that nothing more will come. What was written before is on its way already: there is nothing to flush.
    ///
    /// # Errors
    /// Those of the system. None when the peer is gone.
    ///
    /// ```
    /// use std::io::Read;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (ours, mut theirs) = pila_net::UnixStream::pair()?;
    /// let ours = pila_net::AsyncStream::new(ours);
    /// ours.shut_down()?;
    /// assert_eq!(theirs.read(&mut [0; 8])?, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn shut_down(&self) -> io::Result<()> {
        crate::syscall::shut_sending(self.as_fd())
    }
}

impl<S: PollStream> From<S> for AsyncStream<S> {
    fn from(stream: S) -> Self {
        Self::new(stream)
    }
}

impl<S: PollStream> AsFd for AsyncStream<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl<S: PollStream> AsRawFd for AsyncStream<S> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<S: PollStream + fmt::Debug> fmt::Debug for AsyncStream<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("AsyncStream").field(&self.stream).finish()
    }
}
