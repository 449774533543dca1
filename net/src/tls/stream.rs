//! [`TlsStream`]: rustls's stream, of either side.

use std::fmt;
use std::io::{self, BufRead, IoSlice, Read, Write};

use rustls::{ClientConnection, Connection, ServerConnection, StreamOwned};

use super::halves::{self, ReadHalf, WriteHalf};

/// A connection under TLS, whose handshake is done: what is written is encrypted, what is read comes from the peer.
///
/// [`connect`](super::connect) and [`accept`](super::accept) make one. It is rustls's [`StreamOwned`], the same type on both
/// sides. It is buffered, so its [`BufRead`] costs nothing; bytes may be at hand though the stream below has none.
///
/// Dropping it closes the stream below without a word, which the peer takes for a connection that was cut: end with
/// [`shutdown`](TlsStream::shutdown) or [`close`](TlsStream::close).
///
/// ```
/// # use pila_net::{TcpListener, TcpStream, tls};
/// use std::io::{BufRead, Write};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let own = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
/// # let server = tls::server_config(own.cert.pem(), own.signing_key.serialize_pem())?;
/// # let client = tls::client_config_trusting(own.cert.pem())?;
/// # let listener = TcpListener::bind("127.0.0.1:0")?;
/// # let address = listener.local_addr()?;
/// # let serving = pila_runtime::tasklet(move || {
/// #     let mut stream = tls::accept(server, listener.accept()?.0)?;
/// #     stream.write_all(b"one\ntwo\n")?;
/// #     stream.shutdown()
/// # });
/// let stream = tls::connect_with(client, "localhost", TcpStream::connect(address)?)?;
/// let lines = stream.lines().collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(lines, ["one", "two"]);
/// # serving.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
pub struct TlsStream<S: Read + Write> {
    side: Side<S>,
}

enum Side<S: Read + Write> {
    Client(StreamOwned<ClientConnection, S>),
    Server(StreamOwned<ServerConnection, S>),
}

/// What both sides do.
trait Duplex: BufRead + Write {}

impl<T: BufRead + Write> Duplex for T {}

impl<S: Read + Write> TlsStream<S> {
    pub(super) fn new(connection: Connection, stream: S) -> Self {
        let side = match connection {
            Connection::Client(connection) => Side::Client(StreamOwned::new(connection, stream)),
            Connection::Server(connection) => Side::Server(StreamOwned::new(connection, stream)),
        };
        Self { side }
    }

    fn duplex(&mut self) -> &mut dyn Duplex {
        match &mut self.side {
            Side::Client(stream) => stream,
            Side::Server(stream) => stream,
        }
    }

    /// The stream below. What is read from it or written to it there is lost to TLS.
    ///
    /// ```
    /// # use pila_net::{TcpStream, tls};
    /// # fn main() -> std::io::Result<()> {
    /// # fn example(stream: &tls::TlsStream<TcpStream>) -> std::io::Result<()> {
    /// stream.get_ref().set_nodelay(true)?;
    /// # Ok(())
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn get_ref(&self) -> &S {
        match &self.side {
            Side::Client(stream) => &stream.sock,
            Side::Server(stream) => &stream.sock,
        }
    }

    /// What rustls knows of the connection: the peer's certificates, the version and the cipher, the protocol that ALPN chose.
    ///
    /// ```
    /// # use pila_net::{TcpStream, tls};
    /// # use std::io;
    /// fn version(stream: &tls::TlsStream<TcpStream>) -> tls::rustls::ProtocolVersion {
    ///     stream.connection().protocol_version().expect("the handshake is done")
    /// }
    /// ```
    #[must_use]
    pub fn connection(&self) -> &rustls::CommonState {
        match &self.side {
            Side::Client(stream) => &stream.conn,
            Side::Server(stream) => &stream.conn,
        }
    }

    fn connection_mut(&mut self) -> &mut rustls::CommonState {
        match &mut self.side {
            Side::Client(stream) => &mut stream.conn,
            Side::Server(stream) => &mut stream.conn,
        }
    }

    /// rustls's connection and the stream below, for whatever is not here.
    ///
    /// ```
    /// # use pila_net::{TcpStream, tls};
    /// fn parts(stream: tls::TlsStream<TcpStream>) -> TcpStream {
    ///     let (_connection, stream) = stream.into_parts();
    ///     stream
    /// }
    /// ```
    pub fn into_parts(self) -> (Connection, S) {
        match self.side {
            Side::Client(stream) => (Connection::Client(stream.conn), stream.sock),
            Side::Server(stream) => (Connection::Server(stream.conn), stream.sock),
        }
    }

