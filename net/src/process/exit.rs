//! The end of a child process, as something to wait for.
//!
//! - A pidfd becomes readable when the process has ended, also when it has a parent no more that would hear of it by a
//!   signal. It is opened by whoever first has to wait, while the child has not been reaped, so its number is its own.
//! - Where there is no pidfd (Linux before 5.3, other systems, no descriptor left), waiting is looking, at first every
//!   millisecond, then more and more rarely down to every [`RAREST`].

use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::sync::OnceLock;
use std::time::Duration;

use pila_runtime::driver;
use pila_runtime::park::{self, Interrupt, Waiting};

use crate::source::{Operation, Source};

/// How long a child may have ended, at most, before someone who can only look sees it.
const RAREST: Duration = Duration::from_millis(16);

/// What there is to wait with for one child.
#[derive(Debug, Default)]
pub(super) struct Exit {
    /// Tried once. `None` inside where there is no pidfd.
    pidfd: OnceLock<Option<Source<OwnedFd>>>,
}

impl Exit {
    /// Waits for the end of `child`, always the same. Lets only the tasklet wait.
    pub(super) fn wait(&mut self, child: &mut Child) -> io::Result<ExitStatus> {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let pid = child.id();
        let status = match self.pidfd(pid) {
            Some(pidfd) => pidfd.run(Operation::WaitForChild(pid), |_| {
                child.try_wait()?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
            }),
            None => look(child),
        }?;
        // The status is kept by std, and nothing is left to wait for.
        self.pidfd.take();
        Ok(status)
    }

    /// What becomes readable when the child has ended.
    pub(super) fn pidfd(&self, pid: u32) -> Option<&Source<OwnedFd>> {
        self.pidfd.get_or_init(|| open(pid).map(Source::new)).as_ref()
    }
}

#[cfg(target_os = "linux")]
fn open(pid: u32) -> Option<OwnedFd> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    if env::var_os("PILA_POLLER").is_some_and(|way| way == "portable") {
        return None;
    }
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn open(_: u32) -> Option<OwnedFd> {
    None
}

fn look(child: &mut Child) -> io::Result<ExitStatus> {
    let mut pause = Duration::from_millis(1);
    loop {
        let deadline = driver::now() + pause;
        match park::wait(park::begin()?, Waiting::Child(child.id()), Some(deadline)) {
            Ok(()) | Err(Interrupt::Deadline) => {}
            Err(interrupt) => return Err(interrupt.into()),
        }
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        pause = RAREST.min(pause * 2);
    }
}
