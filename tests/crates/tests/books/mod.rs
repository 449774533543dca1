//! Tests that give back what they have taken of the system.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::{fs, sync::MutexGuard, thread, time::Duration};

use crate::system::{alone, bounded};

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Made first in a test, and so dropped last: then the process has as many descriptors as before. Meanwhile no other test
/// of the file that has one runs.
pub(crate) struct Books {
    before: usize,
    _alone: MutexGuard<'static, ()>,
}

impl Books {
    pub(crate) fn open() -> Self {
        let alone = alone();
        Self { before: descriptors(), _alone: alone }
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        if !thread::panicking() {
            assert_eq!(descriptors(), self.before, "descriptors");
        }
    }
}

/// Runs `body` on a thread of its own and then whatever tasklets it has left, for `limit` at most. All of them must end, with
/// all their descriptors.
pub(crate) fn balanced(limit: Duration, body: impl FnOnce() + Send + 'static) {
    let _books = Books::open();
    bounded(limit, || {
        body();
        assert_eq!(pila::run().blocked, 0, "tasklets are left");
    });
}
