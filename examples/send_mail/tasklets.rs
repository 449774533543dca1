//! One tasklet for each mail, all on this thread. No lock: between two waits nobody else runs.

use std::{cell::Cell, io, rc::Rc, sync::Arc};

use pila::net::TcpStream;

use crate::post::{Post, send_mail};

pub(crate) fn run(post: &Arc<Post>) -> io::Result<u32> {
    let sent = Rc::new(Cell::new(0));
    for number in post.numbers() {
        let (post, sent) = (post.clone(), sent.clone());
        pila::tasklet(move || {
            if send_mail::<TcpStream>(&post, number) {
                sent.set(sent.get() + 1);
            }
        });
    }
    pila::run();
    Ok(sent.get())
}
