// Every method of std's sockets that is stable, with its signature. Compiled twice: `types` is with whoever includes this.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::types::{
    Incoming, TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixIncoming, UnixListener,
    UnixStream,
};
use super::unix;

type Io<T = ()> = io::Result<T>;
type Text<'a> = &'a str;
type Bytes<'a> = &'a [u8];
type Room<'a> = &'a mut [u8];
type Time = Option<Duration>;

/// The names of these methods. That they have these signatures is checked by compiling it.
macro_rules! methods {
    ($($type:ident { $($name:ident $(::<$($generic:ty),+>)?: $signature:ty,)+ })+) => {
        pub(crate) const NAMES: &[(&str, &[&str])] = &[$((stringify!($type), &[$({
            const _: $signature = $type::$name$(::<$($generic),+>)?;
            stringify!($name)
        }),+])),+];
    };
}

methods! {
    TcpStream {
        connect::<Text>: fn(Text<'static>) -> Io<TcpStream>,
        connect_timeout: fn(&SocketAddr, Duration) -> Io<TcpStream>,
        peer_addr: fn(&TcpStream) -> Io<SocketAddr>,
        local_addr: fn(&TcpStream) -> Io<SocketAddr>,
        shutdown: fn(&TcpStream, Shutdown) -> Io,
        try_clone: fn(&TcpStream) -> Io<TcpStream>,
        set_read_timeout: fn(&TcpStream, Time) -> Io,
        set_write_timeout: fn(&TcpStream, Time) -> Io,
        read_timeout: fn(&TcpStream) -> Io<Time>,
        write_timeout: fn(&TcpStream) -> Io<Time>,
        peek: fn(&TcpStream, Room) -> Io<usize>,
        set_nodelay: fn(&TcpStream, bool) -> Io,
        nodelay: fn(&TcpStream) -> Io<bool>,
        set_ttl: fn(&TcpStream, u32) -> Io,
        ttl: fn(&TcpStream) -> Io<u32>,
        take_error: fn(&TcpStream) -> Io<Option<io::Error>>,
        set_nonblocking: fn(&TcpStream, bool) -> Io,
    }
    TcpListener {
        bind::<Text>: fn(Text<'static>) -> Io<TcpListener>,
        local_addr: fn(&TcpListener) -> Io<SocketAddr>,
        try_clone: fn(&TcpListener) -> Io<TcpListener>,
        accept: fn(&TcpListener) -> Io<(TcpStream, SocketAddr)>,
        incoming: for<'a> fn(&'a TcpListener) -> Incoming<'a>,
        set_ttl: fn(&TcpListener, u32) -> Io,
        ttl: fn(&TcpListener) -> Io<u32>,
        set_only_v6: fn(&TcpListener, bool) -> Io,
        only_v6: fn(&TcpListener) -> Io<bool>,
        take_error: fn(&TcpListener) -> Io<Option<io::Error>>,
        set_nonblocking: fn(&TcpListener, bool) -> Io,
    }
    UdpSocket {
        bind::<Text>: fn(Text<'static>) -> Io<UdpSocket>,
        recv_from: fn(&UdpSocket, Room) -> Io<(usize, SocketAddr)>,
        peek_from: fn(&UdpSocket, Room) -> Io<(usize, SocketAddr)>,
        send_to::<Text>: fn(&UdpSocket, Bytes, Text<'static>) -> Io<usize>,
        peer_addr: fn(&UdpSocket) -> Io<SocketAddr>,
        local_addr: fn(&UdpSocket) -> Io<SocketAddr>,
        try_clone: fn(&UdpSocket) -> Io<UdpSocket>,
        set_read_timeout: fn(&UdpSocket, Time) -> Io,
        set_write_timeout: fn(&UdpSocket, Time) -> Io,
        read_timeout: fn(&UdpSocket) -> Io<Time>,
        write_timeout: fn(&UdpSocket) -> Io<Time>,
        set_broadcast: fn(&UdpSocket, bool) -> Io,
        broadcast: fn(&UdpSocket) -> Io<bool>,
        set_multicast_loop_v4: fn(&UdpSocket, bool) -> Io,
        multicast_loop_v4: fn(&UdpSocket) -> Io<bool>,
        set_multicast_ttl_v4: fn(&UdpSocket, u32) -> Io,
        multicast_ttl_v4: fn(&UdpSocket) -> Io<u32>,
        set_multicast_loop_v6: fn(&UdpSocket, bool) -> Io,
        multicast_loop_v6: fn(&UdpSocket) -> Io<bool>,
        set_ttl: fn(&UdpSocket, u32) -> Io,
        ttl: fn(&UdpSocket) -> Io<u32>,
        join_multicast_v4: fn(&UdpSocket, &Ipv4Addr, &Ipv4Addr) -> Io,
        join_multicast_v6: fn(&UdpSocket, &Ipv6Addr, u32) -> Io,
        leave_multicast_v4: fn(&UdpSocket, &Ipv4Addr, &Ipv4Addr) -> Io,
        leave_multicast_v6: fn(&UdpSocket, &Ipv6Addr, u32) -> Io,
        take_error: fn(&UdpSocket) -> Io<Option<io::Error>>,
        connect::<Text>: fn(&UdpSocket, Text<'static>) -> Io,
        send: fn(&UdpSocket, Bytes) -> Io<usize>,
        recv: fn(&UdpSocket, Room) -> Io<usize>,
        peek: fn(&UdpSocket, Room) -> Io<usize>,
        set_nonblocking: fn(&UdpSocket, bool) -> Io,
    }
    UnixStream {
        connect::<&Path>: fn(&'static Path) -> Io<UnixStream>,
        connect_addr: fn(&unix::SocketAddr) -> Io<UnixStream>,
        pair: fn() -> Io<(UnixStream, UnixStream)>,
        try_clone: fn(&UnixStream) -> Io<UnixStream>,
        local_addr: fn(&UnixStream) -> Io<unix::SocketAddr>,
        peer_addr: fn(&UnixStream) -> Io<unix::SocketAddr>,
        set_read_timeout: fn(&UnixStream, Time) -> Io,
        set_write_timeout: fn(&UnixStream, Time) -> Io,
        read_timeout: fn(&UnixStream) -> Io<Time>,
        write_timeout: fn(&UnixStream) -> Io<Time>,
        set_nonblocking: fn(&UnixStream, bool) -> Io,
        take_error: fn(&UnixStream) -> Io<Option<io::Error>>,
        shutdown: fn(&UnixStream, Shutdown) -> Io,
    }
    UnixListener {
        bind::<&Path>: fn(&'static Path) -> Io<UnixListener>,
        bind_addr: fn(&unix::SocketAddr) -> Io<UnixListener>,
        accept: fn(&UnixListener) -> Io<(UnixStream, unix::SocketAddr)>,
        try_clone: fn(&UnixListener) -> Io<UnixListener>,
        local_addr: fn(&UnixListener) -> Io<unix::SocketAddr>,
        set_nonblocking: fn(&UnixListener, bool) -> Io,
        take_error: fn(&UnixListener) -> Io<Option<io::Error>>,
        incoming: for<'a> fn(&'a UnixListener) -> UnixIncoming<'a>,
    }
    UnixDatagram {
        bind::<&Path>: fn(&'static Path) -> Io<UnixDatagram>,
        bind_addr: fn(&unix::SocketAddr) -> Io<UnixDatagram>,
        unbound: fn() -> Io<UnixDatagram>,
        pair: fn() -> Io<(UnixDatagram, UnixDatagram)>,
        connect::<&Path>: fn(&UnixDatagram, &'static Path) -> Io,
        connect_addr: fn(&UnixDatagram, &unix::SocketAddr) -> Io,
        try_clone: fn(&UnixDatagram) -> Io<UnixDatagram>,
        local_addr: fn(&UnixDatagram) -> Io<unix::SocketAddr>,
        peer_addr: fn(&UnixDatagram) -> Io<unix::SocketAddr>,
        recv_from: fn(&UnixDatagram, Room) -> Io<(usize, unix::SocketAddr)>,
        recv: fn(&UnixDatagram, Room) -> Io<usize>,
        send_to::<&Path>: fn(&UnixDatagram, Bytes, &'static Path) -> Io<usize>,
        send_to_addr: fn(&UnixDatagram, Bytes, &unix::SocketAddr) -> Io<usize>,
        send: fn(&UnixDatagram, Bytes) -> Io<usize>,
        set_read_timeout: fn(&UnixDatagram, Time) -> Io,
        set_write_timeout: fn(&UnixDatagram, Time) -> Io,
        read_timeout: fn(&UnixDatagram) -> Io<Time>,
        write_timeout: fn(&UnixDatagram) -> Io<Time>,
        set_nonblocking: fn(&UnixDatagram, bool) -> Io,
        take_error: fn(&UnixDatagram) -> Io<Option<io::Error>>,
        shutdown: fn(&UnixDatagram, Shutdown) -> Io,
    }
}
