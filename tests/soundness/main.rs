//! Safe programs that try to use what is gone. Run them under AddressSanitizer as well: `.ci/run` does.
//!
//! - `roads` leaves a scope by every road, with tasklets in every state inside; `model` does so at random.
//! - `forgotten` loses handles, swaps them, leaks them in cycles.
//! - `thread_end` ends threads with scopes suspended in them, and `thread_locals` looks at thread-locals from inside.
//! - `kills` kills from destructors at every step of an unwinding.
//! - `sockets` uses them on another thread while their owner is killed.
//! - `callers` is code that the runtime calls, and which calls it back.

mod callers;
mod forgotten;
mod ground;
mod kills;
mod model;
mod roads;
mod sockets;
mod thread_end;
mod thread_locals;

use std::{
    env,
    process::{Command, Output},
};

/// Runs the test `name` of this binary again, alone, in a process of its own.
fn again(name: &str) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env("PILA_TEST_CHILD", "1").output().unwrap()
}

fn is_child() -> bool {
    env::var_os("PILA_TEST_CHILD").is_some()
}
