//! A thousand connections at once, on one thread.

use std::{
    io::{Read, Write},
    rc::Rc,
    time::Instant,
};

use pila::{
    net::{TcpListener, TcpStream},
    sync::Barrier,
    tasklet, tls,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{client, leaving_nothing, server, system::tell};

const CONNECTIONS: usize = 1_000;

#[test]
fn a_thousand_connections_at_once_on_one_thread_with_the_default_stack() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    leaving_nothing(|| {
        let start = Instant::now();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = (client(), server());
        // Nobody goes on before all have shaken hands.
        let all = Rc::new(Barrier::new(CONNECTIONS));
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                let (config, all) = (client.clone(), all.clone());
                tasklet(move || {
                    let stream = TcpStream::connect(address).unwrap();
                    let mut stream = tls::connect_with(config, "localhost", stream).unwrap();
                    all.wait().unwrap();
                    let question = format!("{number:>8}");
                    stream.write_all(question.as_bytes()).unwrap();
                    let mut answer = [0; 8];
                    stream.read_exact(&mut answer).unwrap();
                    assert_eq!(answer, question.as_bytes());
                    stream.close().unwrap();
                })
            })
            .collect();
        let accepting = tasklet(move || {
            for _ in 0..CONNECTIONS {
                let (stream, config) = (listener.accept().unwrap().0, server.clone());
                tasklet(move || {
                    let mut stream = tls::accept(config, stream).unwrap();
                    let mut question = [0; 8];
                    stream.read_exact(&mut question).unwrap();
                    stream.write_all(&question).unwrap();
                    stream.close().unwrap();
                });
            }
        });
        for client in clients {
            client.join().unwrap();
        }
        accepting.join().unwrap();
        tell(&format!("{CONNECTIONS} TLS connections at once, both ends: {:?}", start.elapsed()));
    });
}
