//! What other threads have for one thread's tasklets: tickets, and a way to end its wait for them.
//!
//! - Any thread posts; the owner alone collects, whenever its loop looks outside.
//! - The owner is notified at most once for each of its waits, and never while it runs.
//! - Nothing is posted to an owner that has ended: who posts is told.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{driver::Notify, wake::Ticket};

/// One thread's mailbox.
#[derive(Debug)]
pub(crate) struct Mailbox {
    /// Whether there are tickets: lets the owner look without the lock.
    has_news: AtomicBool,
    contents: Mutex<Contents>,
}

#[derive(Debug)]
struct Contents {
    /// What was posted since the owner last looked.
    tickets: Vec<Ticket>,
    owner: Owner,
    /// Ends the owner's wait; `None` when its driver has nothing that could.
    notifier: Option<Arc<dyn Notify>>,
}

/// What the thread does that the mailbox belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    /// It looks before it waits.
    Running,
    /// It waits, or is about to, and is to be notified.
    Waiting,
    /// It has ended.
    Gone,
}

/// Who is told when a thread ends that a tasklet waits on with its help.
pub(crate) trait Heir: Send + Sync {
    /// The wait that the heir knows by `number` is never going to end: its tasklet is leaked. Must not unwind.
    fn thread_ended(&self, number: u64);
}

impl fmt::Debug for dyn Heir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Heir")
    }
}

impl Mailbox {
    pub(crate) fn new(notifier: Option<Arc<dyn Notify>>) -> Mailbox {
        let contents = Contents { tickets: Vec::new(), owner: Owner::Running, notifier };
        Mailbox { has_news: AtomicBool::new(false), contents: Mutex::new(contents) }
    }

    /// Leaves `ticket` for the owner and sees to it that it looks. False when it has ended.
    pub(crate) fn post(&self, ticket: Ticket) -> bool {
        let mut contents = self.contents();
        if contents.owner == Owner::Gone {
            return false;
        }
        // Who wakes again and again while the owner is busy shall not fill its memory.
        if contents.tickets.last() != Some(&ticket) {
            contents.tickets.push(ticket);
        }
        self.has_news.store(true, Ordering::Release);
        if contents.owner == Owner::Running {
            return true;
        }
        contents.owner = Owner::Running;
        let notifier = contents.notifier.clone();
        // Not under the lock, which the owner wants as soon as it is notified.
        drop(contents);
        if let Some(notifier) = notifier {
            notifier.notify();
        }
        true
    }

    // For the owner.

    pub(crate) fn has_news(&self) -> bool {
        self.has_news.load(Ordering::Acquire)
    }

    /// Moves what was posted to `woken`.
    pub(crate) fn collect(&self, woken: &mut Vec<Ticket>) {
        let mut contents = self.contents();
        contents.owner = Owner::Running;
        self.has_news.store(false, Ordering::Relaxed);
        woken.append(&mut contents.tickets);
    }

    /// As [`collect`](Self::collect), but when there is nothing, whatever comes later ends the owner's next wait.
    /// Whether the owner can be notified.
    pub(crate) fn collect_before_wait(&self, woken: &mut Vec<Ticket>) -> bool {
        let mut contents = self.contents();
        contents.owner = if contents.tickets.is_empty() { Owner::Waiting } else { Owner::Running };
        self.has_news.store(false, Ordering::Relaxed);
        woken.append(&mut contents.tickets);
        contents.notifier.is_some()
    }

    /// The owner has another driver.
    pub(crate) fn set_notifier(&self, notifier: Option<Arc<dyn Notify>>) {
        self.contents().notifier = notifier;
    }

    /// The owner ends.
    pub(crate) fn close(&self) {
        let mut contents = self.contents();
        contents.owner = Owner::Gone;
        contents.tickets = Vec::new();
        let notifier = contents.notifier.take();
        drop(contents);
        drop(notifier);
    }

    /// No code that can panic runs under this lock, so a poisoned one is still sound.
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default, Debug)]
    struct Count(AtomicUsize);

    impl Notify for Count {
        fn notify(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn ticket(sequence: u64) -> Ticket {
        Ticket { index: 1, sequence }
    }

    #[test]
    fn the_owner_is_notified_once_for_each_wait() {
        let count = Arc::new(Count::default());
        let mailbox = Mailbox::new(Some(count.clone()));
        let mut woken = Vec::new();
        assert!(mailbox.post(ticket(1)));
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        assert!(mailbox.collect_before_wait(&mut woken));
        assert_eq!(woken, [ticket(1)]);
        mailbox.collect_before_wait(&mut woken);
        mailbox.post(ticket(2));
        mailbox.post(ticket(3));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(mailbox.has_news());
        mailbox.collect(&mut woken);
        assert_eq!(woken, [ticket(1), ticket(2), ticket(3)]);
        assert!(!mailbox.has_news());
    }

    #[test]
    fn a_closed_mailbox_takes_nothing_and_lets_its_notifier_go() {
        let count = Arc::new(Count::default());
        let mailbox = Mailbox::new(Some(count.clone()));
        mailbox.close();
        assert!(!mailbox.post(ticket(1)));
        assert_eq!(Arc::strong_count(&count), 1);
    }

    #[test]
    fn one_who_wakes_again_and_again_takes_no_memory() {
        let mailbox = Mailbox::new(None);
        for _ in 0..1000 {
            mailbox.post(ticket(1));
        }
        assert_eq!(mailbox.contents().tickets.len(), 1);
    }
}
