//! `Postfix`: a whole mail server in a temporary directory.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::files;
use crate::system::{Directory, free_address, is_root, peer, tell};

/// A Postfix of our own, which accepts mail and puts it on hold. Nothing of it is outside its directory.
pub(crate) struct Postfix {
    pub(crate) address: SocketAddr,
    directory: Directory,
}

impl Postfix {
    /// Starts one; `None` where there is none, or none may be started.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// The same, with more lines in its `main.cf`.
    pub(crate) fn start_with(settings: &str) -> Option<Self> {
        let program = peer("postfix")?;
        if !is_root() {
            return None;
        }
        let directory = Directory::new("postfix");
        let path = directory.path().display();
        for name in ["etc", "queue", "data"] {
            fs::create_dir(directory.join(name)).unwrap();
        }
        let owner = Command::new("chown").arg("postfix").arg(directory.join("data")).status();
        assert!(owner.unwrap().success());
        fs::write(
            directory.join("etc/main.cf"),
            format!(
                "compatibility_level = 3.6\n\
                 queue_directory = {path}/queue\n\
                 data_directory = {path}/data\n\
                 maillog_file = {path}/log\n\
                 maillog_file_prefixes = {path}\n\
                 mail_owner = postfix\n\
                 myhostname = mail.example.org\n\
                 mydestination = example.org\n\
                 mynetworks = 127.0.0.0/8\n\
                 inet_interfaces = 127.0.0.1\n\
                 inet_protocols = ipv4\n\
                 local_recipient_maps =\n\
                 alias_maps =\n\
                 alias_database =\n\
                 smtpd_recipient_restrictions = permit_mynetworks, reject\n\
                 smtpd_end_of_data_restrictions = check_client_access static:HOLD\n\
                 {settings}"
            ),
        )
        .unwrap();
        let mut postfix = Self { address: free_address(), directory };
        for _ in 0..5 {
            if postfix.start_at(&program) {
                return Some(postfix);
            }
            postfix.address = free_address();
        }
        panic!("Postfix does not start");
    }

    /// Whether it starts at its address.
    fn start_at(&self, program: &Path) -> bool {
        let address = self.address;
        fs::write(
            self.configuration().join("master.cf"),
            format!(
                "{address} inet n - n - - smtpd\n\
                 cleanup unix n - n - 0 cleanup\n\
                 qmgr unix n - n 300 1 qmgr\n\
                 rewrite unix - - n - - trivial-rewrite\n\
                 bounce unix - - n - 0 bounce\n\
                 defer unix - - n - 0 bounce\n\
                 error unix - - n - - error\n\
                 anvil unix - - n - 1 anvil\n\
                 tlsmgr unix - - n 1000? 1 tlsmgr\n\
                 postlog unix-dgram n - n - 1 postlogd\n"
            ),
        )
        .unwrap();
        let mut start = Command::new(program);
        let start = start.arg("-c").arg(self.configuration()).arg("start").stderr(Stdio::null());
        start.status().unwrap().success() && std::net::TcpStream::connect(address).is_ok()
    }

    fn configuration(&self) -> PathBuf {
        self.directory.join("etc")
    }

    /// The mails on hold, as they are in the queue.
    pub(crate) fn held(&self) -> Vec<Vec<u8>> {
        let held = files(&self.directory.join("queue/hold"), "").into_iter();
        held.map(|path| {
            let mut postcat = Command::new(peer("postcat").expect("it comes with postfix"));
            let postcat = postcat.arg("-c").arg(self.configuration()).args(["-hbq"]);
            let output = postcat.arg(path.file_name().unwrap()).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        })
        .collect()
    }

    /// What it logged, for when something went wrong.
    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tell(&self.log());
        }
        // Ends all of its processes, by force if they take more than five seconds.
        let mut stop = Command::new("postfix");
        stop.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").arg("-c").arg(self.configuration());
        stop.arg("stop").stderr(Stdio::null()).status().ok();
    }
}
