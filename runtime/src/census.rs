//! How deep stacks are used, by the place where their tasklets were created: a table at the end of the process, for whoever
//! sets `PILA_STACK_CENSUS=1`. It is what tells which size a stack needs.
//!
//! - A pool that is counted hands out stacks of zeros only. Whoever takes one back looks how far up the zeros go, and so
//!   does a thread's end with those that are still in use.
//! - Nobody else pays for it: a pool that is not counted has one flag to look at when a stack comes back.

use std::{
    collections::BTreeMap,
    env,
    fmt::{self, Display},
    io::{self, Write},
    panic::Location,
    sync::{Mutex, OnceLock, PoisonError},
};

use crate::{
    stack::{Size, Slot},
    thread_end,
};

/// All that was counted in this process.
static CENSUS: Mutex<Census> = Mutex::new(Census { rows: BTreeMap::new() });

/// Whether stacks are to be counted. The first to ask has the table printed when the process ends.
pub(crate) fn is_wanted() -> bool {
    static WANTED: OnceLock<bool> = OnceLock::new();
    *WANTED.get_or_init(|| {
        let wanted = env::var_os("PILA_STACK_CENSUS").is_some_and(|value| value == "1");
        if wanted {
            thread_end::at_process_end(print);
        }
        wanted
    })
}

/// Counts the use of the stack in `slot`.
pub(crate) fn count(place: &'static Location<'static>, user: User, slot: &Slot) {
    let key = Key { file: place.file(), line: place.line(), size: slot.size(), user };
    CENSUS.lock().unwrap_or_else(PoisonError::into_inner).add(key, slot.depth());
}

/// Writes the table. The system calls it, which no panic may reach.
extern "C" fn print() {
    let text = CENSUS.lock().unwrap_or_else(PoisonError::into_inner).to_string();
    // Where nobody listens there is nobody to tell.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// What a stack was used for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum User {
    Tasklet,
    /// A call on a larger stack.
    Call,
}

/// What is counted together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    file: &'static str,
    line: u32,
    size: usize,
    user: User,
}

#[derive(Clone, Copy, Default, Debug)]
struct Row {
    deepest: usize,
    count: u64,
}

#[derive(Debug)]
struct Census {
    rows: BTreeMap<Key, Row>,
}

impl Census {
    fn add(&mut self, key: Key, depth: usize) {
        let row = self.rows.entry(key).or_default();
        row.deepest = row.deepest.max(depth);
        row.count += 1;
    }
}

impl Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: Vec<_> = self.rows.iter().collect();
        // Those of one depth stay in the order of their places.
        rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.deepest));
        let lines: Vec<_> = rows.into_iter().map(|(key, row)| columns(key, row)).collect();
        if lines.is_empty() {
            return Ok(());
        }
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
        let widths = [0, 1, 2, 3].map(width);
        writeln!(f, "stacks, the deepest use by place of creation:")?;
        for [place, depth, size, count, user] in &lines {
            let [places, depths, sizes, counts] = widths;
            write!(f, "  {place:places$}  {depth:>depths$} of {size:>sizes$},")?;
            writeln!(f, " {count:>counts$} {user}")?;
        }
        Ok(())
    }
}

fn columns(key: &Key, row: &Row) -> [String; 5] {
    let user = match (key.user, row.count) {
        (User::Tasklet, 1) => "tasklet",
        (User::Tasklet, _) => "tasklets",
        (User::Call, 1) => "call",
        (User::Call, _) => "calls",
    };
    [
        format!("{}:{}", key.file, key.line),
        depth(row.deepest),
        Size(key.size).to_string(),
        in_thousands(row.count),
        user.to_owned(),
    ]
}

/// `12.4 KiB`, rounded up: a stack of that size is enough.
fn depth(bytes: usize) -> String {
    let (unit, name) = if bytes < 1 << 20 { (1 << 10, "KiB") } else { (1 << 20, "MiB") };
    let tenths = (bytes * 10).div_ceil(unit);
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// `10,000`.
fn in_thousands(number: u64) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", in_thousands(number / 1000), number % 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(file: &'static str, line: u32, size: usize, user: User) -> Key {
        Key { file, line, size, user }
    }

    #[test]
    fn the_table_is_aligned_and_the_deepest_comes_first() {
        let mut census = Census { rows: BTreeMap::new() };
        assert_eq!(census.to_string(), "");
        for depth in [3 << 10, 12_600, 8 << 10] {
            census.add(key("src/main.rs", 30, 256 << 10, User::Tasklet), depth);
        }
        census.add(key("src/main.rs", 7, 256 << 10, User::Tasklet), 102 << 10);
        census.add(key("src/parser/tree.rs", 112, 64 << 20, User::Call), 10 << 20);
        census.rows.get_mut(&key("src/main.rs", 30, 256 << 10, User::Tasklet)).unwrap().count =
            1_010_000;
        let expected = "\
stacks, the deepest use by place of creation:
  src/parser/tree.rs:112   10.0 MiB of  64 MiB,         1 call
  src/main.rs:7           102.0 KiB of 256 KiB,         1 tasklet
  src/main.rs:30           12.4 KiB of 256 KiB, 1,010,000 tasklets
";
        assert_eq!(census.to_string(), expected);
    }
}
