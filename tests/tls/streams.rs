//! What follows the handshake: ends that are told from cuts, two tasklets on one connection, and calls that are ended.

use std::{
    cell::RefCell,
    error::Error,
    io::{self, BufRead, ErrorKind, Read, Write},
    os::unix::net,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use pila::{
    Elapsed,
    net::{TcpStream, UnixStream},
    schedule, scope, sleep, tasklet, timeout,
    tls::{
        self, TlsStream,
        rustls::{Connection, ProtocolVersion, StreamOwned},
    },
};

use crate::{client, leaving_nothing, net_support::FLOOD, secure_pair, server, serving};

/// Bytes that tell their places.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place % 251) as u8).collect()
}

#[test]
fn what_is_written_is_read_in_both_directions() {
    leaving_nothing(|| {
        let (mut client, mut server) = secure_pair();
        assert_eq!(client.connection().protocol_version(), Some(ProtocolVersion::TLSv1_3));
        let sent = pattern(3 << 20);
        let expected = sent.clone();
        let echo = tasklet(move || {
            let mut received = vec![0; 3 << 20];
            server.read_exact(&mut received).unwrap();
            server.write_all(&received).unwrap();
            server.close().unwrap();
        });
        client.write_all(&sent).unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        assert!(received == expected);
        client.close().unwrap();
        echo.join().unwrap();
    });
}

#[test]
fn whatever_reads_and_writes_can_be_below() {
    leaving_nothing(|| {
        let (mine, theirs) = UnixStream::pair().unwrap();
        let accepting = tasklet(move || tls::accept(server(), theirs).unwrap());
        let mut client = tls::connect_with(client(), "localhost", mine).unwrap();
        let mut server = accepting.join().unwrap();
        client.write_all(b"over a Unix socket\n").unwrap();
        assert_eq!((&mut server).lines().next().unwrap().unwrap(), "over a Unix socket");

        // One that is shared, and one of std on a thread of its own.
        let (mine, theirs) = net::UnixStream::pair().unwrap();
        let config = crate::server();
        let thread = std::thread::spawn(move || tls::accept(config, theirs)?.write_all(b"std"));
        let mine = UnixStream::from(mine);
        let mut secured = tls::connect_with(crate::client(), "localhost", &mine).unwrap();
        secured.read_exact(&mut [0; 3]).unwrap();
        thread.join().unwrap().unwrap();
    });
}

#[test]
fn a_stream_may_go_wherever_its_socket_may() {
    fn holds<T: Send + Sync + Unpin + std::fmt::Debug + 'static>() {}
    holds::<TlsStream<TcpStream>>();
    holds::<TlsStream<UnixStream>>();

    leaving_nothing(|| {
        let (mut client, mut server) = secure_pair();
        // Used on a thread, and a scheduler, that did not make it.
        let thread = std::thread::spawn(move || {
            server.write_all(b"from another thread").unwrap();
            server.close().unwrap();
        });
        let mut heard = String::new();
        client.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "from another thread");
        client.close().unwrap();
        thread.join().unwrap();
    });
}

#[test]
fn rustls_itself_takes_a_socket_as_it_is() {
    leaving_nothing(|| {
        let (address, serving) = serving(|stream| {
            let connection = tls::rustls::ServerConnection::new(server()).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            stream.read_exact(&mut [0; 5]).unwrap();
            stream.write_all(b"world").unwrap();
        });
        let name = "localhost".try_into().unwrap();
        let connection = tls::rustls::ClientConnection::new(client(), name).unwrap();
        let mut stream = StreamOwned::new(connection, TcpStream::connect(address).unwrap());
        stream.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"world");
        serving.join().unwrap();
    });
}

#[test]
fn a_shutdown_is_an_end_and_leaves_the_other_direction() {
    leaving_nothing(|| {
        let (mut client, mut server) = secure_pair();
        client.write_all(b"all I have to say").unwrap();
        client.shutdown().unwrap();
        let mut heard = String::new();
        server.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "all I have to say");
        server.write_all(b"and yet an answer").unwrap();
        server.shutdown().unwrap();
        client.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "all I have to sayand yet an answer");
        client.close().unwrap();
        server.close().unwrap();
    });
}

