//! The text of the numbered mails, which is made to be hard to carry: lines of only dots, every byte from 0x80 to
//! 0xff, lines as long as SMTP allows.
//!
//! - A body is its number's line, then what all bodies have in common: to send one takes no copy of it.
//! - Two letters of one size have equal bodies for equal numbers, so that the sink can tell what it should receive.

use std::io::{BufRead, Cursor, Read};

/// How long the line of a body that carries its number is.
const NUMBER_LINE: usize = "mail 00000000\r\n".len();

/// The highest number that the line has room for.
pub(crate) const LAST_NUMBER: u32 = 99_999_999;

/// The longest line that SMTP allows, without its CRLF.
const LONGEST_LINE: usize = 998;

/// A text with room for a number.
#[derive(Debug)]
pub(crate) struct Letter {
    /// The headers that all mails have in common.
    headers: String,
    /// The body, but for its first line.
    rest: Vec<u8>,
}

impl Letter {
    /// A letter with these headers and a body of `size` bytes, or of as many as its number takes.
    pub(crate) fn new(headers: String, size: usize) -> Self {
        Self { headers, rest: filler(size.saturating_sub(NUMBER_LINE)) }
    }

    /// The text of mail `number`.
    pub(crate) fn text(&self, number: u32) -> impl BufRead {
        let headers = &self.headers;
        let head = format!("{headers}Subject: mail {number}\r\n\r\nmail {number:08}\r\n");
        Cursor::new(head).chain(self.rest.as_slice())
    }

    /// Which mail `text` is, if it has arrived whole and unchanged.
    pub(crate) fn number_of(&self, text: &[u8]) -> Option<u32> {
        let headers_end = text.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
        let (line, rest) = text[headers_end + 4..].split_at_checked(NUMBER_LINE)?;
        let digits = line.strip_prefix(b"mail ")?.strip_suffix(b"\r\n")?;
        let number = str::from_utf8(digits).ok()?.parse().ok()?;
        (rest == self.rest).then_some(number)
    }
}

/// At least `size` bytes of lines, ended by CRLF.
fn filler(size: usize) -> Vec<u8> {
    let lines = filler_lines();
    let mut text: Vec<u8> = lines.iter().copied().cycle().take(size.saturating_sub(2)).collect();
    // A line that was cut between its CR and its LF.
    if text.last() == Some(&b'\r') {
        text.pop();
        text.push(b'.');
    }
    if size > 0 {
        text.extend_from_slice(b"\r\n");
    }
    text
}

fn filler_lines() -> Vec<u8> {
    let mut lines = b".\r\n..\r\n...\r\n.dot\r\n".to_vec();
    lines.extend(0x80..=0xff_u8);
    lines.extend_from_slice(b"\r\n");
    lines.extend((b'a'..=b'z').cycle().take(LONGEST_LINE));
    lines.extend_from_slice(b"\r\n");
    lines
}
