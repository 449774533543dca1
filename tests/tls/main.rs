//! TLS from tasklets: with itself, with OpenSSL, with mail servers, and with peers that do not do what they should.
//!
//! - `certificates` makes certificates, good and bad ones.
//! - `handshakes` has peers that are not who they should be, say something else, fall silent or end.
//! - `upgrades` begins in plaintext, as after `STARTTLS`, with and without somebody in between.
//! - `streams` is about what follows the handshake: ends, two tasklets, kills and timeouts.
//! - `openssl` and `mail` talk to programs of others.
//! - `many` has a thousand connections at once.

#[path = "../net_support/mod.rs"]
mod net_support;
#[allow(dead_code, reason = "the tests of mail alone use all of it")]
#[path = "../peers/mod.rs"]
mod peers;
#[path = "../system/mod.rs"]
mod system;

mod certificates;
mod handshakes;
mod mail;
mod many;
mod openssl;
mod streams;
mod upgrades;

use std::{fs, io, net::SocketAddr, sync::Arc, time::Duration};

use pila::{
    Tasklet,
    net::{TcpListener, TcpStream},
    tasklet,
    tls::{
        self, HandshakeError, HandshakeReason, TlsStream,
        rustls::{ClientConfig, ServerConfig},
    },
};

use certificates::authority;
use system::{PATIENCE, alone, bounded};

/// Runs `body` alone, on a thread of its own, and then looks whether all descriptors are back.
#[track_caller]
fn leaving_nothing(body: impl FnOnce() + Send + 'static) {
    let _alone = alone();
    bounded(PATIENCE, move || {
        // What a thread, or the process, has once: its poller, and a descriptor in reserve.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        pila::timeout(Duration::ZERO, || listener.accept()).unwrap_err();
        drop(listener);
        let before = descriptors();
        body();
        let summary = pila::run();
        assert_eq!((summary.blocked, summary.unread_panics), (0, 0));
        assert_eq!(descriptors(), before, "descriptors were leaked");
    });
}

/// How many descriptors the process has open.
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Who trusts the authority of these tests alone.
fn client() -> Arc<ClientConfig> {
    tls::client_config_trusting(authority().certificate()).unwrap()
}

/// `localhost`, as the authority has it.
fn server() -> Arc<ServerConfig> {
    authority().issue(&["localhost"]).config()
}

/// What `serve` does with the next connection to the address.
fn serving<T: 'static>(serve: impl FnOnce(TcpStream) -> T + 'static) -> (SocketAddr, Tasklet<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address, tasklet(move || serve(listener.accept().unwrap().0)))
}

/// Both ends of a connection under TLS, the client's first.
fn secure_pair() -> (TlsStream<TcpStream>, TlsStream<TcpStream>) {
    let (address, serving) = serving(|stream| tls::accept(server(), stream).unwrap());
    let stream = TcpStream::connect(address).unwrap();
    let client = tls::connect_with(client(), "localhost", stream).unwrap();
    (client, serving.join().unwrap())
}

/// Why a handshake failed.
#[track_caller]
fn reason(error: &io::Error) -> &HandshakeReason {
    &HandshakeError::of(error).unwrap_or_else(|| panic!("{error:?}")).reason
}
