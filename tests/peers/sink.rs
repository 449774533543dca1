//! `Sink`: Postfix's test server, with or without its manners.

use std::{
    fs::{self, File, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::geteuid;

use crate::system::{
    Directory, Outcome, PATIENCE, Process, finish, free_address, peer, stackless, until,
};

/// A running smtp-sink.
pub(crate) struct Sink {
    /// Ended before its directory goes.
    _process: Process,
    pub(crate) address: SocketAddr,
    /// Where it counts the mails, and where it puts them if it is told to.
    pub(crate) directory: Directory,
}

impl Sink {
    /// Starts one with these options; `None` where there is no smtp-sink.
    pub(crate) fn start(options: &[&str]) -> Option<Self> {
        let program = peer("smtp-sink")?;
        let directory = Directory::new("smtp-sink");
        // For the user that it becomes.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
        let (process, address) = start_at(|address| {
            let mut command = Command::new(&program);
            command.args(["-c", "-m", "12000"]).args(options).current_dir(directory.path());
            if geteuid().is_root() {
                command.args(["-u", "nobody"]);
            }
            command.arg(address.to_string()).arg("4096").stderr(Stdio::null());
            Process::start(command.stdout(File::create(directory.join("counters")).unwrap()))
        });
        Some(Self { _process: process, address, directory })
    }

    /// What the example does when it is to send `mails` mails here.
    pub(crate) fn send(&self, mails: u64, options: &[&str]) -> Outcome {
        let (server, mails) = (self.address.to_string(), mails.to_string());
        let arguments = ["--server", &server, "--mails", &mails];
        finish(stackless(arguments).args(options), PATIENCE)
    }

    /// Asserts that so many mails have come; it counts a little later than it replies.
    #[track_caller]
    pub(crate) fn assert_received(&self, mails: u64) {
        until(&format!("{mails} mails at the sink"), Duration::from_secs(10), || {
            (self.received() == mails).then_some(())
        });
    }

    /// The last of its counts, each of which overwrites the one before on a terminal.
    fn received(&self) -> u64 {
        let counters = fs::read_to_string(self.directory.join("counters")).unwrap();
        let last = counters.rsplit("mesg=").next().filter(|_| counters.contains("mesg="));
        last.map_or(0, |count| count.trim().parse().unwrap_or(0))
    }
}

/// Starts a server at an address that is free; again, if somebody else has taken that in between.
fn start_at(start: impl Fn(SocketAddr) -> Process) -> (Process, SocketAddr) {
    for _ in 0..5 {
        let address = free_address();
        let mut process = start(address);
        if process.listens(address) {
            return (process, address);
        }
    }
    panic!("the server does not start");
}
