//! Sockets between threads: used, waited on and dropped where they were not made.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net;
use std::os::fd::AsFd;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use net_support::{FLOOD, again_portably, bounded, pair, pair_with_std};
use pila::net::{TcpListener, TcpStream};

mod net_support;

/// Has the calling thread wait on `stream` once, so that it is registered here.
fn settle(stream: &TcpStream, peer: &TcpStream) {
    (&*peer).write_all(b"x").unwrap();
    (&*stream).read_exact(&mut [0]).unwrap();
}

#[test]
fn a_thread_that_ends_says_so_to_who_would_wait_on_a_socket() {
    struct Late(TcpListener, mpsc::Sender<String>);

    impl Drop for Late {
        fn drop(&mut self) {
            let error = self.0.accept().map(drop).unwrap_err();
            self.1.send(error.to_string()).unwrap();
        }
    }

    thread_local! {
        static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
    }

    let (sender, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        LATE.with(|late| late.replace(Some(Late(listener, sender))));
        pila::tasklet(|| ());
        pila::run();
    });
    thread.join().unwrap();
    let told = told.recv().unwrap();
    assert!(told.contains("the thread is ending"), "{told}");
}

#[test]
fn a_stream_moves_to_another_thread() {
    bounded(|| {
        let (mut client, server) = pair();
        settle(&server, &client);
        settle(&client, &server);
        let there = thread::spawn(move || {
            let echo = pila::tasklet(move || {
                let mut server = server;
                let mut line = [0; 4];
                for _ in 0..100 {
                    server.read_exact(&mut line).unwrap();
                    server.write_all(&line).unwrap();
                }
                // Dropped here, while the thread where it was registered first lives.
            });
            echo.join().unwrap();
        });
        for round in 0..100_u32 {
            client.write_all(&round.to_le_bytes()).unwrap();
            let mut answer = [0; 4];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(u32::from_le_bytes(answer), round);
        }
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        there.join().unwrap();
        // This thread's poller still works.
        let (client, server) = pair();
        settle(&client, &server);
    });
}

#[test]
fn a_stream_outlives_the_thread_that_made_it() {
    bounded(|| {
        let (mut client, mut server) = thread::spawn(|| {
            let (client, server) = pair();
            settle(&client, &server);
            settle(&server, &client);
            (client, server)
        })
        .join()
        .unwrap();
        let reader = pila::tasklet(move || {
            let mut received = Vec::new();
            client.read_to_end(&mut received).unwrap();
            received.len()
        });
        pila::schedule();
        server.write_all(&vec![0; FLOOD]).unwrap();
        drop(server);
        assert_eq!(reader.join().unwrap(), FLOOD);
    });
}

#[test]
fn two_threads_wait_on_one_stream() {
    bounded(|| {
        let (stream, mut peer) = pair_with_std();
        let stream = Arc::new(stream);
        let (report, reports) = mpsc::channel();
        let readers = [(); 2].map(|()| {
            let (stream, report) = (Arc::clone(&stream), report.clone());
            thread::spawn(move || {
                loop {
                    let read = (&*stream).read(&mut [0]).unwrap();
                    report.send((thread::current().id(), read)).unwrap();
                    if read == 0 {
                        break;
                    }
                }
            })
        });
        // Each byte is read once, by whichever thread is there first.
        for _ in 0..1_000 {
            peer.write_all(b"x").unwrap();
            assert_eq!(reports.recv().unwrap().1, 1);
        }
        drop(peer);
        let ends = [reports.recv().unwrap(), reports.recv().unwrap()];
        assert_ne!(ends[0].0, ends[1].0);
        assert_eq!(ends.map(|end| end.1), [0, 0]);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn one_thread_reads_while_another_writes() {
    bounded(|| {
        let (client, server) = pair();
        let (client, server) = (Arc::new(client), Arc::new(server));
        let threads = [(&client, &server), (&server, &client)].map(|(from, to)| {
            let writer = Arc::clone(from);
            let reader = Arc::clone(to);
            let writing = thread::spawn(move || {
                (&*writer).write_all(&vec![7; FLOOD]).unwrap();
                writer.shutdown(net::Shutdown::Write).unwrap();
            });
            let reading = thread::spawn(move || {
                let mut received = Vec::new();
                (&*reader).read_to_end(&mut received).unwrap();
                received.len()
            });
            (writing, reading)
        });
        for (writing, reading) in threads {
            writing.join().unwrap();
            assert_eq!(reading.join().unwrap(), FLOOD);
        }
    });
}

#[test]
fn threads_accept_from_one_listener() {
    bounded(|| {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        let start = Arc::new(Barrier::new(5));
        let acceptors = [(); 4].map(|()| {
            let (listener, start) = (Arc::clone(&listener), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                for stream in listener.incoming().take(50) {
                    stream.unwrap().write_all(b"welcome").unwrap();
                }
            })
        });
        start.wait();
        for _ in 0..200 {
            let mut greeting = String::new();
            TcpStream::connect(address).unwrap().read_to_string(&mut greeting).unwrap();
            assert_eq!(greeting, "welcome");
        }
        for acceptor in acceptors {
            acceptor.join().unwrap();
        }
    });
}

#[test]
fn events_of_a_closed_stream_reach_nobody_else() {
    bounded(|| {
        for elsewhere in [false, true] {
            let (old, old_peer) = pair();
            settle(&old, &old_peer);
            // With a duplicate the kernel would keep the closed stream registered.
            let duplicate = old.as_fd().try_clone_to_owned().unwrap();
            match elsewhere {
                false => drop(old),
                true => thread::spawn(move || drop(old)).join().unwrap(),
            }
            let (mut new, mut new_peer) = pair();
            new.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            (&old_peer).write_all(b"for the old one").unwrap();
            assert!(new.read(&mut [0; 16]).is_err());
            new_peer.write_all(b"new").unwrap();
            assert_eq!(new.read(&mut [0; 16]).unwrap(), 3);
            drop(duplicate);
        }
    });
}

/// Reads when its thread's locals are destroyed. Nothing is there to read.
struct ReadsLast(TcpStream, mpsc::Sender<io::Result<usize>>);

impl Drop for ReadsLast {
    fn drop(&mut self) {
        self.1.send((&self.0).read(&mut [0; 8])).unwrap();
    }
}

#[test]
fn a_read_while_thread_locals_go_ends() {
    thread_local!(static LAST: RefCell<Option<ReadsLast>> = const { RefCell::new(None) });
    bounded(|| {
        // They are destroyed in reverse: the socket outlives the scheduler and the poller, or it does not.
        for (outlives, waited) in [(true, true), (true, false), (false, true), (false, false)] {
            let (report, reports) = mpsc::channel();
            let (peer, peers) = mpsc::channel();
            thread::spawn(move || {
                if outlives {
                    LAST.set(None);
                }
                let (client, server) = pair();
                client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                if waited {
                    settle(&client, &server);
                }
                peer.send(server).unwrap();
                LAST.set(Some(ReadsLast(client, report)));
            })
            .join()
            .unwrap();
            let kind = reports.recv().unwrap().unwrap_err().kind();
            match outlives {
                true => assert_eq!(kind, io::ErrorKind::Other),
                false => assert!(matches!(kind, io::ErrorKind::Other | io::ErrorKind::WouldBlock)),
            }
            drop(peers);
        }
    });
}

#[test]
fn all_this_holds_portably() {
    again_portably();
}
