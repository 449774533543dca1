//! [`UdpSocket`]: datagrams, for which only the tasklet waits.
//!
//! - What std can do without waiting is left to std's socket inside: binding, connecting, options.

use std::io;
use std::net::{self, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use crate::budget;
use crate::convert::{self, conversions};
use crate::readiness::Direction;
use crate::resolve::{ToSocketAddrs, each_address};
use crate::source::{Operation, Source};
use crate::syscall;

/// A socket for UDP, as [`std::net::UdpSocket`], on which only the calling tasklet waits.
///
/// `&UdpSocket` is all that sending and receiving take, so one tasklet may receive while others send.
///
/// ```
/// use pila_net::UdpSocket;
///
/// # fn main() -> std::io::Result<()> {
/// let server = UdpSocket::bind("127.0.0.1:0")?;
/// let address = server.local_addr()?;
/// let echo = pila_runtime::tasklet(move || {
///     let mut datagram = [0; 512];
///     let (count, from) = server.recv_from(&mut datagram)?;
///     server.send_to(&datagram[..count], from)
/// });
///
/// let client = UdpSocket::bind("127.0.0.1:0")?;
/// client.send_to(b"hello", address)?;
/// assert_eq!(client.recv(&mut [0; 512])?, 5);
/// # echo.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
pub struct UdpSocket {
    /// The socket; std's inside has the options.
    source: Source<net::UdpSocket>,
}

conversions!(UdpSocket, net::UdpSocket);

impl UdpSocket {
    /// Binds a socket to the first of the addresses that can be bound. Port 0 lets the system choose.
    ///
    /// # Errors
    /// When `addr` stands for no address, and otherwise with the error of the last one tried. With no descriptor left it
    /// waits as [`TcpStream::connect`](crate::TcpStream::connect) does.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// assert_ne!(socket.local_addr()?.port(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        let bind = |address: &SocketAddr| budget::obtain(None, || net::UdpSocket::bind(address));
        each_address(addr, bind).map(Self::from)
    }

    /// Receives a datagram, waiting for one if need be, and tells who it is from. What does not fit into `buf` is lost.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// socket.send_to(b"to itself", socket.local_addr()?)?;
    /// let (count, from) = socket.recv_from(&mut [0; 512])?;
    /// assert_eq!((count, from), (9, socket.local_addr()?));
    /// # Ok(())
    /// # }
    /// ```
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (received, from) = self.source.receive_datagram_from(buf)?;
        Ok((received, syscall::internet_address(from)?))
    }

    /// Receives a datagram as [`recv_from`](Self::recv_from) and leaves it there: the next call finds the same.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// socket.send_to(b"to itself", socket.local_addr()?)?;
    /// assert_eq!(socket.peek_from(&mut [0; 512])?.0, 9);
    /// assert_eq!(socket.recv_from(&mut [0; 512])?.0, 9);
    /// # Ok(())
    /// # }
    /// ```
    pub fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (received, from) = self.source.peek_datagram_from(buf)?;
        Ok((received, syscall::internet_address(from)?))
    }

    /// Sends a datagram to the first of the addresses, waiting for room if need be.
    ///
    /// # Errors
    /// `InvalidInput` when `addr` stands for no address; those of the system call, as of a datagram that is too long.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// assert_eq!(socket.send_to(b"to itself", socket.local_addr()?)?, 9);
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_to<A: ToSocketAddrs>(&self, buf: &[u8], addr: A) -> io::Result<usize> {
        let Some(address) = addr.to_socket_addrs()?.next() else {
            let message = "no addresses to send data to";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        self.source.run(Operation::Write, |io| syscall::send_to(io.as_fd(), buf, &address))
    }

    /// The address that the socket is connected to.
    ///
    /// # Errors
    /// `NotConnected` when it is not.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// assert!(socket.peer_addr().is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.source.io().peer_addr()
    }

    /// The address that the socket is bound to.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// assert!(socket.local_addr()?.ip().is_loopback());
    /// # Ok(())
    /// # }
    /// ```
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.source.io().local_addr()
    }

    /// A second handle to the same socket, with a descriptor of its own. Options, timeouts included, are shared.
    ///
    /// # Errors
    /// When there is no descriptor left.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// assert_eq!(socket.try_clone()?.local_addr()?, socket.local_addr()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::from_source(self.source.share(self.source.io().try_clone()?)))
    }

    /// Lets receiving wait for no longer than `timeout`; it then fails with `WouldBlock`, as in std on Unix.
    ///
    /// # Errors
    /// `InvalidInput` when `timeout` is zero.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// use std::{io::ErrorKind, time::Duration};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// socket.set_read_timeout(Some(Duration::from_millis(10)))?;
    /// assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.source.set_timeout(Direction::Read, timeout)
    }

    /// Lets sending wait for no longer than `timeout`; it then fails with `WouldBlock`, as in std on Unix.
    ///
    /// # Errors
    /// `InvalidInput` when `timeout` is zero.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # use std::time::Duration;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// socket.set_write_timeout(Some(Duration::from_secs(5)))?;
    /// assert!(socket.set_write_timeout(Some(Duration::ZERO)).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.source.set_timeout(Direction::Write, timeout)
    }

    /// How long receiving may wait, rounded up to what the system can represent. `None` is for ever.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// assert_eq!(socket.read_timeout()?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        self.source.timeout(Direction::Read)
    }

    /// How long sending may wait, rounded up to what the system can represent. `None` is for ever.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// assert_eq!(socket.write_timeout()?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        self.source.timeout(Direction::Write)
    }

    /// Lets the socket send to broadcast addresses (`SO_BROADCAST`).
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// socket.set_broadcast(true)?;
    /// assert!(socket.broadcast()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_broadcast(&self, broadcast: bool) -> io::Result<()> {
        self.source.io().set_broadcast(broadcast)
    }

    /// Whether the socket may send to broadcast addresses.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// assert!(!socket.broadcast()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn broadcast(&self) -> io::Result<bool> {
        self.source.io().broadcast()
    }

    /// Sets whether what is sent to an IPv4 group comes back to receivers on this machine.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// socket.set_multicast_loop_v4(false)?;
    /// assert!(!socket.multicast_loop_v4()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_multicast_loop_v4(&self, multicast_loop_v4: bool) -> io::Result<()> {
        self.source.io().set_multicast_loop_v4(multicast_loop_v4)
    }

    /// Whether what is sent to an IPv4 group comes back to receivers on this machine.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// assert!(socket.multicast_loop_v4()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn multicast_loop_v4(&self) -> io::Result<bool> {
        self.source.io().multicast_loop_v4()
    }

    /// Sets how many routers a datagram to an IPv4 group may pass. It is 1 at first: it stays in the local network.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// socket.set_multicast_ttl_v4(3)?;
    /// assert_eq!(socket.multicast_ttl_v4()?, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_multicast_ttl_v4(&self, multicast_ttl_v4: u32) -> io::Result<()> {
        self.source.io().set_multicast_ttl_v4(multicast_ttl_v4)
    }

    /// How many routers a datagram to an IPv4 group may pass.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// assert_eq!(socket.multicast_ttl_v4()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn multicast_ttl_v4(&self) -> io::Result<u32> {
        self.source.io().multicast_ttl_v4()
    }

    /// Sets whether what is sent to an IPv6 group comes back to receivers on this machine.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// if let Ok(socket) = UdpSocket::bind("[::1]:0") {
    ///     socket.set_multicast_loop_v6(false)?;
    ///     assert!(!socket.multicast_loop_v6()?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_multicast_loop_v6(&self, multicast_loop_v6: bool) -> io::Result<()> {
        self.source.io().set_multicast_loop_v6(multicast_loop_v6)
    }

    /// Whether what is sent to an IPv6 group comes back to receivers on this machine.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// if let Ok(socket) = UdpSocket::bind("[::1]:0") {
    ///     assert!(socket.multicast_loop_v6()?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn multicast_loop_v6(&self) -> io::Result<bool> {
        self.source.io().multicast_loop_v6()
    }

    /// Sets how many routers a datagram may pass.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// socket.set_ttl(100)?;
    /// assert_eq!(socket.ttl()?, 100);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.source.io().set_ttl(ttl)
    }

    /// How many routers a datagram may pass.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// assert!(socket.ttl()? > 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn ttl(&self) -> io::Result<u32> {
        self.source.io().ttl()
    }

    /// Joins an IPv4 group at the interface that has this address; `UNSPECIFIED` lets the system choose.
    ///
    /// # Errors
    /// When `multiaddr` is that of no group, or there is no such interface.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// use std::net::Ipv4Addr;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("0.0.0.0:0")?;
    /// let group = Ipv4Addr::new(224, 0, 0, 251);
    /// assert!(socket.join_multicast_v4(&Ipv4Addr::LOCALHOST, &Ipv4Addr::UNSPECIFIED).is_err());
    /// # // A machine without a network has no interface for it.
    /// let joined = socket.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST);
    /// # drop(joined);
    /// # Ok(())
    /// # }
    /// ```
    pub fn join_multicast_v4(&self, multiaddr: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.source.io().join_multicast_v4(multiaddr, interface)
    }

    /// Joins an IPv6 group at the interface with this number; 0 lets the system choose.
    ///
    /// # Errors
    /// When `multiaddr` is that of no group, or there is no such interface.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// use std::net::Ipv6Addr;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// if let Ok(socket) = UdpSocket::bind("[::1]:0") {
    ///     assert!(socket.join_multicast_v6(&Ipv6Addr::LOCALHOST, 0).is_err());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn join_multicast_v6(&self, multiaddr: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.source.io().join_multicast_v6(multiaddr, interface)
    }

    /// Leaves an IPv4 group.
    ///
    /// # Errors
    /// When the socket is not in it.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// use std::net::Ipv4Addr;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("0.0.0.0:0")?;
    /// let group = Ipv4Addr::new(224, 0, 0, 251);
    /// assert!(socket.leave_multicast_v4(&group, &Ipv4Addr::LOCALHOST).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn leave_multicast_v4(&self, multiaddr: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.source.io().leave_multicast_v4(multiaddr, interface)
    }

    /// Leaves an IPv6 group.
    ///
    /// # Errors
    /// When the socket is not in it.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// use std::net::Ipv6Addr;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// if let Ok(socket) = UdpSocket::bind("[::1]:0") {
    ///     assert!(socket.leave_multicast_v6(&Ipv6Addr::LOCALHOST, 0).is_err());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn leave_multicast_v6(&self, multiaddr: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.source.io().leave_multicast_v6(multiaddr, interface)
    }

    /// Takes the error that has struck the socket since the last call, if any.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// assert!(socket.take_error()?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.source.io().take_error()
    }

    /// Has [`send`](Self::send) send to the first of the addresses that works, and receiving take what comes from there only.
    ///
    /// # Errors
    /// When `addr` stands for no address, and otherwise with the error of the last one tried. That nobody is there shows only
    /// later, as `ConnectionRefused` of some other call.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// let server = UdpSocket::bind("127.0.0.1:0")?;
    /// socket.connect(server.local_addr()?)?;
    /// assert_eq!(socket.peer_addr()?, server.local_addr()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect<A: ToSocketAddrs>(&self, addr: A) -> io::Result<()> {
        each_address(addr, |address| self.source.io().connect(address))
    }

    /// Sends a datagram to the address that the socket is connected to, waiting for room if need be.
    ///
    /// # Errors
    /// When it is not connected; `ConnectionRefused` when the other end has said that nobody is there.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// let server = UdpSocket::bind("127.0.0.1:0")?;
    /// socket.connect(server.local_addr()?)?;
    /// socket.send(b"hello")?;
    /// assert_eq!(server.recv(&mut [0; 512])?, 5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.source.send_datagram(buf)
    }

    /// Receives a datagram, waiting for one if need be. What does not fit into `buf` is lost.
    ///
    /// # Errors
    /// `ConnectionRefused` when the other end has said that nobody is there.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// let server = UdpSocket::bind("127.0.0.1:0")?;
    /// socket.connect(server.local_addr()?)?;
    /// server.send_to(b"too long", socket.local_addr()?)?;
    /// assert_eq!(socket.recv(&mut [0; 3])?, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.source.receive_datagram(buf)
    }

    /// Receives a datagram as [`recv`](Self::recv) and leaves it there: the next call finds the same.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// let server = UdpSocket::bind("127.0.0.1:0")?;
    /// socket.connect(server.local_addr()?)?;
    /// server.send_to(b"hello", socket.local_addr()?)?;
    /// assert_eq!(socket.peek(&mut [0; 512])?, 5);
    /// assert_eq!(socket.recv(&mut [0; 512])?, 5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.source.peek_datagram(buf)
    }

    /// Makes calls on this socket and its clones fail with `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// None; the signature is std's.
    ///
    /// ```
    /// # use pila_net::UdpSocket;
    /// use std::io::ErrorKind;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// socket.set_nonblocking(true)?;
    /// assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        convert::set_nonblocking(&self.source, nonblocking);
        Ok(())
    }

    fn from_source(source: Source<net::UdpSocket>) -> Self {
        Self { source }
    }

    fn into_source(self) -> Source<net::UdpSocket> {
        self.source
    }
}
