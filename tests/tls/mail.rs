//! Mail with `STARTTLS`: pila's side against Postfix, Python's smtplib and OpenSSL's client.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::SocketAddr,
};

use pila::{
    Tasklet,
    net::TcpStream,
    process::{Command, Stdio},
    tls::{self, TlsStream},
};

use crate::{
    certificates::authority,
    client, leaving_nothing,
    peers::postfix::Postfix,
    server, serving,
    system::{Directory, peer},
};

/// The whole reply to a command, which must begin so.
#[track_caller]
fn expect(stream: &mut impl BufRead, code: &str) -> String {
    let mut reply = String::new();
    loop {
        let begun = reply.len();
        assert_ne!(stream.read_line(&mut reply).unwrap(), 0, "it hung up after {reply:?}");
        assert!(reply[begun..].starts_with(code), "{reply}");
        if reply.as_bytes()[begun + 3] != b'-' {
            return reply;
        }
    }
}

/// Sends a mail, which only goes out under TLS.
fn send_mail(server: SocketAddr, body: &str) -> io::Result<()> {
    let mut plaintext = BufReader::new(TcpStream::connect(server)?);
    expect(&mut plaintext, "220");
    plaintext.get_mut().write_all(b"EHLO localhost\r\n")?;
    assert!(expect(&mut plaintext, "250").contains("STARTTLS"));
    plaintext.get_mut().write_all(b"STARTTLS\r\n")?;
    expect(&mut plaintext, "220");
    let mut stream = tls::upgrade_with(client(), "localhost", plaintext)?;
    stream.write_all(b"EHLO localhost\r\n")?;
    // What it said in plaintext counts no more; under TLS it does not offer it again.
    assert!(!expect(&mut stream, "250").contains("STARTTLS"));
    let commands = ["MAIL FROM:<me@example.org>", "RCPT TO:<you@example.org>", "DATA"];
    for (command, code) in commands.into_iter().zip(["250", "250", "354"]) {
        write!(stream, "{command}\r\n")?;
        expect(&mut stream, code);
    }
    write!(stream, "Subject: under TLS\r\n\r\n{body}\r\n.\r\n")?;
    expect(&mut stream, "250");
    stream.write_all(b"QUIT\r\n")?;
    expect(&mut stream, "221");
    stream.shutdown()
}

/// What a server of ours received.
#[derive(Debug, Default, PartialEq)]
struct Received {
    /// Commands, in order, those under TLS marked.
    commands: Vec<String>,
    body: String,
}

/// Serves one mail, and hangs up when TLS does not come about.
fn receive(stream: TcpStream) -> io::Result<Received> {
    let mut received = Received::default();
    let mut plaintext = BufReader::new(stream);
    plaintext.get_mut().write_all(b"220 localhost ESMTP\r\n")?;
    loop {
        let command = command(&mut plaintext)?;
        let reply: &[u8] = match &command[..] {
            "EHLO" => b"250-localhost\r\n250 STARTTLS\r\n",
            "STARTTLS" => b"220 go ahead\r\n",
            "QUIT" => return Ok(received),
            _ => b"530 Must issue a STARTTLS command first\r\n",
        };
        plaintext.get_mut().write_all(reply)?;
        received.commands.push(command.clone());
        if command == "STARTTLS" {
            let mut stream = tls::accept_upgrade(server(), plaintext)?;
            converse(&mut stream, &mut received)?;
            return Ok(received);
        }
    }
}

/// The first word of the next line.
fn command(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    Ok(line.split_whitespace().next().unwrap_or("QUIT").to_uppercase())
}

fn converse(stream: &mut TlsStream<TcpStream>, received: &mut Received) -> io::Result<()> {
    loop {
        let command = command(stream)?;
        received.commands.push(format!("TLS {command}"));
        match &command[..] {
            "DATA" => {
                stream.write_all(b"354 go on\r\n")?;
                let lines = (&mut *stream).lines().map_while(Result::ok);
                let lines: Vec<String> = lines.take_while(|line| line != ".").collect();
                received.body = lines.split(String::is_empty).skip(1).flatten().cloned().collect();
                stream.write_all(b"250 taken\r\n")?;
            }
            "QUIT" => {
                stream.write_all(b"221 bye\r\n")?;
                return stream.shutdown();
            }
            _ => stream.write_all(b"250 localhost\r\n")?,
        }
    }
}

