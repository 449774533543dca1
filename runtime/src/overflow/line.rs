//! Text for standard error, from a signal handler: no lock, no allocation.

use std::fmt;

/// Collects text and writes it when it is told to, or has no more room.
pub(super) struct Stderr {
    text: [u8; 512],
    length: usize,
}

impl Stderr {
    pub(super) fn new() -> Stderr {
        Stderr { text: [0; 512], length: 0 }
    }

    /// Writes what was collected, in one call if the kernel takes it so.
    pub(super) fn flush(&mut self) {
        let mut text = &self.text[..self.length];
        while !text.is_empty() {
            // SAFETY: it reads `text`.
            let written =
                unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
            match usize::try_from(written) {
                Ok(written) if written > 0 => text = &text[written..],
                _ if std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => {}
                // Nobody listens.
                _ => break,
            }
        }
        self.length = 0;
    }
}

impl fmt::Write for Stderr {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.length == self.text.len() {
                self.flush();
            }
            self.text[self.length] = byte;
            self.length += 1;
        }
        Ok(())
    }
}
