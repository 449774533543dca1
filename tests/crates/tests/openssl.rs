//! OpenSSL over sockets as they are, in both roles: with pila's rustls at the other end, and with `openssl s_server`.
//!
//! crate: openssl | how: `SslConnector::connect` and `SslAcceptor::accept` on a `TcpStream`
//! crate: native-tls | how: `TlsConnector::connect` and `TlsAcceptor::accept` on a `TcpStream`
//! crate: rustls | how: `StreamOwned` over a `TcpStream`, or `pila::tls`

use std::{
    cell::Cell,
    error::Error,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use native_tls::{Certificate, Identity, TlsAcceptor, TlsConnector};
use openssl::{
    pkey::PKey,
    ssl::{HandshakeError, SslAcceptor, SslConnector, SslMethod, SslStream, SslVerifyMode},
    x509::X509,
};
use pila::{
    JoinError,
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    scope, sleep, tasklet, timeout,
    tls::{
        self, TlsStream,
        rustls::{ClientConnection, StreamOwned},
    },
};

/// Descriptors are the process's: who counts them is alone.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `body`, and looks whether all descriptors are back.
fn leaving_nothing(body: impl FnOnce(&Own) + Send + 'static) {
    let _alone = alone();
    let tests = std::thread::spawn(move || {
        // What a thread, or the process, has once: its poller, and a descriptor in reserve.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        timeout(Duration::ZERO, || listener.accept()).unwrap_err();
        drop(listener);
        let own = Own::new();
        let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
        let before = descriptors();
        body(&own);
        assert_eq!(pila::run().blocked, 0);
        assert_eq!(descriptors(), before, "descriptors were leaked");
    });
    tests.join().unwrap();
}

/// A certificate for `localhost`, which is its own issuer.
struct Own {
    certificate: String,
    key: String,
}

impl Own {
    fn new() -> Self {
        let own = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
        Self { certificate: own.cert.pem(), key: own.signing_key.serialize_pem() }
    }

    /// OpenSSL's client that trusts it.
    fn connector(&self) -> SslConnector {
        let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
        let certificate = X509::from_pem(self.certificate.as_bytes()).unwrap();
        builder.cert_store_mut().add_cert(certificate).unwrap();
        builder.set_verify(SslVerifyMode::PEER);
        builder.build()
    }

    /// OpenSSL's server that has it.
    fn acceptor(&self) -> SslAcceptor {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
        let certificate = X509::from_pem(self.certificate.as_bytes()).unwrap();
        builder.set_certificate(&certificate).unwrap();
        let key = PKey::private_key_from_pem(self.key.as_bytes()).unwrap();
        builder.set_private_key(&key).unwrap();
        builder.build()
    }

    /// rustls's server that has it.
    fn accepting(
        &self,
    ) -> impl Fn(TcpStream) -> io::Result<TlsStream<TcpStream>> + Clone + 'static {
        let config = tls::server_config(&self.certificate, &self.key).unwrap();
        move |stream| tls::accept(config.clone(), stream)
    }
}

/// Serves each connection in a tasklet of its own, until so many have come.
fn serving<S: Read + Write>(
    connections: usize,
    accept: impl Fn(TcpStream) -> S + Clone + 'static,
) -> net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    tasklet(move || {
        for stream in listener.incoming().take(connections) {
            let accept = accept.clone();
            tasklet(move || {
                let mut stream = accept(stream.unwrap());
                let mut question = [0; 100_000];
                stream.read_exact(&mut question).unwrap();
                stream.write_all(&question).unwrap();
                stream.flush().unwrap();
                // The client goes first.
                io::copy(&mut stream, &mut io::sink()).ok();
            });
        }
    });
    address
}

/// Has an answer that is what was asked.
fn ask(stream: &mut (impl Read + Write)) {
    let question: Vec<u8> = (0..100_000).map(|place| (place % 253) as u8).collect();
    stream.write_all(&question).unwrap();
    stream.flush().unwrap();
    let mut answer = vec![0; question.len()];
    stream.read_exact(&mut answer).unwrap();
    assert!(answer == question);
}

/// Asks in a hundred tasklets at once.
fn a_hundred<S: Read + Write>(address: net::SocketAddr, connect: impl Fn(TcpStream) -> S) {
    let asked = Cell::new(0);
    scope(|s| {
        for _ in 0..100 {
            s.tasklet(|| {
                ask(&mut connect(TcpStream::connect(address).unwrap()));
                asked.set(asked.get() + 1);
            });
        }
    });
    assert_eq!(asked.get(), 100);
}

