//! What the calls to one worker, or to the workers of one pool, share.
//!
//! - There is no tasklet behind it: those who wait for something do the work, and while nobody waits nothing happens. One of
//!   them, the leader, waits for all the workers; the others wait to be woken by whoever hears something for them. A leader
//!   that leaves, by any road, wakes another one, which leads unless someone does by then.
//! - A call is in line, or a worker has it, or it is answered. It is given to a worker once; again only if it is certain
//!   that the first one had not all of it.
//! - Nothing is borrowed while anyone waits.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pila_runtime::driver;
use pila_runtime::park::{self, Interrupt, Ticket, Waiting};

use super::calls::{Caller, Calls, Outcome, Progress};
use super::error::{CallReason, Failure, StartError, WorkerDied};
use super::peer::{End, Peer, Wants};
use super::terms::Terms;
use super::wire::Parcel;
use crate::first::{self, Interest};
use crate::poller::Poller;

/// A worker that served for so long is replaced at once. One that did not is replaced after a pause, which doubles from the
/// first to the second of these.
const SETTLED: Duration = Duration::from_secs(1);
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

/// The workers, and everyone who waits for them.
#[derive(Debug)]
pub(super) struct Hub {
    state: RefCell<State>,
}

/// Whether workers that die are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replacement {
    Never,
    Always,
}

#[derive(Debug)]
struct State {
    terms: Arc<Terms>,
    calls: Calls,
    places: Vec<Place>,
    /// Those who wait to be woken, by their numbers.
    followers: BTreeMap<u64, Ticket>,
    leader: Option<Leader>,
    replacement: Replacement,
    /// How many workers were replaced.
    replaced: u64,
    /// Whether no more requests are taken.
    is_closing: bool,
    /// Why the last attempt to replace a worker failed, until those in line have been told.
    start_failure: Option<Arc<StartError>>,
}

/// The one who waits for the workers.
#[derive(Debug)]
struct Leader {
    number: u64,
    ticket: Ticket,
}

/// Where one worker is, or was.
#[derive(Debug)]
struct Place {
    /// The worker.
    peer: Option<Peer>,
    /// How the last one ended.
    died: Option<WorkerDied>,
    /// How long the last pause was before one was replaced.
    pause: Duration,
    /// When the next one may be started.
    next_start: Instant,
    /// What the leader waits for here.
    asked: Option<Wants>,
}

impl Hub {
    /// Starts `count` workers and waits until all serve.
    pub(super) fn open(
        terms: &Arc<Terms>,
        count: usize,
        replacement: Replacement,
    ) -> Result<Self, StartError> {
        // What cannot be waited for is not started.
        park::begin().map_err(|interrupt| StartError::Interrupted(interrupt.into()))?;
        // The first on a thread to wait on a descriptor may have to wait for those of its poller.
        Poller::prepare().map_err(StartError::Interrupted)?;
        let places = (0..count).map(|_| Place::new(terms)).collect::<Result<_, _>>()?;
        let hub = Self {
            state: RefCell::new(State {
                terms: Arc::clone(terms),
                calls: Calls::default(),
                places,
                followers: BTreeMap::new(),
                leader: None,
                replacement: Replacement::Never,
                replaced: 0,
                is_closing: false,
                start_failure: None,
            }),
        };
        let opened = hub.waiter().wait(|state| match state.start_failure.take() {
            Some(error) => Some(Err(error)),
            None => state.peers().all(Peer::serves).then_some(Ok(())),
        });
        match opened {
            Ok(Ok(())) => {
                hub.state.borrow_mut().replacement = replacement;
                Ok(hub)
            }
            Ok(Err(error)) => Err(Arc::into_inner(error).expect("nobody else was told")),
            Err(error) => Err(StartError::Interrupted(error)),
        }
    }

    /// Sends a request and waits for what comes of it.
    pub(super) fn call(&self, request: Parcel) -> Outcome {
        let interrupted = |interrupt: Interrupt| CallReason::Interrupted(interrupt.into());
        park::begin().map_err(|interrupt| Failure::unsent(interrupted(interrupt)))?;
        let caller = self.enter(request).map_err(Failure::unsent)?;
        let outcome = caller.wait(|state| state.calls.take(caller.number));
        outcome.unwrap_or_else(|error| {
            let may_have_run = caller.leave();
            Err(Failure { reason: CallReason::Interrupted(error), may_have_run })
        })
    }

