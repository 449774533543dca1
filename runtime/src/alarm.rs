//! What wakes one call of `block_on`, from any thread and any stack.
//!
//! - An alarm is quiet, armed with the number of the wait that it is to end, or rung. Wake-ups that come between two polls
//!   are one: ringing what was rung changes nothing.
//! - Wakers hold the alarm's bell. With the last of them the bell goes, and rings: so a call learns that nobody is left who
//!   could wake it.
//! - A relay keeps a waker that somebody else made, whose code is the user's and must not run on the loop. Ringing the relay
//!   ends the wait of the call that polled; that one wakes the waker, on its tasklet's stack.
//! - A relay outlives no call: when a call ends, it wakes the wakers of all its relays, which are polled again by
//!   whoever has them now and find another call.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    task::{Wake, Waker},
};

use slab::Slab;

use crate::{
    current::with,
    mailbox::Mailbox,
    scheduler::{OnReturn, Scheduler, drop_quietly},
    table::Key,
    wake::Ticket,
};

/// Nobody has rung since the last poll began.
const QUIET: u64 = 0;
/// Somebody has. Neither number is ever that of a wait.
const RUNG: u64 = u64::MAX;

/// One call's alarm.
#[derive(Debug)]
pub(crate) struct Alarm {
    /// [`QUIET`], [`RUNG`], or the number of the wait that is to be ended.
    state: AtomicU64,
    /// Where the tasklet is in its thread's table. Changes from one call to the next, while only the thread has the alarm.
    index: AtomicU32,
    /// That of the tasklet's thread.
    mailbox: Arc<Mailbox>,
    relays: Mutex<Relays>,
}

#[derive(Default, Debug)]
struct Relays {
    /// The waker of each relay, until it is due.
    wakers: Slab<Option<Waker>>,
    /// How many of them are there.
    pending: usize,
    /// Those that the tasklet has to wake.
    due: VecDeque<Waker>,
}

impl Alarm {
    fn new(mailbox: Arc<Mailbox>) -> Alarm {
        Alarm {
            state: AtomicU64::new(QUIET),
            index: AtomicU32::new(0),
            mailbox,
            relays: Mutex::default(),
        }
    }

    // For anyone, on any thread.

    /// The future is to be polled.
    fn ring(&self) {
        match self.state.swap(RUNG, Ordering::AcqRel) {
            QUIET | RUNG => {}
            sequence => self.end_wait(sequence),
        }
    }

