//! What a connection promises: every byte once, in order, and its end.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;

use net_support::{FLOOD, again_portably, bounded, pair, pair_with_std};
use pila::net::{Incoming, TcpListener, TcpStream};
use rustix::net::SendFlags;

mod net_support;

#[test]
fn what_is_sent_comes_back() {
    bounded(|| {
        let (mut client, mut server) = pair();
        let echo =
            pila::tasklet(move || std::io::copy(&mut server.try_clone().unwrap(), &mut server));
        for round in 0..1_000_u32 {
            client.write_all(&round.to_le_bytes()).unwrap();
            let mut answer = [0; 4];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(u32::from_le_bytes(answer), round);
        }
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0; 4]).unwrap(), 0);
        assert_eq!(echo.join().unwrap().unwrap(), 4_000);
    });
}

#[test]
fn only_the_tasklet_waits() {
    bounded(|| {
        let (mut client, mut server) = pair();
        let reader = pila::tasklet(move || client.read(&mut [0; 8]).unwrap());
        let turns = Rc::new(Cell::new(0));
        let counted = Rc::clone(&turns);
        pila::tasklet(move || {
            for _ in 0..100 {
                counted.set(counted.get() + 1);
                pila::schedule();
            }
            server.write_all(b"at last").unwrap();
        });
        assert_eq!(reader.join().unwrap(), 7);
        assert_eq!(turns.get(), 100);
    });
}

#[test]
fn one_reads_while_another_writes() {
    bounded(|| {
        let (client, server) = pair();
        let (client, server) = (Rc::new(client), Rc::new(server));
        let pump = |from: &Rc<TcpStream>, byte: u8| {
            let stream = Rc::clone(from);
            pila::tasklet(move || {
                (&*stream).write_all(&vec![byte; FLOOD]).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            })
        };
        let drain = |from: &Rc<TcpStream>| {
            let stream = Rc::clone(from);
            pila::tasklet(move || {
                let mut received = Vec::new();
                (&*stream).read_to_end(&mut received).unwrap();
                received
            })
        };
        // Both directions are full at once: it hangs unless each of the four goes on by itself.
        let writers = [pump(&client, 1), pump(&server, 2)];
        let readers = [drain(&client), drain(&server)];
        for writer in writers {
            writer.join().unwrap();
        }
        let [at_client, at_server] = readers.map(|reader| reader.join().unwrap());
        assert_eq!(at_client.len(), FLOOD);
        assert!(at_client.iter().all(|&byte| byte == 2));
        assert_eq!(at_server.len(), FLOOD);
        assert!(at_server.iter().all(|&byte| byte == 1));
    });
}

#[test]
fn every_reader_of_one_socket_is_served() {
    bounded(|| {
        let (client, mut server) = pair();
        let client = Rc::new(client);
        let served = Rc::new(RefCell::new(Vec::new()));
        let readers: Vec<_> = (0..8)
            .map(|reader| {
                let (client, served) = (Rc::clone(&client), Rc::clone(&served));
                pila::tasklet(move || {
                    (&*client).read_exact(&mut [0]).unwrap();
                    served.borrow_mut().push(reader);
                })
            })
            .collect();
        pila::schedule();
        for written in 1..=8 {
            server.write_all(b"x").unwrap();
            while served.borrow().len() < written {
                pila::schedule();
            }
        }
        for reader in readers {
            reader.join().unwrap();
        }
        let mut all = served.borrow().clone();
        all.sort_unstable();
        assert_eq!(all, (0..8).collect::<Vec<_>>());
    });
}

#[test]
fn bytes_that_come_at_once_reach_every_reader() {
    bounded(|| {
        let (client, mut server) = pair();
        let client = Rc::new(client);
        let readers = [(); 8].map(|()| {
            let client = Rc::clone(&client);
            pila::tasklet(move || (&*client).read_exact(&mut [0; 2]))
        });
        pila::schedule();
        server.write_all(&[0; 16]).unwrap();
        for reader in readers {
            reader.join().unwrap().unwrap();
        }
    });
}

#[test]
fn the_end_is_seen_when_it_comes_with_the_last_bytes() {
    bounded(|| {
        // The buffer is larger than, as large as, and smaller than what comes.
        for (sent, room) in [(3, 16), (16, 16), (17, 16), (32, 16), (0, 16)] {
            for close in [true, false] {
                let (mut client, mut server) = pair();
                let reader = pila::tasklet(move || {
                    let mut received = 0;
                    loop {
                        match client.read(&mut vec![0; room]).unwrap() {
                            0 => return received,
                            read => received += read,
                        }
                    }
                });
                // It is registered and parked: one event now tells of the bytes and of the end.
                pila::schedule();
                server.write_all(&vec![0; sent]).unwrap();
                match close {
                    true => drop(server),
                    false => server.shutdown(Shutdown::Write).unwrap(),
                }
                assert_eq!(reader.join().unwrap(), sent);
            }
        }
    });
}

