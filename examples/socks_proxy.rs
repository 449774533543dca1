//! A SOCKS5 proxy: it opens the connections that its clients ask for, and passes on what either end says, a tasklet for
//! each direction.
//!
//!     cargo run --release --example socks_proxy -- --listen 127.0.0.1:1080
//!
//! Download through it, as many at once as you like: `curl --socks5-hostname 127.0.0.1:1080 http://example.org`. It prints
//!
//!     listening at 127.0.0.1:1080

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr},
    time::Duration,
};

use clap::Parser;
use pila::net::{TcpListener, TcpStream};

/// How long it may take until a client's connection stands, from its first byte on.
const PATIENCE: Duration = Duration::from_secs(30);

/// A SOCKS5 proxy
#[derive(Parser)]
struct Options {
    /// Where to listen; port 0 lets the system choose
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

fn take<const N: usize>(client: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn take_list(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let [count] = take(client)?;
    let mut bytes = vec![0; count.into()];
    client.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Agrees on no authentication, which the client has to offer.
fn greet(client: &mut TcpStream) -> io::Result<()> {
    let [version] = take(client)?;
    let is_welcome = version == 5 && take_list(client)?.contains(&0);
    client.write_all(if is_welcome { &[5, 0] } else { &[5, 0xff] })?;
    is_welcome.then_some(()).ok_or(ErrorKind::Unsupported.into())
}

/// Opens the connection that the client asks for.
fn open(client: &mut TcpStream) -> io::Result<TcpStream> {
    let [_version, command, _reserved, kind] = take(client)?;
    let host = match kind {
        1 => Ipv4Addr::from(take::<4>(client)?).to_string(),
        3 => String::from_utf8_lossy(&take_list(client)?).into_owned(),
        4 => Ipv6Addr::from(take::<16>(client)?).to_string(),
        _ => return Err(ErrorKind::Unsupported.into()),
    };
    let port = u16::from_be_bytes(take(client)?);
    match command {
        1 => TcpStream::connect((host.as_str(), port)),
        _ => Err(ErrorKind::Unsupported.into()),
    }
}

/// What RFC 1928 calls the outcome.
fn code(opened: &io::Result<TcpStream>) -> u8 {
    match opened.as_ref().map_err(io::Error::kind) {
        Ok(_) => 0,
        Err(ErrorKind::NetworkUnreachable) => 3,
        Err(ErrorKind::HostUnreachable) => 4,
        Err(ErrorKind::ConnectionRefused) => 5,
        Err(ErrorKind::Unsupported) => 7,
        Err(_) => 1,
    }
}

/// Gives the client the connection it wants.
fn negotiate(client: &mut TcpStream) -> io::Result<TcpStream> {
    greet(client)?;
    let opened = open(client);
    // The address that follows is of no use to anyone.
    client.write_all(&[5, code(&opened), 0, 1, 0, 0, 0, 0, 0, 0])?;
    opened
}

/// Passes on everything, and then the end. When one side is gone so is the other.
fn pass(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    match io::copy(&mut &*from, &mut &*to) {
        Ok(_) => to.shutdown(Shutdown::Write),
        Err(error) => {
            from.shutdown(Shutdown::Both).and(to.shutdown(Shutdown::Both)).and(Err(error))
        }
    }
}

fn serve(mut client: TcpStream) -> io::Result<()> {
    let server = pila::timeout(PATIENCE, || negotiate(&mut client))??;
    pila::scope(|both| {
        let up = both.tasklet(|| pass(&client, &server));
        pass(&server, &client).and(up.join().map_err(io::Error::other)?)
    })
}

fn main() -> io::Result<()> {
    let listener = TcpListener::bind(Options::parse().listen)?;
    println!("listening at {}", listener.local_addr()?);
    for client in listener.incoming() {
        let client = client?;
        // What goes wrong the client has been told, as far as it can be.
        pila::tasklet(move || serve(client));
    }
    Ok(())
}
