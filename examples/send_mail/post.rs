//! `Post`: the mails that a way has to send, and `send_mail`, which sends one: the body that all ways of blocking code
//! have in common.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    hint::black_box,
    io::{self, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    journal::Journal,
    limits,
    smtp::{
        client::{Timeouts, send_data_and},
        envelope::Envelope,
        error::{Cause, MailError, Step},
        letter::Letter,
    },
    tally::Tally,
};

/// A kind of connection: std's blocks the thread that waits for it, pila's the tasklet.
pub(crate) trait Stream: Read + Write + Timeouts + Sized {
    /// Opens one.
    fn connect(server: &SocketAddr, limit: Duration) -> io::Result<Self>;
}

impl Stream for std::net::TcpStream {
    fn connect(server: &SocketAddr, limit: Duration) -> io::Result<Self> {
        Self::connect_timeout(server, limit)
    }
}

impl Stream for pila::net::TcpStream {
    fn connect(server: &SocketAddr, limit: Duration) -> io::Result<Self> {
        Self::connect_timeout(server, limit)
    }
}

impl Timeouts for pila::net::TcpStream {
    fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(limit)
    }

    fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.set_write_timeout(limit)
    }
}

/// Sends one mail from beginning to end, and says whether the server has accepted it.
pub(crate) fn send_mail<S: Stream>(post: &Post, number: u32) -> bool {
    post.compute(number);
    let outcome = deliver::<S>(post, number);
    post.note(outcome)
}

fn deliver<S: Stream>(post: &Post, number: u32) -> Result<(), MailError> {
    let envelope = &post.envelope;
    let connected = S::connect(&post.server, envelope.timeout);
    let mut stream = connected.map_err(|error| Cause::from(error).at(Step::Connect))?;
    send_data_and(&mut stream, envelope, post.letter.text(number), || post.enter(number))
}

/// What is to be sent, where, and how: what a way's process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    /// The name of the way.
    pub(crate) way: String,
    /// Who takes the mails.
    pub(crate) server: SocketAddr,
    /// How many there are.
    pub(crate) mails: u32,
    /// How many bytes each body has.
    pub(crate) body_size: usize,
    pub(crate) from: String,
    pub(crate) to: String,
    /// How long each step of a mail may take.
    pub(crate) timeout: Duration,
    /// How many thousand numbers are to be hashed for each mail.
    pub(crate) work: u32,
    /// How many workers a way has that has workers.
    pub(crate) workers: usize,
    /// After how long a way gives up that sends one mail after the other.
    pub(crate) patience: Duration,
    /// How many bytes of address space the way may have.
    pub(crate) address_space: Option<u64>,
}

impl Task {
    /// Reads what the parent puts on a child's command line.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}

/// The mails that one process has to send.
pub(crate) struct Post {
    pub(crate) task: Task,
    pub(crate) server: SocketAddr,
    pub(crate) envelope: Envelope,
    pub(crate) letter: Letter,
    numbers: Vec<u32>,
    /// Where the mails are noted that are sent, for those who go on if this process dies.
    journal: Option<Journal>,
    /// What has become of them: the truth, which the ways' own counts are compared with.
    pub(crate) tally: Tally,
}

impl Post {
    /// All mails of `task`.
    pub(crate) fn new(task: Task) -> Self {
        let numbers = (0..task.mails).collect();
        Self::of(task, numbers, None)
    }

    /// These mails of `task`.
    pub(crate) fn of(task: Task, numbers: Vec<u32>, journal: Option<Journal>) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let (from, to, timeout) = (task.from.clone(), task.to.clone(), task.timeout);
        let headers = format!("From: <{from}>\r\nTo: <{to}>\r\n");
        Self {
            server: task.server,
            envelope: Envelope { host, from, to, timeout },
            letter: Letter::new(headers, task.body_size),
            numbers,
            journal,
            tally: Tally::default(),
            task,
        }
    }

    /// The numbers of the mails.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> + Send + use<> {
        self.numbers.clone().into_iter()
    }

    /// The numbers of the mails, as many as can be begun before patience is at its end.
    pub(crate) fn sample(&self) -> impl Iterator<Item = u32> {
        let end = Instant::now() + self.task.patience;
        self.numbers().take_while(move |_| Instant::now() < end)
    }

    /// The numbers of the mails, cut into as many shares.
    pub(crate) fn shares(&self, count: usize) -> impl Iterator<Item = Vec<u32>> {
        let length = self.numbers.len().div_ceil(count).max(1);
        self.numbers.chunks(length).map(<[u32]>::to_vec)
    }

    /// What a mail costs to make before it can be sent: nothing, unless the task says so.
    pub(crate) fn compute(&self, number: u32) {
        let mut hasher = DefaultHasher::new();
        for round in 0..u64::from(self.task.work) * 1000 {
            (number, round).hash(&mut hasher);
        }
        black_box(hasher.finish());
    }

    /// Enters an accepted mail in the journal, if there is one.
    fn enter(&self, number: u32) {
        if let Some(journal) = &self.journal {
            journal.note(number);
        }
    }

    /// Notes what has become of a mail, and says whether it was sent.
    pub(crate) fn note(&self, outcome: Result<(), MailError>) -> bool {
        self.tally.note(outcome)
    }

    /// Notes why a way stops before all mails are begun. Those that are under way must not suffer from it: a limit that
    /// was there to be run into has done its duty.
    pub(crate) fn cannot_go_on(&self, why: String) {
        limits::lift();
        self.tally.tell(why);
    }
}
