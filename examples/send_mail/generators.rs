//! Generators, which in Rust are `async fn`: all on this thread, each of which can wait, but only where it says `await`.
//!
//! Whatever waits has to be written again for it, down to the reading of a reply. What does not wait is the same.

use std::{io, sync::Arc};

use smtp_proto::Response;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Builder,
    task::JoinSet,
    time,
};

use crate::{
    post::Post,
    smtp::{
        blocks::Blocks,
        error::{Cause, MailError, Step},
        replies::{Replies, judge},
    },
};

pub(crate) fn run(post: &Arc<Post>) -> io::Result<u32> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut mails = JoinSet::new();
        for number in post.numbers() {
            mails.spawn(send_mail(post.clone(), number));
        }
        let mut sent = 0;
        while let Some(outcome) = mails.join_next().await {
            if outcome? {
                sent += 1;
            }
        }
        Ok(sent)
    })
}

async fn send_mail(post: Arc<Post>, number: u32) -> bool {
    post.compute(number);
    let outcome = deliver(&post, number).await;
    post.note(outcome)
}

async fn deliver(post: &Post, number: u32) -> Result<(), MailError> {
    let mut session = Session::connect(post).await?;
    let outcome = session.send_data(number).await;
    if matches!(outcome, Ok(()) | Err(MailError { cause: Cause::Rejected { .. }, .. })) {
        session.command(Step::Quit, "QUIT\r\n").await.ok();
    }
    outcome
}

struct Session<'a> {
    post: &'a Post,
    stream: TcpStream,
    replies: Replies,
}

impl<'a> Session<'a> {
    async fn connect(post: &'a Post) -> Result<Self, MailError> {
        let connected =
            within(post, Step::Connect, async { Ok(TcpStream::connect(post.server).await?) });
        Ok(Self { post, stream: connected.await?, replies: Replies::new() })
    }

    async fn send_data(&mut self, number: u32) -> Result<(), MailError> {
        let envelope = &self.post.envelope;
        self.expect(Step::Greeting).await?;
        let extensions = self.hello().await?;
        self.command(Step::Mail, &envelope.mail(&extensions)).await?;
        self.command(Step::Rcpt, &envelope.rcpt()).await?;
        self.command(Step::Data, "DATA\r\n").await?;
        let mut blocks = Blocks::new(self.post.letter.text(number));
        let stream = &mut self.stream;
        within(self.post, Step::Body, async {
            while let Some(block) = blocks.next()? {
                stream.write_all(block).await?;
            }
            Ok(())
        })
        .await?;
        self.expect(Step::Body).await.map(drop)
    }

    async fn hello(&mut self) -> Result<String, MailError> {
        let envelope = &self.post.envelope;
        match self.command(Step::Ehlo, &envelope.ehlo()).await {
            Err(MailError { cause: Cause::Rejected { code: 500.., .. }, .. }) => {
                self.command(Step::Ehlo, &envelope.helo()).await.map(|_| String::new())
            }
            reply => reply,
        }
    }

    async fn command(&mut self, step: Step, line: &str) -> Result<String, MailError> {
        let written = async { Ok(self.stream.write_all(line.as_bytes()).await?) };
        within(self.post, step, written).await?;
        self.expect(step).await
    }

    async fn expect(&mut self, step: Step) -> Result<String, MailError> {
        let reply = within(self.post, step, reply(&mut self.stream, &mut self.replies)).await?;
        judge(step, reply)
    }
}

async fn reply(stream: &mut TcpStream, replies: &mut Replies) -> Result<Response<String>, Cause> {
    loop {
        if let Some(reply) = replies.next()? {
            return Ok(reply);
        }
        let count = stream.read(replies.space()).await?;
        replies.filled(count)?;
    }
}

/// What `work` gives, if it does before the step's time is up.
async fn within<T>(
    post: &Post,
    step: Step,
    work: impl Future<Output = Result<T, Cause>>,
) -> Result<T, MailError> {
    let outcome = time::timeout(post.envelope.timeout, work).await;
    outcome.unwrap_or(Err(Cause::TimedOut)).map_err(|cause| cause.at(step))
}
