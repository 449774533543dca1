//! The standard streams of this process, on which only the calling tasklet waits.
//!
//! - They stay blocking: the terminal, or the other processes of a pipeline, have the same open file as we do, and would
//!   find it nonblocking. So the system is asked first, and then only for what it gives at once.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use crate::watch::Watch;

/// What a pipe that has room takes at once, whoever else writes to it (Linux's `PIPE_BUF`).
const PIECE: usize = 4096;

/// Standard input, from which [`Stdin`] reads so that only the calling tasklet waits.
///
/// ```no_run
/// use std::io::{BufRead, BufReader};
///
/// # fn main() -> std::io::Result<()> {
/// for line in BufReader::new(pila_net::process::stdin()).lines() {
///     println!("you said {}", line?); // the other tasklets ran on until you did
/// }
/// # Ok(())
/// # }
/// ```
pub fn stdin() -> Stdin {
    Stdin(Watch::new(io::stdin()))
}

/// Standard output, to which [`Stdout`] writes so that only the calling tasklet waits for room.
///
/// ```
/// use std::io::{LineWriter, Write};
///
/// # fn main() -> std::io::Result<()> {
/// let mut output = LineWriter::new(pila_net::process::stdout());
/// writeln!(output, "{} lines are {}", 2, "written whole")?;
/// # Ok(())
/// # }
/// ```
pub fn stdout() -> Stdout {
    Stdout(Watch::new(io::stdout()))
}

/// Standard error, to which [`Stderr`] writes so that only the calling tasklet waits for room.
///
/// ```
/// use std::io::Write;
///
/// # fn main() -> std::io::Result<()> {
/// pila_net::process::stderr().write_all(b"this was no accident\n")?;
/// # Ok(())
/// # }
/// ```
pub fn stderr() -> Stderr {
    Stderr(Watch::new(io::stderr()))
}

/// Reads from standard input: a terminal, a pipe, a file. Only the calling tasklet waits.
///
/// What is different from [`std::io::Stdin`]:
///
/// - It has no buffer and no lock: put it into a [`BufReader`](io::BufReader) and keep that. What std's has read ahead is
///   not here, so use one or the other.
/// - Between two tasklets or processes that read from the same pipe or terminal, whoever comes first has what is there.
///   If that is another process, just after the system said that there is something, the thread waits for more.
///
/// ```no_run
/// use std::io::Read;
///
/// # fn main() -> std::io::Result<()> {
/// let mut everything = String::new();
/// pila_net::process::stdin().read_to_string(&mut everything)?;
/// # Ok(())
/// # }
/// ```
pub struct Stdin(Watch<io::Stdin>);

/// Writes to standard output. Only the calling tasklet waits for room.
///
/// What is different from [`std::io::Stdout`], and so from [`println!`]:
///
/// - It has no buffer and no lock: put it into a [`LineWriter`](io::LineWriter) or [`BufWriter`](io::BufWriter). What waits
///   in std's buffer, behind a `print!` without an end of line, comes later.
/// - A write takes 4,096 bytes at most, which is what a pipe that has room takes without waiting. A terminal or a socket that
///   has room for less makes the thread wait for the rest.
///
/// ```
/// use std::io::Write;
///
/// # fn main() -> std::io::Result<()> {
/// assert_eq!(pila_net::process::stdout().write(b"hello\n")?, 6);
/// # Ok(())
/// # }
/// ```
pub struct Stdout(Watch<io::Stdout>);

/// Writes to standard error. Only the calling tasklet waits for room. What is said of [`Stdout`] holds here too.
///
/// ```
/// use std::io::Write;
///
/// # fn main() -> std::io::Result<()> {
/// assert_eq!(pila_net::process::stderr().write(b"hello\n")?, 6);
/// # Ok(())
/// # }
/// ```
pub struct Stderr(Watch<io::Stderr>);

fn read(input: &Watch<impl AsFd>, buf: &mut [u8]) -> io::Result<usize> {
    input.readable()?;
    Ok(rustix::io::retry_on_intr(|| rustix::io::read(input, &mut *buf))?)
}

fn write(output: &Watch<impl AsFd>, buf: &[u8]) -> io::Result<usize> {
    let piece = &buf[..buf.len().min(PIECE)];
    output.writable()?;
    Ok(rustix::io::retry_on_intr(|| rustix::io::write(output, piece))?)
}

impl Read for Stdin {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        read(&self.0, buf)
    }
}

impl Read for &Stdin {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        read(&self.0, buf)
    }
}

/// Implements what [`Stdout`] and [`Stderr`] have in common.
macro_rules! writes {
    ($($name:ident),+) => {$(
        impl Write for $name {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                write(&self.0, buf)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        impl Write for &$name {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                write(&self.0, buf)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
    )+};
}

/// Implements what all three have in common.
macro_rules! is_a_descriptor {
    ($($name:ident),+) => {$(
        impl AsFd for $name {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
        }

        impl AsRawFd for $name {
            fn as_raw_fd(&self) -> RawFd {
                self.0.as_raw_fd()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )+};
}

writes!(Stdout, Stderr);
is_a_descriptor!(Stdin, Stdout, Stderr);
