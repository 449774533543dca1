//! Child processes for which only the calling tasklet waits, and this one's own standard streams.
//!
//! [`Command`], [`Child`] and the ends of its pipes have the names, the signatures and the errors of their namesakes in
//! [`std::process`], so porting a program is changing its `use` lines.
//!
//! ```
//! use pila_net::process::Command;
//!
//! # fn main() -> std::io::Result<()> {
//! let output = Command::new("echo").arg("hello").output()?;
//! assert_eq!(output.stdout, b"hello\n");
//! # Ok(())
//! # }
//! ```
//!
//! # Layout
//!
//! - `exit.rs` – the end of a process, as something to wait for
//! - `pipe.rs` – our ends of a child's pipes
//! - `child.rs`, `command.rs` – std's face
//! - `stdio.rs` – the standard streams of this process
//! - `worker/` – with the feature `worker`: processes of the same program that handle requests

mod child;
mod command;
mod exit;
mod pipe;
mod stdio;
#[cfg(feature = "worker")]
mod worker;

pub use std::process::{
    CommandArgs, CommandEnvs, ExitCode, ExitStatus, Output, Stdio, Termination, abort, exit, id,
};

pub use child::Child;
pub use command::Command;
pub use pipe::{ChildStderr, ChildStdin, ChildStdout};
pub use stdio::{Stderr, Stdin, Stdout, stderr, stdin, stdout};
#[cfg(feature = "worker")]
pub use worker::{CallError, CallReason, Pool, Role, StartError, Worker, WorkerDied};
