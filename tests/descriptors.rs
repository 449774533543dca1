//! Running out of descriptors, as seen from outside: everything still gets done, and nothing spins meanwhile.

use std::{
    env,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net,
    process::{Command, Stdio},
    time::Duration,
};

use pila::net::TcpListener;
use rustix::process::{Resource, getrlimit, setrlimit};
use system::{Outcome, PATIENCE, Process, alone, finish, stackless, tell};

mod system;

const MAILS: u64 = 2_000;

/// How long the sink takes to greet. So most of the time there is nothing to do but wait for a descriptor.
const DELAY: &str = "--delay=20ms";

/// Sends the mails with what `shell` leaves of the descriptors.
fn send_after(shell: &str) -> Outcome {
    let example = stackless([] as [&str; 0]);
    let script = format!("{shell}\nexec \"$0\" --mails {MAILS} {DELAY} --body-size 1000");
    // bash, because dash knows no descriptors above 9.
    let mut command = Command::new("bash");
    command.args(["-c", &script]).arg(example.get_program());
    finish(&mut command, PATIENCE)
}

#[test]
fn waiting_for_descriptors_takes_no_processor_time() {
    let _alone = alone();
    let plenty = send_after("");
    plenty.assert_sent(MAILS);

    // The example asks for no more than the limit allows.
    let few = send_after("ulimit -n 64");
    few.assert_sent(MAILS);
    assert!(few.number_before(" at once") <= 64, "{few:?}");

    // It asks for more than it can have, for others hold 30 of them: connecting fails until a mail has ended.
    let taken: String = (10..40).map(|number| format!("exec {number}</dev/null\n")).collect();
    let fewer = send_after(&format!("{taken}ulimit -n 64"));
    fewer.assert_sent(MAILS);
    assert!(fewer.number_before(" at once") < 34, "{fewer:?}");

    for scarce in [&few, &fewer] {
        // Two ticks: the time of a short run is not known better than that.
        let bound = 3 * plenty.cpu + Duration::from_millis(20);
        assert!(
            scarce.cpu <= bound,
            "{:?} of processor time, not {bound:?}: {scarce:?}",
            scarce.cpu
        );
    }
    tell(&format!(
        "descriptors: {:?} CPU with plenty, {:?} with 64, {:?} with 34 of which in {:?}, {:?}, {:?}",
        plenty.cpu, few.cpu, fewer.cpu, plenty.elapsed, few.elapsed, fewer.elapsed
    ));
}

/// Runs the example's sink after `shell`, sends it the mails with all descriptors there are, and returns the processor
/// time the sink took.
fn receive_after(shell: &str) -> Duration {
    let example = stackless([] as [&str; 0]);
    let script = format!("{shell}\nexec \"$0\" --sink \"$1\"");
    let order = serde_json::json!({
        "mails": MAILS,
        "body_size": 1000,
        "greeting_delay": Duration::from_millis(20),
        "reply_delay": Duration::ZERO,
    });
    let mut command = Command::new("bash");
    command.args(["-c", &script]).arg(example.get_program()).arg(order.to_string());
    let mut sink = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut output = BufReader::new(sink.0.stdout.take().expect("it is a pipe"));
    let mut address = String::new();
    output.read_line(&mut address).unwrap();

    let mails = MAILS.to_string();
    let arguments = ["--server", address.trim(), "--mails", &mails, "--body-size", "1000"];
    finish(&mut stackless(arguments), PATIENCE).assert_sent(MAILS);
    drop(sink.0.stdin.take());
    let mut report = String::new();
    output.read_to_string(&mut report).unwrap();
    assert!(
        report.starts_with(&format!("{MAILS} once, 0 missing, 0 doubled, 0 damaged")),
        "{report}"
    );
    sink.ended(PATIENCE)
}

#[test]
fn accepting_without_descriptors_takes_no_processor_time() {
    let _alone = alone();
    let plenty = receive_after("");
    // All 2,000 are in the backlog at once, and accepting the next fails until a client has gone.
    let few = receive_after("ulimit -n 64");
    let bound = 3 * plenty + Duration::from_millis(20);
    assert!(few <= bound, "{few:?} of processor time, not {bound:?}");
    tell(&format!("descriptors of the sink: {plenty:?} CPU with plenty, {few:?} with 64"));
}

/// Tells a second run of this file's tests that it has a process of its own, whose limits it may change.
const OWN_PROCESS: &str = "PILA_TEST_OWN_PROCESS";

/// Opens files until no descriptor is left.
fn take_all_descriptors() -> Vec<File> {
    let few = rustix::process::Rlimit { current: Some(64), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, few).unwrap();
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[test]
fn connections_that_took_the_last_descriptors_are_served() {
    const NAME: &str = "connections_that_took_the_last_descriptors_are_served";
    if env::var_os(OWN_PROCESS).is_none() {
        let _alone = alone();
        let mut command = Command::new(env::current_exe().unwrap());
        let outcome = finish(command.args([NAME, "--exact"]).env(OWN_PROCESS, "1"), PATIENCE);
        assert_eq!(outcome.status, Some(0), "{}", outcome.stdout);
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // All are in the backlog before the first is accepted, so accepting has never had to wait.
    let mut clients: Vec<_> = (0..3).map(|_| net::TcpStream::connect(address).unwrap()).collect();
    let mut streams = vec![listener.accept().unwrap().0];
    let mut taken = take_all_descriptors();
    taken.truncate(taken.len() - 2);
    streams.extend((0..2).map(|_| listener.accept().unwrap().0));
    assert!(File::open("/dev/null").is_err());

    let readers: Vec<_> = streams
        .into_iter()
        .map(|mut stream| pila::tasklet(move || stream.read(&mut [0; 16])))
        .collect();
    // Now all of them wait.
    pila::schedule();
    for client in &mut clients {
        client.write_all(b"hello").unwrap();
    }
    for reader in readers {
        assert_eq!(reader.join().unwrap().unwrap(), 5);
    }
}
