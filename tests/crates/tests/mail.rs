//! Letters that mail-builder writes, handed to Postfix's test server over SMTP whose replies smtp-proto reads.
//!
//! crate: mail-builder | how: as it is: `MessageBuilder::write_to` writes to whatever can be written to
//! crate: smtp-proto | how: as it is: it reads slices. [`examples/smtp/client.rs`](../examples/smtp/client.rs) is a client on it

use std::{cell::Cell, process::Command, time::Duration};

use books::Books;
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

fn letter(number: usize) -> Vec<u8> {
    let letter = MessageBuilder::new()
        .from(("Ærø", "me@example.org"))
        .to("you@example.org")
        .subject(format!("Żółć {number}"))
        .text_body(format!("number {number}\r\n.\r\nwith a dot, and ü"))
        .attachment("application/octet-stream", "bytes", vec![number as u8; 5000]);
    let mut text = Vec::new();
    letter.write_to(&mut text).unwrap();
    text
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

#[test]
fn a_hundred_letters_are_read_as_they_were_meant() {
    let _books = Books::open();
    let Some(sink) = Sink::start(&["-d", "mail."]) else { return };
    if !has_python_with("email") {
        return;
    }
    let address = sink.address;
    bounded(PATIENCE, move || {
        let sent = Cell::new(0);
        pila::scope(|s| {
            for number in 0..LETTERS {
                let sent = &sent;
                s.tasklet(move || {
                    let envelope = Envelope {
                        host: "example.org".into(),
                        from: "me@example.org".into(),
                        to: "you@example.org".into(),
                        timeout: PATIENCE,
                    };
                    let mut stream = pila::net::TcpStream::connect(address).unwrap();
                    send_data(&mut stream, &envelope, &letter(number)[..]).unwrap();
                    sent.set(sent.get() + 1);
                });
            }
        });
        assert_eq!(sent.into_inner(), LETTERS);
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
