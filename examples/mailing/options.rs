//! `Options`: what the command line asks for.

use std::time::Duration;

use clap::{Parser, value_parser};

use super::{
    command_line::{self, Addresses, mailbox, milliseconds, resolve, seconds},
    sink_process::Order,
};
use crate::smtp::letter::LAST_NUMBER;

/// Sends many mails at once, on one thread.
#[derive(Debug, Parser)]
#[command(name = "stackless", version)]
pub(crate) struct Options {
    /// How many mails to send
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = value_parser!(u32).range(0..=i64::from(LAST_NUMBER)))]
    pub(crate) mails: u32,

    /// How many of them to have in flight at one time [default: all]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub(crate) at_once: Option<u32>,

    /// A real server to send them to [default: a sink of our own, which counts them]
    #[arg(long, value_name = "HOST:PORT", value_parser = resolve)]
    pub(crate) server: Option<Addresses>,

    /// How many bytes each body has; at least those its number takes
    #[arg(long, value_name = "BYTES", default_value_t = 1000)]
    pub(crate) body_size: u32,

    /// The sender's address
    #[arg(long, value_name = "ADDRESS", default_value = "sender@example.org", value_parser = mailbox)]
    pub(crate) from: String,

    /// The recipient's address
    #[arg(long, value_name = "ADDRESS", default_value = "recipient@example.org", value_parser = mailbox)]
    pub(crate) to: String,

    /// How long our own sink waits before it greets, as a far server would: 500ms, 2s, or plain milliseconds
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = milliseconds)]
    pub(crate) delay: Duration,

    /// How long each step of a mail may take: 500ms, 2s, or plain seconds
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = seconds)]
    pub(crate) timeout: Duration,

    /// Be the sink, for a parent that reads the port and the report from standard output
    #[arg(long, hide = true, value_parser = Order::read)]
    pub(crate) sink: Option<Order>,
}

impl Options {
    /// Reads the command line, and ends the process when it asks for help or makes no sense.
    pub(crate) fn from_command_line() -> Self {
        command_line::parse("stackless")
    }
}
