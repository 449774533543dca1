//! How many descriptors this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the process needs beside its connections: the standard streams, the pipes to the sink, the poller's.
const RESERVE: u64 = 16;

/// As many of `wanted` connections as the limit allows, once it is raised; says so when that is not all.
pub(crate) fn grant(wanted: u32) -> u32 {
    match raise_limit() {
        Some(limit) if limit < u64::from(wanted) => {
            eprintln!(
                "stackless: {limit} at once instead of {wanted}: the limit on descriptors allows no more"
            );
            limit as u32
        }
        _ => wanted,
    }
}

/// Raises the soft limit to the hard one, and returns how many connections that allows; `None` is no limit.
pub(crate) fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Where that is refused, the limit is what it was.
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).ok();
    }
    getrlimit(Resource::Nofile).current.map(|limit| limit.saturating_sub(RESERVE).max(1))
}
