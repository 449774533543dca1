//! `AsyncStream`: what async code polls is pending instead of waiting, and is woken when there is news.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io::{ErrorKind, IoSlice, Read, Write},
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use net_support::{FLOOD, again_portably, bounded, pair, pair_with_std};
use pila::{
    JoinError, block_on,
    net::{AsyncStream, PollStream, UnixStream},
    try_block_on,
};

mod net_support;

async fn read<S: PollStream>(stream: &AsyncStream<S>, buffer: &mut [u8]) -> std::io::Result<usize> {
    poll_fn(|context| stream.poll_read(context, buffer)).await
}

async fn read_all<S: PollStream>(stream: &AsyncStream<S>) -> std::io::Result<Vec<u8>> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match read(stream, &mut buffer).await? {
            0 => return Ok(all),
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
}

async fn write_all<S: PollStream>(
    stream: &AsyncStream<S>,
    mut bytes: &[u8],
) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let count = poll_fn(|context| stream.poll_write(context, bytes)).await?;
        bytes = &bytes[count..];
    }
    Ok(())
}

/// Polls two futures until both are ready, whoever was woken.
async fn both<A: Future, B: Future>(first: A, second: B) -> (A::Output, B::Output) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut one, mut two) = (None, None);
    poll_fn(|context| {
        if one.is_none()
            && let Poll::Ready(output) = first.as_mut().poll(context)
        {
            one = Some(output);
        }
        if two.is_none()
            && let Poll::Ready(output) = second.as_mut().poll(context)
        {
            two = Some(output);
        }
        match one.is_some() && two.is_some() {
            true => Poll::Ready((one.take().unwrap(), two.take().unwrap())),
            false => Poll::Pending,
        }
    })
    .await
}

#[test]
fn a_read_that_would_wait_is_pending_and_lets_others_run() {
    bounded(|| {
        let (mine, mut peer) = pair();
        let turns = Rc::new(Cell::new(0));
        let counted = turns.clone();
        let busy = pila::tasklet(move || {
            loop {
                counted.set(counted.get() + 1);
                pila::schedule();
            }
        });
        let writer = pila::tasklet(move || {
            pila::sleep(Duration::from_millis(5));
            peer.write_all(b"hello").unwrap();
        });
        let stream = AsyncStream::new(mine);
        assert_eq!(block_on(read_all(&stream)).unwrap(), b"hello");
        assert!(turns.get() > 10);
        busy.kill().unwrap();
        writer.join().unwrap();
    });
}

#[test]
fn one_tasklet_polls_many_streams_and_each_wakes_it() {
    bounded(|| {
        let (first, mut first_peer) = pair();
        let (second, mut second_peer) = UnixStream::pair().unwrap();
        let (first, second) = (AsyncStream::new(first), AsyncStream::new(second));
        pila::tasklet(move || {
            for round in 0..10_u8 {
                pila::sleep(Duration::from_micros(300));
                second_peer.write_all(&[round]).unwrap();
                pila::sleep(Duration::from_micros(300));
                first_peer.write_all(&[round]).unwrap();
            }
        });
        let (one, two) = block_on(both(read_all(&first), read_all(&second)));
        assert_eq!((one.unwrap(), two.unwrap()), ((0..10).collect(), (0..10).collect()));
    });
}

#[test]
fn a_write_is_pending_while_there_is_no_room() {
    bounded(|| {
        let (mine, mut peer) = pair();
        let reader = pila::tasklet(move || {
            pila::sleep(Duration::from_millis(2));
            let mut all = Vec::new();
            peer.read_to_end(&mut all).map(|_| all.len())
        });
        let stream = AsyncStream::new(mine);
        block_on(write_all(&stream, &vec![7; FLOOD])).unwrap();
        let parts = [IoSlice::new(b"some "), IoSlice::new(b"more")];
        let written = block_on(poll_fn(|context| stream.poll_write_vectored(context, &parts)));
        assert_eq!(written.unwrap(), 9);
        stream.shut_down().unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), FLOOD + 9);
    });
}

#[test]
fn both_directions_of_one_stream_wait_in_two_tasklets() {
    bounded(|| {
        let (mine, mut peer) = pair();
        let stream = Rc::new(AsyncStream::new(mine));
        let (reads, writes) = (stream.clone(), stream.clone());
        let reader = pila::tasklet(move || block_on(read_all(&reads)).unwrap());
        let writer = pila::tasklet(move || {
            block_on(write_all(&writes, &vec![7; FLOOD])).unwrap();
            writes.shut_down().unwrap();
        });
        // The writer lets others run now and then, before there is no room any more.
        while !(reader.is_blocked() && writer.is_blocked()) {
            pila::sleep(Duration::from_micros(100));
        }
        peer.write_all(b"hello").unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), FLOOD);
        drop(peer);
        writer.join().unwrap();
        assert_eq!(reader.join().unwrap(), b"hello");
    });
}

/// A waker of an executor's own, which remembers where it was woken.
#[derive(Default)]
struct Marked {
    woken: AtomicBool,
    by: Mutex<Option<u64>>,
    outer: Mutex<Option<Waker>>,
}

