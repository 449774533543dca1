// An echo server and its clients, as anyone would write them against std. The `use` lines are with whoever includes this.

/// Sends every line back until there are no more.
fn echo(stream: TcpStream) -> io::Result<usize> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_nodelay(true)?;
    let mut writer = BufWriter::new(stream.try_clone()?);
    let mut lines = 0;
    for line in BufReader::new(&stream).lines() {
        writeln!(writer, "{}", line?)?;
        writer.flush()?;
        lines += 1;
    }
    stream.shutdown(Shutdown::Both)?;
    Ok(lines)
}

/// Serves so many connections, each on its own.
fn serve(listener: TcpListener, connections: usize) -> usize {
    let handlers: Vec<_> = listener
        .incoming()
        .take(connections)
        .map(|stream| spawn(move || echo(stream.unwrap()).unwrap()))
        .collect();
    handlers.into_iter().map(|handler| handler.join().unwrap()).sum()
}

/// Says `count` lines, one after the other, and hears each of them.
fn converse(server: SocketAddr, name: usize, count: usize) -> io::Result<String> {
    let mut stream = TcpStream::connect(server)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut heard = String::new();
    for number in 0..count {
        stream.write_all(format!("{name} says {number}\n").as_bytes())?;
        reader.read_line(&mut heard)?;
    }
    stream.shutdown(Shutdown::Write)?;
    match reader.read_line(&mut heard)? {
        0 => Ok(heard),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The same with datagrams, which the server leaves when it receives an empty one.
fn datagrams() -> io::Result<usize> {
    let server = UdpSocket::bind("127.0.0.1:0")?;
    let client = UdpSocket::bind("127.0.0.1:0")?;
    client.connect(server.local_addr()?)?;
    let echo = spawn(move || {
        let mut datagram = [0; 512];
        loop {
            let (count, from) = server.recv_from(&mut datagram).unwrap();
            server.send_to(&datagram[..count], from).unwrap();
            if count == 0 {
                break;
            }
        }
    });
    let mut heard = 0;
    for word in ["one", "two", "three", ""] {
        client.send(word.as_bytes())?;
        heard += client.recv(&mut [0; 512])?;
    }
    echo.join().unwrap();
    Ok(heard)
}

/// The same between two ends that have no address.
fn pair() -> io::Result<u64> {
    let (ours, theirs) = UnixStream::pair()?;
    let echo = spawn(move || io::copy(&mut &theirs, &mut &theirs).unwrap());
    (&ours).write_all(b"hello")?;
    let mut heard = [0; 5];
    (&ours).read_exact(&mut heard)?;
    assert_eq!(&heard, b"hello");
    drop(ours);
    Ok(echo.join().unwrap())
}

pub(crate) fn main() -> io::Result<(usize, Vec<String>, usize, u64)> {
    const CLIENTS: usize = 20;
    const LINES: usize = 10;

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = spawn(move || serve(listener, CLIENTS));
    let clients: Vec<_> =
        (0..CLIENTS).map(|name| spawn(move || converse(address, name, LINES).unwrap())).collect();
    let heard = clients.into_iter().map(|client| client.join().unwrap()).collect();
    Ok((server.join().unwrap(), heard, datagrams()?, pair()?))
}
