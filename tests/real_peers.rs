//! The stackless example against programs that others wrote: Postfix's test server, its test client and Postfix itself.
//!
//! Where Postfix is not installed the tests say so and are left out, but not where `CI` is set.

use std::{
    collections::BTreeMap, fs, io, net::SocketAddr, process::Command, rc::Rc, time::Duration,
};

use peers::{bodies::bodies, files, postfix::Postfix, sink::Sink};
use smtp::{
    client::{Envelope, Timeouts, send_data},
    letter::Letter,
};
use system::{PATIENCE, alone, finish, number_after, peer, stackless, tell};

mod peers;
#[allow(dead_code, reason = "the example uses all of it")]
#[path = "../examples/smtp/mod.rs"]
mod smtp;
mod system;

/// How many mails make a crowd.
const CROWD: u64 = if cfg!(debug_assertions) { 1_000 } else { 10_000 };

/// How many mails a server gets that does not do what it should.
const FEW: u64 = 100;

#[test]
fn a_crowd_of_mails_reaches_smtp_sink() {
    let _alone = alone();
    let Some(sink) = Sink::start(&[]) else { return };
    let outcome = sink.send(CROWD, &[]);
    outcome.assert_sent(CROWD);
    assert_eq!(outcome.threads, 1, "{outcome:?}");
    sink.assert_received(CROWD);
    tell(&format!("smtp-sink: {}", outcome.summary()));
}

#[test]
fn a_crowd_at_once_takes_one_thread_and_little_memory() {
    let _alone = alone();
    let outcome = finish(&mut stackless(["--mails", &CROWD.to_string()]), PATIENCE);
    outcome.assert_sent(CROWD);
    assert_eq!(outcome.threads, 1, "{outcome:?}");
    let at_once = outcome.number_before(" at once");
    assert!(at_once * 10 >= CROWD * 9, "{outcome:?}");
    let kib = (outcome.number_before(" MiB peak") * 1024) as f64 / at_once as f64;
    tell(&format!("own sink: {}; {kib:.1} KiB a mail", outcome.summary()));
    // Without optimization calls take several times as much of a stack.
    if !cfg!(debug_assertions) {
        assert!(kib <= 16.0, "{kib} KiB a mail");
    }
}

