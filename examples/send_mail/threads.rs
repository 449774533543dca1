//! One thread for each mail, and a count that all of them raise without a lock.

use std::{
    io,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    thread::Builder,
};

use crate::post::{Post, send_mail};

pub(crate) fn run(post: &Arc<Post>) -> io::Result<u32> {
    let sent = Arc::new(Count::default());
    let mut threads = Vec::new();
    for number in post.numbers() {
        let (theirs, post_office) = (sent.clone(), post.clone());
        let thread = Builder::new().spawn(move || {
            if send_mail::<TcpStream>(&post_office, number) {
                theirs.add_one();
            }
        });
        match thread {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                post.cannot_go_on(format!("can't start new thread: {error}"));
                break;
            }
        }
    }
    threads.into_iter().for_each(|thread| thread.join().expect("no mail panics"));
    Ok(sent.get())
}

/// A number that all threads may change at any time.
#[derive(Default)]
pub(crate) struct Count(AtomicU32);

impl Count {
    /// What `sent += 1` is: a load, an addition and a store, between which other threads may do the same.
    pub(crate) fn add_one(&self) {
        let sent = self.0.load(Relaxed);
        self.0.store(sent + 1, Relaxed);
    }

    pub(crate) fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }
}
