//! `MailError`: at which step a mail failed, and what happened there.

use std::{error, fmt, io};

/// Why a mail was not sent.
#[derive(Debug)]
pub(crate) struct MailError {
    /// The step that failed; those before it had gone well.
    pub(crate) step: Step,
    /// What happened at that step.
    pub(crate) cause: Cause,
}

impl fmt::Display for MailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.cause)
    }
}

impl error::Error for MailError {}

/// The steps of sending a mail, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Opening the connection.
    Connect,
    /// Waiting for the server's first words.
    Greeting,
    /// Introducing ourselves, with EHLO or else with HELO.
    Ehlo,
    /// Naming the sender.
    Mail,
    /// Naming the recipient.
    Rcpt,
    /// Asking leave to send the text.
    Data,
    /// Sending the text and hearing that it was accepted.
    Body,
    /// Saying goodbye.
    Quit,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connect => "connect",
            Self::Greeting => "greeting",
            Self::Ehlo => "EHLO",
            Self::Mail => "MAIL FROM",
            Self::Rcpt => "RCPT TO",
            Self::Data => "DATA",
            Self::Body => "body",
            Self::Quit => "QUIT",
        })
    }
}

/// What can happen at a step.
#[derive(Debug)]
pub(crate) enum Cause {
    /// Nobody listens at that address.
    Refused,
    /// The connection broke.
    Reset,
    /// The server hung up in an orderly way, before its reply was complete.
    Closed,
    /// The step was not complete when its time was up.
    TimedOut,
    /// The server said no.
    Rejected {
        /// The reply's code, usually 4xx or 5xx.
        code: u16,
        /// The reply's text.
        text: String,
    },
    /// What the server said is no SMTP reply, for this reason.
    Garbage(&'static str),
    /// Any other error of the system.
    Io(io::Error),
}

impl Cause {
    /// The error that says this happened at `step`.
    pub(crate) fn at(self, step: Step) -> MailError {
        MailError { step, cause: self }
    }

    /// What this has in common with others of its kind: all but the server's own words.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Refused => "connection refused".into(),
            Self::Reset => "connection reset".into(),
            Self::Closed => "connection closed".into(),
            Self::TimedOut => "timed out".into(),
            Self::Rejected { code, .. } => format!("rejected {code:03}"),
            Self::Garbage(_) => "garbage".into(),
            Self::Io(error) => error.kind().to_string(),
        }
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::Reset,
            // On Unix a read that has reached its timeout reports `WouldBlock`.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The text comes from a stranger: it must not move the reader's cursor.
            Self::Rejected { code, text } => write!(f, "{code:03} {}", text.escape_debug()),
            Self::Garbage(why) => write!(f, "not an SMTP reply: {why}"),
            Self::Io(error) => error.fmt(f),
            Self::Refused | Self::Reset | Self::Closed | Self::TimedOut => {
                f.write_str(&self.kind())
            }
        }
    }
}
