//! `Options`: what the command line asks for.

use std::{num::NonZero, path::PathBuf, thread, time::Duration};

use clap::{Parser, value_parser};

use crate::{
    command_line::{self, Addresses, mailbox, milliseconds, resolve, seconds},
    post::Task,
    sink_process::Order,
    smtp::letter::LAST_NUMBER,
    ways::Way,
};

/// As much address space as a process of 32 bits has on Linux.
const THIRTY_TWO_BITS: u64 = 3 << 30;

/// Sends many mails in every way there is, and compares.
#[derive(Debug, Parser)]
#[command(name = "send_mail", version)]
pub(crate) struct Options {
    /// How many mails to send; several numbers for several tables [default: 100,10000; with --svg 1000, too]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    #[arg(value_parser = value_parser!(u32).range(1..=i64::from(LAST_NUMBER)))]
    mails: Vec<u32>,

    /// Which ways to try [default: all]: sequential, threads, locks, pool, events, generators, tasklets, processes, queues
    #[arg(long = "way", value_name = "NAME", value_delimiter = ',', value_parser = way_name)]
    pub(crate) ways: Vec<String>,

    /// A real server to send them to [default: a sink of our own, which counts them]
    #[arg(long, value_name = "HOST:PORT", value_parser = resolve)]
    pub(crate) server: Option<Addresses>,

    /// How long our own sink waits before each reply, as if it were far away: 20ms, 1s, or plain milliseconds
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = milliseconds)]
    pub(crate) delay: Duration,

    /// How many thousand numbers to hash for each mail [default: none, and at the end a table with 100]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(0..=1_000_000))]
    pub(crate) work: Option<u32>,

    /// How many processes or threads to use where that is one for each core
    #[arg(long, value_name = "N")]
    workers: Option<NonZero<usize>>,

    /// How much address space the ways may have: 3GiB, 500MiB. Without --way: a row of threads with that, 3GiB if not said
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) thread_limit: Option<u64>,

    /// After how long `sequential` stops, and is taken as a sample: 500ms, 2s, or plain seconds
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = seconds)]
    pub(crate) patience: Duration,

    /// How many bytes each body has; at least those its number takes
    #[arg(long, value_name = "BYTES", default_value_t = 1000)]
    pub(crate) body_size: u32,

    /// The sender's address
    #[arg(long, value_name = "ADDRESS", default_value = "sender@example.org", value_parser = mailbox)]
    pub(crate) from: String,

    /// The recipient's address
    #[arg(long, value_name = "ADDRESS", default_value = "recipient@example.org", value_parser = mailbox)]
    pub(crate) to: String,

    /// How long each step of a mail may take: 500ms, 2s, or plain seconds
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = seconds)]
    pub(crate) timeout: Duration,

    /// Draw time and memory against the number of mails into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,

    /// Draw the tables into this file, as a terminal shows them
    #[arg(long, value_name = "FILE")]
    pub(crate) picture: Option<PathBuf>,

    /// Put what is measured into this Markdown file, where its marks are
    #[arg(long = "into", value_name = "FILE")]
    pub(crate) documents: Vec<PathBuf>,

    /// Print JSON
    #[arg(long, conflicts_with = "markdown")]
    pub(crate) json: bool,

    /// Print the tables in Markdown
    #[arg(long)]
    pub(crate) markdown: bool,

    /// Be the sink, for a parent that reads the port and the report from standard output
    #[arg(long, hide = true, value_parser = Order::read)]
    pub(crate) sink: Option<Order>,

    /// Send mails in one way, for a parent that reads the score from standard output
    #[arg(long, hide = true, value_parser = Task::read)]
    pub(crate) task: Option<Task>,
}

impl Options {
    /// Reads the command line, and ends the process when it asks for help or makes no sense.
    pub(crate) fn from_command_line() -> Self {
        command_line::parse("send_mail")
    }

    /// How many mails to send, once for each.
    pub(crate) fn sizes(&self) -> Vec<u32> {
        match (self.mails.is_empty(), &self.svg) {
            (false, _) => self.mails.clone(),
            (true, None) => vec![100, 10_000],
            (true, Some(_)) => vec![100, 1000, 10_000],
        }
    }

    /// How many processes or threads to use where that is one for each core.
    pub(crate) fn workers(&self) -> usize {
        self.workers.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZero::get)
    }

    /// How much address space the threads of that one row may have.
    pub(crate) fn limit_of_threads(&self) -> u64 {
        self.thread_limit.unwrap_or(THIRTY_TWO_BITS)
    }
}

fn way_name(name: &str) -> Result<String, String> {
    Way::find(name).map(|way| way.name.to_owned())
}

/// Reads `3GiB` or `500MiB`.
fn size(text: &str) -> Result<u64, &'static str> {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20)];
    let (number, unit) = units
        .iter()
        .find_map(|&(name, unit)| Some((text.strip_suffix(name)?, unit)))
        .ok_or("write 3GiB or 500MiB")?;
    let number: u64 = number.trim().parse().map_err(|_| "write 3GiB or 500MiB")?;
    match number.checked_mul(unit) {
        // The program itself takes some of it.
        Some(bytes @ 0x400_0000..) => Ok(bytes),
        _ => Err("64MiB at least, and a number of bytes that 64 bits can tell"),
    }
}
