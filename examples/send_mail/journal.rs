//! `Journal`: which mails are sent, noted where it survives the process that has sent them.
//!
//! - A byte for each mail, in a file without a name that only this program and its workers see. It is gone with the last
//!   of them.
//! - A mail is noted after the server has accepted it. Who dies in between has sent a mail that the journal lacks.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    process,
};

use rustix::fs::{MemfdFlags, memfd_create};

const SENT: u8 = 1;

/// Which of the numbered mails are sent.
pub(crate) struct Journal(File);

impl Journal {
    /// A new one, for mails numbered below `mails`.
    pub(crate) fn new(mails: u32) -> io::Result<Self> {
        let file = File::from(memfd_create("journal", MemfdFlags::CLOEXEC)?);
        file.set_len(mails.into())?;
        Ok(Self(file))
    }

    /// Where another process finds it while this one lives.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd()).into()
    }

    /// That of another process.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        File::options().write(true).open(path).map(Self)
    }

    /// Notes that a mail is sent.
    pub(crate) fn note(&self, number: u32) {
        self.0.write_all_at(&[SENT], number.into()).expect("there is a byte for each mail");
    }

    /// Those of `numbers` that nobody has noted.
    pub(crate) fn missing(&self, numbers: &[u32]) -> io::Result<Vec<u32>> {
        let mut notes = vec![0; self.0.metadata()?.len() as usize];
        self.0.read_exact_at(&mut notes, 0)?;
        let is_missing = |number: &u32| notes[*number as usize] != SENT;
        Ok(numbers.iter().copied().filter(is_missing).collect())
    }
}
