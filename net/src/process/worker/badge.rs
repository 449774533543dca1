//! How a process knows that it was started as a worker: its badge.
//!
//! - The channel is the worker's standard input: the one descriptor that can be handed to a child without code between
//!   `fork` and `exec`. It is taken off there before the worker serves.
//! - An environment variable says what for. It is handed on to whatever the worker starts, where it means nothing: it names
//!   the socket that it goes with, by a number that the system gives to one socket at a time.

use std::env;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;

/// The variable.
const VARIABLE: &str = "PILA_WORKER";

/// What a process was started as.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Badge {
    /// The role's name and types.
    pub(super) title: String,
    /// How long a message may be.
    pub(super) limit: usize,
}

impl Badge {
    /// The variable, and what it has to say for a child whose standard input is `channel`.
    pub(super) fn for_child(&self, channel: &UnixStream) -> io::Result<(&'static str, String)> {
        let socket = metadata(channel)?.ino();
        Ok((VARIABLE, format!("{socket} {} {}", self.limit, self.title)))
    }

    /// That of this process. `None` when it is no worker, or serves already.
    pub(super) fn of_this_process() -> Option<Self> {
        let text = env::var(VARIABLE).ok()?;
        let (socket, badge) = Self::parse(&text)?;
        let input = metadata(&io::stdin()).ok()?;
        (input.file_type().is_socket() && input.ino() == socket).then_some(badge)
    }

    /// Takes the channel, and leaves nothing to read in its place.
    pub(super) fn take_channel(&self) -> io::Result<UnixStream> {
        let channel = io::stdin().as_fd().try_clone_to_owned()?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Ok(UnixStream::from(channel))
    }

    fn parse(text: &str) -> Option<(u64, Self)> {
        let mut parts = text.splitn(3, ' ');
        let (socket, limit) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some((socket, Self { title: parts.next()?.to_string(), limit }))
    }
}

fn metadata(descriptor: &impl AsFd) -> io::Result<Metadata> {
    let duplicate: OwnedFd = descriptor.as_fd().try_clone_to_owned()?;
    File::from(duplicate).metadata()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_badge_goes_with_one_socket() {
        let (one, other) = UnixStream::pair().unwrap();
        let badge = Badge { title: "square: u64 -> (u64, u64)".into(), limit: 77 };
        let (_, text) = badge.for_child(&one).unwrap();
        assert_eq!(Badge::parse(&text), Some((metadata(&one).unwrap().ino(), badge)));
        assert_ne!(metadata(&one).unwrap().ino(), metadata(&other).unwrap().ino());
    }

    #[test]
    fn what_is_no_badge_is_none() {
        for text in ["", "x", "1", "1 2", "-1 2 x", "1 x x"] {
            assert_eq!(Badge::parse(text), None, "{text:?}");
        }
        assert_eq!(Badge::of_this_process(), None);
    }
}
