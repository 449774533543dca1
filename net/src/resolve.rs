//! [`ToSocketAddrs`]: what stands for addresses, as in std, and lets only the tasklet wait when it is a name.

use std::io;
use std::iter;
use std::net::{self, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::option;
use std::os::unix::net::UnixDatagram;
use std::slice;
use std::vec;

use crate::budget;
use crate::lookup::SYSTEM;

/// What stands for one or more addresses: [`std::net::ToSocketAddrs`], with the same name and for the same types, where
/// only the calling tasklet waits while a host is looked up.
///
/// Addresses written out cost nothing. A name goes to the system's resolver, `getaddrinfo`, and so to whatever
/// `/etc/nsswitch.conf` says, on one of at most 16 threads that are kept for that, or as many as the environment variable
/// `PILA_RESOLVER_THREADS` says. Tasklets that ask for a name at the same time share one query, whatever their threads.
/// What it finds is good for 10 seconds, for the 1,024 names that were looked up last; failures are not kept.
///
/// A tasklet that is killed while it waits, or is out of time, asks no longer. A query that no tasklet waits for any more
/// is dropped if it has not begun.
///
/// To pass something else where addresses are wanted, implement it by way of those types.
///
/// ```
/// use pila_net::{SocketAddr, ToSocketAddrs};
///
/// # fn main() -> std::io::Result<()> {
/// let mut addresses = "localhost:25".to_socket_addrs()?;
/// assert!(addresses.all(|address| address.ip().is_loopback() && address.port() == 25));
///
/// struct Mx(String);
/// impl ToSocketAddrs for Mx {
///     type Iter = std::vec::IntoIter<SocketAddr>;
///     fn to_socket_addrs(&self) -> std::io::Result<Self::Iter> {
///         (self.0.as_str(), 25).to_socket_addrs()
///     }
/// }
/// assert_eq!(Mx("192.0.2.1".into()).to_socket_addrs()?.count(), 1);
/// # Ok(())
/// # }
/// ```
#[doc(alias = "getaddrinfo")]
#[doc(alias = "dns")]
pub trait ToSocketAddrs {
    /// Gives the addresses.
    type Iter: Iterator<Item = SocketAddr>;

    /// The addresses, in the order in which they should be tried; waits for them if they have to be looked up.
    ///
    /// # Errors
    /// Those of std, with the same kinds and texts. Where nothing may wait, as while the tasklet unwinds, a name that is
    /// not known already is refused. When there are no descriptors left for the resolver, it waits for some as
    /// [`TcpStream::connect`](crate::TcpStream::connect) does, and fails as that does.
    ///
    /// ```
    /// use pila_net::ToSocketAddrs;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let mut addresses = ("127.0.0.1", 80).to_socket_addrs()?;
    /// assert_eq!(addresses.next(), Some(([127, 0, 0, 1], 80).into()));
    /// assert_eq!("no port".to_socket_addrs().unwrap_err().to_string(), "invalid socket address");
    /// # Ok(())
    /// # }
    /// ```
    fn to_socket_addrs(&self) -> io::Result<Self::Iter>;
}

/// For what stands for one address and is never looked up.
macro_rules! one_address {
    ($($type:ty),*) => {$(
        impl ToSocketAddrs for $type {
            type Iter = option::IntoIter<SocketAddr>;

            fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
                net::ToSocketAddrs::to_socket_addrs(self)
            }
        }
    )*};
}

one_address!(
    SocketAddr,
    SocketAddrV4,
    SocketAddrV6,
    (IpAddr, u16),
    (Ipv4Addr, u16),
    (Ipv6Addr, u16)
);

impl ToSocketAddrs for (&str, u16) {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        let (host, port) = *self;
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)].into_iter());
        }
        look_up(host, port)
    }
}

impl ToSocketAddrs for (String, u16) {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        (self.0.as_str(), self.1).to_socket_addrs()
    }
}

impl ToSocketAddrs for str {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        if let Ok(address) = self.parse() {
            return Ok(vec![address].into_iter());
        }
        match self.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) => look_up(host, port),
            // It looks nothing up, and knows what to say.
            _ => net::ToSocketAddrs::to_socket_addrs(self),
        }
    }
}

impl ToSocketAddrs for String {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        self.as_str().to_socket_addrs()
    }
}

impl<'a> ToSocketAddrs for &'a [SocketAddr] {
    type Iter = iter::Cloned<slice::Iter<'a, SocketAddr>>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        Ok(self.iter().cloned())
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {
    type Iter = T::Iter;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        (**self).to_socket_addrs()
    }
}

/// Tries each address that `name` stands for until one works. Fails like the last, as std does.
pub(crate) fn each_address<T>(
    name: impl ToSocketAddrs,
    mut attempt: impl FnMut(&SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut failure = None;
    for address in name.to_socket_addrs()? {
        match attempt(&address) {
            Ok(done) => return Ok(done),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "could not resolve to any addresses")
    }))
}

fn look_up(host: &str, port: u16) -> io::Result<vec::IntoIter<SocketAddr>> {
    loop {
        match SYSTEM.resolve(host) {
            Ok(addresses) => {
                let mut addresses = addresses.to_vec();
                addresses.iter_mut().for_each(|address| address.set_port(port));
                return Ok(addresses.into_iter());
            }
            // The resolver says that it has failed, and not that it had no descriptor for what it wanted to ask.
            Err(_) if descriptors().is_err_and(|error| budget::is_shortage(&error)) => {
                budget::wait_for(descriptors)?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// As many descriptors as the resolver wants at a time.
fn descriptors() -> io::Result<[UnixDatagram; 3]> {
    Ok([UnixDatagram::unbound()?, UnixDatagram::unbound()?, UnixDatagram::unbound()?])
}
