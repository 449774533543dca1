//! The programs of others that the tests talk to, and what is hard to tell them.

use std::{
    fs,
    path::{Path, PathBuf},
};

pub(crate) mod bodies;
pub(crate) mod postfix;
pub(crate) mod sink;

/// The files in `directory` whose names begin with `name`.
pub(crate) fn files(directory: &Path, name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(name));
    named.map(|entry| entry.path()).collect()
}
