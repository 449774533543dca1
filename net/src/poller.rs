//! The thread's [`Driver`]: what the system reports about sockets becomes tickets of tasklets to run.
//!
//! - A socket is registered once per thread that waits on it, edge-triggered, for both directions. Waiting
//!   costs no `epoll_ctl`.
//! - Events are harvested, bits are set and tickets are listed on the poller's own thread only. Other
//!   threads may remove a socket, nothing else.
//! - A poller takes a descriptor's number once. Whoever comes second is registered with a duplicate of it.
//! - A slab key is freed once, by [`Registration::end`], after the descriptor has left the poller. New keys
//!   are given out on the own thread, which at that moment is not harvesting. So an event never meets
//!   another socket that got its key.
//! - A turn costs one system call, and one lock if it brought events; a wait costs one lock.
//! - Registrations do not keep their poller alive: it ends with its thread, and the kernel forgets what
//!   was registered with it.

#![allow(unsafe_code)]

use std::cell::{Cell, OnceCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use pila_runtime::driver::{self, Driver, Notify};
use pila_runtime::park::{self, Relay, Ticket};
use polling::{Event, Events, PollMode};
use slab::Slab;

use crate::epoll::{self, Harvest, NOTIFIED, Waited};
use crate::readiness::{Direction, Readiness, Ready, Waiters};

/// One thread's window on the outside world.
#[derive(Debug)]
pub(crate) struct Poller {
    /// Told apart from all other pollers of the process, also those that are gone.
    id: u64,
    /// Owns the descriptor that sockets are registered with.
    polling: polling::Poller,
    /// Whether events come through `polling` and not straight from epoll. Set when the environment or the
    /// kernel wants it so, never cleared.
    portable: AtomicBool,
    /// Every socket registered here; the index is the key its events carry.
    sockets: Mutex<Slab<Entry>>,
}

/// What a socket is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Listener,
    Connection,
}

/// A registered socket as its poller sees it.
#[derive(Debug)]
struct Entry {
    /// Shared with the socket.
    registration: Arc<Registration>,
    /// Whether it is a connection, and no listener.
    is_connection: bool,
    /// Who waits to read or to accept.
    readers: Waiters,
    /// Who waits to write or to be connected.
    writers: Waiters,
}

impl Entry {
    fn waiters(&mut self, direction: Direction) -> &mut Waiters {
        match direction {
            Direction::Read => &mut self.readers,
            Direction::Write => &mut self.writers,
        }
    }

    fn is_waited_for(&self) -> bool {
        !(self.readers.is_empty() && self.writers.is_empty())
    }
}

/// Every poller of the process; some of them may be gone.
static POLLERS: Mutex<Vec<Weak<Poller>>> = Mutex::new(Vec::new());

/// Whether some tasklet of the process waits for its connection to be made, or to be read from or written to. It may
/// close it when that happens.
pub(crate) fn somebody_waits_for_a_connection() -> bool {
    // Taken out of the list first: the last reference to a poller may go here.
    let pollers: Vec<_> = pollers().iter().filter_map(Weak::upgrade).collect();
    pollers.iter().any(|poller| poller.has_waiting_connection())
}

/// No code that can panic runs under this lock, so a poisoned one is still sound.
fn pollers() -> MutexGuard<'static, Vec<Weak<Poller>>> {
    POLLERS.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// The calling thread's poller, made when it first has to wait on a socket.
    static HERE: OnceCell<Arc<Poller>> = const { OnceCell::new() };
    /// The id of that poller, 0 before. Needs no destructor, so it can be read at any time.
    static ID: Cell<u64> = const { Cell::new(0) };
}

impl Poller {
    /// Makes the calling thread's poller while there are descriptors left for it: who takes the last one for a connection
    /// must be able to wait on it.
    ///
    /// Fails as [`here`](Self::here).
    #[inline]
    pub(crate) fn prepare() -> io::Result<()> {
        if !Self::is_here() {
            Self::here()?;
        }
        Ok(())
    }

    /// Whether the calling thread has one.
    pub(crate) fn is_here() -> bool {
        ID.get() != 0
    }

    /// The calling thread's poller, which drives its scheduler from the first call on.
    ///
    /// Fails when another driver is there already, or when the thread's locals are being destroyed.
    pub(crate) fn here() -> io::Result<Arc<Self>> {
        HERE.try_with(|here| match here.get() {
            Some(poller) => Ok(Arc::clone(poller)),
            None => Self::install().inspect(|poller| {
                ID.set(poller.id);
                here.set(Arc::clone(poller)).expect("installing does not come back here");
            }),
        })
        .unwrap_or_else(|_| Err(io::Error::other("the thread is ending, no socket can wait on it")))
    }

