//! Sockets from and to std's, and from and to bare descriptors.
//!
//! - What comes in brings the timeouts that the kernel keeps for it, and waits.
//! - What goes out is known to no poller any more, and blocks or not as its user asked. So does, from then on, a socket of
//!   which somebody sees the descriptor.
//! - Listeners cannot say with a call that it must not block. So they are nonblocking as long as there is one of ours.

use std::net;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix;

use crate::source::Source;
use crate::syscall;

/// Std's sockets.
pub(crate) trait Socket: AsFd {
    /// Whether its calls block unless the kernel knows it as nonblocking. On systems other than Linux that is so of all: a
    /// send with `MSG_DONTWAIT` is known to block there.
    const NEEDS_FLAG: bool = cfg!(not(target_os = "linux"));
}

impl Socket for net::TcpStream {}
impl Socket for net::UdpSocket {}
impl Socket for unix::net::UnixStream {}
impl Socket for unix::net::UnixDatagram {}

impl Socket for net::TcpListener {
    const NEEDS_FLAG: bool = true;
}

impl Socket for unix::net::UnixListener {
    const NEEDS_FLAG: bool = true;
}

/// Takes over a socket that somebody else made.
pub(crate) fn adopt<S: Socket>(io: S) -> Source<S> {
    let source = Source::adopt(io);
    if S::NEEDS_FLAG {
        syscall::set_nonblocking(source.as_fd(), true);
        source.need_flag();
    }
    source
}

/// Gives a socket away, to someone who expects it to block unless the user has said otherwise.
pub(crate) fn give_away<S: Socket>(source: Source<S>) -> S {
    if source.is_shared() {
        // The others hear of what is done with it from here on.
        show(&source);
    } else {
        syscall::set_nonblocking(source.as_fd(), source.is_nonblocking());
        source.settle();
    }
    source.into_inner()
}

/// The descriptor, for whoever wants it.
pub(crate) fn show<S: Socket>(source: &Source<S>) -> BorrowedFd<'_> {
    if source.show() {
        match S::NEEDS_FLAG {
            true => source.need_flag(),
            false => syscall::set_nonblocking(source.as_fd(), source.is_nonblocking()),
        }
    }
    source.as_fd()
}

/// Later calls fail with `WouldBlock` instead of waiting, or wait again.
pub(crate) fn set_nonblocking<S: Socket>(source: &Source<S>, nonblocking: bool) {
    source.set_nonblocking(nonblocking);
    if source.is_watched() && !S::NEEDS_FLAG {
        syscall::set_nonblocking(source.as_fd(), nonblocking);
    }
}

/// Converts `$ours`, which has a `from_source`, from and to its namesake `$std` and descriptors.
macro_rules! conversions {
    ($ours:ty, $std:ty) => {
        /// Takes it over together with its timeouts. Calls on it wait, whether it was nonblocking or not.
        impl From<$std> for $ours {
            fn from(io: $std) -> Self {
                Self::from_source($crate::convert::adopt(io))
            }
        }

        /// Gives it, together with its timeouts, to std. Calls on it block, unless `set_nonblocking` said otherwise.
        impl From<$ours> for $std {
            fn from(socket: $ours) -> Self {
                $crate::convert::give_away(socket.into_source())
            }
        }

        /// Takes over a descriptor, which must be that of such a socket for anything to work.
        impl From<std::os::fd::OwnedFd> for $ours {
            fn from(socket: std::os::fd::OwnedFd) -> Self {
                Self::from(<$std>::from(socket))
            }
        }

        /// Gives the descriptor away, in the state in which std would have it.
        impl From<$ours> for std::os::fd::OwnedFd {
            fn from(socket: $ours) -> Self {
                <$std>::from(socket).into()
            }
        }

        impl std::os::fd::AsFd for $ours {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                $crate::convert::show(&self.source)
            }
        }

        impl std::os::fd::AsRawFd for $ours {
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                std::os::fd::AsRawFd::as_raw_fd(&$crate::convert::show(&self.source))
            }
        }

        impl std::os::fd::IntoRawFd for $ours {
            fn into_raw_fd(self) -> std::os::fd::RawFd {
                std::os::fd::OwnedFd::from(self).into_raw_fd()
            }
        }

        impl std::fmt::Debug for $ours {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.source.io().fmt(formatter)
            }
        }
    };
}

pub(crate) use conversions;
