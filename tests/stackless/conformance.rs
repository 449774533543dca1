//! Holds `docs/stackless.md` and the tests together, so that neither can drift from the other.
//!
//! A row of the tables of behaviours reads `` | `name` | what it pins | mark | what holds it | ``. The mark is Y, P or
//! N: whether it maps to pila. What holds it are tests (`` `module::test` ``), or the words of the contract that
//! exclude it (`unlike: "..."`), or both where a test pins the difference, or for what has no meaning here the reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// How many rows there are of each mark: a row that goes is noticed.
const MARKED: [(Mark, usize); 3] = [(Mark::Yes, 235), (Mark::Partly, 52), (Mark::No, 52)];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Mark {
    Yes,
    Partly,
    No,
}

/// One row of the tables of behaviours.
#[derive(Debug)]
struct Row {
    /// The heading that it stands under.
    table: String,
    /// The tests of Stackless that it is about.
    names: Vec<String>,
    mark: Mark,
    /// Those of ours that hold it.
    tests: Vec<String>,
    /// The words that exclude it.
    unlike: Vec<String>,
    /// The whole last cell.
    verdict: String,
}

/// A test of ours, and the tests of Stackless that its doc names.
type Tests = BTreeMap<String, BTreeSet<String>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn document() -> String {
    read("docs/stackless.md")
}

/// What stands between two marks `around`, again and again.
fn quoted(text: &str, around: char) -> Vec<String> {
    text.split(around).skip(1).step_by(2).map(str::to_owned).collect()
}

/// The cells of a line of a table.
fn cells(line: &str) -> Option<Vec<&str>> {
    let line = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(line.split('|').map(str::trim).collect())
}

/// Whether `name` is one of ours, as `module::test`, and not a type's.
fn is_test(name: &str) -> bool {
    name.contains("::") && !name.contains(char::is_uppercase)
}

/// The rows of every table below the heading `Behaviours`.
fn rows(document: &str) -> Vec<Row> {
    let (_, behaviours) = document.split_once("\n## Behaviours\n").expect("the heading is there");
    let mut table = String::new();
    let mut rows = Vec::new();
    for line in behaviours.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            table = heading.to_owned();
        }
        let Some(cells) = cells(line).filter(|cells| cells[0].starts_with('`')) else { continue };
        let [names, _pins, mark, verdict] = cells[..] else { panic!("four cells: {line}") };
        rows.push(Row {
            table: table.clone(),
            names: quoted(names, '`'),
            mark: match mark {
                "Y" => Mark::Yes,
                "P" => Mark::Partly,
                "N" => Mark::No,
                other => panic!("a mark is Y, P or N, not {other}: {line}"),
            },
            tests: quoted(verdict, '`').into_iter().filter(|name| is_test(name)).collect(),
            unlike: match verdict.split_once("unlike: ") {
                Some((_, words)) => quoted(words, '"'),
                None => Vec::new(),
            },
            verdict: verdict.to_owned(),
        });
    }
    rows
}

/// Every test of the groups beside this file.
fn tests() -> Tests {
    let mut tests = Tests::new();
    for entry in fs::read_dir(root().join("tests/stackless")).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if ["main", "support", "conformance"].contains(&module.as_str()) {
            continue;
        }
        assert!(read("tests/stackless/main.rs").contains(&format!("mod {module};")), "{module}");
        let (mut doc, mut is_test) = (String::new(), false);
        for line in read(&path).lines() {
            if let Some(line) = line.strip_prefix("/// ") {
                doc = format!("{doc} {line}");
            } else if line == "#[test]" {
                is_test = true;
            } else if !line.starts_with("#[") {
                if let (true, Some(name)) = (is_test, function(line)) {
                    let (names, _) = doc.split_once(": ").unwrap_or_else(|| {
                        panic!("{module}::{name}: its doc does not name what it stands for")
                    });
                    let names = names.split(',').map(|name| name.trim().to_owned()).collect();
                    tests.insert(format!("{module}::{name}"), names);
                }
                (doc, is_test) = (String::new(), false);
            }
            assert!(
                !line.starts_with("#[ignore"),
                "{module}: a test that is ignored holds nothing"
            );
        }
    }
    tests
}

/// The name of the function that `line` begins.
fn function(line: &str) -> Option<&str> {
    line.strip_prefix("fn ")?.split('(').next()
}

