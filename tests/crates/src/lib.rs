//! Crates that know nothing of pila, used from tasklets: the tests do that, a file for each crate or a few.
//!
//! A test file opens with what it shows, and names each crate that it tries in a line by itself:
//!
//! ```text
//! //! crate: httparse | how: reads slices, and asks for nothing
//! ```
//!
//! `tests/document.rs` holds these lines, the versions in `Cargo.lock` and the table of `docs/crates.md` together.
