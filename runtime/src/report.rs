//! Who waits for what: the report that a deadlock carries.
//!
//! - It holds copies only, so it outlives its tasklets and may go to another thread.

use std::{collections::BTreeMap, fmt, panic::Location, sync::Arc, time::Duration};

use crate::wake::{TaskletId, Waiting};

/// A tasklet, as messages name it: `'mail-17' (#4711)`, or `#4711` when it has no name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Who {
    /// Its number.
    pub id: TaskletId,
    /// The name it was given, if any.
    pub name: Option<Arc<str>>,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "'{name}' ({})", self.id),
            None => write!(f, "{}", self.id),
        }
    }
}

/// One tasklet that waits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Waiter {
    /// Which one.
    pub who: Who,
    /// Where it was created.
    pub created: &'static Location<'static>,
    /// What it waits for.
    pub waiting: Waiting,
    /// Who holds the lock that it waits for; one of them, when several read.
    pub holder: Option<Who>,
    /// For how long, to the precision of a turn of the loop.
    pub since: Duration,
}

/// Every tasklet of a thread that waits, made when none of them can go on.
///
/// `Display` gives a line for each tasklet; those created at one place that wait for the same are counted together.
///
/// ```
/// let nobody_sends = pila_runtime::Channel::<()>::new();
/// let error = nobody_sends.receive().unwrap_err();
/// assert!(error.to_string().contains("'main' (#0)"), "{error}");
/// assert!(error.to_string().contains("waits for a sender on channel 1"), "{error}");
/// ```
#[derive(Clone, Debug)]
pub struct Report {
    pub(crate) waiters: Arc<[Waiter]>,
}

impl Report {
    /// The tasklets that wait, in the order of their creation.
    #[must_use]
    pub fn waiters(&self) -> &[Waiter] {
        &self.waiters
    }
}

/// Tasklets that a report names one by one before it only counts them.
const NAMED: usize = 3;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "deadlock: nothing can run, and nothing outside can wake anyone")?;
        let mut groups = BTreeMap::<_, Vec<&Waiter>>::new();
        for waiter in &*self.waiters {
            let created = match waiter.who.id {
                TaskletId::MAIN => String::new(),
                _ => format!(", created at {}", waiter.created),
            };
            let mut waiting = waiter.waiting.to_string();
            if let Some(holder) = &waiter.holder {
                waiting += &format!(", held by {holder}");
            }
            let key = (created, waiting);
            groups.entry(key).or_default().push(waiter);
        }
        for ((created, waiting), waiters) in groups {
            let names: Vec<_> =
                waiters.iter().take(NAMED).map(|waiter| waiter.who.to_string()).collect();
            let names = names.join(", ");
            match waiters.len() - waiters.len().min(NAMED) {
                0 => write!(f, "\n  {names}{created}: {waiting}")?,
                more => write!(f, "\n  {names} and {more} more{created}: {waiting}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
