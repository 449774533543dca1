//! 20,000 mails at 1,000 at once, to Postfix' `smtp-sink`: pila's example `stackless` against Postfix' `smtp-source`.
//!
//! The sender keeps to the first processor, the sink to the last. What counts is what the sender's processor worked.

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use nix::sys::resource::{UsageWho, getrusage};

use crate::{
    peers::Places,
    processors::Side,
    run::{Answers, start},
};

const MAILS: usize = 20_000;
const AT_ONCE: usize = 1_000;
const BODY: usize = 1_000;

/// Whose sender it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    Pila,
    SmtpSource,
}

/// Both senders, ready to run.
pub(crate) struct Mail {
    example: String,
    sink: String,
    source: String,
    mails: usize,
}

impl Mail {
    /// Builds the example and looks for Postfix. The error is the word with which the row is skipped.
    pub(crate) fn prepare(places: &Places, quick: bool) -> Result<Mail, String> {
        let find = |name| -> Result<String, String> {
            let known =
                ["/usr/sbin", "/usr/bin", "/usr/local/sbin"].map(|dir| format!("{dir}/{name}"));
            known.into_iter().find(|path| Path::new(path).exists()).ok_or(format!("no {name}"))
        };
        let (sink, source) = (find("smtp-sink")?, find("smtp-source")?);
        let target = places.target.join("pila");
        let build = Command::new("cargo")
            .args(["build", "--quiet", "--release", "--example", "stackless", "--target-dir"])
            .arg(&target)
            .current_dir(&places.repository)
            .status();
        if !build.is_ok_and(|status| status.success()) {
            return Err("the example `stackless` does not build".to_owned());
        }
        let example = target.join("release/examples/stackless").to_string_lossy().into_owned();
        Ok(Mail { example, sink, source, mails: if quick { MAILS / 10 } else { MAILS } })
    }

    /// Has one of them send all mails.
    pub(crate) fn once(&self, sender: Sender) -> Result<Answers, String> {
        let mut sink = Sink::start(&self.sink)?;
        let (mails, at_once, body) =
            (self.mails.to_string(), AT_ONCE.to_string(), BODY.to_string());
        let command = match sender {
            Sender::Pila => vec![
                &*self.example,
                "--server",
                &sink.address,
                "--mails",
                &mails,
                "--at-once",
                &at_once,
                "--body-size",
                &body,
            ],
            Sender::SmtpSource => {
                vec![&*self.source, "-s", &at_once, "-m", &mails, "-l", &body, &sink.address]
            }
        };
        let command: Vec<_> = command.into_iter().map(str::to_owned).collect();
        let before = worked()?;
        let output = start(&command, &[]).and_then(Child::wait_with_output);
        let worked = worked()?.saturating_sub(before);
        sink.end();
        let output = output.map_err(|error| error.to_string())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{}: {said}", output.status));
        }
        Ok(Answers::from([("cpu_ms".to_owned(), worked.as_secs_f64() * 1e3)]))
    }
}

/// What the processors worked for children that have ended.
fn worked() -> Result<Duration, String> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|error| error.to_string())?;
    let time = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(time.tv_sec() as u64) + Duration::from_micros(time.tv_usec() as u64)
    };
    Ok(time(usage.user_time()) + time(usage.system_time()))
}

struct Sink {
    process: Child,
    address: String,
    ended: bool,
}

impl Sink {
    fn start(program: &str) -> Result<Sink, String> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = free.map_err(|error| error.to_string())?.to_string();
        let mut command = Command::new(program);
        command.args(["-m", "12000"]);
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        command.args([&address, "4096"]);
        Side::Load.keep_to();
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.map_err(|error| error.to_string())?;
        let sink = Sink { process, address, ended: false };
        for _ in 0..500 {
            if TcpStream::connect(&sink.address).is_ok() {
                return Ok(sink);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err("smtp-sink does not listen".to_owned())
    }

    fn end(&mut self) {
        if !self.ended {
            // It runs until it is killed; if it has ended already, so much the better.
            let _ = self.process.kill();
            let _ = self.process.wait();
            self.ended = true;
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.end();
    }
}
