//! Waits for any descriptor: a pipe, a terminal, an eventfd, a device, a library's own socket.
//!
//! - Whether a descriptor is ready is asked of the system anew; an event only says when to ask again. So what others do
//!   with the descriptor in between does not matter.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use crate::source::{Operation, Source};
use crate::syscall;

/// Waits until `descriptor` can be read from without blocking: something is there, or its end, or an error.
///
/// For whatever has no type of its own here: pipes, terminals, eventfds, timerfds, inotify, a child's pidfd, a socket that
/// a library keeps to itself. Any number of tasklets may wait for the same one, and it may be a socket of this crate. A
/// file on a disk is always ready.
///
/// It takes one system call if the descriptor is ready, and otherwise registers it for as long as the wait lasts. Who
/// waits on the same one again and again keeps a [`Watch`].
///
/// Between two tasklets that wait for the same thing, whoever reads first has it, and a blocking read of the other stops
/// the thread. Where that can happen the descriptor has to be nonblocking.
///
/// # Errors
/// Those of the system: no descriptors are left, or it is of a kind that cannot be waited on. When the tasklet is killed
/// or out of time, as any call here.
///
/// ```
/// use std::io::{Read, Write};
///
/// # fn main() -> std::io::Result<()> {
/// let (mut output, mut input) = std::io::pipe()?;
/// let reader = pila_runtime::tasklet(move || {
///     pila_net::readable(&output)?; // only this tasklet waits
///     let mut bytes = [0; 16];
///     output.read(&mut bytes)
/// });
/// pila_runtime::schedule();
/// input.write_all(b"hello")?;
/// assert_eq!(reader.join().unwrap()?, 5);
/// # Ok(())
/// # }
/// ```
pub fn readable(descriptor: &impl AsFd) -> io::Result<()> {
    wait(&Source::new(descriptor.as_fd()), Operation::Read)
}

/// Waits until `descriptor` can be written to without blocking: there is room for something, or nobody is left to read it.
///
/// As [`readable`] in everything else. A pipe that says it has room takes up to 4,096 bytes at once; more in one call may
/// still block, unless the descriptor is nonblocking.
///
/// # Errors
/// As [`readable`].
///
/// ```
/// use std::io::{Read, Write};
///
/// # fn main() -> std::io::Result<()> {
/// let (mut output, mut input) = std::io::pipe()?;
/// let writer = pila_runtime::tasklet(move || {
///     for _ in 0..100 {
///         pila_net::writable(&input)?;
///         input.write_all(&[7; 4096])?; // 400 KiB, of which a pipe holds 64
///     }
///     Ok::<(), std::io::Error>(())
/// });
/// let mut bytes = [0; 4096];
/// for _ in 0..100 {
///     pila_net::readable(&output)?;
///     output.read_exact(&mut bytes)?;
/// }
/// writer.join().unwrap()
/// # }
/// ```
pub fn writable(descriptor: &impl AsFd) -> io::Result<()> {
    wait(&Source::new(descriptor.as_fd()), Operation::Write)
}

fn wait(source: &Source<impl AsFd>, operation: Operation) -> io::Result<()> {
    source.run(operation, |io| syscall::check_ready(io.as_fd(), operation.direction()))
}

/// Keeps a descriptor of any kind and lets tasklets wait on it: registered once, however often they wait.
///
/// What is kept may be owned (a `File`, an `OwnedFd`, a library's connection) or borrowed. Dropping the watch drops it. It
/// has to have the same descriptor for as long as it is watched: of one that it opens later the watch hears nothing.
///
/// ```
/// use pila_net::Watch;
/// use std::io::{Read, Write};
///
/// # fn main() -> std::io::Result<()> {
/// let (output, mut input) = std::io::pipe()?;
/// let reader = pila_runtime::tasklet(move || {
///     let output = Watch::new(output);
///     let mut received = Vec::new();
///     loop {
///         output.readable()?;
///         let mut bytes = [0; 4];
///         match output.get_ref().read(&mut bytes)? {
///             0 => return Ok::<_, std::io::Error>(received),
///             count => received.extend_from_slice(&bytes[..count]),
///         }
///     }
/// });
/// for word in ["some ", "words"] {
///     pila_runtime::schedule();
///     input.write_all(word.as_bytes())?;
/// }
/// drop(input);
/// assert_eq!(reader.join().unwrap()?, b"some words");
/// # Ok(())
/// # }
/// ```
pub struct Watch<D: AsFd> {
    source: Source<D>,
}

