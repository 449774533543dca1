//! Park and unpark: the only door through which anything waits.
//!
//! - A wait begins with [`begin`], which hands out its [`Ticket`]. The ticket is put wherever something may happen: in
//!   a channel, at a socket, with a deadline. Then [`wait`] switches away.
//! - The first [`unpark`] of the ticket ends the wait; all later ones find nothing to wake and change nothing.
//! - [`wait`] may unwind: what it was registered with has to be left by a guard.
//!
//! For those who build waiting of their own: sockets of another kind, other channels.
//!
//! ```
//! # use pila_runtime as pila;
//! use std::{cell::Cell, rc::Rc};
//! use pila::park::{self, Waiting};
//!
//! let place = Rc::new(Cell::new(None));
//! let theirs = place.clone();
//! pila::tasklet(move || {
//!     theirs.set(Some(park::begin().unwrap()));
//!     park::wait(theirs.get().unwrap(), Waiting::Insert, None).unwrap();
//! });
//! pila::schedule();
//! assert!(park::unpark(place.get().unwrap()));
//! assert!(!park::unpark(place.get().unwrap()));
//! assert_eq!(pila::run().finished, 1);
//! ```

use std::{marker::PhantomData, sync::Arc, time::Instant};

pub use crate::alarm::Relay;
pub use crate::error::Interrupt;
pub use crate::wake::{Ticket, Waiting};
use crate::{
    current,
    error::Refused,
    mailbox::{Heir, Mailbox},
};

/// Begins a wait of the tasklet that runs and hands out its ticket. A ticket that is never waited with does nothing.
///
/// # Errors
/// [`Interrupt::Refused`] when the tasklet may not wait: it unwinds, or its thread is ending.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::park::{self, Interrupt};
///
/// assert_ne!(park::begin()?, park::begin()?);
/// let guard = pila::no_switch();
/// assert!(matches!(park::begin(), Err(Interrupt::Refused(_))));
/// # drop(guard);
/// # Ok::<(), Interrupt>(())
/// ```
#[inline]
pub fn begin() -> Result<Ticket, Interrupt> {
    current::with(|scheduler| scheduler.begin()).map_err(Interrupt::Refused)
}

/// Lets others run until `ticket` is unparked or `deadline` has passed.
///
/// # Errors
/// [`Interrupt::Deadline`], never early; [`Interrupt::Deadlock`] when nothing could ever unpark the ticket;
/// [`Interrupt::Refused`] when the tasklet may not wait any more; [`Interrupt::Thrown`].
///
/// # Panics
/// With the panic of another tasklet, when it is main that waits and nobody holds that tasklet's handle. When `ticket`
/// was made for another tasklet.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::park::{self, Interrupt, Waiting};
///
/// let nobody_knows_it = park::begin()?;
/// let ended = park::wait(nobody_knows_it, Waiting::Insert, None);
/// assert!(matches!(ended, Err(Interrupt::Deadlock(_))));
/// # Ok::<(), Interrupt>(())
/// ```
#[inline]
pub fn wait(ticket: Ticket, waiting: Waiting, deadline: Option<Instant>) -> Result<(), Interrupt> {
    current::with(|scheduler| {
        // The ticket may be older than a panic that has begun since.
        scheduler.check_switch().map_err(Interrupt::Refused)?;
        let deadline = deadline.map(|deadline| scheduler.nanoseconds(deadline));
        scheduler.wait(ticket, &waiting, deadline)
    })
}

/// Ends the wait of `ticket`: its tasklet goes to the tail of the run queue. False when that wait is over, or has not
/// begun. Only on the thread that made the ticket.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::park::{self, Waiting};
///
/// let ticket = park::begin()?;
/// let other = pila::tasklet(move || (park::unpark(ticket), park::unpark(ticket)));
/// park::wait(ticket, Waiting::Insert, None)?;
/// assert_eq!(other.join().unwrap(), (true, false));
/// # Ok::<(), park::Interrupt>(())
/// ```
#[inline]
pub fn unpark(ticket: Ticket) -> bool {
    current::with(|scheduler| scheduler.unpark(ticket))
}

/// Whether the tasklet that runs may wait now.
///
/// # Errors
/// Why it may not.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::{Refused, park};
///
/// struct Late;
/// impl Drop for Late {
///     fn drop(&mut self) {
///         assert_eq!(park::check(), Err(Refused::Unwinding));
///     }
/// }
/// assert_eq!(park::check(), Ok(()));
/// let unwinds = pila::tasklet(|| {
///     let _late = Late;
///     panic!("no way")
/// });
/// unwinds.join().unwrap_err();
/// ```
#[inline]
pub fn check() -> Result<(), Refused> {
    current::with(|scheduler| scheduler.check())
}

/// Counts work that is done without waiting, against the stint of the thread: 128 units, of which there are as many again
/// whenever the scheduler looks outside.
///
/// For calls that wait only when they have to, as those on a socket: whoever makes one after the other and never has to
/// wait would stop everybody else. Such a call begins with [`make_way`], if the stint [is spent](is_spent), and costs a unit
/// or more.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::park;
/// use std::{cell::Cell, rc::Rc};
///
/// fn busy_call() {
///     if park::is_spent() {
///         park::make_way();
///     }
///     park::spend(1);
/// }
///
/// let calls = Rc::new(Cell::new(0));
/// let counted = calls.clone();
/// pila::tasklet(move || {
///     loop {
///         busy_call();
///         counted.set(counted.get() + 1);
///     }
/// });
/// pila::schedule(); // comes back, though nobody there ever waits
/// assert!(calls.get() <= 128);
/// ```
#[inline]
pub fn spend(units: u32) {
    current::with(|scheduler| scheduler.spend(units));
}

