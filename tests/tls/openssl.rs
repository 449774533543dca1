//! OpenSSL's programs at the other end. Where they are not installed the tests say so, but not where `CI` is set.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    path::Path,
};

use pila::{
    net::TcpStream,
    process::{Child, Command, Stdio},
    tasklet,
    tls::{self, HandshakeReason, TlsStream},
};

use crate::{
    certificates::{Authority, Identity, authority},
    client, leaving_nothing, reason, server, serving,
    system::{Directory, free_address, peer},
};

/// OpenSSL's server, which gives back each line in reverse.
struct Server {
    process: Child,
    address: SocketAddr,
    /// Where its certificate lies.
    _directory: Directory,
}

impl Server {
    /// Starts one; `None` where there is no OpenSSL.
    fn start(identity: &Identity, options: &[&str]) -> Option<Self> {
        let program = peer("openssl")?;
        let directory = Directory::new("openssl");
        let [certificate, key] = identity.write(&directory);
        let address = free_address();
        let mut command = Command::new(program);
        command.args(["s_server", "-accept", &address.to_string(), "-rev"]).args(options);
        command.arg("-cert").arg(certificate).arg("-key").arg(key);
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().expect("it is a pipe"));
        let mut line = String::new();
        while !line.starts_with("ACCEPT") {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "it does not listen");
        }
        // Whatever else it says.
        tasklet(move || std::io::copy(&mut output, &mut std::io::sink()));
        Some(Self { process, address, _directory: directory })
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn reversed(stream: &mut TlsStream<TcpStream>, line: &str) {
    writeln!(stream, "{line}").unwrap();
    let mut answer = String::new();
    stream.read_line(&mut answer).unwrap();
    assert_eq!(answer.trim_end(), line.chars().rev().collect::<String>());
}

#[test]
fn openssls_server_answers_with_every_version() {
    leaving_nothing(|| {
        for options in [&["-tls1_2"][..], &["-tls1_3"]] {
            let identity = authority().issue(&["localhost"]);
            let Some(server) = Server::start(&identity, options) else { return };
            for _ in 0..3 {
                let mut stream =
                    tls::connect_with(client(), "localhost", server.connect()).unwrap();
                reversed(&mut stream, "hello");
                reversed(&mut stream, &"a long line ".repeat(500));
                stream.shutdown().unwrap();
            }
        }
    });
}

#[test]
fn openssls_server_with_a_certificate_for_another_name_is_refused() {
    leaving_nothing(|| {
        let Some(server) = Server::start(&authority().issue(&["example.org"]), &[]) else { return };
        let error = tls::connect_with(client(), "localhost", server.connect()).unwrap_err();
        assert!(
            matches!(reason(&error), HandshakeReason::OtherName { names } if names == &["example.org"])
        );
        let stranger = Authority::new("a stranger").issue(&["localhost"]);
        let Some(server) = Server::start(&stranger, &[]) else { return };
        let error = tls::connect_with(client(), "localhost", server.connect()).unwrap_err();
        assert!(matches!(reason(&error), HandshakeReason::UnknownIssuer), "{error}");
    });
}

#[test]
fn openssls_server_that_has_nothing_in_common_says_so() {
    leaving_nothing(|| {
        let identity = authority().issue(&["localhost"]);
        let options = ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-CCM8:@SECLEVEL=0"];
        let Some(server) = Server::start(&identity, &options) else { return };
        let error = tls::connect_with(client(), "localhost", server.connect()).unwrap_err();
        assert!(
            error.to_string().contains("refused to go on, with the alert HandshakeFailure"),
            "{error}"
        );
    });
}

/// OpenSSL's client, which trusts the certificates in a file and asks for `localhost`.
fn openssls_client(address: SocketAddr, roots: &Path, options: &[&str]) -> Option<Child> {
    let mut command = Command::new(peer("openssl")?);
    command.args(["s_client", "-quiet", "-no_ign_eof", "-connect", &address.to_string()]);
    command.args([
        "-verify_return_error",
        "-verify_hostname",
        "localhost",
        "-servername",
        "localhost",
    ]);
    command.arg("-CAfile").arg(roots).args(options);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    Some(command.spawn().unwrap())
}

fn roots(directory: &Directory, of: &Authority) -> std::path::PathBuf {
    let path = directory.join("roots.pem");
    std::fs::write(&path, of.certificate()).unwrap();
    path
}

#[test]
fn openssls_client_is_answered_with_every_version() {
    leaving_nothing(|| {
        let directory = Directory::new("openssl-client");
        let roots = roots(&directory, authority());
        for version in ["-tls1_2", "-tls1_3"] {
            let (address, serving) = serving(|stream| {
                let mut stream = tls::accept(server(), stream).unwrap();
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                stream.write_all(line.to_uppercase().as_bytes()).unwrap();
                stream.close()
            });
            let Some(mut client) = openssls_client(address, &roots, &[version]) else { return };
            let mut input = client.stdin.take().unwrap();
            input.write_all(b"hello from openssl\n").unwrap();
            let mut output = String::new();
            client.stdout.take().unwrap().read_to_string(&mut output).unwrap();
            assert_eq!(output, "HELLO FROM OPENSSL\n");
            drop(input);
            assert!(client.wait().unwrap().success());
            serving.join().unwrap().unwrap();
        }
    });
}

#[test]
fn openssls_client_that_trusts_somebody_else_is_told_of() {
    leaving_nothing(|| {
        let directory = Directory::new("openssl-client");
        let roots = roots(&directory, &Authority::new("somebody else"));
        let (address, serving) = serving(|stream| tls::accept(server(), stream).unwrap_err());
        let Some(mut client) = openssls_client(address, &roots, &[]) else { return };
        let error = serving.join().unwrap();
        assert!(error.to_string().contains("it does not trust the issuer"), "{error}");
        assert!(!client.wait().unwrap().success());
    });
}
