//! `Outbox`: what every mail needs to go out: the way to the server, the envelope and the text.

use std::{net::SocketAddr, time::SystemTime};

use super::{
    connection::{Connection, Connector},
    options::Options,
};
use crate::smtp::{client::Envelope, error::MailError, letter::Letter};

/// What all mails share.
pub(crate) struct Outbox {
    connector: Connector,
    /// Who sends the mails, and to whom.
    pub(crate) envelope: Envelope,
    /// What they say, but for their number.
    pub(crate) letter: Letter,
}

impl Outbox {
    pub(crate) fn new(options: &Options, server: Vec<SocketAddr>) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let Options { from, to, timeout, body_size, .. } = options;
        let (from, to, timeout) = (from.clone(), to.clone(), *timeout);
        Self {
            connector: Connector::new(server, timeout),
            letter: Letter::new(headers(&from, &to), *body_size as usize),
            envelope: Envelope { host, from, to, timeout },
        }
    }

    /// Opens a connection to the server.
    pub(crate) fn connect(&self) -> Result<Connection, MailError> {
        self.connector.connect()
    }

    /// The most connections that were open at one time.
    pub(crate) fn peak(&self) -> usize {
        self.connector.peak()
    }
}

fn headers(from: &str, to: &str) -> String {
    let date = date();
    format!(
        "From: <{from}>\r\nTo: <{to}>\r\nDate: {date}\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n"
    )
}

/// Today, as mail headers have it: `Sun, 22 Nov 2026 19:18:00 +0000`.
fn date() -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    let seconds = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March end with the leap day, and 719,468 days before 1970 such a year began a 400-year cycle.
    let day = days + 719_468;
    let (cycle, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let year = 400 * cycle + year + u64::from(month >= 10);
    format!(
        "{}, {day_of_month} {} {year} {:02}:{:02}:{:02} +0000",
        DAYS[(days % 7) as usize],
        MONTHS[month as usize],
        second / 3600,
        second / 60 % 60,
        second % 60,
    )
}
