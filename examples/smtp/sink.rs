//! An SMTP server that writes every mail into a `Ledger` and forgets it, one tasklet a connection.
//!
//! - A mail is in the ledger before the client hears that it was accepted.
//! - Commands may come one by one or all in one packet: the replies to one read go out in one write.

use std::{
    io::{self, Read, Write},
    slice::Iter,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pila::net::{TcpListener, TcpStream};
use smtp_proto::{
    Error, Request,
    request::receiver::{DataReceiver, RequestReceiver},
};

use super::ledger::Ledger;

/// Longer texts are refused.
const LONGEST_TEXT: usize = 256 * 1024 * 1024;

/// A sink's settings and its book.
#[derive(Debug, Clone)]
pub(crate) struct Sink {
    /// Where the mails are counted; another thread may look into it at any time.
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    /// How long a connection waits for the greeting, as if the server were far away.
    pub(crate) delay: Duration,
    /// How long it then takes for each thing it says.
    pub(crate) reply_delay: Duration,
}

impl Sink {
    /// Accepts connections for ever.
    pub(crate) fn serve(self, listener: &TcpListener) {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    let sink = self.clone();
                    pila::tasklet(move || sink.attend(stream));
                }
                // No descriptors left, or a client that gave up: those waiting are accepted a little later.
                Err(_) => pila::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Serves one client from greeting to goodbye.
    pub(crate) fn attend(self, stream: TcpStream) {
        self.ledger().open();
        pila::sleep(self.delay);
        // A client that breaks off has its own error; for the sink that is an end like another.
        self.converse(stream).ok();
        self.ledger().close();
    }

    /// Answers what the client says until it has said goodbye. The sink closes first: so it is this side that keeps
    /// the connection's remains for a minute, and the client has its port back at once.
    fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut dialogue = Dialogue::new(self);
        stream.write_all(b"220 sink ESMTP\r\n")?;
        let mut buffer = [0; 2048];
        while !dialogue.ended {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            let replies = dialogue.hear(&buffer[..count]);
            if !replies.is_empty() && !self.reply_delay.is_zero() {
                pila::sleep(self.reply_delay);
            }
            stream.write_all(replies)?;
        }
        Ok(())
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sink's side of one conversation.
struct Dialogue<'a> {
    sink: &'a Sink,
    /// How far the envelope of the present mail has come.
    envelope: EnvelopeState,
    commands: RequestReceiver,
    /// Reads a mail's text, while one is coming.
    data: Option<DataReceiver>,
    /// What has come of that text.
    text: Vec<u8>,
    /// What is to be said next.
    replies: Vec<u8>,
    /// The client has said goodbye, or nothing that makes sense.
    ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EnvelopeState {
    Empty,
    Sender,
    Recipients,
}

impl<'a> Dialogue<'a> {
    fn new(sink: &'a Sink) -> Self {
        Self {
            sink,
            envelope: EnvelopeState::Empty,
            commands: RequestReceiver::default(),
            data: None,
            text: Vec::new(),
            replies: Vec::new(),
            ended: false,
        }
    }

    /// Takes in what the client said, and returns what to answer.
    fn hear(&mut self, bytes: &[u8]) -> &[u8] {
        self.replies.clear();
        let mut bytes = bytes.iter();
        while !self.ended && !bytes.as_slice().is_empty() {
            match self.data.as_mut() {
                Some(data) => {
                    if data.ingest(&mut bytes, &mut self.text) {
                        self.accept_text();
                    } else if self.text.len() > LONGEST_TEXT {
                        self.hang_up("552 too long\r\n");
                    }
                }
                None => self.command(&mut bytes),
            }
        }
        &self.replies
    }

    /// The text is complete: into the ledger with it, then say so.
    fn accept_text(&mut self) {
        self.sink.ledger().receive(&self.text);
        self.data = None;
        self.text = Vec::new();
        self.envelope = EnvelopeState::Empty;
        self.say("250 received\r\n");
    }

    fn command(&mut self, bytes: &mut Iter<'_, u8>) {
        use EnvelopeState::{Empty, Recipients, Sender};
        let (envelope, reply) = match (self.commands.ingest(bytes), self.envelope) {
            (Ok(Request::Ehlo { .. }), _) => {
                (Empty, "250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
            }
            (Ok(Request::Helo { .. }), _) => (Empty, "250 sink\r\n"),
            (Ok(Request::Rset), _) => (Empty, "250 forgotten\r\n"),
            (Ok(Request::Mail { .. }), Empty) => (Sender, "250 sender noted\r\n"),
            (Ok(Request::Rcpt { .. }), Sender | Recipients) => {
                (Recipients, "250 recipient noted\r\n")
            }
            (Ok(Request::Data), Recipients) => return self.start_text(),
            (Ok(Request::Quit), _) => return self.hang_up("221 goodbye\r\n"),
            (Ok(Request::Noop { .. }), state) => (state, "250 nothing done\r\n"),
            (Ok(Request::Mail { .. } | Request::Rcpt { .. } | Request::Data), state) => {
                (state, "503 not at this point\r\n")
            }
            (Ok(_), state) => (state, "502 not here\r\n"),
            (Err(Error::NeedsMoreData { .. }), _) => return,
            (Err(Error::ResponseTooLong), _) => return self.hang_up("500 too long\r\n"),
            (Err(Error::UnknownCommand), state) => (state, "500 unknown command\r\n"),
            (Err(_), state) => (state, "501 not understood\r\n"),
        };
        self.envelope = envelope;
        self.say(reply);
    }

    fn start_text(&mut self) {
        let mut data = DataReceiver::new();
        // It looks for dots after a CRLF only: without the one that ended DATA it would miss a dot in the first line.
        data.ingest(&mut b"\r\n".iter(), &mut self.text);
        self.text.clear();
        self.data = Some(data);
        self.say("354 go on\r\n");
    }

    fn hang_up(&mut self, reply: &str) {
        self.ended = true;
        self.say(reply);
    }

    fn say(&mut self, reply: &str) {
        self.replies.extend_from_slice(reply.as_bytes());
    }
}