/// What is wrong with a row.
fn faults(row: &Row, tests: &Tests, contract: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let name = row.names.join(", ");
    for test in &row.tests {
        match tests.get(test) {
            None => faults.push(format!("{name}: there is no test {test}")),
            Some(names) if !row.names.iter().any(|name| names.contains(name)) => {
                faults.push(format!("{name}: the doc of {test} does not name it"));
            }
            Some(_) => {}
        }
    }
    for words in &row.unlike {
        if !contract.contains(words.as_str()) {
            faults.push(format!("{name}: the contract does not say \"{words}\""));
        }
    }
    let is_settled = match row.mark {
        Mark::Yes => !row.tests.is_empty() || !row.unlike.is_empty(),
        Mark::Partly | Mark::No => !row.verdict.is_empty(),
    };
    if !is_settled {
        faults.push(format!("{name}: neither a test nor an exclusion"));
    }
    if row.names.len() > 1 && !row.tests.is_empty() {
        faults.push(format!("{name}: a row that tests hold is about one behaviour"));
    }
    faults
}

/// What is quoted from the contract, as one line.
fn contract(document: &str) -> String {
    let (_, from) = document.split_once("\n## On purpose unlike Stackless\n").expect("the heading");
    let (section, _) = from.split_once("\n## ").expect("another heading follows");
    section.lines().filter_map(|line| line.strip_prefix("> ")).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_document_and_the_tests_agree() {
    let (document, tests) = (document(), tests());
    let (rows, contract) = (rows(&document), contract(&document));
    let mut faults: Vec<_> = rows.iter().flat_map(|row| faults(row, &tests, &contract)).collect();

    let mut named = BTreeMap::new();
    for row in &rows {
        for name in &row.names {
            if named.insert(name, row).is_some() {
                faults.push(format!("{name} has two rows"));
            }
        }
    }
    for (test, names) in &tests {
        for name in names {
            if !named.get(name).is_some_and(|row| row.tests.contains(test)) {
                faults.push(format!("{test} is not in the row of {name}"));
            }
        }
    }
    for (mark, expected) in MARKED {
        let count = rows.iter().filter(|row| row.mark == mark).count();
        if count != expected {
            faults.push(format!("{count} rows are marked {mark:?}, which were {expected}"));
        }
    }
    assert!(faults.is_empty(), "docs/stackless.md and tests/stackless:\n{}", faults.join("\n"));

    tell(&rows);
}

/// Says how many behaviours are held: those of the rows that a test holds and nothing excludes.
fn tell(rows: &[Row]) {
    let (mut tables, mut unlike) = (BTreeMap::<&str, usize>::new(), 0);
    for row in rows.iter().filter(|row| !row.tests.is_empty()) {
        match row.unlike.is_empty() {
            true => *tables.entry(&row.table).or_default() += 1,
            false => unlike += 1,
        }
    }
    println!("{} behaviours of Stackless held", tables.values().sum::<usize>());
    println!("{unlike} more are on purpose unlike Stackless, and tests pin how");
    for (table, count) in tables {
        println!("  {count:3} {table}");
    }
}

/// Everything that is written in the sources of the face.
fn source() -> String {
    let mut source = String::new();
    for directory in ["runtime/src", "runtime/src/sync", "net/src"] {
        for entry in fs::read_dir(root().join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                source.push_str(&read(path));
            }
        }
    }
    source
}

/// Whether `source` declares the last part of `path`, as far as can be told without reading Rust: a function, a macro
/// or a field by its declaration, a type or a variant by its name.
fn declares(source: &str, path: &str) -> bool {
    let name = path.rsplit("::").next().unwrap_or(path);
    if name.starts_with(char::is_uppercase) {
        return source.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name);
    }
    let declarations =
        [format!("pub fn {name}("), format!("pub fn {name}<"), format!("pub {name}: ")];
    declarations.iter().any(|declaration| source.contains(declaration))
        || source.contains(&format!("macro_rules! {name} "))
}

/// Every name of pila that the tables of the document mention is in its source.
#[test]
fn the_document_names_what_there_is() {
    let (source, document) = (source(), document());
    let (tables, _) = document.split_once("\n## Behaviours\n").expect("the heading is there");
    let mut missing = Vec::new();
    for line in tables.lines().filter(|line| line.starts_with('|')) {
        let cells = cells(line).unwrap_or_else(|| panic!("a row ends with a bar: {line}"));
        let [_, here, _] = cells[..] else { panic!("three cells: {line}") };
        missing.extend(quoted(here, '`').into_iter().filter(|name| !declares(&source, name)));
    }
    assert!(missing.is_empty(), "docs/stackless.md names what is not there: {missing:?}");
}