impl Wake for Marked {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        *self.by.lock().unwrap() = Some(pila::current().id().get());
        let outer = self.outer.lock().unwrap().take();
        if let Some(outer) = outer {
            outer.wake();
        }
    }
}

/// An executor of one task, which it polls only when its own waker was woken: so a wake-up that is lost shows.
struct Strict<F> {
    task: Pin<Box<F>>,
    mark: Arc<Marked>,
    polls: usize,
}

impl<F: Future> Strict<F> {
    fn new(task: F) -> Self {
        let mark = Arc::new(Marked::default());
        mark.woken.store(true, Ordering::Release);
        Self { task: Box::pin(task), mark, polls: 0 }
    }
}

impl<F: Future> Future for Strict<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        *self.mark.outer.lock().unwrap() = Some(context.waker().clone());
        while self.mark.woken.swap(false, Ordering::AcqRel) {
            self.polls += 1;
            let waker = Waker::from(self.mark.clone());
            if let Poll::Ready(output) = self.task.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    }
}

#[test]
fn the_waker_of_another_executor_is_woken_on_the_tasklet_that_polls() {
    bounded(|| {
        let (mine, mut peer) = pair();
        let polls = pila::tasklet(move || {
            let stream = AsyncStream::new(mine);
            let mut strict = Strict::new(async move { read_all(&stream).await.unwrap() });
            let mark = strict.mark.clone();
            let all = block_on(&mut strict);
            assert_eq!(*mark.by.lock().unwrap(), Some(pila::current().id().get()));
            (all, strict.polls)
        });
        pila::schedule();
        peer.write_all(b"hello").unwrap();
        drop(peer);
        let (all, count) = polls.join().unwrap();
        assert_eq!(all, b"hello");
        assert!(count <= 4, "polled {count} times");
    });
}

#[test]
fn a_task_that_one_call_has_polled_is_woken_in_the_next() {
    bounded(|| {
        let (mine, mut peer) = pair();
        let stream = AsyncStream::new(mine);
        let mut strict = Strict::new(async move { read_all(&stream).await.unwrap() });
        // Polled there, and not done when the call is.
        block_on(poll_fn(|context| {
            assert!(Pin::new(&mut strict).poll(context).is_pending());
            Poll::Ready(())
        }));
        let late = pila::timeout(Duration::from_millis(1), || block_on(&mut strict));
        late.unwrap_err();
        pila::tasklet(move || {
            pila::sleep(Duration::from_millis(1));
            peer.write_all(b"hello").unwrap();
        });
        assert_eq!(block_on(&mut strict), b"hello");
    });
}

#[test]
fn a_stream_moves_to_another_thread_between_two_polls() {
    bounded(|| {
        let (mine, mut peer) = pair_with_std();
        let stream = AsyncStream::new(mine);
        let mut strict = Strict::new(async move { read_all(&stream).await.unwrap() });
        let late = pila::timeout(Duration::from_millis(1), || block_on(&mut strict));
        late.unwrap_err();
        let there = thread::spawn(move || block_on(&mut strict));
        pila::sleep(Duration::from_millis(2));
        peer.write_all(b"hello").unwrap();
        drop(peer);
        assert_eq!(there.join().unwrap(), b"hello");
    });
}

#[test]
fn threads_poll_the_two_directions_of_one_stream() {
    bounded(|| {
        let (mine, peer) = pair_with_std();
        let stream = Arc::new(AsyncStream::new(mine));
        let reads = stream.clone();
        let reader = thread::spawn(move || block_on(read_all(&reads)).unwrap());
        let echo = thread::spawn(move || std::io::copy(&mut &peer, &mut &peer));
        block_on(write_all(&stream, &vec![7; FLOOD])).unwrap();
        stream.shut_down().unwrap();
        assert_eq!(echo.join().unwrap().unwrap(), FLOOD as u64);
        assert_eq!(reader.join().unwrap().len(), FLOOD);
    });
}

#[test]
fn a_kill_and_a_timeout_end_a_poll_and_the_stream_goes_on() {
    bounded(|| {
        let (mine, mut peer) = pair();
        let stream = Rc::new(AsyncStream::new(mine));
        let theirs = stream.clone();
        let victim = pila::tasklet(move || block_on(read_all(&theirs)));
        pila::schedule();
        victim.kill().unwrap();
        assert!(matches!(victim.join(), Err(JoinError::Killed)));
        let late = pila::timeout(Duration::from_millis(1), || block_on(read_all(&stream)));
        late.unwrap_err();
        peer.write_all(b"hello").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(block_on(read(&stream, &mut buffer)).unwrap(), 5);
        // Back to calls that wait.
        let mut stream = Rc::into_inner(stream).unwrap().into_inner();
        peer.write_all(b"!").unwrap();
        stream.read_exact(&mut buffer[..1]).unwrap();
        assert_eq!(buffer[0], b'!');
    });
}

