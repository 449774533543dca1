//! The command line: how its values are written, and what is said when they make no sense.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    process,
    time::Duration,
};

use clap::{Parser, error::ErrorKind};

/// Reads the command line of `program`, and ends the process when it asks for help or makes no sense.
pub(crate) fn parse<Options: Parser>(program: &str) -> Options {
    Options::try_parse().unwrap_or_else(|error| {
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            error.exit();
        }
        // clap goes on for some lines, with the usage and where to find more; the first part says it all.
        let message = error.to_string();
        let part = message.split("\n\n").next().unwrap_or(&message);
        let line = part.trim_start_matches("error: ").replace(char::is_control, " ");
        eprintln!("{program}: {line}");
        process::exit(2);
    })
}

/// The addresses of a server, to be tried in their order.
#[derive(Debug, Clone)]
pub(crate) struct Addresses(pub(crate) Vec<SocketAddr>);

pub(crate) fn resolve(address: &str) -> Result<Addresses, String> {
    match address.to_socket_addrs() {
        Ok(addresses) if addresses.len() > 0 => Ok(Addresses(addresses.collect())),
        Ok(_) => Err("the host has no address".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// An address that can stand between angle brackets in a line of SMTP.
pub(crate) fn mailbox(address: &str) -> Result<String, &'static str> {
    let fits = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '<' | '>');
    if address.len() <= 254 && address.chars().all(fits) {
        Ok(address.to_owned())
    } else {
        Err("no spaces and angle brackets, and 254 bytes at most")
    }
}

pub(crate) fn milliseconds(text: &str) -> Result<Duration, &'static str> {
    duration(text, 0.001)
}

pub(crate) fn seconds(text: &str) -> Result<Duration, &'static str> {
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