/// What a server that does not do what it should makes of all mails: nothing, or a row of the table.
type Result = Option<(&'static str, &'static [&'static str])>;

const SENT: Result = None;
const GONE: &[&str] = &["connection closed", "connection reset"];
const HARD: &[&str] = &["rejected 500"];
const SOFT: &[&str] = &["rejected 450"];
const LEAVE: &[&str] = &["rejected 421"];
const ABORTED: &[&str] = &["rejected 550", "connection closed", "connection reset"];

#[test]
fn every_mail_to_a_server_that_misbehaves_is_accounted_for() {
    let _alone = alone();
    let cases: [(&[&str], Result); 36] = [
        (&["-f", "CONNECT"], Some(("greeting", HARD))),
        (&["-f", "EHLO"], SENT),
        (&["-f", "EHLO,HELO"], Some(("EHLO", HARD))),
        (&["-f", "MAIL"], Some(("MAIL FROM", HARD))),
        (&["-f", "RCPT"], Some(("RCPT TO", HARD))),
        (&["-f", "DATA"], Some(("DATA", HARD))),
        (&["-f", "."], Some(("body", HARD))),
        (&["-f", "QUIT"], SENT),
        (&["-r", "CONNECT"], Some(("greeting", SOFT))),
        (&["-r", "EHLO"], Some(("EHLO", SOFT))),
        (&["-r", "MAIL"], Some(("MAIL FROM", SOFT))),
        (&["-r", "RCPT"], Some(("RCPT TO", SOFT))),
        (&["-r", "DATA"], Some(("DATA", SOFT))),
        (&["-r", "."], Some(("body", SOFT))),
        (&["-r", "QUIT"], SENT),
        (&["-q", "CONNECT"], Some(("greeting", GONE))),
        (&["-q", "EHLO"], Some(("EHLO", GONE))),
        (&["-q", "MAIL"], Some(("MAIL FROM", GONE))),
        (&["-q", "RCPT"], Some(("RCPT TO", GONE))),
        (&["-q", "DATA"], Some(("DATA", GONE))),
        (&["-q", "."], Some(("body", GONE))),
        (&["-q", "QUIT"], SENT),
        (&["-Q", "CONNECT"], Some(("greeting", LEAVE))),
        (&["-Q", "EHLO"], Some(("EHLO", LEAVE))),
        (&["-Q", "MAIL"], Some(("MAIL FROM", LEAVE))),
        (&["-Q", "RCPT"], Some(("RCPT TO", LEAVE))),
        (&["-Q", "DATA"], Some(("DATA", LEAVE))),
        (&["-Q", "."], Some(("body", LEAVE))),
        (&["-Q", "QUIT"], SENT),
        (&["-A", "0"], Some(("body", ABORTED))),
        (&["-e"], SENT),
        (&["-e", "-f", "EHLO"], SENT),
        (&["-p", "-8"], SENT),
        (&["-P"], SENT),
        (&["-w", "1"], SENT),
        (&["-H", "1", "-T", "1024"], SENT),
    ];
    for (options, result) in cases {
        let Some(sink) = Sink::start(options) else { return };
        let outcome = sink.send(FEW, &["--body-size", "20000"]);
        outcome.assert_accounts_for(FEW);
        let rows = outcome.rows();
        match result {
            None => {
                assert_eq!(outcome.sent(), FEW, "{options:?}: {}", outcome.stdout);
                sink.assert_received(FEW);
            }
            Some((step, whats)) => {
                assert_eq!(outcome.sent(), 0, "{options:?}: {}", outcome.stdout);
                let fits = |row: &system::Row| row.step == step && whats.contains(&&*row.what);
                assert!(rows.iter().all(fits), "{options:?}: {}", outcome.stdout);
            }
        }
    }
}

#[test]
fn a_step_that_is_too_slow_times_out_and_disturbs_no_other() {
    let _alone = alone();
    for (command, step) in [("MAIL", "MAIL FROM"), ("RCPT", "RCPT TO"), ("DATA", "DATA")] {
        // A die for each command: one in two waits for some seconds, the others not at all.
        let Some(sink) = Sink::start(&["-W", &format!("{command}:5:50")]) else { return };
        let outcome = sink.send(FEW, &["--timeout", "2s"]);
        outcome.assert_accounts_for(FEW);
        let rows = outcome.rows();
        // That all mails throw alike happens once in 2^99 times.
        assert!(outcome.sent() > 0 && rows.len() == 1, "{}", outcome.stdout);
        assert_eq!((&*rows[0].step, &*rows[0].what), (step, "timed out"), "{}", outcome.stdout);
        assert!(outcome.elapsed < Duration::from_secs(20), "{outcome:?}");
    }
}

impl Timeouts for pila::net::TcpStream {
    fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        pila::net::TcpStream::set_read_timeout(self, limit)
    }

    fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        pila::net::TcpStream::set_write_timeout(self, limit)
    }
}

/// Sends all of `bodies` at once, from as many tasklets.
fn send_at_once(server: SocketAddr, bodies: &[Vec<u8>]) {
    let envelope = Rc::new(Envelope {
        host: "client.example.org".into(),
        from: "sender@example.org".into(),
        to: "recipient@example.org".into(),
        timeout: PATIENCE,
    });
    let mails: Vec<_> = bodies
        .iter()
        .enumerate()
        .map(|(number, body)| {
            let head = format!("From: <{0}>\r\nTo: <{1}>\r\n", envelope.from, envelope.to);
            let head = format!("{head}Subject: body {number}\r\n\r\n");
            let (envelope, text) = (envelope.clone(), [head.as_bytes(), body].concat());
            pila::tasklet(move || {
                let mut stream = pila::net::TcpStream::connect(server).unwrap();
                send_data(&mut stream, &envelope, &*text)
            })
        })
        .collect();
    for mail in mails {
        mail.join().unwrap().unwrap();
    }
}

/// The bodies in `texts`, by the numbers in their subjects, which begin with `word`.
fn by_subject(texts: impl Iterator<Item = Vec<u8>>, word: &str) -> BTreeMap<usize, Vec<u8>> {
    let subject = format!("Subject: {word} ");
    let numbered = texts.filter_map(|text| {
        let end = text.windows(2).position(|bytes| bytes == b"\n\n").expect("it has headers");
        let headers = String::from_utf8_lossy(&text[..end + 1]).into_owned();
        let number = number_after(&headers, &subject)? as usize;
        Some((number, text[end + 2..].to_vec()))
    });
    let mut found = BTreeMap::new();
    for (number, body) in numbered {
        assert!(found.insert(number, body).is_none(), "{word} {number} came twice");
    }
    found
}

