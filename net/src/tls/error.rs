//! What can go wrong before there is TLS: with a peer, and with a configuration.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustls::AlertDescription;
use rustls::pki_types::pem;

/// Why a peer and this end have no TLS between them. The `io::Error` of [`connect`](super::connect) and its like has it
/// inside; its source is rustls's error, or the stream's.
///
/// ```
/// use pila_net::{TcpListener, TcpStream, tls};
/// use std::io::Write;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let own = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
/// # let config = tls::client_config_trusting(own.cert.pem())?;
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let stream = TcpStream::connect(listener.local_addr()?)?;
/// listener.accept()?.0.write_all(b"220 mail.example.org ESMTP\r\n")?;
///
/// let error = tls::connect_with(config, "localhost", stream).unwrap_err();
/// match tls::HandshakeError::of(&error).map(|error| &error.reason) {
///     Some(tls::HandshakeReason::NotTls { received }) => assert!(received.starts_with(b"220")),
///     _ => return Err(error.into()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct HandshakeError {
    /// The server that was asked for; `None` at the server's end.
    pub host: Option<String>,
    /// What went wrong.
    pub reason: HandshakeReason,
    /// Whether the connection had been in plaintext before.
    pub upgrade: bool,
    pub(super) source: Option<Cause>,
}

/// What went wrong in a handshake. After none of them may anything of the peer's be used.
///
/// ```
/// use pila_net::{TcpListener, TcpStream, tls};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let own = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
/// # let config = tls::server_config(own.cert.pem(), own.signing_key.serialize_pem())?;
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// drop(TcpStream::connect(listener.local_addr()?)?);
/// let error = tls::accept(config, listener.accept()?.0).unwrap_err();
/// let error = tls::HandshakeError::of(&error).unwrap();
/// assert!(matches!(error.reason, tls::HandshakeReason::Closed { received: 0 }));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum HandshakeReason {
    /// The server's certificate is for other names.
    OtherName {
        /// Those.
        names: Vec<String>,
    },
    /// Nobody who is trusted has issued the peer's certificate.
    UnknownIssuer,
    /// The peer's certificate has expired, this long ago where that is known.
    Expired {
        /// Since when.
        ago: Option<Duration>,
    },
    /// The peer's certificate is not valid yet, for this long where that is known.
    NotValidYet {
        /// Until when.
        ahead: Option<Duration>,
    },
    /// The peer's certificate is no good for another reason, which the source gives.
    BadCertificate,
    /// The peer does not speak TLS.
    NotTls {
        /// How what it sent begins.
        received: Vec<u8>,
    },
    /// The peer ended the connection.
    Closed {
        /// How many bytes had come from it.
        received: u64,
    },
    /// The peer refused to go on, and said why.
    Alert(AlertDescription),
    /// Nothing came for as long as the stream itself is set to wait: its own timeout, or not at all when it is nonblocking.
    Silent,
    /// Plaintext was there when TLS was to begin.
    Injected {
        /// How many bytes of it had been read.
        bytes: usize,
    },
    /// The peers do not understand each other, for another reason, which the source gives.
    Protocol,
}

/// What made a handshake fail.
#[derive(Debug)]
pub(super) enum Cause {
    Rustls(rustls::Error),
    Stream(io::Error),
}

impl HandshakeError {
    /// The one inside an `io::Error`, if there is one.
    ///
    /// ```
    /// use pila_net::tls::HandshakeError;
    /// use std::io;
    ///
    /// assert!(HandshakeError::of(&io::Error::other("something else")).is_none());
    /// ```
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&HandshakeError> {
        error.get_ref()?.downcast_ref()
    }

    fn kind(&self) -> io::ErrorKind {
        match (&self.reason, &self.source) {
            (_, Some(Cause::Stream(error))) => error.kind(),
            (HandshakeReason::Closed { .. }, _) => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        }
    }

    /// What to do about a certificate that says the truth, and one that does not.
    fn write_certificate(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            HandshakeReason::OtherName { names } if names.is_empty() => f.write_str(
                "its certificate is for no name at all: it needs one for the name it is asked by",
            ),
            HandshakeReason::OtherName { names } => write!(
                f,
                "its certificate is for {}, not for this name: connect by a name that it has, or have it get \
                 a certificate for this one",
                names.join(", ")
            ),
            HandshakeReason::UnknownIssuer => f.write_str(
                "nobody who is trusted has issued its certificate: if it is the right one, give its issuer's to \
                 `tls::client_config_with`, or have the server send those in between",
            ),
            HandshakeReason::Expired { ago } => {
                f.write_str("its certificate has expired")?;
                write_span(f, " ", *ago, " ago")?;
                f.write_str(": it needs a new one, unless the clock here is wrong")
            }
            HandshakeReason::NotValidYet { ahead } => {
                f.write_str("its certificate is not valid yet")?;
                write_span(f, ", but in ", *ahead, "")?;
                f.write_str(": the clock is wrong, here or where it was made")
            }
            _ => {
                f.write_str("its certificate is no good: ")?;
                self.write_source(f)?;
                f.write_str("; it needs another one")
            }
        }
    }

    fn write_not_tls(&self, f: &mut fmt::Formatter<'_>, received: &[u8]) -> fmt::Result {
        let begin = String::from_utf8_lossy(received);
        match (self.upgrade, &self.host) {
            (true, _) => write!(
                f,
                "plaintext came where TLS was to begin: {begin:?}; somebody may have injected it, and nothing of it was used"
            ),
            (false, Some(_)) => write!(
                f,
                "it does not speak TLS here: it sent {begin:?}; take its port for TLS, or upgrade as its protocol \
                 says (`tls::upgrade` after STARTTLS)"
            ),
            (false, None) => {
                write!(f, "it does not speak TLS: it sent {begin:?}; have it use TLS on this port")
            }
        }
    }

    fn write_source(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(Cause::Rustls(rustls::Error::InvalidCertificate(error))) => write!(f, "{error}"),
            Some(Cause::Rustls(error)) => write!(f, "{error}"),
            Some(Cause::Stream(error)) => write!(f, "{error}"),
            None => f.write_str("no cause is known"),
        }
    }
}

