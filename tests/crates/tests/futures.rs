//! What the async ecosystem waits with, in `block_on`: combinators, channels, locks, and streams of bytes.
//!
//! crate: futures | how: `pila::block_on`; its `AsyncRead` and `AsyncWrite` over `pila::net::AsyncStream`, feature `futures-io`
//! crate: async-channel | how: `pila::block_on`, between tasklets and threads
//! crate: tokio | how: `tokio::sync` in `pila::block_on`; `tokio::io` over `pila::net::AsyncStream`, feature `tokio-io`. No runtime

use std::{
    cell::Cell,
    future::poll_fn,
    io::{Read, Write},
    rc::Rc,
    sync::Arc,
    thread,
    time::Duration,
};

use books::balanced;
use futures::{
    AsyncReadExt, AsyncWriteExt, FutureExt, SinkExt, StreamExt, channel::mpsc, join, pin_mut,
    select, stream::FuturesUnordered,
};
use pila::{
    block_on,
    net::{AsyncStream, TcpListener, TcpStream, UnixStream},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt as _, BufReader},
    sync::{Mutex, Notify, RwLock, Semaphore, broadcast, oneshot, watch},
};

mod books;
#[path = "../../system/mod.rs"]
mod system;

const LIMIT: Duration = Duration::from_secs(60);

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Sends from a thread of its own, some time later.
#[allow(clippy::disallowed_methods, reason = "a thread that has no tasklets")]
fn from_a_thread<T: Send + 'static>(value: T) -> oneshot::Receiver<T> {
    let (sender, receiver) = oneshot::channel();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(3));
        sender.send(value).ok();
    });
    receiver
}

#[test]
fn join_and_select_wait_for_threads_tasklets_and_sockets_at_once() {
    balanced(LIMIT, || {
        let (mine, mut peer) = pair();
        let (sender, receiver) = oneshot::channel();
        pila::tasklet(move || {
            pila::sleep(Duration::from_millis(1));
            peer.write_all(b"hello").unwrap();
            sender.send("from a tasklet").unwrap();
        });
        let mut stream = AsyncStream::new(mine);
        let mut all = Vec::new();
        let (bytes, tasklet, thread) = block_on(async {
            join!(
                AsyncReadExt::read_to_end(&mut stream, &mut all),
                receiver,
                from_a_thread("from a thread")
            )
        });
        assert_eq!((bytes.unwrap(), tasklet.unwrap()), (5, "from a tasklet"));
        assert_eq!(thread.unwrap(), "from a thread");

        // The loser of a select is dropped, and loses nothing that it did not take.
        let (mine, mut peer) = pair();
        let mut stream = AsyncStream::new(mine);
        let first = block_on(async {
            let mut buffer = [0; 8];
            let read = AsyncReadExt::read(&mut stream, &mut buffer).fuse();
            let thread = from_a_thread("thread").fuse();
            pin_mut!(read, thread);
            select! {
                _ = read => "socket",
                name = thread => name.unwrap(),
            }
        });
        assert_eq!(first, "thread");
        peer.write_all(b"hello").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(block_on(AsyncReadExt::read(&mut stream, &mut buffer)).unwrap(), 5);
    });
}

#[test]
fn a_thousand_futures_of_one_call_are_polled_when_their_own_socket_has_news() {
    balanced(LIMIT, || {
        const FUTURES: usize = 1_000;
        let (mut tasks, mut peers) = (FuturesUnordered::new(), Vec::new());
        let polls = Rc::new(Cell::new(0));
        for number in 0..FUTURES {
            let (mine, peer) = UnixStream::pair().unwrap();
            let (stream, polls) = (AsyncStream::new(mine), polls.clone());
            tasks.push(poll_fn(move |context| {
                polls.set(polls.get() + 1);
                stream.poll_read(context, &mut [0; 1]).map(|read| (number, read.unwrap()))
            }));
            peers.push(peer);
        }
        let writer = pila::tasklet(move || {
            for (number, peer) in peers.iter_mut().enumerate().rev() {
                peer.write_all(b"x").unwrap();
                if number % 50 == 0 {
                    pila::sleep(Duration::from_millis(1));
                }
            }
        });
        let mut ended: Vec<_> = block_on(tasks.by_ref().collect());
        ended.sort_unstable();
        assert!(ended.into_iter().eq((0..FUTURES).map(|number| (number, 1))));
        // Each a first time, perhaps once more when it is registered, and when its byte is there.
        assert!(polls.get() <= 4 * FUTURES, "{polls:?}");
        writer.join().unwrap();
    });
}

#[test]
fn an_unfinished_set_of_futures_goes_on_in_another_call_and_on_another_thread() {
    balanced(LIMIT, || {
        let (mut tasks, mut peers) = (FuturesUnordered::new(), Vec::new());
        for _ in 0..10 {
            let (mine, peer) = pair();
            let mut stream = AsyncStream::new(mine);
            tasks.push(async move {
                let mut byte = [0; 1];
                AsyncReadExt::read_exact(&mut stream, &mut byte).await.unwrap();
            });
            peers.push(peer);
        }
        peers[0].write_all(b"x").unwrap();
        block_on(tasks.next()).unwrap();
        let late = pila::timeout(Duration::from_millis(1), || block_on(tasks.next()));
        late.unwrap_err();
        peers[1].write_all(b"x").unwrap();
        block_on(tasks.next()).unwrap();
        let there = thread::spawn(move || block_on(tasks.collect::<Vec<_>>()).len());
        pila::sleep(Duration::from_millis(2));
        peers[2..].iter_mut().for_each(|peer| peer.write_all(b"x").unwrap());
        assert_eq!(there.join().unwrap(), 8);
    });
}