    /// Says that nothing more will be written, after all that was. What the peer says can still be read.
    ///
    /// # Errors
    /// Those of writing.
    ///
    /// ```
    /// # use pila_net::{TcpStream, tls};
    /// use std::io::{self, Read};
    ///
    /// /// All that the peer has to say to a request that ends with the stream.
    /// fn answer(stream: &mut tls::TlsStream<TcpStream>) -> io::Result<String> {
    ///     stream.shutdown()?;
    ///     let mut answer = String::new();
    ///     stream.read_to_string(&mut answer)?;
    ///     Ok(answer)
    /// }
    /// ```
    pub fn shutdown(&mut self) -> io::Result<()> {
        // Before that what the stream did not take in time.
        self.flush()?;
        self.connection_mut().send_close_notify();
        self.flush()
    }

    /// Ends the connection as it should: says that nothing more will be written, waits for the peer to say the same, and
    /// closes the stream below. Then nothing was lost, in either direction.
    ///
    /// Many peers, of HTTP above all, end without a word or go on without listening: those are left with
    /// [`shutdown`](TlsStream::shutdown) and a drop.
    ///
    /// # Errors
    /// `InvalidData` when the peer had more to say: it was not read to its end. `UnexpectedEof` when the peer ended without
    /// saying so. Those of writing and reading.
    ///
    /// ```
    /// # use pila_net::{TcpStream, tls};
    /// use std::{io::{self, Write}, time::Duration};
    ///
    /// fn quit(mut stream: tls::TlsStream<TcpStream>) -> io::Result<()> {
    ///     stream.write_all(b"bye\r\n")?;
    ///     pila_runtime::timeout(Duration::from_secs(5), || stream.close())?
    /// }
    /// ```
    pub fn close(mut self) -> io::Result<()> {
        self.shutdown()?;
        match self.fill_buf()?.len() {
            0 => Ok(()),
            bytes => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the peer had more to say, {bytes} bytes at least: read to the end before `close`, or leave it with `shutdown`"
                ),
            )),
        }
    }

    /// A half to read from and one to write to, for two tasklets.
    ///
    /// Either may wait while the other goes on. The stream below is closed when both are dropped.
    ///
    /// ```
    /// # use pila_net::{TcpListener, TcpStream, tls};
    /// use std::io::{Read, Write};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let own = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
    /// # let server = tls::server_config(own.cert.pem(), own.signing_key.serialize_pem())?;
    /// # let client = tls::client_config_trusting(own.cert.pem())?;
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let address = listener.local_addr()?;
    /// # pila_runtime::tasklet(move || {
    /// #     let (mut reader, mut writer) = tls::accept(server, listener.accept().unwrap().0).unwrap().split();
    /// #     std::io::copy(&mut reader, &mut writer).unwrap();
    /// #     writer.shutdown().unwrap();
    /// # });
    /// let stream = tls::connect_with(client, "localhost", TcpStream::connect(address)?)?;
    /// let (mut reader, mut writer) = stream.split();
    /// let reading = pila_runtime::tasklet(move || {
    ///     let mut all = String::new();
    ///     reader.read_to_string(&mut all).map(|_| all)
    /// });
    /// writer.write_all(b"an echo")?;
    /// writer.shutdown()?;
    /// assert_eq!(reading.join().unwrap()?, "an echo");
    /// # Ok(())
    /// # }
    /// ```
    pub fn split(self) -> (ReadHalf<S>, WriteHalf<S>)
    where
        for<'a> &'a S: Read + Write,
    {
        let (connection, stream) = self.into_parts();
        halves::split(connection, stream)
    }
}

impl<S: Read + Write> Read for TlsStream<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.duplex().read(buf)
    }
}

impl<S: Read + Write> BufRead for TlsStream<S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.duplex().fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.duplex().consume(amount);
    }
}

impl<S: Read + Write> Write for TlsStream<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.duplex().write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.duplex().write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.duplex().flush()
    }
}

impl<S: Read + Write + fmt::Debug> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.connection().protocol_version();
        f.debug_struct("TlsStream")
            .field("stream", self.get_ref())
            .field("version", &version)
            .finish_non_exhaustive()
    }
}
