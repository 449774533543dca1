//! The tables, as text for a terminal of 100 columns and as Markdown.

use std::time::Duration;

use crate::{
    race::Race,
    row::Row,
    survey::{Findings, Section, Setting},
};

/// A title, a width, and what a row has there.
type Column = (&'static str, usize, fn(&Row) -> String);

/// The columns, of which the first one is left-aligned.
const COLUMNS: [Column; 10] = [
    ("way", 18, name),
    ("sent", 7, |row| grouped(row.sent)),
    ("time", 9, |row| seconds(row.seconds)),
    ("mails/s", 9, |row| grouped(row.mails_per_second as u64)),
    ("at once", 9, |row| row.at_once.map_or("?".into(), grouped)),
    ("threads", 9, |row| grouped(row.threads)),
    ("memory", 10, |row| format!("{} MiB", grouped(row.peak_kib.div_ceil(1024)))),
    ("CPU", 9, |row| seconds(row.cpu_seconds)),
    ("lost", 7, |row| grouped(row.lost_updates)),
    ("lines", 7, |row| row.lines.to_string()),
];

/// How wide a line may be.
const WIDTH: usize = 100;

fn name(row: &Row) -> String {
    match row.address_space {
        Some(bytes) => format!("{}, {}", row.way, size(bytes)),
        None => row.way.to_string(),
    }
}

/// What all tables have in common.
pub(crate) fn head(setting: &Setting) -> String {
    format!("{}\n{}\n", setting.machine, setting.server)
}

/// The lines above a table's rows.
pub(crate) fn title(section: &Section) -> String {
    let mut lines = format!("\n{}\n\n", section.title());
    for (index, (title, width, _)) in COLUMNS.iter().enumerate() {
        lines += &cell(index, title, *width);
    }
    lines + "\n"
}

/// A row, and beneath it what there is to say about it.
pub(crate) fn row(row: &Row) -> String {
    let mut lines = String::new();
    for (index, (_, width, content)) in COLUMNS.iter().enumerate() {
        lines += &cell(index, &content(row), *width);
    }
    lines.push('\n');
    for remark in remarks(row) {
        lines += &wrapped(&remark, "    ! ", "      ");
    }
    lines
}

fn cell(index: usize, content: &str, width: usize) -> String {
    if index == 0 { format!("{content:<width$}") } else { format!("{content:>width$}") }
}

fn remarks(row: &Row) -> Vec<String> {
    let mut remarks = row.went_wrong.clone();
    if row.is_sample {
        let (mails, time) = (grouped(row.mails), long_time(row.time_of_all()));
        remarks.push(format!("a sample: all {mails} would take {time}"));
    }
    remarks
}

/// `text` in lines that fit.
fn wrapped(text: &str, first: &str, rest: &str) -> String {
    let (mut lines, mut line) = (String::new(), first.to_string());
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines += &line;
            lines.push('\n');
            line = rest.to_string();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line += word;
        is_empty = false;
    }
    lines + &line + "\n"
}

/// What became of the updates, in words.
pub(crate) fn race(race: &Race) -> String {
    let [increments, without, with, among] = [
        race.increments,
        race.lost_without_a_lock,
        race.lost_with_a_lock,
        race.lost_among_tasklets,
    ]
    .map(grouped);
    let threads = race.threads;
    format!(
        "\n{increments} times `sent += 1` on {threads} threads: {without} lost without a lock, {with} with one; \
         on {threads} tasklets: {among}\n"
    )
}

/// All of it in Markdown.
pub(crate) fn markdown(findings: &Findings) -> String {
    let Findings { setting, sections, race: outcome } = findings;
    let mut text = format!("{}. {}.\n", setting.machine, setting.server);
    for section in sections {
        let rows: Vec<_> = section.rows.iter().collect();
        text += &format!("\n**{}**\n\n{}", section.title(), markdown_rows(&rows));
    }
    text + &outcome.as_ref().map(race).unwrap_or_default()
}

/// These rows in Markdown, and beneath them what there is to say about them.
pub(crate) fn markdown_rows(rows: &[&Row]) -> String {
    let mut text = String::from("|");
    COLUMNS.iter().for_each(|(title, ..)| text += &format!(" {title} |"));
    text += "\n|---|";
    COLUMNS.iter().skip(1).for_each(|_| text += "---:|");
    text.push('\n');
    for row in rows {
        text.push('|');
        COLUMNS.iter().for_each(|(.., content)| text += &format!(" {} |", content(row)));
        text.push('\n');
    }
    let remarks = rows.iter().flat_map(|row| {
        remarks(row).into_iter().map(|remark| format!("- {}: {remark}\n", name(row)))
    });
    let remarks: String = remarks.collect();
    if remarks.is_empty() { text } else { format!("{text}\n{remarks}") }
}

/// `10,000` for 10000.
pub(crate) fn grouped(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.2} s")
}

fn long_time(time: Duration) -> String {
    match time.as_secs() {
        0..120 => format!("{} s", time.as_secs()),
        seconds @ 120..7200 => format!("{} min", (seconds + 30) / 60),
        seconds => format!("{} h", grouped((seconds + 1800) / 3600)),
    }
}

fn size(bytes: u64) -> String {
    match (bytes >> 20, bytes >> 30) {
        (mib, gib) if gib << 10 == mib => format!("{gib} GiB"),
        (mib, _) => format!("{mib} MiB"),
    }
}
