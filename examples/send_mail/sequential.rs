//! One after the other. Nothing can go wrong, and nearly all of the time is spent waiting.

use std::{io, net::TcpStream, sync::Arc};

use crate::post::{Post, send_mail};

pub(crate) fn run(post: &Arc<Post>) -> io::Result<u32> {
    let mut sent = 0;
    for number in post.sample() {
        if send_mail::<TcpStream>(post, number) {
            sent += 1;
        }
    }
    Ok(sent)
}
