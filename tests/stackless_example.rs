//! The stackless example as its user meets it: a program with options, output and an exit status, against its own sink
//! and against servers of every bad kind.
//!
//! It runs the example that `cargo test` has built beside the tests: `target/PROFILE/examples/stackless`.

#![allow(clippy::disallowed_methods, reason = "the fake servers are plain threads")]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// What a run of the example left behind.
struct Outcome {
    status: Option<i32>,
    stdout: String,
    stderr: String,
    elapsed: Duration,
}

impl Outcome {
    fn last_line(&self) -> &str {
        self.stdout.lines().last().unwrap_or_default()
    }

    /// Asserts that the last line has its form, that so many of so many mails were sent, and that the status agrees.
    #[track_caller]
    fn assert_sent(&self, sent: u32, mails: u32) {
        let form = format!(
            "sent {sent} of {mails} mails in # s on 1 thread: # mails/s, at most # at once, # MiB peak"
        );
        assert!(has_form(self.last_line(), &form), "{:?}\n{}\n{}", self.stdout, self.stderr, form);
        assert_eq!(self.status, Some(i32::from(sent != mails)), "{}", self.stdout);
    }

    /// Asserts that the table has a row for `step` and `what`, with so many mails.
    #[track_caller]
    fn assert_row(&self, step: &str, what: &str, mails: u32) {
        let row = self.stdout.lines().find(|line| line.starts_with(step) && line.contains(what));
        let row = row.unwrap_or_else(|| panic!("no row {step}: {what} in\n{}", self.stdout));
        let rest = &row[row.find(what).unwrap() + what.len()..];
        assert_eq!(rest.split_whitespace().next(), Some(mails.to_string().as_str()), "{row}");
    }

    /// The number that stands before `word` in the last line.
    #[track_caller]
    fn number_before(&self, word: &str) -> u64 {
        let before = self.last_line().split(word).next().unwrap().trim_end();
        before.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// Whether `line` is `form` with numbers in the places of its `#`.
fn has_form(line: &str, form: &str) -> bool {
    let alike =
        |(word, form): (&str, &str)| word == form || form == "#" && word.parse::<f64>().is_ok();
    line.split(' ').count() == form.split(' ').count()
        && line.split(' ').zip(form.split(' ')).all(alike)
}

fn example() -> PathBuf {
    let test = env::current_exe().unwrap();
    let path = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples/stackless");
    assert!(
        path.exists(),
        "{} is built by `cargo test`, or `cargo build --example stackless`",
        path.display()
    );
    path
}

fn run(arguments: &[&str]) -> Outcome {
    finish(Command::new(example()).args(arguments))
}

/// Runs `command` to its end, which must come within a minute.
fn finish(command: &mut Command) -> Outcome {
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (stdout, stderr) = (collect(stdout), collect(stderr));
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("the example hangs: {:?}", stdout.join());
        }
        thread::sleep(Duration::from_millis(5));
    };
    let elapsed = begun.elapsed();
    Outcome {
        status: status.code(),
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
        elapsed,
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    })
}

/// The replies of a server that accepts everything.
const REPLIES: [&str; 7] = [
    "220 hi\r\n",
    "250-me\r\n250 8BITMIME\r\n",
    "250 ok\r\n",
    "250 ok\r\n",
    "354 go\r\n",
    "250 ok\r\n",
    "221 bye\r\n",
];

/// The steps after connecting, as the table calls them.
const STEPS: [&str; 6] = ["greeting", "EHLO", "MAIL FROM", "RCPT TO", "DATA", "body"];

/// What a server does instead of a reply, and whether it goes on as it should afterwards.
type Instead = Arc<dyn Fn(&mut TcpStream) -> Then + Send + Sync>;

enum Then {
    GoOn,
    HangUp,
}

/// A server that talks as it should to every other client; with the others, `instead` takes over at `step`, when the
/// client waits for the reply.
fn server(step: usize, instead: impl Fn(&mut TcpStream) -> Then + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let instead: Instead = Arc::new(instead);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let bad = (number % 2 == 1).then(|| (step, instead.clone()));
            thread::spawn(move || converse(stream.unwrap(), bad));
        }
    });
    address.to_string()
}

/// One conversation; nothing more to say, and a client that is gone, end it.
fn converse(mut stream: TcpStream, bad: Option<(usize, Instead)>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?);
    for (step, reply) in REPLIES.into_iter().enumerate() {
        if step > 0 {
            hear(&mut lines, if step == 5 { ".\r\n" } else { "" })?;
        }
        match &bad {
            Some((bad_step, instead)) if *bad_step == step => {
                let Then::GoOn = instead(&mut stream) else { return None };
            }
            _ => stream.write_all(reply.as_bytes()).ok()?,
        }
    }
    Some(())
}

