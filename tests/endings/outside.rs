//! The calls that wait for something outside of the process's tasklets: sockets, descriptors, processes, signals, names.

use std::{
    io::{IoSlice, IoSliceMut, PipeReader, PipeWriter, Read, Write, pipe},
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

use pila::{
    Group, Signal,
    net::{
        TcpListener, TcpStream, ToSocketAddrs, UdpSocket, UnixDatagram, UnixListener, UnixStream,
        Watch, readable, unix, writable,
    },
    process::{Child, Command, Stdio},
    signals, sleep,
};
use rustix::{
    io::{Errno, ioctl_fionbio},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, listen, socket_with},
};

use crate::{
    calls::{Call, Ready, ready, shared},
    names::SILENT,
    net_support::{FLOOD, pair},
    places::{Hanging, NEVER},
};

fn on_sockets(call: impl FnOnce(&mut TcpStream) + 'static) -> Ready {
    let (mut mine, peer) = pair();
    ready(move || call(&mut mine)).and_after(move || drop(peer))
}

fn on_listener(call: fn(&TcpListener)) -> Ready {
    shared(TcpListener::bind("127.0.0.1:0").unwrap(), call, |listener| {
        let address = listener.local_addr().unwrap();
        let client = pila::tasklet(move || TcpStream::connect(address).unwrap());
        listener.accept().unwrap();
        client.join().unwrap();
    })
}

fn on_hanging(call: fn(&Hanging)) -> Ready {
    shared(Hanging::new(), call, |_| ())
}

fn on_udp(call: fn(&UdpSocket)) -> Ready {
    shared(UdpSocket::bind("127.0.0.1:0").unwrap(), call, |socket| {
        socket.send_to(b"late", socket.local_addr().unwrap()).unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 4);
    })
}

fn on_unix(call: impl FnOnce(&mut UnixStream) + 'static) -> Ready {
    let (mut mine, peer) = UnixStream::pair().unwrap();
    ready(move || call(&mut mine)).and_after(move || drop(peer))
}

/// A name for a Unix socket that no other test of this machine has.
fn abstract_name(what: &str) -> String {
    format!("pila-endings-{what}-{}", std::process::id())
}

/// A Unix listener whose queue is full, and those who fill it.
fn full_unix_listener() -> (unix::SocketAddr, Vec<OwnedFd>) {
    use std::os::linux::net::SocketAddrExt;

    let name = abstract_name("full");
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
    let new = || {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
    };
    let listener = new();
    rustix::net::bind(&listener, &address).unwrap();
    listen(&listener, 0).unwrap();
    let mut all = vec![listener];
    loop {
        let queued = new();
        match connect(&queued, &address) {
            Ok(()) => all.push(queued),
            Err(error) => break assert_eq!(error, Errno::AGAIN),
        }
        assert!(all.len() < 100, "a queue for none takes a hundred");
    }
    (unix::SocketAddr::from_abstract_name(name).unwrap(), all)
}

fn on_unix_listener(call: fn(&UnixListener)) -> Ready {
    use std::os::linux::net::SocketAddrExt;

    let address = unix::SocketAddr::from_abstract_name(abstract_name("listener")).unwrap();
    shared(UnixListener::bind_addr(&address).unwrap(), call, |listener| {
        let address = listener.local_addr().unwrap();
        let client = pila::tasklet(move || UnixStream::connect_addr(&address).unwrap());
        listener.accept().unwrap();
        client.join().unwrap();
    })
}

fn on_datagrams(call: fn(&UnixDatagram)) -> Ready {
    let (mine, peer) = UnixDatagram::pair().unwrap();
    ready(move || call(&mine)).and_after(move || drop(peer))
}

/// The end of a pipe that nothing comes out of.
fn on_pipe(call: fn(&PipeReader)) -> Ready {
    let (output, input) = pipe().unwrap();
    ready(move || call(&output)).and_after(move || drop(input))
}

/// The end of a pipe that nothing more goes into.
fn on_full_pipe(call: fn(&PipeWriter)) -> Ready {
    let (output, mut input) = pipe().unwrap();
    ioctl_fionbio(&input, true).unwrap();
    while input.write(&[0; 4096]).is_ok() {}
    ready(move || call(&input)).and_after(move || drop(output))
}

/// A command that ends when what this holds is dropped.
fn on_command(call: fn(Command)) -> Ready {
    let (output, input) = pipe().unwrap();
    let mut command = Command::new("cat");
    command.stdin(Stdio::from(OwnedFd::from(output))).stdout(Stdio::null());
    ready(move || call(command)).and_after(move || drop(input))
}

fn on_child(call: fn(&mut Child)) -> Ready {
    let mut command = Command::new("cat");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Without this it would be closed by whoever waits for the end.
    let input = child.stdin.take();
    ready(move || call(&mut child)).and_after(move || drop(input))
}

fn on_group(call: fn(&Group)) -> Ready {
    let group = Group::new();
    let member = group.tasklet(|| sleep(NEVER));
    ready(move || call(&group)).and_after(move || member.kill().unwrap())
}

