//! The machine, in a few words: figures without it say little.

use std::{fs, process::Command};

use crate::peers::{PEERS, Places};

pub(crate) fn describe() -> String {
    // Not what this process may use, which is bound to one of them.
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processors = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "processors".to_owned());
    let kib = field("/proc/meminfo", "MemTotal")
        .and_then(|total| total.split(' ').next()?.parse::<u64>().ok())
        .unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let rustc = Command::new("rustc").arg("--version").output().map(|output| output.stdout);
    let rustc = String::from_utf8(rustc.unwrap_or_default()).unwrap_or_default();
    format!(
        "{processors} × {model}, {} GiB, Linux {}, {}",
        kib / 1024 / 1024,
        kernel.trim(),
        rustc.split(" (").next().unwrap_or_default().trim(),
    )
}

/// The versions of all peers that can be found.
pub(crate) fn versions(places: &Places, names: &[String]) -> String {
    let named = PEERS.iter().filter(|peer| names.iter().any(|name| name == peer.name));
    let versions = named
        .filter(|peer| !matches!(peer.name, "pila" | "epoll"))
        .filter_map(|peer| Some(format!("{} {}", peer.name, peer.version(places)?)));
    versions.collect::<Vec<_>>().join(", ")
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
