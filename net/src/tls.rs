//! TLS on any stream, of which only the calling tasklet waits.
//!
//! The work is [`rustls`]'s, over a stream as it is: [`TcpStream`](crate::TcpStream), [`UnixStream`](crate::UnixStream), or
//! whatever else reads and writes. [`connect`] and [`accept`] shake hands before they return, so what is wrong with a peer
//! is told there, as an `io::Error` with a [`HandshakeError`] inside, and never at some later read. [`upgrade`] and
//! [`accept_upgrade`] are for protocols that begin in plaintext and go on in TLS, as SMTP and IMAP do after `STARTTLS`.
//!
//! ```
//! use pila_net::{TcpListener, TcpStream, tls};
//! use std::io::{Read, Write};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A certificate of its own making; `tls::connect` trusts those of the system instead.
//! let own = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
//! let server = tls::server_config(own.cert.pem(), own.signing_key.serialize_pem())?;
//! let client = tls::client_config_trusting(own.cert.pem())?;
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let address = listener.local_addr()?;
//! let serving = pila_runtime::tasklet(move || {
//!     let mut stream = tls::accept(server, listener.accept()?.0)?;
//!     stream.write_all(b"220 ready\r\n")?;
//!     stream.close()
//! });
//!
//! let mut stream = tls::connect_with(client, "localhost", TcpStream::connect(address)?)?;
//! let mut greeting = String::new();
//! stream.read_to_string(&mut greeting)?;
//! assert_eq!(greeting, "220 ready\r\n");
//! stream.close()?;
//! serving.join().unwrap()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Endings
//!
//! [`timeout`](pila_runtime::timeout) covers a handshake as it covers every call that waits. A kill or a timeout that strikes
//! in the middle of a call loses nothing: what is at hand of a record stays where it is, and so a stream whose read was ended
//! may be read on. Of a write that was ended nobody knows how much will have gone, as with any socket. A call that is
//! refused fails with the cause as its source, [`Killed`](pila_runtime::Killed) for example, as on the socket itself; only
//! `write`, when it has taken bytes already, leaves that to the next call, as rustls does: so let a `flush` or a
//! [`close`](TlsStream::close) be the last.
//!
//! The end of a TLS stream is said by the peer. A connection that ends without that was cut, by whomever, and the read that
//! finds it fails with `UnexpectedEof`.
//!
//! # Two tasklets
//!
//! One that reads and one that writes each take one of the halves of [`TlsStream::split`].
//!
//! # Layout
//!
//! - `error.rs` – what can go wrong
//! - `roots.rs` – whom the system trusts
//! - `config.rs` – configurations, from PEM
//! - `handshake.rs` – from a connection to both ends knowing each other
//! - `stream.rs` – `TlsStream`
//! - `halves.rs` – the same for two tasklets

mod config;
mod error;
mod halves;
mod handshake;
mod roots;
mod stream;

use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;

pub use rustls;
use rustls::{ClientConfig, ServerConfig};

pub use config::{
    client_config, client_config_trusting, client_config_with, server_config,
    server_config_from_files,
};
pub use error::{ConfigError, HandshakeError, HandshakeReason};
pub use halves::{ReadHalf, WriteHalf};
use handshake::Begun;
pub use roots::system_roots;
pub use stream::TlsStream;

/// TLS on `stream` with the server `host`, whose certificate must be for that name and from somebody whom the system trusts.
///
/// `host` is the name or the IP address of the server, without a port: what its user asked for, not what some answer on the
/// way said. The whole handshake is done when this returns.
///
/// # Errors
/// With a [`HandshakeError`] inside, when the peer is not who it should be, does not speak TLS or ends; then nothing was sent
/// to it but the handshake. `InvalidInput` when `host` is no host. With the stream's own error, when that fails otherwise, or
/// when the call may not wait. With a [`ConfigError`], when the system trusts nobody.
///
/// ```no_run
/// use pila_net::{TcpStream, tls};
/// use std::io::{Read, Write};
///
/// # fn main() -> std::io::Result<()> {
/// let mut stream = tls::connect("example.org", TcpStream::connect(("example.org", 443))?)?;
/// stream.write_all(b"GET / HTTP/1.0\r\nHost: example.org\r\n\r\n")?;
/// let mut page = Vec::new();
/// stream.read_to_end(&mut page)?;
/// # Ok(())
/// # }
/// ```
pub fn connect<S: Read + Write>(host: &str, stream: S) -> io::Result<TlsStream<S>> {
    connect_with(config::client_config()?, host, stream)
}

/// As [`connect`], with a configuration: one of [`client_config_with`]'s or any other of rustls.
///
/// # Errors
/// As [`connect`]. What a server holds against the certificate of a client, it may say after the handshake only: to the first
/// read.
///
/// ```
/// use pila_net::{TcpListener, TcpStream, tls};
/// use std::{io, time::Duration};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let own = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
/// let config = tls::client_config_trusting(own.cert.pem())?;
/// let silent = TcpListener::bind("127.0.0.1:0")?;
/// let stream = TcpStream::connect(silent.local_addr()?)?;
/// let late = pila_runtime::timeout(Duration::from_millis(20), || {
///     tls::connect_with(config, "localhost", stream)
/// });
/// assert_eq!(io::Error::from(late.unwrap_err()).kind(), io::ErrorKind::TimedOut);
/// # Ok(())
/// # }
/// ```
pub fn connect_with<S: Read + Write>(
    config: impl Into<Arc<ClientConfig>>,
    host: &str,
    stream: S,
) -> io::Result<TlsStream<S>> {
    handshake::as_client(config.into(), host, stream, Begun::InTls)
}

