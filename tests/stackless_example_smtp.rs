//! The SMTP of the stackless example: its client against scripted streams and against std's sockets, its ledger.

#![allow(clippy::disallowed_methods, reason = "the slow peer here is a thread's own")]

#[allow(dead_code, reason = "the example uses all of it")]
#[path = "../examples/smtp/mod.rs"]
mod smtp;

use std::{
    cell::Cell,
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use smtp::{
    client::{Envelope, Timeouts, send_data},
    error::{Cause, MailError, Step},
    ledger::Ledger,
    letter::Letter,
};
use smtp_proto::request::receiver::DataReceiver;

/// A stream whose peer has prepared all it will say, and that keeps what it is told.
#[derive(Default)]
struct Script {
    replies: VecDeque<Vec<u8>>,
    written: Vec<Vec<u8>>,
    /// How long each read takes.
    pace: Duration,
    timeouts_set: Cell<usize>,
}

impl Script {
    fn new(replies: &[&str]) -> Self {
        let replies = replies.iter().map(|reply| reply.as_bytes().to_vec()).collect();
        Self { replies, ..Self::default() }
    }

    /// One whose peer accepts everything.
    fn kind() -> Self {
        Self::new(&[
            "220 hi\r\n",
            "250-me\r\n250 8BITMIME\r\n",
            "250 ok\r\n",
            "250 ok\r\n",
            "354 go\r\n",
            "250 ok\r\n",
            "221 bye\r\n",
        ])
    }

    fn send(&mut self, text: &[u8]) -> Result<(), MailError> {
        send_data(self, &envelope(), text)
    }

    fn said(&self) -> Vec<String> {
        self.written.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.pace.is_zero() {
            thread::sleep(self.pace);
        }
        let Some(reply) = self.replies.front_mut() else {
            return Ok(0);
        };
        let count = reply.len().min(buffer.len());
        buffer[..count].copy_from_slice(&reply[..count]);
        reply.drain(..count);
        if reply.is_empty() {
            self.replies.pop_front();
        }
        Ok(count)
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Timeouts for Script {
    fn set_read_timeout(&self, _: Option<Duration>) -> io::Result<()> {
        self.timeouts_set.set(self.timeouts_set.get() + 1);
        Ok(())
    }

    fn set_write_timeout(&self, _: Option<Duration>) -> io::Result<()> {
        self.timeouts_set.set(self.timeouts_set.get() + 1);
        Ok(())
    }
}

fn envelope() -> Envelope {
    let timeout = Duration::from_millis(300);
    Envelope { host: "here".into(), from: "a@b".into(), to: "c@d".into(), timeout }
}

/// What a receiver makes of what follows DATA.
fn received(wire: &[u8]) -> Vec<u8> {
    let mut data = DataReceiver::new();
    let mut text = Vec::new();
    data.ingest(&mut b"\r\n".iter(), &mut text);
    text.clear();
    let mut wire = wire.iter();
    assert!(data.ingest(&mut wire, &mut text), "the text has an end");
    assert!(wire.as_slice().is_empty(), "nothing follows the end");
    text
}

fn wire(text: impl BufRead) -> Vec<u8> {
    let mut script = Script::kind();
    send_data(&mut script, &envelope(), text).unwrap();
    let end = script.written.len() - 1;
    script.written[4..end].concat()
}

#[test]
fn says_what_smtp_wants_in_one_write_a_line() {
    let mut script = Script::kind();
    script.send(b"Subject: x\r\n\r\nhi\r\n").unwrap();
    assert_eq!(
        script.said(),
        [
            "EHLO here\r\n",
            "MAIL FROM:<a@b> BODY=8BITMIME\r\n",
            "RCPT TO:<c@d>\r\n",
            "DATA\r\n",
            "Subject: x\r\n\r\nhi\r\n.\r\n",
            "QUIT\r\n"
        ]
    );
    assert_eq!(script.timeouts_set.get(), 2, "once for each direction");
}

#[test]
fn falls_back_to_helo() {
    let mut script = Script::kind();
    script.replies.insert(1, b"500-what\r\n500 was that\r\n".to_vec());
    script.send(b"hi\r\n").unwrap();
    assert_eq!(script.said()[..2], ["EHLO here\r\n", "HELO here\r\n"]);
}

#[test]
fn declares_8_bit_only_where_it_is_offered() {
    let mut script = Script::kind();
    script.replies[1] = b"250 me\r\n".to_vec();
    script.send(b"hi\r\n").unwrap();
    assert_eq!(script.said()[1], "MAIL FROM:<a@b>\r\n");
}

#[test]
fn text_arrives_byte_for_byte() {
    let long = [vec![b'x'; 100_000], b"\r\n".to_vec()].concat();
    let high: Vec<u8> = (0x80..=0xff).chain(*b"\r\n").collect();
    let cases: [&[u8]; 10] = [
        b"",
        b".\r\n",
        b".\r\n..\r\n...\r\n.x\r\n",
        b"\r\n.\r\n\r\n",
        b"x\r\n.\r\nQUIT\r\n",
        b"a bare\rCR, and one before the end\r\r\n",
        b"\r\n",
        b". .\r\n",
        &long,
        &high,
    ];
    for text in cases {
        assert_eq!(
            received(&wire(text)),
            text,
            "{:?}",
            String::from_utf8_lossy(&text[..text.len().min(40)])
        );
    }
}

#[test]
fn line_ends_become_crlf() {
    for (text, arrives) in [
        (&b"a\nb\n"[..], &b"a\r\nb\r\n"[..]),
        (b"no end", b"no end\r\n"),
        (b"\n.\n", b"\r\n.\r\n"),
        (b".", b".\r\n"),
    ] {
        assert_eq!(received(&wire(text)), arrives);
    }
}

/// Bodies of the bytes that matter, longer than a block, read in pieces of every size: no boundary may show.
#[test]
fn text_arrives_whole_however_it_is_cut() {
    let mut seed = 7_u32;
    let mut random = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) as usize
    };
    for round in 0..300 {
        let length = random() % 40_000;
        let mut text = Vec::new();
        while text.len() < length {
            let run = if random() % 4 == 0 { random() % 9_000 } else { random() % 4 };
            text.extend((0..run).map(|_| b"..x\r\xff"[random() % 5]));
            text.extend_from_slice(b"\r\n");
        }
        let pieces = BufReader::with_capacity(1 + round, text.as_slice());
        assert!(received(&wire(pieces)) == text, "round {round}");
    }
}

#[test]
fn replies_in_one_packet_are_taken_one_by_one() {
    let all = Script::kind().replies.into_iter().flatten().collect::<Vec<u8>>();
    let mut script = Script { replies: [all].into(), ..Script::default() };
    script.send(b"hi\r\n").unwrap();
    assert_eq!(script.written.len(), 6);
}

#[test]
fn replies_byte_by_byte_are_put_together() {
    let bytes = Script::kind().replies.into_iter().flatten().map(|byte| vec![byte]);
    Script { replies: bytes.collect(), ..Script::default() }.send(b"hi\r\n").unwrap();
}

#[test]
fn every_step_can_be_rejected() {
    let steps = [Step::Greeting, Step::Ehlo, Step::Mail, Step::Rcpt, Step::Data, Step::Body];
    for (place, step) in steps.into_iter().enumerate() {
        for code in ["421", "451", "550"] {
            let mut script = Script::kind();
            script.replies.truncate(place);
            // Twice, for HELO follows a rejected EHLO.
            script.replies.extend(
                [format!("{code} no\r\n"), format!("{code} no\r\n")].map(String::into_bytes),
            );
            let error = script.send(b"hi\r\n").unwrap_err();
            assert_eq!(error.step, step);
            assert!(
                matches!(error.cause, Cause::Rejected { code: got, .. } if got.to_string() == code)
            );
            assert_eq!(script.said().last().unwrap(), "QUIT\r\n", "it says goodbye all the same");
        }
    }
}

#[test]
fn every_step_can_find_the_connection_closed() {
    let steps = [Step::Greeting, Step::Ehlo, Step::Mail, Step::Rcpt, Step::Data, Step::Body];
    for (place, step) in steps.into_iter().enumerate() {
        let mut script = Script::kind();
        script.replies.truncate(place);
        let error = script.send(b"hi\r\n").unwrap_err();
        assert!(error.step == step && matches!(error.cause, Cause::Closed), "{error}");
    }
}

#[test]
fn a_failed_goodbye_does_not_unsend_the_mail() {
    for goodbye in [None, Some("500 never\r\n"), Some("garbage\r\n")] {
        let mut script = Script::kind();
        script.replies.pop_back();
        script.replies.extend(goodbye.map(|line| line.as_bytes().to_vec()));
        script.send(b"hi\r\n").unwrap();
    }
}

#[test]
fn garbage_is_a_typed_error() {
    let endless = "250-\n".repeat(100_000);
    let long = format!("220 {}", "x".repeat(100_000));
    for reply in
        ["hello\r\n", "22\r\n", "2200 x\r\n", "\0\u{ff}\r\n", "\r\n", "354 go\r\n", &endless, &long]
    {
        let error = Script::new(&[reply]).send(b"hi\r\n").unwrap_err();
        assert_eq!(error.step, Step::Greeting);
        assert!(matches!(error.cause, Cause::Garbage(_)), "{error}");
    }
}

#[test]
fn a_reply_that_trickles_ends_at_the_deadline() {
    let bytes = "220-waiting\r\n".repeat(1000).into_bytes();
    let pace = Duration::from_millis(20);
    let replies = bytes.into_iter().map(|byte| vec![byte]).collect();
    let begun = Instant::now();
    let error = Script { replies, pace, ..Script::default() }.send(b"hi\r\n").unwrap_err();
    assert!(matches!(error.cause, Cause::TimedOut), "{error}");
    assert!((300..2000).contains(&begun.elapsed().as_millis()));
}

#[test]
fn works_over_the_sockets_of_std() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 hi\r\n").unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        for reply in ["250 me\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"] {
            lines.next().unwrap().unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
        }
        let text: Vec<_> =
            lines.by_ref().map(Result::unwrap).take_while(|line| line != ".").collect();
        stream.write_all(b"250 ok\r\n").unwrap();
        text
    });
    let mut stream = TcpStream::connect(address).unwrap();
    send_data(&mut stream, &envelope(), &b"one\r\ntwo\r\n"[..]).unwrap();
    assert_eq!(server.join().unwrap(), ["one", "two"]);
}

#[test]
fn ledger_tells_missing_doubled_and_damaged_mails() {
    let letter = Letter::new("From: <a@b>\r\n".into(), 3000);
    let text = |number| {
        let mut text = Vec::new();
        letter.text(number).read_to_end(&mut text).unwrap();
        text
    };
    let mut ledger = Ledger::new(4, 3000);
    ledger.receive(&text(0));
    ledger.receive(&text(1));
    ledger.receive(&text(1));
    ledger.receive(&text(4));
    let mut damaged = text(2);
    *damaged.last_mut().unwrap() ^= 1;
    ledger.receive(&damaged);
    ledger.receive(b"");
    let report = ledger.report();
    assert_eq!((report.once, report.missing, report.doubled, report.damaged), (1, 2, 1, 3));
    assert_eq!(report.to_string().parse(), Ok(report));
}

#[test]
fn letters_have_the_size_asked_for() {
    for size in [15, 16, 17, 30, 200, 1000, 5000] {
        let mut text = Vec::new();
        Letter::new(String::new(), size).text(7).read_to_end(&mut text).unwrap();
        let body = text.len() - "Subject: mail 7\r\n\r\n".len();
        assert!(body.abs_diff(size) <= 1, "{body} of {size}");
    }
}
