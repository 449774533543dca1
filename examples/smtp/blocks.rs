//! `Blocks`: the text of a mail as it goes over the wire, with the dot that ends it.
//!
//! The text arrives as it is, byte for byte, 8-bit and lines over SMTP's 998 octets included (the server may reject
//! those), but for two things SMTP cannot carry: a lone LF becomes CRLF, and an unfinished last line is ended.

use std::io::{self, BufRead, Read};

/// How much of the text one write takes.
const BLOCK: usize = 8 * 1024;

/// A text, block by block; what fits into one block comes as one.
pub(crate) struct Blocks<T> {
    text: T,
    block: Vec<u8>,
    /// How much of the block has been given out.
    given: usize,
    /// The dot is in the block.
    ended: bool,
}

impl<T: BufRead> Blocks<T> {
    pub(crate) fn new(text: T) -> Self {
        Self { text, block: Vec::with_capacity(2048), given: 0, ended: false }
    }

    /// The next block, or `None` after the last one.
    pub(crate) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.block.drain(..self.given);
        self.given = 0;
        if self.ended {
            return Ok(None);
        }
        while stuff_line(&mut self.text, &mut self.block)? {
            if self.block.len() >= BLOCK {
                // The last byte stays behind: if a LF comes next, it matters whether this was its CR.
                self.given = self.block.len() - 1;
                return Ok(Some(&self.block[..self.given]));
            }
        }
        self.end();
        Ok(Some(&self.block))
    }

    /// Whether the last block has been given out.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    fn end(&mut self) {
        if self.block.last().is_some_and(|&byte| byte != b'\n') {
            self.block.extend_from_slice(b"\r\n");
        }
        self.block.extend_from_slice(b".\r\n");
        self.given = self.block.len();
        self.ended = true;
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