/// TLS on `stream` with a client, to whom `config` shows its certificate: one of [`server_config`]'s or any other of rustls.
///
/// The whole handshake is done when this returns. A client that never speaks makes it wait for ever: put a
/// [`timeout`](pila_runtime::timeout) around it, and let each connection have a tasklet of its own.
///
/// # Errors
/// With a [`HandshakeError`] inside, when the client does not speak TLS, does not trust the certificate, or ends; with the
/// stream's own error, when that fails otherwise, or when the call may not wait.
///
/// ```
/// use pila_net::{TcpListener, TcpStream, tls};
/// use std::io::Write;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let own = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
/// let config = tls::server_config(own.cert.pem(), own.signing_key.serialize_pem())?;
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// TcpStream::connect(listener.local_addr()?)?.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
/// let error = tls::accept(config, listener.accept()?.0).unwrap_err();
/// assert!(error.to_string().contains("does not speak TLS: it sent \"GET / HTTP/1.0"));
/// # Ok(())
/// # }
/// ```
pub fn accept<S: Read + Write>(
    config: impl Into<Arc<ServerConfig>>,
    stream: S,
) -> io::Result<TlsStream<S>> {
    handshake::as_server(config.into(), stream, Begun::InTls)
}

/// As [`connect`], on a connection that has been in plaintext until here: after the server's answer to `STARTTLS`.
///
/// Whoever sits in between can put plaintext of his own behind that answer, which a client that keeps what it has read
/// would take for what the server says under TLS. So whatever `plaintext` has read beyond the answer is an error; what is
/// not read yet goes to TLS, which fails with what is not from the server. Nothing of either is ever read as if it came under
/// TLS. Forget what the server said of itself in plaintext, and ask it again.
///
/// # Errors
/// With a [`HandshakeError`] inside whose reason is [`Injected`](HandshakeReason::Injected), when bytes were read beyond
/// the answer; then no handshake was begun. As [`connect`].
///
/// ```no_run
/// use pila_net::{TcpStream, tls};
/// use std::io::{self, BufRead, BufReader, Write};
///
/// fn reply(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
///     let mut line = String::new();
///     stream.read_line(&mut line)?;
///     Ok(line)
/// }
///
/// # fn main() -> io::Result<()> {
/// let mut stream = BufReader::new(TcpStream::connect(("imap.example.org", 143))?);
/// reply(&mut stream)?;
/// stream.get_mut().write_all(b"a STARTTLS\r\n")?;
/// assert!(reply(&mut stream)?.starts_with("a OK"));
/// let mut stream = BufReader::new(tls::upgrade("imap.example.org", stream)?);
/// stream.get_mut().write_all(b"b CAPABILITY\r\n")?;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "starttls")]
pub fn upgrade<S: Read + Write>(host: &str, plaintext: BufReader<S>) -> io::Result<TlsStream<S>> {
    upgrade_with(config::client_config()?, host, plaintext)
}

/// As [`upgrade`], with a configuration.
///
/// # Errors
/// As [`upgrade`].
///
/// ```
/// use pila_net::{TcpListener, TcpStream, tls};
/// use std::io::{BufRead, BufReader, Write};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let own = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
/// # let config = tls::client_config_trusting(own.cert.pem())?;
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let mut stream = BufReader::new(TcpStream::connect(listener.local_addr()?)?);
/// let (mut server, _) = listener.accept()?;
/// server.write_all(b"220 go ahead\r\n250 injected\r\n")?;
///
/// stream.read_line(&mut String::new())?;
/// let error = tls::upgrade_with(config, "localhost", stream).unwrap_err();
/// let error = tls::HandshakeError::of(&error).unwrap();
/// assert!(matches!(error.reason, tls::HandshakeReason::Injected { bytes: 14 }));
/// # Ok(())
/// # }
/// ```
pub fn upgrade_with<S: Read + Write>(
    config: impl Into<Arc<ClientConfig>>,
    host: &str,
    plaintext: BufReader<S>,
) -> io::Result<TlsStream<S>> {
    let stream = handshake::leave_plaintext(Some(host), plaintext)?;
    handshake::as_client(config.into(), host, stream, Begun::InPlaintext)
}

/// As [`accept`], on a connection that has been in plaintext until here: call it when the answer to the client's `STARTTLS`
/// has been written.
///
/// Whatever `plaintext` has read beyond that command is an error, for anyone could have put it there: commands that a server
/// keeps and then obeys as if they had come under TLS. Forget what the client said in plaintext.
///
/// # Errors
/// With a [`HandshakeError`] inside whose reason is [`Injected`](HandshakeReason::Injected), when bytes were read beyond
/// the command. As [`accept`].
///
/// ```
/// use pila_net::{TcpListener, TcpStream, tls};
/// use std::io::{BufRead, BufReader, Write};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let own = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
/// # let config = tls::server_config(own.cert.pem(), own.signing_key.serialize_pem())?;
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let mut client = TcpStream::connect(listener.local_addr()?)?;
/// client.write_all(b"STARTTLS\r\nMAIL FROM:<mallory@example.org>\r\n")?;
///
/// let mut stream = BufReader::new(listener.accept()?.0);
/// stream.read_line(&mut String::new())?;
/// stream.get_mut().write_all(b"220 go ahead\r\n")?;
/// let error = tls::accept_upgrade(config, stream).unwrap_err();
/// assert!(error.to_string().contains("33 bytes of plaintext"), "{error}");
/// # Ok(())
/// # }
/// ```
pub fn accept_upgrade<S: Read + Write>(
    config: impl Into<Arc<ServerConfig>>,
    plaintext: BufReader<S>,
) -> io::Result<TlsStream<S>> {
    let stream = handshake::leave_plaintext(None, plaintext)?;
    handshake::as_server(config.into(), stream, Begun::InPlaintext)
}