    fn install() -> io::Result<Arc<Self>> {
        let poller = Arc::new(Self::new()?);
        driver::install(Box::new(PollerDriver::new(&poller))).map_err(|installed| {
            // An ending thread takes none either.
            park::begin().map_or_else(io::Error::from, |_| installed.into())
        })?;
        let mut all = pollers();
        // Threads come and go.
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&poller));
        drop(all);
        Ok(poller)
    }

    fn new() -> io::Result<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let wanted = std::env::var_os("PILA_POLLER").is_some_and(|way| way == "portable");
        Ok(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            polling: polling::Poller::new()?,
            portable: AtomicBool::new(wanted),
            sockets: Mutex::default(),
        })
    }

    /// Registers `socket`. Its bits are clear; what it is ready for already comes with the next harvest.
    pub(crate) fn register(
        self: &Arc<Self>,
        socket: BorrowedFd<'_>,
        kind: Kind,
    ) -> io::Result<Arc<Registration>> {
        let mut sockets = self.sockets();
        let vacant = sockets.vacant_entry();
        let duplicate = match self.add(socket, vacant.key()) {
            // It is registered here already, by someone else who waits on it: it takes a number of its own.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let duplicate = socket.try_clone_to_owned()?;
                self.add(duplicate.as_fd(), vacant.key())?;
                Some(duplicate)
            }
            added => added.map(|()| None)?,
        };
        let registration = Arc::new(Registration {
            poller: Arc::downgrade(self),
            poller_id: self.id,
            key: vacant.key(),
            duplicate,
            readiness: Readiness::new(Ready::INEXACT.when(self.portable.load(Ordering::Relaxed))),
        });
        vacant.insert(Entry {
            registration: Arc::clone(&registration),
            is_connection: kind == Kind::Connection,
            readers: Waiters::default(),
            writers: Waiters::default(),
        });
        Ok(registration)
    }

    fn add(&self, socket: BorrowedFd<'_>, key: usize) -> io::Result<()> {
        match self.portable.load(Ordering::Relaxed) {
            true => self.add_portably(socket, key),
            false => epoll::add(&self.polling, socket, key),
        }
    }

    fn add_portably(&self, socket: BorrowedFd<'_>, key: usize) -> io::Result<()> {
        let socket = socket.as_raw_fd();
        // SAFETY: `socket` is open, the caller borrows it. `Source`, which owns or borrows it, ends every
        // registration before it closes, gives away or gives back the descriptor, and a registration is dropped,
        // with the duplicate that it may own, only after it was ended or its poller is gone.
        unsafe { self.polling.add_with_mode(socket, Event::all(key), PollMode::Edge) }
    }

    /// Sets the bits of `events`, moves the tickets of those who wait for them to `woken` and rings the relays.
    /// True when the notifier was among them.
    fn deliver(
        &self,
        events: impl Iterator<Item = (usize, Ready)>,
        woken: &mut Vec<Ticket>,
    ) -> bool {
        let mut notified = false;
        let mut rung = Vec::new();
        let mut sockets = self.sockets();
        for (key, ready) in events {
            notified |= key == NOTIFIED;
            // Another thread may have removed the socket since the event was harvested.
            let Some(entry) = sockets.get_mut(key) else { continue };
            entry.registration.readiness.add(ready);
            for direction in [Direction::Read, Direction::Write] {
                if ready.has(direction) {
                    entry.waiters(direction).drain(woken, &mut rung);
                }
            }
        }
        drop(sockets);
        rung.iter().for_each(|relay: &Arc<Relay>| relay.ring());
        notified
    }

    fn has_waiting_connection(&self) -> bool {
        self.sockets().iter().any(|(_, entry)| entry.is_connection && entry.is_waited_for())
    }

    /// From now on events come through `polling`, which cannot tell the end of a stream from data.
    fn fall_back(&self) {
        self.portable.store(true, Ordering::Relaxed);
        for (_, entry) in &*self.sockets() {
            entry.registration.readiness.add(Ready::INEXACT);
        }
    }

    /// No code that can panic runs under this lock, so a poisoned one is still sound.
    fn sockets(&self) -> MutexGuard<'_, Slab<Entry>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a wait of a poller that lives. Does not keep it alive: registrations ask whether it does.
