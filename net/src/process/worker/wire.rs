//! Frames over a socket, in both directions, none of which ever blocks.
//!
//! - A frame is four bytes that tell the length of the rest, one that tells its kind, eight that tell the number of the
//!   request it is about, and the message. All numbers are little-endian.
//! - Frames go out whole and in order. One of which nothing has gone out yet can be taken back; whoever stops waiting in the
//!   middle of one leaves the rest for the next to send.
//! - No message is longer than the limit, in either direction. A longer one that comes is garbage.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::buffer::spare_capacity;
use rustix::net::RecvFlags;

use crate::first::Interest;
use crate::readiness::Direction;
use crate::source::{Operation, Source};
use crate::syscall;

/// How many bytes stand before the message, and how many of them count as the frame's length.
const HEADER: usize = 13;
const COUNTED: usize = HEADER - 4;

/// How much is asked of the system at one time: many small frames, or a good part of a large one.
const CHUNK: usize = 64 * 1024;

/// The longest message that a frame can tell the length of.
pub(super) const LONGEST: usize = u32::MAX as usize - COUNTED;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The worker is there and serves.
    Hello = 1,
    /// Something to do.
    Request,
    /// There is nothing more to do.
    Goodbye,
    /// What the handler returned.
    Reply,
    /// The handler panicked; the message is the panic's.
    Panicked,
    /// The handler's tasklet was ended.
    Killed,
    /// The worker could not read the request, and why.
    Unread,
    /// The handler's reply could not be written, and why.
    Unwritten,
    /// The handler's reply was too long; the message is its length.
    TooLong,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Hello,
        Self::Request,
        Self::Goodbye,
        Self::Reply,
        Self::Panicked,
        Self::Killed,
        Self::Unread,
        Self::Unwritten,
        Self::TooLong,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u8 == byte)
    }
}

/// A frame to send, of which nothing has been sent.
#[derive(Debug)]
pub(super) struct Parcel(Vec<u8>);

impl Parcel {
    /// One whose message is written by `write`, which appends to what it is given.
    pub(super) fn new<E>(
        kind: Kind,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut bytes = vec![0; HEADER];
        bytes[4] = kind as u8;
        write(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// One with this text, or as much of it as fits into `limit` bytes.
    pub(super) fn text(kind: Kind, text: &str, limit: usize) -> Self {
        let end = (0..=limit.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
        let mut bytes = vec![0; HEADER];
        bytes[4] = kind as u8;
        bytes.extend_from_slice(&text.as_bytes()[..end.unwrap_or(0)]);
        Self(bytes)
    }

    /// How long the message is.
    pub(super) fn len(&self) -> usize {
        self.0.len() - HEADER
    }

    /// Says what request it is about. Not longer than [`LONGEST`].
    fn address(&mut self, number: u64) {
        let length =
            u32::try_from(self.len() + COUNTED).expect("no limit is above what a frame can tell");
        self.0[..4].copy_from_slice(&length.to_le_bytes());
        self.0[5..HEADER].copy_from_slice(&number.to_le_bytes());
    }
}

/// A frame that came.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) number: u64,
    pub(super) message: Vec<u8>,
}

/// Why no more frames come.
#[derive(Debug)]
pub(super) enum Silence {
    /// The other side has closed its end, or is gone.
    Ended,
    /// It sent what is no frame.
    Garbage(String),
}

/// One end of the channel between a worker and who started it.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Source<UnixStream>,
    /// Frames in the order in which they go out, with the numbers of what they are about.
    outgoing: VecDeque<(u64, Parcel)>,
    /// How much of the first of them is out.
    gone: usize,
    /// What came and was not taken yet, behind what was.
    incoming: Vec<u8>,
    /// How much of that was taken.
    taken: usize,
    /// Whether the next read asks the system, whatever the poller said last.
    asks_anyway: bool,
    /// How long a message may be.
    limit: usize,
}

impl Wire {
    pub(super) fn new(socket: UnixStream, limit: usize) -> Self {
        Self {
            socket: Source::new(socket),
            outgoing: VecDeque::new(),
            gone: 0,
            incoming: Vec::new(),
            taken: 0,
            asks_anyway: false,
            limit,
        }
    }

