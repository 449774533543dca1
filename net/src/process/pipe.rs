//! The parent's ends of a child's pipes.
//!
//! - Our end is nonblocking, with all descriptors of it. The child's end blocks, as it expects.
//! - What goes out, to std or to another child, blocks again.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::process::{self, Stdio};

use crate::first::Interest;
use crate::source::{Operation, Source};

/// How much is asked for at one time when everything is wanted.
const CHUNK: usize = 16 * 1024;

/// One end of a pipe, nonblocking.
#[derive(Debug)]
struct Pipe(Source<OwnedFd>);

impl Pipe {
    fn new(descriptor: OwnedFd) -> Self {
        set_nonblocking(&descriptor, true);
        Self(Source::new(descriptor))
    }

    fn into_blocking(self) -> OwnedFd {
        let descriptor = self.0.into_inner();
        set_nonblocking(&descriptor, false);
        descriptor
    }

    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.0.run(Operation::Read, |pipe| Ok(rustix::io::read(pipe, &mut *buf)?))
    }

    fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(0);
        }
        self.0.run(Operation::Read, |pipe| Ok(rustix::io::readv(pipe, bufs)?))
    }

    fn write(&self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.0.run(Operation::Write, |pipe| Ok(rustix::io::write(pipe, buf)?))
    }

    fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(0);
        }
        self.0.run(Operation::Write, |pipe| Ok(rustix::io::writev(pipe, bufs)?))
    }
}

fn set_nonblocking(pipe: &OwnedFd, nonblocking: bool) {
    rustix::io::ioctl_fionbio(pipe, nonblocking).expect("an open pipe can be made nonblocking");
}

/// What has come out of a child so far.
pub(super) struct Output<'a> {
    pipe: &'a Pipe,
    pub(super) text: Vec<u8>,
    pub(super) has_ended: bool,
}

impl<'a> Output<'a> {
    /// Reads what is there, a chunk at most.
    pub(super) fn take_in(&mut self) -> io::Result<()> {
        let end = self.text.len();
        self.text.resize(end + CHUNK, 0);
        let taken = self
            .pipe
            .0
            .attempt(Operation::Read, |pipe| Ok(rustix::io::read(pipe, &mut self.text[end..])?));
        self.text.truncate(end + taken.as_ref().map_or(0, |&count| count));
        match taken {
            Ok(count) => self.has_ended = count == 0,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What to wait for before more can be read.
    pub(super) fn interest(&self) -> io::Result<Interest> {
        self.pipe.0.interest(Operation::Read)
    }
}

/// The writing end of a child's standard input, as [`std::process::ChildStdin`], where only the calling tasklet waits for
/// room. Dropping it closes it, and the child reads the end.
///
/// ```
/// use pila_net::process::{Command, Stdio};
/// use std::io::Write;
///
/// # fn main() -> std::io::Result<()> {
/// let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
/// let mut stdin = child.stdin.take().expect("it is piped");
/// stdin.write_all(b"meow")?;
/// drop(stdin);
/// assert_eq!(child.wait_with_output()?.stdout, b"meow");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ChildStdin(Pipe);

/// The reading end of a child's standard output, as [`std::process::ChildStdout`], where only the calling tasklet waits
/// for something to come.
///
/// Given to another child as its [`Stdio`], it blocks again, as programs expect.
///
/// ```
/// use pila_net::process::{Command, Stdio};
///
/// # fn main() -> std::io::Result<()> {
/// let mut words = Command::new("printf").arg(r"b\na\n").stdout(Stdio::piped()).spawn()?;
/// let sort = Command::new("sort").stdin(words.stdout.take().expect("it is piped")).output()?;
/// assert_eq!(sort.stdout, b"a\nb\n");
/// words.wait()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ChildStdout(Pipe);

/// The reading end of a child's standard error, as [`std::process::ChildStderr`], where only the calling tasklet waits for
/// something to come.
///
/// ```
/// use pila_net::process::{Command, Stdio};
/// use std::io::Read;
///
/// # fn main() -> std::io::Result<()> {
/// let mut child = Command::new("sh").args(["-c", "echo no >&2"]).stderr(Stdio::piped()).spawn()?;
/// let mut complaint = String::new();
/// child.stderr.take().expect("it is piped").read_to_string(&mut complaint)?;
/// assert_eq!(complaint, "no\n");
/// child.wait()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ChildStderr(Pipe);

impl ChildStdout {
    pub(super) fn output(&self) -> Output<'_> {
        Output { pipe: &self.0, text: Vec::new(), has_ended: false }
    }
}

impl ChildStderr {
    pub(super) fn output(&self) -> Output<'_> {
        Output { pipe: &self.0, text: Vec::new(), has_ended: false }
    }
}

impl Write for &ChildStdin {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for ChildStdin {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for ChildStdout {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.0.read_vectored(bufs)
    }
}

impl Read for ChildStderr {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.0.read_vectored(bufs)
    }
}

/// Implements the conversions that std's type of the same name has, from and to that type too.
macro_rules! conversions {
    ($name:ident) => {
        /// Takes over a descriptor, which is nonblocking from now on.
        impl From<OwnedFd> for $name {
            fn from(pipe: OwnedFd) -> Self {
                Self(Pipe::new(pipe))
            }
        }

        /// Takes over std's end of a pipe.
        impl From<process::$name> for $name {
            fn from(pipe: process::$name) -> Self {
                Self::from(OwnedFd::from(pipe))
            }
        }

        /// Gives the descriptor away, blocking, as std would have it.
        impl From<$name> for OwnedFd {
            fn from(pipe: $name) -> Self {
                pipe.0.into_blocking()
            }
        }

        /// Gives the pipe to std. Calls on it block.
        impl From<$name> for process::$name {
            fn from(pipe: $name) -> Self {
                Self::from(OwnedFd::from(pipe))
            }
        }

        /// Gives the pipe to a child, for which it blocks.
        impl From<$name> for Stdio {
            fn from(pipe: $name) -> Self {
                Self::from(OwnedFd::from(pipe))
            }
        }

        impl AsFd for $name {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.0.as_fd()
            }
        }

        impl AsRawFd for $name {
            fn as_raw_fd(&self) -> RawFd {
                self.0.0.as_raw_fd()
            }
        }

        impl IntoRawFd for $name {
            fn into_raw_fd(self) -> RawFd {
                OwnedFd::from(self).into_raw_fd()
            }
        }
    };
}

conversions!(ChildStdin);
conversions!(ChildStdout);
conversions!(ChildStderr);
