//! What a worker process does, from its hello to its end.
//!
//! - Each request is answered in a tasklet of its own. Every one is answered once, whatever becomes of its tasklet.
//! - Whoever has an answer sends it if there is room; what is left over is sent by the one that waits for requests.
//! - It ends when it was told goodbye and everything is answered, or at once when nobody is left who would read an answer.
//!   The system sees to the latter should the worker be busy.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::rc::Rc;

use pila_runtime::Refused;
use pila_runtime::park::{self, Ticket, Waiting};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::badge::Badge;
use super::codec;
use super::wire::{Frame, Kind, Parcel, Silence, Wire};
use crate::first;
use crate::poller::Poller;

/// The status of a worker that nobody can hear any more.
const NOBODY_LISTENS: i32 = 70;

/// Serves until the end of the process.
pub(super) fn serve<Request, Reply>(
    badge: &Badge,
    name: &str,
    handler: impl Fn(Request) -> Reply + 'static,
) -> !
where
    Request: DeserializeOwned + 'static,
    Reply: Serialize + 'static,
{
    match Desk::open(badge, name).map(Rc::new).and_then(|desk| desk.work(Rc::new(handler))) {
        Ok(()) => process::exit(0),
        Err(error) => {
            eprintln!("worker '{name}': {error}");
            process::exit(NOBODY_LISTENS)
        }
    }
}

/// Where requests come in and answers go out.
struct Desk {
    wire: RefCell<Wire>,
    /// Of the one that waits for requests.
    ticket: Cell<Option<Ticket>>,
    /// How many requests are not answered.
    in_hand: Cell<usize>,
    /// Whether no more requests come.
    is_closing: Cell<bool>,
    /// How long a message may be.
    limit: usize,
}

impl Desk {
    fn open(badge: &Badge, name: &str) -> io::Result<Self> {
        // The first on a thread to wait on a descriptor may have to wait for those of its poller.
        Poller::prepare()?;
        let channel = badge.take_channel()?;
        die_with_parent();
        show_name(name);
        let mut wire = Wire::new(channel, badge.limit);
        wire.push(0, Parcel::text(Kind::Hello, "", 0));
        Ok(Self {
            wire: RefCell::new(wire),
            ticket: Cell::new(None),
            in_hand: Cell::new(0),
            is_closing: Cell::new(false),
            limit: badge.limit,
        })
    }

    /// Takes requests until there are no more, and all are answered.
    fn work<Request, Reply>(
        self: Rc<Self>,
        handler: Rc<impl Fn(Request) -> Reply + 'static>,
    ) -> io::Result<()>
    where
        Request: DeserializeOwned + 'static,
        Reply: Serialize + 'static,
    {
        loop {
            let received = self.exchange()?;
            match received {
                Some(Frame { kind: Kind::Request, number, message }) => {
                    let answer = Answer::new(&self, number);
                    let handler = Rc::clone(&handler);
                    pila_runtime::tasklet(move || answer.give(&*handler, &message));
                }
                Some(Frame { kind: Kind::Goodbye, .. }) => self.is_closing.set(true),
                Some(Frame { kind, .. }) => {
                    return Err(io::Error::other(format!("a frame that no worker gets: {kind:?}")));
                }
                None if self.is_done() => return Ok(()),
                None => self.wait()?,
            }
        }
    }

    /// Sends what there is room for, and takes what has come.
    fn exchange(&self) -> io::Result<Option<Frame>> {
        let mut wire = self.wire.borrow_mut();
        wire.flush()?;
        match wire.receive() {
            Ok(frame) => Ok(frame),
            Err(Silence::Ended) => process::exit(NOBODY_LISTENS),
            Err(Silence::Garbage(what)) => {
                Err(io::Error::other(format!("it was sent garbage: {what}")))
            }
        }
    }

    fn is_done(&self) -> bool {
        self.is_closing.get() && self.in_hand.get() == 0 && !self.wire.borrow().has_outgoing()
    }

