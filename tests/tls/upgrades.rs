//! Plaintext first, then TLS: and whoever sits in between gets nothing across.

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Write},
    time::Duration,
};

use pila::{
    net::TcpStream,
    sleep, timeout,
    tls::{self, HandshakeReason, TlsStream},
};

use crate::{client, leaving_nothing, net_support::pair, reason, server, serving};

/// A line, as a protocol of lines reads it.
fn line(stream: &mut impl BufRead) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line
}

/// Serves one client: an answer to `STARTTLS`, and behind it, in the same packet or in one of its own, what does not belong
/// there.
fn answering(
    stream: TcpStream,
    injected: &'static [u8],
    separately: bool,
) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    assert_eq!(line(&mut stream), "STARTTLS\r\n");
    let answer = b"220 go ahead\r\n";
    if separately {
        stream.get_mut().write_all(answer)?;
        stream.get_mut().write_all(injected)?;
    } else {
        stream.get_mut().write_all(&[answer, injected].concat())?;
    }
    tls::accept_upgrade(server(), stream)
}

/// Asks for TLS, and upgrades when it is given.
fn upgrading(stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(b"STARTTLS\r\n")?;
    assert_eq!(line(&mut stream), "220 go ahead\r\n");
    tls::upgrade_with(client(), "localhost", stream)
}

#[test]
fn what_began_in_plaintext_goes_on_in_tls() {
    leaving_nothing(|| {
        let (address, serving) = serving(|stream| {
            let mut stream = answering(stream, b"", false).unwrap();
            assert_eq!(line(&mut stream), "NOOP\r\n");
            stream.write_all(b"250 ok\r\n").unwrap();
            stream.close().unwrap();
        });
        let mut stream = upgrading(TcpStream::connect(address).unwrap()).unwrap();
        stream.write_all(b"NOOP\r\n").unwrap();
        assert_eq!(line(&mut stream), "250 ok\r\n");
        stream.close().unwrap();
        serving.join().unwrap();
    });
}

#[test]
fn plaintext_behind_the_servers_answer_is_refused_and_counted() {
    leaving_nothing(|| {
        let injected = b"250-mallory.example.org\r\n250 AUTH PLAIN\r\n";
        let (address, serving) = serving(|stream| answering(stream, injected, false).unwrap_err());
        let error = upgrading(TcpStream::connect(address).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(
            matches!(reason(&error), HandshakeReason::Injected { bytes } if *bytes == injected.len())
        );
        assert!(
            error.to_string().contains("41 bytes of plaintext came behind what asked for TLS"),
            "{error}"
        );
        // Nothing of a handshake was sent.
        let servers = serving.join().unwrap();
        assert!(matches!(reason(&servers), HandshakeReason::Closed { received: 0 }), "{servers}");
    });
}

#[test]
fn plaintext_that_comes_after_the_answer_was_read_is_no_handshake() {
    leaving_nothing(|| {
        for injected in [
            &b"250 AUTH PLAIN\r\n"[..],
            b"\x15\x03\x03\x00\x02\x02\x28",
            b"\x17\x03\x03\x00\x04evil",
        ] {
            let (mine, peer) = pair();
            let mut mine = BufReader::new(mine);
            let mut peer = BufReader::new(peer);
            peer.get_mut().write_all(b"220 go ahead\r\n").unwrap();
            assert_eq!(line(&mut mine), "220 go ahead\r\n");
            assert!(mine.buffer().is_empty());
            // Whoever wrote this did not know the server's key, whether it is plaintext, an alert or data.
            peer.get_mut().write_all(injected).unwrap();
            let error =
                timeout(Duration::from_secs(5), || tls::upgrade_with(client(), "localhost", mine));
            let error = error.unwrap().unwrap_err();
            let is_text = injected.starts_with(b"250");
            match reason(&error) {
                HandshakeReason::NotTls { received } => {
                    assert_eq!(received, injected);
                    assert!(
                        error.to_string().contains("plaintext came where TLS was to begin: \"250"),
                        "{error}"
                    );
                    assert!(is_text);
                }
                HandshakeReason::Alert(_) | HandshakeReason::Protocol => {
                    assert!(!is_text, "{error:?}")
                }
                // That is what such an alert says.
                HandshakeReason::Closed { .. } => assert_eq!(injected[0], 0x15, "{error}"),
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn plaintext_behind_the_clients_command_is_refused_and_counted() {
    leaving_nothing(|| {
        let injected = b"MAIL FROM:<mallory@example.org>\r\n";
        let (address, serving) = serving(|stream| {
            let mut stream = BufReader::new(stream);
            assert_eq!(line(&mut stream), "STARTTLS\r\n");
            stream.get_mut().write_all(b"220 go ahead\r\n").unwrap();
            tls::accept_upgrade(server(), stream).unwrap_err()
        });
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&[b"STARTTLS\r\n", &injected[..]].concat()).unwrap();
        let error = serving.join().unwrap();
        assert!(
            matches!(reason(&error), HandshakeReason::Injected { bytes } if *bytes == injected.len())
        );
        assert!(
            error.to_string().starts_with("no TLS with the client: 33 bytes of plaintext"),
            "{error}"
        );
    });
}

#[test]
fn plaintext_that_comes_before_the_clients_handshake_is_not_obeyed() {
    leaving_nothing(|| {
        let (address, serving) = serving(|stream| {
            let mut stream = BufReader::new(stream);
            assert_eq!(line(&mut stream), "STARTTLS\r\n");
            stream.get_mut().write_all(b"220 go ahead\r\n").unwrap();
            assert!(stream.buffer().is_empty());
            tls::accept_upgrade(server(), stream).unwrap_err()
        });
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"STARTTLS\r\n").unwrap();
        let mut stream = BufReader::new(stream);
        assert_eq!(line(&mut stream), "220 go ahead\r\n");
        stream.get_mut().write_all(b"RSET\r\n").unwrap();
        let error = tls::upgrade_with(client(), "localhost", stream).unwrap_err();
        assert!(
            matches!(reason(&error), HandshakeReason::Alert(_) | HandshakeReason::Closed { .. }),
            "{error}"
        );
        let servers = serving.join().unwrap();
        assert!(
            matches!(reason(&servers), HandshakeReason::NotTls { received } if received.starts_with(b"RSET\r\n"))
        );
    });
}

#[test]
fn an_answer_that_comes_in_pieces_is_no_injection() {
    leaving_nothing(|| {
        let (address, serving) = serving(|stream| {
            stream.set_nodelay(true).unwrap();
            let mut stream = BufReader::new(stream);
            assert_eq!(line(&mut stream), "STARTTLS\r\n");
            for byte in b"220 go ahead\r\n" {
                stream.get_mut().write_all(&[*byte]).unwrap();
                sleep(Duration::from_millis(1));
            }
            tls::accept_upgrade(server(), stream).unwrap().close()
        });
        upgrading(TcpStream::connect(address).unwrap()).unwrap().close().unwrap();
        serving.join().unwrap().unwrap();
    });
}
