//! Configurations of rustls, from PEM and from what the system trusts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use pila_runtime::offload;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::error::ConfigError;
use super::roots::system_roots;

/// What [`connect`](super::connect) uses: servers are known by certificates from those whom the system trusts, and clients
/// by none. It is the same for the whole process, and so servers that were met before are met again with less effort.
///
/// # Errors
/// As [`system_roots`].
///
/// ```no_run
/// use pila_net::tls;
///
/// # fn main() -> std::io::Result<()> {
/// let mut config = (*tls::client_config()?).clone();
/// config.alpn_protocols = vec![b"http/1.1".to_vec()];
/// # Ok(())
/// # }
/// ```
pub fn client_config() -> io::Result<Arc<ClientConfig>> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    let roots = system_roots()?;
    Ok(CONFIG.get_or_init(|| trusting(roots)).clone())
}

/// As [`client_config`], which also trusts the certificates in `roots`, in PEM: those of a company, say.
///
/// # Errors
/// As [`system_roots`]; with a [`ConfigError`] inside, when `roots` has no certificate, or one that cannot be read.
///
/// ```
/// use pila_net::tls;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let own = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
/// # let pem = own.cert.pem();
/// # if tls::system_roots().is_err() { return Ok(()) }
/// let config = tls::client_config_with(pem)?;
/// # Ok(())
/// # }
/// ```
pub fn client_config_with(roots: impl AsRef<[u8]>) -> io::Result<Arc<ClientConfig>> {
    let mut all = (*system_roots()?).clone();
    add(&mut all, roots.as_ref())?;
    Ok(trusting(all.into()))
}

/// A configuration for clients that trust the certificates in `roots`, in PEM, and nobody else. A server's own
/// certificate among them is trusted too.
///
/// # Errors
/// With a [`ConfigError`] inside, when `roots` has no certificate, or one that cannot be read.
///
/// ```
/// use pila_net::tls;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let own = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
/// # let pem = own.cert.pem();
/// let config = tls::client_config_trusting(pem)?;
/// assert!(tls::client_config_trusting("nothing of that kind").is_err());
/// # Ok(())
/// # }
/// ```
pub fn client_config_trusting(roots: impl AsRef<[u8]>) -> io::Result<Arc<ClientConfig>> {
    let mut these = RootCertStore::empty();
    add(&mut these, roots.as_ref())?;
    Ok(trusting(these.into()))
}

/// A configuration for servers: the certificate, followed by those of its issuers, and its private key, both in PEM. Clients
/// are asked for no certificate.
///
/// The key may be PKCS #8, PKCS #1 or SEC 1, that is to say, whatever `openssl` writes, but not encrypted. Both may lie in
/// the same text.
///
/// # Errors
/// With a [`ConfigError`] inside, when there is no certificate or no key, when they cannot be read, or when they do not
/// belong together.
///
/// ```
/// use pila_net::tls;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let own = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
/// let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
/// let config = tls::server_config(&certificate, &key)?;
/// let error = tls::server_config(&key, &certificate).unwrap_err();
/// assert!(error.to_string().starts_with("there is no certificate"), "{error}");
/// # Ok(())
/// # }
/// ```
pub fn server_config(
    certificates: impl AsRef<[u8]>,
    key: impl AsRef<[u8]>,
) -> io::Result<Arc<ServerConfig>> {
    let chain = certificates_in(certificates.as_ref())?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has all of them")
        .with_no_client_auth()
        .with_single_cert(chain, key_in(key.as_ref())?)
        .map_err(ConfigError::Rejected)?;
    Ok(config.into())
}

/// As [`server_config`], from two files, or twice the same, while only the tasklet waits.
///
/// # Errors
/// As [`server_config`], and when a file cannot be read; either names the file.
///
/// ```
/// use pila_net::tls;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let error = tls::server_config_from_files("/no/such/cert.pem", "/no/such/key.pem").unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
/// assert!(error.to_string().starts_with("/no/such/cert.pem: "));
/// # Ok(())
/// # }
/// ```
pub fn server_config_from_files(
    certificates: impl AsRef<Path>,
    key: impl AsRef<Path>,
) -> io::Result<Arc<ServerConfig>> {
    let paths = [certificates.as_ref().to_path_buf(), key.as_ref().to_path_buf()];
    let [certificates, key] = offload(move || paths.map(contents))?;
    let (certificates, key) = (certificates?, key?);
    server_config(certificates.1, key.1)
        .map_err(|error| ConfigError::InFiles([certificates.0, key.0], error.into()).into())
}

fn contents(path: PathBuf) -> io::Result<(PathBuf, Vec<u8>)> {
    match fs::read(&path) {
        Ok(bytes) => Ok((path, bytes)),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    }
}

/// A program may have several providers; which one this uses is not left to them.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(ring::default_provider())).clone()
}

fn trusting(roots: Arc<RootCertStore>) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has all of them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn add(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), ConfigError> {
    for certificate in certificates_in(pem)? {
        roots.add(certificate).map_err(ConfigError::Rejected)?;
    }
    Ok(())
}

fn certificates_in(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match all {
        Ok(certificates) if certificates.is_empty() => Err(ConfigError::NoCertificate),
        other => other.map_err(ConfigError::Malformed),
    }
}

fn key_in(pem: &[u8]) -> Result<PrivateKeyDer<'static>, ConfigError> {
    const ENCRYPTED: [&[u8]; 2] = [b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];
    let is_encrypted = ENCRYPTED.iter().any(|mark| pem.windows(mark.len()).any(|at| at == *mark));
    match PrivateKeyDer::from_pem_slice(pem) {
        _ if is_encrypted => Err(ConfigError::EncryptedKey),
        Err(pem::Error::NoItemsFound) => Err(ConfigError::NoKey),
        other => other.map_err(ConfigError::Malformed),
    }
}
