//! The example that serves on every core: each thread gets its share, and says so.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use system::{PATIENCE, Process, finish, stackless};

mod system;

/// So many that two threads get none of them as seldom as a coin shows heads 300 times.
const MAILS: u64 = 300;

#[test]
fn both_threads_get_connections_and_no_mail_is_lost() {
    let test = env::current_exe().unwrap();
    let example = test.parent().and_then(Path::parent).unwrap().join("examples/all_cores");
    let mut command = Command::new(example);
    command.args(["--address", "127.0.0.1:0", "--threads", "2"]).stdout(Stdio::piped());
    let mut server = Process::start(&mut command);
    let mut output = BufReader::new(server.0.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let address =
        line.strip_prefix("listening at ").and_then(|line| line.strip_suffix(" on 2 threads\n"));

    let mails = MAILS.to_string();
    let arguments = ["--server", address.unwrap(), "--mails", &mails, "--body-size", "1000"];
    finish(&mut stackless(arguments), PATIENCE).assert_sent(MAILS);

    kill_process(Pid::from_child(&server.0), Signal::INT).unwrap();
    let mut report = String::new();
    output.read_to_string(&mut report).unwrap();
    assert!(server.0.wait().unwrap().success());
    let counts: Vec<u64> = report
        .lines()
        .enumerate()
        .map(|(number, line)| {
            let rest = line.strip_prefix(&format!("thread {number}: ")).unwrap();
            rest.split(' ').next().unwrap().parse().unwrap()
        })
        .collect();
    assert!(counts.len() == 2 && counts.iter().all(|&count| count > 0), "{report}");
    assert_eq!(counts.iter().sum::<u64>(), MAILS, "{report}");
}