    /// Puts a frame behind all others.
    pub(super) fn push(&mut self, number: u64, mut parcel: Parcel) {
        parcel.address(number);
        self.outgoing.push_back((number, parcel));
    }

    /// Takes a frame back. False when some of it, or all, has gone out.
    pub(super) fn retract(&mut self, number: u64) -> bool {
        let at = self.outgoing.iter().position(|(other, _)| *other == number);
        match at {
            Some(at) if at > 0 || self.gone == 0 => self.outgoing.remove(at).is_some(),
            _ => false,
        }
    }

    /// Gives up what has not gone out to its end: nobody at the other end has read any of these.
    pub(super) fn give_up(&mut self) -> impl Iterator<Item = (u64, Parcel)> {
        self.gone = 0;
        self.outgoing.drain(..)
    }

    /// Whether something waits for room to go out.
    pub(super) fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Sends what there is room for.
    ///
    /// Fails when nobody can read it any more. What had come before that can be received still.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while let Some((_, Parcel(bytes))) = self.outgoing.front() {
            let rest = &bytes[self.gone..];
            let sent =
                self.socket.attempt(Operation::Write, |socket| syscall::send(socket.as_fd(), rest));
            match sent {
                Ok(sent) if sent == rest.len() => {
                    self.gone = 0;
                    self.outgoing.pop_front();
                }
                Ok(sent) => {
                    self.gone += sent;
                    self.socket.exhaust(Direction::Write);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next frame, if all of it has come.
    pub(super) fn receive(&mut self) -> Result<Option<Frame>, Silence> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            match self.read() {
                Ok(0) => return Err(Silence::Ended),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // Whoever ends with something unread resets the connection.
                Err(_) => return Err(Silence::Ended),
            }
        }
    }

    /// Has the next [`receive`](Self::receive) ask the system, whatever the poller said last: for someone who knows better.
    pub(super) fn look_again(&mut self) {
        self.asks_anyway = true;
    }

    /// What to wait for before more can be received.
    pub(super) fn incoming(&self) -> io::Result<Interest> {
        self.socket.interest(Operation::Read)
    }

    /// What to wait for before more can be sent.
    pub(super) fn room(&self) -> io::Result<Interest> {
        self.socket.interest(Operation::Write)
    }

