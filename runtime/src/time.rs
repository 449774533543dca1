//! Waiting for time to pass.

use std::time::Duration;

use crate::{current, wake::Waiting};

/// Lets others run until `duration` has passed: never less. Other tasklets that are runnable by then go first.
///
/// A tasklet that unwinds from a panic does not wait, nor does one of a thread that is ending.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let start = Instant::now();
/// for _ in 0..1000 {
///     pila_runtime::tasklet(|| pila_runtime::sleep(Duration::from_millis(20)));
/// }
/// pila_runtime::run();
/// assert!(start.elapsed() >= Duration::from_millis(20));
/// assert!(start.elapsed() < Duration::from_secs(2));
/// ```
pub fn sleep(duration: Duration) {
    current::with(|scheduler| {
        let Ok(ticket) = scheduler.begin() else { return };
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let deadline = scheduler.now().saturating_add(nanoseconds);
        // Only the deadline ends it.
        let _ = scheduler.wait(ticket, Waiting::Sleep, Some(deadline));
    });
}