#[test]
fn openssls_clients_are_served_by_rustls() {
    leaving_nothing(|own| {
        let accept = own.accepting();
        let address = serving(100, move |stream| accept(stream).unwrap());
        let connector = own.connector();
        a_hundred(address, |stream| connector.connect("localhost", stream).unwrap());
    });
}

#[test]
fn openssls_servers_serve_rustls() {
    leaving_nothing(|own| {
        let acceptor = own.acceptor();
        let address = serving(100, move |stream| acceptor.accept(stream).unwrap());
        let config = tls::client_config_trusting(&own.certificate).unwrap();
        a_hundred(address, |stream| {
            tls::connect_with(config.clone(), "localhost", stream).unwrap()
        });
    });
}

#[test]
fn native_tls_serves_itself_and_rustls_without_anything_of_pila() {
    leaving_nothing(|own| {
        let identity =
            Identity::from_pkcs8(own.certificate.as_bytes(), own.key.as_bytes()).unwrap();
        let acceptor = TlsAcceptor::new(identity).unwrap();
        let address = serving(200, move |stream| acceptor.accept(stream).unwrap());
        let root = Certificate::from_pem(own.certificate.as_bytes()).unwrap();
        let connector = TlsConnector::builder().add_root_certificate(root).build().unwrap();
        a_hundred(address, |stream| connector.connect("localhost", stream).unwrap());
        let config = tls::client_config_trusting(&own.certificate).unwrap();
        a_hundred(address, |stream| {
            let name = "localhost".try_into().unwrap();
            StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), stream)
        });
    });
}

/// Has a line reversed by `openssl s_server -rev`.
fn reversed(stream: &mut (impl Read + Write)) {
    stream.write_all(b"pila\n").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"alip\n");
}

#[test]
fn a_program_of_openssls_serves_both() {
    leaving_nothing(|own| {
        let directory = std::env::temp_dir().join(format!("pila-openssl-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let write = |name: &str, pem: &str| {
            fs::write(directory.join(name), pem).unwrap();
            directory.join(name)
        };
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-rev"]);
        command.arg("-cert").arg(write("certificate.pem", &own.certificate));
        command.arg("-key").arg(write("key.pem", &own.key));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = command.spawn().expect("openssl is installed");
        let mut output = BufReader::new(server.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("ACCEPT") {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "it does not listen");
        }
        let address = line.trim_start_matches("ACCEPT").trim().to_string();
        tasklet(move || io::copy(&mut output, &mut io::sink()));

        let connect = || TcpStream::connect(&*address).unwrap();
        let mut stream = own.connector().connect("localhost", connect()).unwrap();
        reversed(&mut stream);
        drop(stream);
        let config = tls::client_config_trusting(&own.certificate).unwrap();
        reversed(&mut tls::connect_with(config, "localhost", connect()).unwrap());

        server.kill().unwrap();
        server.wait().unwrap();
        fs::remove_dir_all(directory).unwrap();
    });
}

/// An OpenSSL handshake with a peer that says nothing.
fn silent_handshake(
    own: &Own,
) -> (Result<SslStream<TcpStream>, HandshakeError<TcpStream>>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let peer = listener.accept().unwrap().0;
    (own.connector().connect("localhost", stream), peer)
}

#[test]
fn a_timeout_and_a_kill_end_a_handshake_of_openssls() {
    leaving_nothing(|own| {
        // The bindings carry an unwinding over the C code in between.
        let late = timeout(Duration::from_millis(20), || silent_handshake(own).0.is_ok());
        assert_eq!(late.unwrap_err().limit(), Duration::from_millis(20));
        scope(|s| {
            let victim = s.tasklet(|| silent_handshake(own).0.is_ok());
            sleep(Duration::from_millis(10));
            victim.kill().unwrap();
            assert!(matches!(victim.join(), Err(JoinError::Killed)));
        });
    });
}

#[test]
fn a_certificate_for_another_name_is_refused_by_each() {
    leaving_nothing(|own| {
        let accept = own.accepting();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tasklet(move || {
            let refused = |stream| accept(stream).map(drop).unwrap_err().to_string();
            [(); 2].map(|()| refused(listener.accept().unwrap().0))
        });
        let connect = || TcpStream::connect(address).unwrap();
        let error = own.connector().connect("example.org", connect()).unwrap_err();
        assert!(error.to_string().contains("ostname mismatch"), "{error}");
        drop(error);
        let root = Certificate::from_pem(own.certificate.as_bytes()).unwrap();
        let connector = TlsConnector::builder().add_root_certificate(root).build().unwrap();
        let error = connector.connect("example.org", connect()).unwrap_err();
        assert!(!error.to_string().is_empty() && error.source().is_some());
        drop(error);
        for error in serving.join().unwrap() {
            assert!(error.contains("it refused to go on, with the alert"), "{error}");
        }
    });
}
