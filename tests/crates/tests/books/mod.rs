//! Tests that give back what they have taken of the system.

use std::{fs, sync::MutexGuard, thread};

use crate::system::alone;

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
