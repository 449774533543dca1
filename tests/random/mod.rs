//! Numbers that look like chance and can be had again: a test that fails says its seed, and `PILA_TEST_SEED` sets it.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::{
    cell::Cell,
    env,
    io::{self, Write},
    thread,
    time::{Duration, SystemTime},
};

/// A sequence of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(Cell<u64>);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    fn next(&self) -> u64 {
        // SplitMix64: any seed will do, also one that differs from another by one.
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut x = self.0.get();
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Any number below `end`.
    pub(crate) fn below(&self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True once in `times`.
    pub(crate) fn once_in(&self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Any time below `end`, which is a second at most.
    pub(crate) fn time(&self, end: Duration) -> Duration {
        Duration::from_nanos(self.below(end.as_nanos() as usize) as u64)
    }
}

/// The seed of a test; said if that fails.
#[derive(Debug)]
pub(crate) struct Seed(pub(crate) u64);

impl Seed {
    pub(crate) fn new() -> Self {
        let wanted = env::var("PILA_TEST_SEED").ok().map(|text| text.parse().unwrap());
        let now = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        Self(wanted.unwrap_or_else(now))
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            writeln!(io::stderr(), "PILA_TEST_SEED={} shows it again", self.0).ok();
        }
    }
}