/// Reads a line, or if there is an `end`, lines until that.
fn hear(lines: &mut impl BufRead, end: &str) -> Option<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        lines.read_until(b'\n', &mut line).ok().filter(|&count| count > 0)?;
        if end.is_empty() || line == end.as_bytes() {
            return Some(());
        }
    }
}

/// Sends 20 mails to `server`, with a second for each step.
fn send_20(server: &str) -> Outcome {
    run(&["--mails", "20", "--timeout", "1s", "--server", server])
}

/// Says `words`, and hangs up when the client has something to say to that.
fn say(stream: &mut TcpStream, words: &str) -> Then {
    stream.write_all(words.as_bytes()).ok();
    let _ = stream.read(&mut [0; 1024]);
    Then::HangUp
}

/// Keeps the connection until the client has closed it.
fn linger(stream: &mut TcpStream) -> Then {
    while stream.read(&mut [0; 1024]).is_ok_and(|count| count > 0) {}
    Then::HangUp
}

#[test]
fn sends_all_to_its_own_sink_at_once() {
    let outcome = run(&["--mails", "200", "--delay", "50ms"]);
    outcome.assert_sent(200, 200);
    assert_eq!(outcome.number_before("at once"), 200);
    assert!(outcome.stdout.contains("received: 200 once, 0 missing, 0 doubled, 0 damaged"));
    assert_eq!(outcome.stderr, "", "no progress bar where there is no terminal");
}

#[test]
fn at_once_bounds_what_is_in_flight() {
    let outcome = run(&["--mails", "100", "--at-once", "7", "--delay", "5"]);
    outcome.assert_sent(100, 100);
    assert_eq!(outcome.number_before("at once"), 7);
}

#[test]
fn bodies_of_any_size_arrive_intact() {
    for size in ["0", "15", "166", "1165", "9000", "100000"] {
        run(&["--mails", "10", "--delay", "0", "--body-size", size]).assert_sent(10, 10);
    }
}

#[test]
fn nothing_to_send_is_a_success() {
    let outcome = run(&["--mails", "0"]);
    assert!(
        outcome.last_line().starts_with("sent 0 of 0 mails in 0.00 s on "),
        "{}",
        outcome.stdout
    );
    assert_eq!(outcome.status, Some(0));
}

#[test]
fn bad_options_are_one_line_and_exit_2() {
    let cases: [&[&str]; 9] = [
        &["--at-once", "0"],
        &["--mails", "many"],
        &["--server", "nowhere"],
        &["--server", "127.0.0.1:70000"],
        &["--server", "no.such.host.invalid:25"],
        &["--to", "a@b>\r\nRSET"],
        &["--timeout", "0"],
        &["--delay=-1s"],
        &["--no-such-option"],
    ];
    for arguments in cases {
        let outcome = run(arguments);
        assert_eq!(outcome.status, Some(2), "{arguments:?}");
        assert_eq!(outcome.stdout, "");
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        assert!(
            outcome.stderr.contains(arguments[0].split('=').next().unwrap()),
            "{}",
            outcome.stderr
        );
    }
}

#[test]
fn few_descriptors_are_enough() {
    let command = "ulimit -n 64; exec \"$0\" --mails 300 --delay 5ms";
    let outcome = finish(Command::new("sh").args(["-c", command]).arg(example()));
    outcome.assert_sent(300, 300);
    assert!(outcome.stderr.contains("48 at once instead of 300"), "{}", outcome.stderr);
    assert_eq!(outcome.number_before("at once"), 48);
}

#[test]
fn no_descriptors_left_means_waiting_for_one() {
    // Of the 64, 30 are taken by what the shell has left open: 48 connections do not fit.
    let open: String = (10..40).map(|number| format!("exec {number}</dev/null; ")).collect();
    let command = format!("{open} ulimit -n 64; exec \"$0\" --mails 300 --delay 5ms");
    let outcome = finish(Command::new("bash").args(["-c", &command]).arg(example()));
    outcome.assert_sent(300, 300);
    assert!(outcome.number_before("at once") < 34, "{}", outcome.stdout);
}

#[test]
fn a_server_that_refuses_is_named() {
    let address: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let outcome = send_20(&address.to_string());
    outcome.assert_sent(0, 20);
    outcome.assert_row("connect", "connection refused", 20);
}

#[test]
fn rejections_at_every_step_name_it() {
    for (step, name) in STEPS.into_iter().enumerate() {
        for code in ["421", "554"] {
            let outcome = send_20(&server(step, move |stream| {
                let no = format!("{code}-no\r\n{code} \x1b[2J really not\r\n");
                say(stream, &no);
                // Once more, to the HELO that follows a rejected EHLO.
                if step == 1 { say(stream, &no) } else { Then::HangUp }
            }));
            outcome.assert_sent(10, 20);
            outcome.assert_row(name, &format!("rejected {code}"), 10);
            assert!(outcome.stdout.contains("really not") && !outcome.stdout.contains('\x1b'));
        }
    }
}

