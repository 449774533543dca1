//! Tasklets that wait: 100,000 and 1,000,000 of them. The time is that of making one, until it waits.
//!
//! - `pila`: each waits to receive from one channel.
//! - `pages`: the floor. A mapping as large as their stacks, in which one byte in each is written: what the kernel takes
//!   for the one page without which there is no stack.
//! - What each takes of memory while it waits, pages and page tables, is printed on standard error, and how long it takes
//!   to wake them all and see them end (with the floor: to unmap it). These are means over all samples. At the end all
//!   memory is given back, so each sample starts anew.
//!
//! ```text
//! cargo bench --bench idle
//! ```

mod settings;

use std::{
    cell::RefCell,
    fs,
    time::{Duration, Instant},
};

use criterion::BenchmarkId;
use memmap2::{Advice, MmapOptions};
use pila::Channel;

use crate::settings::in_rounds;

const SIZES: [usize; 2] = [100_000, 1_000_000];
/// What lies between two stacks of pila's, a guard page included.
const STRIDE: usize = 260 * 1024;

/// What one batch took, all in all.
#[derive(Default)]
struct Taken {
    make: Duration,
    end: Duration,
    resident: u64,
    page_tables: u64,
}

/// What this process has at the moment, in bytes.
struct Memory {
    resident: u64,
    page_tables: u64,
}

impl Memory {
    fn now() -> Memory {
        let status = fs::read_to_string("/proc/self/status").expect("this is Linux");
        let kib = |name| {
            let line = status.lines().find(|line| line.starts_with(name));
            let number = line.and_then(|line| line.split_whitespace().nth(1));
            number.and_then(|number| number.parse::<u64>().ok()).expect("Linux tells")
        };
        Memory { resident: kib("VmRSS:") * 1024, page_tables: kib("VmPTE:") * 1024 }
    }
}

/// Times `make` and then `end`, and looks at the memory in between.
fn measure<T>(make: impl FnOnce() -> T, end: impl FnOnce(T)) -> Taken {
    let before = Memory::now();
    let start = Instant::now();
    let made = make();
    let made_in = start.elapsed();
    let after = Memory::now();
    let start = Instant::now();
    end(made);
    Taken {
        make: made_in,
        end: start.elapsed(),
        resident: after.resident.saturating_sub(before.resident),
        page_tables: after.page_tables.saturating_sub(before.page_tables),
    }
}

fn tasklets(size: usize) -> Taken {
    let channel = Channel::<()>::new();
    let make = || {
        for _ in 0..size {
            let channel = channel.clone();
            pila::tasklet(move || channel.receive().is_err());
        }
        assert_eq!(pila::run().blocked, size);
    };
    let taken = measure(make, |()| {
        channel.close();
        assert_eq!(pila::run().finished, size);
    });
    pila::trim();
    taken
}

fn pages(size: usize) -> Taken {
    let make = || {
        let mut options = MmapOptions::new();
        let mut pages = options
            .len(size * STRIDE)
            .no_reserve_swap()
            .map_anon()
            .expect("the address space has room");
        pages.advise(Advice::NoHugePage).expect("Linux knows it");
        for place in 0..size {
            pages[(place + 1) * STRIDE - 1] = 1;
        }
        pages
    };
    measure(make, drop)
}

type Batch = fn(usize) -> Taken;

fn main() {
    let mut criterion = settings::criterion().sample_size(10);
    let mut group = criterion.benchmark_group("idle/make");
    let rows: [(_, Batch); 2] = [("pila", tasklets), ("pages", pages)];
    for size in SIZES {
        for (row, batch) in rows {
            let all = RefCell::new(Vec::new());
            group.bench_function(BenchmarkId::new(row, size), |bencher| {
                bencher.iter_custom(|made| {
                    in_rounds(made, size, |batches| {
                        let taken: Vec<_> = (0..batches).map(|_| batch(size)).collect();
                        let time = taken.iter().map(|taken| taken.make).sum();
                        all.borrow_mut().extend(taken);
                        time
                    })
                });
            });
            tell(&all.into_inner(), size);
        }
    }
    group.finish();
    criterion.final_summary();
}

fn tell(all: &[Taken], size: usize) {
    let each = |total: u64| total / (all.len() * size).max(1) as u64;
    if !all.is_empty() {
        eprintln!(
            "each: {} B resident, {} B of page tables; ended in {} ns",
            each(all.iter().map(|taken| taken.resident).sum()),
            each(all.iter().map(|taken| taken.page_tables).sum()),
            each(all.iter().map(|taken| taken.end.as_nanos() as u64).sum()),
        );
    }
}
