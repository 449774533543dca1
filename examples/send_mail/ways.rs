//! The ways to send many mails, each in a file of its own.

use std::{io, sync::Arc};

use crate::{
    events, generators, locks, pool, post::Post, processes, queues, sequential, tasklets, threads,
};

/// A way to send many mails.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    /// Sends them all, and returns how many it has counted.
    pub(crate) run: fn(&Arc<Post>) -> io::Result<u32>,
    /// The file it is written in.
    source: &'static str,
}

macro_rules! way {
    ($name:ident) => {
        Way {
            name: stringify!($name),
            run: $name::run,
            source: include_str!(concat!(stringify!($name), ".rs")),
        }
    };
}

/// All of them, in the order in which one leads to the next.
pub(crate) const WAYS: [Way; 9] = [
    way!(sequential),
    way!(threads),
    way!(locks),
    way!(pool),
    way!(events),
    way!(generators),
    way!(tasklets),
    way!(processes),
    way!(queues),
];

impl Way {
    /// The one called `name`.
    pub(crate) fn find(name: &str) -> Result<&'static Self, String> {
        WAYS.iter().find(|way| way.name == name).ok_or_else(|| {
            let names = WAYS.iter().map(|way| way.name).collect::<Vec<_>>();
            format!("the ways are {}", names.join(", "))
        })
    }

    /// How many lines of code it takes: those that are neither blank nor comment.
    pub(crate) fn lines(&self) -> usize {
        let is_code = |line: &&str| !line.is_empty() && !line.starts_with("//");
        self.source.lines().map(str::trim).filter(is_code).count()
    }
}