#[test]
fn resets_at_every_step_name_it() {
    for (step, name) in STEPS.into_iter().enumerate() {
        let outcome = send_20(&server(step, |stream| {
            // At once, the client might find it has no connection in the first place.
            thread::sleep(Duration::from_millis(20));
            rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
            Then::HangUp
        }));
        outcome.assert_sent(10, 20);
        outcome.assert_row(name, "connection reset", 10);
    }
}

#[test]
fn hang_ups_at_every_step_name_it() {
    for (step, name) in STEPS.into_iter().enumerate() {
        let outcome = send_20(&server(step, |_| Then::HangUp));
        outcome.assert_sent(10, 20);
        outcome.assert_row(name, "connection closed", 10);
    }
}

#[test]
fn garbage_at_every_step_names_it() {
    for (step, name) in STEPS.into_iter().enumerate() {
        let outcome = send_20(&server(step, |stream| say(stream, "\0\u{ff}what is this?\r\n")));
        outcome.assert_sent(10, 20);
        outcome.assert_row(name, "garbage", 10);
    }
}

#[test]
fn a_reply_without_end_is_garbage() {
    let outcome = send_20(&server(2, |stream| {
        while stream.write_all(b"250-\n250-and\r\n").is_ok() {}
        Then::HangUp
    }));
    outcome.assert_sent(10, 20);
    outcome.assert_row("MAIL FROM", "garbage", 10);
}

#[test]
fn silence_at_every_step_times_out() {
    for (step, name) in STEPS.into_iter().enumerate() {
        let server = server(step, linger);
        let outcome = run(&["--mails", "20", "--timeout", "300ms", "--server", &server]);
        outcome.assert_sent(10, 20);
        outcome.assert_row(name, "timed out", 10);
        assert!(outcome.elapsed < Duration::from_secs(3), "{:?}", outcome.elapsed);
    }
}

#[test]
fn a_slow_server_is_given_the_time_of_a_step() {
    let outcome = send_20(&server(2, |stream| {
        for byte in b"250-one\r\n250 by one\r\n" {
            stream.write_all(&[*byte]).unwrap();
            thread::sleep(Duration::from_millis(2));
        }
        Then::GoOn
    }));
    outcome.assert_sent(20, 20);
}

#[test]
fn a_reply_that_trickles_for_ever_times_out() {
    let server = server(3, |stream| {
        for byte in b"250-one\r\n".iter().cycle() {
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        Then::HangUp
    });
    let outcome = run(&["--mails", "20", "--timeout", "300ms", "--server", &server]);
    outcome.assert_sent(10, 20);
    outcome.assert_row("RCPT TO", "timed out", 10);
}

#[test]
fn a_server_that_does_not_read_times_out() {
    let server = server(4, |stream| {
        stream.write_all(b"354 go\r\n").unwrap();
        thread::sleep(Duration::from_secs(20));
        Then::HangUp
    });
    let arguments =
        ["--mails", "4", "--timeout", "300ms", "--body-size", "10000000", "--server", &server];
    let outcome = run(&arguments);
    outcome.assert_sent(2, 4);
    outcome.assert_row("body", "timed out", 2);
    assert!(outcome.elapsed < Duration::from_secs(10), "{:?}", outcome.elapsed);
}

#[test]
fn a_server_that_bungles_the_goodbye_has_the_mail() {
    send_20(&server(6, |_| Then::HangUp)).assert_sent(20, 20);
    send_20(&server(6, |stream| say(stream, "what?\r\n"))).assert_sent(20, 20);
}

#[test]
fn an_old_server_is_greeted_with_helo() {
    let outcome = send_20(&server(1, |stream| {
        stream.write_all(b"502 speak up\r\n").unwrap();
        let mut line = [0; 100];
        let count = stream.read(&mut line).unwrap();
        assert!(line[..count].starts_with(b"HELO "));
        stream.write_all(b"250 me\r\n").unwrap();
        Then::GoOn
    }));
    outcome.assert_sent(20, 20);
}

#[test]
fn a_killed_parent_leaves_no_sink() {
    let mut parent = Command::new(example())
        .args(["--mails", "10", "--delay", "30s"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let children = format!("/proc/{0}/task/{0}/children", parent.id());
    let sink = wait_for(|| {
        let children = fs::read_to_string(&children).ok()?;
        children.split_whitespace().next().map(str::to_owned)
    });
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_for(|| {
        // A process that has ended but that nobody has asked about is as good as gone.
        let status = fs::read_to_string(format!("/proc/{sink}/status")).unwrap_or_default();
        (status.is_empty() || status.contains("State:\tZ")).then_some(())
    });
}

/// Looks until there is something, for ten seconds at most.
fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it did not come");
        thread::sleep(Duration::from_millis(10));
    }
}
