//! A chat server. Whoever reads too slowly is shown the door, and nobody waits for him.
//!
//!     cargo run --release --example chat -- --listen 127.0.0.1:7008
//!
//! Enter with `nc 127.0.0.1 7008`, more than once. It prints
//!
//!     listening at 127.0.0.1:7008

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr},
    rc::Rc,
    time::Duration,
};

use clap::Parser;
use pila::{
    Channel,
    net::{TcpListener, TcpStream},
};

/// How many lines may wait for a member to read them.
const BACKLOG: usize = 100;
/// How many bytes a line may have; longer ones are broken up.
const LINE: u64 = 1024;
/// How long a member may take to read the next one.
const PATIENCE: Duration = Duration::from_secs(30);

/// A chat server
#[derive(Parser)]
struct Options {
    /// Where to listen; port 0 lets the system choose
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

/// Who is in the room.
struct Member {
    stream: TcpStream,
    /// What the member has yet to be sent.
    lines: Channel<Rc<str>>,
}

/// Those who hear each other, by name. One thread, so a `RefCell` will do; it is never borrowed across a wait.
#[derive(Default)]
struct Room(RefCell<BTreeMap<String, Rc<Member>>>);

impl Room {
    /// Lets a member in, unless somebody there has that name.
    fn enter(&self, name: &str, member: &Rc<Member>) -> bool {
        let mut members = self.0.borrow_mut();
        let is_free = !members.contains_key(name);
        if is_free {
            members.insert(name.to_string(), member.clone());
        }
        is_free
    }

    /// Has everyone but `speaker` hear `line`. A member for whom too much waits already loses the connection.
    fn tell(&self, speaker: &str, line: &str) {
        let line: Rc<str> = format!("{line}\n").into();
        let members = self.0.borrow();
        let others: Vec<_> = members
            .iter()
            .filter(|(name, _)| *name != speaker)
            .map(|(_, other)| other.clone())
            .collect();
        drop(members);
        for member in others {
            if member.lines.try_send(line.clone()).is_err() {
                member.stream.shutdown(Shutdown::Both).ok();
            }
        }
    }
}

/// The next line, or the end.
fn read_line(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let count = reader.take(LINE).read_until(b'\n', &mut line)?;
    Ok((count > 0).then(|| String::from_utf8_lossy(&line).trim().to_string()))
}

/// Asks for a name until it is one that can be had. `None` if the guest would rather leave.
fn admit(
    room: &Room,
    member: &Rc<Member>,
    reader: &mut BufReader<&TcpStream>,
) -> io::Result<Option<String>> {
    let mut stream = &member.stream;
    stream.write_all(b"your name?\n")?;
    while let Some(name) = read_line(reader)? {
        if name.is_empty() || !name.chars().all(char::is_alphanumeric) {
            stream.write_all(b"letters and digits, please\n")?;
        } else if !room.enter(&name, member) {
            stream.write_all(b"somebody has that name\n")?;
        } else {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Has the room hear what a member says, until the member leaves.
fn listen(room: &Room, name: &str, reader: &mut BufReader<&TcpStream>) -> io::Result<()> {
    while let Some(line) = read_line(reader)? {
        room.tell(name, &format!("{name}: {line}"));
    }
    Ok(())
}

fn serve(room: &Room, stream: TcpStream) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let member = Rc::new(Member { stream, lines: Channel::with_capacity(BACKLOG) });
    let mut reader = BufReader::new(&member.stream);
    let Some(name) = admit(room, &member, &mut reader)? else { return Ok(()) };
    room.tell(&name, &format!("* {name} is here"));
    let theirs = member.clone();
    pila::tasklet(move || {
        theirs.lines.iter().try_for_each(|line| (&theirs.stream).write_all(line.as_bytes()))
    });
    let left = listen(room, &name, &mut reader);
    room.0.borrow_mut().remove(&name);
    member.lines.close();
    room.tell(&name, &format!("* {name} has left"));
    left
}

fn main() -> io::Result<()> {
    let listener = TcpListener::bind(Options::parse().listen)?;
    println!("listening at {}", listener.local_addr()?);
    let room = Rc::new(Room::default());
    for stream in listener.incoming() {
        let (room, stream) = (room.clone(), stream?);
        // Whoever loses the connection has left, which the others are told.
        pila::tasklet(move || serve(&room, stream));
    }
    Ok(())
}
