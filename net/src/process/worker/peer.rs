//! One worker process, as who started it sees it.
//!
//! - It has ended when the system says so, not when its channel does: what it started may hold the channel open, and one
//!   that closes it may live. What it has sent until then is heard first.
//! - Whoever lets go of it before has it killed, and leaves no zombie.

use std::collections::BTreeSet;
use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pila_runtime::driver;
use rustix::process::{Pid, WaitOptions, waitpid};

use super::badge::Badge;
use super::calls::Outcome;
use super::error::{CallReason, Failure, StartError, WorkerDied};
use super::terms::Terms;
use super::wire::{Frame, Kind, Parcel, Silence, Wire};
use crate::first::Interest;
use crate::process::exit::Exit;
use crate::source::Operation;

/// How long a process may live whose channel is closed: as a rule it is just ending, and its status is wanted.
const GRACE: Duration = Duration::from_millis(5);

/// How often to look whether it has ended where that cannot be waited for: at once when it is expected to end.
const LOOK: Duration = Duration::from_millis(16);
const LOOK_CLOSELY: Duration = Duration::from_millis(1);

/// A worker process and the channel to it.
#[derive(Debug)]
pub(super) struct Peer {
    terms: Arc<Terms>,
    wire: Wire,
    child: Child,
    exit: Exit,
    /// The requests that it has, or is being given.
    hands: BTreeSet<u64>,
    /// By when it has to serve.
    serve_by: Instant,
    /// When it said that it does.
    serves_since: Option<Instant>,
    /// Whether nothing can be sent to it any more.
    is_deaf: bool,
    /// When nothing more could come from it.
    silent_since: Option<Instant>,
    /// Whether its user has ended it.
    was_killed: bool,
    /// What it is being ended for.
    fault: Option<Fault>,
    /// Whether it was told that there is nothing more to do.
    said_goodbye: bool,
}

/// What a worker is ended for.
#[derive(Debug)]
enum Fault {
    NeverServed,
    Other(Arc<str>),
}

/// What there is to wait for at one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wants {
    incoming: bool,
    room: bool,
    until: Option<Instant>,
}

impl Wants {
    /// Nothing but that time.
    pub(super) fn until(time: Instant) -> Self {
        Self { incoming: false, room: false, until: Some(time) }
    }
}

/// How a worker ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) died: WorkerDied,
    /// When it had begun to serve; `None` when it never did.
    pub(super) served_since: Option<Instant>,
    /// Whether it took too long to.
    never_served: bool,
    /// The requests that it had.
    pub(super) hands: BTreeSet<u64>,
    /// Those of them that it had not all of, and so cannot have begun with.
    pub(super) unsent: Vec<(u64, Parcel)>,
}

impl End {
    /// As the end of one that never served.
    pub(super) fn start_error(&self, terms: &Terms) -> StartError {
        match self.never_served {
            true => StartError::Silent {
                role: Arc::clone(&terms.name),
                id: self.died.id,
                limit: terms.start_timeout,
            },
            false => StartError::Died(self.died.clone()),
        }
    }
}

impl Peer {
    /// Starts a worker, which will say when it serves.
    pub(super) fn start(terms: &Arc<Terms>) -> Result<Self, StartError> {
        if let Some(Badge { title, .. }) = Badge::of_this_process() {
            return Err(StartError::Undeclared { role: title });
        }
        let (ours, theirs) = UnixStream::pair().map_err(StartError::Spawn)?;
        let child = spawn(terms, theirs).map_err(StartError::Spawn)?;
        let now = driver::now();
        Ok(Self {
            terms: Arc::clone(terms),
            wire: Wire::new(ours, terms.max_message),
            child,
            exit: Exit::default(),
            hands: BTreeSet::new(),
            // A time that does not fit is never reached.
            serve_by: now
                .checked_add(terms.start_timeout)
                .unwrap_or(now + Duration::from_secs(1 << 32)),
            serves_since: None,
            is_deaf: false,
            silent_since: None,
            was_killed: false,
            fault: None,
            said_goodbye: false,
        })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How many requests it has.
    pub(super) fn load(&self) -> usize {
        self.hands.len()
    }

    /// Whether it has begun to serve.
    pub(super) fn serves(&self) -> bool {
        self.serves_since.is_some()
    }

    /// Whether it can be given another request.
    pub(super) fn has_room(&self) -> bool {
        self.serves()
            && !self.was_killed
            && self.silent_since.is_none()
            && self.load() < self.terms.max_in_flight
    }

    /// Gives it a request, to be sent with the next [`exchange`](Self::exchange).
    pub(super) fn give(&mut self, number: u64, parcel: Parcel) {
        self.hands.insert(number);
        self.wire.push(number, parcel);
    }

    /// Takes a request back. False when it may have it.
    pub(super) fn retract(&mut self, number: u64) -> bool {
        self.wire.retract(number) && self.hands.remove(&number)
    }

    /// Whether it has this request.
    pub(super) fn has(&self, number: u64) -> bool {
        self.hands.contains(&number)
    }

    /// Tells it, once, that there is nothing more to do. False when it has been told, or cannot be yet.
    pub(super) fn say_goodbye(&mut self) -> bool {
        let is_due = self.serves() && !self.said_goodbye;
        if is_due {
            self.said_goodbye = true;
            self.wire.push(0, Parcel::text(Kind::Goodbye, "", 0));
        }
        is_due
    }

    /// Ends it by force. It is given nothing more to do.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.was_killed = true;
        self.child.kill()
    }