#[test]
fn channels_of_async_crates_join_tasklets_and_threads() {
    balanced(LIMIT, || {
        const MESSAGES: u64 = 500;
        let (sender, receiver) = async_channel::bounded(3);
        let (mut futures_sender, mut futures_receiver) = mpsc::channel(2);
        for _ in 0..4 {
            let sender = sender.clone();
            pila::tasklet(move || (1..=MESSAGES).for_each(|n| block_on(sender.send(n)).unwrap()));
        }
        let threads = [(); 2].map(|()| {
            let sender = sender.clone();
            thread::spawn(move || (1..=MESSAGES).for_each(|n| sender.send_blocking(n).unwrap()))
        });
        drop(sender);
        // Forwards, as a stage between two channels.
        pila::tasklet(move || {
            block_on(async {
                while let Ok(message) = receiver.recv().await {
                    futures_sender.send(message).await.unwrap();
                }
            });
        });
        let sum: u64 = block_on(async {
            let mut sum = 0;
            while let Some(message) = futures_receiver.next().await {
                sum += message;
            }
            sum
        });
        assert_eq!(sum, 6 * MESSAGES * (MESSAGES + 1) / 2);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn tokios_locks_and_channels_work_between_tasklets_and_threads() {
    balanced(LIMIT, || {
        let mutex = Arc::new(Mutex::new(0));
        let semaphore = Arc::new(Semaphore::new(2));
        let (at_once, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        for _ in 0..50 {
            let (mutex, semaphore) = (mutex.clone(), semaphore.clone());
            let (at_once, most) = (at_once.clone(), most.clone());
            pila::tasklet(move || {
                let permit = block_on(semaphore.acquire()).unwrap();
                at_once.set(at_once.get() + 1);
                most.set(most.get().max(at_once.get()));
                let mut guard = block_on(mutex.lock());
                // Held across a wait, which a lock of std must not be.
                pila::schedule();
                *guard += 1;
                at_once.set(at_once.get() - 1);
                drop((guard, permit));
            });
        }
        let theirs = mutex.clone();
        let thread = thread::spawn(move || (0..50).for_each(|_| *theirs.blocking_lock() += 1));
        pila::run();
        thread.join().unwrap();
        assert_eq!((*block_on(mutex.lock()), most.get()), (100, 2));

        let shared = RwLock::new(7);
        assert_eq!(*block_on(shared.read()), 7);
        *block_on(shared.write()) = 8;
        let (sender, mut receiver) = watch::channel(0);
        let (news, mut heard) = broadcast::channel(4);
        let bell = Arc::new(Notify::new());
        let rung = bell.clone();
        thread::spawn(move || {
            sender.send(1).unwrap();
            news.send("news").unwrap();
            rung.notify_one();
        });
        block_on(receiver.changed()).unwrap();
        assert_eq!((*receiver.borrow(), block_on(heard.recv()).unwrap()), (1, "news"));
        block_on(bell.notified());
    });
}

#[test]
fn a_sender_that_is_dropped_ends_the_wait_of_its_receiver() {
    balanced(LIMIT, || {
        let (sender, receiver) = oneshot::channel::<()>();
        thread::spawn(move || drop(sender));
        block_on(receiver).unwrap_err();
        let (sender, receiver) = async_channel::unbounded::<()>();
        let killed = pila::tasklet(move || {
            pila::schedule_remove();
            drop(sender);
        });
        pila::schedule();
        let waits = pila::tasklet(move || block_on(receiver.recv()));
        pila::schedule();
        killed.kill().unwrap();
        waits.join().unwrap().unwrap_err();
    });
}

#[test]
fn tokios_and_futures_readers_and_writers_work_over_pila_streams() {
    balanced(LIMIT, || {
        let (mine, peer) = pair();
        let echo = pila::tasklet(move || {
            let stream = AsyncStream::new(peer);
            // The halves share the stream, and are polled in turns.
            let (mut reads, mut writes) = tokio::io::split(stream);
            let copied = block_on(tokio::io::copy(&mut reads, &mut writes)).unwrap();
            block_on(writes.shutdown()).unwrap();
            copied
        });
        let (reads, mut writes) = tokio::io::split(AsyncStream::new(mine));
        let writer = pila::tasklet(move || {
            block_on(async {
                for number in 0..5_000 {
                    writes.write_all(format!("line {number}\n").as_bytes()).await.unwrap();
                }
                writes.shutdown().await.unwrap();
            });
        });
        let mut lines = BufReader::new(reads).lines();
        for number in 0..5_000 {
            let line = block_on(lines.next_line()).unwrap();
            assert_eq!(line.unwrap(), format!("line {number}"));
        }
        assert!(block_on(lines.next_line()).unwrap().is_none());
        writer.join().unwrap();
        assert!(echo.join().unwrap() > 40_000);

        let (mine, mut peer) = pair();
        let (reads, mut writes) = AsyncReadExt::split(AsyncStream::new(mine));
        let reader = pila::tasklet(move || {
            let mut text = String::new();
            peer.read_to_string(&mut text).unwrap();
            text
        });
        block_on(AsyncWriteExt::write_all(&mut writes, b"hello")).unwrap();
        block_on(AsyncWriteExt::close(&mut writes)).unwrap();
        assert_eq!(reader.join().unwrap(), "hello");
        drop(reads);
        // tokio's trait reads into what was not initialised.
        let (mine, mut peer) = pair();
        peer.write_all(&[7; 10_000]).unwrap();
        drop(peer);
        let (mut stream, mut all) = (AsyncStream::new(mine), Vec::new());
        let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut all);
        assert_eq!(block_on(read).unwrap(), 10_000);
        assert_eq!(all, [7; 10_000]);
    });
}
