//! Letters that mail-builder and lettre write, handed to Postfix's test server over SMTP whose replies smtp-proto reads.
//!
//! crate: mail-builder | how: as it is: `MessageBuilder::write_to` writes to whatever can be written to
//! crate: lettre | how: its builder, and a `Transport` of a few lines over [`examples/smtp/client.rs`](../examples/smtp/client.rs), to be copied from the test; its own transports have sockets of std's or of tokio's
//! crate: smtp-proto | how: as it is: it reads slices. [`examples/smtp/client.rs`](../examples/smtp/client.rs) is a client on it

use std::{error::Error, net::SocketAddr, process::Command, time::Duration};

use books::Books;
use lettre::{
    Message, Transport,
    message::{Attachment, MultiPart, SinglePart, header::ContentType},
};
use mail_builder::MessageBuilder;
use peers::{files, sink::Sink};
use python::{PYTHON, has_python_with};
use smtp::client::{Envelope, Timeouts, send_data};
use system::{PATIENCE, bounded, finish};

mod books;
#[allow(dead_code, reason = "other tests use the rest of it")]
#[path = "../../peers/mod.rs"]
mod peers;
mod python;
#[allow(dead_code, reason = "the example uses the rest of it")]
#[path = "../../../examples/smtp/mod.rs"]
mod smtp;
#[path = "../../system/mod.rs"]
mod system;

const LETTERS: usize = 100;

impl Timeouts for pila::net::TcpStream {
    fn set_read_timeout(&self, limit: Option<Duration>) -> std::io::Result<()> {
        pila::net::TcpStream::set_read_timeout(self, limit)
    }

    fn set_write_timeout(&self, limit: Option<Duration>) -> std::io::Result<()> {
        pila::net::TcpStream::set_write_timeout(self, limit)
    }
}

/// Hands letters to this server, each over a connection of its own.
struct Postbox(SocketAddr);

impl Postbox {
    fn post(&self, from: &str, to: &str, letter: &[u8]) -> Result<(), Box<dyn Error>> {
        let (from, to) = (from.to_string(), to.to_string());
        let envelope = Envelope { host: "example.org".into(), from, to, timeout: PATIENCE };
        let mut stream = pila::net::TcpStream::connect(self.0)?;
        Ok(send_data(&mut stream, &envelope, letter)?)
    }
}

/// All that lettre needs.
impl lettre::Transport for Postbox {
    type Ok = ();
    type Error = Box<dyn Error>;

    fn send_raw(
        &self,
        envelope: &lettre::address::Envelope,
        letter: &[u8],
    ) -> Result<(), Self::Error> {
        let from = envelope.from().map_or("", |address| address.as_ref());
        envelope.to().iter().try_for_each(|to| self.post(from, to.as_ref(), letter))
    }
}

fn subject(number: usize) -> String {
    format!("Żółć {number}")
}

fn text(number: usize) -> String {
    format!("number {number}\r\n.\r\nwith a dot, and ü")
}

fn attachment(number: usize) -> Vec<u8> {
    vec![number as u8; 5000]
}

fn from_mail_builder(number: usize, postbox: &Postbox) {
    let letter = MessageBuilder::new()
        .from(("Ærø", "me@example.org"))
        .to("you@example.org")
        .subject(subject(number))
        .text_body(text(number))
        .attachment("application/octet-stream", "bytes", attachment(number));
    let mut text = Vec::new();
    letter.write_to(&mut text).unwrap();
    postbox.post("me@example.org", "you@example.org", &text).unwrap();
}

fn from_lettre(number: usize, postbox: &Postbox) {
    let bytes = ContentType::parse("application/octet-stream").unwrap();
    let parts = MultiPart::mixed()
        .singlepart(SinglePart::plain(text(number)))
        .singlepart(Attachment::new("bytes".into()).body(attachment(number), bytes));
    let letter = Message::builder()
        .from("Ærø <me@example.org>".parse().unwrap())
        .to("you@example.org".parse().unwrap())
        .subject(subject(number))
        .multipart(parts);
    postbox.send(&letter.unwrap()).unwrap();
}

/// What Python's mail reader makes of the files that are its arguments.
const READ: &str = r#"
import email, email.policy, sys
for path in sys.argv[1:]:
    mail = email.message_from_binary_file(open(path, "rb"), policy=email.policy.default)
    text = mail.get_body(("plain",)).get_content().split()
    [attachment] = mail.iter_attachments()
    content = attachment.get_content()
    print(mail["subject"], mail["from"].addresses[0].display_name, *text, len(content), content[0])
"#;

/// Has each of a hundred tasklets send a letter, and Python read them all.
fn assert_read_as_meant(send: fn(usize, &Postbox)) {
    let _books = Books::open();
    let Some(sink) = Sink::start(&["-d", "mail."]) else { return };
    if !has_python_with("email") {
        return;
    }
    let postbox = Postbox(sink.address);
    bounded(PATIENCE, move || {
        pila::scope(|s| {
            for number in 0..LETTERS {
                let postbox = &postbox;
                s.tasklet(move || send(number, postbox));
            }
        });
    });
    sink.assert_received(LETTERS as u64);

    let mut read = Command::new(PYTHON);
    read.args(["-c", READ]).args(files(sink.directory.path(), "mail.")).env("PYTHONUTF8", "1");
    let outcome = finish(&mut read, PATIENCE);
    let mut seen: Vec<&str> = outcome.stdout.lines().collect();
    let meant = |n| format!("Żółć {n} Ærø number {n} . with a dot, and ü 5000 {n}");
    let mut meant: Vec<String> = (0..LETTERS).map(meant).collect();
    seen.sort_unstable();
    meant.sort_unstable();
    assert_eq!(seen, meant, "{}", outcome.stderr);
}

#[test]
fn letters_of_mail_builder_are_read_as_they_were_meant() {
    assert_read_as_meant(from_mail_builder);
}

#[test]
fn letters_of_lettre_are_read_as_they_were_meant() {
    assert_read_as_meant(from_lettre);
}
