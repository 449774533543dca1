//! The halves of a connection, for a tasklet that reads and one that writes.
//!
//! - The connection is never borrowed across a wait: encrypted bytes are read into a buffer first, and written from one.
//! - Records go out in the order in which they were made: whoever writes them holds the outbox, and takes along all that are
//!   there. So whoever finds it held, and only has an answer for the peer, leaves that to the holder.
//! - A wait that is ended loses nothing: bytes leave a buffer when they have gone, and not before.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

use pila_runtime::park::Interrupt;
use pila_runtime::sync::{LockError, Mutex};
use rustls::Connection;

/// What the halves share.
struct Shared<S> {
    connection: RefCell<Connection>,
    stream: S,
    outbox: Mutex<Outbox>,
}

/// Records on their way to the peer.
#[derive(Default)]
struct Outbox {
    records: Vec<u8>,
    /// How much of them has gone.
    sent: usize,
}

/// How much is read from the stream at once: a record of the largest size.
const CHUNK: usize = 16 << 10;

pub(super) fn split<S>(connection: Connection, stream: S) -> (ReadHalf<S>, WriteHalf<S>) {
    let connection = RefCell::new(connection);
    let shared = Rc::new(Shared { connection, stream, outbox: Mutex::new(Outbox::default()) });
    let reader = ReadHalf { shared: shared.clone(), incoming: Vec::new(), taken: 0 };
    (reader, WriteHalf { shared })
}

fn refusal(error: LockError) -> io::Error {
    match error {
        LockError::Refused(refused) => Interrupt::Refused(refused).into(),
        LockError::Deadlock(report) => Interrupt::Deadlock(report).into(),
        LockError::Thrown(thrown) => Interrupt::Thrown(thrown).into(),
        other => io::Error::other(other),
    }
}

impl<S> Shared<S>
where
    for<'a> &'a S: Read + Write,
{
    /// Writes all records there are to the stream.
    fn send(&self) -> io::Result<()> {
        self.empty(&mut *self.outbox.lock().map_err(refusal)?)
    }

    /// As [`send`](Self::send), unless somebody is at it.
    fn answer(&self) -> io::Result<()> {
        match self.outbox.try_lock() {
            Ok(mut outbox) => self.empty(&mut outbox),
            Err(_) => Ok(()),
        }
    }

    fn empty(&self, outbox: &mut Outbox) -> io::Result<()> {
        loop {
            if outbox.sent == outbox.records.len() {
                outbox.records.clear();
                outbox.sent = 0;
                let mut connection = self.connection.borrow_mut();
                while connection.wants_write() {
                    connection.write_tls(&mut outbox.records)?;
                }
            }
            if outbox.records.is_empty() {
                return Ok(());
            }
            match (&self.stream).write(&outbox.records[outbox.sent..])? {
                0 => return Err(ErrorKind::WriteZero.into()),
                length => outbox.sent += length,
            }
        }
    }
}

/// The half of a [`TlsStream`](super::TlsStream) that reads.
///
/// ```
/// use pila_net::{TcpStream, tls};
/// use std::io::{self, BufRead, BufReader};
///
/// fn print(reader: tls::ReadHalf<TcpStream>) -> io::Result<()> {
///     for line in BufReader::new(reader).lines() {
///         println!("{}", line?);
///     }
///     Ok(())
/// }
/// ```
pub struct ReadHalf<S> {
    shared: Rc<Shared<S>>,
    /// What has come from the stream.
    incoming: Vec<u8>,
    /// How much of it rustls has taken.
    taken: usize,
}

impl<S> ReadHalf<S> {
    /// The stream below.
    ///
    /// ```
    /// # use pila_net::{TcpStream, tls};
    /// # fn example(half: tls::ReadHalf<TcpStream>) -> std::io::Result<()> {
    /// println!("from {}", half.get_ref().peer_addr()?);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.shared.stream
    }
}

impl<S> ReadHalf<S>
where
    for<'a> &'a S: Read + Write,
{
    /// Gives rustls what has come, after a wait for it if need be.
    fn feed(&mut self) -> io::Result<()> {
        if self.taken == self.incoming.len() {
            self.refill()?;
        }
        let mut connection = self.shared.connection.borrow_mut();
        self.taken += connection.read_tls(&mut &self.incoming[self.taken..])?;
        let processed = connection.process_new_packets();
        drop(connection);
        if let Err(error) = processed {
            // Tells the peer what is wrong, if it listens.
            self.shared.answer().ok();
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        Ok(())
    }

    fn refill(&mut self) -> io::Result<()> {
        self.taken = 0;
        self.incoming.clear();
        let mut chunk = std::mem::take(&mut self.incoming);
        chunk.resize(CHUNK, 0);
        let length = (&self.shared.stream).read(&mut chunk)?;
        chunk.truncate(length);
        self.incoming = chunk;
        Ok(())
    }
}

impl<S> Read for ReadHalf<S>
where
    for<'a> &'a S: Read + Write,
{
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.shared.connection.borrow_mut().reader().read(buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
            self.shared.answer()?;
            self.feed()?;
        }
    }
}

/// The half of a [`TlsStream`](super::TlsStream) that writes.
///
/// ```
/// use pila_net::{TcpStream, tls};
/// use std::io::{self, Write};
///
/// fn say(writer: &mut tls::WriteHalf<TcpStream>, what: &str) -> io::Result<()> {
///     writeln!(writer, "{what}")?;
///     writer.flush()
/// }
/// ```
pub struct WriteHalf<S> {
    shared: Rc<Shared<S>>,
}

impl<S> WriteHalf<S> {
    /// The stream below.
    ///
    /// ```
    /// # use pila_net::{TcpStream, tls};
    /// # fn example(half: tls::WriteHalf<TcpStream>) -> std::io::Result<()> {
    /// half.get_ref().set_nodelay(true)?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.shared.stream
    }
}

impl<S> WriteHalf<S>
where
    for<'a> &'a S: Read + Write,
{
    /// Says that nothing more will be written, after all that was. The other half reads on.
    ///
    /// # Errors
    /// Those of writing.
    ///
    /// ```
    /// # use pila_net::{TcpStream, tls};
    /// # fn example(mut writer: tls::WriteHalf<TcpStream>) -> std::io::Result<()> {
    /// writer.shutdown()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn shutdown(&mut self) -> io::Result<()> {
        self.shared.send()?;
        self.shared.connection.borrow_mut().send_close_notify();
        self.shared.send()
    }
}

impl<S> Write for WriteHalf<S>
where
    for<'a> &'a S: Read + Write,
{
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.shared.send()?;
        let length = self.shared.connection.borrow_mut().writer().write(buf)?;
        // An error is the next call's: these bytes are taken.
        self.shared.send().ok();
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.shared.send()?;
        (&self.shared.stream).flush()
    }
}

impl<S: fmt::Debug> fmt::Debug for ReadHalf<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadHalf").field(&self.shared.stream).finish()
    }
}

impl<S: fmt::Debug> fmt::Debug for WriteHalf<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WriteHalf").field(&self.shared.stream).finish()
    }
}