    /// Waits until there is something to take, room to send, or someone who says that the work is done.
    fn wait(&self) -> io::Result<()> {
        let mut interests = Vec::with_capacity(2);
        let wire = self.wire.borrow();
        interests.push(wire.incoming()?);
        if wire.has_outgoing() {
            interests.push(wire.room()?);
        }
        drop(wire);
        let ticket = park::begin()?;
        self.ticket.set(Some(ticket));
        Ok(first::wait(&interests, ticket, Waiting::Worker, None)?)
    }

    /// Answers a request. Waits for nothing.
    fn answer(&self, number: u64, answer: Parcel) {
        self.in_hand.set(self.in_hand.get() - 1);
        let mut wire = self.wire.borrow_mut();
        wire.push(number, answer);
        // If nobody can read it, the one that waits for requests sees it too.
        let flushed = wire.flush();
        let is_left_over = flushed.is_err() || wire.has_outgoing();
        drop(wire);
        if (is_left_over || self.is_closing.get())
            && let Some(ticket) = self.ticket.take()
        {
            park::unpark(ticket);
        }
    }
}

/// The duty to answer one request.
struct Answer {
    desk: Rc<Desk>,
    number: u64,
    is_given: bool,
}

impl Answer {
    fn new(desk: &Rc<Desk>, number: u64) -> Self {
        desk.in_hand.set(desk.in_hand.get() + 1);
        Self { desk: Rc::clone(desk), number, is_given: false }
    }

    /// Has `handler` answer what `message` asks.
    fn give<Request, Reply>(mut self, handler: impl Fn(Request) -> Reply, message: &[u8])
    where
        Request: DeserializeOwned,
        Reply: Serialize,
    {
        let limit = self.desk.limit;
        // Everything in here is the user's: how values are read, written and dropped.
        let attempt = catch_unwind(AssertUnwindSafe(|| {
            let request =
                codec::decode(message).map_err(|why| Parcel::text(Kind::Unread, &why, limit))?;
            let reply = handler(request);
            Parcel::new(Kind::Reply, |bytes| codec::encode(&reply, bytes))
                .map_err(|why| Parcel::text(Kind::Unwritten, &why, limit))
        }));
        let answer = match attempt {
            Ok(Ok(reply)) if reply.len() > limit => {
                Parcel::text(Kind::TooLong, &reply.len().to_string(), usize::MAX)
            }
            Ok(Ok(answer) | Err(answer)) => answer,
            Err(_) if park::check() == Err(Refused::Killed) => Parcel::text(Kind::Killed, "", 0),
            Err(payload) => {
                let answer = Parcel::text(Kind::Panicked, text_of(&*payload), limit);
                // What a panic carries may panic in its destructor, and so may what that carries.
                catch_unwind(AssertUnwindSafe(|| drop(payload))).map_err(mem::forget).ok();
                answer
            }
        };
        self.is_given = true;
        self.desk.answer(self.number, answer);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.is_given {
            // Its tasklet was ended before it began.
            self.desk.answer(self.number, Parcel::text(Kind::Killed, "", 0));
        }
    }
}

fn text_of(payload: &(dyn Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        (None, None) => "a value that is not a string",
    }
}

/// Has the system end a worker that computes when who started it has died. One that died before this has closed the
/// channel, which is seen when the first request is looked for.
#[cfg(target_os = "linux")]
fn die_with_parent() {
    use rustix::process::{Signal, set_parent_process_death_signal};

    // A sandbox may refuse it. Then a worker that computes ends when it looks for its next request.
    set_parent_process_death_signal(Some(Signal::KILL)).ok();
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent() {}

/// Calls the process by the role's name where processes are listed.
#[cfg(target_os = "linux")]
fn show_name(name: &str) {
    let name = name.replace('\0', " ");
    // It serves under any name.
    CString::new(name).map(|name| rustix::thread::set_name(&name).ok()).ok();
}

#[cfg(not(target_os = "linux"))]
fn show_name(_: &str) {}
