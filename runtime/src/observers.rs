//! Callbacks that watch switches and channel operations, for debugging and tests of order.
//!
//! - Both belong to the thread. They run on the stack of the tasklet that switches or operates, never on the loop's.
//! - While one runs, nothing switches, as under a [`no_switch`](crate::no_switch) guard, and no callback is called.
//! - A panic of a callback takes it out and goes where an unheld panic goes: to the innermost `run`, or to main.

use std::{
    cell::RefCell,
    fmt,
    panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind},
    rc::Rc,
};

use crate::{
    current::with,
    ending::{is_kill, is_strike},
    scheduler::Scheduler,
    table::Flags,
    tasklet::{self, Handle},
    wake::ChannelId,
};

/// Called with the tasklet that ran before and the one that goes on now.
///
/// ```
/// # use pila_runtime as pila;
/// use std::{cell::Cell, rc::Rc};
///
/// let switches = Rc::new(Cell::new(0));
/// let theirs = switches.clone();
/// let count: pila::ScheduleCallback = Rc::new(move |_, _| theirs.set(theirs.get() + 1));
/// pila::set_schedule_callback(Some(count));
/// pila::tasklet(|| ()).join().unwrap();
/// assert_eq!(switches.get(), 2); // there and back
/// # pila::set_schedule_callback(None);
/// ```
pub type ScheduleCallback = Rc<dyn Fn(&Handle, &Handle)>;

/// Called with what a channel is about to do.
///
/// ```
/// # use pila_runtime as pila;
/// use std::{cell::Cell, rc::Rc};
///
/// let operations = Rc::new(Cell::new(0));
/// let theirs = operations.clone();
/// let count: pila::ChannelCallback = Rc::new(move |_| theirs.set(theirs.get() + 1));
/// pila::set_channel_callback(Some(count));
/// pila::Channel::with_capacity(1).send(()).unwrap();
/// assert_eq!(operations.get(), 1);
/// # pila::set_channel_callback(None);
/// ```
pub type ChannelCallback = Rc<dyn Fn(&ChannelEvent)>;

/// An operation that a channel is about to do.
///
/// ```
/// # use pila_runtime as pila;
/// use std::rc::Rc;
/// use pila::{Channel, ChannelEvent};
///
/// let channel = Channel::with_capacity(1);
/// let id = channel.id();
/// pila::set_channel_callback(Some(Rc::new(move |event: &ChannelEvent| {
///     assert!(event.channel == id && event.tasklet.is_main());
///     assert!(event.sending && !event.will_block);
/// })));
/// channel.send(()).unwrap();
/// # pila::set_channel_callback(None);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChannelEvent {
    /// Which channel.
    pub channel: ChannelId,
    /// The tasklet that sends or receives.
    pub tasklet: Handle,
    /// Whether it sends.
    pub sending: bool,
    /// Whether it is going to wait, or would have to.
    pub will_block: bool,
}

thread_local! {
    static OBSERVERS: RefCell<Observers> = const { RefCell::new(Observers::new()) };
}

struct Observers {
    /// Each with where it was set: what a switch inside it is refused with.
    schedule: Option<(ScheduleCallback, Place)>,
    channel: Option<(ChannelCallback, Place)>,
    /// Who went on last.
    previous: Option<Handle>,
}

type Place = &'static Location<'static>;

impl Observers {
    const fn new() -> Observers {
        Observers { schedule: None, channel: None, previous: None }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observers").finish_non_exhaustive()
    }
}

/// Calls `callback` at every switch of this thread, on the stack of the tasklet that goes on, before it does. Gives the
/// callback that was there. `None` stops it.
///
/// The end of a tasklet is a switch from it. A call that comes back to its caller without a switch is none.
///
/// Stackless: `stackless.set_schedule_callback(callable)`.
///
/// ```
/// # use pila_runtime as pila;
/// use std::{cell::RefCell, rc::Rc};
///
/// let trace = Rc::new(RefCell::new(Vec::new()));
/// let theirs = trace.clone();
/// pila::set_schedule_callback(Some(Rc::new(move |from, to| {
///     theirs.borrow_mut().push((from.id().get(), to.id().get()));
/// })));
/// pila::tasklet(|| ());
/// pila::run();
/// assert_eq!(*trace.borrow(), [(0, 1), (1, 0)]);
/// # pila::set_schedule_callback(None);
/// ```
#[track_caller]
pub fn set_schedule_callback(callback: Option<ScheduleCallback>) -> Option<ScheduleCallback> {
    with(|scheduler| scheduler.observe(Flags::SWITCHES_SEEN, callback.is_some(), switched));
    let (current, place) = (tasklet::current(), Location::caller());
    observers(|observers| {
        observers.previous = Some(current);
        std::mem::replace(&mut observers.schedule, callback.zip(Some(place)))
    })
    .map(|(callback, _)| callback)
}

