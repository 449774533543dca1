//! Unix addresses, from std's type to the system's and back.
//!
//! - std's type can be made from a path or an abstract name only, and rustix reads no address that fills its space.

use std::ffi::OsStr;
use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;

use rustix::net::{SocketAddrAny, SocketAddrUnix};

/// The size of `sun_family`, which all there is of an address without a name.
const UNNAMED: usize = 2;

/// The most that `sockaddr_un` has room for. The system counts one byte more for a path that leaves none for its NUL.
#[cfg(target_os = "linux")]
const ROOM: usize = UNNAMED + 108;
#[cfg(not(target_os = "linux"))]
const ROOM: usize = UNNAMED + 104;

/// `address` as the system wants it.
pub(super) fn to_system(address: &SocketAddr) -> io::Result<SocketAddrUnix> {
    if let Some(path) = address.as_pathname() {
        return Ok(SocketAddrUnix::new(path)?);
    }
    #[cfg(target_os = "linux")]
    return match address.as_abstract_name() {
        Some(name) => Ok(SocketAddrUnix::new_abstract_name(name)?),
        None => Ok(SocketAddrUnix::new_unnamed()),
    };
    #[cfg(not(target_os = "linux"))]
    Err(rustix::io::Errno::INVAL.into())
}

/// What the system wrote, as std has it. `None` for a path as long as an address can be, which std lets nobody make.
pub(super) fn from_system(address: Option<SocketAddrAny>) -> io::Result<Option<SocketAddr>> {
    let Some(address) = address.filter(|address| address.addr_len() as usize > UNNAMED) else {
        return unnamed().map(Some);
    };
    if address.addr_len() as usize > ROOM {
        return Ok(None);
    }
    let address = SocketAddrUnix::try_from(address)?;
    if let Some(path) = path_of(&address) {
        return Ok(SocketAddr::from_pathname(path).ok());
    }
    #[cfg(target_os = "linux")]
    if let Some(name) = address.abstract_name() {
        return Ok(SocketAddr::from_abstract_name(name).ok());
    }
    unnamed().map(Some)
}

/// The path that is an address.
fn path_of(address: &SocketAddrUnix) -> Option<&OsStr> {
    let bytes = address.path_bytes()?;
    // rustix leaves the NUL on where it is the last byte there is room for.
    Some(OsStr::from_bytes(bytes.strip_suffix(&[0]).unwrap_or(bytes)))
}

/// The address of a socket that has none.
pub(super) fn unnamed() -> io::Result<SocketAddr> {
    SocketAddr::from_pathname("")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address that a socket gets which is bound to `address`.
    fn bound_to(address: &SocketAddrUnix) -> Option<SocketAddr> {
        let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        rustix::net::bind(&socket, address).unwrap();
        let name = from_system(Some(rustix::net::getsockname(&socket).unwrap())).unwrap();
        if let Some(path) = path_of(address) {
            std::fs::remove_file(path).unwrap();
        }
        name
    }

    fn long_path(length: usize) -> String {
        let start = format!("/tmp/pila-{}-", std::process::id());
        format!("{start}{}", "x".repeat(length - start.len()))
    }

    #[test]
    fn paths_and_names_go_there_and_come_back() {
        for length in [50, 106, 107] {
            let path = long_path(length);
            let address = SocketAddr::from_pathname(&path).unwrap();
            let back = bound_to(&to_system(&address).unwrap()).unwrap();
            assert_eq!(back.as_pathname(), Some(path.as_ref()));
        }
        assert!(from_system(None).unwrap().unwrap().is_unnamed());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_path_that_leaves_no_room_for_its_end_is_none_that_std_has() {
        let system = SocketAddrUnix::new(long_path(108)).unwrap();
        assert!(bound_to(&system).is_none());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn abstract_names_go_there_and_come_back() {
        let long = [7; 107 - 8];
        for name in [&[b'x'][..], &[0, 1, 0], &long] {
            let own = [name, &u64::from(std::process::id()).to_ne_bytes()].concat();
            let address = SocketAddr::from_abstract_name(&own).unwrap();
            let back = bound_to(&to_system(&address).unwrap()).unwrap();
            assert_eq!(back.as_abstract_name(), Some(&own[..]));
        }
        let unnamed = to_system(&unnamed().unwrap()).unwrap();
        assert!(unnamed.is_unnamed());
        // The system gives a name of its own to whoever binds to none.
        assert_eq!(bound_to(&unnamed).unwrap().as_abstract_name().unwrap().len(), 5);
    }
}