    /// Something is due; whether the future is to be polled, the wakers say.
    fn ring_for_relay(&self) {
        let state = self.state.load(Ordering::Acquire);
        let is_armed = state != QUIET && state != RUNG;
        let quiet = |state| {
            self.state.compare_exchange(state, QUIET, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        if is_armed && quiet(state) {
            self.end_wait(state);
        }
    }

    fn end_wait(&self, sequence: u64) {
        let ticket = Ticket { index: self.index.load(Ordering::Relaxed), sequence };
        with(|scheduler| scheduler.wake(&self.mailbox, ticket));
    }

    // For the call.

    /// From now on whoever rings wants another poll.
    pub(crate) fn calm(&self) {
        self.state.swap(QUIET, Ordering::AcqRel);
    }

    /// Has the wait of `ticket` ended by whoever rings. False when somebody has rung already.
    pub(crate) fn arm(&self, ticket: Ticket) -> bool {
        self.index.store(ticket.index, Ordering::Relaxed);
        let armed = self.state.compare_exchange(
            QUIET,
            ticket.sequence,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        // After it is armed: a relay that is rung puts its waker there before it looks whether there is a wait to end.
        armed.is_ok() && self.relays().due.is_empty()
    }

    /// Whether somebody has rung since the last poll began.
    pub(crate) fn was_rung(&self) -> bool {
        self.state.load(Ordering::Acquire) == RUNG
    }

    /// How many relays wait for something outside.
    pub(crate) fn pending_relays(&self) -> usize {
        self.relays().pending
    }

    /// Wakes what is due.
    pub(crate) fn wake_due(&self) {
        // One at a time: if one panics, the others are still there.
        while let Some(waker) = self.next_due() {
            waker.wake();
        }
    }

    fn next_due(&self) -> Option<Waker> {
        self.relays().due.pop_front()
    }

    /// Has all that wait with the call's help look for another. Their wakers are the user's code: what they raise ends here.
    fn dismiss_relays(&self) {
        let mut relays = self.relays();
        let Relays { wakers, pending: _, due } = mem::take(&mut *relays);
        drop(relays);
        for waker in wakers.into_iter().filter_map(|(_, waker)| waker).chain(due) {
            drop_quietly(OnReturn(|| waker.wake_by_ref()));
        }
    }

    /// No code that can panic runs under this lock, so a poisoned one is still sound.
    fn relays(&self) -> MutexGuard<'_, Relays> {
        self.relays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an alarm's wakers share.
#[derive(Debug)]
struct Bell(Arc<Alarm>);

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        self.0.ring();
    }

    fn wake_by_ref(self: &Arc<Bell>) {
        self.0.ring();
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.ring();
    }
}

thread_local! {
    /// Which calls poll at this moment, the innermost of each tasklet last.
    static POLLING: RefCell<Vec<(Key, Arc<Alarm>)>> = const { RefCell::new(Vec::new()) };
    /// The alarm of a call that has ended, for the next one.
    static SPARE: Cell<Option<Ringing>> = const { Cell::new(None) };
}

/// An alarm with the waker that its call has.
#[derive(Debug)]
pub(crate) struct Ringing {
    pub(crate) alarm: Arc<Alarm>,
    bell: Weak<Bell>,
    /// Ours; away while the loop may let it go.
    waker: Option<Waker>,
}

impl Ringing {
    /// For a call of the tasklet that runs.
    pub(crate) fn new() -> Ringing {
        let spare = SPARE.try_with(Cell::take).ok().flatten();
        spare.unwrap_or_else(|| {
            let alarm = Arc::new(Alarm::new(with(Scheduler::settled_mailbox)));
            let bell = Arc::new(Bell(alarm.clone()));
            Ringing { alarm, bell: Arc::downgrade(&bell), waker: Some(bell.into()) }
        })
    }

    /// The waker that the call has, made anew when the last one has been let go and nobody else has kept it.
    pub(crate) fn waker(&mut self) -> &Waker {
        self.waker.get_or_insert_with(|| {
            let bell = self.bell.upgrade().unwrap_or_else(|| Arc::new(Bell(self.alarm.clone())));
            self.bell = Arc::downgrade(&bell);
            bell.into()
        })
    }

    /// How many others have the waker.
    pub(crate) fn others(&self) -> usize {
        self.bell.strong_count() - usize::from(self.waker.is_some())
    }

    pub(crate) fn take_waker(&mut self) -> Waker {
        self.waker();
        self.waker.take().expect("it was made if there was none")
    }

    pub(crate) fn put_back(&mut self, waker: Option<Waker>) {
        self.waker = waker;
    }

    /// The call has ended.
    pub(crate) fn end(mut self) {
        self.alarm.calm();
        self.alarm.dismiss_relays();
        self.waker();
        // Our two references, and that of the bell.
        let is_ours = self.bell.strong_count() == 1 && Arc::strong_count(&self.alarm) == 2;
        if is_ours && !with(Scheduler::has_ended) {
            SPARE.try_with(|spare| drop(spare.replace(Some(self)))).ok();
        }
    }
}

/// A poll under way.
#[derive(Debug)]
pub(crate) struct Polling(Key);

impl Polling {
    /// `alarm`'s call polls, on the tasklet that runs.
    pub(crate) fn begin(alarm: &Arc<Alarm>) -> Polling {
        let key = with(Scheduler::current_key);
        POLLING.try_with(|calls| calls.borrow_mut().push((key, alarm.clone()))).ok();
        Polling(key)
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        let ended = POLLING.try_with(|calls| {
            let mut calls = calls.borrow_mut();
            let place = calls.iter().rposition(|(key, _)| *key == self.0)?;
            Some(calls.remove(place))
        });
        drop(ended);
    }
}

/// The alarm of the innermost call that polls on the tasklet that runs.
fn polling() -> Option<Arc<Alarm>> {
    let me = with(Scheduler::current_key);
    let find = |calls: &RefCell<Vec<(Key, Arc<Alarm>)>>| {
        let calls = calls.borrow();
        calls.iter().rfind(|(key, _)| *key == me).map(|(_, alarm)| alarm.clone())
    };
    POLLING.try_with(find).ok().flatten()
}

/// A task's waker, kept to be woken by the [`block_on`](crate::block_on) that polls the task: for a driver, on whose account
/// no code of the user may run. Ringing it has the call wake the waker on its own tasklet's stack, once.
///
/// When that call ends first, it wakes the waker then: whoever polls the task next makes another relay.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::park::Relay;
/// use std::{future::poll_fn, sync::Arc, task::Poll};
///
/// let mut relay = None;
/// pila::block_on(poll_fn(|context| {
///     let Some(relay) = &relay else {
///         let made = relay.insert(Arc::new(Relay::new(context.waker()).unwrap())).clone();
///         std::thread::spawn(move || made.ring());
///         return Poll::Pending;
///     };
///     if relay.is_pending() { Poll::Pending } else { Poll::Ready(()) }
/// }));
/// ```
#[derive(Debug)]
pub struct Relay {
    alarm: Arc<Alarm>,
    key: usize,
}

impl Relay {
    /// A relay of the [`block_on`](crate::block_on) that polls on the tasklet that runs; of the innermost one, if there are
    /// several. None outside of any.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use std::task::Waker;
    ///
    /// assert!(pila::park::Relay::new(Waker::noop()).is_none());
    /// ```
    #[must_use]
    pub fn new(waker: &Waker) -> Option<Relay> {
        let alarm = polling()?;
        let waker = waker.clone();
        let mut relays = alarm.relays();
        relays.pending += 1;
        let key = relays.wakers.insert(Some(waker));
        drop(relays);
        Some(Relay { alarm, key })
    }

    /// Has it wake `waker` from now on, also when it was rung before. False when it belongs to another call than the one that
    /// polls: then a new one is needed.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::park::Relay;
    /// use std::{future::poll_fn, task::Poll};
    ///
    /// let relay = pila::block_on(poll_fn(|context| {
    ///     let relay = Relay::new(context.waker()).unwrap();
    ///     relay.ring();
    ///     assert!(relay.renew(context.waker()) && relay.is_pending());
    ///     Poll::Ready(relay)
    /// }));
    /// pila::block_on(poll_fn(|context| {
    ///     assert!(!relay.renew(context.waker()));
    ///     Poll::Ready(())
    /// }));
    /// ```
    pub fn renew(&self, waker: &Waker) -> bool {
        if !polling().is_some_and(|alarm| Arc::ptr_eq(&alarm, &self.alarm)) {
            return false;
        }
        let kept = self.take();
        let waker = kept.filter(|kept| kept.will_wake(waker)).unwrap_or_else(|| waker.clone());
        let mut relays = self.alarm.relays();
        relays.pending += 1;
        relays.wakers[self.key] = Some(waker);
        true
    }

    /// Has its waker woken, once, by the call that it belongs to. From any thread. Runs no code of the user.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::park::Relay;
    /// use std::{future::poll_fn, task::Poll};
    ///
    /// pila::block_on(poll_fn(|context| {
    ///     let relay = Relay::new(context.waker()).unwrap();
    ///     relay.ring();
    ///     assert!(!relay.is_pending());
    ///     Poll::Ready(())
    /// }));
    /// ```
    pub fn ring(&self) {
        let mut relays = self.alarm.relays();
        let Some(waker) = relays.wakers.get_mut(self.key).and_then(Option::take) else { return };
        relays.pending -= 1;
        relays.due.push_back(waker);
        drop(relays);
        self.alarm.ring_for_relay();
    }

    /// Whether it has neither been rung nor cancelled.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::park::Relay;
    /// use std::{future::poll_fn, task::Poll};
    ///
    /// let relay = pila::block_on(poll_fn(|context| {
    ///     let relay = Relay::new(context.waker()).unwrap();
    ///     assert!(relay.is_pending());
    ///     Poll::Ready(relay)
    /// }));
    /// assert!(!relay.is_pending());
    /// ```
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.alarm.relays().wakers.get(self.key).is_some_and(Option::is_some)
    }

    /// Forgets its waker, which is dropped here.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::park::Relay;
    /// use std::{future::poll_fn, task::Poll};
    ///
    /// pila::block_on(poll_fn(|context| {
    ///     let relay = Relay::new(context.waker()).unwrap();
    ///     relay.cancel();
    ///     assert!(!relay.is_pending());
    ///     Poll::Ready(())
    /// }));
    /// ```
    pub fn cancel(&self) {
        if self.take().is_some() {
            // Its call may be left with nothing that could wake it, and has to see that for itself.
            self.alarm.ring_for_relay();
        }
    }

    fn take(&self) -> Option<Waker> {
        let mut relays = self.alarm.relays();
        let waker = relays.wakers.get_mut(self.key).and_then(Option::take)?;
        relays.pending -= 1;
        Some(waker)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cancel();
        self.alarm.relays().wakers.try_remove(self.key);
    }
}
