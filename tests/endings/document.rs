//! Holds `docs/endings.md` against what is seen.

use std::{env, fmt::Write, fs, path::Path};

use crate::{calls, matrix, names, places::PLACES};

const DOCUMENT: &str = "docs/endings.md";

/// Puts `lines` between the marks of `name`, which are comments of Markdown.
fn replace(document: &str, name: &str, lines: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->\n"));
    let (before, rest) = document.split_once(&begin).expect("its place is marked");
    let (_, after) = rest.split_once(&end).expect("its place is marked");
    format!("{before}{begin}\n{lines}\n{end}{after}")
}

/// The table, with the rows of `written` for what cannot be had here.
fn table_of_places(written: &str) -> String {
    let mut table = String::from(
        "| where it is | `kill` | `kill_later` | `timeout` | a destructor of it kills |\n",
    );
    table += "|---|---|---|---|---|\n";
    let seen = matrix::seen();
    for place in &PLACES {
        match seen.iter().find(|(name, _)| *name == place.name) {
            Some((name, cells)) => writeln!(table, "| {name} | {} |", cells.join(" | ")).unwrap(),
            None => {
                let begin = format!("| {} |", place.name);
                let row = written.lines().find(|line| line.starts_with(&begin));
                writeln!(table, "{}", row.expect("each place has a row")).unwrap();
            }
        }
    }
    table
}

#[test]
fn each_cell_of_the_matrix_is_what_the_document_says() {
    const NAME: &str = "document::each_cell_of_the_matrix_is_what_the_document_says";
    names::where_names_are_never_found(NAME, || {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
        let written = fs::read_to_string(&path).unwrap();
        let table = table_of_places(&written);
        let seen = replace(&written, "the matrix", &table);
        let seen = replace(&seen, "the calls", &calls::listed());
        if env::var_os("PILA_WRITE_DOCS").is_some() {
            fs::write(&path, seen).unwrap();
        } else {
            assert!(
                seen == written,
                "{DOCUMENT} does not say what was seen:\n{table}\n{}\n\
                 to write it: PILA_WRITE_DOCS=1 cargo test --test endings",
                calls::listed()
            );
        }
    });
}
