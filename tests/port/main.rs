//! A program that was written against std works on pila after its `use` lines were changed, and nothing else.

use net_support::bounded;

#[path = "../net_support/mod.rs"]
mod net_support;

mod on_std {
    use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
    use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixStream;
    use std::thread::spawn;
    use std::time::Duration;

    include!("echo.rs");
}

mod on_pila {
    use pila::net::unix::UnixStream;
    use pila::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
    use pila::tasklet as spawn;
    use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
    use std::time::Duration;

    include!("echo.rs");
}

#[test]
fn an_echo_server_is_ported_by_its_use_lines() {
    let on_std = bounded(|| on_std::main().unwrap());
    let on_pila = bounded(|| on_pila::main().unwrap());
    assert_eq!(on_pila, on_std);
    assert_eq!(on_std.0, 200);
}
