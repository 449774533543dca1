//! What docs/debugging.md promises of debuggers, profilers and lints, tried with those that are installed.

mod live;
mod system;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use live::is_child;
use pila::{Builder, Channel, schedule, sleep, tasklet};
use system::{Directory, left_out, peer, tell};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// gdb, if it is here and may trace processes.
fn gdb() -> Option<Command> {
    let gdb = peer("gdb")?;
    let output = Command::new(&gdb).args(["-nx", "-q", "-batch", "-ex", "run", "true"]).output();
    if !text(&output.unwrap()).contains("exited normally") {
        left_out("gdb may not trace a process");
        return None;
    }
    let mut command = Command::new(gdb);
    command.args(["-nx", "-q", "-batch", "-iex", "set debuginfod enabled off"]);
    Some(command)
}

/// What gdb prints when it runs the test `name` of this file and stops in [`stop_here`] for `commands`.
fn debugged(mut gdb: Command, name: &str, commands: &[&str]) -> String {
    gdb.args(["-ex", "break debugging::stop_here", "-ex", "run"]);
    gdb.args(commands.iter().flat_map(|command| ["-ex", command]));
    gdb.arg("--args").arg(env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
    text(&gdb.env("PILA_TEST_CHILD", "1").env("PILA_STACK_GUARD", "mprotect").output().unwrap())
}

#[inline(never)]
fn stop_here() {
    std::hint::black_box(());
}

#[inline(never)]
fn work() {
    tasklet(|| ());
    stop_here();
    std::hint::black_box(());
}

#[inline(never)]
fn read_reply(channel: &Channel<u8>) {
    drop(std::hint::black_box(channel.receive()));
}

#[inline(never)]
fn main_waits(works: pila::Tasklet<()>) {
    std::hint::black_box(works.join()).unwrap();
}

/// Main waits for a tasklet that stops for the debugger, while others wait for other things.
fn stop_in_a_tasklet() {
    let channel = Channel::new();
    let theirs = channel.clone();
    Builder::new().name("mail").tasklet(move || read_reply(&theirs)).unwrap();
    tasklet(|| sleep(Duration::MAX));
    schedule();
    let works = Builder::new().name("works").tasklet(work).unwrap();
    main_waits(works);
    channel.close();
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer and gdb get in each other's way")]
fn gdb_goes_on_from_a_tasklet_into_the_loop_and_main() {
    const NAME: &str = "gdb_goes_on_from_a_tasklet_into_the_loop_and_main";
    if is_child() {
        return stop_in_a_tasklet();
    }
    let Some(gdb) = gdb() else { return };
    let printed = debugged(gdb, NAME, &["bt"]);
    let frames: Vec<_> = printed.lines().filter(|line| line.starts_with('#')).collect();
    let place = |name: &str| {
        let place = frames.iter().position(|line| line.contains(name));
        place.unwrap_or_else(|| panic!("no {name} in\n{printed}"))
    };
    let work = place("debugging::work");
    let the_loop = place("Scheduler::run_until_main");
    assert!(work < the_loop && the_loop < place("debugging::main_waits"), "{printed}");
}

#[test]
#[cfg_attr(not(all(debug_assertions, target_arch = "x86_64")), ignore = "needs full debug info")]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer and gdb get in each other's way")]
fn the_script_for_gdb_shows_suspended_tasklets() {
    const NAME: &str = "the_script_for_gdb_shows_suspended_tasklets";
    if is_child() {
        return stop_in_a_tasklet();
    }
    let Some(first) = gdb() else { return };
    let script = format!("source {}/docs/pila-gdb.py", env!("CARGO_MANIFEST_DIR"));
    let directory = Directory::new("gdb");
    let core = format!("gcore {}", directory.join("core").display());
    let commands = [&*script, "pila ls", "pila bt 1", "pila bt all", "pila bt 3", &*core];
    let live = debugged(first, NAME, &commands);
    let mut second = gdb().expect("it was there just now");
    second.args(["-ex", &script, "-ex", "pila ls", "-ex", "pila bt 1", "-ex", "pila bt all"]);
    second.arg(env::current_exe().unwrap()).arg(directory.join("core"));
    let dead = text(&second.output().unwrap());
    for printed in [&live, &dead] {
        for line in ["#0      'main' Join", "#1      'mail' Receive", "#2      Sleep"] {
            assert!(printed.contains(&format!("\n{line}\n")), "{printed}");
        }
        assert!(printed.contains("\n#4      Queued, not started\n"), "{printed}");
        assert!(printed.contains("\n#3      'works' Running\n"), "{printed}");
        let lines: Vec<_> = printed.lines().collect();
        let mail = lines.windows(2).position(|two| {
            two[0].starts_with("#1      'mail'") && two[1].contains("switch_yield")
        });
        let mail = &lines[mail.unwrap_or_else(|| panic!("{printed}"))..];
        let place = |name: &str| mail.iter().position(|line| line.contains(name)).expect(name);
        let (call, body) = (place(">::receive"), place("debugging::read_reply"));
        assert!(call < body && body < place("with_stack_unchecked"), "{printed}");
        assert!(printed.matches("debugging::read_reply").count() == 2, "{printed}");
        assert!(printed.contains("pila_runtime::time::sleep"), "{printed}");
    }
    assert!(live.contains("it runs, or it is main: see bt"), "{live}");
}

/// A package of one file, beside the tests, that may depend on pila.
fn package(name: &str, manifest: &str, source: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(path.join("src")).unwrap();
    let head = format!("[package]\nname = \"{name}\"\nedition = \"2024\"\n\n[workspace]\n\n");
    fs::write(path.join("Cargo.toml"), head + manifest).unwrap();
    fs::write(path.join("src/main.rs"), source).unwrap();
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock"), path.join("Cargo.lock")).unwrap();
    path
}

/// Cargo, in that package, without the network and without what the tests were built with.
fn cargo(package: &Path, command: &str) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.arg(command).args(["--offline", "--color=never"]).current_dir(package);
    cargo.env("CARGO_TARGET_DIR", package.join("target"));
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(variable);
    }
    cargo
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "it tests a program that is built without")]
fn perf_sees_tasklets_and_what_runs_them() {
    let Some(perf) = peer("perf") else { return };
    let pila = format!("[dependencies]\npila = {{ path = {:?} }}\n", env!("CARGO_MANIFEST_DIR"));
    let package = package("profiled", &pila, PROFILED);
    let data = package.join("perf.data");
    let record = |command: &mut Command| {
        let arguments = ["record", "-q", "-e", "cpu-clock", "--call-graph", "fp", "-o"];
        let output = Command::new(&perf)
            .args(arguments)
            .arg(&data)
            .arg("--")
            .arg(command.get_program())
            .output()
            .unwrap();
        (output.status.success(), text(&output))
    };
    if let (false, why) = record(&mut Command::new("true")) {
        return tell(&format!("LEFT OUT: perf may not measure here: {why}"));
    }
    let mut build = cargo(&package, "build");
    let output = build.env("RUSTFLAGS", "-Cforce-frame-pointers=yes").output();
    assert!(output.as_ref().unwrap().status.success(), "{}", text(&output.unwrap()));
    let (recorded, what) = record(&mut Command::new(package.join("target/debug/profiled")));
    assert!(recorded, "{what}");
    let arguments = ["script", "-F", "ip,sym", "--no-inline", "-i"];
    let samples = text(&Command::new(&perf).args(arguments).arg(&data).output().unwrap());
    let is_whole = |sample: &str| {
        let place = |name: &str| sample.find(name);
        let (computes, the_loop) = (place("profiled::compute"), place("Scheduler::leave_main"));
        computes.is_some() && computes < the_loop && the_loop < sample.rfind("profiled::main_waits")
    };
    let samples: Vec<_> = samples.split("\n\n").collect();
    let of_work = samples.iter().filter(|sample| sample.contains("profiled::compute"));
    let whole = samples.iter().filter(|sample| is_whole(sample)).count();
    assert!(whole > 5 && whole * 10 > of_work.count() * 9, "{whole} of {}", samples.len());
}