    /// Takes no more requests, and waits until all are answered and the workers have ended. How each of them did.
    pub(super) fn join(&self) -> io::Result<Vec<WorkerDied>> {
        self.state.borrow_mut().is_closing = true;
        self.waiter().wait(|state| {
            let is_over = !state.calls.has_line() && state.peers().next().is_none();
            is_over.then(|| state.places.iter().filter_map(|place| place.died.clone()).collect())
        })
    }

    /// Ends all workers by force.
    pub(super) fn kill(&self) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        let mut peers = state.places.iter_mut().filter_map(|place| place.peer.as_mut());
        peers.try_for_each(Peer::kill)
    }

    /// The numbers of the processes there are.
    pub(super) fn ids(&self) -> Vec<u32> {
        self.state.borrow().peers().map(Peer::id).collect()
    }

    /// How many requests the workers have, those among them whose callers are gone.
    pub(super) fn in_flight(&self) -> usize {
        self.state.borrow().peers().map(Peer::load).sum()
    }

    /// How many requests no worker has yet.
    pub(super) fn in_line(&self) -> usize {
        self.state.borrow().calls.line_len()
    }

    /// How many workers have been replaced.
    pub(super) fn replaced(&self) -> u64 {
        self.state.borrow().replaced
    }

    fn enter(&self, request: Parcel) -> Result<Waiter<'_>, CallReason> {
        let mut state = self.state.borrow_mut();
        if state.is_closing {
            return Err(CallReason::Closed);
        }
        if let Some(died) = state.out_of_service() {
            return Err(CallReason::Died(WorkerDied { unanswered: 0, ..died }));
        }
        let number = state.calls.number();
        state.calls.queue(number, request);
        Ok(Waiter { hub: self, number })
    }

    fn waiter(&self) -> Waiter<'_> {
        Waiter { hub: self, number: self.state.borrow_mut().calls.number() }
    }
}

/// One that waits for something here, from before it does until it is gone by any road.
struct Waiter<'a> {
    hub: &'a Hub,
    /// That of its call, if it makes one.
    number: u64,
}

impl Waiter<'_> {
    /// Does what there is to do, and waits, until there is something `ready`.
    fn wait<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> io::Result<T> {
        loop {
            let mut state = self.hub.state.borrow_mut();
            if let Some(ready) = ready(&mut state) {
                return Ok(ready);
            }
            let now = driver::now();
            state.exchange(now);
            if let Some(ready) = ready(&mut state) {
                return Ok(ready);
            }
            let ticket = park::begin()?;
            if state.is_led_by_another(self.number) {
                state.followers.insert(self.number, ticket);
                drop(state);
                park::wait(ticket, Waiting::Worker, None)?;
                self.hub.state.borrow_mut().followers.remove(&self.number);
                continue;
            }
            state.leader = Some(Leader { number: self.number, ticket });
            let mut interests = Vec::new();
            let deadline = state.ask(now, &mut interests)?;
            drop(state);
            match first::wait(&interests, ticket, Waiting::Worker, deadline) {
                Ok(()) | Err(Interrupt::Deadline) => {}
                Err(interrupt) => return Err(interrupt.into()),
            }
        }
    }

    /// Gives up its call. Says whether a worker may have begun with it.
    fn leave(&self) -> bool {
        self.hub.state.borrow_mut().withdraw(self.number)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut state = self.hub.state.borrow_mut();
        state.withdraw(self.number);
        state.followers.remove(&self.number);
        if !state.is_led_by_another(self.number) {
            state.leader = None;
            state.promote();
        }
    }
}

