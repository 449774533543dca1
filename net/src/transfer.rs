//! What streams have in common, and what sockets for datagrams have.
//!
//! - A read that finds bytes, or a write that finds room, costs one system call: no lock, no allocation.
//! - One that does less than it was asked says so to the source, which saves the call that would only say
//!   `WouldBlock`.
//! - A socket for datagrams that was shut for receiving gives empty ones for ever.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::task::{Context, Poll, ready};

use pila_runtime::park;
use rustix::net::SocketAddrAny;

use crate::readiness::Direction;
use crate::source::{Operation, Source};
use crate::standing::Standing;
use crate::syscall;

/// What std's streams have in common.
pub(crate) trait Stream: AsFd {
    /// Whether a read that gives less than it was asked for has emptied the socket.
    const SHORT_READ_EMPTIES: bool;
}

impl Stream for TcpStream {
    const SHORT_READ_EMPTIES: bool = true;
}

impl Stream for UnixStream {
    // A read ends behind bytes that descriptors came with, and where the sender's credentials change.
    const SHORT_READ_EMPTIES: bool = false;
}

/// The most buffers that the system takes in one call, as std has it on every system there is.
const MOST_BUFFERS: usize = 1024;

impl<S: Stream> Source<S> {
    #[inline]
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.receive_with(buffer.len(), |socket| syscall::receive(socket, buffer))
    }

    pub(crate) fn receive_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let count = buffers.len().min(MOST_BUFFERS);
        let buffers = &mut buffers[..count];
        match buffers.iter().map(|buffer| buffer.len()).sum() {
            0 => Ok(0),
            wanted => {
                self.receive_with(wanted, |socket| syscall::receive_vectored(socket, buffers))
            }
        }
    }

    #[inline]
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return syscall::send(self.as_fd(), bytes);
        }
        self.send_with(bytes.len(), |socket| syscall::send(socket, bytes))
    }

    pub(crate) fn send_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let buffers = &buffers[..buffers.len().min(MOST_BUFFERS)];
        match buffers.iter().map(|buffer| buffer.len()).sum() {
            0 => self.send(&[]),
            offered => self.send_with(offered, |socket| syscall::send_vectored(socket, buffers)),
        }
    }

    /// Receives for a task, which is woken when there may be more if there is nothing.
    pub(crate) fn poll_receive(
        &self,
        standing: &Standing,
        context: &Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let wanted = buffer.len();
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        let receive = |io: &S| syscall::receive(io.as_fd(), buffer);
        let received = ready!(self.poll(Operation::Read, standing, context, receive))?;
        self.has_received(received, wanted);
        Poll::Ready(Ok(received))
    }

    /// Sends for a task, which is woken when there may be room if there is none.
    pub(crate) fn poll_send(
        &self,
        standing: &Standing,
        context: &Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let buffers = &buffers[..buffers.len().min(MOST_BUFFERS)];
        let offered = buffers.iter().map(|buffer| buffer.len()).sum();
        if offered == 0 {
            return Poll::Ready(Ok(0));
        }
        let send = |io: &S| match buffers {
            [only] => syscall::send(io.as_fd(), only),
            _ => syscall::send_vectored(io.as_fd(), buffers),
        };
        let sent = ready!(self.poll(Operation::Write, standing, context, send))?;
        self.has_sent(sent, offered);
        Poll::Ready(Ok(sent))
    }

    #[inline]
    fn receive_with(
        &self,
        wanted: usize,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let received = self.run(Operation::Read, |io| call(io.as_fd()))?;
        self.has_received(received, wanted);
        Ok(received)
    }

    #[inline]
    fn has_received(&self, received: usize, wanted: usize) {
        spend_on(received);
        // Nothing at all is the end of the stream, which stays readable.
        if S::SHORT_READ_EMPTIES && 0 < received && received < wanted {
            self.exhaust(Direction::Read);
        }
    }

    #[inline]
    fn send_with(
        &self,
        offered: usize,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let sent = self.run(Operation::Write, |io| call(io.as_fd()))?;
        self.has_sent(sent, offered);
        Ok(sent)
    }

    #[inline]
    fn has_sent(&self, sent: usize, offered: usize) {
        spend_on(sent);
        if sent < offered {
            self.exhaust(Direction::Write);
        }
    }
}

/// Takes from the thread's stint what so many bytes cost beyond the call: a unit for each 8 KiB.
#[inline]
fn spend_on(bytes: usize) {
    park::spend((bytes >> 13) as u32);
}

/// Receiving datagrams.
impl<S: AsFd> Source<S> {
    pub(crate) fn receive_datagram(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let receive = |io: &S| syscall::receive(io.as_fd(), buffer);
        self.run_until_shut(Operation::Read, receive, || Ok(0))
    }

    pub(crate) fn peek_datagram(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let peek = |io: &S| syscall::peek(io.as_fd(), buffer);
        self.run_until_shut(Operation::Read, peek, || Ok(0))
    }

    /// As [`receive_datagram`](Self::receive_datagram), with the sender's address.
    pub(crate) fn receive_datagram_from(
        &self,
        buffer: &mut [u8],
    ) -> io::Result<(usize, Option<SocketAddrAny>)> {
        let receive = |io: &S| syscall::receive_from(io.as_fd(), buffer);
        self.run_until_shut(Operation::Read, receive, || Ok((0, None)))
    }

    /// As [`peek_datagram`](Self::peek_datagram), with the sender's address.
    pub(crate) fn peek_datagram_from(
        &self,
        buffer: &mut [u8],
    ) -> io::Result<(usize, Option<SocketAddrAny>)> {
        let peek = |io: &S| syscall::peek_from(io.as_fd(), buffer);
        self.run_until_shut(Operation::Read, peek, || Ok((0, None)))
    }

    /// Sends a datagram to whom the socket is connected to.
    pub(crate) fn send_datagram(&self, datagram: &[u8]) -> io::Result<usize> {
        self.run(Operation::Write, |io| syscall::send(io.as_fd(), datagram))
    }
}

/// Lets each of `$streams`, which has a source, be read from and written to, by reference or not.
macro_rules! reads_and_writes {
    ($($stream:ty),+) => {$(
        impl std::io::Read for $stream {
            #[inline]
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.source.receive(buf)
            }

            fn read_vectored(
                &mut self,
                bufs: &mut [std::io::IoSliceMut<'_>],
            ) -> std::io::Result<usize> {
                self.source.receive_vectored(bufs)
            }
        }

        impl std::io::Write for $stream {
            #[inline]
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                self.source.send(buf)
            }

            fn write_vectored(&mut self, bufs: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                self.source.send_vectored(bufs)
            }

            #[inline]
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
    )+};
}

pub(crate) use reads_and_writes;
