//! Programs built with `panic = "abort"`: they run, and what would have to unwind says that it cannot.
//!
//! The program is `panic_abort/program.rs`, in a package of its own that is made here: a profile's `panic` is that of all
//! packages of a build. It takes the versions of this workspace.

#![cfg_attr(feature = "sanitizer", allow(dead_code, unused_imports))]

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

const ABORTED: Option<i32> = Some(6);

const NO_UNWINDING: &str =
    "nothing unwinds in a program built with panic = \"abort\"; build it with panic = \"unwind\"";

/// Builds the program once.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("panic_abort");
        let manifest = format!(
            r#"
                [workspace]

                [package]
                name = "program"
                edition = "2024"

                [[bin]]
                name = "program"
                path = {source:?}

                [dependencies]
                pila = {{ path = {root:?} }}

                [profile.dev]
                panic = "abort"
                debug = false
            "#,
            source = root.join("tests/panic_abort/program.rs"),
        );
        fs::create_dir_all(&package).unwrap();
        fs::write(package.join("Cargo.toml"), manifest).unwrap();
        fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock")).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "-q", "--offline"]).current_dir(&package);
        let built = cargo.env("CARGO_TARGET_DIR", package.join("target")).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        package.join("target/debug/program")
    })
}

fn play(part: &str) -> Output {
    Command::new(program()).arg(part).env("RUST_BACKTRACE", "0").output().unwrap()
}

/// What a part that ends well prints.
#[track_caller]
fn said(part: &str) -> Vec<String> {
    let output = play(part);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// What a part that aborts prints, but for the line that says where.
#[track_caller]
fn last_words(part: &str) -> Vec<String> {
    let output = play(part);
    assert_eq!(output.status.signal(), ABORTED, "{output:?}");
    let errors = String::from_utf8(output.stderr).unwrap();
    let words = errors.lines().filter(|line| !line.is_empty() && !line.starts_with("note: "));
    let mut words: Vec<_> = words.map(str::to_owned).collect();
    assert!(words[0].starts_with("thread 'main' "), "{errors}");
    words.remove(0);
    words
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "it is built without the sanitizer")]
fn ordinary_programs_run_as_ever() {
    assert_eq!(
        said("ordinary"),
        ["55 42 6 true", "deadlock: nothing can run, and nothing outside can wake anyone"]
    );
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "it is built without the sanitizer")]
fn a_kill_ends_what_has_not_started_and_says_that_it_cannot_end_the_rest() {
    let cannot = |who: &str| format!("{who} has started and cannot be ended: {NO_UNWINDING}");
    let expected = [
        "unstarted: Ok(())".into(),
        "unstarted, later: Ok(())".into(),
        "it ended: the tasklet was killed, true".into(),
        cannot("started: tasklet 'waits' (#3)"),
        cannot("started, later: tasklet 'waits' (#3)"),
        "left by kill_all: 1".into(),
        "it went on".into(),
        cannot("itself: tasklet #4"),
        "blocked: 0".into(),
    ];
    assert_eq!(said("kill"), expected);
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "it is built without the sanitizer")]
fn a_timeout_says_at_once_that_it_cannot_end_anything() {
    let expected = format!("timeout cannot end its closure: {NO_UNWINDING}");
    assert_eq!(last_words("timeout"), [expected]);
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "it is built without the sanitizer")]
fn a_scope_that_cannot_go_on_says_why_and_that_it_cannot_end_its_tasklets() {
    let cannot = format!("a scope cannot end its tasklets, which could not go on: {NO_UNWINDING}");
    let words = last_words("scope of one that waits for ever");
    assert_eq!(
        words[..3],
        [
            cannot.as_str(),
            "deadlock: nothing can run, and nothing outside can wake anyone",
            "  'main' (#0): waits for the tasklets of its scope to end",
        ]
    );
    assert!(words[3].contains("waits for a sender on channel 1 (created at "), "{words:?}");

    let words = last_words("no_switch");
    assert_eq!((words.len(), &words[0]), (2, &cannot));
    assert!(words[1].starts_with("the no_switch guard made at "), "{words:?}");
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "it is built without the sanitizer")]
fn a_scope_ends_its_tasklets_that_have_not_started() {
    let words = last_words("scope of one that never starts");
    let expected = "the tasklets of a scope could not go on and were ended: deadlock: nothing can run, and nothing \
                    outside can wake anyone";
    assert_eq!(words[0], expected);
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "it is built without the sanitizer")]
fn a_scope_with_a_tasklet_that_finds_no_stack_says_so() {
    let words = last_words("scope of one without a stack");
    assert_eq!(words.len(), 2, "{words:?}");
    assert!(words[0].starts_with("a tasklet of the scope, created at "), "{words:?}");
    assert!(words[0].contains(": no stack for another tasklet, "), "{words:?}");
    assert_eq!(words[1], format!("a scope cannot end its other tasklets: {NO_UNWINDING}"));
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "it is built without the sanitizer")]
fn a_panic_is_the_end_as_in_any_such_program() {
    let words = last_words("scope of one that panics");
    assert_eq!((words.len(), &*words[0]), (2, "no way"), "{words:?}");
    assert!(words[1].starts_with("in tasklet #1 (created at "), "{words:?}");
}
