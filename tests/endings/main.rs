//! Every way to end a tasklet, wherever it is: what happens, and that nobody else is touched.
//!
//! - `matrix` ends a tasklet at each of `places` in each way, checks what must hold in all cases, and says what it saw.
//! - `calls` has a row for each call that waits, and ends it by a timeout.
//! - `document` holds `docs/endings.md` against both. `PILA_WRITE_DOCS=1 cargo test --test endings` writes it instead.
//! - `nesting` nests timeouts, shields and `catch_unwind` at random, and foresees what each wait does.
//! - `unwinding` shows what an ending that unwinds has in common with any panic of Rust.

#[path = "../net_support/mod.rs"]
mod net_support;

mod calls;
mod document;
mod matrix;
mod nesting;
mod places;
mod scene;
mod unwinding;

use std::{
    fs,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Descriptors are the process's: those who count them go one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many descriptors the process has open.
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}