    /// Takes a frame off what has come.
    fn take(&mut self) -> Result<Option<Frame>, Silence> {
        let bytes = &self.incoming[self.taken..];
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        let Some(longer) = length.checked_sub(COUNTED) else {
            return Err(Silence::Garbage(format!("a frame of {length} bytes")));
        };
        if longer > self.limit {
            let limit = self.limit;
            return Err(Silence::Garbage(format!(
                "a message of {longer} bytes, when {limit} are the limit"
            )));
        }
        let Some((&kind, rest)) = rest.split_first() else { return Ok(None) };
        let Some(kind) = Kind::from_byte(kind) else {
            return Err(Silence::Garbage(format!("a frame of kind {kind}")));
        };
        let Some((number, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
        let Some(message) = rest.get(..longer) else { return Ok(None) };
        let frame = Frame { kind, number: u64::from_le_bytes(*number), message: message.to_vec() };
        self.taken += HEADER + longer;
        Ok(Some(frame))
    }

    /// Reads more of what has come.
    fn read(&mut self) -> io::Result<usize> {
        self.incoming.drain(..self.taken);
        self.taken = 0;
        if self.incoming.is_empty() && self.incoming.capacity() > CHUNK {
            // A large frame does not take its room for ever.
            self.incoming = Vec::new();
        }
        self.incoming.reserve(CHUNK);
        let room = self.incoming.capacity() - self.incoming.len();
        let incoming = &mut self.incoming;
        let mut receive = |socket: &UnixStream| {
            Ok(rustix::net::recv(socket, spare_capacity(incoming), RecvFlags::DONTWAIT)?.1)
        };
        let read = match mem::take(&mut self.asks_anyway) {
            true => receive(self.socket.io()),
            false => self.socket.attempt(Operation::Read, receive),
        }?;
        if 0 < read && read < room {
            self.socket.exhaust(Direction::Read);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::Write;
    use std::net::Shutdown;

    use pila_runtime::park::{self, Waiting};

    use super::*;
    use crate::first;

    fn pair(limit: usize) -> (Wire, Wire) {
        let (one, other) = UnixStream::pair().unwrap();
        (Wire::new(one, limit), Wire::new(other, limit))
    }

    fn parcel(bytes: &[u8]) -> Parcel {
        let write = |parcel: &mut Vec<u8>| {
            parcel.extend_from_slice(bytes);
            Ok::<(), Infallible>(())
        };
        Parcel::new(Kind::Request, write).unwrap()
    }

    fn wait(interest: io::Result<Interest>) {
        first::wait(&[interest.unwrap()], park::begin().unwrap(), Waiting::Worker, None).unwrap();
    }

    /// The frames that `raw` holds, and why no more came.
    fn received(raw: &[u8], limit: usize) -> (Vec<Frame>, Silence) {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        theirs.write_all(raw).unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        let mut wire = Wire::new(ours, limit);
        let mut frames = Vec::new();
        loop {
            match wire.receive() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => wait(wire.incoming()),
                Err(silence) => return (frames, silence),
            }
        }
    }

    #[test]
    fn frames_arrive_whole_and_in_order() {
        let (mut one, mut other) = pair(1 << 20);
        let messages = [vec![], vec![1], vec![2; 1000], vec![3; 1 << 20]];
        for (number, message) in (0..).zip(&messages) {
            one.push(number, parcel(message));
        }
        let sender = pila_runtime::tasklet(move || {
            while one.has_outgoing() {
                one.flush().unwrap();
                wait(one.room());
            }
        });
        let mut received = Vec::new();
        while received.len() < messages.len() {
            match other.receive().unwrap() {
                Some(frame) => {
                    assert_eq!((frame.kind, frame.number), (Kind::Request, received.len() as u64));
                    received.push(frame.message);
                }
                None => wait(other.incoming()),
            }
        }
        assert!(received == messages);
        sender.join().unwrap();
    }

    #[test]
    fn what_has_begun_to_go_out_cannot_be_taken_back() {
        let (mut one, _other) = pair(8 << 20);
        one.push(1, parcel(&vec![0; 8 << 20]));
        one.push(2, parcel(b"second"));
        one.push(3, parcel(b"third"));
        one.flush().unwrap();
        assert!(!one.retract(1));
        assert!(one.retract(2));
        assert!(!one.retract(2));
        assert_eq!(one.give_up().map(|(number, _)| number).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn the_other_sides_end_comes_after_its_last_frame() {
        let (mut one, mut other) = pair(100);
        one.push(7, parcel(b"last"));
        one.flush().unwrap();
        drop(one);
        assert_eq!(other.receive().unwrap().unwrap().message, b"last");
        wait(other.incoming());
        assert!(matches!(other.receive(), Err(Silence::Ended)));
        other.push(8, parcel(b"x"));
        assert!(other.flush().is_err());
    }

    #[test]
    fn garbage_is_told_from_frames() {
        let garbage = |raw: &[u8]| match received(raw, 100) {
            (frames, Silence::Garbage(what)) if frames.is_empty() => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(garbage(b"\x08\0\0\0"), "a frame of 8 bytes");
        assert_eq!(garbage(b"\x0a\0\0\0\x63"), "a frame of kind 99");
        assert_eq!(
            garbage(b"HTTP/1.1 200 OK"),
            "a message of 1347703871 bytes, when 100 are the limit"
        );
        assert_eq!(garbage(&[110, 0, 0, 0]), "a message of 101 bytes, when 100 are the limit");
    }

    #[test]
    fn a_frame_that_breaks_off_is_none() {
        let mut whole = parcel(b"message");
        whole.address(5);
        for end in 0..whole.0.len() {
            let (frames, silence) = received(&whole.0[..end], 100);
            assert!(frames.is_empty() && matches!(silence, Silence::Ended), "{end}");
        }
        assert_eq!(received(&whole.0, 100).0[0].number, 5);
    }

    #[test]
    fn texts_are_cut_between_letters() {
        let cut = |limit| Parcel::text(Kind::Panicked, "año", limit).0[HEADER..].to_vec();
        assert_eq!(cut(100), "año".as_bytes());
        assert_eq!(cut(2), b"a");
        assert_eq!(cut(3), "añ".as_bytes());
        assert_eq!(cut(0), b"");
    }
}
