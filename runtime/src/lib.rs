//! The runtime of pila: tasklets, time and channels on one thread. It knows no sockets: those are in `pila-net`.
//!
//! Programs use it through the package `pila`.
//!
//! # Layout
//!
//! Each module uses only those above it.
//!
//! - `wake`: the vocabulary of waiting: who waits, for what, and the ticket that wakes it.
//! - `run_queue`, `wait_list`, `timer`, `locals`, `packets`: who runs next, who waits for one thing, who waits for a time,
//!   what a tasklet keeps for itself, what one leaves for the next. Pure data.
//! - `report`, `error`: what is told when nothing can run or an operation fails.
//! - `stack`, `context`: guarded stacks, and the switch between them.
//! - `walk`, `backtrace`: where a tasklet is.
//! - [`driver`], `mailbox`: what the scheduler asks of the outside world, and what other threads tell it.
//! - `thread_end`, `overflow`, `census`: a thread's end, seen before its thread-locals go; a stack's, told before the process
//!   dies; how deep stacks were used.
//! - `table`, `state`, `scheduler`, `ending`, `current`: the tasklets, what becomes of them, the loop, how they are ended,
//!   and whose loop it is.
//! - `alarm`: what wakes a call of `block_on`.
//! - [`park`]: the only door through which anything waits.
//! - `packet`: a tasklet's closure and its result.
//! - `tasklet`, `observers`, `exchange`, `channel`, `no_switch`, `select`, `time`, `big_stack`, `memory`, [`sync`], `task_local`: what
//!   users call.
//! - `pulse`, `roster`, `stall_signal`: how those who look at all threads know one.
//! - `dump`, `panic_hook`, `stall`: what is told of tasklets, and of those that hold up the others.
//! - `thread`, `sides`, `thread_queue`, `offload`: what works between threads.
//! - `block_on`: futures.
//! - `signal`, `herald`, `signals`: signals of the system, and who hears them.
//! - `group`: tasklets that are stopped together.
//! - `dump_signal`: dumps on a signal.

mod wake;

mod locals;
mod packets;
mod run_queue;
mod timer;
mod wait_list;

mod report;

mod error;

mod frame;

mod context;
mod stack;

mod backtrace;
mod walk;

mod census;
pub mod driver;
mod mailbox;
mod overflow;
mod thread_end;

mod pulse;
mod roster;
mod stall_signal;

mod ending;
mod scheduler;
mod scopes;
mod state;
mod table;

mod current;

mod alarm;
pub mod park;

mod packet;
mod tasklet;

mod observers;

mod big_stack;
mod channel;
mod exchange;
mod limits;
mod memory;
mod no_switch;
mod scope;
mod select;
pub mod sync;
mod task_local;
mod time;

mod dump;
mod panic_hook;
mod stall;

mod sides;
mod thread;
mod thread_queue;

mod offload;

mod block_on;

mod herald;
mod signal;
mod signals;

mod group;

mod dump_signal;

pub use backtrace::{Backtrace, Frame};
pub use big_stack::{on_big_stack, on_stack_of};
pub use block_on::{block_on, try_block_on};
pub use channel::{Channel, Iter, Preference};
pub use dump::{Dump, DumpedTasklet, TaskletState, dump};
pub use dump_signal::{DumpFormat, dump_on_signal};
pub use error::{
    Elapsed, JoinError, Killed, Panic, ReceiveError, Refused, SendError, SendReason, TaskletError,
    Thrown,
};
pub use group::{Group, Stopped, Survivor};
pub use limits::{shield, timeout};
pub use memory::trim;
pub use no_switch::{NoSwitch, no_switch};
pub use observers::{
    ChannelCallback, ChannelEvent, ScheduleCallback, channel_callback, schedule_callback,
    set_channel_callback, set_schedule_callback,
};
pub use offload::{OffloadPool, offload, offload_pool};
pub use report::{Report, Waiter, Who};
pub use scope::{Scope, ScopedTasklet, scope};
pub use select::Select;
pub use signal::Signal;
pub use signals::{SignalIter, Signals, signals};
pub use stall::watch_stalls;
pub use state::Summary;
pub use task_local::{AccessError, LocalKey};
pub use tasklet::{
    Builder, Handle, Tasklet, current, leftovers, main_tasklet, run, run_count, schedule,
    schedule_remove, tasklet,
};
pub use thread::{ThreadHandle, kill_all, spawn_thread, spawn_thread_named};
pub use thread_queue::{QueueIter, QueueReceiver, QueueSender, thread_queue};
pub use time::sleep;
pub use wake::{ChannelId, LockId, TaskletId, Ticket, Waiting};
