//! Sends one mail over one connection: greeting, EHLO, MAIL, RCPT, DATA, the text, QUIT, one after the other.
//!
//! - It knows no kind of socket: whatever can `Read`, `Write` and set `Timeouts` will do.
//! - Every step has a deadline as a whole, so a server that trickles its reply cannot hold a mail for ever. The text
//!   has one of its own, which grows with its length, before that of the reply to it.
//! - The text arrives as it is, byte for byte, 8-bit and lines over SMTP's 998 octets included (the server may reject
//!   those), but for two things SMTP cannot carry: a lone LF becomes CRLF, and an unfinished last line is ended.
//! - It needs little memory while it waits: `BUFFER` bytes of stack, and what smtp-proto keeps of a reply.

use std::{
    io::{self, BufRead, Read, Write},
    time::{Duration, Instant},
};

use smtp_proto::{Error, Response, response::parser::ResponseReceiver};

use super::error::{Cause, MailError, Step};

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

/// Who sends a mail, to whom, and how patiently.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    /// The name this host introduces itself with.
    pub(crate) host: String,
    /// The sender's address, without angle brackets.
    pub(crate) from: String,
    /// The recipient's address, without angle brackets.
    pub(crate) to: String,
    /// How long each step may take; not zero.
    pub(crate) timeout: Duration,
}

/// Hands `text`, headers and all, to the server at the other end of `stream`. `Ok` means the server has accepted it.
pub(crate) fn send_data<S: Read + Write + Timeouts>(
    stream: &mut S,
    envelope: &Envelope,
    text: impl BufRead,
) -> Result<(), MailError> {
    let mut session = Session::new(stream, envelope.timeout);
    let outcome = session.deliver(envelope, text);
    // By now the server has accepted or rejected the mail: a goodbye that fails changes nothing.
    if matches!(outcome, Ok(()) | Err(MailError { cause: Cause::Rejected { .. }, .. })) {
        session.command(Step::Quit, &["QUIT\r\n"]).ok();
    }
    outcome
}

/// Replies are short: the longest, to EHLO, usually fits.
const BUFFER: usize = 512;

/// smtp-proto keeps 4,096 bytes of a reply's text, but lets a reply of empty lines go on for ever.
const LONGEST_REPLY: usize = 16 * 1024;

/// How much of the text one write takes.
const BLOCK: usize = 8 * 1024;

/// How much of a long text a server must take in the time of a step.
const PACE: u32 = 1024 * 1024;

/// A conversation with a server.
struct Session<'a, S> {
    stream: &'a mut S,
    /// How long a step may take.
    timeout: Duration,
    /// When the present step must be complete, and how much time it had when that was last looked at.
    deadline: Instant,
    left: Duration,
    /// What the stream's timeouts are set to, so that they are set only when they differ.
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    receiver: ResponseReceiver,
    /// What has been read; `unread` says which part of it has yet to be looked at.
    buffer: [u8; BUFFER],
    unread: std::ops::Range<usize>,
}

impl<'a, S: Read + Write + Timeouts> Session<'a, S> {
    fn new(stream: &'a mut S, timeout: Duration) -> Self {
        Self {
            stream,
            timeout,
            deadline: Instant::now(),
            left: timeout,
            read_timeout: None,
            write_timeout: None,
            receiver: ResponseReceiver::default(),
            buffer: [0; BUFFER],
            unread: 0..0,
        }
    }

    fn deliver(&mut self, envelope: &Envelope, text: impl BufRead) -> Result<(), MailError> {
        self.begin();
        self.expect(Step::Greeting)?;
        let extensions = self.hello(&envelope.host)?;
        let eight_bit = extensions.lines().any(|line| line.trim().eq_ignore_ascii_case("8BITMIME"));
        let body = if eight_bit { " BODY=8BITMIME" } else { "" };
        self.command(Step::Mail, &["MAIL FROM:<", &envelope.from, ">", body, "\r\n"])?;
        self.command(Step::Rcpt, &["RCPT TO:<", &envelope.to, ">\r\n"])?;
        self.command(Step::Data, &["DATA\r\n"])?;
        self.begin();
        self.text(text).map_err(|cause| cause.at(Step::Body))?;
        self.begin();
        self.expect(Step::Body).map(drop)
    }

