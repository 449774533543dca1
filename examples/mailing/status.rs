//! What the system says about this process, in /proc/self/status; nothing where there is no such file.

use std::fs;

/// How many threads the process has.
pub(crate) fn threads() -> Option<u64> {
    field("Threads:")
}

/// How much memory the process has had resident at most, in KiB.
pub(crate) fn peak_kib() -> Option<u64> {
    field("VmHWM:")
}

fn field(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
