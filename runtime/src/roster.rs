//! The roster: which threads of the process have a scheduler, for those who look at all of them from outside.
//!
//! - It is closed until somebody looks. Until then a thread pays for the test of one flag, when it looks outside.
//! - A thread that had its scheduler before joins when it next looks outside, or when it looks at others itself.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering, fence},
    },
    thread,
};

use crate::{mailbox::Mailbox, pulse::Pulse, wake::Ticket};

static OPEN: AtomicBool = AtomicBool::new(false);
static MEMBERS: Mutex<Vec<Arc<Member>>> = Mutex::new(Vec::new());

/// A thread that has a scheduler.
#[derive(Debug)]
pub(crate) struct Member {
    /// The thread's name and its number for the system.
    pub(crate) name: Option<Box<str>>,
    pub(crate) number: i32,
    pub(crate) pulse: Pulse,
    /// What it is asked for, as bits of the one who asks.
    wanted: AtomicU8,
    /// How it is made to look, once somebody may ask it.
    mailbox: OnceLock<Arc<Mailbox>>,
}

/// A ticket of nobody's wait.
const NOBODY: Ticket = Ticket { index: u32::MAX, sequence: 0 };

/// Lets threads join from now on.
pub(crate) fn open() {
    OPEN.store(true, Ordering::Relaxed);
}

#[inline]
pub(crate) fn is_open() -> bool {
    OPEN.load(Ordering::Relaxed)
}

/// Everyone who has joined and not left.
pub(crate) fn members() -> Vec<Arc<Member>> {
    list().clone()
}

/// Adds the calling thread, which the system knows by `number`.
pub(crate) fn join(number: i32) -> Arc<Member> {
    let member = Arc::new(Member {
        name: thread::current().name().map(Into::into),
        number,
        pulse: Pulse::new(),
        wanted: AtomicU8::new(0),
        mailbox: OnceLock::new(),
    });
    list().push(member.clone());
    member
}

/// No code that can panic runs under this lock, so a poisoned one is still sound.
fn list() -> MutexGuard<'static, Vec<Arc<Member>>> {
    MEMBERS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Member {
    /// Its thread ends.
    pub(crate) fn leave(&self) {
        list().retain(|member| !std::ptr::eq(&**member, self));
    }

    /// `mailbox` is how it can be reached from now on.
    pub(crate) fn can_be_asked(&self, mailbox: impl FnOnce() -> Arc<Mailbox>) {
        if self.mailbox.get().is_none() {
            self.mailbox.get_or_init(mailbox);
            // Either who asks finds the mailbox, or it finds what is wanted.
            fence(Ordering::SeqCst);
        }
    }

    /// Asks it for `wanted`, which it is going to see when it next looks outside.
    pub(crate) fn ask(&self, wanted: u8) {
        self.wanted.fetch_or(wanted, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if let Some(mailbox) = self.mailbox.get() {
            mailbox.post(NOBODY);
        }
    }

    /// Whether it was asked for something that it has not seen.
    pub(crate) fn is_awaited(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) != 0
    }

    /// Takes what it was asked for. Who asks again from now on is answered again.
    pub(crate) fn take_wanted(&self) -> u8 {
        match self.is_awaited() {
            true => self.wanted.swap(0, Ordering::Relaxed),
            false => 0,
        }
    }
}
