//! [`Child`]: a process that was started, and its pipes.

use std::fmt;
use std::io::{self, Read};
use std::process::{self, ExitStatus, Output};

use pila_runtime::park::{self, Waiting};

use super::exit::Exit;
use super::pipe::{ChildStderr, ChildStdin, ChildStdout};
use crate::first;

/// How many chunks are read from a child that never stops talking before the others get a turn.
const CHUNKS_A_TURN: usize = 16;

/// A process that was started, as [`std::process::Child`], where only the calling tasklet waits for its end.
///
/// As in std, dropping it does nothing to the process: it runs on, and when it has ended nobody asks for its status, so it
/// stays in the system's table, a zombie, until this program ends. Whoever starts children waits for them.
///
/// A tasklet that is killed, or out of time, while it waits leaves the child as it is: it may be waited for again, or
/// killed.
///
/// ```
/// use pila_net::process::Command;
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// let mut child = Command::new("sleep").arg("1000").spawn()?;
/// let waited = pila_runtime::timeout(Duration::from_millis(5), || child.wait());
/// assert!(waited.is_err()); // and it still sleeps
/// child.kill()?;
/// assert!(!child.wait()?.success());
/// # Ok(())
/// # }
/// ```
pub struct Child {
    /// Where to write what the child reads, if that is a pipe. Taking it out lets it be used while the child is waited for.
    pub stdin: Option<ChildStdin>,
    /// Where to read what the child writes, if that is a pipe.
    pub stdout: Option<ChildStdout>,
    /// Where to read what the child complains of, if that is a pipe.
    pub stderr: Option<ChildStderr>,
    /// The process; its own pipes have been taken out of it.
    inner: process::Child,
    exit: Exit,
}

impl Child {
    /// The number of the process.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// # fn main() -> std::io::Result<()> {
    /// let mut child = Command::new("true").spawn()?;
    /// assert_ne!(child.id(), std::process::id());
    /// # child.wait()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    #[doc(alias = "pid")]
    pub fn id(&self) -> u32 {
        self.inner.id()
    }

    /// Ends the process by force. It stays a zombie until it is [waited](Self::wait) for. Nothing happens when it has been.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// use pila_net::process::Command;
    /// use std::os::unix::process::ExitStatusExt;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let mut child = Command::new("sleep").arg("1000").spawn()?;
    /// child.kill()?;
    /// assert_eq!(child.wait()?.signal(), Some(9));
    /// # Ok(())
    /// # }
    /// ```
    pub fn kill(&mut self) -> io::Result<()> {
        self.inner.kill()
    }

    /// Waits until the process has ended, and gives its status, as often as it is asked for. Closes its standard input
    /// first, so that a child that reads it to its end is not waited for in vain.
    ///
    /// On Linux before 5.3, on other systems, and when no descriptor is left, the end is seen up to 16 ms late.
    ///
    /// # Errors
    /// Those of the system call; when the tasklet may not wait any more.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// # fn main() -> std::io::Result<()> {
    /// let mut child = Command::new("sh").args(["-c", "exit 3"]).spawn()?;
    /// assert_eq!(child.wait()?.code(), Some(3));
    /// assert_eq!(child.wait()?.code(), Some(3));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "join")]
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
        self.exit.wait(&mut self.inner)
    }

    /// The status of the process if it has ended. Never waits, and leaves its standard input open.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// # fn main() -> std::io::Result<()> {
    /// let mut child = Command::new("sleep").arg("1000").spawn()?;
    /// assert_eq!(child.try_wait()?, None);
    /// # child.kill()?;
    /// # child.wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.inner.try_wait()
    }

    /// Closes the child's standard input, reads the pipes to their ends, both at once, and waits for the end of the
    /// process. What is no pipe, or was taken out, comes back empty.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and those of reading. What had been read is lost then.
    ///
    /// ```
    /// # use pila_net::process::{Command, Stdio};
    /// # fn main() -> std::io::Result<()> {
    /// let child = Command::new("echo").arg("hello").stdout(Stdio::piped()).spawn()?;
    /// let output = child.wait_with_output()?;
    /// assert!(output.status.success());
    /// assert_eq!(output.stdout, b"hello\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_with_output(mut self) -> io::Result<Output> {
        drop(self.stdin.take());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        match (self.stdout.take(), self.stderr.take()) {
            (Some(out), Some(err)) => (stdout, stderr) = self.read_both(&out, &err)?,
            (Some(mut out), None) => drop(out.read_to_end(&mut stdout)?),
            (None, Some(mut err)) => drop(err.read_to_end(&mut stderr)?),
            (None, None) => {}
        }
        let status = self.wait()?;
        Ok(Output { status, stdout, stderr })
    }

    pub(super) fn new(mut inner: process::Child) -> Self {
        Self {
            stdin: inner.stdin.take().map(ChildStdin::from),
            stdout: inner.stdout.take().map(ChildStdout::from),
            stderr: inner.stderr.take().map(ChildStderr::from),
            inner,
            exit: Exit::default(),
        }
    }

    /// Reads both to their ends: a child that fills one of them would wait for ever for a reader of the other.
    fn read_both(&self, out: &ChildStdout, err: &ChildStderr) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let mut outputs = [out.output(), err.output()];
        loop {
            for _ in 0..CHUNKS_A_TURN {
                for output in outputs.iter_mut().filter(|output| !output.has_ended) {
                    output.take_in()?;
                }
            }
            let open = outputs.iter().filter(|output| !output.has_ended);
            let interests = open.map(|output| output.interest()).collect::<io::Result<Vec<_>>>()?;
            if interests.is_empty() {
                return Ok(outputs.map(|output| output.text).into());
            }
            if interests.iter().any(|interest| interest.is_ready()) {
                pila_runtime::schedule();
            }
            first::wait(&interests, park::begin()?, Waiting::Child(self.id()), None)?;
        }
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stdin, stdout, stderr, inner, .. } = self;
        let mut child = formatter.debug_struct("Child");
        child.field("id", &inner.id()).field("stdin", stdin).field("stdout", stdout);
        child.field("stderr", stderr).finish_non_exhaustive()
    }
}
