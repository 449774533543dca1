//! One thread for each mail, and a lock around the count.

use std::{
    io,
    net::TcpStream,
    sync::{Arc, Mutex},
    thread::Builder,
};

use crate::post::{Post, send_mail};

pub(crate) fn run(post: &Arc<Post>) -> io::Result<u32> {
    let sent = Arc::new(Mutex::new(0));
    let mut threads = Vec::new();
    for number in post.numbers() {
        let (theirs, post_office) = (sent.clone(), post.clone());
        let thread = Builder::new().spawn(move || {
            if send_mail::<TcpStream>(&post_office, number) {
                *theirs.lock().expect("no holder panics") += 1;
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
    let sent = sent.lock().expect("no holder panics");
    Ok(*sent)
}