    /// Sends what there is room for, and hears what has come.
    pub(super) fn exchange(
        &mut self,
        now: Instant,
        answers: &mut Vec<(u64, Outcome)>,
    ) -> Option<End> {
        if self.silent_since.is_none() {
            // Then the end of what comes in is not far.
            self.is_deaf |= self.wire.flush().is_err();
            self.hear(now, answers);
        }
        if !self.serves() && now >= self.serve_by {
            self.doom(Fault::NeverServed, now);
        }
        if self.silent_since.is_some_and(|since| now >= since + GRACE) {
            let fault =
                format!("it closed its end of the channel, and had not ended {GRACE:?} later");
            self.doom(Fault::Other(fault.into()), now);
        }
        let status = self.status()?;
        if self.silent_since.is_none() {
            // The poller may not have said yet what the process left behind.
            self.wire.look_again();
            self.hear(now, answers);
        }
        Some(self.end(status))
    }

    /// What there is to wait for.
    pub(super) fn wants(&self) -> Wants {
        let serve_by = (!self.serves()).then_some(self.serve_by);
        let grace = self.silent_since.map(|since| since + GRACE);
        let until = match self.fault {
            Some(_) => None,
            None => [serve_by, grace].into_iter().flatten().min(),
        };
        let is_open = self.silent_since.is_none();
        Wants {
            incoming: is_open,
            room: is_open && !self.is_deaf && self.wire.has_outgoing(),
            until,
        }
    }

    /// Adds to `interests` what it [`wants`](Self::wants), and gives the time at which to look anyhow.
    pub(super) fn ask(
        &self,
        now: Instant,
        interests: &mut Vec<Interest>,
    ) -> io::Result<Option<Instant>> {
        let Wants { incoming, room, until } = self.wants();
        if incoming {
            interests.push(self.wire.incoming()?);
        }
        if room {
            interests.push(self.wire.room()?);
        }
        let look = match self.exit.pidfd(self.id()) {
            Some(pidfd) => {
                interests.push(pidfd.interest(Operation::WaitForChild(self.id()))?);
                None
            }
            None if incoming && self.fault.is_none() => Some(now + LOOK),
            None => Some(now + LOOK_CLOSELY),
        };
        Ok([until, look].into_iter().flatten().min())
    }

    fn hear(&mut self, now: Instant, answers: &mut Vec<(u64, Outcome)>) {
        while self.fault.is_none() {
            let silence = match self.wire.receive() {
                Ok(Some(frame)) => match self.take_in(frame, now) {
                    Ok(answer) => {
                        answers.extend(answer);
                        continue;
                    }
                    Err(what) => Silence::Garbage(what),
                },
                Ok(None) => return,
                Err(silence) => silence,
            };
            self.silent_since = Some(now);
            if let Silence::Garbage(what) = silence {
                self.doom(Fault::Other(format!("it sent garbage: {what}").into()), now);
            }
            return;
        }
    }

    /// Takes a frame in. Says what is wrong with it if it makes no sense.
    fn take_in(&mut self, frame: Frame, now: Instant) -> Result<Option<(u64, Outcome)>, String> {
        let Frame { kind, number, message } = frame;
        if !self.serves() {
            return match kind {
                Kind::Hello => {
                    self.serves_since = Some(now);
                    Ok(None)
                }
                other => Err(format!("{other:?} before it said hello")),
            };
        }
        let outcome = self.outcome(kind, message)?;
        match self.hands.remove(&number) {
            true => Ok(Some((number, outcome))),
            false => Err(format!("{kind:?} to request {number}, which it does not have")),
        }
    }

