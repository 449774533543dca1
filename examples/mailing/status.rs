//! What the system says about this process, in /proc/self/status; nothing where there is no such file.

use std::{fs::File, os::unix::fs::FileExt, sync::OnceLock};

/// How many threads the process has.
pub(crate) fn threads() -> Option<u64> {
    field("Threads:")
}

/// How much memory the process has had resident at most, in KiB.
pub(crate) fn peak_kib() -> Option<u64> {
    field("VmHWM:")
}

fn field(name: &str) -> Option<u64> {
    // Opened once: later there may be no descriptor left.
    static STATUS: OnceLock<Option<File>> = OnceLock::new();
    let file = STATUS.get_or_init(|| File::open("/proc/self/status").ok()).as_ref()?;
    let mut text = [0; 4096];
    let length = file.read_at(&mut text, 0).ok()?;
    let status = String::from_utf8_lossy(&text[..length]);
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
