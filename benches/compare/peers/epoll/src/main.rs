//! The floor of the echo: a bare `epoll` loop, level-triggered, that reads and writes whatever is ready.

#[path = "../../../../ready/mod.rs"]
mod ready;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

use measure::{BUFFER, Work, answer, unsupported};
use ready::Ready;
use rustix::net::listen;

fn echo() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    // A longer queue than std gives, for those who connect while the loop is busy.
    listen(&listener, 4096)?;
    listener.set_nonblocking(true)?;
    let ready = Ready::new();
    ready.add(&listener, 0);
    answer("port", listener.local_addr()?.port());
    let (mut streams, mut buffer) = (Vec::<Option<TcpStream>>::new(), [0; BUFFER]);
    let mut events = Vec::new();
    loop {
        for number in ready.wait(None, &mut events) {
            let Some(place) = number.checked_sub(1) else {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    streams.push(Some(stream));
                    ready.add(
                        &streams[streams.len() - 1].as_ref().expect("just put there"),
                        streams.len(),
                    );
                }
                continue;
            };
            let Some(stream) = &mut streams[place] else { continue };
            match stream.read(&mut buffer) {
                Ok(read @ 1..) if stream.write_all(&buffer[..read]).is_ok() => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                _ => streams[place] = None,
            }
        }
    }
}

fn main() {
    match Work::asked() {
        Work::Echo => echo().expect("there are descriptors enough"),
        _ => unsupported(),
    }
}