#[test]
fn the_end_of_a_stream_and_a_reset_are_told() {
    bounded(|| {
        let (mine, peer) = pair_with_std();
        let stream = AsyncStream::new(mine);
        let reader = pila::tasklet(move || block_on(read_all(&stream)));
        pila::schedule();
        rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
        drop(peer);
        let error = reader.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let (mine, peer) = pair();
        drop(peer);
        assert_eq!(block_on(read(&AsyncStream::new(mine), &mut [0; 8])).unwrap(), 0);
    });
}

#[test]
fn outside_of_any_call_what_would_wait_is_an_error() {
    let (mine, mut peer) = pair();
    let stream = AsyncStream::new(mine);
    let mut context = Context::from_waker(Waker::noop());
    let mut buffer = [0; 8];
    let Poll::Ready(Err(error)) = stream.poll_read(&mut context, &mut buffer) else {
        panic!("nobody could wake it")
    };
    assert!(error.to_string().contains("outside of pila::block_on"), "{error}");
    // What need not wait is done.
    assert!(matches!(stream.poll_write(&mut context, b"hello"), Poll::Ready(Ok(5))));
    peer.read_exact(&mut buffer[..5]).unwrap();
    assert_eq!(&buffer[..5], b"hello");
}

#[test]
fn a_stream_that_is_closed_while_its_reader_waits_is_no_hang() {
    bounded(|| {
        let (mine, _peer) = pair();
        let stream = Rc::new(Cell::new(Some(AsyncStream::new(mine))));
        let theirs = stream.clone();
        let closer = pila::tasklet(move || {
            pila::sleep(Duration::from_millis(1));
            drop(theirs.take());
        });
        let ended = try_block_on(poll_fn(|context| {
            let Some(open) = stream.take() else { return Poll::Ready("it is closed") };
            assert!(open.poll_read(context, &mut [0; 8]).is_pending());
            stream.set(Some(open));
            Poll::Pending
        }));
        assert_eq!(ended.unwrap(), "it is closed");
        closer.join().unwrap();
    });
}

#[test]
fn a_stream_that_is_always_ready_starves_nobody() {
    bounded(|| {
        let (mine, peer) = pair_with_std();
        let flood = thread::spawn(move || while (&peer).write_all(&[7; 1 << 16]).is_ok() {});
        let ticks = Rc::new(Cell::new(0));
        let counted = ticks.clone();
        let clock = pila::tasklet(move || {
            for _ in 0..20 {
                pila::sleep(Duration::from_micros(500));
                counted.set(counted.get() + 1);
            }
        });
        let stream = AsyncStream::new(mine);
        block_on(async {
            // Byte by byte: there is always another one.
            while ticks.get() < 20 {
                assert_eq!(read(&stream, &mut [0; 1]).await.unwrap(), 1);
            }
        });
        clock.join().unwrap();
        drop(stream);
        flood.join().unwrap();
    });
}

#[test]
fn the_tasks_of_one_call_are_polled_only_when_their_stream_is_ready() {
    bounded(|| {
        const PAIRS: usize = 200;
        let polls = Arc::new(AtomicUsize::new(0));
        let (mut tasks, mut peers) = (Vec::new(), Vec::new());
        for _ in 0..PAIRS {
            let (mine, peer) = UnixStream::pair().unwrap();
            let (stream, counted) = (AsyncStream::new(mine), polls.clone());
            let mut buffer = [0; 8];
            tasks.push(Some(Strict::new(poll_fn(move |context| {
                counted.fetch_add(1, Ordering::Relaxed);
                stream.poll_read(context, &mut buffer)
            }))));
            peers.push(peer);
        }
        pila::tasklet(move || {
            for (number, mut peer) in peers.into_iter().enumerate() {
                if number % 10 == 0 {
                    pila::sleep(Duration::from_micros(100));
                }
                peer.write_all(b"x").unwrap();
            }
        });
        block_on(poll_fn(|context| {
            for place in &mut tasks {
                if let Some(task) = place
                    && Pin::new(task).poll(context).is_ready()
                {
                    *place = None;
                }
            }
            if tasks.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
        }));
        assert!(polls.load(Ordering::Relaxed) <= 3 * PAIRS, "{polls:?}");
    });
}

/// A waker whose destructor does what it has, and waits.
struct Meddles(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for Meddles {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Meddles {
    fn drop(&mut self) {
        if let Some(meddle) = self.0.get_mut().unwrap().take() {
            meddle();
            pila::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn news_that_come_while_a_waker_is_dropped_are_not_lost() {
    bounded(|| {
        let (mine, mut peer) = pair_with_std();
        let stream = AsyncStream::new(mine);
        let write = move || peer.write_all(b"hello").unwrap();
        let mut first = Some(Waker::from(Arc::new(Meddles(Mutex::new(Some(Box::new(write)))))));
        let mut buffer = [0; 8];
        let count = block_on(poll_fn(|context| {
            if let Some(first) = first.take() {
                let pending = stream.poll_read(&mut Context::from_waker(&first), &mut buffer);
                assert!(pending.is_pending());
            }
            // Only the stream has the first waker now, and has it no longer when this is done.
            stream.poll_read(context, &mut buffer)
        }));
        assert_eq!(&buffer[..count.unwrap()], b"hello");
    });
}

#[test]
fn all_of_it_works_portably() {
    again_portably();
}
