//! Sockets on which only the calling tasklet waits.
//!
//! [`TcpStream`] and [`TcpListener`] have the names, the signatures and the errors of their namesakes
//! in [`std::net`], so porting a program is changing its `use` lines. A call that would block parks the
//! tasklet that made it; the others of its thread run on. Everything generic over [`std::io::Read`] and
//! [`std::io::Write`] works unchanged.
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
//! - A listener listens with the system's `somaxconn`, not with a backlog of 128: thousands of tasklets
//!   connect at once.
//! - Where the process has no descriptor left, `connect` and `accept` wait their turn instead of failing.
//! - A call whose tasklet is killed, or whose time is up, fails with the cause as the error's source.
//! - There is no `FromRawFd`: use `From<OwnedFd>`.
//! - [`ToSocketAddrs`] is a trait of its own, for the same types: looking up a host lets only the tasklet wait. What
//!   else implements std's has to be turned into one of those types.
//!
//! Sockets are `Send` and `Sync`, though tasklets are not: a socket may be used on, and dropped on, any
//! thread, and tasklets of several threads may wait on the same one.
//!
//! # Environment
//!
//! `PILA_POLLER=portable`, read when a thread first waits on a socket, makes Linux wait for events the
//! way every other system does, through the [`polling`](https://docs.rs/polling) crate, which takes
//! more system calls. The same happens by itself where the kernel refuses `epoll_pwait2`.
//!
//! `PILA_RESOLVER_THREADS`, read at the first name that is looked up, says on how many threads that is done at most,
//! instead of 16.
//!
//! # Layout
//!
//! - `readiness.rs` – one poller's knowledge of one socket, as bits, and who waits for them
//! - `epoll.rs` – Linux's way of harvesting events, one system call a turn; `no_epoll.rs` stands in elsewhere
//! - `poller.rs` – the thread's `Driver`: events in, tickets out
//! - `reserve.rs` – one descriptor that a process with listeners keeps back
//! - `budget.rs` – who gets the next descriptor when there are too few
//! - `source.rs` – one socket with its registrations: try the call, park when it would block
//! - `lookup.rs` – queries for hosts, on threads of their own
//! - `resolve.rs` – what stands for addresses
//! - `syscall.rs` – the calls themselves, none of which ever blocks
//! - `connect.rs` – a connection from the first packet to the answer
//! - `attempts.rs` – a connection to whichever of several addresses answers first
//! - `watch.rs` – waits for descriptors of any other kind
//! - `tcp/` – the public types
//!
//! A file uses only those above it.

mod attempts;
mod budget;
mod connect;
#[cfg(target_os = "linux")]
mod epoll;
#[cfg(not(target_os = "linux"))]
#[path = "no_epoll.rs"]
mod epoll;
mod lookup;
mod poller;
mod readiness;
mod reserve;
mod resolve;
mod source;
mod syscall;
mod tcp;
mod watch;

pub use std::net::{
    AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6,
};

pub use resolve::ToSocketAddrs;
pub use tcp::{Incoming, TcpListener, TcpStream};
pub use watch::{Watch, readable, writable};
