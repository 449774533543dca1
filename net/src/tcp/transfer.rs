//! Reading from and writing to a [`TcpStream`].
//!
//! - A read that finds bytes, or a write that finds room, costs one system call: no lock, no allocation.
//! - One that does less than it was asked says so to the source, which saves the call that would only say
//!   `WouldBlock`.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use super::TcpStream;
use crate::readiness::Direction;
use crate::source::Operation;
use crate::syscall;

impl TcpStream {
    fn receive(
        &self,
        wanted: usize,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let received = self.source.run(Operation::Read, |io| call(io.as_fd()))?;
        // Nothing at all is the end of the stream, which stays readable.
        if 0 < received && received < wanted {
            self.source.exhaust(Direction::Read);
        }
        Ok(received)
    }

    fn send(
        &self,
        offered: usize,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let sent = self.source.run(Operation::Write, |io| call(io.as_fd()))?;
        if sent < offered {
            self.source.exhaust(Direction::Write);
        }
        Ok(sent)
    }
}

impl Read for &TcpStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.receive(buf.len(), |socket| syscall::receive(socket, buf))
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let wanted = bufs.iter().map(|buf| buf.len()).sum();
        self.receive(wanted, |socket| syscall::receive_vectored(socket, bufs))
    }
}

impl Read for TcpStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

impl Write for &TcpStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.send(buf.len(), |socket| syscall::send(socket, buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let offered = bufs.iter().map(|buf| buf.len()).sum();
        self.send(offered, |socket| syscall::send_vectored(socket, bufs))
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for TcpStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
