//! Chaos: mails go from tasklets to tasklets, and for as long as they do, tasklets are killed, thrown errors at and run out
//! of time wherever they happen to be. What there is of descriptors, stacks and memory at the end is what there was before.
//!
//! `PILA_CHAOS_SECONDS` says how long; without it a few seconds. What happens is chance; a test that fails says the seed.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    env, io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use pila::{
    Channel, Handle, JoinError, Tasklet, TaskletError,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use possessions::Possessions;
use random::{Random, Seed};
use smtp::{
    client::{Envelope, Timeouts, send_data},
    ledger::{Ledger, Report},
    letter::Letter,
    sink::Sink,
};
use system::{alone, bounded, tell};

mod possessions;
mod random;
#[allow(dead_code, reason = "the example uses all of it")]
#[path = "../examples/smtp/mod.rs"]
mod smtp;
mod system;

/// How long the chaos lasts unless the environment says otherwise.
const SECONDS: u64 = 5;

/// How many mails there are at one time.
const AT_ONCE: usize = 100;

/// How many there are in the warm-up: more, so that it has needed more of everything.
const WARM_UP_AT_ONCE: usize = 150;

/// How many mails there are numbers for; those that are begun after that send nothing.
///
/// The ledger has a byte for each, which the allocator may keep.
fn numbers() -> u32 {
    if env::var_os("PILA_CHAOS_SECONDS").is_some() { 1_000_000 } else { 100_000 }
}

/// Longer than the text of a mail is written in one go, or read.
const SIZE: usize = 10_000;

impl Timeouts for TcpStream {
    fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        TcpStream::set_read_timeout(self, limit)
    }

    fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        TcpStream::set_write_timeout(self, limit)
    }
}

/// How a mail ended.
#[derive(Debug)]
enum End {
    Sent,
    Failed,
    OutOfTime,
}

/// How often something happened.
#[derive(Default, Clone, Copy, Debug)]
struct Counts {
    begun: usize,
    sent: usize,
    failed: usize,
    out_of_time: usize,
    killed: usize,
    /// Kills, throws and so on that found somebody to strike.
    strikes: usize,
}

/// What the tasklets of one stretch of chaos share.
struct World {
    random: Random,
    server: Cell<SocketAddr>,
    sink: Sink,
    envelope: Envelope,
    letter: Letter,
    /// Fewer may send than there are, so that some wait here.
    permits: Semaphore,
    /// Those who attend to the sink's connections, to be struck as well.
    attending: RefCell<Vec<Handle>>,
    next: Cell<u32>,
}

