//! Waiting for time to pass.

use std::time::Duration;

use crate::{current::with, error::Refused, wake::Waiting};

/// Lets others run until `duration` has passed: never less. Other tasklets that are runnable by then go first.
///
/// A tasklet that unwinds from a panic or was killed does not wait, nor does one of a thread that is ending.
///
/// # Panics
/// Inside a [`no_switch`](crate::no_switch) guard.
///
/// ```
/// # use pila_runtime as pila;
/// use std::time::{Duration, Instant};
///
/// let start = Instant::now();
/// for _ in 0..1000 {
///     pila::tasklet(|| pila::sleep(Duration::from_millis(20)));
/// }
/// pila::run();
/// assert!(start.elapsed() >= Duration::from_millis(20));
/// assert!(start.elapsed() < Duration::from_secs(2));
/// ```
pub fn sleep(duration: Duration) {
    with(|scheduler| {
        let ticket = match scheduler.begin_sleep() {
            Ok(ticket) => ticket,
            Err(guard @ Refused::NoSwitch(_)) => panic!("sleep: {guard}"),
            Err(_) => return,
        };
        // Only the deadline ends it.
        let _ = scheduler.wait(
            ticket,
            &Waiting::Sleep,
            Some(scheduler.deadline_in(duration).unwrap_or(u64::MAX)),
        );
    });
}