/// Whether nothing is left of the thread's stint, and who goes on without waiting should [make way](make_way).
///
/// ```
/// # use pila_runtime as pila;
/// use pila::park;
///
/// assert!(!park::is_spent());
/// park::spend(1_000);
/// assert!(park::is_spent());
/// ```
#[inline]
#[must_use]
pub fn is_spent() -> bool {
    current::with(|scheduler| scheduler.is_spent())
}

/// Lets everyone who can run have a turn, after a look outside for those whose time or whose news has come. Then there is
/// a new stint.
///
/// Does nothing where nobody may switch: under a [`no_switch`](crate::no_switch) guard, or while the tasklet is being ended.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::park;
/// use std::time::{Duration, Instant};
///
/// let sleeper = pila::tasklet(|| pila::sleep(Duration::from_millis(1)));
/// pila::schedule();
/// let start = Instant::now();
/// while start.elapsed() < Duration::from_millis(2) {}
/// park::make_way();
/// assert!(!sleeper.is_alive());
/// ```
pub fn make_way() {
    current::with(|scheduler| scheduler.make_way());
}

/// Makes a handle with which any thread can end the wait of `ticket`. Only on the thread that made the ticket.
///
/// The wait should say [`Waiting::Outside`], so that the scheduler waits for the other thread instead of calling it a
/// deadlock; it does so even when every waker is gone. Between [`begin`] and [`wait`] the tasklet must not switch: a
/// wake that comes before the wait is kept for it only until the next switch.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::park::{self, Waiting};
///
/// let ticket = park::begin().unwrap();
/// let waker = park::waker(ticket);
/// let other = std::thread::spawn(move || waker.wake());
/// park::wait(ticket, Waiting::Outside, None).unwrap();
/// assert!(other.join().unwrap());
/// ```
#[must_use]
pub fn waker(ticket: Ticket) -> Waker {
    Waker { mailbox: current::with(|scheduler| scheduler.mailbox()), ticket }
}

/// Ends one wait of one tasklet, from any thread. Clones end the same wait.
///
/// Whoever is first ends the wait; one that comes later, or after the tasklet or its thread has ended, changes nothing.
/// A waker keeps neither of them alive.
///
/// ```
/// # use pila_runtime as pila;
/// use std::time::Duration;
/// use pila::{driver, park::{self, Interrupt, Waiting}};
///
/// let ticket = park::begin().unwrap();
/// let waker = park::waker(ticket);
/// let deadline = driver::now() + Duration::from_millis(1);
/// let ended = park::wait(ticket, Waiting::Outside, Some(deadline));
/// assert!(matches!(ended, Err(Interrupt::Deadline)));
/// assert!(!waker.wake());
/// ```
#[derive(Clone, Debug)]
pub struct Waker {
    /// That of the thread whose tasklet waits.
    mailbox: Arc<Mailbox>,
    ticket: Ticket,
}

impl Waker {
    /// Ends the wait: its tasklet goes to the tail of its thread's run queue.
    ///
    /// On the tasklet's own thread this is [`unpark`] and says whether there was a wait to end. From another thread it
    /// takes effect when that thread next looks outside, at the latest when it has nobody to run; it is false when that
    /// thread has ended, and otherwise true, whatever becomes of the tasklet until then.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::park::{self, Waiting};
    ///
    /// let ticket = park::begin()?;
    /// let waker = park::waker(ticket);
    /// let other = pila::tasklet(move || (waker.wake(), waker.wake()));
    /// park::wait(ticket, Waiting::Outside, None)?;
    /// assert_eq!(other.join().unwrap(), (true, false));
    /// # Ok::<(), park::Interrupt>(())
    /// ```
    pub fn wake(&self) -> bool {
        current::with(|scheduler| scheduler.wake(&self.mailbox, self.ticket))
    }

    /// Wakes the wait if it goes on. False only when its thread has ended, and nobody is left to pass the wake-up on.
    pub(crate) fn reach(&self) -> bool {
        let is_own = current::with(|scheduler| scheduler.is_own(&self.mailbox));
        self.wake() || is_own
    }
}

/// While it lives, an heir is told should the thread end.
#[derive(Debug)]
pub(crate) struct Inheritance {
    key: usize,
    /// A key means something on one thread only.
    on_its_thread: PhantomData<*const ()>,
}

/// Has `heir` told when the calling thread ends before what this returns is dropped.
pub(crate) fn inherit(heir: Arc<dyn Heir>, number: u64) -> Inheritance {
    let key = current::with(|scheduler| scheduler.inherit(heir, number));
    Inheritance { key, on_its_thread: PhantomData }
}

impl Drop for Inheritance {
    fn drop(&mut self) {
        current::with(|scheduler| scheduler.disinherit(self.key));
    }
}
