//! Tests that need a process of their own: what kills one, what is measured, what is set by the environment.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::{
    env, fs,
    process::{Command, Output},
};

/// A test of the running file, to be run again, alone, in a process of its own.
pub(crate) fn again(name: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env("PILA_TEST_CHILD", "1");
    // What the environment of the tests says must not matter.
    command.env_remove("RUST_BACKTRACE").env_remove("PILA_STACK_GUARD");
    // Under AddressSanitizer, let faults be what they are, and frames where they are.
    let options = "detect_leaks=0:handle_segv=0:handle_sigbus=0:detect_stack_use_after_return=0";
    command.env("ASAN_OPTIONS", options);
    command
}

/// Whether this process is the test's own.
pub(crate) fn is_child() -> bool {
    env::var_os("PILA_TEST_CHILD").is_some()
}

/// Runs `body` as the test `name` in a process of its own, which must succeed.
pub(crate) fn in_its_own_process(name: &str, body: impl FnOnce()) {
    if is_child() {
        return body();
    }
    let output = again(name).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    print!("{}", String::from_utf8_lossy(&output.stdout));
}

/// How a process ended and what it said.
pub(crate) fn text(output: &Output) -> String {
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\nstdout: {stdout}\nstderr: {stderr}", output.status)
}

/// A line of /proc/self/status, in bytes.
pub(crate) fn status(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// What the process has in memory, without page tables.
pub(crate) fn resident() -> usize {
    status("VmRSS:")
}