impl<D: AsFd> Watch<D> {
    /// Keeps `descriptor`. Nothing is asked of the system before someone waits.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let (output, _input) = std::io::pipe()?;
    /// let borrowed = pila_net::Watch::new(&output);
    /// # drop(borrowed);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(descriptor: D) -> Self {
        Self { source: Source::new(descriptor) }
    }

    /// Waits until the descriptor can be read from without blocking, as [`readable`].
    ///
    /// # Errors
    /// As [`readable`].
    ///
    /// ```
    /// # use std::io::Write;
    /// # fn main() -> std::io::Result<()> {
    /// let (output, mut input) = std::io::pipe()?;
    /// let output = pila_net::Watch::new(output);
    /// input.write_all(b"x")?;
    /// output.readable()?;
    /// output.readable()?; // still: nobody has read it
    /// # Ok(())
    /// # }
    /// ```
    pub fn readable(&self) -> io::Result<()> {
        wait(&self.source, Operation::Read)
    }

    /// Waits until the descriptor can be written to without blocking, as [`writable`].
    ///
    /// # Errors
    /// As [`readable`].
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let (_output, input) = std::io::pipe()?;
    /// pila_net::Watch::new(input).writable()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn writable(&self) -> io::Result<()> {
        wait(&self.source, Operation::Write)
    }

    /// Makes `call`, which reads from a nonblocking descriptor, as often as it takes until it no longer fails with
    /// `WouldBlock`, and waits in between. This saves asking the system whether it is readable.
    ///
    /// `call` may say `WouldBlock` only when the descriptor is not readable: the wait that follows ends with the next
    /// thing that comes in.
    ///
    /// # Errors
    /// Those of `call`, and as [`readable`].
    ///
    /// ```
    /// use rustix::event::{EventfdFlags, eventfd};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let bell = eventfd(0, EventfdFlags::NONBLOCK)?;
    /// let theirs = bell.try_clone()?;
    /// pila_runtime::tasklet(move || rustix::io::write(theirs, &3_u64.to_ne_bytes()));
    ///
    /// let bell = pila_net::Watch::new(bell);
    /// let mut count = [0; 8];
    /// bell.read_with(|bell| Ok(rustix::io::read(bell, &mut count)?))?;
    /// assert_eq!(u64::from_ne_bytes(count), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_with<T>(&self, call: impl FnMut(&D) -> io::Result<T>) -> io::Result<T> {
        self.source.run(Operation::Read, call)
    }

    /// Makes `call`, which writes to a nonblocking descriptor, as often as it takes until it no longer fails with
    /// `WouldBlock`, and waits in between. This saves asking the system whether it is writable.
    ///
    /// `call` may say `WouldBlock` only when the descriptor is not writable: the wait that follows ends when there is
    /// room again.
    ///
    /// # Errors
    /// Those of `call`, and as [`readable`].
    ///
    /// ```
    /// use rustix::event::{EventfdFlags, eventfd};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let bell = eventfd(u32::MAX, EventfdFlags::NONBLOCK)?;
    /// let bell = pila_net::Watch::new(bell);
    /// let ring = |count: u64| {
    ///     bell.write_with(|bell| Ok(rustix::io::write(bell, &count.to_ne_bytes())?))
    /// };
    /// assert_eq!(ring(1)?, 8);
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_with<T>(&self, call: impl FnMut(&D) -> io::Result<T>) -> io::Result<T> {
        self.source.run(Operation::Write, call)
    }

    /// What is being watched.
    ///
    /// ```
    /// # use std::os::fd::AsRawFd;
    /// # fn main() -> std::io::Result<()> {
    /// let (output, _input) = std::io::pipe()?;
    /// let watch = pila_net::Watch::new(&output);
    /// assert_eq!(watch.get_ref().as_raw_fd(), output.as_raw_fd());
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_ref(&self) -> &D {
        self.source.io()
    }

    /// Gives back what was being watched.
    ///
    /// ```
    /// # use std::io::{Read, Write};
    /// # fn main() -> std::io::Result<()> {
    /// let (output, mut input) = std::io::pipe()?;
    /// let watch = pila_net::Watch::new(output);
    /// input.write_all(b"x")?;
    /// watch.readable()?;
    /// assert_eq!(watch.into_inner().read(&mut [0; 8])?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_inner(self) -> D {
        self.source.into_inner()
    }
}

impl<D: AsFd> AsFd for Watch<D> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl<D: AsFd> AsRawFd for Watch<D> {
    fn as_raw_fd(&self) -> RawFd {
        self.source.as_raw_fd()
    }
}

impl<D: AsFd + fmt::Debug> fmt::Debug for Watch<D> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Watch").field(self.source.io()).finish()
    }
}
