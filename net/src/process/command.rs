//! [`Command`]: how to start a process.
//!
//! - std starts it. Nothing is ever forked here: with threads around, only what std does between `fork` and `exec` is safe.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, CommandArgs, CommandEnvs, ExitStatus, Output, Stdio};

use pila_runtime::park;

use super::child::Child;

/// Starts processes, as [`std::process::Command`], whose names and signatures it has. Only the tasklet waits for what it
/// has started.
///
/// Starting itself takes about a millisecond of the thread's time. What a child runs is no tasklet and stops nobody.
///
/// ```
/// use pila_net::process::Command;
///
/// # fn main() -> std::io::Result<()> {
/// let naps: Vec<_> = (0..10)
///     .map(|_| pila_runtime::tasklet(|| Command::new("sleep").arg("0.2").status()))
///     .collect();
/// let start = std::time::Instant::now();
/// for nap in naps {
///     assert!(nap.join().unwrap()?.success());
/// }
/// assert!(start.elapsed().as_secs() < 2); // all at once, on one thread
/// # Ok(())
/// # }
/// ```
///
/// What std has in traits is there by [`as_std_mut`](Self::as_std_mut).
pub struct Command {
    inner: process::Command,
    /// Which of standard input, output and error were chosen here; the others depend on how the child is started.
    is_chosen: [bool; 3],
}

impl Command {
    /// A command that starts `program` without arguments, with the environment and the directory of this process.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// # fn main() -> std::io::Result<()> {
    /// assert!(Command::new("true").status()?.success());
    /// # Ok(())
    /// # }
    /// ```
    pub fn new<S: AsRef<OsStr>>(program: S) -> Self {
        Self::from(process::Command::new(program))
    }

