//! Sockets on which only the calling tasklet waits.
//!
//! [`TcpStream`], [`TcpListener`], [`UdpSocket`], [`UnixStream`], [`UnixListener`] and [`UnixDatagram`] have the names, the
//! signatures and the errors of their namesakes in [`std::net`] and [`std::os::unix::net`], so porting a program is
//! changing its `use` lines. A call that would block parks the tasklet that made it; the others of its thread run on.
//! Everything generic over [`std::io::Read`] and [`std::io::Write`] works unchanged. For descriptors of any other kind
//! there are [`readable`], [`writable`] and [`Watch`].
//!
//! ```
//! use pila_net::{TcpListener, TcpStream};
//! use std::io::{Read, Write};
//!
//! # fn main() -> std::io::Result<()> {
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let address = listener.local_addr()?;
//! pila_runtime::tasklet(move || {
//!     let (mut peer, _) = listener.accept().unwrap();
//!     peer.write_all(b"220 ready\r\n").unwrap();
//! });
//!
//! let mut greeting = String::new();
//! TcpStream::connect(address)?.read_to_string(&mut greeting)?;
//! assert_eq!(greeting, "220 ready\r\n");
//! # Ok(())
//! # }
//! ```
//!
//! # Where it differs from std
//!
//! The tests run one hundred programs on std's types and on these (`tests/same_as_std`): their outcomes are equal. What is
//! different:
//!
//! - A TCP listener listens with the system's `somaxconn`, not with a backlog of 128: thousands of tasklets
//!   connect at once. std's Unix listeners do so too.
//! - Where the process has no descriptor left, `bind`, `connect` and `accept` wait their turn instead of failing.
//! - A call whose tasklet is killed, or whose time is up, fails with the cause as the error's source.
//! - No call is interrupted by a signal: none fails with `Interrupted`, and timeouts count from the call, not from the
//!   last signal.
//! - A write takes what there is room for, as [`Write`](std::io::Write) allows it to. In std it waits until all of it is
//!   taken, if no time is set: who ignored what it gives needs `write_all` here.
//! - Calls on a listener of ours never block their thread, so the system knows it as nonblocking as long as there is one of
//!   it here: `accept` on a clone that went to std, or to another process, gives `WouldBlock` meanwhile.
//! - The descriptor of a pipe to a child is nonblocking, too, while it is ours; what is converted, or given to another child
//!   as its [`Stdio`](process::Stdio), blocks.
//! - A connect that tried several addresses names all of them in its error, so that has no `raw_os_error`.
//! - Where a socket was told to linger (`SO_LINGER` with a time), closing it holds up the whole thread, as the system has no
//!   other way. Shut it down and read to the end instead.
//! - There is no `FromRawFd`: use `From<OwnedFd>`.
//! - [`ToSocketAddrs`] is a trait of its own, for the same types: looking up a host lets only the tasklet wait. What
//!   else implements std's has to be turned into one of those types.
//! - `TcpStream::{set_quickack, quickack}` are methods, not those of a trait: std's extension traits are sealed.
//! - [`UnixDatagram::recv_from`] tells a sender whose path leaves no room for its NUL as unnamed.
//! - Where the system gives no sign, the tasklet looks again, after 50 µs at first and every 20 ms in the end: a
//!   [`UnixStream::connect`] to a listener whose queue is full, and a [`UnixDatagram::send_to`] to a socket that has no room.
//!   Who comes first is not always served first there.
//!
//! What is unstable in std is not here. Sockets are `Send` and `Sync`, though tasklets are not: a socket may be used on, and
//! dropped on, any thread, and tasklets of several threads may wait on the same one.
//!
//! # Fairness
//!
//! A socket that is always ready starves nobody. What a thread's tasklets do without waiting is counted: a call is one unit,
//! and every 8 KiB that it moves one more. After 128 units, unless the scheduler has looked outside by itself meanwhile, the
//! next call on a socket first lets everyone run who can, after a look for those whose time or whose news has come. So a
//! tasklet that can run does so after at most 128 units of each of those that can run before it, and a timer is late by no
//! more. Calls on sockets that were set nonblocking never let others run.
//!
//! A call that lets others run does so before it does anything: whoever is killed there, or out of time, loses no byte.
//!
//! # Options that std has no name for
//!
//! Users of std's sockets set them with the crate [`socket2`](https://docs.rs/socket2), and so do users of these. (Whoever
//! has seen the descriptor may set timeouts, too. So from then on a wait on that socket first asks the system for them.)
//!
//! ```
//! use pila_net::{TcpListener, TcpStream};
//! use socket2::{SockRef, TcpKeepalive};
//! use std::time::Duration;
//!
//! # fn main() -> std::io::Result<()> {
//! # let listener = TcpListener::bind("127.0.0.1:0")?;
//! let stream = TcpStream::connect(listener.local_addr()?)?;
//! let socket = SockRef::from(&stream);
//! socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(60)))?;
//! socket.set_linger(Some(Duration::ZERO))?; // closing resets the connection
//! socket.set_recv_buffer_size(1 << 20)?;
//! # Ok(())
//! # }
//! ```
//!
//! What has to be set before a socket is bound is set on one of `socket2`'s, which is then converted. So several threads,
//! each with a scheduler and a listener of its own, share a port, and the system deals out the connections:
//!
//! ```
//! use pila_net::{SocketAddr, TcpListener};
//! use socket2::{Domain, Socket, Type};
//! use std::{io, net};
//!
//! fn listen(address: SocketAddr) -> io::Result<TcpListener> {
//!     let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
//!     socket.set_reuse_port(true)?;
//!     socket.bind(&address.into())?;
//!     socket.listen(4096)?;
//!     Ok(net::TcpListener::from(socket).into())
//! }
//!
//! # fn main() -> io::Result<()> {
//! let first = listen("127.0.0.1:0".parse().unwrap())?;
//! let second = listen(first.local_addr()?)?;
//! # drop(second);
//! # Ok(())
//! # }
//! ```
//!
//! # Environment
//!
//! `PILA_POLLER=portable`, read when a thread first waits on a socket, makes Linux wait for events the
//! way every other system does, through the [`polling`](https://docs.rs/polling) crate, which takes
//! more system calls. The same happens by itself where the kernel refuses `epoll_pwait2`.
//!
//! `PILA_RESOLVER_THREADS`, read at the first name that is looked up, says on how many threads that is done at most,
//! instead of 16. As many names as that which a silent server leaves unanswered hold up all others, `localhost` too, until
//! their queries end.
//!
//! # Layout
//!
//! - `readiness.rs` – one poller's knowledge of one socket, as bits, and who waits for them
//! - `epoll.rs` – Linux's way of harvesting events, one system call a turn; `no_epoll.rs` stands in elsewhere
//! - `poller.rs` – the thread's `Driver`: events in, tickets out
//! - `first.rs` – the first of several of these that is worth trying
//! - `reserve.rs` – one descriptor that a process with listeners keeps back
//! - `budget.rs` – who gets the next descriptor when there are too few
//! - `syscall.rs` – the calls themselves, none of which ever blocks
//! - `settings.rs` – what the clones of a socket share, and what of that the kernel knows
//! - `source.rs` – one socket with its registrations: try the call, park when it would block
//! - `standing.rs` – the same for a task of async code, whose waker is kept until there is news
//! - `lookup.rs` – queries for hosts, on threads of their own
//! - `resolve.rs` – what stands for addresses
//! - `connect.rs` – a connection from the first packet to the answer
//! - `attempts.rs` – a connection to whichever of several addresses answers first
//! - `accept.rs` – a connection off the queue of a listener
//! - `convert.rs` – sockets from and to std's
//! - `transfer.rs` – what streams have in common, and what sockets for datagrams have
//! - `watch.rs` – waits for descriptors of any other kind
//! - `tcp/`, `udp.rs`, `unix/` – the public types
//! - `tls/` – with the feature `tls`: TLS on any stream
//! - `async_stream.rs` – streams for async code
//! - `process/` – child processes, and with the feature `worker` workers of the same program
//!
//! A file uses only those above it.

mod accept;
mod async_stream;
mod attempts;
mod budget;
mod connect;
mod convert;
#[cfg(target_os = "linux")]
mod epoll;
#[cfg(not(target_os = "linux"))]
#[path = "no_epoll.rs"]
mod epoll;
mod first;
mod lookup;
mod poller;
pub mod process;
mod readiness;
mod reserve;
mod resolve;
mod settings;
mod source;
mod standing;
mod syscall;
mod tcp;
#[cfg(feature = "tls")]
pub mod tls;
mod transfer;
mod udp;
pub mod unix;
mod watch;

pub use std::net::{
    AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6,
};

pub use async_stream::{AsyncStream, PollStream};
pub use resolve::ToSocketAddrs;
pub use tcp::{Incoming, TcpListener, TcpStream};
pub use udp::UdpSocket;
pub use unix::{UnixDatagram, UnixListener, UnixStream};
pub use watch::{Watch, readable, writable};
