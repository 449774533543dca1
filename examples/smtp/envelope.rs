//! `Envelope`: who sends a mail, to whom, and how patiently; and the lines of SMTP that say so.

use std::time::Duration;

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

impl Envelope {
    pub(crate) fn ehlo(&self) -> String {
        format!("EHLO {}\r\n", self.host)
    }

    /// For a server of before 1995.
    pub(crate) fn helo(&self) -> String {
        format!("HELO {}\r\n", self.host)
    }

    /// Names the sender to a server that answered `extensions` to EHLO.
    pub(crate) fn mail(&self, extensions: &str) -> String {
        let eight_bit = extensions.lines().any(|line| line.trim().eq_ignore_ascii_case("8BITMIME"));
        let body = if eight_bit { " BODY=8BITMIME" } else { "" };
        format!("MAIL FROM:<{}>{body}\r\n", self.from)
    }

    pub(crate) fn rcpt(&self) -> String {
        format!("RCPT TO:<{}>\r\n", self.to)
    }
}
