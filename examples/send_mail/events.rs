//! Events: one thread that waits for all sockets at once and calls back whoever has to do with one.
//!
//! What was one function is a dozen. Each does a bit and says which one is next, and with which one to go on if that
//! fails; what they have to tell each other lies in the `Mail`.

use std::{
    io::{self, ErrorKind, Read, Write},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::{
    post::Post,
    smtp::{
        blocks::Blocks,
        error::{Cause, MailError, Step},
        replies::{Replies, judge},
    },
};

pub(crate) fn run(post: &Arc<Post>) -> io::Result<u32> {
    let mut reactor = Reactor::new(post)?;
    for number in post.numbers() {
        reactor.send_mail(number)?;
    }
    reactor.run()
}

/// What to do when a step has gone well, with the text of the server's reply.
type Callback = fn(&mut Mail, &Post, String);

/// What to do when a step has failed.
type Errback = fn(&mut Mail, &Post, MailError);

/// A mail on its way.
struct Mail {
    number: u32,
    stream: TcpStream,
    replies: Replies,
    /// What is to be written before the next reply can come.
    output: Vec<u8>,
    /// What is under way, and until when.
    step: Step,
    deadline: Instant,
    callback: Callback,
    errback: Errback,
    /// What has become of it, once that is known; it may still have to say goodbye.
    outcome: Option<Result<(), MailError>>,
    /// Nothing is left to do.
    ended: bool,
}

// The conversation, torn apart.

fn connect(post: &Post, number: u32) -> Result<Mail, MailError> {
    let stream = TcpStream::connect(post.server);
    let stream = stream.map_err(|error| Cause::from(error).at(Step::Connect))?;
    let mut mail = Mail::new(post, number, stream);
    mail.then(connected);
    Ok(mail)
}

fn connected(mail: &mut Mail, post: &Post, _: String) {
    mail.expect(post, Step::Greeting).then(greeted);
}

fn greeted(mail: &mut Mail, post: &Post, _: String) {
    mail.say(post, Step::Ehlo, post.envelope.ehlo()).then(introduced).or(greet_as_of_old);
}

fn greet_as_of_old(mail: &mut Mail, post: &Post, error: MailError) {
    match error.cause {
        Cause::Rejected { code: 500.., .. } => {
            mail.say(post, Step::Ehlo, post.envelope.helo()).then(introduced);
        }
        _ => failed(mail, post, error),
    }
}

fn introduced(mail: &mut Mail, post: &Post, extensions: String) {
    mail.say(post, Step::Mail, post.envelope.mail(&extensions)).then(sender_named);
}

fn sender_named(mail: &mut Mail, post: &Post, _: String) {
    mail.say(post, Step::Rcpt, post.envelope.rcpt()).then(recipient_named);
}

fn recipient_named(mail: &mut Mail, post: &Post, _: String) {
    mail.say(post, Step::Data, "DATA\r\n").then(invited);
}

fn invited(mail: &mut Mail, post: &Post, _: String) {
    let mut blocks = Blocks::new(post.letter.text(mail.number));
    let mut text = Vec::new();
    while let Some(block) = blocks.next().expect("the text is in memory") {
        text.extend_from_slice(block);
    }
    mail.say(post, Step::Body, text).then(accepted);
}

fn accepted(mail: &mut Mail, post: &Post, _: String) {
    mail.outcome = Some(Ok(()));
    mail.say(post, Step::Quit, "QUIT\r\n").then(goodbye).or(gone);
}

fn failed(mail: &mut Mail, post: &Post, error: MailError) {
    let polite = matches!(error.cause, Cause::Rejected { .. });
    mail.outcome = Some(Err(error));
    if polite {
        mail.say(post, Step::Quit, "QUIT\r\n").then(goodbye).or(gone);
    } else {
        mail.ended = true;
    }
}

fn goodbye(mail: &mut Mail, _: &Post, _: String) {
    mail.ended = true;
}

fn gone(mail: &mut Mail, _: &Post, _: MailError) {
    mail.ended = true;
}

// What makes that possible.

impl Mail {
    fn new(post: &Post, number: u32, stream: TcpStream) -> Self {
        Self {
            number,
            stream,
            replies: Replies::new(),
            output: Vec::new(),
            step: Step::Connect,
            deadline: Instant::now() + post.envelope.timeout,
            callback: connected,
            errback: failed,
            outcome: None,
            ended: false,
        }
    }

    fn expect(&mut self, post: &Post, step: Step) -> &mut Self {
        self.step = step;
        self.deadline = Instant::now() + post.envelope.timeout;
        self
    }

    fn say(&mut self, post: &Post, step: Step, what: impl Into<Vec<u8>>) -> &mut Self {
        self.output = what.into();
        self.expect(post, step)
    }

    fn then(&mut self, callback: Callback) -> &mut Self {
        self.callback = callback;
        self.errback = failed;
        self
    }

    fn or(&mut self, errback: Errback) {
        self.errback = errback;
    }

    fn call_back(&mut self, post: &Post, outcome: Result<String, MailError>) {
        match outcome {
            Ok(text) => (self.callback)(self, post, text),
            Err(error) => (self.errback)(self, post, error),
        }
    }

    /// Goes on as far as it can without waiting.
    fn advance(&mut self, post: &Post) {
        while !self.ended {
            match self.try_step() {
                Ok(Some(text)) => self.call_back(post, Ok(text)),
                Ok(None) => return,
                Err(error) => self.call_back(post, Err(error)),
            }
        }
    }

    /// What the present step gives, or `None` if it has to wait.
    fn try_step(&mut self) -> Result<Option<String>, MailError> {
        let step = self.step;
        if step == Step::Connect {
            let is_connected = self.try_connect().map_err(|error| Cause::from(error).at(step))?;
            return Ok(is_connected.then(String::new));
        }
        if !self.try_write().map_err(|error| Cause::from(error).at(step))? {
            return Ok(None);
        }
        loop {
            if let Some(reply) = self.replies.next().map_err(|cause| cause.at(step))? {
                return judge(step, reply).map(Some);
            }
            match self.stream.read(self.replies.space()) {
                Ok(count) => self.replies.filled(count).map_err(|cause| cause.at(step))?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Cause::from(error).at(step)),
            }
        }
    }

    fn try_connect(&self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes, and says whether all is written.
    fn try_write(&mut self) -> io::Result<bool> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Waits for all mails at once.
struct Reactor<'a> {
    post: &'a Post,
    poll: Poll,
    /// Those under way; an event's token is the place.
    mails: Vec<Option<Mail>>,
    under_way: usize,
    sent: u32,
}

impl<'a> Reactor<'a> {
    fn new(post: &'a Post) -> io::Result<Self> {
        Ok(Self { post, poll: Poll::new()?, mails: Vec::new(), under_way: 0, sent: 0 })
    }

    fn send_mail(&mut self, number: u32) -> io::Result<()> {
        self.post.compute(number);
        match connect(self.post, number) {
            Ok(mut mail) => {
                let (token, both) =
                    (Token(self.mails.len()), Interest::READABLE | Interest::WRITABLE);
                self.poll.registry().register(&mut mail.stream, token, both)?;
                self.mails.push(Some(mail));
                self.under_way += 1;
            }
            Err(error) => drop(self.post.note(Err(error))),
        }
        Ok(())
    }

    fn run(mut self) -> io::Result<u32> {
        let mut events = Events::with_capacity(1024);
        let pause = (self.post.envelope.timeout / 10).min(Duration::from_secs(1));
        let mut next_look = Instant::now() + pause;
        while self.under_way > 0 {
            match self.poll.poll(&mut events, Some(pause)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => outcome?,
            }
            for event in &events {
                self.with_mail(event.token().0, Mail::advance);
            }
            if Instant::now() >= next_look {
                self.end_late();
                next_look = Instant::now() + pause;
            }
        }
        Ok(self.sent)
    }

    fn with_mail(&mut self, place: usize, act: impl FnOnce(&mut Mail, &Post)) {
        let Some(mail) = &mut self.mails[place] else { return };
        act(mail, self.post);
        if mail.ended {
            let outcome = mem::take(&mut mail.outcome).expect("it ends with one");
            self.sent += u32::from(self.post.note(outcome));
            self.under_way -= 1;
            // Closes the connection, too.
            self.mails[place] = None;
        }
    }

    /// Ends those whose step's time is up.
    fn end_late(&mut self) {
        let now = Instant::now();
        for place in 0..self.mails.len() {
            self.with_mail(place, |mail, post| {
                if mail.deadline <= now {
                    let late = Cause::TimedOut.at(mail.step);
                    mail.call_back(post, Err(late));
                }
            });
        }
    }
}