    /// Introduces `host` with EHLO, or with HELO to a server of before 1995, and returns what the server can do.
    fn hello(&mut self, host: &str) -> Result<String, MailError> {
        match self.command(Step::Ehlo, &["EHLO ", host, "\r\n"]) {
            Err(MailError { cause: Cause::Rejected { code: 500.., .. }, .. }) => {
                self.command(Step::Ehlo, &["HELO ", host, "\r\n"]).map(|_| String::new())
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
    fn command(&mut self, step: Step, line: &[&str]) -> Result<String, MailError> {
        self.begin();
        self.write(line.concat().as_bytes()).map_err(|cause| cause.at(step))?;
        self.expect(step)
    }

    /// Waits for a reply, and returns its text if it is the one that lets `step` succeed.
    fn expect(&mut self, step: Step) -> Result<String, MailError> {
        let good = if step == Step::Data { 300..=399 } else { 200..=299 };
        match self.reply() {
            Ok(reply) if good.contains(&reply.code) => Ok(reply.message),
            Ok(Response { code: code @ 400..=599, message: text, .. }) => {
                Err(Cause::Rejected { code, text }.at(step))
            }
            Ok(_) => Err(Cause::Garbage("a code that has no place here").at(step)),
            Err(cause) => Err(cause.at(step)),
        }
    }

    /// Writes the text of the mail and the dot that ends it; what fits into one block, with one write.
    fn text(&mut self, mut text: impl BufRead) -> Result<(), Cause> {
        let mut block = Vec::with_capacity(2048);
        while stuff_line(&mut text, &mut block)? {
            if block.len() >= BLOCK {
                // The last byte stays behind: if a LF comes next, it matters whether this was its CR.
                let last = block.len() - 1;
                self.write(&block[..last])?;
                block.drain(..last);
                self.deadline += self.timeout * last as u32 / PACE;
                self.look_at_clock()?;
            }
        }
        if block.last().is_some_and(|&byte| byte != b'\n') {
            block.extend_from_slice(b"\r\n");
        }
        block.extend_from_slice(b".\r\n");
        self.write(&block)
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
        let mut length = 0;
        self.receiver.reset();
        loop {
            if self.unread.is_empty() {
                self.read()?;
            }
            length += self.unread.len();
            let mut unread = self.buffer[self.unread.clone()].iter();
            let parsed = self.receiver.parse(&mut unread);
            // What follows a reply in the same read is the start of the next one.
            self.unread.start = self.unread.end - unread.len();
            match parsed {
                Ok(reply) => return Ok(reply),
                Err(Error::NeedsMoreData { .. }) if length <= LONGEST_REPLY => {}
                Err(Error::SyntaxError { syntax }) => return Err(Cause::Garbage(syntax)),
                Err(_) => return Err(Cause::Garbage("a reply that does not end")),
            }
            self.look_at_clock()?;
        }
    }

    /// Reads once.
    fn read(&mut self) -> Result<(), Cause> {
        if self.read_timeout != Some(self.left) {
            self.stream.set_read_timeout(Some(self.left))?;
            self.read_timeout = Some(self.left);
        }
        match self.stream.read(&mut self.buffer) {
            Ok(0) => Err(Cause::Closed),
            Ok(count) => {
                self.unread = 0..count;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Appends a line of `text` to `block`, or as much of one as a block holds, and says whether there was one.
///
/// A dot that starts a line is doubled, for a line of one dot ends the mail, and a lone LF becomes CRLF.
fn stuff_line(text: &mut impl BufRead, block: &mut Vec<u8>) -> io::Result<bool> {
    let Some(&first) = text.fill_buf()?.first() else {
        return Ok(false);
    };
    if first == b'.' && block.last().is_none_or(|&byte| byte == b'\n') {
        block.push(b'.');
    }
    text.take(BLOCK as u64).read_until(b'\n', block)?;
    if block.ends_with(b"\n") && !block.ends_with(b"\r\n") {
        block.pop();
        block.extend_from_slice(b"\r\n");
    }
    Ok(true)
}
