//! Taking a connection off the queue of a listener, when there is a descriptor for it.

use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::budget::{self, Purpose};
use crate::poller::Poller;
use crate::readiness::Direction;
use crate::source::{Operation, Source};
use crate::syscall;

/// Has `call` take the next connection off the queue of `listener`, which reports call by its `name`.
pub(crate) fn accept<S: AsFd, T>(
    listener: &Source<S>,
    call: impl Fn(&S) -> io::Result<T>,
    name: impl Fn(&S) -> String,
) -> io::Result<T> {
    // What stands in its way, if anything, is told to whoever has to wait.
    let _ = Poller::prepare();
    let take = |io: &S| take(listener, || call(io), &|| name(io));
    listener.run_until_shut(Operation::Accept, take, || Err(Errno::INVAL.into()))
}

/// Takes a connection off the queue, when there is a descriptor for it; `WouldBlock` if there is none in it.
fn take<S: AsFd, T>(
    listener: &Source<S>,
    call: impl Fn() -> io::Result<T>,
    name: &dyn Fn() -> String,
) -> io::Result<T> {
    if listener.is_watched() {
        syscall::set_nonblocking(listener.as_fd(), true);
    }
    let nonblocking = listener.is_nonblocking();
    if nonblocking || !budget::has_line() {
        match call() {
            Err(error) if budget::is_shortage(&error) && !nonblocking => {}
            done => return done,
        }
    }
    // Without a descriptor the system says so whether there is a connection or not.
    if !syscall::is_pending(listener.as_fd())? {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let deadline = listener.deadline(Direction::Read);
    budget::get_in_line(Purpose::Accept(name), deadline, call)
}
