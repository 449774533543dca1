//! What the socket tests share: a bound on their time, and connected pairs.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::net::{self, SocketAddr};
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use pila::net::{TcpListener, TcpStream};
use rustix::net::{AddressFamily, SocketType};

/// Far more than any test takes. A wake-up that got lost shows as this.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `body` on a thread of its own, with a scheduler of its own, and fails when it hangs.
#[track_caller]
pub(crate) fn bounded<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    let thread = thread::spawn(move || done.send(body()).expect("the test waits for it"));
    match result.recv_timeout(PATIENCE) {
        Ok(value) => {
            thread.join().expect("it has sent its result");
            value
        }
        Err(RecvTimeoutError::Timeout) => panic!("hangs: nothing happened for {PATIENCE:?}"),
        Err(RecvTimeoutError::Disconnected) => {
            resume_unwind(thread.join().expect_err("it ended without a result"))
        }
    }
}

/// Runs all other tests of the calling binary once more, in a process that waits through `polling`.
#[track_caller]
pub(crate) fn again_portably() {
    let tests = std::env::current_exe().expect("it runs");
    let output = Command::new(tests)
        .args(["--skip", "portably"])
        .env("PILA_POLLER", "portable")
        .output()
        .expect("what runs can be run again");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Both ends of a connection, the accepted one second.
pub(crate) fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

/// The same, with std's stream at the far end.
pub(crate) fn pair_with_std() -> (TcpStream, net::TcpStream) {
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// An address that refuses connections, as long as the descriptor is kept: it is bound and nobody listens.
pub(crate) fn refusing() -> (OwnedFd, SocketAddr) {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = net::TcpListener::from(socket.try_clone().unwrap()).local_addr().unwrap();
    (socket, address)
}

/// How many bytes of traffic fill every buffer of a loopback connection, many times over.
pub(crate) const FLOOD: usize = 32 << 20;