#[test]
fn a_connection_that_is_cut_is_no_end() {
    leaving_nothing(|| {
        let (client, mut server) = secure_pair();
        server.write_all(b"the beginning of").unwrap();
        drop(server);
        let mut client = client;
        let mut heard = Vec::new();
        let error = client.read_to_end(&mut heard).unwrap_err();
        assert_eq!(
            (error.kind(), &heard[..]),
            (ErrorKind::UnexpectedEof, &b"the beginning of"[..])
        );

        let (client, server) = secure_pair();
        drop(server);
        assert_eq!(client.close().unwrap_err().kind(), ErrorKind::UnexpectedEof);

        let (client, server) = secure_pair();
        let (mut reader, _writer) = client.split();
        drop(server);
        assert_eq!(reader.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn close_says_what_was_not_read() {
    leaving_nothing(|| {
        let (client, mut server) = secure_pair();
        server.write_all(b"221 bye\r\n").unwrap();
        server.shutdown().unwrap();
        let error = client.close().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(
            error.to_string().starts_with("the peer had more to say, 9 bytes at least"),
            "{error}"
        );
    });
}

#[test]
fn a_read_that_a_timeout_ended_has_lost_nothing() {
    leaving_nothing(|| {
        let sent = pattern(200_000);
        let expected = sent.clone();
        let (mut client, server) = secure_pair();
        // The encrypted bytes come in pieces that end anywhere in a record.
        let (mut connection, mut below) = server.into_parts();
        let slowly = tasklet(move || {
            let mut records = Vec::new();
            for chunk in sent.chunks(5_000) {
                plaintext(&mut connection).write_all(chunk).unwrap();
                while connection.wants_write() {
                    connection.write_tls(&mut records).unwrap();
                }
            }
            for piece in records.chunks(3_571) {
                below.write_all(piece).unwrap();
                sleep(Duration::from_micros(700));
            }
            below
        });
        let (mut received, mut ended) = (Vec::new(), 0);
        while received.len() < expected.len() {
            let mut buffer = [0; 1_000];
            match timeout(Duration::from_micros(300), || client.read(&mut buffer)) {
                Ok(length) => received.extend_from_slice(&buffer[..length.unwrap()]),
                Err(_) => ended += 1,
            }
        }
        assert!(received == expected);
        assert!(ended > 10, "only {ended} reads were ended");
        slowly.join().unwrap();
    });
}

/// Where to write what rustls is to encrypt.
fn plaintext(connection: &mut Connection) -> impl Write + '_ {
    match connection {
        Connection::Client(connection) => connection.writer(),
        Connection::Server(connection) => connection.writer(),
    }
}

#[test]
fn a_write_that_a_timeout_ended_leaves_whole_records() {
    leaving_nothing(|| {
        let (mut client, mut server) = secure_pair();
        let flood = vec![b'x'; FLOOD];
        timeout(Duration::from_millis(20), || client.write_all(&flood)).unwrap_err();
        // What was taken comes through, and what is written after it.
        let reading = tasklet(move || {
            let mut all = Vec::new();
            server.read_to_end(&mut all).unwrap();
            server.close().unwrap();
            all
        });
        client.write_all(b"the end").unwrap();
        client.close().unwrap();
        let all = reading.join().unwrap();
        assert!(all.len() > 100_000 && all.ends_with(b"xxthe end"));
    });
}

#[test]
fn calls_that_may_not_wait_say_so_as_the_socket_does() {
    leaving_nothing(|| {
        let (mut client, server) = secure_pair();
        // Who swallows the ending of a call has the rest of them refused.
        let swallowed = timeout(Duration::from_millis(5), || {
            catch_unwind(AssertUnwindSafe(|| client.read(&mut [0; 8]))).unwrap_err();
            let refused = |error: io::Error| {
                assert_eq!(error.kind(), ErrorKind::Other);
                assert!(error.source().unwrap().is::<Elapsed>(), "{error:?}");
            };
            refused(client.read(&mut [0; 8]).unwrap_err());
            refused(client.fill_buf().unwrap_err());
            let flood = vec![0; FLOOD];
            refused(client.write_all(&flood).unwrap_err());
            refused(client.flush().unwrap_err());
            refused(client.shutdown().unwrap_err());
            refused(client.close().unwrap_err());
        });
        swallowed.unwrap();
        drop(server);

        let (client, server) = secure_pair();
        let (mut reader, mut writer) = client.split();
        // Who swallows the ending of a call has the rest of them refused.
        let swallowed = timeout(Duration::from_millis(5), || {
            catch_unwind(AssertUnwindSafe(|| reader.read(&mut [0; 8]))).unwrap_err();
            let error = reader.read(&mut [0; 8]).unwrap_err();
            assert!(error.source().unwrap().is::<Elapsed>(), "{error:?}");
            let error = writer.write_all(&vec![0; FLOOD]).unwrap_err();
            assert!(error.source().unwrap().is::<Elapsed>(), "{error:?}");
        });
        swallowed.unwrap();
        drop(server);
    });
}

#[test]
fn a_half_reads_while_the_other_writes() {
    leaving_nothing(|| {
        let (client, server) = secure_pair();
        let sent = pattern(2 << 20);
        let mut halves: Vec<_> = [client, server].map(TlsStream::split).into();
        // Both write more than any buffer holds before either of them is read.
        scope(|s| {
            for (mut reader, mut writer) in halves.drain(..) {
                let sent = &sent;
                s.tasklet(move || {
                    writer.write_all(sent).unwrap();
                    writer.shutdown().unwrap();
                });
                s.tasklet(move || {
                    sleep(Duration::from_millis(5));
                    let mut received = Vec::new();
                    reader.read_to_end(&mut received).unwrap();
                    assert!(received == *sent);
                });
            }
        });
    });
}

#[test]
fn halves_whose_calls_are_ended_again_and_again_lose_nothing() {
    leaving_nothing(|| {
        let (client, server) = secure_pair();
        let (mut reader, mut writer) = client.split();
        let (mut far_reader, mut far_writer) = server.split();
        let sent = pattern(1 << 20);
        let (expected, taken) = (sent.clone(), Rc::new(RefCell::new(0)));

        let echo = tasklet(move || {
            io::copy(&mut far_reader, &mut far_writer).unwrap();
            far_writer.shutdown().unwrap();
        });
        let writing = tasklet({
            let taken = taken.clone();
            move || {
                for piece in sent.chunks(4_096) {
                    writer.write_all(piece).unwrap();
                    *taken.borrow_mut() += piece.len();
                    // Whatever is on its way at that moment is not lost.
                    timeout(Duration::ZERO, || writer.flush()).ok();
                    schedule();
                }
                writer.shutdown().unwrap();
            }
        });
        let (mut received, mut ended) = (Vec::new(), 0);
        loop {
            let mut buffer = [0; 700];
            match timeout(Duration::from_micros(20), || reader.read(&mut buffer)) {
                Ok(length) => match length.unwrap() {
                    0 => break,
                    length => received.extend_from_slice(&buffer[..length]),
                },
                Err(_) => ended += 1,
            }
        }
        assert!(received == expected && *taken.borrow() == expected.len());
        assert!(ended > 0);
        writing.join().unwrap();
        echo.join().unwrap();
    });
}

#[test]
fn a_half_answers_a_change_of_keys_while_the_other_writes() {
    leaving_nothing(|| {
        let (client, server) = secure_pair();
        let (mut reader, mut writer) = client.split();
        let (mut connection, below) = server.into_parts();
        // Asks for new keys before each piece, and reads what was written with whatever keys.
        let asking = tasklet(move || {
            let mut stream = &below;
            let mut heard = 0;
            for round in 0..50_u8 {
                connection.refresh_traffic_keys().unwrap();
                plaintext(&mut connection).write_all(&[round; 100]).unwrap();
                while connection.wants_write() {
                    connection.write_tls(&mut stream).unwrap();
                }
            }
            connection.send_close_notify();
            while connection.wants_write() {
                connection.write_tls(&mut stream).unwrap();
            }
            while heard < 500_000 {
                connection.read_tls(&mut stream).unwrap();
                let state = connection.process_new_packets().unwrap();
                let mut plaintext = vec![0; state.plaintext_bytes_to_read()];
                connection.reader().read_exact(&mut plaintext).unwrap();
                heard += plaintext.len();
            }
        });
        let writing = tasklet(move || {
            for _ in 0..500 {
                writer.write_all(&[7; 1_000]).unwrap();
                schedule();
            }
            writer.flush().unwrap();
            writer
        });
        let mut heard = Vec::new();
        reader.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, (0..50).flat_map(|round| [round; 100]).collect::<Vec<u8>>());
        let _writer = writing.join().unwrap();
        asking.join().unwrap();
    });
}
