//! What a call came to, as something that can be compared; and directories for sockets.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Kind, text and number of an error.
pub(crate) type Failure = (ErrorKind, String, Option<i32>);

/// How a call failed.
#[track_caller]
pub(crate) fn failure<T>(result: io::Result<T>) -> Failure {
    let Err(error) = result else { panic!("it did not fail") };
    (error.kind(), error.to_string(), error.raw_os_error())
}

/// A directory that goes with everything in it.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pila-same-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}
