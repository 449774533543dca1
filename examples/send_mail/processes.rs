//! A worker process for each core, each with tasklets of its own, and a share of the mails for each worker.
//!
//! A worker that dies has its share taken over by another one, but for the mails that it had noted as sent.

use std::{cell::Cell, io, path::PathBuf, sync::Arc, time::Instant};

use pila::{
    net::TcpStream,
    process::{CallError, CallReason, Role},
};
use serde::{Deserialize, Serialize};

use crate::{
    journal::Journal,
    post::{Post, Task, send_mail},
    tally::Score,
};

/// How many workers may die of one share.
const ATTEMPTS: usize = 5;

/// What a worker is asked to send.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Share {
    task: Task,
    numbers: Vec<u32>,
    journal: PathBuf,
}

/// Where a worker process begins.
pub(crate) fn role() -> Role<Share, Result<Score, String>> {
    Role::declare("mails", |share: Share| send(share).map_err(|error| error.to_string()))
}

/// What a worker does.
fn send(share: Share) -> io::Result<Score> {
    let start = Instant::now();
    let journal = Journal::open(&share.journal)?;
    let post = Post::of(share.task, share.numbers, Some(journal));
    let sent = Cell::new(0);
    pila::scope(|scope| {
        for number in post.numbers() {
            let (post, sent) = (&post, &sent);
            scope.tasklet(move || {
                if send_mail::<TcpStream>(post, number) {
                    sent.set(sent.get() + 1);
                }
            });
        }
    });
    Ok(post.tally.score(sent.get(), start.elapsed(), Default::default()))
}

/// What their parent does.
pub(crate) fn run(post: &Arc<Post>) -> io::Result<u32> {
    let journal = Journal::new(post.task.mails)?;
    pila::scope(|scope| {
        let shares = post.shares(post.task.workers);
        let shares: Vec<_> = shares
            .map(|numbers| {
                let journal = &journal;
                scope.tasklet(move || see_to(post, numbers, journal))
            })
            .collect();
        shares.into_iter().map(|share| share.join().expect("nobody panics")).sum()
    })
}

/// Has a worker send these mails, and if it dies another one the rest.
fn see_to(post: &Post, mut numbers: Vec<u32>, journal: &Journal) -> io::Result<u32> {
    let mut sent = 0;
    for _ in 0..ATTEMPTS {
        let worker = role().start().map_err(io::Error::other)?;
        let share =
            Share { task: post.task.clone(), numbers: numbers.clone(), journal: journal.path() };
        let death = match worker.call(share) {
            Ok(score) => {
                let score = score.map_err(io::Error::other)?;
                sent += score.counted;
                post.tally.add(score);
                worker.join()?;
                return Ok(sent);
            }
            Err(CallError { reason: CallReason::Died(death), .. }) => death,
            Err(error) => return Err(io::Error::other(error.to_string())),
        };
        let missing = journal.missing(&numbers)?;
        let noted = (numbers.len() - missing.len()) as u32;
        sent += noted;
        post.tally.add(Score { sent: noted, ..Score::default() });
        let (all, rest) = (numbers.len(), missing.len());
        post.tally
            .tell(format!("{death}: {noted} of {all} mails were noted, {rest} are sent again"));
        numbers = missing;
    }
    post.cannot_go_on(format!("{} mails were given up: {ATTEMPTS} workers died", numbers.len()));
    Ok(sent)
}
