//! Every way to send ten thousand mails, side by side: one after the other, with threads, with locks, with a pool, with
//! callbacks, with generators, with tasklets, in processes, through queues.
//!
//!     cargo run --release --example send_mail
//!
//! sends 100 and 10,000 mails in each way to a server of its own that takes 20 ms for each answer, and shows what that
//! took. A file for each way is beside this one, and docs/talk.md walks through them. All ways that wait by blocking have
//! one body in common, `post::send_mail`.
//!
//! `--way tasklets` tries one, `--svg FILE` draws them, and `--help` tells the rest.

#[path = "../mailing/command_line.rs"]
mod command_line;
#[path = "../mailing/descriptors.rs"]
#[allow(dead_code, reason = "the other example has more use for it")]
mod descriptors;
#[path = "../mailing/sink_process.rs"]
mod sink_process;
#[path = "../smtp/mod.rs"]
#[allow(dead_code, reason = "the other examples use the rest")]
mod smtp;
#[path = "../mailing/status.rs"]
mod status;

mod bar;
mod document;
mod journal;
mod limits;
mod options;
mod picture;
mod plot;
mod post;
mod race;
mod row;
mod survey;
mod table;
mod tally;
mod way_process;
mod ways;

mod events;
mod generators;
mod locks;
mod pool;
mod processes;
mod queues;
mod sequential;
mod tasklets;
mod threads;

use std::process::ExitCode;

use options::Options;

fn main() -> ExitCode {
    // In a worker's process, this is where it works.
    processes::role();
    let options = Options::from_command_line();
    match (&options.sink, &options.task) {
        (Some(order), _) => sink_process::main("send_mail", order),
        (_, Some(task)) => way_process::main(task),
        _ => survey::main(options),
    }
}
