//! The example that compares the ways to send mails: each sends all of them, what goes wrong is told, nothing is left
//! behind.
//!
//! It runs the example that `cargo test` has built beside the tests: `target/PROFILE/examples/send_mail`.
//!
//! Not under AddressSanitizer: most of the ways are not pila's, and what the others do there is done in other tests.

#![cfg(not(feature = "sanitizer"))]
#![allow(clippy::disallowed_methods, reason = "the servers here are plain threads")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use system::{Directory, Outcome, PATIENCE, Process, alone, example, finish, until};

mod system;

const WAYS: [&str; 9] = [
    "sequential",
    "threads",
    "locks",
    "pool",
    "events",
    "generators",
    "tasklets",
    "processes",
    "queues",
];

fn send_mail(arguments: &[&str]) -> Command {
    let mut command = example("send_mail");
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Outcome {
    finish(&mut send_mail(arguments), PATIENCE)
}

/// What it prints with `--json`.
#[track_caller]
fn json(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
}

/// The rows of one of the tables.
#[track_caller]
fn rows(findings: &Value, section: usize) -> Vec<Value> {
    findings["sections"][section]["rows"].as_array().expect("a table has rows").clone()
}

#[track_caller]
fn number(row: &Value, field: &str) -> u64 {
    row[field].as_u64().unwrap_or_else(|| panic!("{field} in {row}"))
}

/// What went wrong, one after the other.
fn complaints(row: &Value) -> String {
    let complaints = row["went_wrong"].as_array().unwrap().iter();
    complaints.map(|complaint| complaint.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_way_sends_each_mail_once_and_says_what_it_took() {
    let _alone = alone();
    let arguments = ["--mails", "30,60", "--delay", "1ms", "--workers", "2", "--json"];
    let outcome = run(&arguments);
    assert_eq!((outcome.status, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    let findings = json(&outcome);
    for (section, mails) in [(0, 30), (1, 60)] {
        let rows = rows(&findings, section);
        let names: Vec<_> = rows.iter().map(|row| row["way"].as_str().unwrap()).collect();
        assert_eq!(names, WAYS);
        for row in &rows {
            assert_eq!((number(row, "sent"), number(row, "came_twice")), (mails, 0), "{row}");
            assert_eq!(complaints(row), "", "{row}");
            let may_lose = row["way"] == "threads";
            assert!(number(row, "lost_updates") == 0 || may_lose, "{row}");
            assert!(number(row, "peak_kib") > 1000 && number(row, "lines") > 5, "{row}");
            assert!(row["seconds"].as_f64().unwrap() >= 0.007, "seven answers, 1 ms each: {row}");
            assert!(row["cpu_seconds"].as_f64().unwrap() > 0.0, "{row}");
        }
        let threads = |name: &str| {
            let row = rows.iter().find(|row| row["way"] == name).unwrap();
            number(row, "threads")
        };
        for on_one_thread in ["sequential", "events", "generators", "tasklets"] {
            assert_eq!(threads(on_one_thread), 1, "{on_one_thread}");
        }
        assert!(threads("threads") > 1 && threads("pool") > 1);
        assert!((2..=3).contains(&threads("queues")));
        // The parent and its two workers.
        assert_eq!(threads("processes"), 3);
    }
    let computing = &findings["sections"][2];
    assert_eq!((&computing["mails"], &computing["work"]), (&60.into(), &100.into()));
    assert!(rows(&findings, 2).iter().all(|row| row["sent"] == 60), "{computing}");
}

#[test]
fn without_a_lock_updates_are_lost_and_counted() {
    let _alone = alone();
    if thread::available_parallelism().unwrap().get() == 1 {
        return system::left_out("on one processor threads hardly ever meet");
    }
    // On a machine that is busy with other things two threads seldom run at the same time.
    for attempt in 1.. {
        let findings = json(&run(&["--way", "threads", "--mails", "10", "--delay", "0", "--json"]));
        let race = &findings["race"];
        assert_eq!((number(race, "threads"), number(race, "increments")), (8, 100_000));
        assert_eq!((number(race, "lost_with_a_lock"), number(race, "lost_among_tasklets")), (0, 0));
        if (1..100_000).contains(&number(race, "lost_without_a_lock")) {
            break;
        }
        assert!(attempt < 5, "{race}");
    }
}

#[test]
fn threads_that_reach_their_limit_say_so_and_the_others_go_on() {
    let _alone = alone();
    let arguments = ["--mails", "300", "--delay", "1ms", "--patience", "60s"];
    let arguments = [&arguments[..], &["--thread-limit", "128MiB", "--json"]].concat();
    let outcome = run(&arguments);
    assert_eq!(outcome.status, Some(0), "this is as it should be: {outcome:?}");
    let findings = json(&outcome);
    let (limited, others): (Vec<_>, Vec<_>) =
        rows(&findings, 0).into_iter().partition(|row| !row["address_space"].is_null());
    let [limited] = &limited[..] else { panic!("{limited:?}") };
    assert_eq!((&limited["way"], number(limited, "address_space")), (&"threads".into(), 128 << 20));
    assert!((1..300).contains(&number(limited, "sent")), "{limited}");
    assert!(complaints(limited).starts_with("can't start new thread: Resource temporarily"));
    assert_eq!(others.len(), WAYS.len());
    assert!(others.iter().all(|row| number(row, "sent") == 300), "{others:?}");
}

#[test]
fn sequential_stops_when_patience_ends_and_calls_it_a_sample() {
    let _alone = alone();
    let arguments = ["--way", "sequential", "--mails", "1000", "--patience", "300ms"];
    let outcome = run(&arguments);
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("    ! a sample: all 1,000 would take "), "{outcome:?}");
    let findings = json(&run(&[&arguments[..], &["--json"]].concat()));
    let row = &rows(&findings, 0)[0];
    assert!(row["is_sample"] == true && (1..1000).contains(&number(row, "sent")), "{row}");
}

/// The processes that `id` has started, and those that they have.
fn descendants(id: u32) -> Vec<u32> {
    let parent_of = |entry: &fs::DirEntry| {
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let rest = stat.rsplit(") ").next()?;
        let mut fields = rest.split(' ');
        let state = fields.next()?;
        let parent: u32 = fields.next()?.parse().ok()?;
        (state != "Z" && state != "X").then_some((id, parent))
    };
    let processes: Vec<_> =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| parent_of(&entry)).collect();
    let mut found = vec![id];
    let mut seen = 0;
    while let Some(&parent) = found.get(seen) {
        found.extend(
            processes.iter().filter(|process| process.1 == parent).map(|process| process.0),
        );
        seen += 1;
    }
    found.split_off(1)
}

/// How many descriptors a process has open.
fn descriptors(id: u32) -> usize {
    fs::read_dir(format!("/proc/{id}/fd")).map_or(0, Iterator::count)
}

/// Those of its descendants that have at least so many descriptors and were started by one of them: workers at work.
fn busy_workers(id: u32, least: usize) -> Vec<u32> {
    let children: Vec<_> = descendants(id);
    let grandchildren = children.iter().flat_map(|&child| descendants(child));
    grandchildren.filter(|&worker| descriptors(worker) >= least).collect()
}

fn kill(id: u32, signal: Signal) {
    kill_process(Pid::from_raw(id as i32).unwrap(), signal).unwrap();
}

/// Kills one of two workers with 200 mails each when `is_time` says so of its descriptors; returns the row.
#[track_caller]
fn kill_a_worker(is_time: impl Fn(usize) -> bool) -> Value {
    let arguments =
        ["--way", "processes", "--workers", "2", "--mails", "400", "--delay", "150ms", "--json"];
    let mut command = send_mail(&arguments);
    let mut process = Process::start(command.stdout(Stdio::piped()));
    let id = process.0.id();
    // All its mails are under way.
    let worker = until("a worker at work", PATIENCE, || busy_workers(id, 200).pop());
    until("the time to kill it", PATIENCE, || is_time(descriptors(worker)).then_some(()));
    kill(worker, Signal::KILL);
    let mut text = String::new();
    process.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    let findings: Value = serde_json::from_str(&text).unwrap();
    let row = rows(&findings, 0).remove(0);
    let twice = number(&row, "came_twice");
    assert_eq!(process.0.wait().unwrap().code(), Some(i32::from(twice > 0)), "{row}");
    assert_eq!((number(&row, "sent"), number(&row, "lost_updates")), (400, 0), "{row}");
    let complaints = complaints(&row);
    // On a busy machine it takes the killed process a while to end, and then there is no status yet.
    let death = ["has ended: signal: 9", "was ended: it closed its end of the channel"]
        .map(|end| format!("worker 'mails' (process {worker}) {end}"));
    assert!(death.iter().any(|death| complaints.contains(death)), "{complaints}");
    assert_eq!(complaints.contains(&format!("{twice} mails came twice")), twice > 0, "{row}");
    row
}

/// How many mails the dead worker had noted, and how many were sent again.
#[track_caller]
fn noted_and_again(row: &Value) -> (u64, u64) {
    let complaints = complaints(row);
    let (_, rest) = complaints.split_once("unanswered: ").expect("it says what was left");
    let numbers: Vec<u64> = rest.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [noted, 200, again] = numbers[..3] else { panic!("{complaints}") };
    (noted, again)
}

#[test]
fn the_share_of_a_worker_that_is_killed_is_done_again() {
    let _alone = alone();
    let row = kill_a_worker(|_| true);
    let (noted, again) = noted_and_again(&row);
    assert_eq!(noted + again, 200, "{row}");
    assert!(number(&row, "came_twice") <= again, "{row}");
}

#[test]
fn what_a_worker_had_sent_before_it_was_killed_is_not_sent_again() {
    let _alone = alone();
    // Whoever has closed its connection was noted long before, while it said goodbye.
    let row = kill_a_worker(|descriptors| descriptors < 120);
    let (noted, again) = noted_and_again(&row);
    assert!(noted >= 80 && noted + again == 200, "{row}");
    assert!(number(&row, "came_twice") <= again, "{row}");
}

#[test]
fn the_tables_fit_into_100_columns() {
    let _alone = alone();
    let arguments = ["--mails", "10,300", "--delay", "1ms", "--thread-limit", "128MiB"];
    let outcome = run(&arguments);
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    let widest = outcome.stdout.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{outcome:?}");
    for (title, rows) in [("10 mails\n", 10), ("300 mails\n", 10), (" are hashed\n", 5)] {
        let (_, table) = outcome.stdout.split_once(title).expect("each table has its title");
        let lines: Vec<_> = table.trim_start().split("\n\n").next().unwrap().lines().collect();
        assert!(lines[0].starts_with("way ") && lines[0].ends_with(" lines"), "{lines:?}");
        let is_row = |line: &&&str| !line.starts_with(' ') && !line.starts_with("way");
        assert_eq!(lines.iter().filter(is_row).count(), rows, "{lines:?}");
    }
}

#[test]
fn markdown_has_a_line_for_each_way() {
    let _alone = alone();
    let outcome = run(&["--mails", "10", "--delay", "0", "--way", "tasklets,pool", "--markdown"]);
    for way in ["tasklets", "pool"] {
        let row = outcome.stdout.lines().find(|line| line.starts_with(&format!("| {way} | 10 |")));
        assert_eq!(row.map(|row| row.matches('|').count()), Some(11), "{outcome:?}");
    }
}

#[test]
fn a_document_has_its_figures_put_between_its_marks() {
    let _alone = alone();
    let directory = Directory::new("document");
    let path = directory.join("document.md");
    let arguments = ["--mails", "10", "--delay", "0", "--way", "threads,tasklets"];
    let arguments = [&arguments[..], &["--into", path.to_str().unwrap()]].concat();
    let mark = |what: &str| format!("<!-- measured: {what} -->\nof old\n<!-- end -->\n");
    fs::write(&path, format!("one\n{}two\n{}three\n", mark("tasklets"), mark("race"))).unwrap();
    for _ in 0..2 {
        let outcome = run(&arguments);
        assert_eq!(outcome.status, Some(0), "{outcome:?}");
        let text = fs::read_to_string(&path).unwrap();
        let starts =
            ["one", "<!-- measured: tasklets -->", "", "| way |", "|---|", "| tasklets | 10 |"];
        let rest = ["", "<!-- end -->", "two", "<!-- measured: race -->", "", "100,000 times", ""];
        let expected = [&starts[..], &rest[..], &["<!-- end -->", "three"]].concat();
        assert_eq!(text.lines().count(), expected.len(), "{text}");
        for (line, start) in text.lines().zip(expected) {
            assert!(line.starts_with(start) && (line.is_empty() == start.is_empty()), "{text}");
        }
    }
    fs::write(&path, mark("computing")).unwrap();
    let outcome = run(&arguments);
    assert_eq!(outcome.status, Some(1));
    assert!(outcome.stderr.ends_with("nothing was measured of `computing`\n"), "{outcome:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), mark("computing"), "it is as it was");
}

#[test]
fn the_pictures_are_well_formed_and_show_every_way() {
    let _alone = alone();
    let directory = Directory::new("pictures");
    let (plot, terminal) = (directory.join("plot.svg"), directory.join("terminal.svg"));
    let [plot_name, terminal_name] = [&plot, &terminal].map(|path| path.to_str().unwrap());
    let arguments =
        ["--mails", "5,20", "--delay", "0", "--svg", plot_name, "--picture", terminal_name];
    let outcome = run(&arguments);
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    for path in [plot, terminal] {
        let text = fs::read_to_string(path).unwrap();
        let document = roxmltree::Document::parse(&text).unwrap();
        let nodes = || document.descendants();
        let words: String = nodes().filter_map(|node| node.text()).collect();
        assert!(WAYS.iter().all(|way| words.contains(way)), "{words}");
        let numbers = nodes().flat_map(|node| node.attributes()).map(|attribute| attribute.value());
        assert!(numbers.clone().count() > 20);
        assert!(numbers.into_iter().all(|value| !value.contains("NaN") && !value.contains("inf")));
    }
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_that_names_it() {
    let outcome = run(&["--mails", "1", "--way", "tasklets", "--svg", "/nowhere/plot.svg"]);
    assert_eq!(outcome.status, Some(1));
    assert!(outcome.stderr.starts_with("send_mail: /nowhere/plot.svg: "), "{outcome:?}");
}

#[test]
fn arguments_that_make_no_sense_are_errors_of_one_line() {
    for (arguments, complaint) in [
        (&["--way", "carrier-pigeons"][..], "the ways are sequential, threads, locks, pool"),
        (&["--mails", "0"], "'--mails <N>'"),
        (&["--mails", "many"], "'--mails <N>'"),
        (&["--delay", "soon"], "write 500ms or 2s"),
        (&["--thread-limit", "12"], "write 3GiB or 500MiB"),
        (&["--thread-limit", "1MiB"], "64MiB at least"),
        (&["--workers", "0"], "'--workers <N>'"),
        (&["--json", "--markdown"], "cannot be used with"),
        (&["--server", "nowhere"], "'--server <HOST:PORT>'"),
        (&["--hurry"], "unexpected argument '--hurry'"),
    ] {
        let outcome = run(arguments);
        assert_eq!((outcome.status, outcome.stdout.as_str()), (Some(2), ""), "{outcome:?}");
        assert!(outcome.stderr.starts_with("send_mail: "), "{outcome:?}");
        assert!(outcome.stderr.contains(complaint), "{complaint}: {outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    }
}

#[test]
fn where_no_server_is_it_says_so_at_once() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let outcome = run(&["--server", &address]);
    assert_eq!((outcome.status, outcome.stdout.as_str()), (Some(1), ""), "{outcome:?}");
    let complaint = format!("send_mail: there is no server at {address}: Connection refused");
    assert!(outcome.stderr.starts_with(&complaint), "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
}

/// A server of which every reply but those to the commands in `replies` is as it should be, and that never answers `""`.
fn server(replies: &'static [(&'static str, &'static str)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || converse(stream, replies));
        }
    });
    address
}

fn converse(stream: TcpStream, replies: &[(&str, &str)]) -> Option<()> {
    let lines = BufReader::new(stream.try_clone().ok()?).split(b'\n').map_while(Result::ok);
    let mut lines = lines.map(|line| String::from_utf8_lossy(&line).trim_end().to_string());
    let mut heard = "GREETING".to_string();
    loop {
        let verb = heard.split([' ', ':']).next()?.to_ascii_uppercase();
        let usual = match verb.as_str() {
            "GREETING" => "220 hi",
            "DATA" => "354 go on",
            "QUIT" => "221 bye",
            _ => "250 fine",
        };
        let reply = replies.iter().find(|(command, _)| *command == verb);
        let reply = reply.map_or(usual, |(_, reply)| reply);
        if !reply.is_empty() {
            write!(&stream, "{reply}\r\n").ok()?;
        }
        if verb == "DATA" && reply.starts_with('3') {
            lines.by_ref().find(|line| line == ".")?;
            heard = "TEXT".to_string();
        } else {
            heard = lines.next()?;
        }
    }
}

/// The three bodies: blocking, callbacks, `async`. The first one on pila's sockets and on std's.
const BODIES: &str = "tasklets,pool,events,generators";

/// What each of the bodies makes of that server.
#[track_caller]
fn each_body(replies: &'static [(&'static str, &'static str)], sent: u64, complaint: &str) {
    let _alone = alone();
    let address = server(replies);
    let arguments =
        ["--server", &address, "--way", BODIES, "--mails", "20", "--timeout", "500ms", "--json"];
    let outcome = run(&arguments);
    assert_eq!(outcome.status, Some(i32::from(sent != 20)), "{outcome:?}");
    for row in rows(&json(&outcome), 0) {
        assert_eq!((number(&row, "sent"), complaints(&row).as_str()), (sent, complaint), "{row}");
        assert_eq!(number(&row, "lost_updates"), 0, "{row}");
    }
}

#[test]
fn every_body_sends_to_somebody_elses_server() {
    each_body(&[], 20, "");
}

#[test]
fn every_body_says_helo_to_a_server_that_does_not_know_ehlo() {
    each_body(&[("EHLO", "502 what?")], 20, "");
}

#[test]
fn every_body_tells_what_the_server_rejects() {
    each_body(&[("RCPT", "550 nobody here")], 0, "RCPT TO: rejected 550: 20 mails");
    each_body(&[("TEXT", "452 no room")], 0, "body: rejected 452: 20 mails");
}

#[test]
fn no_body_waits_for_ever() {
    each_body(&[("GREETING", "")], 0, "greeting: timed out: 20 mails");
    each_body(&[("TEXT", "")], 0, "body: timed out: 20 mails");
}

#[test]
fn no_body_takes_garbage_for_an_answer() {
    each_body(&[("MAIL", "200")], 20, "");
    each_body(&[("MAIL", "hello")], 0, "MAIL FROM: garbage: 20 mails");
    each_body(&[("DATA", "250 what?")], 0, "DATA: garbage: 20 mails");
}

#[test]
fn without_descriptors_threads_fail_and_tasklets_wait_their_turn() {
    let _alone = alone();
    let mut command = Command::new("sh");
    let program = send_mail(&[]).get_program().to_owned();
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""]).arg(program).args([
        "--way",
        "threads,tasklets",
        "--mails",
        "200",
        "--delay",
        "50ms",
        "--json",
    ]);
    let outcome = finish(command.stdin(Stdio::null()), PATIENCE);
    assert_eq!(outcome.status, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("limit on descriptors allows 48 connections"), "{outcome:?}");
    let [threads, tasklets] = &rows(&json(&outcome), 0)[..] else { panic!("{outcome:?}") };
    assert!(
        complaints(threads).contains("connect: ") && number(threads, "sent") < 200,
        "{threads}"
    );
    assert_eq!((number(tasklets, "sent"), complaints(tasklets).as_str()), (200, ""), "{tasklets}");
}

/// Starts it with mails that take long, and waits until workers are at work; returns all processes there are then.
fn under_way() -> (Process, Vec<u32>) {
    let arguments = ["--way", "processes", "--workers", "2", "--mails", "100", "--delay", "10s"];
    let mut command = send_mail(&arguments);
    let process = Process::start(command.stdout(Stdio::null()).stderr(Stdio::piped()));
    let id = process.0.id();
    until("both workers at work", PATIENCE, || (busy_workers(id, 50).len() >= 2).then_some(()));
    let all = descendants(id);
    assert!(all.len() >= 4, "a sink, a sender and two workers: {all:?}");
    (process, all)
}

#[track_caller]
fn all_end(processes: &[u32]) {
    until("everyone ends", Duration::from_secs(20), || {
        let runs = |id: &u32| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            let rest = stat.rsplit(") ").next().unwrap_or_default();
            !rest.is_empty() && !rest.starts_with(['Z', 'X'])
        };
        (!processes.iter().any(runs)).then_some(())
    });
}

#[test]
fn ctrl_c_ends_it_and_all_it_has_started() {
    let _alone = alone();
    for signal in [Signal::INT, Signal::TERM] {
        let (mut process, others) = under_way();
        kill(process.0.id(), signal);
        process.ended(Duration::from_secs(20));
        let mut complaint = String::new();
        process.0.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
        assert_eq!(complaint, "send_mail: interrupted\n");
        assert_eq!(process.0.wait().unwrap().code(), Some(130));
        all_end(&others);
    }
}

#[test]
fn kill_leaves_nobody_behind() {
    let _alone = alone();
    let (mut process, others) = under_way();
    process.0.kill().unwrap();
    process.0.wait().unwrap();
    all_end(&others);
}
