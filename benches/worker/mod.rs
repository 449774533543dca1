//! A thread that does the work of one row, so that each row starts with a scheduler and with stacks of its own.

use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

/// The thread. It ends when this is dropped.
pub(crate) struct Worker {
    /// Hung up, with `None`, to end the thread.
    rounds: Option<Sender<u64>>,
    times: Receiver<Duration>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Calls `prepare` on a new thread; what that gives does a number of rounds and says how long they took.
    pub(crate) fn start<M: FnMut(u64) -> Duration>(
        prepare: impl FnOnce() -> M + Send + 'static,
    ) -> Worker {
        let (rounds, asked) = mpsc::channel();
        let (answer, times) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut measure = prepare();
            for rounds in asked {
                answer.send(measure(rounds)).expect("whoever asks waits for the answer");
            }
        });
        Worker { rounds: Some(rounds), times, thread: Some(thread) }
    }

    /// The time of so many rounds.
    pub(crate) fn measure(&self, rounds: u64) -> Duration {
        let asked = self.rounds.as_ref().expect("only drop hangs up");
        asked.send(rounds).expect("the worker lives until it is dropped");
        self.times.recv().expect("the worker has not panicked")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.rounds = None;
        let thread = self.thread.take().expect("a worker is dropped once");
        thread.join().expect("the worker has not panicked");
    }
}
