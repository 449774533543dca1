//! Workers: processes of the same program that handle requests.
//!
//! - `codec.rs`, `wire.rs` – values as messages, messages as frames on a socket
//! - `badge.rs`, `serve.rs` – the worker's side: how it knows what it is, and what it does
//! - `error.rs`, `terms.rs`, `calls.rs` – what can go wrong, what was agreed on, who waits for what
//! - `peer.rs`, `hub.rs` – the caller's side: one worker, and all who wait for one or more of them
//! - `handle.rs`, `pool.rs`, `role.rs` – the public types

mod badge;
mod calls;
mod codec;
mod error;
mod handle;
mod hub;
mod peer;
mod pool;
mod role;
mod serve;
mod terms;
mod wire;

pub use error::{CallError, CallReason, StartError, WorkerDied};
pub use handle::Worker;
pub use pool::Pool;
pub use role::Role;
