//! Sockets from and to std's, and from and to bare descriptors.
//!
//! - What comes in brings the timeouts that the kernel keeps for it, and waits.
//! - What goes out is known to no poller any more, and blocks or not as its user asked.

use std::os::fd::AsFd;

use crate::source::Source;
use crate::syscall;

/// Gives a socket away, to someone who expects it to block unless the user has said otherwise.
pub(crate) fn give_away<S: AsFd>(source: Source<S>) -> S {
    let (io, nonblocking) = source.into_inner();
    syscall::set_nonblocking(io.as_fd(), nonblocking);
    io
}

/// Converts `$ours`, which has a `from_source`, from and to its namesake `$std` and descriptors. `$ready` readies a socket
/// of this kind that somebody else made.
macro_rules! conversions {
    ($ours:ty, $std:ty, $ready:path) => {
        /// Takes it over together with its timeouts. Calls on it wait, whether it was nonblocking or not.
        impl From<$std> for $ours {
            fn from(io: $std) -> Self {
                $ready(std::os::fd::AsFd::as_fd(&io));
                Self::from_source($crate::source::Source::adopt(io))
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
                self.source.show()
            }
        }

        impl std::os::fd::AsRawFd for $ours {
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                std::os::fd::AsRawFd::as_raw_fd(&self.source.show())
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
