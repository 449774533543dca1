//! A guard under which no switch happens.

use std::{fmt, marker::PhantomData, panic::Location};

use crate::{current::with, table::Key};

/// Forbids the caller to switch while the guard lives: an assertion that nobody else runs meanwhile.
///
/// An operation that would switch fails with [`Refused::NoSwitch`](crate::Refused::NoSwitch), or panics where it has no
/// `Result`, and changes nothing. What does not switch stays possible: creating and inserting tasklets, receiving from a
/// sender that waits. Guards nest.
///
/// Stackless: `stackless.switch_trap`.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::{Channel, Refused, ReceiveError};
///
/// let guard = pila::no_switch();
/// let refused = Channel::<()>::new().receive();
/// assert!(matches!(refused, Err(ReceiveError::Refused(Refused::NoSwitch(_)))));
/// drop(guard);
/// ```
#[must_use = "the guard forbids switches only while it lives"]
#[track_caller]
pub fn no_switch() -> NoSwitch {
    let place = Location::caller();
    let whose = with(|scheduler| scheduler.forbid_switches(place));
    NoSwitch { place, whose, on_its_thread: PhantomData }
}

/// What [`no_switch`] gives.
///
/// ```
/// # use pila_runtime as pila;
/// let tasklet = pila::tasklet(|| ());
/// let guard: pila::NoSwitch = pila::no_switch();
/// assert!(tasklet.run().is_err());
/// drop(guard);
/// assert!(tasklet.run().is_ok());
/// ```
pub struct NoSwitch {
    place: &'static Location<'static>,
    whose: Key,
    on_its_thread: PhantomData<*const ()>,
}

impl fmt::Debug for NoSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoSwitch({})", self.place)
    }
}

impl Drop for NoSwitch {
    fn drop(&mut self) {
        with(|scheduler| scheduler.allow_switches(self.whose));
    }
}