/// `body` as programs on Unix keep it, with LF for CRLF.
fn as_files(body: &[u8]) -> Vec<u8> {
    body.iter().copied().filter(|byte| *byte != b'\r').collect()
}

/// Asserts that the bodies that came are those that were sent, byte for byte.
#[track_caller]
fn assert_intact(came: &BTreeMap<usize, Vec<u8>>, sent: &[Vec<u8>]) {
    assert_eq!(came.keys().copied().collect::<Vec<_>>(), (0..sent.len()).collect::<Vec<_>>());
    for (number, body) in sent.iter().enumerate() {
        let (came, sent) = (&came[&number], as_files(body));
        let place = came.iter().zip(&sent).position(|(came, sent)| came != sent);
        let lengths = (came.len(), sent.len());
        // Not assert_eq: it would print megabytes.
        assert!(*came == sent, "body {number} differs at {place:?}, lengths {lengths:?}");
    }
}

#[test]
fn smtp_sink_gets_every_byte() {
    let _alone = alone();
    let Some(sink) = Sink::start(&["-d", "mail."]) else { return };
    let bodies = bodies();
    send_at_once(sink.address, &bodies);
    sink.assert_received(bodies.len() as u64);

    let files = files(sink.directory.path(), "mail.").into_iter().map(|path| {
        let mut text = fs::read(path).unwrap();
        // smtp-sink puts an empty line behind each mail.
        assert_eq!(text.pop(), Some(b'\n'));
        text
    });
    assert_intact(&by_subject(files, "body"), &bodies);
}

#[test]
fn postfix_holds_every_byte() {
    let _alone = alone();
    let Some(postfix) = Postfix::start() else { return };
    let bodies = bodies();
    send_at_once(postfix.address, &bodies);
    assert_intact(&by_subject(postfix.held().into_iter(), "body"), &bodies);
}

#[test]
fn postfix_holds_what_the_example_sends() {
    const MAILS: usize = 20;
    const SIZE: usize = 20_000;
    let _alone = alone();
    let Some(postfix) = Postfix::start() else { return };
    let (server, mails, size) = (postfix.address.to_string(), MAILS.to_string(), SIZE.to_string());
    let arguments = ["--server", &server, "--mails", &mails, "--body-size", &size];
    finish(&mut stackless(arguments), PATIENCE).assert_sent(MAILS as u64);

    let letter = Letter::new(String::new(), SIZE);
    let body = |number: usize| {
        let mut text = Vec::new();
        io::copy(&mut letter.text(number as u32), &mut text).unwrap();
        let end = text.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        text.split_off(end + 4)
    };
    let sent: Vec<Vec<u8>> = (0..MAILS).map(body).collect();
    assert_intact(&by_subject(postfix.held().into_iter(), "mail"), &sent);
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[test]
fn sending_takes_no_more_processor_time_than_smtp_source_does() {
    let _alone = alone();
    let Some(source) = peer("smtp-source") else { return };
    let Some(sink) = Sink::start(&[]) else { return };
    // Without optimization there is nothing to compare, but both must still do their work.
    let (pairs, mails) = if cfg!(debug_assertions) { (1, 1_000) } else { (7, 20_000) };
    let (count, address) = (mails.to_string(), sink.address.to_string());
    let theirs = || {
        let mut command = Command::new(&source);
        command.args(["-s", "1000", "-m", &count, "-l", "1000", &address]);
        let outcome = finish(&mut command, PATIENCE);
        assert_eq!(outcome.status, Some(0), "{outcome:?}");
        outcome.cpu.as_secs_f64()
    };
    let ours = || {
        let outcome = sink.send(mails, &["--at-once", "1000", "--body-size", "1000"]);
        outcome.assert_sent(mails);
        assert_eq!(outcome.threads, 1, "{outcome:?}");
        outcome.cpu.as_secs_f64()
    };
    let times: Vec<(f64, f64)> = (0..pairs).map(|_| (ours(), theirs())).collect();
    sink.assert_received(2 * pairs * mails);

    let (ours, theirs) = (median(times.iter().map(|t| t.0)), median(times.iter().map(|t| t.1)));
    let ratio = median(times.iter().map(|(ours, theirs)| ours / theirs));
    tell(&format!("CPU, stackless and smtp-source, {mails} mails: {times:.2?}"));
    tell(&format!("  medians {ours:.2} s and {theirs:.2} s, of the ratios {ratio:.2}"));
    if !cfg!(debug_assertions) {
        assert!(ratio <= 1.0, "{ratio}: {times:?}");
    }
}
