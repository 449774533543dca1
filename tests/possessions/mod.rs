//! What this process has of the system, to be compared with what it had before.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
};

use super::system::number_after;

/// How much more memory may be resident in the end, in KiB. So a leak of 6 bytes shows in 100,000 connections, and one
/// of 60 bytes in 10,000.
const TOLERANCE: u64 = 512;

/// What this process has of the system.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Possessions {
    pub(crate) descriptors: usize,
    /// Sockets that some epoll knows.
    pub(crate) registered: usize,
    /// Mappings for stacks, and how many KiB of them are resident.
    pub(crate) stack_mappings: usize,
    pub(crate) stack_resident: u64,
    /// All that is resident, in KiB.
    pub(crate) resident: u64,
}

impl Possessions {
    pub(crate) fn now() -> Self {
        let (stack_mappings, stack_resident) = stacks();
        Self {
            // The one that lists the directory does not count.
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count() - 1,
            registered: registered(),
            stack_mappings,
            stack_resident,
            resident: resident(&fs::read_to_string("/proc/self/smaps_rollup").unwrap()),
        }
    }

    #[allow(dead_code, reason = "not every test keeps books")]
    #[track_caller]
    pub(crate) fn assert_back_at(&self, before: &Self) {
        self.assert_back_within(before, 0);
    }

    /// With `more` KiB of the heap that the allocator may keep.
    #[track_caller]
    pub(crate) fn assert_back_within(&self, before: &Self, more: u64) {
        let report = format!("before {before:?}\nafter  {self:?}");
        assert_eq!(self.descriptors, before.descriptors, "{report}");
        assert_eq!(self.registered, before.registered, "{report}");
        assert_eq!(self.stack_mappings, before.stack_mappings, "{report}");
        // It keeps what was freed for a while, and some of its own mappings look like those of stacks.
        if cfg!(feature = "sanitizer") {
            return;
        }
        assert!(self.stack_resident <= before.stack_resident + TOLERANCE, "{report}");
        assert!(self.resident <= before.resident + TOLERANCE + more, "{report}");
    }
}

/// The mappings that need no reserve and must not have huge pages, which only tasklets' stacks are.
fn stacks() -> (usize, u64) {
    // Line by line, for as a whole it may be a megabyte, which would itself be resident afterwards.
    let maps = BufReader::new(File::open("/proc/self/smaps").unwrap());
    let (mut mappings, mut rss) = (0, 0);
    let mut resident_here = 0;
    for line in maps.lines().map(|line| line.unwrap()) {
        if line.starts_with("Rss:") {
            resident_here = resident(&line);
        } else if line.starts_with("VmFlags:") && line.contains(" nr") && line.contains(" nh") {
            mappings += 1;
            rss += resident_here;
        }
    }
    (mappings, rss)
}

fn resident(text: &str) -> u64 {
    number_after(text, "Rss:").expect("Linux has it")
}

fn registered() -> usize {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let pollers = descriptors.filter(|path| {
        fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains("eventpoll"))
    });
    let lines = pollers.map(|path| {
        let number = path.file_name().unwrap().to_str().unwrap();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
        info.lines().filter(|line| line.starts_with("tfd:")).count()
    });
    lines.sum()
}