fn receiving() -> (SocketAddr, Tasklet<Received>) {
    serving(|stream| receive(stream).unwrap())
}

const COMMANDS: [&str; 7] =
    ["EHLO", "STARTTLS", "TLS EHLO", "TLS MAIL", "TLS RCPT", "TLS DATA", "TLS QUIT"];

#[test]
fn a_mail_goes_from_one_to_the_other_under_tls() {
    leaving_nothing(|| {
        let (address, receiving) = receiving();
        send_mail(address, "between ourselves").unwrap();
        let received = receiving.join().unwrap();
        assert_eq!(received.commands, COMMANDS);
        assert_eq!(received.body, "between ourselves");
    });
}

#[test]
fn postfix_takes_a_mail_under_tls() {
    leaving_nothing(|| {
        let directory = Directory::new("postfix-tls");
        let [certificate, key] = authority().issue(&["localhost"]).write(&directory);
        let settings = format!(
            "smtpd_tls_security_level = encrypt\n\
             smtpd_tls_received_header = yes\n\
             smtpd_tls_cert_file = {}\n\
             smtpd_tls_key_file = {}\n",
            certificate.display(),
            key.display()
        );
        let Some(postfix) = Postfix::start_with(&settings) else { return };
        for _ in 0..3 {
            send_mail(postfix.address, "to a server that others wrote").unwrap();
        }
        let held = postfix.held();
        assert_eq!(held.len(), 3);
        for mail in held {
            let mail = String::from_utf8(mail).unwrap();
            assert!(mail.contains("using TLSv1.3 with cipher"), "{mail}");
            assert!(mail.contains("to a server that others wrote"), "{mail}");
        }
    });
}

#[test]
fn pythons_smtplib_sends_a_mail_under_tls() {
    const SCRIPT: &str = "
import smtplib, ssl, sys
with smtplib.SMTP('localhost', int(sys.argv[1])) as server:
    server.starttls(context=ssl.create_default_context(cafile=sys.argv[2]))
    server.sendmail('me@example.org', ['you@example.org'], 'Subject: hello\\r\\n\\r\\nfrom Python\\r\\n')
";
    leaving_nothing(|| {
        let Some(python) = peer("python3") else { return };
        let directory = Directory::new("smtplib");
        let roots = directory.join("roots.pem");
        std::fs::write(&roots, authority().certificate()).unwrap();
        let (address, receiving) = receiving();
        let mut command = Command::new(python);
        command.args(["-c", SCRIPT, &address.port().to_string()]).arg(roots);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let received = receiving.join().unwrap();
        assert_eq!(received.commands, COMMANDS);
        assert_eq!(received.body, "from Python");
    });
}

#[test]
fn openssls_client_upgrades_as_smtp_asks_for() {
    leaving_nothing(|| {
        let Some(openssl) = peer("openssl") else { return };
        let directory = Directory::new("openssl-starttls");
        let roots = directory.join("roots.pem");
        std::fs::write(&roots, authority().certificate()).unwrap();
        let (address, receiving) = receiving();
        let mut command = Command::new(openssl);
        command.args(["s_client", "-starttls", "smtp", "-connect", &address.to_string(), "-quiet"]);
        command
            .args(["-verify_return_error", "-verify_hostname", "localhost", "-CAfile"])
            .arg(roots);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut client = command.spawn().unwrap();
        let mut input = client.stdin.take().unwrap();
        input.write_all(b"NOOP\nQUIT\n").unwrap();
        let mut output = String::new();
        client.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        assert!(output.ends_with("250 localhost\r\n221 bye\r\n"), "{output}");
        drop(input);
        client.wait().unwrap();
        assert_eq!(
            receiving.join().unwrap().commands,
            ["EHLO", "STARTTLS", "TLS NOOP", "TLS QUIT"]
        );
    });
}