pub(crate) const CALLS: &[Call] = &[
    Call {
        name: "`TcpStream::connect`",
        set_up: || on_hanging(|hanging| drop(TcpStream::connect(hanging.address))),
    },
    Call {
        name: "`TcpStream::connect_timeout`",
        set_up: || on_hanging(|hanging| drop(TcpStream::connect_timeout(&hanging.address, NEVER))),
    },
    Call {
        name: "`TcpStream::read`",
        set_up: || on_sockets(|stream| drop(stream.read(&mut [0; 8]))),
    },
    Call {
        name: "`TcpStream::read_vectored`",
        set_up: || {
            on_sockets(|stream| drop(stream.read_vectored(&mut [IoSliceMut::new(&mut [0; 8])])))
        },
    },
    Call {
        name: "`TcpStream::peek`",
        set_up: || on_sockets(|stream| drop(stream.peek(&mut [0; 8]))),
    },
    Call {
        name: "`TcpStream::write`",
        set_up: || on_sockets(|stream| drop(stream.write_all(&vec![0; FLOOD]))),
    },
    Call {
        name: "`TcpStream::write_vectored`",
        set_up: || {
            on_sockets(|stream| {
                let part = vec![0; 1 << 16];
                while stream.write_vectored(&[IoSlice::new(&part), IoSlice::new(&part)]).is_ok() {}
            })
        },
    },
    Call {
        name: "`TcpListener::accept`",
        set_up: || on_listener(|listener| drop(listener.accept())),
    },
    Call {
        name: "`TcpListener::incoming`",
        set_up: || on_listener(|listener| drop(listener.incoming().next())),
    },
    Call {
        name: "`UdpSocket::recv_from`",
        set_up: || on_udp(|socket| drop(socket.recv_from(&mut [0; 8]))),
    },
    Call {
        name: "`UdpSocket::peek_from`",
        set_up: || on_udp(|socket| drop(socket.peek_from(&mut [0; 8]))),
    },
    Call { name: "`UdpSocket::recv`", set_up: || on_udp(|socket| drop(socket.recv(&mut [0; 8]))) },
    Call { name: "`UdpSocket::peek`", set_up: || on_udp(|socket| drop(socket.peek(&mut [0; 8]))) },
    Call {
        name: "`UnixStream::connect`",
        set_up: || {
            let (address, full) = full_unix_listener();
            ready(move || drop(UnixStream::connect_addr(&address))).and_after(move || drop(full))
        },
    },
    Call {
        name: "`UnixStream::read`",
        set_up: || on_unix(|stream| drop(stream.read(&mut [0; 8]))),
    },
    Call {
        name: "`UnixStream::write`",
        set_up: || on_unix(|stream| drop(stream.write_all(&vec![0; FLOOD]))),
    },
    Call {
        name: "`UnixListener::accept`",
        set_up: || on_unix_listener(|listener| drop(listener.accept())),
    },
    Call {
        name: "`UnixDatagram::recv`",
        set_up: || on_datagrams(|socket| drop(socket.recv(&mut [0; 8]))),
    },
    Call {
        name: "`UnixDatagram::recv_from`",
        set_up: || on_datagrams(|socket| drop(socket.recv_from(&mut [0; 8]))),
    },
    Call {
        name: "`UnixDatagram::send`",
        set_up: || on_datagrams(|socket| while socket.send(&[0; 4096]).is_ok() {}),
    },
    Call { name: "`net::readable`", set_up: || on_pipe(|output| drop(readable(output))) },
    Call { name: "`net::writable`", set_up: || on_full_pipe(|input| drop(writable(input))) },
    Call {
        name: "`Watch::readable`",
        set_up: || on_pipe(|output| drop(Watch::new(output.as_fd()).readable())),
    },
    Call {
        name: "`Watch::write_with`",
        set_up: || {
            on_full_pipe(|input| {
                let watch = Watch::new(input);
                drop(
                    watch.write_with(|input| {
                        rustix::io::write(*input, &[0; 4096]).map_err(Into::into)
                    }),
                );
            })
        },
    },
    Call {
        name: "`process::Command::status`",
        set_up: || on_command(|mut command| drop(command.status())),
    },
    Call {
        name: "`process::Command::output`",
        set_up: || on_command(|mut command| drop(command.stdout(Stdio::piped()).output())),
    },
    Call { name: "`process::Child::wait`", set_up: || on_child(|child| drop(child.wait())) },
    Call {
        name: "`process::ChildStdout::read`",
        set_up: || on_child(|child| drop(child.stdout.as_mut().unwrap().read(&mut [0; 8]))),
    },
    Call {
        name: "`Signals::receive`",
        set_up: || {
            shared(signals([Signal::USER2]).unwrap(), |signals| drop(signals.receive()), |_| ())
        },
    },
    Call {
        name: "`Signals::receive_timeout`",
        set_up: || {
            shared(
                signals([Signal::USER2]).unwrap(),
                |signals| drop(signals.receive_timeout(NEVER)),
                |_| (),
            )
        },
    },
    Call { name: "`Group::stop`", set_up: || on_group(|group| _ = group.stop(NEVER)) },
    Call {
        name: "`Group::until_stop`",
        set_up: || on_group(|group| _ = group.until_stop(|| sleep(NEVER))),
    },
];

/// Those that look up a name: for a process that asks a name server which says nothing.
pub(crate) const NAMED: &[Call] = &[
    Call {
        name: "`TcpStream::connect` to a name",
        set_up: || ready(|| drop(TcpStream::connect(SILENT))),
    },
    Call {
        name: "`ToSocketAddrs::to_socket_addrs`",
        set_up: || ready(|| drop(SILENT.to_socket_addrs())),
    },
    Call {
        name: "`UdpSocket::send_to` a name",
        set_up: || {
            let socket = Rc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
            ready(move || drop(socket.send_to(b"lost", SILENT)))
        },
    },
];