    /// Adds an argument.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// # fn main() -> std::io::Result<()> {
    /// assert_eq!(Command::new("echo").arg("a b").output()?.stdout, b"a b\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn arg<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Self {
        self.inner.arg(arg);
        self
    }

    /// Adds several arguments.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// # fn main() -> std::io::Result<()> {
    /// assert_eq!(Command::new("echo").args(["-n", "a"]).output()?.stdout, b"a");
    /// # Ok(())
    /// # }
    /// ```
    pub fn args<I, S>(&mut self, args: I) -> &mut Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.inner.args(args);
        self
    }

    /// Sets a variable of the child's environment.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// # fn main() -> std::io::Result<()> {
    /// let output = Command::new("sh").args(["-c", "echo $COLOUR"]).env("COLOUR", "blue").output()?;
    /// assert_eq!(output.stdout, b"blue\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn env<K, V>(&mut self, key: K, val: V) -> &mut Self
    where
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        self.inner.env(key, val);
        self
    }

    /// Sets several variables of the child's environment.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// # fn main() -> std::io::Result<()> {
    /// let output = Command::new("sh").args(["-c", "echo $A$B"]).envs([("A", "1"), ("B", "2")]).output()?;
    /// assert_eq!(output.stdout, b"12\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn envs<I, K, V>(&mut self, vars: I) -> &mut Self
    where
        I: IntoIterator<Item = (K, V)>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        self.inner.envs(vars);
        self
    }

    /// Keeps a variable of this process from the child.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// # fn main() -> std::io::Result<()> {
    /// let output = Command::new("sh").args(["-c", "echo $HOME"]).env_remove("HOME").output()?;
    /// assert_eq!(output.stdout, b"\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn env_remove<K: AsRef<OsStr>>(&mut self, key: K) -> &mut Self {
        self.inner.env_remove(key);
        self
    }

    /// Gives the child no variable but those that are set after this.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// # fn main() -> std::io::Result<()> {
    /// let output = Command::new("/usr/bin/env").env_clear().env("A", "1").output()?;
    /// assert_eq!(output.stdout, b"A=1\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn env_clear(&mut self) -> &mut Self {
        self.inner.env_clear();
        self
    }

    /// Sets the directory that the child begins in.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// # fn main() -> std::io::Result<()> {
    /// assert_eq!(Command::new("pwd").current_dir("/").output()?.stdout, b"/\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn current_dir<P: AsRef<Path>>(&mut self, dir: P) -> &mut Self {
        self.inner.current_dir(dir);
        self
    }

    /// Sets what the child's standard input is. If it is not set, [`output`](Self::output) gives it nothing to read, and
    /// [`spawn`](Self::spawn) and [`status`](Self::status) give it ours.
    ///
    /// ```
    /// # use pila_net::process::{Command, Stdio};
    /// # fn main() -> std::io::Result<()> {
    /// assert!(Command::new("cat").stdin(Stdio::null()).status()?.success());
    /// # Ok(())
    /// # }
    /// ```
    pub fn stdin<T: Into<Stdio>>(&mut self, cfg: T) -> &mut Self {
        self.is_chosen[0] = true;
        self.inner.stdin(cfg);
        self
    }

    /// Sets what the child's standard output is. If it is not set, [`output`](Self::output) reads it, and
    /// [`spawn`](Self::spawn) and [`status`](Self::status) give it ours.
    ///
    /// ```
    /// # use pila_net::process::{Command, Stdio};
    /// # fn main() -> std::io::Result<()> {
    /// assert!(Command::new("echo").stdout(Stdio::null()).status()?.success());
    /// # Ok(())
    /// # }
    /// ```
    pub fn stdout<T: Into<Stdio>>(&mut self, cfg: T) -> &mut Self {
        self.is_chosen[1] = true;
        self.inner.stdout(cfg);
        self
    }

    /// Sets what the child's standard error is. If it is not set, [`output`](Self::output) reads it, and
    /// [`spawn`](Self::spawn) and [`status`](Self::status) give it ours.
    ///
    /// ```
    /// # use pila_net::process::{Command, Stdio};
    /// # fn main() -> std::io::Result<()> {
    /// assert!(!Command::new("cat").arg("/nowhere").stderr(Stdio::null()).status()?.success());
    /// # Ok(())
    /// # }
    /// ```
    pub fn stderr<T: Into<Stdio>>(&mut self, cfg: T) -> &mut Self {
        self.is_chosen[2] = true;
        self.inner.stderr(cfg);
        self
    }

    /// Starts the process.
    ///
    /// # Errors
    /// When there is no such program, it may not be run, or the system has no room for another process.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// # fn main() -> std::io::Result<()> {
    /// let mut child = Command::new("true").spawn()?;
    /// assert!(child.wait()?.success());
    /// assert_eq!(Command::new("/nowhere").spawn().unwrap_err().kind(), std::io::ErrorKind::NotFound);
    /// # Ok(())
    /// # }
    /// ```
    pub fn spawn(&mut self) -> io::Result<Child> {
        self.inner.spawn().map(Child::new)
    }

    /// Starts the process, reads what it writes, and waits for its end.
    ///
    /// A tasklet that is killed, or out of time, meanwhile lets the process go on and nobody asks for its status; who wants
    /// to end it uses [`spawn`](Self::spawn).
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn) and [`Child::wait_with_output`]. Where the tasklet may not wait, nothing is started.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// # fn main() -> std::io::Result<()> {
    /// let output = Command::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]).output()?;
    /// assert_eq!((output.stdout, output.stderr), (b"one\n".to_vec(), b"two\n".to_vec()));
    /// assert_eq!(output.status.code(), Some(3));
    /// # Ok(())
    /// # }
    /// ```
    pub fn output(&mut self) -> io::Result<Output> {
        // What could not be waited for is not started.
        park::begin()?;
        let is_chosen = self.is_chosen;
        self.choose_others(is_chosen, [Stdio::null(), Stdio::piped(), Stdio::piped()]);
        let child = self.spawn();
        // What std takes when nothing was chosen.
        self.choose_others(is_chosen, [Stdio::inherit(), Stdio::inherit(), Stdio::inherit()]);
        child?.wait_with_output()
    }

    /// Starts the process and waits for its end.
    ///
    /// A tasklet that is killed, or out of time, meanwhile lets the process go on and nobody asks for its status; who wants
    /// to end it uses [`spawn`](Self::spawn).
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn) and [`Child::wait`]. Where the tasklet may not wait, nothing is started.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// # fn main() -> std::io::Result<()> {
    /// assert_eq!(Command::new("sh").args(["-c", "exit 3"]).status()?.code(), Some(3));
    /// # Ok(())
    /// # }
    /// ```
    pub fn status(&mut self) -> io::Result<ExitStatus> {
        // What could not be waited for is not started.
        park::begin()?;
        self.spawn()?.wait()
    }

    /// The program.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// assert_eq!(Command::new("ls").get_program(), "ls");
    /// ```
    #[must_use]
    pub fn get_program(&self) -> &OsStr {
        self.inner.get_program()
    }

    /// The arguments, in order.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// assert!(Command::new("ls").args(["-l", "/"]).get_args().eq(["-l", "/"]));
    /// ```
    pub fn get_args(&self) -> CommandArgs<'_> {
        self.inner.get_args()
    }

    /// The variables that were set, or removed, for the child.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// assert_eq!(Command::new("ls").env("A", "1").env_remove("B").get_envs().count(), 2);
    /// ```
    pub fn get_envs(&self) -> CommandEnvs<'_> {
        self.inner.get_envs()
    }

    /// The directory that was set for the child.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// assert_eq!(Command::new("ls").get_current_dir(), None);
    /// ```
    #[must_use]
    pub fn get_current_dir(&self) -> Option<&Path> {
        self.inner.get_current_dir()
    }

    /// Sets the child's user. Root may do so.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// Command::new("id").uid(65534);
    /// ```
    pub fn uid(&mut self, id: u32) -> &mut Self {
        self.inner.uid(id);
        self
    }

    /// Sets the child's group. Root may do so.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// Command::new("id").gid(65534);
    /// ```
    pub fn gid(&mut self, id: u32) -> &mut Self {
        self.inner.gid(id);
        self
    }

    /// Sets the name that the child is called by, its argument number 0.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// # fn main() -> std::io::Result<()> {
    /// let output = Command::new("sh").arg0("shell").args(["-c", "echo $0"]).output()?;
    /// assert_eq!(output.stdout, b"shell\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn arg0<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Self {
        self.inner.arg0(arg);
        self
    }

    /// Puts the child into this process group; 0 is one of its own.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// # fn main() -> std::io::Result<()> {
    /// assert!(Command::new("true").process_group(0).status()?.success());
    /// # Ok(())
    /// # }
    /// ```
    pub fn process_group(&mut self, pgroup: i32) -> &mut Self {
        self.inner.process_group(pgroup);
        self
    }

    /// Becomes the program: replaces this process, all of its threads and tasklets, by it. Returns only when that fails.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// assert_eq!(Command::new("/nowhere").exec().kind(), std::io::ErrorKind::NotFound);
    /// ```
    pub fn exec(&mut self) -> io::Error {
        self.inner.exec()
    }

    /// std's command inside, for what this one has no name for, as `pre_exec`. [`output`](Self::output) does not see what
    /// was chosen there for standard input, output and error, and chooses anew.
    ///
    /// ```
    /// # use pila_net::process::Command;
    /// # fn main() -> std::io::Result<()> {
    /// let mut command = Command::new("echo");
    /// command.as_std_mut().arg("hello");
    /// assert_eq!(command.output()?.stdout, b"hello\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn as_std_mut(&mut self) -> &mut process::Command {
        &mut self.inner
    }

    fn choose_others(&mut self, is_chosen: [bool; 3], others: [Stdio; 3]) {
        let set = [process::Command::stdin, process::Command::stdout, process::Command::stderr];
        for ((is_chosen, other), set) in is_chosen.into_iter().zip(others).zip(set) {
            if !is_chosen {
                set(&mut self.inner, other);
            }
        }
    }
}

/// Takes over a command of std's. [`output`](Command::output) does not see what was chosen for standard input, output and
/// error, and chooses anew.
impl From<process::Command> for Command {
    fn from(inner: process::Command) -> Self {
        Self { inner, is_chosen: [false; 3] }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(formatter)
    }
}