#[derive(Debug)]
struct Notifier(Weak<Poller>);

impl Notify for Notifier {
    fn notify(&self) {
        let Some(poller) = self.0.upgrade() else { return };
        // It writes to an eventfd of its own, which takes far more than is ever written between two waits.
        let _ = poller.polling.notify();
    }
}

/// What the scheduler waits with.
#[derive(Debug)]
struct PollerDriver {
    /// Shared with the thread's locals.
    poller: Arc<Poller>,
    /// The direct way of waiting, as long as it works.
    harvest: Option<Harvest>,
    /// The buffer of the portable way.
    events: Events,
}

impl PollerDriver {
    fn new(poller: &Arc<Poller>) -> Self {
        let harvest = match poller.portable.load(Ordering::Relaxed) {
            true => None,
            false => Harvest::new(),
        };
        poller.portable.store(harvest.is_none(), Ordering::Relaxed);
        Self { poller: Arc::clone(poller), harvest, events: Events::new() }
    }

    fn wait_portably(
        &mut self,
        timeout: Option<Duration>,
        woken: &mut Vec<Ticket>,
    ) -> io::Result<()> {
        self.events.clear();
        match self.poller.polling.wait(&mut self.events, timeout) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        if !self.events.is_empty() {
            self.poller.deliver(self.events.iter().map(portable_event), woken);
        }
        Ok(())
    }
}

impl Driver for PollerDriver {
    fn wait(&mut self, timeout: Option<Duration>, woken: &mut Vec<Ticket>) -> io::Result<()> {
        let Some(harvest) = &mut self.harvest else { return self.wait_portably(timeout, woken) };
        if harvest.wait(&self.poller.polling, timeout)? == Waited::Refused {
            self.harvest = None;
            self.poller.fall_back();
            return self.wait_portably(timeout, woken);
        }
        if !harvest.is_empty() && self.poller.deliver(harvest.iter(), woken) {
            // Only `polling` can consume and re-arm its notifier. Events that it takes along are marked
            // as inexact.
            self.wait_portably(Some(Duration::ZERO), woken)?;
        }
        Ok(())
    }

    fn notifier(&self) -> Option<Arc<dyn Notify>> {
        Some(Arc::new(Notifier(Arc::downgrade(&self.poller))))
    }
}

fn portable_event(event: Event) -> (usize, Ready) {
    let broken = event.is_interrupt() || event.is_err() == Some(true);
    let read = Ready::READ.when(event.readable || broken);
    let write = Ready::WRITE.when(event.writable || broken);
    (event.key, read.and(write).and(Ready::INEXACT))
}

/// One socket at one poller. Whoever closes the socket ends it first.
#[derive(Debug)]
pub(crate) struct Registration {
    /// Where it is registered; gone when that thread has ended.
    poller: Weak<Poller>,
    /// Tells without touching the poller whether it is the calling thread's.
    poller_id: u64,
    /// What its events carry.
    key: usize,
    /// What is registered in place of the socket, when that was registered already.
    duplicate: Option<OwnedFd>,
    /// Set by the poller when it harvests, cleared by the calls of its thread.
    readiness: Readiness,
}

impl Registration {
    /// Whether this is the calling thread's. The methods below are for that thread only, except `end`.
    pub(crate) fn is_here(&self) -> bool {
        self.poller_id == ID.get()
    }

    /// Whether that thread's poller is gone.
    pub(crate) fn is_stale(&self) -> bool {
        self.poller.strong_count() == 0
    }

    /// What the poller said last. Another thread's answer is a hint and no more.
    pub(crate) fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Adds `ticket` to those who wait for `direction`.
    pub(crate) fn enlist(&self, direction: Direction, ticket: Ticket) {
        self.with_entry(|entry| {
            entry.expect("a socket in use is registered").waiters(direction).push(ticket);
        });
    }

    /// Adds `relay` to those who wait for `direction`, unless it is one of them.
    pub(crate) fn add_relay(&self, direction: Direction, relay: Arc<Relay>) {
        self.with_entry(|entry| {
            entry.expect("a socket in use is registered").waiters(direction).add_relay(relay);
        });
    }

    /// Takes `ticket` back, when its owner stops waiting for another reason than an event. The registration may have ended
    /// since, if its owner waits for several and has none of them.
    pub(crate) fn withdraw(&self, direction: Direction, ticket: Ticket) {
        self.with_entry(|entry| {
            if let Some(entry) = entry.filter(|entry| ptr::eq(&*entry.registration, self)) {
                entry.waiters(direction).remove(ticket);
            }
        });
    }

