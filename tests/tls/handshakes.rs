//! Handshakes that fail: each with an error that says what was wrong, and with nothing left behind.

use std::{
    error::Error,
    io::{self, Cursor, ErrorKind, Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use pila::{
    Elapsed, JoinError, Killed,
    net::{TcpListener, TcpStream},
    sleep, tasklet, timeout,
    tls::{
        self, HandshakeReason,
        rustls::{self, ServerConfig, ServerConnection},
    },
};

use crate::{
    certificates::{Authority, Validity, authority},
    client, leaving_nothing,
    net_support::pair,
    reason, server, serving,
};
/// How a client that asks for `localhost` fails with a server that has this configuration, and what the server is told.
fn failing(config: Arc<ServerConfig>) -> (io::Error, io::Error) {
    let (address, serving) = serving(|stream| tls::accept(config, stream).unwrap_err());
    let stream = TcpStream::connect(address).unwrap();
    let error = tls::connect_with(client(), "localhost", stream).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(error.source().unwrap().is::<rustls::Error>());
    (error, serving.join().unwrap())
}

#[test]
fn a_certificate_for_another_name_is_refused_and_its_names_are_told() {
    leaving_nothing(|| {
        let other = authority().issue(&["mail.example.org", "*.example.net", "127.0.0.9"]);
        let (error, servers) = failing(other.config());
        let HandshakeReason::OtherName { names } = reason(&error) else { panic!("{error:?}") };
        assert_eq!(names, &["mail.example.org", "*.example.net", "127.0.0.9"]);
        assert_eq!(
            error.to_string(),
            "no TLS with localhost: its certificate is for mail.example.org, *.example.net, 127.0.0.9, not for this \
             name: connect by a name that it has, or have it get a certificate for this one"
        );
        assert!(matches!(reason(&servers), HandshakeReason::Alert(_)), "{servers:?}");
    });
}

#[test]
fn an_address_may_be_the_name() {
    leaving_nothing(|| {
        let config = authority().issue(&["127.0.0.1"]).config();
        let (address, serving) = serving(|stream| tls::accept(config, stream).unwrap().shutdown());
        let stream = TcpStream::connect(address).unwrap();
        let mut stream = tls::connect_with(client(), "127.0.0.1", stream).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
        serving.join().unwrap().unwrap();
    });
}

#[test]
fn a_certificate_of_an_unknown_issuer_is_refused_and_the_server_hears_why() {
    leaving_nothing(|| {
        let stranger = Authority::new("a stranger").issue(&["localhost"]);
        let (error, servers) = failing(stranger.config());
        assert!(matches!(reason(&error), HandshakeReason::UnknownIssuer));
        assert!(error.to_string().contains("nobody who is trusted has issued its certificate"));
        assert!(
            servers.to_string().starts_with("no TLS with the client: it does not trust the issuer"),
            "{servers}"
        );
    });
}

#[test]
fn a_certificate_out_of_its_time_is_refused_and_how_far_is_told() {
    leaving_nothing(|| {
        let (error, _) = failing(authority().issue_for(&["localhost"], Validity::Past).config());
        assert!(
            matches!(reason(&error), HandshakeReason::Expired { ago: Some(ago) } if ago.as_secs() > 86_400)
        );
        assert!(error.to_string().contains("has expired "), "{error}");
        assert!(error.to_string().contains(" days ago: it needs a new one"), "{error}");

        let (error, _) = failing(authority().issue_for(&["localhost"], Validity::Future).config());
        assert!(matches!(reason(&error), HandshakeReason::NotValidYet { ahead: Some(_) }));
        assert!(error.to_string().contains("is not valid yet, but in "), "{error}");
    });
}

#[test]
fn what_is_no_host_is_refused_before_anything_is_sent() {
    leaving_nothing(|| {
        for host in ["", "localhost:443", "[::1]", "two words", "https://example.org/"] {
            let (mine, mut peer) = pair();
            let error = tls::connect_with(client(), host, mine).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().starts_with(&format!("{host:?} is no host")), "{error}");
            assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
        }
    });
}

#[test]
fn a_server_that_does_not_speak_tls_is_quoted() {
    leaving_nothing(|| {
        for greeting in
            ["220 mail.example.org ESMTP\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "no\n", "\0\0\0\0\0\0"]
        {
            let (address, serving) = serving(|mut stream| stream.write_all(greeting.as_bytes()));
            let stream = TcpStream::connect(address).unwrap();
            let error = tls::connect_with(client(), "localhost", stream).unwrap_err();
            let HandshakeReason::NotTls { received } = reason(&error) else { panic!("{error:?}") };
            assert_eq!(received, greeting.as_bytes());
            assert!(error.to_string().contains("it does not speak TLS here: it sent"), "{error}");
            assert!(error.to_string().contains(&format!("{greeting:?}")), "{error}");
            serving.join().unwrap().unwrap();
        }
    });
}

#[test]
fn of_a_server_that_says_a_lot_only_the_beginning_is_quoted() {
    leaving_nothing(|| {
        let (address, serving) = serving(|mut stream| stream.write_all(&[b'x'; 100_000]));
        let stream = TcpStream::connect(address).unwrap();
        let error = tls::connect_with(client(), "localhost", stream).unwrap_err();
        assert!(
            matches!(reason(&error), HandshakeReason::NotTls { received } if received.len() == 64)
        );
        // It may find that nobody listens any more.
        serving.join().unwrap().ok();
    });
}

/// A stream that says what it has to say, and forgets what it is told.
#[derive(Debug)]
struct Recorded(Cursor<Vec<u8>>);

impl Read for Recorded {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Recorded {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn any_bytes_at_all_end_in_an_error() {
    leaving_nothing(|| {
        let mut state = 20_261_127_u64;
        let mut next = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        let (client, server) = (client(), server());
        for round in 0..2_000 {
            let mut bytes: Vec<u8> = (0..next() as usize * 3).map(|_| next()).collect();
            // So that half of them get past the first look.
            if round % 2 == 0 {
                bytes.splice(0..0, [22, 3, 3, 0, next()]);
            }
            let stream = Recorded(Cursor::new(bytes.clone()));
            reason(&tls::connect_with(client.clone(), "localhost", stream).unwrap_err());
            let stream = Recorded(Cursor::new(bytes));
            reason(&tls::accept(server.clone(), stream).unwrap_err());
        }
    });
}

/// The first flight of a server, as an answer to what comes from `stream`.
fn first_flight(stream: &mut TcpStream) -> Vec<u8> {
    let mut connection = ServerConnection::new(server()).unwrap();
    while !connection.wants_write() {
        connection.read_tls(stream).unwrap();
        connection.process_new_packets().unwrap();
    }
    let mut flight = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut flight).unwrap();
    }
    flight
}

/// After how many bytes of its first flight a server stops; more than there are is after all of it.
const STOPS: [usize; 6] = [0, 1, 5, 100, 400, usize::MAX];

#[test]
fn a_server_that_ends_in_the_handshake_is_told_from_one_that_is_refused() {
    leaving_nothing(|| {
        for stop in STOPS.into_iter().filter(|stop| *stop < usize::MAX) {
            let (address, serving) = serving(move |mut stream| {
                let flight = first_flight(&mut stream);
                assert!(stop < flight.len());
                stream.write_all(&flight[..stop]).unwrap();
            });
            let stream = TcpStream::connect(address).unwrap();
            let error = tls::connect_with(client(), "localhost", stream).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
            assert!(
                matches!(reason(&error), HandshakeReason::Closed { received } if *received == stop as u64),
                "{error:?}"
            );
            assert!(
                error.to_string().contains(&format!(
                    "ended the connection in the handshake, after {stop} bytes"
                )),
                "{error}"
            );
            serving.join().unwrap();
        }
    });
}

#[test]
fn a_server_that_resets_the_connection_is_told_as_one_that_ends() {
    leaving_nothing(|| {
        let (address, serving) = serving(|stream| {
            stream.peek(&mut [0; 1]).unwrap();
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        });
        let stream = TcpStream::connect(address).unwrap();
        let error = tls::connect_with(client(), "localhost", stream).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(matches!(reason(&error), HandshakeReason::Closed { received: 0 }));
        assert!(error.source().unwrap().is::<io::Error>());
        serving.join().unwrap();
    });
}

#[test]
fn a_client_that_ends_in_the_handshake_is_told_to_the_server() {
    leaving_nothing(|| {
        let (mine, peer) = pair();
        drop(peer);
        let error = tls::accept(server(), mine).unwrap_err();
        assert!(matches!(reason(&error), HandshakeReason::Closed { received: 0 }));
        assert!(error.to_string().starts_with("no TLS with the client: it ended"), "{error}");
    });
}

/// The least of what five handshakes with a silent peer take under a timeout: how late they are told depends on who else
/// uses the machine.
fn quickest(mut attempt: impl FnMut(TcpStream) -> Elapsed) -> Duration {
    let once = |_| {
        let (mine, peer) = pair();
        let start = Instant::now();
        assert_eq!(attempt(mine).limit(), Duration::from_millis(200));
        let taken = start.elapsed();
        assert!(taken >= Duration::from_millis(200));
        drop(peer);
        taken
    };
    (0..5).map(once).min().unwrap()
}

#[test]
fn a_timeout_ends_a_handshake_with_a_silent_peer_in_time() {
    leaving_nothing(|| {
        const LIMIT: Duration = Duration::from_millis(200);
        let (client, server) = (client(), server());
        let as_client = quickest(|stream| {
            timeout(LIMIT, || tls::connect_with(client.clone(), "localhost", stream)).unwrap_err()
        });
        let as_server =
            quickest(|stream| timeout(LIMIT, || tls::accept(server.clone(), stream)).unwrap_err());
        assert!(
            as_client.max(as_server) < Duration::from_millis(250),
            "{as_client:?}, {as_server:?}"
        );
    });
}

#[test]
fn a_kill_or_a_timeout_anywhere_in_a_handshake_leaves_nothing() {
    leaving_nothing(|| {
        for stop in STOPS {
            for killed in [false, true] {
                let (address, serving) = serving(move |mut stream| {
                    let flight = first_flight(&mut stream);
                    stream.write_all(&flight[..stop.min(flight.len())]).unwrap();
                    // Until the client is gone, which may leave unread what was sent: so this may be a reset.
                    io::copy(&mut stream, &mut io::sink()).ok();
                });
                let stream = TcpStream::connect(address).unwrap();
                let victim = tasklet(move || {
                    timeout(Duration::from_millis(20), || {
                        let secured = tls::connect_with(client(), "localhost", stream);
                        // All of the flight is enough for a client.
                        secured.unwrap().read(&mut [0; 1])
                    })
                });
                if killed {
                    sleep(Duration::from_millis(10));
                    victim.kill().unwrap();
                    assert!(matches!(victim.join(), Err(JoinError::Killed)));
                } else {
                    victim.join().unwrap().unwrap_err();
                }
                serving.join().unwrap();
            }
        }
    });
}

#[test]
fn a_read_timeout_of_the_stream_is_told_as_silence() {
    leaving_nothing(|| {
        let (mine, _peer) = pair();
        mine.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        let error = tls::connect_with(client(), "localhost", mine).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(matches!(reason(&error), HandshakeReason::Silent));
    });
}

#[test]
fn a_handshake_that_may_not_wait_says_so_as_the_socket_does() {
    leaving_nothing(|| {
        let (mine, _peer) = pair();
        // Who swallows the ending of a call has the rest of them refused.
        let swallowed = timeout(Duration::from_millis(5), || {
            catch_unwind(|| sleep(Duration::MAX)).unwrap_err();
            let error = tls::connect_with(client(), "localhost", mine).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Other);
            assert!(error.source().unwrap().is::<Elapsed>(), "{error:?}");
        });
        swallowed.unwrap();

        let (mine, _peer) = pair();
        let stubborn = tasklet(move || {
            catch_unwind(AssertUnwindSafe(|| sleep(Duration::MAX))).unwrap_err();
            let error = tls::accept(server(), mine).unwrap_err();
            error.kind() == ErrorKind::Other && error.source().unwrap().is::<Killed>()
        });
        let handle = stubborn.handle();
        pila::schedule();
        handle.kill().unwrap();
        assert!(matches!(stubborn.join(), Ok(true) | Err(JoinError::Killed)));
    });
}

#[test]
fn the_system_is_asked_whom_it_trusts() {
    leaving_nothing(|| {
        let Ok(roots) = tls::system_roots() else {
            return crate::system::left_out("no certificates are installed");
        };
        assert!(roots.len() > 10);
        // Nobody there has issued this one.
        let (address, serving) = serving(|stream| tls::accept(server(), stream).unwrap_err());
        let error = tls::connect("localhost", TcpStream::connect(address).unwrap()).unwrap_err();
        assert!(matches!(reason(&error), HandshakeReason::UnknownIssuer), "{error}");
        serving.join().unwrap();
        // And yet it may be trusted beside them.
        let both = tls::client_config_with(authority().certificate()).unwrap();
        let (address, serving) = crate::serving(|stream| tls::accept(server(), stream).unwrap());
        tls::connect_with(both, "localhost", TcpStream::connect(address).unwrap()).unwrap();
        serving.join().unwrap();
    });
}

#[test]
fn whom_the_system_trusts_is_found_where_the_environment_says() {
    const OWN_PROCESS: &str = "PILA_TEST_OWN_PROCESS";
    const NAME: &str = "handshakes::whom_the_system_trusts_is_found_where_the_environment_says";
    if std::env::var_os(OWN_PROCESS).is_none() {
        let _alone = crate::system::alone();
        let directory = crate::system::Directory::new("roots");
        // Both sides are in the other process, which finds the authority and its certificate here.
        let issued = Authority::new("one that the system trusts");
        let [certificate, key] = issued.issue(&["localhost"]).write(&directory);
        std::fs::write(directory.join("roots.pem"), issued.certificate()).unwrap();
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args([NAME, "--exact"]).env("SSL_CERT_FILE", directory.join("roots.pem"));
        command.env(OWN_PROCESS, "1").env("CERTIFICATE", certificate).env("KEY", key);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    leaving_nothing(|| {
        let path = |name| std::env::var_os(name).unwrap();
        let config = tls::server_config_from_files(path("CERTIFICATE"), path("KEY")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // All look for them at once, and all find them.
        let clients: Vec<_> = (0..50)
            .map(|_| {
                tasklet(move || tls::connect("localhost", TcpStream::connect(address)?).map(drop))
            })
            .collect();
        for _ in 0..50 {
            tls::accept(config.clone(), listener.accept().unwrap().0).unwrap();
        }
        assert!(clients.into_iter().all(|client| client.join().unwrap().is_ok()));
    });
}

#[test]
fn a_configuration_says_what_is_wrong_with_its_pem() {
    let (one, other) = (authority().issue(&["localhost"]), authority().issue(&["localhost"]));
    let wrong = |certificate: &str, key: &str| {
        let error = tls::server_config(certificate, key).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.to_string()
    };
    assert!(wrong("", &one.key).starts_with("there is no certificate in"));
    assert!(wrong(&one.certificate, "").starts_with("there is no private key in"));
    assert!(wrong(&one.certificate, &one.certificate).starts_with("there is no private key in"));
    assert!(
        wrong(&one.certificate, &other.key)
            .starts_with("the private key is not that of the certificate")
    );
    let encrypted = one.key.replace("PRIVATE", "ENCRYPTED PRIVATE");
    assert!(wrong(&one.certificate, &encrypted).starts_with("the private key is encrypted"));
    let cut = &one.certificate[..one.certificate.len() / 2];
    assert!(wrong(cut, &one.key).starts_with("what should be PEM cannot be read"));
    // Both in one text, in either order, as some keep them.
    let both = format!("{}{}", one.key, one.certificate);
    tls::server_config(&both, &both).unwrap();
}
