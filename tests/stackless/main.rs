//! What Stackless Python's own tests, and the traces of its scheduler, say about pila.
//!
//! - Each test stands for the tests of Stackless that its doc names: `/// Class.test, Class.test: what it pins`. Those
//!   whose name begins with `own` pin what no test of Stackless does.
//! - `docs/stackless.md` has a row for each of them; `conformance` holds the two together, both ways.

mod support;

mod between_threads;
mod channels;
mod conformance;
mod deadlocks;
mod grid;
mod kill;
mod matrix;
mod nested_run;
mod observers;
mod switch_trap;
mod switching;
mod tasklets;
mod threads;
mod throw;
mod traces;
