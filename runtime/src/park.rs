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
//! use std::{cell::Cell, rc::Rc};
//! use pila_runtime::park::{self, Waiting};
//!
//! let place = Rc::new(Cell::new(None));
//! let theirs = place.clone();
//! pila_runtime::tasklet(move || {
//!     theirs.set(Some(park::begin().unwrap()));
//!     park::wait(theirs.get().unwrap(), Waiting::Insert, None).unwrap();
//! });
//! pila_runtime::schedule();
//! assert!(park::unpark(place.get().unwrap()));
//! assert!(!park::unpark(place.get().unwrap()));
//! assert_eq!(pila_runtime::run().finished, 1);
//! ```

use std::time::Instant;

pub use crate::error::Interrupt;
pub use crate::wake::{Ticket, Waiting};
use crate::{current, error::Refused};

/// Begins a wait of the tasklet that runs and hands out its ticket. A ticket that is never waited with does nothing.
///
/// # Errors
/// [`Interrupt::Refused`] when the tasklet may not wait: it unwinds, or its thread is ending.
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
#[inline]
pub fn wait(ticket: Ticket, waiting: Waiting, deadline: Option<Instant>) -> Result<(), Interrupt> {
    current::with(|scheduler| {
        // The ticket may be older than a panic that has begun since.
        scheduler.check_switch().map_err(Interrupt::Refused)?;
        let deadline = deadline.map(|deadline| scheduler.nanoseconds(deadline));
        scheduler.wait(ticket, waiting, deadline)
    })
}

/// Ends the wait of `ticket`: its tasklet goes to the tail of the run queue. False when that wait is over, or has not
/// begun. Only on the thread that made the ticket.
#[inline]
pub fn unpark(ticket: Ticket) -> bool {
    current::with(|scheduler| scheduler.unpark(ticket))
}

/// Whether the tasklet that runs may wait now.
///
/// # Errors
/// Why it may not.
#[inline]
pub fn check() -> Result<(), Refused> {
    current::with(|scheduler| scheduler.check())
}
