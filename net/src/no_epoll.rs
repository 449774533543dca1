//! Stands in for `epoll.rs` where there is no epoll: nothing here is ever harvested.

use std::convert::Infallible;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::readiness::Ready;

/// A key that `polling` gives to no socket.
pub(crate) const NOTIFIED: usize = usize::MAX;

/// What came of waiting.
#[derive(Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "the names that poller.rs matches on")]
pub(crate) enum Waited {
    Harvested,
    Refused,
}

/// Never made.
#[derive(Debug)]
pub(crate) struct Harvest(Infallible);

impl Harvest {
    pub(crate) fn new() -> Option<Self> {
        None
    }

    pub(crate) fn wait(
        &mut self,
        _poller: &polling::Poller,
        _timeout: Option<Duration>,
    ) -> io::Result<Waited> {
        match self.0 {}
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, Ready)> {
        std::iter::empty()
    }
}

/// Never called: `poller.rs` asks only where a [`Harvest`] can be made.
pub(crate) fn add(_: &polling::Poller, _: BorrowedFd<'_>, _: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
