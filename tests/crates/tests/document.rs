//! Holds `docs/crates.md` against what is tried here: a row for each crate that a test file names, and no others.

use std::{collections::BTreeMap, env, fmt::Write, fs, path::Path};

const DOCUMENT: &str = "../../docs/crates.md";
const BEGIN: &str = "<!-- what is tested -->\n";
const END: &str = "<!-- end of what is tested -->\n";

/// Dependencies that are no subject but serve the tests.
const TOOLS: [&str; 8] =
    ["bytes", "clap", "httpdate", "hyper-util", "pila", "rcgen", "rustix", "socket2"];

fn path(relative: impl AsRef<Path>) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn read(relative: impl AsRef<Path>) -> String {
    let path = path(relative);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What is said about a crate.
struct Trial {
    how: String,
    /// The names of the files that say so.
    files: Vec<String>,
}

fn test_files() -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(path("tests"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_string(), read(path)))
        .collect();
    files.sort();
    files
}

/// What the test files say they try, by crate.
fn trials() -> BTreeMap<String, Trial> {
    let mut trials = BTreeMap::<String, Trial>::new();
    for (file, text) in test_files() {
        for line in text.lines().map_while(|line| line.strip_prefix("//!")) {
            let Some(rest) = line.trim().strip_prefix("crate: ") else { continue };
            let (name, how) = rest
                .split_once(" | how: ")
                .unwrap_or_else(|| panic!("{file}: not `crate: NAME | how: TEXT` but {line:?}"));
            let new = || Trial { how: how.trim().to_string(), files: Vec::new() };
            trials.entry(name.trim().to_string()).or_insert_with(new).files.push(file.clone());
        }
    }
    trials
}

/// The versions that are built, and of a crate that is built in several the one that this package depends on.
fn versions() -> BTreeMap<String, String> {
    let lock = read("Cargo.lock");
    let field = |block: &str, name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name));
        let value = line.expect("packages have names and versions");
        value.trim_start_matches(" = ").trim_matches('"').to_string()
    };
    let blocks = || lock.split("[[package]]").skip(1);
    let ours = blocks().find(|block| field(block, "name") == "pila-crates").expect("it is built");
    let mut versions = BTreeMap::new();
    for block in blocks() {
        let (name, version) = (field(block, "name"), field(block, "version"));
        let is_meant = ours.contains(&format!("\"{name}\""))
            || ours.contains(&format!("\"{name} {version}\""));
        if is_meant || !versions.contains_key(&name) {
            versions.insert(name, version);
        }
    }
    versions
}

/// What this package depends on, as its manifest says, in one way or the other.
fn dependencies() -> Vec<String> {
    let mut dependencies = Vec::new();
    let mut is_list = false;
    for line in read("Cargo.toml").lines() {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']').replace("dev-dependencies", "dependencies");
            is_list = table == "dependencies";
            dependencies.extend(table.strip_prefix("dependencies.").map(str::to_string));
        } else if is_list && line.starts_with(|first: char| first.is_ascii_alphabetic()) {
            let name = line.split([' ', '.', '=']).next().expect("there is a first one");
            dependencies.push(name.to_string());
        }
    }
    dependencies
}

fn table() -> String {
    let versions = versions();
    let mut table = String::from("| crate | version | how | test |\n|---|---|---|---|\n");
    for (name, Trial { how, files }) in trials() {
        let version = versions.get(&name).unwrap_or_else(|| panic!("{name} is not built"));
        let link = |file| format!("[{file}](../tests/crates/tests/{file})");
        let links = files.iter().map(link).collect::<Vec<_>>().join(", ");
        writeln!(table, "| `{name}` | {version} | {how} | {links} |").unwrap();
    }
    table
}

#[test]
fn the_table_has_what_is_tried_and_nothing_else() {
    let document = read(DOCUMENT);
    let (before, rest) = document.split_once(BEGIN).expect("its place is marked");
    let (_, after) = rest.split_once(END).expect("its place is marked");
    let table = table();
    let written = format!("{before}{BEGIN}\n{table}\n{END}{after}");
    if env::var_os("PILA_WRITE_DOCS").is_some() {
        fs::write(path(DOCUMENT), written).unwrap();
    } else {
        assert!(
            written == document,
            "docs/crates.md does not say what is tried:\n{table}\nto write it: PILA_WRITE_DOCS=1 \
             cargo test --manifest-path tests/crates/Cargo.toml --test document"
        );
    }
}

#[test]
fn every_dependency_is_tried_or_a_tool() {
    let trials = trials();
    let is_untried = |name: &String| !trials.contains_key(name) && !TOOLS.contains(&&**name);
    let untried: Vec<_> = dependencies().into_iter().filter(is_untried).collect();
    assert!(untried.is_empty(), "no test file names {untried:?}");
}

#[test]
fn what_is_called_tested_is_in_every_run() {
    for (file, text) in test_files() {
        assert!(text.contains("#[test]"), "{file} has no test");
        let ignores = text.lines().any(|line| line.trim_start().starts_with("#[ignore"));
        assert!(!ignores, "{file} has tests that are left out");
    }
}

#[test]
fn no_crate_is_in_both_tables() {
    let document = read(DOCUMENT);
    let (_, others) = document.split_once(END).expect("its place is marked");
    for name in trials().keys() {
        assert!(!others.contains(&format!("\n| `{name}` |")), "{name} is tested, and is not");
    }
}