/// A tasklet that computes for a tenth of a second.
const PROFILED: &str = r#"
use std::{hint::black_box, time::{Duration, Instant}};

#[inline(never)]
fn compute() -> u64 {
    let (begun, mut sum) = (Instant::now(), 0_u64);
    while begun.elapsed() < Duration::from_millis(100) {
        for number in 0..100_000 {
            sum = black_box(sum ^ number);
        }
    }
    sum
}

#[inline(never)]
fn main_waits() {
    black_box(pila::tasklet(|| black_box(compute()))).join().unwrap();
}

fn main() {
    main_waits();
    black_box(());
}
"#;

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "it tests no code of this process")]
fn the_lints_for_users_name_calls_that_exist_and_find_them() {
    let package = package("linted", "", LINTED);
    let lints = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/clippy.toml");
    fs::copy(lints, package.join("clippy.toml")).unwrap();
    // Clippy would tell of a fresh package only.
    fs::remove_dir_all(package.join("target")).ok();
    let output = cargo(&package, "clippy").output().unwrap();
    let printed = text(&output);
    if printed.contains("no such command") || printed.contains("is not installed") {
        return left_out("clippy is not installed");
    }
    assert!(output.status.success(), "{printed}");
    // A path that does not lead to a function is a warning about the file itself.
    assert!(!printed.contains("clippy.toml"), "{printed}");
    let count = LINTED.matches("// found").count();
    assert_eq!(printed.matches("use of a disallowed").count(), count, "{printed}");
    assert!(
        printed.contains("it stops every tasklet of the thread: use `pila::sleep`"),
        "{printed}"
    );
}

/// What is found has a comment that says so.
const LINTED: &str = r#"
use std::{io::Read, net::{TcpListener, TcpStream, UdpSocket}, process::Command, sync, thread, time::Duration};

fn main() -> std::io::Result<()> {
    thread::sleep(Duration::from_millis(1)); // found
    thread::park(); // found
    thread::spawn(|| ()).join().unwrap(); // found
    let listener = TcpListener::bind("127.0.0.1:0")?; // found
    let mut stream = TcpStream::connect(listener.local_addr()?)?; // found
    stream.read_exact(&mut [0])?;
    let _socket = UdpSocket::bind("127.0.0.1:0")?; // found
    let _output = Command::new("true").output()?; // found
    let (sender, receiver) = sync::mpsc::channel();
    sender.send(1).unwrap();
    receiver.recv().unwrap(); // found
    let pair = (sync::Mutex::new(false), sync::Condvar::new());
    let guard = pair.0.lock().unwrap();
    drop(pair.1.wait(guard).unwrap()); // found
    Ok(())
}
"#;