#[test]
fn the_end_is_seen_when_it_was_there_before_the_first_wait() {
    bounded(|| {
        let (mut client, mut server) = pair_with_std();
        server.write_all(b"bye").unwrap();
        drop(server);
        let mut received = String::new();
        client.read_to_string(&mut received).unwrap();
        assert_eq!(received, "bye");
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn after_a_half_close_the_other_half_goes_on() {
    bounded(|| {
        let (mut client, mut server) = pair();
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let answer = pila::tasklet(move || {
            let mut question = String::new();
            server.read_to_string(&mut question).unwrap();
            pila::schedule();
            server.write_all(question.replace("question", "answer").as_bytes()).unwrap();
        });
        let mut received = String::new();
        client.read_to_string(&mut received).unwrap();
        assert_eq!(received, "answer");
        answer.join().unwrap();
    });
}

#[test]
fn shutting_down_reading_wakes_the_reader() {
    bounded(|| {
        let (client, _server) = pair();
        let client = Rc::new(client);
        let parked = Rc::clone(&client);
        let reader = pila::tasklet(move || (&*parked).read(&mut [0; 8]));
        pila::schedule();
        client.shutdown(Shutdown::Read).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 0);
    });
}

#[test]
fn a_reset_reaches_reader_and_writer() {
    bounded(|| {
        let (client, server) = pair_with_std();
        let client = Rc::new(client);
        // Bytes that the peer never reads make its close a reset.
        (&*client).write_all(b"never read").unwrap();
        server.peek(&mut [0]).unwrap();
        let parked = Rc::clone(&client);
        let reader = pila::tasklet(move || (&*parked).read(&mut [0; 8]));
        let parked = Rc::clone(&client);
        let writer = pila::tasklet(move || (&*parked).write_all(&vec![0; FLOOD]));
        pila::schedule();
        drop(server);
        let (read, written) = (reader.join().unwrap(), writer.join().unwrap());
        let is_reset = |kind| matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
        assert!(is_reset(written.unwrap_err().kind()));
        // The system tells of a reset once: after the writer was told, there is only an end to read.
        match read {
            Ok(length) => assert_eq!(length, 0),
            Err(error) => assert!(is_reset(error.kind()), "{error}"),
        }
    });
}

#[test]
fn writing_to_a_closed_peer_is_a_broken_pipe() {
    bounded(|| {
        for vectored in [false, true] {
            let (mut client, server) = pair_with_std();
            drop(server);
            let failure = loop {
                let written = match vectored {
                    false => client.write(b"anyone?"),
                    true => client.write_vectored(&[IoSlice::new(b"any"), IoSlice::new(b"one?")]),
                };
                match written {
                    // The reset is still under way.
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                    Err(error) => break error,
                }
            };
            assert_eq!(failure.kind(), ErrorKind::BrokenPipe);
        }
    });
}

#[test]
fn peeking_leaves_the_bytes() {
    bounded(|| {
        let (mut client, mut server) = pair();
        let peeker = pila::tasklet(move || {
            for _ in 0..3 {
                let mut bytes = [0; 16];
                assert_eq!(client.peek(&mut bytes).unwrap(), 5);
                assert_eq!(&bytes[..5], b"hello");
            }
            let mut bytes = [0; 5];
            client.read_exact(&mut bytes).unwrap();
            bytes
        });
        pila::schedule();
        server.write_all(b"hello").unwrap();
        assert_eq!(&peeker.join().unwrap(), b"hello");
    });
}

#[test]
fn vectored_calls_fill_and_empty_all_buffers() {
    bounded(|| {
        let (mut client, mut server) = pair();
        let reader = pila::tasklet(move || {
            let (mut head, mut tail) = ([0; 2], [0; 8]);
            let buffers = &mut [IoSliceMut::new(&mut head), IoSliceMut::new(&mut tail)];
            assert_eq!(client.read_vectored(buffers).unwrap(), 5);
            assert_eq!((&head, &tail[..3]), (b"he", &b"llo"[..]));
            client.read(&mut tail).unwrap()
        });
        pila::schedule();
        assert_eq!(server.write_vectored(&[IoSlice::new(b"hel"), IoSlice::new(b"lo")]).unwrap(), 5);
        pila::schedule();
        drop(server);
        assert_eq!(reader.join().unwrap(), 0);
    });
}

#[test]
fn urgent_data_does_not_hide_what_follows_it() {
    bounded(|| {
        let (mut client, mut server) = pair();
        let reader = pila::tasklet(move || {
            let mut received = Vec::new();
            // A read ends in front of urgent data, however much follows.
            while received.len() < "beforeafter".len() {
                let mut bytes = [0; 64];
                let read = client.read(&mut bytes).unwrap();
                received.extend_from_slice(&bytes[..read]);
            }
            received
        });
        pila::schedule();
        server.write_all(b"before").unwrap();
        rustix::net::send(&server, b"!", SendFlags::OOB).unwrap();
        server.write_all(b"after").unwrap();
        assert_eq!(reader.join().unwrap(), b"beforeafter");
    });
}

#[test]
fn nonblocking_is_wouldblock_until_there_is_something() {
    bounded(|| {
        let (mut client, mut server) = pair();
        client.set_nonblocking(true).unwrap();
        for _ in 0..3 {
            assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
            assert_eq!(client.peek(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
            server.write_all(b"x").unwrap();
            // Nobody harvests events here: the bytes must be found without.
            while client.peek(&mut [0; 8]).is_err() {}
            assert_eq!(client.read(&mut [0; 8]).unwrap(), 1);
        }
        client.set_nonblocking(false).unwrap();
        let reader = pila::tasklet(move || client.read(&mut [0; 8]).unwrap());
        pila::schedule();
        server.write_all(b"xy").unwrap();
        assert_eq!(reader.join().unwrap(), 2);
    });
}

#[test]
fn a_socket_that_was_waited_on_can_turn_nonblocking() {
    bounded(|| {
        let (mut client, mut server) = pair();
        let reader = pila::tasklet(move || {
            assert_eq!(client.read(&mut [0; 8]).unwrap(), 1);
            client.set_nonblocking(true).unwrap();
            client
        });
        pila::schedule();
        server.write_all(b"x").unwrap();
        let mut client = reader.join().unwrap();
        server.write_all(b"y").unwrap();
        while client.read(&mut [0; 8]).is_err() {}
    });
}

#[test]
fn closing_a_clone_leaves_the_other_working() {
    bounded(|| {
        let (mut client, mut server) = pair();
        let clone = client.try_clone().unwrap();
        let both = [client.try_clone().unwrap(), clone].map(|mut clone| {
            pila::tasklet(move || {
                clone.read_exact(&mut [0]).unwrap();
                drop(clone);
            })
        });
        pila::schedule();
        server.write_all(b"xx").unwrap();
        for reader in both {
            reader.join().unwrap();
        }
        let reader = pila::tasklet(move || client.read(&mut [0; 8]).unwrap());
        pila::schedule();
        server.write_all(b"still here").unwrap();
        assert_eq!(reader.join().unwrap(), 8);
    });
}

#[test]
fn clones_share_being_nonblocking() {
    bounded(|| {
        let (client, _server) = pair();
        let mut clone = client.try_clone().unwrap();
        client.set_nonblocking(true).unwrap();
        assert_eq!(clone.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn a_waiter_that_unwinds_leaves_no_trace() {
    bounded(|| {
        struct ReadsInDrop(Rc<TcpStream>);
        impl Drop for ReadsInDrop {
            fn drop(&mut self) {
                let refused = (&*self.0).read(&mut [0; 8]).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Other);
            }
        }
        let (client, mut server) = pair();
        let client = Rc::new(client);
        let unwinding = Rc::clone(&client);
        let victim = pila::tasklet(move || {
            let _reads = ReadsInDrop(unwinding);
            panic!("on purpose");
        });
        assert!(victim.join().is_err());
        let reader = pila::tasklet(move || (&*client).read(&mut [0; 8]).unwrap());
        pila::schedule();
        server.write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap(), 1);
    });
}

#[test]
fn streams_go_where_stds_go() {
    fn everywhere<T>()
    where
        T: Send + Sync + std::fmt::Debug + Unpin + std::panic::UnwindSafe + 'static,
        T: std::panic::RefUnwindSafe,
    {
    }
    everywhere::<TcpStream>();
    everywhere::<TcpListener>();
    everywhere::<Incoming<'static>>();
}

#[test]
fn all_this_holds_portably() {
    again_portably();
}
