//! `Connector` opens the connections to the server, and knows how many are open; `Connection` is one of them.

use std::{
    cell::Cell,
    io::{self, Read, Write},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use pila::{Channel, net::TcpStream};
use rustix::io::Errno;

use crate::smtp::{
    client::Timeouts,
    error::{Cause, MailError, Step},
};

/// How far apart connections are opened when there are more to open than that: a server's backlog holds 4,096 at most,
/// and of those that come when it is full the system drops the first packet and sends it again a second later.
const SPACING: Duration = Duration::from_micros(30);

/// Opens connections to one server.
pub(crate) struct Connector {
    /// The server's addresses, tried in their order.
    addresses: Vec<SocketAddr>,
    /// How long opening a connection to one of them may take.
    timeout: Duration,
    /// Not before this may the next connection be opened, give or take a millisecond.
    next: Cell<Instant>,
    count: Rc<Count>,
}

/// The connections of one `Connector`.
struct Count {
    open: Cell<usize>,
    /// The most that were open at one time.
    peak: Cell<usize>,
    /// Where those wait who found no descriptor or no port left: each one given back wakes one of them.
    freed: Channel<()>,
}

impl Connector {
    pub(crate) fn new(addresses: Vec<SocketAddr>, timeout: Duration) -> Self {
        let count = Count { open: Cell::new(0), peak: Cell::new(0), freed: Channel::new() };
        Self { addresses, timeout, next: Cell::new(Instant::now()), count: Rc::new(count) }
    }

    /// Opens a connection. Where descriptors or ports have run out it waits until one of ours is given back.
    pub(crate) fn connect(&self) -> Result<Connection, MailError> {
        self.wait_for_turn();
        let deadline = Instant::now() + self.timeout;
        loop {
            match self.try_connect() {
                Ok(stream) => {
                    return Ok(Connection { stream, _place: Place::new(self.count.clone()) });
                }
                Err(error) if !is_shortage(&error) || !self.wait_for_another(deadline) => {
                    self.count.wake_one();
                    return Err(Cause::from(error).at(Step::Connect));
                }
                Err(_) => {}
            }
        }
    }

    /// The most connections that were open at one time.
    pub(crate) fn peak(&self) -> usize {
        self.count.peak.get()
    }

    /// Spreads what would be a burst.
    fn wait_for_turn(&self) {
        let now = Instant::now();
        let turn = self.next.get().max(now);
        self.next.set(turn + SPACING);
        // In whole milliseconds, so that many wake together, and not at all for a few.
        let early = Duration::from_millis((turn - now).as_millis() as u64);
        if !early.is_zero() {
            pila::sleep(early);
        }
    }

    fn try_connect(&self) -> io::Result<TcpStream> {
        let mut outcome = Err(io::ErrorKind::AddrNotAvailable.into());
        for address in &self.addresses {
            outcome = TcpStream::connect_timeout(address, self.timeout).and_then(|stream| {
                // Or each block of a long text would wait until the server has acknowledged the one before.
                stream.set_nodelay(true)?;
                Ok(stream)
            });
            if outcome.as_ref().map_or_else(is_shortage, |_| true) {
                break;
            }
        }
        outcome
    }

    /// Waits until trying again makes sense, and says whether it does.
    fn wait_for_another(&self, deadline: Instant) -> bool {
        if self.count.open.get() > 0 {
            // Not counted as time of this mail: it ends, for each open connection has timeouts of its own.
            self.count.freed.receive().is_ok()
        } else {
            // Others have them all: other processes, or connections that have closed but are not forgotten yet.
            pila::sleep(Duration::from_millis(20));
            Instant::now() < deadline
        }
    }
}

impl Count {
    fn wake_one(&self) {
        // Nobody waits for a receiver here: with one waiting, a send does not wait.
        if self.freed.balance() < 0 {
            self.freed.send(()).ok();
        }
    }
}

/// An error that another connection's end can cure.
fn is_shortage(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::ADDRNOTAVAIL))
}

/// A connection that is counted while it is open.
pub(crate) struct Connection {
    // Closed before its place is given up, for whoever is woken by that wants the descriptor.
    stream: TcpStream,
    _place: Place,
}

impl Connection {
    /// Hangs up.
    pub(crate) fn close(self) {}
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Timeouts for Connection {
    fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(limit)
    }

    fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.stream.set_write_timeout(limit)
    }
}

/// One of the open connections, as far as counting goes.
struct Place(Rc<Count>);

impl Place {
    fn new(count: Rc<Count>) -> Self {
        count.open.set(count.open.get() + 1);
        count.peak.set(count.peak.get().max(count.open.get()));
        Self(count)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.wake_one();
    }
}
