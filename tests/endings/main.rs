//! Every way to end a tasklet, wherever it is: what happens, and that nobody else is touched.
//!
//! - `matrix` ends a tasklet at each of `places` in each way, checks what must hold in all cases, and says what it saw.
//! - `calls` has a row for each call that waits, and ends it by a timeout and by a kill; `outside` has those that wait for
//!   what is no tasklet, `secured` those of TLS, and `names` a place where names are looked up for ever.
//! - `document` holds `docs/endings.md` against both. `PILA_WRITE_DOCS=1 cargo test --test endings` writes it instead.
//! - `nesting` nests timeouts, shields and `catch_unwind` at random, and foresees what each wait does.
//! - `unwinding` shows what an ending that unwinds has in common with any panic of Rust.

#[path = "../net_support/mod.rs"]
mod net_support;
#[allow(dead_code, reason = "there are tests that let names be found")]
#[path = "../resolver/mod.rs"]
mod resolver;
#[path = "../system/mod.rs"]
mod system;

mod calls;
mod document;
mod matrix;
mod names;
mod nesting;
mod outside;
mod places;
mod scene;
mod secured;
mod unwinding;

use std::{
    fs,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use pila::{Signal, net::TcpListener, signals, sleep, timeout};

/// Descriptors are the process's: those who count them go one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many descriptors the process has open.
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Fails when there are not so many again: what threads and name servers have open ends a moment after them.
#[track_caller]
fn assert_back_at(before: usize) {
    let begun = Instant::now();
    while descriptors() != before && begun.elapsed() < Duration::from_secs(5) {
        sleep(Duration::from_millis(1));
    }
    assert_eq!(descriptors(), before, "descriptors were leaked");
}

/// Makes what stays: with the thread its poller, and with the process what it hears signals with.
fn warm_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    timeout(Duration::ZERO, || listener.accept()).unwrap_err();
    drop(signals([Signal::USER2]).unwrap());
    names::ask();
}
