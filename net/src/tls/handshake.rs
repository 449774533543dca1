//! From a connection to both ends knowing each other.
//!
//! - What the peer says is looked at, so that one who does not speak TLS can be quoted.
//! - Errors of the stream that are no news of the peer pass unchanged: those of a call that was refused, above all.
//! - What was read in plaintext never gets into TLS.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection,
};

use super::error::{Cause, HandshakeError, HandshakeReason};
use super::stream::TlsStream;

/// How a connection began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    InTls,
    InPlaintext,
}

/// Of what a peer says, how much is kept to quote it.
const QUOTED: usize = 64;

/// Whether what begins with `byte` can be TLS: it is one of the types that its records have.
fn may_be_tls(byte: u8) -> bool {
    matches!(byte, 20..=24)
}

pub(super) fn as_client<S: Read + Write>(
    config: Arc<ClientConfig>,
    host: &str,
    mut stream: S,
    begun: Begun,
) -> io::Result<TlsStream<S>> {
    let connection = ClientConnection::new(config, name(host)?).map_err(io::Error::other)?;
    let mut connection = Connection::Client(connection);
    shake_hands(&mut connection, &mut stream, Some(host), begun)?;
    Ok(TlsStream::new(connection, stream))
}

pub(super) fn as_server<S: Read + Write>(
    config: Arc<ServerConfig>,
    mut stream: S,
    begun: Begun,
) -> io::Result<TlsStream<S>> {
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut connection = Connection::Server(connection);
    shake_hands(&mut connection, &mut stream, None, begun)?;
    Ok(TlsStream::new(connection, stream))
}

fn name(host: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(host.to_string()).map_err(|error| {
        let message = format!(
            "{host:?} is no host: {error}; give its name or IP address alone, without a port or brackets"
        );
        io::Error::new(ErrorKind::InvalidInput, message)
    })
}

/// The stream below a buffer, if nothing was read that nobody has asked for.
pub(super) fn leave_plaintext<S: Read>(
    host: Option<&str>,
    plaintext: BufReader<S>,
) -> io::Result<S> {
    match plaintext.buffer().len() {
        0 => Ok(plaintext.into_inner()),
        bytes => Err(HandshakeError {
            host: host.map(str::to_string),
            reason: HandshakeReason::Injected { bytes },
            upgrade: true,
            source: None,
        }
        .into()),
    }
}

fn shake_hands<S: Read + Write>(
    connection: &mut Connection,
    stream: &mut S,
    host: Option<&str>,
    begun: Begun,
) -> io::Result<()> {
    let mut heard = Heard { stream, begin: Vec::new(), received: 0 };
    while connection.is_handshaking() || connection.wants_write() {
        let moved = match connection.complete_io(&mut heard) {
            Ok((0, 0)) => Err(ErrorKind::WriteZero.into()),
            other => other,
        };
        if let Err(error) = moved {
            let (reason, source) = heard.explain(error)?;
            let host = host.map(str::to_string);
            let upgrade = begun == Begun::InPlaintext;
            return Err(HandshakeError { host, reason, upgrade, source }.into());
        }
    }
    Ok(())
}

/// A stream in a handshake.
struct Heard<'a, S> {
    stream: &'a mut S,
    /// How what the peer said begins.
    begin: Vec<u8>,
    /// How much it said.
    received: u64,
}

impl<S: Read> Read for Heard<'_, S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buf)?;
        let wanted = QUOTED.saturating_sub(self.begin.len()).min(length);
        self.begin.extend_from_slice(&buf[..wanted]);
        self.received += length as u64;
        Ok(length)
    }
}

impl<S: Write> Write for Heard<'_, S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.write(buf)
    }

    fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.stream.write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl<S> Heard<'_, S> {
    /// What `error` says about the peer. Gives it back when it says nothing.
    fn explain(self, error: io::Error) -> io::Result<(HandshakeReason, Option<Cause>)> {
        let is_plaintext = self.begin.first().is_some_and(|byte| !may_be_tls(*byte));
        let closed = HandshakeReason::Closed { received: self.received };
        match error.downcast::<rustls::Error>() {
            Ok(error) if is_plaintext => {
                Ok((HandshakeReason::NotTls { received: self.begin }, Some(Cause::Rustls(error))))
            }
            Ok(error) => Ok((reason(&error), Some(Cause::Rustls(error)))),
            // An error with something inside is the stream's own.
            Err(error) if error.get_ref().is_some() => Err(error),
            Err(error) => match error.kind() {
                ErrorKind::UnexpectedEof if is_plaintext => {
                    Ok((HandshakeReason::NotTls { received: self.begin }, None))
                }
                ErrorKind::UnexpectedEof => Ok((closed, None)),
                ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe => Ok((closed, Some(Cause::Stream(error)))),
                ErrorKind::WouldBlock => Ok((HandshakeReason::Silent, Some(Cause::Stream(error)))),
                _ => Err(error),
            },
        }
    }
}

fn reason(error: &rustls::Error) -> HandshakeReason {
    match error {
        rustls::Error::InvalidCertificate(error) => reason_of_certificate(error),
        rustls::Error::AlertReceived(alert) => HandshakeReason::Alert(*alert),
        _ => HandshakeReason::Protocol,
    }
}

fn reason_of_certificate(error: &CertificateError) -> HandshakeReason {
    let between = |from: &UnixTime, to: &UnixTime| {
        Some(Duration::from_secs(to.as_secs().saturating_sub(from.as_secs())))
    };
    match error {
        CertificateError::NotValidForNameContext { presented, .. } => {
            HandshakeReason::OtherName { names: presented.iter().map(|name| plain(name)).collect() }
        }
        CertificateError::NotValidForName => HandshakeReason::OtherName { names: Vec::new() },
        CertificateError::UnknownIssuer => HandshakeReason::UnknownIssuer,
        CertificateError::Expired => HandshakeReason::Expired { ago: None },
        CertificateError::ExpiredContext { time, not_after } => {
            HandshakeReason::Expired { ago: between(not_after, time) }
        }
        CertificateError::NotValidYet => HandshakeReason::NotValidYet { ahead: None },
        CertificateError::NotValidYetContext { time, not_before } => {
            HandshakeReason::NotValidYet { ahead: between(time, not_before) }
        }
        _ => HandshakeReason::BadCertificate,
    }
}

/// A name without what rustls puts around it, as in `DnsName("example.org")`.
fn plain(name: &str) -> String {
    let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.unwrap_or(name).trim_matches('"').to_string()
}
