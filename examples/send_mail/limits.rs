//! The limit on the address space of a process, which is what threads run into: each takes two MiB of it for its stack.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Allows this process, and those it starts, no more than so many bytes of address space; root, too.
pub(crate) fn set_address_space(bytes: u64) -> io::Result<()> {
    let limit = getrlimit(Resource::As);
    Ok(setrlimit(Resource::As, Rlimit { current: Some(bytes), ..limit })?)
}

/// Takes the limit back.
pub(crate) fn lift() {
    let limit = getrlimit(Resource::As);
    // To raise the soft limit up to the hard one is always allowed.
    setrlimit(Resource::As, Rlimit { current: limit.maximum, ..limit }).ok();
}
