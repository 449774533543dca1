//! `Replies`: what a server says, which comes in pieces, as whole replies.
//!
//! - It reads from no socket: whoever has one puts what comes into `space`, and says with `filled` how much that was.
//! - It needs little memory while it waits: `BUFFER` bytes, and what smtp-proto keeps of a reply.

use std::ops::Range;

use smtp_proto::{Error, Response, response::parser::ResponseReceiver};

use super::error::{Cause, MailError, Step};

/// Replies are short: the longest, to EHLO, usually fits.
const BUFFER: usize = 512;

/// smtp-proto keeps 4,096 bytes of a reply's text, but lets a reply of empty lines go on for ever.
const LONGEST_REPLY: usize = 16 * 1024;

/// The replies of one server, in their order.
pub(crate) struct Replies {
    receiver: ResponseReceiver,
    /// What has come; `unread` says which part of it has yet to be looked at.
    buffer: [u8; BUFFER],
    unread: Range<usize>,
    /// How much of the present reply has been looked at.
    length: usize,
}

impl Replies {
    pub(crate) fn new() -> Self {
        Self { receiver: ResponseReceiver::default(), buffer: [0; BUFFER], unread: 0..0, length: 0 }
    }

    /// The next reply, or `None` when more has to come first.
    pub(crate) fn next(&mut self) -> Result<Option<Response<String>>, Cause> {
        self.length += self.unread.len();
        let mut unread = self.buffer[self.unread.clone()].iter();
        let parsed = self.receiver.parse(&mut unread);
        // What follows a reply in the same piece is the start of the next one.
        self.unread.start = self.unread.end - unread.len();
        match parsed {
            Ok(reply) => {
                self.receiver.reset();
                self.length = 0;
                Ok(Some(reply))
            }
            Err(Error::NeedsMoreData { .. }) if self.length <= LONGEST_REPLY => Ok(None),
            Err(Error::SyntaxError { syntax }) => Err(Cause::Garbage(syntax)),
            Err(_) => Err(Cause::Garbage("a reply that does not end")),
        }
    }

    /// Where to put what comes next, once all that came has been looked at.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// Says how many bytes came. None at all is the end.
    pub(crate) fn filled(&mut self, count: usize) -> Result<(), Cause> {
        self.unread = 0..count;
        if count == 0 { Err(Cause::Closed) } else { Ok(()) }
    }
}

/// The text of `reply`, if it is one that lets `step` succeed.
pub(crate) fn judge(step: Step, reply: Response<String>) -> Result<String, MailError> {
    let good = if step == Step::Data { 300..=399 } else { 200..=299 };
    let Response { code, message: text, .. } = reply;
    match code {
        code if good.contains(&code) => Ok(text),
        400..=599 => Err(Cause::Rejected { code, text }.at(step)),
        _ => Err(Cause::Garbage("a code that has no place here").at(step)),
    }
}