/// About how long `span` is, in the largest unit that there is at least one of.
fn write_span(
    f: &mut fmt::Formatter<'_>,
    before: &str,
    span: Option<Duration>,
    after: &str,
) -> fmt::Result {
    const UNITS: [(u64, &str); 3] = [(86_400, "day"), (3_600, "hour"), (60, "minute")];
    let Some(span) = span.map(|span| span.as_secs()) else { return Ok(()) };
    let unit = UNITS.into_iter().find(|(length, _)| *length <= span);
    let (length, name) = unit.unwrap_or((1, "second"));
    let count = span / length;
    write!(f, "{before}{count} {name}{}{after}", if count == 1 { "" } else { "s" })
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(f, "no TLS with {host}: ")?,
            None => f.write_str("no TLS with the client: ")?,
        }
        match &self.reason {
            HandshakeReason::OtherName { .. }
            | HandshakeReason::UnknownIssuer
            | HandshakeReason::Expired { .. }
            | HandshakeReason::NotValidYet { .. }
            | HandshakeReason::BadCertificate => self.write_certificate(f),
            HandshakeReason::NotTls { received } => self.write_not_tls(f, received),
            HandshakeReason::Closed { received } => write!(
                f,
                "it ended the connection in the handshake, after {received} bytes; its log may say why, or it does not \
                 speak TLS here"
            ),
            HandshakeReason::Alert(AlertDescription::UnknownCA) => f.write_str(
                "it does not trust the issuer of the certificate here: it has to be told to, or send those in between",
            ),
            HandshakeReason::Alert(alert) => {
                write!(f, "it refused to go on, with the alert {alert:?}; its log may say why")
            }
            HandshakeReason::Silent => f.write_str(
                "nothing came in the handshake for as long as the stream itself is set to wait; it may be overloaded, \
                 or does not speak TLS here",
            ),
            HandshakeReason::Injected { bytes } => write!(
                f,
                "{bytes} bytes of plaintext came behind what asked for TLS; somebody may have injected them, and nothing of \
                 them was used: close the connection"
            ),
            HandshakeReason::Protocol => {
                self.write_source(f)?;
                f.write_str("; the versions and ciphers of both sides have to have one in common")
            }
        }
    }
}

impl Error for HandshakeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self.source.as_ref()? {
            Cause::Rustls(error) => Some(error),
            Cause::Stream(error) => Some(error),
        }
    }
}

impl From<HandshakeError> for io::Error {
    fn from(error: HandshakeError) -> io::Error {
        io::Error::new(error.kind(), error)
    }
}

/// Why a configuration cannot be made. The `io::Error` of [`server_config`](super::server_config) and its like, `InvalidInput`,
/// has it inside.
///
/// ```
/// use pila_net::tls::{self, ConfigError};
///
/// let error = tls::client_config_trusting("").unwrap_err();
/// let error = error.get_ref().and_then(|inner| inner.downcast_ref());
/// assert!(matches!(error, Some(ConfigError::NoCertificate)));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// There is no certificate in the PEM.
    NoCertificate,
    /// There is no private key in the PEM.
    NoKey,
    /// The private key is encrypted.
    EncryptedKey,
    /// What is there is not PEM.
    Malformed(pem::Error),
    /// rustls does not take it: the key is not that of the certificate, for example.
    Rejected(rustls::Error),
    /// The system trusts nobody, or these kept it from being asked.
    NoRoots(Vec<String>),
    /// Something is wrong in these two files, of the certificate and of the key.
    InFiles([PathBuf; 2], Box<dyn Error + Send + Sync>),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str(
                "there is no certificate in what should be PEM: it begins with -----BEGIN CERTIFICATE-----",
            ),
            Self::NoKey => f.write_str(
                "there is no private key in what should be PEM: it begins with -----BEGIN PRIVATE KEY-----",
            ),
            Self::EncryptedKey => f.write_str(
                "the private key is encrypted: take its passphrase away with `openssl pkey -in key.pem -out plain.pem`",
            ),
            Self::Malformed(error) => write!(f, "what should be PEM cannot be read: {error}"),
            Self::Rejected(rustls::Error::InconsistentKeys(_)) => f.write_str(
                "the private key is not that of the certificate: the server's own certificate has to be the first, and its key",
            ),
            Self::Rejected(error) => write!(f, "the certificate or the key cannot be used: {error}"),
            Self::NoRoots(problems) => {
                f.write_str(
                    "the system trusts nobody: install its certificates (Debian's ca-certificates), or name theirs in \
                     SSL_CERT_FILE",
                )?;
                problems.iter().try_for_each(|problem| write!(f, "; {problem}"))
            }
            Self::InFiles([certificates, key], error) => {
                write!(f, "{} and {}: {error}", certificates.display(), key.display())
            }
        }
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Malformed(error) => Some(error),
            Self::Rejected(error) => Some(error),
            Self::InFiles(_, error) => Some(&**error),
            Self::NoCertificate | Self::NoKey | Self::EncryptedKey | Self::NoRoots(_) => None,
        }
    }
}

impl From<ConfigError> for io::Error {
    fn from(error: ConfigError) -> io::Error {
        let kind = match error {
            ConfigError::NoRoots(_) => io::ErrorKind::NotFound,
            _ => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, error)
    }
}
