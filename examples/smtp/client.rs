//! Sends one mail over one connection: greeting, EHLO, MAIL, RCPT, DATA, the text, QUIT, one after the other.
//!
//! - It knows no kind of socket: whatever can `Read`, `Write` and set `Timeouts` will do.
//! - Every step has a deadline as a whole, so a server that trickles its reply cannot hold a mail for ever. The text
//!   has one of its own, which grows with its length, before that of the reply to it.

use std::{
    io::{self, BufRead, Read, Write},
    time::{Duration, Instant},
};

use smtp_proto::Response;

pub(crate) use super::envelope::Envelope;
use super::{
    blocks::Blocks,
    error::{Cause, MailError, Step},
    replies::{Replies, judge},
};

/// What a stream must offer beside reading and writing.
pub(crate) trait Timeouts {
    /// No later read waits longer than this.
    fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()>;
    /// No later write waits longer than this.
    fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()>;
}

impl Timeouts for std::net::TcpStream {
    fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        std::net::TcpStream::set_read_timeout(self, limit)
    }

    fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        std::net::TcpStream::set_write_timeout(self, limit)
    }
}

/// Hands `text`, headers and all, to the server at the other end of `stream`. `Ok` means the server has accepted it.
pub(crate) fn send_data<S: Read + Write + Timeouts>(
    stream: &mut S,
    envelope: &Envelope,
    text: impl BufRead,
) -> Result<(), MailError> {
    send_data_and(stream, envelope, text, || ())
}

/// The same, and calls `accepted` as soon as the server has accepted the mail: it takes a while to say goodbye.
pub(crate) fn send_data_and<S: Read + Write + Timeouts>(
    stream: &mut S,
    envelope: &Envelope,
    text: impl BufRead,
    accepted: impl FnOnce(),
) -> Result<(), MailError> {
    let mut session = Session::new(stream, envelope.timeout);
    let outcome = session.deliver(envelope, text);
    if outcome.is_ok() {
        accepted();
    }
    // By now the server has accepted or rejected the mail: a goodbye that fails changes nothing.
    if matches!(outcome, Ok(()) | Err(MailError { cause: Cause::Rejected { .. }, .. })) {
        session.command(Step::Quit, "QUIT\r\n").ok();
    }
    outcome
}

/// How much of a long text a server must take in the time of a step.
const PACE: u32 = 1024 * 1024;

/// A conversation with a server.
struct Session<'a, S> {
    stream: &'a mut S,
    replies: Replies,
    /// How long a step may take.
    timeout: Duration,
    /// When the present step must be complete, and how much time it had when that was last looked at.
    deadline: Instant,
    left: Duration,
    /// What the stream's timeouts are set to, so that they are set only when they differ.
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl<'a, S: Read + Write + Timeouts> Session<'a, S> {
    fn new(stream: &'a mut S, timeout: Duration) -> Self {
        Self {
            stream,
            replies: Replies::new(),
            timeout,
            deadline: Instant::now(),
            left: timeout,
            read_timeout: None,
            write_timeout: None,
        }
    }

    fn deliver(&mut self, envelope: &Envelope, text: impl BufRead) -> Result<(), MailError> {
        self.begin();
        self.expect(Step::Greeting)?;
        let extensions = self.hello(envelope)?;
        self.command(Step::Mail, &envelope.mail(&extensions))?;
        self.command(Step::Rcpt, &envelope.rcpt())?;
        self.command(Step::Data, "DATA\r\n")?;
        self.begin();
        self.text(text).map_err(|cause| cause.at(Step::Body))?;
        self.begin();
        self.expect(Step::Body).map(drop)
    }

    /// Introduces us, with EHLO or else with HELO, and returns what the server can do.
    fn hello(&mut self, envelope: &Envelope) -> Result<String, MailError> {
        match self.command(Step::Ehlo, &envelope.ehlo()) {
            Err(MailError { cause: Cause::Rejected { code: 500.., .. }, .. }) => {
                self.command(Step::Ehlo, &envelope.helo()).map(|_| String::new())
            }
            reply => reply,
        }
    }

    /// Starts the clock of a step.
    fn begin(&mut self) {
        self.deadline = Instant::now() + self.timeout;
        self.left = self.timeout;
    }

    /// Looks at the clock. Nothing left is an error, for streams take no timeout of zero.
    fn look_at_clock(&mut self) -> Result<(), Cause> {
        self.left = self.deadline.saturating_duration_since(Instant::now());
        if self.left.is_zero() { Err(Cause::TimedOut) } else { Ok(()) }
    }

    /// Says one line, in one write, and waits for the reply.
    fn command(&mut self, step: Step, line: &str) -> Result<String, MailError> {
        self.begin();
        self.write(line.as_bytes()).map_err(|cause| cause.at(step))?;
        self.expect(step)
    }

    /// Waits for a reply, and returns its text if it is the one that lets `step` succeed.
    fn expect(&mut self, step: Step) -> Result<String, MailError> {
        judge(step, self.reply().map_err(|cause| cause.at(step))?)
    }

    /// Writes the text of the mail and the dot that ends it; what fits into one block, with one write.
    fn text(&mut self, text: impl BufRead) -> Result<(), Cause> {
        let mut blocks = Blocks::new(text);
        while let Some(block) = blocks.next()? {
            self.write(block)?;
            let length = block.len() as u32;
            if !blocks.is_ended() {
                self.deadline += self.timeout * length / PACE;
                self.look_at_clock()?;
            }
        }
        Ok(())
    }

    /// Writes all of `bytes` before the step's time is up.
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Cause> {
        loop {
            if self.write_timeout != Some(self.left) {
                self.stream.set_write_timeout(Some(self.left))?;
                self.write_timeout = Some(self.left);
            }
            match self.stream.write(bytes) {
                Ok(0) => return Err(Cause::Closed),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            if bytes.is_empty() {
                return Ok(());
            }
            self.look_at_clock()?;
        }
    }

    /// Reads one reply before the step's time is up.
    fn reply(&mut self) -> Result<Response<String>, Cause> {
        if let Some(reply) = self.replies.next()? {
            return Ok(reply);
        }
        loop {
            self.read()?;
            if let Some(reply) = self.replies.next()? {
                return Ok(reply);
            }
            self.look_at_clock()?;
        }
    }

    /// Reads once, in what time is left.
    fn read(&mut self) -> Result<(), Cause> {
        if self.read_timeout != Some(self.left) {
            self.stream.set_read_timeout(Some(self.left))?;
            self.read_timeout = Some(self.left);
        }
        match self.stream.read(self.replies.space()) {
            Ok(count) => self.replies.filled(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
