//! The traits of `hyper::rt`.
//!
//! - hyper's buffers are filled by safe code only with what is in memory already. So a read goes to a buffer of the thread
//!   first, which no other call can want before it is copied: nothing in between waits.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};

use super::{AsyncStream, PollStream};

/// The most that is read at once.
const CHUNK: usize = 64 * 1024;

thread_local! {
    /// As long as the longest read so far.
    static CHUNK_OF_THREAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl<S: PollStream + Unpin> Read for AsyncStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let length = buffer.remaining().min(CHUNK);
        CHUNK_OF_THREAD.with_borrow_mut(|chunk| {
            if chunk.len() < length {
                chunk.resize(length, 0);
            }
            let chunk = &mut chunk[..length];
            let count = ready!(AsyncStream::poll_read(&self, context, chunk))?;
            buffer.put_slice(&chunk[..count]);
            Poll::Ready(Ok(()))
        })
    }
}

impl<S: PollStream + Unpin> Write for AsyncStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncStream::poll_write(&self, context, buffer)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        AsyncStream::poll_write_vectored(&self, context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shut_down())
    }
}
