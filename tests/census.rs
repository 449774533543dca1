//! `PILA_STACK_CENSUS=1`: how deep stacks were used, by the place where their tasklets were created.

use std::{
    hint::black_box,
    process::{self, Command, Output},
    thread,
};

use pila::{Builder, Channel, on_big_stack, run, schedule, tasklet};
use rerun::{again, is_child, text};

mod rerun;

const KIB: usize = 1 << 10;
const PAGE: usize = 4 * KIB;

/// Goes `bytes` deep and gives the lowest address that it has used.
fn fill(bytes: usize) -> usize {
    fn fill_to(end: usize) -> usize {
        let frame = black_box([1u8; 512]);
        let here = frame.as_ptr().addr();
        let lowest = if here > end { fill_to(end) } else { here };
        black_box(frame);
        lowest
    }
    let start = black_box(0u8);
    fill_to((&raw const start).addr() - bytes)
}

/// Runs the test `name` again with a census.
#[track_caller]
fn census(name: &str) -> Output {
    let output = again(name).env("PILA_STACK_CENSUS", "1").output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    output
}

/// A row of the table.
#[derive(PartialEq, Debug)]
struct Row {
    line: u32,
    depth: usize,
    rest: String,
}

/// The rows of the table, which is all that a process wrote to its standard error.
#[track_caller]
fn rows(output: &Output) -> Vec<Row> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut lines = stderr.lines();
    let header = lines.next();
    assert_eq!(header, Some("stacks, the deepest use by place of creation:"), "{}", text(output));
    let row = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let place = words[0].strip_prefix("tests/census.rs:").unwrap();
        let unit = match words[2] {
            "KiB" => KIB,
            "MiB" => KIB * KIB,
            other => panic!("{other}"),
        };
        let depth = (words[1].parse::<f64>().unwrap() * unit as f64) as usize;
        Row { line: place.parse().unwrap(), depth, rest: words[3..].join(" ") }
    };
    lines.map(row).collect()
}

/// Checks that `row` says `rest` of a use of `bytes`, to a page, as far as the frames below and above the filling allow.
#[track_caller]
fn assert_row(row: &Row, line: u32, bytes: usize, rest: &str) {
    assert_eq!((row.line, row.rest.as_str()), (line, rest), "{row:?}");
    // AddressSanitizer makes frames larger.
    let allowed = if cfg!(feature = "sanitizer") { 5 } else { 2 } * PAGE;
    assert!((bytes..bytes + allowed).contains(&row.depth), "{row:?} for {bytes} bytes");
}

#[test]
fn the_deepest_use_is_counted_for_each_place_of_creation() {
    let line = line!();
    if is_child() {
        for number in 0..1000 {
            tasklet(move || fill(if number == 500 { 100 * KIB } else { 10 * KIB }));
        }
        run();
        // It gets the stack that went so deep.
        tasklet(schedule);
        drop(Builder::new().stack_size(KIB * KIB).tasklet(|| fill(700 * KIB)).unwrap());
        run();
        return;
    }
    let output = census("the_deepest_use_is_counted_for_each_place_of_creation");
    let rows = rows(&output);
    assert_eq!(rows.len(), 3, "{}", text(&output));
    assert_row(&rows[0], line + 8, 700 * KIB, "of 1 MiB, 1 tasklet");
    assert_row(&rows[1], line + 3, 100 * KIB, "of 256 KiB, 1,000 tasklets");
    assert_row(&rows[2], line + 7, 0, "of 256 KiB, 1 tasklet");
}

#[test]
fn big_stacks_are_counted_where_they_are_asked_for() {
    let line = line!();
    if is_child() {
        for _ in 0..3 {
            tasklet(|| {
                fill(20 * KIB);
                on_big_stack(|| (fill(5000 * KIB), schedule())).unwrap();
            });
        }
        run();
        return;
    }
    let rows = rows(&census("big_stacks_are_counted_where_they_are_asked_for"));
    assert_eq!((rows[0].line, rows[0].rest.as_str()), (line + 5, "of 64 MiB, 3 calls"));
    // The table gives tenths of a MiB.
    assert!((5000 * KIB..5100 * KIB).contains(&rows[0].depth), "{rows:?}");
    assert_row(&rows[1], line + 3, 20 * KIB, "of 256 KiB, 3 tasklets");
}

#[test]
fn those_that_still_wait_at_the_end_are_counted() {
    let line = line!();
    if is_child() {
        let wait = |bytes: usize| {
            let nobody_sends = Channel::<()>::new();
            tasklet(move || (fill(bytes), nobody_sends.receive().is_ok()));
            run();
        };
        wait(50 * KIB);
        thread::spawn(move || wait(150 * KIB)).join().unwrap();
        return;
    }
    let rows = rows(&census("those_that_still_wait_at_the_end_are_counted"));
    assert_row(&rows[0], line + 4, 150 * KIB, "of 256 KiB, 2 tasklets");
    assert_eq!(rows.len(), 1);
}

#[test]
fn the_one_that_ends_the_process_is_counted() {
    let line = line!() + 2;
    if is_child() {
        let tasklet = tasklet(|| process::exit((fill(50 * KIB) == 0).into()));
        tasklet.join().unwrap();
    }
    let rows = rows(&census("the_one_that_ends_the_process_is_counted"));
    assert_row(&rows[0], line, 50 * KIB, "of 256 KiB, 1 tasklet");
}

#[test]
fn depths_are_those_that_the_tasklets_see_themselves() {
    let line = line!();
    if is_child() {
        for bytes in [30 * KIB, 77 * KIB, 200 * KIB] {
            let seen = move || {
                let start = black_box(0u8);
                println!("seen {}", (&raw const start).addr() - fill(bytes));
            };
            tasklet(seen);
            run();
        }
        return;
    }
    let output = census("depths_are_those_that_the_tasklets_see_themselves");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let seen = stdout.lines().filter_map(|line| line.split_once("seen ")?.1.parse().ok());
    let seen: usize = seen.max().unwrap();
    let rows = rows(&output);
    assert_row(&rows[0], line + 7, seen, "of 256 KiB, 3 tasklets");
}

#[test]
fn without_the_variable_nothing_is_counted() {
    if is_child() {
        tasklet(|| fill(100 * KIB));
        run();
        return;
    }
    let name = "without_the_variable_nothing_is_counted";
    let silent = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output));
    };
    silent(&mut again(name));
    silent(again(name).env("PILA_STACK_CENSUS", "0"));
}
