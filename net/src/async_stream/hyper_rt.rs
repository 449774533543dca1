//! The traits of `hyper::rt`.
//!
//! - hyper's buffers are filled by safe code only with what is in memory already. So a read goes to a buffer of the thread
//!   first. A read that comes in between, while this one waits for a descriptor or drops a waker, has one of its own.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};

use super::{AsyncStream, PollStream};

/// The most that is read at once.
const CHUNK: usize = 64 * 1024;

thread_local! {
    /// As long as the longest read so far.
    static CHUNK_OF_THREAD: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl<S: PollStream + Unpin> Read for AsyncStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let length = buffer.remaining().min(CHUNK);
        let mut chunk = CHUNK_OF_THREAD.try_with(Cell::take).unwrap_or_default();
        if chunk.len() < length {
            chunk.resize(length, 0);
        }
        let received = AsyncStream::poll_read(&self, context, &mut chunk[..length]);
        if let Poll::Ready(Ok(count)) = received {
            buffer.put_slice(&chunk[..count]);
        }
        CHUNK_OF_THREAD.try_with(|place| place.set(chunk)).ok();
        received.map_ok(drop)
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write as _;
    use std::sync::{Arc, Mutex};
    use std::task::{Wake, Waker, ready};

    use hyper::rt::ReadBuf;
    use pila_runtime::block_on;

    use super::*;
    use crate::UnixStream;

    fn poll(
        stream: &mut AsyncStream<UnixStream>,
        context: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(bytes);
        ready!(Read::poll_read(Pin::new(stream), context, buffer.unfilled()))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// A waker whose destructor reads from another stream.
    struct Meddles(Mutex<AsyncStream<UnixStream>>);

    impl Wake for Meddles {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for Meddles {
        fn drop(&mut self) {
            let (stream, mut bytes) = (self.0.get_mut().unwrap(), [0; 8]);
            let count = block_on(poll_fn(|context| poll(stream, context, &mut bytes)));
            assert_eq!(&bytes[..count.unwrap()], b"other");
        }
    }

    #[test]
    fn one_read_may_go_on_within_another() {
        let (mine, mut peer) = UnixStream::pair().unwrap();
        let (other, mut other_peer) = UnixStream::pair().unwrap();
        other_peer.write_all(b"other").unwrap();
        let mut stream = AsyncStream::new(mine);
        let meddles = Meddles(Mutex::new(AsyncStream::new(other)));
        let mut first = Some(Waker::from(Arc::new(meddles)));
        let mut bytes = [0; 8];
        let count = block_on(poll_fn(|context| {
            if let Some(first) = first.take() {
                let context = &mut Context::from_waker(&first);
                assert!(poll(&mut stream, context, &mut bytes).is_pending());
            }
            // The stream has the last of the first waker, and drops it here.
            let polled = poll(&mut stream, context, &mut bytes);
            if polled.is_pending() {
                peer.write_all(b"mine").unwrap();
            }
            polled
        }));
        assert_eq!(&bytes[..count.unwrap()], b"mine");
    }
}