    fn with_entry(&self, change: impl FnOnce(Option<&mut Entry>)) {
        // A poller that is gone has no one who could wake a waiter, and park lets no one wait any more.
        let Some(poller) = self.poller.upgrade() else { return };
        let mut sockets = poller.sockets();
        change(sockets.get_mut(self.key));
    }

    /// Removes `socket` from its poller. On any thread, before `socket` is closed or given away.
    pub(crate) fn end(&self, socket: BorrowedFd<'_>) {
        let Some(poller) = self.poller.upgrade() else { return };
        // The kernel drops a closed socket by itself only when it has no duplicate, which nobody here can
        // know. This fails for no socket that is registered, and there is nothing to do if it does.
        let registered = self.duplicate.as_ref().map_or(socket, AsFd::as_fd);
        let _ = poller.polling.delete(registered);
        let entry = poller.sockets().try_remove(self.key);
        // After the lock: the last reference to the registration may go here.
        drop(entry);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn driver() -> PollerDriver {
        PollerDriver::new(&Arc::new(Poller::new().unwrap()))
    }

    fn turn(driver: &mut PollerDriver) {
        driver.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn epoll_reads_the_keys_polling_writes() {
        let poller = Poller::new().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        poller.add_portably(ours.as_fd(), 5).unwrap();
        let mut harvest = Harvest::new().expect("Linux has epoll");
        harvest.wait(&poller.polling, Some(Duration::ZERO)).unwrap();
        assert_eq!(harvest.iter().map(|event| event.0).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn registering_reports_what_is_ready_already() {
        let mut driver = driver();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"x").unwrap();
        let registration = driver.poller.register(ours.as_fd(), Kind::Connection).unwrap();
        assert!(!registration.readiness().is_ready(Direction::Read));
        turn(&mut driver);
        assert!(registration.readiness().is_ready(Direction::Read));
        assert!(registration.readiness().is_ready(Direction::Write));
        registration.end(ours.as_fd());
    }

    #[test]
    fn a_notification_hides_no_event() {
        let mut driver = driver();
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let registration = driver.poller.register(ours.as_fd(), Kind::Connection).unwrap();
        for _ in 0..3 {
            driver.poller.polling.notify().unwrap();
            theirs.write_all(b"x").unwrap();
            driver.wait(None, &mut Vec::new()).unwrap();
            assert!(registration.readiness().is_ready(Direction::Read));
            assert_eq!(ours.read(&mut [0; 2]).unwrap(), 1);
            registration.readiness().clear(Direction::Read);
        }
        registration.end(ours.as_fd());
    }

    #[test]
    fn a_notifier_ends_the_next_wait_and_outlives_the_poller() {
        let mut driver = driver();
        let notifier = driver.notifier().unwrap();
        for _ in 0..3 {
            notifier.notify();
            notifier.notify();
            driver.wait(None, &mut Vec::new()).unwrap();
        }
        drop(driver);
        notifier.notify();
    }

    #[test]
    fn an_ended_registration_frees_its_key_and_hears_nothing() {
        let mut driver = driver();
        let (first, mut first_peer) = UnixStream::pair().unwrap();
        let (second, _second_peer) = UnixStream::pair().unwrap();
        let ended = driver.poller.register(first.as_fd(), Kind::Connection).unwrap();
        turn(&mut driver);
        ended.end(first.as_fd());
        ended.end(first.as_fd());
        let registration = driver.poller.register(second.as_fd(), Kind::Connection).unwrap();
        assert_eq!(registration.key, ended.key);
        first_peer.write_all(b"x").unwrap();
        turn(&mut driver);
        assert!(!registration.readiness().is_ready(Direction::Read));
        registration.end(second.as_fd());
    }

    #[test]
    fn falling_back_keeps_sockets_and_trusts_no_short_read() {
        let mut driver = driver();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let registration = driver.poller.register(ours.as_fd(), Kind::Connection).unwrap();
        turn(&mut driver);
        driver.harvest = None;
        driver.poller.fall_back();
        theirs.write_all(b"x").unwrap();
        turn(&mut driver);
        registration.readiness().exhaust(Direction::Read);
        assert!(registration.readiness().is_ready(Direction::Read));
        registration.end(ours.as_fd());
    }
}
