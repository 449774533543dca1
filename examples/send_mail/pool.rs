//! A hundred threads, however many mails there are: each takes the next one from a common list, which has a lock.

use std::{
    io,
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    thread::{self, Builder},
};

use crate::post::{Post, send_mail};

const THREADS: usize = 100;

pub(crate) fn run(post: &Arc<Post>) -> io::Result<u32> {
    let mails = Mutex::new(post.numbers());
    let sent = AtomicU32::new(0);
    let next = || mails.lock().expect("no holder panics").next();
    let work = || {
        while let Some(number) = next() {
            if send_mail::<TcpStream>(post, number) {
                sent.fetch_add(1, Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        (0..THREADS).try_for_each(|_| Builder::new().spawn_scoped(scope, work).map(drop))
    })?;
    Ok(sent.into_inner())
}
