//! The examples as their readers run them: each prints what its header promises, and ends by itself.
//!
//! It runs what `cargo test` has built beside the tests: `target/PROFILE/examples/NAME`.

use std::{env, fs, path::Path, process::Command, sync::mpsc, thread, time::Duration};

/// What an example prints, without the spaces at the ends of lines. It must end within a minute.
#[track_caller]
fn output(name: &str, arguments: &[&str]) -> String {
    let test = env::current_exe().expect("a test knows its own path");
    let profile = test.ancestors().nth(2).expect("tests lie in PROFILE/deps");
    let example = profile.join("examples").join(name);
    let mut command = Command::new(&example);
    command.args(arguments);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(command.output()));
    let output = receiver
        .recv_timeout(Duration::from_secs(60))
        .unwrap_or_else(|_| panic!("{name} does not end"))
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo test` builds it", example.display()));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{name}: {}\n{errors}", output.status);
    let printed = String::from_utf8(output.stdout).expect("examples print UTF-8");
    printed.lines().map(|line| line.trim_end().to_string() + "\n").collect()
}

/// The last block of an example's header: what it says it prints.
#[track_caller]
fn promise(name: &str) -> String {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).with_extension("rs");
    let source = fs::read_to_string(path).expect("the example's source is there");
    let header: Vec<&str> = source.lines().map_while(|line| line.strip_prefix("//!")).collect();
    let is_prose = |line: &&str| line.starts_with(' ') && !line.starts_with("     ");
    let prose = header.iter().rposition(is_prose).expect("the header says what it is about");
    header[prose + 2..].iter().map(|line| line.get(5..).unwrap_or("").to_string() + "\n").collect()
}

#[track_caller]
fn assert_keeps_its_promise(name: &str) {
    assert_eq!(output(name, &[]), promise(name));
}

/// The one word of `text` that follows `before`, as a number.
#[track_caller]
fn number_after(text: &str, before: &str) -> u64 {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no {before:?} in\n{text}"));
    rest.split_whitespace().next().expect("a word").parse().expect("a number")
}

#[test]
fn family_lunch_keeps_its_promise() {
    assert_keeps_its_promise("family_lunch");
}

#[test]
fn producer_consumer_keeps_its_promise() {
    assert_keeps_its_promise("producer_consumer");
}

#[test]
fn dining_philosophers_keeps_its_promise() {
    assert_keeps_its_promise("dining_philosophers");
}

#[test]
fn tls_hello_keeps_its_promise() {
    assert_keeps_its_promise("tls_hello");
}

#[test]
fn game_of_tasklets_keeps_its_promise() {
    assert_keeps_its_promise("game_of_tasklets");
}

#[test]
fn game_of_tasklets_has_a_gun_of_period_thirty() {
    let gun = |generations: &str| -> Vec<String> {
        let printed = output("game_of_tasklets", &[generations]);
        printed.lines().take(4).map(|line| line.chars().take(22).collect()).collect()
    };
    assert_eq!(gun("30"), gun("60"));
    assert_ne!(gun("15"), gun("60"));
}

#[test]
fn hackysack_counts_every_kick() {
    let printed = output("hackysack", &["7", "12345"]);
    let kicks = |player| number_after(&printed, &format!("player {player}: "));
    assert_eq!((0..7).map(kicks).sum::<u64>(), 12_345);
    assert_eq!(printed.lines().count(), 8);
    assert!(printed.lines().last().is_some_and(|line| line.starts_with("12345 kicks in ")));
}

#[test]
fn hackysack_prints_the_tally_of_its_header() {
    let tally = |text: &str| text.lines().take(5).map(str::to_string).collect::<Vec<_>>();
    assert_eq!(tally(&output("hackysack", &[])), tally(&promise("hackysack")));
}

#[test]
fn sieve_keeps_its_promise() {
    assert_keeps_its_promise("sieve");
}

#[test]
fn sieve_finds_the_primes_below_a_thousand() {
    let printed = output("sieve", &["168"]);
    let (primes, end) = printed.trim_end().rsplit_once('\n').expect("several lines");
    let primes: Vec<u64> = primes.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let is_prime = |number: &u64| (2..*number).all(|divisor| !number.is_multiple_of(divisor));
    assert_eq!(primes, (2..1000).filter(is_prime).collect::<Vec<_>>());
    assert_eq!(end, "169 tasklets ended, 0 wait");
}

#[test]
fn digital_circuit_keeps_its_promise() {
    assert_keeps_its_promise("digital_circuit");
}

#[test]
fn digital_circuit_adds() {
    for (x, y) in [(0, 0), (1, 15), (5, 10), (8, 8), (11, 6), (15, 15)] {
        let printed = output("digital_circuit", &[&x.to_string(), &y.to_string()]);
        assert_eq!(number_after(&printed, &format!("{x} + {y} = ")), x + y, "{printed}");
    }
}

#[test]
fn thread_ring_keeps_its_promise() {
    assert_keeps_its_promise("thread_ring");
}

#[test]
fn thread_ring_ends_where_the_passes_end() {
    for passes in [0, 1, 502, 503, 1000] {
        let printed = output("thread_ring", &[&passes.to_string()]);
        assert_eq!(number_after(&printed, "tasklet "), passes % 503 + 1, "{printed}");
    }
}
