//! Connecting to whichever of several addresses answers first, so that a dead one costs no more than a moment (RFC 8305,
//! "happy eyeballs").
//!
//! - The families take turns, beginning with that of the first address; within a family the order is kept.
//! - The next address is tried when the last one has had [`HEAD_START`], or has failed. The first connection wins; the
//!   other sockets are closed before it is returned.
//! - All of them are waited for with one ticket.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use pila_runtime::driver;

use crate::budget;
use crate::connect;
use crate::source::{Operation, Source};

/// What an address has for itself before the next one is tried as well.
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to the first of `addresses` that answers. Fails like the last of them, and names all.
pub(crate) fn connect_to_one_of(
    addresses: impl Iterator<Item = SocketAddr>,
) -> io::Result<Source<TcpStream>> {
    let mut addresses = taking_turns(addresses);
    match addresses.len() {
        0 => {
            let message = "could not resolve to any addresses";
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        }
        1 => connect::connect(&addresses.remove(0).expect("there is one"), None),
        _ => Attempts { left: addresses, going: Vec::new(), failures: Vec::new() }.run(),
    }
}

/// The addresses with their families alternating.
fn taking_turns(addresses: impl Iterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let addresses: Vec<_> = addresses.collect();
    let is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut mixed = VecDeque::new();
    while first.len() + second.len() > 0 {
        mixed.extend(first.next());
        mixed.extend(second.next());
    }
    mixed
}

/// The state of connecting to several addresses.
#[derive(Debug)]
struct Attempts {
    /// Those that have not been tried.
    left: VecDeque<SocketAddr>,
    /// Those that have not answered.
    going: Vec<(SocketAddr, Source<TcpStream>)>,
    /// Those that have failed, in that order.
    failures: Vec<(SocketAddr, io::Error)>,
}

impl Attempts {
    fn run(mut self) -> io::Result<Source<TcpStream>> {
        let mut next = driver::now();
        loop {
            let now = driver::now();
            if self.going.is_empty() || next <= now {
                if let Some(winner) = self.begin_one()? {
                    return Ok(winner);
                }
                next = now + HEAD_START;
            }
            if self.going.is_empty() {
                if self.left.is_empty() {
                    return Err(Unreachable(self.failures).into());
                }
                continue;
            }
            let deadline = (!self.left.is_empty()).then_some(next);
            let failed = self.failures.len();
            if let Some(winner) = self.wait(deadline)? {
                return Ok(winner);
            }
            if self.failures.len() > failed {
                next = driver::now();
            }
        }
    }

    /// Tries the next address. The connection, should it stand at once.
    fn begin_one(&mut self) -> io::Result<Option<Source<TcpStream>>> {
        let Some(address) = self.left.pop_front() else { return Ok(None) };
        let socket = match self.going.is_empty() {
            true => budget::obtain(None, || connect::socket(&address)),
            // Whoever has one going does not wait for the descriptor of another.
            false if budget::has_line() => return self.put_off(address),
            false => connect::socket(&address),
        };
        let begun = match socket {
            Err(error) if budget::is_shortage(&error) => match self.going.is_empty() {
                true => return Err(error),
                false => return self.put_off(address),
            },
            // It waited for a descriptor, and was told not to.
            Err(error) if error.get_ref().is_some() => return Err(error),
            socket => socket.and_then(|socket| connect::begin(socket, &address)),
        };
        match begun {
            Ok((source, true)) => return Ok(Some(source)),
            Ok((source, false)) => self.going.push((address, source)),
            Err(error) => self.failures.push((address, error)),
        }
        Ok(None)
    }

    /// Tries `address` later.
    fn put_off(&mut self, address: SocketAddr) -> io::Result<Option<Source<TcpStream>>> {
        self.left.push_front(address);
        Ok(None)
    }

    /// Waits until one has answered, or until `deadline`. The connection, if that was the answer.
    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<Option<Source<TcpStream>>> {
        let sources: Vec<_> = self.going.iter().map(|(_, source)| source).collect();
        Source::wait_for_one_of(&sources, Operation::Connect, deadline)?;
        let ready = |(_, source): &mut (_, Source<_>)| source.is_ready(Operation::Connect);
        for (address, source) in self.going.extract_if(.., ready) {
            match connect::check(&source) {
                Ok(()) => return Ok(Some(source)),
                Err(error) => self.failures.push((address, error)),
            }
        }
        Ok(None)
    }
}

/// None of several addresses could be connected to.
#[derive(Debug)]
struct Unreachable(Vec<(SocketAddr, io::Error)>);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("none of the addresses could be connected to")?;
        for (number, (address, error)) in self.0.iter().enumerate() {
            write!(f, "{} {address}: {error}", if number == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl Error for Unreachable {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.last().map(|(_, error)| error as _)
    }
}

impl From<Unreachable> for io::Error {
    fn from(error: Unreachable) -> Self {
        let kind = error.0.last().map_or(io::ErrorKind::Other, |(_, error)| error.kind());
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_keep_their_order() {
        let parse = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let given = parse(&["[::1]:1", "[::1]:2", "1.1.1.1:1", "[::1]:3", "1.1.1.1:2"]);
        let taken = parse(&["[::1]:1", "1.1.1.1:1", "[::1]:2", "1.1.1.1:2", "[::1]:3"]);
        assert_eq!(taking_turns(given.into_iter()), taken);
        let one_family = parse(&["1.1.1.1:1", "1.1.1.1:2"]);
        assert_eq!(taking_turns(one_family.clone().into_iter()), one_family);
        assert!(taking_turns([].into_iter()).is_empty());
    }

    #[test]
    fn the_error_names_every_address_and_is_of_the_lasts_kind() {
        let failure = |port, kind| (([127, 0, 0, 1], port).into(), io::Error::from(kind));
        let error: io::Error = Unreachable(vec![
            failure(1, io::ErrorKind::ConnectionRefused),
            failure(2, io::ErrorKind::TimedOut),
        ])
        .into();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let text = "none of the addresses could be connected to: \
                    127.0.0.1:1: connection refused; 127.0.0.1:2: timed out";
        assert_eq!(error.to_string(), text);
    }
}