    fn outcome(&self, kind: Kind, message: Vec<u8>) -> Result<Outcome, String> {
        let text = || String::from_utf8_lossy(&message).into_owned();
        let failure = match kind {
            Kind::Reply => return Ok(Ok(message)),
            Kind::Panicked => Failure::sent(CallReason::Panicked(text())),
            Kind::Killed => Failure::sent(CallReason::Killed),
            Kind::Unread => Failure::unsent(CallReason::Unread(text())),
            Kind::Unwritten => Failure::sent(CallReason::Unreadable(text())),
            Kind::TooLong => {
                let length =
                    text().parse().map_err(|_| "a length that is no number".to_string())?;
                Failure::sent(CallReason::ReplyTooLong { length, limit: self.terms.max_message })
            }
            Kind::Hello | Kind::Request | Kind::Goodbye => {
                return Err(format!("{kind:?}, which no worker that serves says"));
            }
        };
        Ok(Err(failure))
    }

    /// Ends it for `fault`, unless it is being ended already. Nothing that it says is heard any more.
    fn doom(&mut self, fault: Fault, now: Instant) {
        if self.fault.is_none() {
            self.fault = Some(fault);
            self.silent_since.get_or_insert(now);
            // One that has ended cannot be killed, and need not be.
            self.child.kill().ok();
        }
    }

    /// How it has ended, if it has: a status, or `None` inside when someone else has asked for that.
    fn status(&mut self) -> Option<Option<ExitStatus>> {
        let id = self.id();
        let look = |child: &mut Child| match child.try_wait() {
            Ok(Some(status)) => Ok(Some(status)),
            Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
            Err(_) => Ok(None),
        };
        let looked: io::Result<_> = match self.exit.pidfd(id) {
            Some(pidfd) => pidfd.attempt(Operation::WaitForChild(id), |_| look(&mut self.child)),
            None => look(&mut self.child),
        };
        looked.ok()
    }

    fn end(&mut self, status: Option<ExitStatus>) -> End {
        use std::os::unix::process::ExitStatusExt;

        let hands = std::mem::take(&mut self.hands);
        let unsent: Vec<_> =
            self.wire.give_up().filter(|(number, _)| hands.contains(number)).collect();
        // One that ended otherwise ended before it could be killed.
        let by_force = status.is_none_or(|status| status.signal() == Some(9));
        let (never_served, fault) = match self.fault.take() {
            Some(Fault::NeverServed) => (by_force, None),
            Some(Fault::Other(fault)) if by_force => (false, Some(fault)),
            Some(Fault::Other(_)) | None => (false, None),
        };
        let died = WorkerDied {
            role: Arc::clone(&self.terms.name),
            id: self.id(),
            status,
            unanswered: hands.len() - unsent.len(),
            fault,
        };
        End { died, served_since: self.serves_since, never_served, hands, unsent }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        self.child.kill().ok();
        if matches!(self.child.try_wait(), Ok(None)) {
            reap(&self.child);
        }
    }
}

/// Has someone else wait for a child that was killed: what takes long to end, for all the memory that it has, must not
/// stop the thread. If there is nobody, a zombie is left, as of any child that nobody waits for.
fn reap(child: &Child) {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return };
    let reaper = thread::Builder::new().name("pila-reaper".into()).stack_size(64 * 1024);
    reaper.spawn(move || waitpid(Some(pid), WaitOptions::empty()).ok()).ok();
}

fn spawn(terms: &Terms, channel: UnixStream) -> io::Result<Child> {
    let itself = Path::new("/proc/self/exe");
    // What runs now, also when its file was replaced or removed meanwhile.
    let mut command = match itself.exists() {
        true => Command::new(itself),
        false => Command::new(env::current_exe()?),
    };
    if let Some(name) = env::args_os().next() {
        command.arg0(name);
    }
    let (variable, badge) = terms.badge().for_child(&channel)?;
    command.args(&terms.args).envs(terms.envs.iter().map(|(key, value)| (key, value)));
    command.env(variable, badge).stdin(Stdio::from(OwnedFd::from(channel))).spawn()
}
