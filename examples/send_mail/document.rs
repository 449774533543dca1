//! Documents that quote what is measured: every figure stands between two marks, and is put there by the program.
//!
//! `<!-- measured: threads, locks -->` is followed by those rows of the last table without computing, `<!-- measured: all
//! -->` by all tables, `<!-- measured: computing -->` by the table with it, `<!-- measured: race -->` by what became of the
//! updates; and each by `<!-- end -->`.

use std::{fs, io, path::Path};

use crate::{
    survey::{Findings, Section},
    table,
};

const BEGIN: &str = "<!-- measured: ";
const END: &str = "<!-- end -->";

/// Writes the document anew, with what was found.
pub(crate) fn refresh(path: &Path, findings: &Findings) -> io::Result<()> {
    let text = fs::read_to_string(path)?;
    fs::write(path, refreshed(&text, findings)?)
}

fn refreshed(text: &str, findings: &Findings) -> io::Result<String> {
    let mut new = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        new += line;
        new.push('\n');
        let Some(what) = line.strip_prefix(BEGIN) else { continue };
        let what = what.strip_suffix(" -->").unwrap_or(what);
        new += &format!("\n{}\n{END}\n", quote(what, findings)?.trim_start());
        if !lines.any(|line| line == END) {
            return Err(io::Error::other(format!("after `{line}` there is no `{END}`")));
        }
    }
    Ok(new)
}

/// What stands for `what`.
fn quote(what: &str, findings: &Findings) -> io::Result<String> {
    let of_kind = |computes: bool| {
        let is_it = |section: &&Section| (section.work > 0) == computes;
        findings.sections.iter().rev().find(is_it)
    };
    let rows = |section: &Section, ways: &str| {
        let ways: Vec<_> = ways.split(", ").collect();
        let rows = section.rows.iter().filter(|row| ways.contains(&row.way)).collect::<Vec<_>>();
        (!rows.is_empty()).then(|| table::markdown_rows(&rows))
    };
    let quoted = match what {
        "all" => Some(table::markdown(findings)),
        "race" => findings.race.as_ref().map(table::race),
        "computing" => {
            of_kind(true).map(|s| table::markdown_rows(&s.rows.iter().collect::<Vec<_>>()))
        }
        ways => of_kind(false).and_then(|section| rows(section, ways)),
    };
    quoted.ok_or_else(|| io::Error::other(format!("nothing was measured of `{what}`")))
}
