//! Who waits for what: the report that a deadlock carries, and that of those whom `run` has left.
//!
//! - It holds copies only, so it outlives its tasklets and may go to another thread.

use std::{collections::HashMap, fmt, panic::Location, sync::Arc, time::Duration};

use crate::wake::{TaskletId, Waiting};

/// A tasklet, as messages name it: `'mail-17' (#4711)`, or `#4711` when it has no name.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::TaskletError;
///
/// let tasklet = pila::Builder::new().name("mail-17").tasklet(|| ())?;
/// pila::run();
/// let Err(TaskletError::Dead(who)) = tasklet.run() else { unreachable!() };
/// assert_eq!((who.id, who.to_string()), (tasklet.id(), "'mail-17' (#1)".to_owned()));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
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

/// A tasklet and where it comes from: `'mail-17' (#4711, created at src/main.rs:12:5)`, or `#4711 (created at
/// src/main.rs:12:5)`.
pub(crate) struct Origin<'a> {
    pub(crate) who: &'a Who,
    pub(crate) created: &'static Location<'static>,
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Who { id, name } = self.who;
        match name {
            _ if *id == TaskletId::MAIN => write!(f, "{}", self.who),
            Some(name) => write!(f, "'{name}' ({id}, created at {})", self.created),
            None => write!(f, "{id} (created at {})", self.created),
        }
    }
}

/// One tasklet that waits.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::{Channel, ReceiveError, Waiting};
///
/// let channel = Channel::<()>::new();
/// let Err(ReceiveError::Deadlock(report)) = channel.receive() else { unreachable!() };
/// let waiter = &report.waiters()[0];
/// assert_eq!(waiter.waiting, Waiting::Receive(channel.id()));
/// assert!(waiter.holder.is_none());
/// ```
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

/// Every tasklet of a thread that waits, made when none of them can go on, or by [`leftovers`](crate::leftovers).
///
/// `Display` gives a line for each tasklet. Those created at one place that wait for the same are counted together; of
/// those that wait each for its own, but alike, five are told of and the rest counted.
///
/// ```
/// # use pila_runtime as pila;
/// let nobody_sends = pila::Channel::<()>::new();
/// let error = nobody_sends.receive().unwrap_err();
/// assert!(error.to_string().contains("'main' (#0)"), "{error}");
/// assert!(error.to_string().contains("waits for a sender on channel 1"), "{error}");
/// ```
#[derive(Clone, Debug)]
pub struct Report {
    pub(crate) waiters: Arc<[Waiter]>,
    pub(crate) occasion: Occasion,
}

/// Why a report was made.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Occasion {
    /// Nobody can go on.
    Deadlock,
    /// Somebody asked who waits.
    Asked,
}

impl Report {
    /// The tasklets that wait, in the order of their creation.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::{JoinError, Tasklet};
    ///
    /// let never_inserted = Tasklet::bind(|| ());
    /// let Err(JoinError::Deadlock(report)) = never_inserted.join() else { unreachable!() };
    /// let numbers = report.waiters().iter().map(|waiter| waiter.who.id.get());
    /// assert_eq!(numbers.collect::<Vec<_>>(), [0, 1]);
    /// ```
    #[must_use]
    pub fn waiters(&self) -> &[Waiter] {
        &self.waiters
    }
}

/// Tasklets that a report names one by one before it only counts them.
const NAMED: usize = 3;

/// Lines about those that wait alike before the rest of them is only counted.
const LINES: usize = 5;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.occasion, self.waiters.len()) {
            (Occasion::Deadlock, _) => {
                write!(f, "deadlock: nothing can run, and nothing outside can wake anyone")?;
            }
            (Occasion::Asked, 0) => write!(f, "nobody waits")?,
            (Occasion::Asked, 1) => write!(f, "1 tasklet waits:")?,
            (Occasion::Asked, count) => write!(f, "{count} tasklets wait:")?,
        }
        for alike in self.alike() {
            for group in alike.iter().take(LINES) {
                write!(f, "\n  {group}")?;
            }
            let more = || alike.iter().skip(LINES);
            if let Some(group) = more().next() {
                let count: usize = more().map(|group| group.waiters.len()).sum();
                write!(f, "\n  and {count} more like these, created at {}", group.created())?;
            }
        }
        Ok(())
    }
}

impl Report {
    /// Those that were created at one place and wait for one thing, in the order of the first of each; and of these groups
    /// together those that wait alike.
    fn alike(&self) -> Vec<Vec<Group<'_>>> {
        let (mut all, mut places, mut kinds) =
            (Vec::<Vec<Group<'_>>>::new(), HashMap::new(), HashMap::new());
        for waiter in &*self.waiters {
            let kind = (waiter.created, waiter.waiting.kind());
            let kind = *kinds.entry(kind).or_insert(all.len());
            if kind == all.len() {
                all.push(Vec::new());
            }
            let groups = &mut all[kind];
            let key = (kind, waiter.waiting.to_string(), waiter.holder.clone());
            let place = *places.entry(key).or_insert(groups.len());
            match groups.get_mut(place) {
                Some(group) => group.waiters.push(waiter),
                None => groups.push(Group { waiters: vec![waiter] }),
            }
        }
        all
    }
}

/// The first of several tasklets by name, and how many more there are.
pub(crate) struct Several<I>(pub(crate) I);

impl<'a, I: Iterator<Item = &'a Who> + Clone> fmt::Display for Several<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut whos = self.0.clone();
        let names: Vec<_> = whos.by_ref().take(NAMED).map(Who::to_string).collect();
        write!(f, "{}", names.join(", "))?;
        match whos.count() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Tasklets that one line tells about. There is at least one.
struct Group<'a> {
    waiters: Vec<&'a Waiter>,
}

impl Group<'_> {
    fn created(&self) -> &'static Location<'static> {
        self.waiters[0].created
    }
}

impl fmt::Display for Group<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Several(self.waiters.iter().map(|waiter| &waiter.who)))?;
        let first = self.waiters[0];
        if first.who.id != TaskletId::MAIN {
            write!(f, ", created at {}", first.created)?;
        }
        write!(f, ": {}", first.waiting)?;
        if let Some(holder) = &first.holder {
            write!(f, ", held by {holder}")?;
        }
        match self.waiters.iter().map(|waiter| waiter.since).max() {
            Some(since) if since >= Duration::from_millis(1) => write!(f, ", for {since:.1?}"),
            // The clock is read once a turn of the loop: less than that is not known.
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Report {}
