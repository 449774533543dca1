//! WebSockets both ways: tungstenite's client against a server in Python, and a client in Python against tungstenite's server.
//!
//! crate: tungstenite | how: `tungstenite::client(url, stream)` and `tungstenite::accept(stream)` with a `TcpStream` of pila's

use std::process::{Command, Stdio};

use books::Books;
use pila::net::{TcpListener, TcpStream};
use python::{PYTHON, Python, has_python_with};
use system::{PATIENCE, bounded, finish};
use tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tungstenite::{Bytes, Error, Message};

mod books;
mod python;
#[path = "../../system/mod.rs"]
mod system;

const ECHO: &str = r#"
import asyncio, websockets
async def echo(socket, path=None):
    async for message in socket:
        await socket.send(message)
async def main():
    async with websockets.serve(echo, "127.0.0.1", 0, backlog=1024) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()
asyncio.run(main())
"#;

#[test]
fn a_hundred_clients_are_heard_by_a_server_in_python() {
    let _books = Books::open();
    if !has_python_with("websockets") {
        return;
    }
    let server = Python::serve(ECHO);
    let address = server.address;
    bounded(PATIENCE, move || {
        pila::scope(|s| {
            for number in 0..100 {
                s.tasklet(move || {
                    let stream = TcpStream::connect(address).unwrap();
                    let url = format!("ws://{address}/");
                    let (mut socket, _) = tungstenite::client(url, stream).unwrap();
                    // Text, and more than any buffer holds.
                    let words = Message::text(format!("number {number}"));
                    let flood = Message::binary(Bytes::from(vec![number; 500_000]));
                    for message in [words, flood] {
                        socket.send(message.clone()).unwrap();
                        assert!(socket.read().unwrap() == message);
                    }
                    socket.send(Message::Ping("are you there".into())).unwrap();
                    assert_eq!(socket.read().unwrap(), Message::Pong("are you there".into()));
                    let code = CloseCode::Normal;
                    socket.close(Some(CloseFrame { code, reason: "done".into() })).unwrap();
                    assert!(matches!(socket.read().unwrap(), Message::Close(_)));
                    assert!(matches!(socket.read(), Err(Error::ConnectionClosed)));
                });
            }
        });
    });
}

const CLIENTS: &str = r#"
import asyncio, sys, websockets
async def converse(number):
    async with websockets.connect(sys.argv[1], open_timeout=60) as socket:
        for message in [f"number {number}", bytes([number]) * 500000, ""]:
            await socket.send(message)
            assert await socket.recv() == message
        await asyncio.wait_for(await socket.ping(), 60)
async def main():
    await asyncio.gather(*[converse(number) for number in range(100)])
    print("all heard")
asyncio.run(main())
"#;

/// Gives back what comes, until the client closes.
fn echo(stream: TcpStream) -> Result<(), Error> {
    let mut socket = tungstenite::accept(stream).expect("a client that wants a WebSocket");
    loop {
        // It answers pings, and confirms the end, by itself.
        let message = socket.read()?;
        if message.is_text() || message.is_binary() {
            socket.send(message)?;
        }
    }
}

#[test]
fn a_hundred_clients_in_python_are_heard_by_a_server_here() {
    let _books = Books::open();
    if !has_python_with("websockets") {
        return;
    }
    bounded(PATIENCE, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        let server = pila::tasklet(move || {
            let accepted = listener.incoming().take(100);
            let echoes: Vec<_> =
                accepted.map(|stream| pila::tasklet(move || echo(stream.unwrap()))).collect();
            for ended in echoes {
                assert!(matches!(ended.join().unwrap(), Err(Error::ConnectionClosed)));
            }
        });
        let mut clients = Command::new(PYTHON);
        clients.args(["-c", CLIENTS, &url]).stdin(Stdio::null());
        let outcome = finish(&mut clients, PATIENCE);
        assert_eq!(outcome.stdout, "all heard\n", "{outcome:?}");
        server.join().unwrap();
    });
}
