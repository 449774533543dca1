//! Whom the system trusts: looked up once for the process, on a thread where that may take its time.

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use pila_runtime::offload;
use rustls::RootCertStore;

use super::error::ConfigError;

/// The roots, once somebody has found some.
static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();

/// Who looks for them, of those threads that would. No tasklet waits for it.
static LOOKING: Mutex<()> = Mutex::new(());

/// The certificates of those whom the system trusts, from the place where it keeps them. They are read once for the
/// process, while only the tasklet waits.
///
/// The environment variables `SSL_CERT_FILE` and `SSL_CERT_DIR` name other places, as they do for OpenSSL.
///
/// # Errors
/// With a [`ConfigError`] inside, when there are none; then the next call looks again. When the tasklet cannot wait.
///
/// ```
/// use pila_net::tls;
///
/// match tls::system_roots() {
///     Ok(roots) => assert!(!roots.is_empty()),
///     Err(error) => println!("{error}"), // where ca-certificates is not installed
/// }
/// ```
pub fn system_roots() -> io::Result<Arc<RootCertStore>> {
    if let Some(roots) = ROOTS.get() {
        return Ok(roots.clone());
    }
    offload(look_once)?
}

fn look_once() -> io::Result<Arc<RootCertStore>> {
    let _alone = LOOKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(roots) = ROOTS.get() {
        return Ok(roots.clone());
    }
    let roots = look()?;
    Ok(ROOTS.get_or_init(|| Arc::new(roots)).clone())
}

fn look() -> Result<RootCertStore, ConfigError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems keep certificates that no verifier can read beside those that count.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(ConfigError::NoRoots(found.errors.iter().map(ToString::to_string).collect()));
    }
    Ok(roots)
}