/// The callback that is called at every switch.
///
/// ```
/// # use pila_runtime as pila;
/// assert!(pila::schedule_callback().is_none());
/// ```
#[must_use]
pub fn schedule_callback() -> Option<ScheduleCallback> {
    observers(|observers| observers.schedule.clone()).map(|(callback, _)| callback)
}

/// Calls `callback` before every operation on a channel of this thread. Gives the callback that was there. `None` stops
/// it.
///
/// Stackless: `stackless.set_channel_callback(callable)`.
///
/// ```
/// # use pila_runtime as pila;
/// use std::{cell::Cell, rc::Rc};
///
/// let blocked = Rc::new(Cell::new(0));
/// let theirs = blocked.clone();
/// pila::set_channel_callback(Some(Rc::new(move |event| {
///     theirs.set(theirs.get() + i32::from(event.will_block));
/// })));
/// let channel = pila::Channel::new();
/// let sender = channel.clone();
/// pila::tasklet(move || sender.send(1));
/// pila::run();
/// assert_eq!(channel.receive().unwrap(), 1);
/// assert_eq!(blocked.get(), 1);
/// # pila::set_channel_callback(None);
/// ```
#[track_caller]
pub fn set_channel_callback(callback: Option<ChannelCallback>) -> Option<ChannelCallback> {
    with(|scheduler| scheduler.observe(Flags::CHANNELS_SEEN, callback.is_some(), switched));
    let place = Location::caller();
    observers(|observers| std::mem::replace(&mut observers.channel, callback.zip(Some(place))))
        .map(|(callback, _)| callback)
}

/// The callback that is called before every operation on a channel.
///
/// ```
/// # use pila_runtime as pila;
/// assert!(pila::channel_callback().is_none());
/// ```
#[must_use]
pub fn channel_callback() -> Option<ChannelCallback> {
    observers(|observers| observers.channel.clone()).map(|(callback, _)| callback)
}

/// Looks at the thread's callbacks, unless the thread is ending and they are gone.
fn observers<T>(look: impl FnOnce(&mut Observers) -> Option<T>) -> Option<T> {
    OBSERVERS.try_with(|observers| look(&mut observers.borrow_mut())).ok()?
}

/// Tells the channel callback of an operation that is about to happen.
#[cold]
pub(crate) fn operation(
    scheduler: &Scheduler,
    channel: ChannelId,
    sending: bool,
    will_block: bool,
) {
    let Some((callback, place)) = observers(|observers| observers.channel.clone()) else { return };
    let event = ChannelEvent { channel, tasklet: tasklet::current(), sending, will_block };
    call(scheduler, place, || callback(&event), || drop(set_channel_callback(None)));
}

/// Tells the schedule callback that the tasklet that runs goes on.
fn switched(scheduler: &Scheduler) {
    let current = tasklet::current();
    let seen = observers(|observers| {
        Some((observers.schedule.clone()?, observers.previous.replace(current.clone())?))
    });
    let Some(((callback, place), previous)) = seen else { return };
    if previous.id() != current.id() {
        let callback = || callback(&previous, &current);
        call(scheduler, place, callback, || drop(set_schedule_callback(None)));
    }
}

/// Calls a callback under its rules. When it panics, `take_out` forgets it.
fn call(scheduler: &Scheduler, place: Place, callback: impl FnOnce(), take_out: impl FnOnce()) {
    scheduler.pause_observers();
    let whose = scheduler.forbid_switches(place);
    let result = catch_unwind(AssertUnwindSafe(callback));
    scheduler.allow_switches(whose);
    scheduler.resume_observers();
    match result {
        Ok(()) => {}
        // The callback killed the tasklet it runs on, or was the first to ask whether it may wait after a strike.
        Err(payload) if is_kill(&*payload) || is_strike(&*payload) => resume_unwind(payload),
        Err(payload) => {
            take_out();
            scheduler.raise_now(payload);
        }
    }
}