impl World {
    fn new(random: Random, at_once: usize) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::new(numbers(), SIZE)));
        Self {
            random,
            server: Cell::new(([127, 0, 0, 1], 0).into()),
            sink: Sink { ledger, delay: Duration::from_millis(1), reply_delay: Duration::ZERO },
            envelope: Envelope {
                host: "client.example.org".into(),
                from: "sender@example.org".into(),
                to: "recipient@example.org".into(),
                // Deadlines that never come, all of which are to be forgotten.
                timeout: Duration::from_secs(3600),
            },
            letter: Letter::new("From: <sender@example.org>\r\n".into(), SIZE),
            permits: Semaphore::new(at_once * 3 / 4),
            attending: RefCell::default(),
            next: Cell::new(0),
        }
    }

    /// Accepts until it is killed.
    fn serve(self: &Rc<Self>, listener: &TcpListener) {
        loop {
            // It may be thrown an error.
            let Ok((stream, _)) = listener.accept() else { continue };
            let sink = self.sink.clone();
            let attends = pila::tasklet(move || sink.attend(stream));
            let mut attending = self.attending.borrow_mut();
            attending.retain(Handle::is_alive);
            attending.push(Handle::clone(&attends));
        }
    }

    /// One mail, with detours.
    fn send(&self) -> bool {
        let number = self.next.replace(self.next.get() + 1);
        let Ok(_permit) = self.permits.acquire() else { return false };
        if number >= numbers() {
            pila::sleep(Duration::from_millis(5));
            return false;
        }
        let server = self.server.get();
        let connected = match number % 4 {
            // Looked up, once in a while; and there is nobody at its IPv6 address.
            0 => TcpStream::connect(("localhost", server.port())),
            1 => TcpStream::connect_timeout(&server, Duration::from_secs(3600)),
            _ => TcpStream::connect(server),
        };
        let Ok(mut stream) = connected else { return false };
        match number % 8 {
            0 => drop(pila::offload(|| 6 * 7)),
            1 => pila::sleep(self.random.time(Duration::from_millis(3))),
            2 => {
                let (question, answer) = (Channel::new(), Channel::with_capacity(1));
                let (theirs, back) = (question.clone(), answer.clone());
                pila::tasklet(move || theirs.receive().map(|number: u32| back.send(number)));
                // However this one ends, the other one is not left waiting.
                let _closes = [Closes(question.clone()), Closes(answer.clone())];
                if question.send(number).is_err() || answer.receive().is_err() {
                    return false;
                }
            }
            _ => {}
        }
        let sent = send_data(&mut stream, &self.envelope, self.letter.text(number)).is_ok();
        if number % 16 == 3 {
            pila::shield(|| pila::sleep(Duration::from_micros(200)));
        }
        sent
    }

    /// One mail, perhaps within a time, perhaps in a scope with another one's company.
    fn begin(self: &Rc<Self>) -> Tasklet<End> {
        let world = self.clone();
        let limit = self.random.time(Duration::from_millis(40));
        match self.random.below(4) {
            0 => pila::tasklet(move || match pila::timeout(limit, || world.send()) {
                Ok(true) => End::Sent,
                Ok(false) => End::Failed,
                Err(_) => End::OutOfTime,
            }),
            1 => pila::tasklet(move || {
                let outcome = pila::timeout(limit * 2, || {
                    pila::scope(|scope| {
                        let company = scope.tasklet(|| pila::sleep(Duration::from_secs(3600)));
                        let sent = world.send();
                        company.kill().ok();
                        sent
                    })
                });
                match outcome {
                    Ok(true) => End::Sent,
                    Ok(false) => End::Failed,
                    Err(_) => End::OutOfTime,
                }
            }),
            _ => pila::tasklet(move || if world.send() { End::Sent } else { End::Failed }),
        }
    }

    /// Does something bad to `victim`. Whether it could be done.
    fn strike(&self, victim: &Handle) -> bool {
        let done = match self.random.below(4) {
            0 => victim.throw("a stone"),
            1 => victim.throw_later("a stone"),
            2 => victim.kill_later(),
            _ => victim.kill(),
        };
        match done {
            Ok(()) => true,
            // In a shield, or in a call that has no error to return.
            Err(
                TaskletError::Pending(_) | TaskletError::CannotThrow(_) | TaskletError::Dead(_),
            ) => false,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Closes a channel when it is dropped.
struct Closes(Channel<u32>);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What came of a stretch of chaos.
#[derive(Debug)]
struct Outcome {
    counts: Counts,
    report: Report,
    /// How long it took everybody to end.
    ending: Duration,
}

/// Sends mails for `duration`, and until everything has happened that may, so many at a time, and strikes at random.
fn rage(duration: Duration, at_once: usize, random: Random) -> Outcome {
    let world = Rc::new(World::new(random, at_once));
    let listener = Rc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    world.server.set(listener.local_addr().unwrap());
    let start_server = || {
        let (world, listener) = (world.clone(), listener.clone());
        pila::tasklet(move || world.serve(&listener))
    };
    let mut server = start_server();
    let mut mails: VecDeque<Tasklet<End>> = VecDeque::new();
    let mut counts = Counts::default();
    let begun = Instant::now();
    while begun.elapsed() < duration || !counts.has_all() {
        while mails.len() < at_once {
            mails.push_back(world.begin());
            counts.begun += 1;
        }
        pila::sleep(world.random.time(Duration::from_micros(300)));
        let struck = match world.random.below(20) {
            0 => world.strike(&server),
            1..5 => {
                let attending = world.attending.borrow().clone();
                !attending.is_empty()
                    && world.strike(&attending[world.random.below(attending.len())])
            }
            5..10 => world.strike(&mails[world.random.below(mails.len())]),
            _ => false,
        };
        counts.strikes += usize::from(struck);
        if !server.is_alive() {
            server = start_server();
        }
        for _ in 0..mails.len() {
            let mail = mails.pop_front().expect("so many are there");
            if mail.is_alive() {
                mails.push_back(mail);
            } else {
                counts.add(mail.join());
            }
        }
    }
    let end = Instant::now();
    for mail in mails {
        // It may have been struck at the very end, and some mails still wait to be accepted.
        while mail.is_alive() {
            if !server.is_alive() {
                server = start_server();
            }
            pila::sleep(Duration::from_millis(1));
        }
        counts.add(mail.join());
    }
    server.kill().unwrap();
    // Those who attend to what is left of the connections.
    let attending = world.attending.borrow().clone();
    while attending.iter().any(Handle::is_alive) {
        pila::sleep(Duration::from_millis(1));
    }
    let report = world.sink.ledger.lock().unwrap().report();
    Outcome { counts, report, ending: end.elapsed() }
}

/// The same, begun and awaited by main. Did main itself wait so often while others are suspended, the thread would have to
/// note each time that it may end, which takes some memory that is never given back: 2.6 MB at most.
fn rage_in_a_tasklet(duration: Duration, at_once: usize, random: Random) -> Outcome {
    let outcome = pila::tasklet(move || rage(duration, at_once, random)).join().unwrap();
    assert_eq!(pila::run().blocked, 0);
    // Each mail had deadlines an hour away, in the thread's timers: one that were left would be seen in its memory.
    outcome
}

impl Counts {
    /// Whether mails have ended in all ways.
    fn has_all(&self) -> bool {
        self.sent > 0 && self.failed > 0 && self.out_of_time > 0 && self.killed > 0
    }

    fn add(&mut self, end: Result<End, JoinError>) {
        match end {
            Ok(End::Sent) => self.sent += 1,
            Ok(End::Failed) => self.failed += 1,
            Ok(End::OutOfTime) => self.out_of_time += 1,
            Err(JoinError::Killed) => self.killed += 1,
            Err(error) => panic!("{error}"),
        }
    }
}

impl Outcome {
    #[track_caller]
    fn assert_accounted_for(&self) {
        let Counts { begun, sent, failed, out_of_time, killed, strikes } = self.counts;
        assert_eq!(sent + failed + out_of_time + killed, begun, "{self:?}");
        // What was sent came, once and as it was; and all of that happened.
        assert!(self.report.once >= sent, "{self:?}");
        assert_eq!((self.report.doubled, self.report.damaged), (0, 0), "{self:?}");
        assert!(self.counts.has_all() && strikes > 0, "{self:?}");
        // Many times what it takes, but nobody waits for a deadline of an hour.
        assert!(self.ending < Duration::from_secs(10), "{self:?}");
    }
}

#[test]
fn chaos_leaves_nothing_behind() {
    let _alone = alone();
    let seconds = env::var("PILA_CHAOS_SECONDS").ok().map(|text| text.parse().unwrap());
    let duration = Duration::from_secs(seconds.unwrap_or(SECONDS));
    let seed = Seed::new();
    let number = seed.0;
    let (outcome, before, after) = bounded(duration * 2 + Duration::from_secs(120), move || {
        let random = Random::new(number);
        let warm_up = (duration / 4).clamp(Duration::from_secs(2), Duration::from_secs(10));
        rage_in_a_tasklet(warm_up, WARM_UP_AT_ONCE, random.clone()).assert_accounted_for();
        let before = Possessions::now();
        let outcome = rage_in_a_tasklet(duration, AT_ONCE, random);
        (outcome, before, Possessions::now())
    });
    tell(&format!("chaos: {outcome:?}\n  before {before:?}\n  after  {after:?}"));
    outcome.assert_accounted_for();
    after.assert_back_within(&before, u64::from(numbers()) / 1024);
}
