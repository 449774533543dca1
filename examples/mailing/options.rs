//! `Options`: what the command line asks for.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    process,
    time::Duration,
};

use clap::{Parser, error::ErrorKind, value_parser};

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
    #[arg(long, hide = true)]
    pub(crate) sink: bool,
}

/// The addresses of a server, to be tried in their order.
#[derive(Debug, Clone)]
pub(crate) struct Addresses(pub(crate) Vec<SocketAddr>);

impl Options {
    /// Reads the command line, and ends the process when it asks for help or makes no sense.
    pub(crate) fn from_command_line() -> Self {
        Self::try_parse().unwrap_or_else(|error| {
            if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
                error.exit();
            }
            // clap goes on for some lines, with the usage and where to find more; the first part says it all.
            let message = error.to_string();
            let part = message.split("\n\n").next().unwrap_or(&message);
            let line = part.trim_start_matches("error: ").replace(char::is_control, " ");
            eprintln!("stackless: {line}");
            process::exit(2);
        })
    }
}

fn resolve(address: &str) -> Result<Addresses, String> {
    match address.to_socket_addrs() {
        Ok(addresses) if addresses.len() > 0 => Ok(Addresses(addresses.collect())),
        Ok(_) => Err("the host has no address".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// An address that can stand between angle brackets in a line of SMTP.
fn mailbox(address: &str) -> Result<String, &'static str> {
    let fits = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '<' | '>');
    if address.len() <= 254 && address.chars().all(fits) {
        Ok(address.to_owned())
    } else {
        Err("no spaces and angle brackets, and 254 bytes at most")
    }
}

fn milliseconds(text: &str) -> Result<Duration, &'static str> {
    duration(text, 0.001)
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    match duration(text, 1.0)? {
        Duration::ZERO => Err("nothing can be done in no time"),
        limit => Ok(limit),
    }
}

/// Reads `500ms`, `2s`, or a number of units of `plain_unit` seconds.
fn duration(text: &str, plain_unit: f64) -> Result<Duration, &'static str> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => text.strip_suffix('s').map_or((text, plain_unit), |number| (number, 1.0)),
    };
    let seconds = number.trim().parse::<f64>().map_err(|_| "write 500ms or 2s")? * unit;
    // A year is for ever, and what can be added to the clock has an end.
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration <= Duration::from_secs(365 * 24 * 3600) => Ok(duration),
        _ => Err("a year at most, and not negative"),
    }
}
