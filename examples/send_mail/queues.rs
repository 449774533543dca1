//! A thread for each core, each with tasklets of its own. They share nothing that changes: mails come by one queue, and
//! what became of them goes back by another.

use std::{io, sync::Arc};

use pila::net::TcpStream;

use crate::post::{Post, send_mail};

/// How many messages a queue holds.
const ROOM: usize = 100;

pub(crate) fn run(post: &Arc<Post>) -> io::Result<u32> {
    let (mails, inbox) = pila::thread_queue(ROOM);
    let (outcomes, outbox) = pila::thread_queue(ROOM);
    for _ in 0..post.task.workers {
        let (post, inbox, outcomes) = (post.clone(), inbox.clone(), outcomes.clone());
        pila::spawn_thread(move || {
            pila::scope(|scope| {
                for number in &inbox {
                    let (post, outcomes) = (&post, &outcomes);
                    scope.tasklet(move || {
                        let sent = send_mail::<TcpStream>(post, number);
                        outcomes.send(sent).expect("they are counted until the last");
                    });
                }
            });
        })?;
    }
    drop((inbox, outcomes));
    let numbers = post.numbers();
    pila::tasklet(move || {
        for number in numbers {
            mails.send(number).expect("the threads listen until all is said");
        }
    });
    Ok(outbox.iter().filter(|&sent| sent).count() as u32)
}