impl State {
    fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.places.iter().filter_map(|place| place.peer.as_ref())
    }

    /// Does all that can be done now without waiting, and tells those whom it concerns.
    fn exchange(&mut self, now: Instant) {
        for at in 0..self.places.len() {
            self.exchange_with(at, now);
        }
        loop {
            self.replace_dead(now);
            let given = self.hand_out();
            if given.is_empty() {
                break;
            }
            given.into_iter().for_each(|at| self.exchange_with(at, now));
        }
        self.turn_away();
        let replaces = self.replaces();
        if self.places.iter().any(|place| place.asked != place.wants(replaces)) {
            // The leader waits for something else than it should.
            self.leader.as_ref().map(|leader| park::unpark(leader.ticket));
        }
    }

    /// Sends to and hears from the worker in one place.
    fn exchange_with(&mut self, at: usize, now: Instant) {
        let Some(peer) = &mut self.places[at].peer else { return };
        let did_serve = peer.serves();
        let mut answers = Vec::new();
        let end = peer.exchange(now, &mut answers);
        let has_changed = did_serve != peer.serves() || end.is_some();
        for (number, outcome) in answers {
            self.answer(number, outcome);
        }
        if let Some(end) = end {
            self.bury(at, end, now);
        }
        if has_changed {
            self.wake_all();
        }
    }

    /// Gives those in line to the workers that have least to do, and says goodbye to all workers when nothing more will come.
    /// In which places there is something to send now.
    fn hand_out(&mut self) -> Vec<usize> {
        let mut given = Vec::new();
        while self.calls.has_line() {
            let peers = self.places.iter_mut().enumerate();
            let free = peers.filter_map(|(at, place)| Some((at, place.peer.as_mut()?)));
            let free = free.filter(|(_, peer)| peer.has_room());
            let Some((at, peer)) = free.min_by_key(|(_, peer)| peer.load()) else { break };
            let (number, parcel) = self.calls.next().expect("someone is in line");
            peer.give(number, parcel);
            if !given.contains(&at) {
                given.push(at);
            }
        }
        if self.is_closing && !self.calls.has_line() {
            for (at, place) in self.places.iter_mut().enumerate() {
                if place.peer.as_mut().is_some_and(Peer::say_goodbye) {
                    given.push(at);
                }
            }
        }
        given
    }

    /// Leaves an answer for whoever made the call.
    fn answer(&mut self, number: u64, outcome: Outcome) {
        if self.calls.answer(number, outcome) == Caller::Waits {
            self.wake(number);
        }
    }

    /// The worker in one place has ended: its requests are answered by that, or go back into the line.
    fn bury(&mut self, at: usize, end: End, now: Instant) {
        let place = &mut self.places[at];
        place.peer = None;
        place.died = Some(end.died.clone());
        match end.served_since.is_some_and(|since| now >= since + SETTLED) {
            true => (place.pause, place.next_start) = (Duration::ZERO, now),
            false => place.pause_until_next_start(now),
        }
        if end.served_since.is_none() {
            self.start_failure = Some(Arc::new(end.start_error(&self.terms)));
        }
        let unsent: BTreeMap<u64, Parcel> = end.unsent.into_iter().collect();
        for number in end.hands.into_iter().filter(|number| !unsent.contains_key(number)) {
            self.answer(number, Err(Failure::sent(CallReason::Died(end.died.clone()))));
        }
        for (number, parcel) in unsent {
            match self.calls.is_awaited(number) {
                true => self.calls.queue(number, parcel),
                // It was in the middle of being sent when its caller left.
                false => self.calls.forget(number),
            }
        }
    }

    /// Starts workers in the places of those that have ended, where it is time.
    fn replace_dead(&mut self, now: Instant) {
        if !self.replaces() {
            return;
        }
        for place in &mut self.places {
            if place.peer.is_some() || now < place.next_start {
                continue;
            }
            self.replaced += 1;
            match Peer::start(&self.terms) {
                Ok(peer) => place.peer = Some(peer),
                Err(error) => {
                    place.pause_until_next_start(now);
                    self.start_failure = Some(Arc::new(error));
                }
            }
        }
    }

    /// Answers those in line when there is nobody to wait for.
    fn turn_away(&mut self) {
        let is_deserted = self.calls.has_line() && self.peers().next().is_none();
        let reason: Option<Box<dyn Fn() -> CallReason>> =
            match (self.out_of_service(), &self.start_failure) {
                _ if !is_deserted => None,
                (Some(died), _) => {
                    let died = WorkerDied { unanswered: 0, ..died };
                    Some(Box::new(move || CallReason::Died(died.clone())))
                }
                (None, Some(error)) => {
                    let error = Arc::clone(error);
                    Some(Box::new(move || CallReason::NoWorker(Arc::clone(&error))))
                }
                (None, None) => None,
            };
        if let Some(reason) = reason {
            let turned_away = self.calls.answer_line(|| Err(Failure::unsent(reason())));
            turned_away.into_iter().for_each(|number| self.wake(number));
        }
        if self.replacement == Replacement::Always {
            // Whoever comes later waits for the next attempt.
            self.start_failure = None;
        }
    }

    /// How the last worker ended, when there is none and will be none.
    fn out_of_service(&self) -> Option<WorkerDied> {
        let is_out = self.replacement == Replacement::Never && self.peers().next().is_none();
        self.places.iter().find_map(|place| place.died.clone()).filter(|_| is_out)
    }

    /// Whether workers that have ended are to be replaced now.
    fn replaces(&self) -> bool {
        self.replacement == Replacement::Always && (!self.is_closing || self.calls.has_line())
    }

    /// Adds to `interests` all that there is to wait for, and gives the time at which to look anyhow.
    fn ask(&mut self, now: Instant, interests: &mut Vec<Interest>) -> io::Result<Option<Instant>> {
        let replaces = self.replaces();
        let mut deadline: Option<Instant> = None;
        for place in &mut self.places {
            place.asked = place.wants(replaces);
            let until = match &place.peer {
                Some(peer) => peer.ask(now, interests)?,
                None => replaces.then_some(place.next_start),
            };
            deadline = [deadline, until].into_iter().flatten().min();
        }
        debug_assert!(deadline.is_some() || !interests.is_empty(), "somebody waits for nothing");
        Ok(deadline)
    }

    fn is_led_by_another(&self, number: u64) -> bool {
        self.leader.as_ref().is_some_and(|leader| leader.number != number)
    }

    /// Wakes someone to lead, who came last and so waits longest.
    fn promote(&mut self) {
        // One whose ticket is stale has been woken already, and will look for itself.
        self.followers.values().rev().find(|&&ticket| park::unpark(ticket));
    }

    /// Wakes one that has what it waits for.
    fn wake(&self, number: u64) {
        let leader = self.leader.as_ref().filter(|leader| leader.number == number);
        let ticket = self.followers.get(&number).copied().or(leader.map(|leader| leader.ticket));
        ticket.map(park::unpark);
    }

    fn wake_all(&self) {
        let leader = self.leader.iter().map(|leader| leader.ticket);
        for ticket in self.followers.values().copied().chain(leader) {
            park::unpark(ticket);
        }
    }

    /// The caller leaves. Says whether a worker may have begun with its request.
    fn withdraw(&mut self, number: u64) -> bool {
        match self.calls.progress(number) {
            Progress::Sent => {
                let mut peers = self.places.iter_mut().filter_map(|place| place.peer.as_mut());
                let may_have_run =
                    peers.find(|peer| peer.has(number)).is_some_and(|peer| !peer.retract(number));
                match may_have_run {
                    true => self.calls.abandon(number),
                    false => self.calls.forget(number),
                }
                may_have_run
            }
            Progress::Answered { may_have_run } => {
                self.calls.forget(number);
                may_have_run
            }
            Progress::InLine | Progress::Over => {
                self.calls.forget(number);
                false
            }
        }
    }
}

impl Place {
    fn new(terms: &Arc<Terms>) -> Result<Self, StartError> {
        let peer = Peer::start(terms)?;
        let (pause, next_start) = (Duration::ZERO, driver::now());
        Ok(Self { peer: Some(peer), died: None, pause, next_start, asked: None })
    }

    /// The next one is started after a pause, longer than the last.
    fn pause_until_next_start(&mut self, now: Instant) {
        self.pause = (self.pause * 2).clamp(PAUSES[0], PAUSES[1]);
        self.next_start = now + self.pause;
    }

    /// What there is to wait for here.
    fn wants(&self, replaces: bool) -> Option<Wants> {
        match &self.peer {
            Some(peer) => Some(peer.wants()),
            None => replaces.then(|| Wants::until(self.next_start)),
        }
    }
}
