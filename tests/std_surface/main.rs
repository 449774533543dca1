//! Every stable method of std's sockets is here, with its name and its signature.

#![allow(deprecated, reason = "what std has deprecated it has all the same")]

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use system::left_out;

#[path = "../system/mod.rs"]
mod system;

/// What std has.
mod of_std {
    mod types {
        pub(crate) use std::net::{Incoming, TcpListener, TcpStream, UdpSocket};
        pub(crate) use std::os::unix::net::{Incoming as UnixIncoming, UnixDatagram};
        pub(crate) use std::os::unix::net::{UnixListener, UnixStream};
    }
    use std::os::unix::net as unix;

    pub(crate) mod methods {
        include!("methods.rs");
    }
}

/// The same in pila.
mod of_pila {
    mod types {
        pub(crate) use pila::net::unix::{Incoming as UnixIncoming, UnixDatagram};
        pub(crate) use pila::net::unix::{UnixListener, UnixStream};
        pub(crate) use pila::net::{Incoming, TcpListener, TcpStream, UdpSocket};
    }
    use pila::net::unix;

    pub(crate) mod methods {
        include!("methods.rs");
    }
}

/// What rustc prints, of the toolchain that these tests are built with.
fn rustc(arguments: &[&str]) -> String {
    let output = Command::new("rustc").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_string()
}

/// The stable methods of `type_name` in this source, which is formatted as rustfmt does.
fn stable_methods(source: &str, type_name: &str) -> BTreeSet<String> {
    let mut methods = BTreeSet::new();
    let (mut is_inside, mut is_unstable) = (false, false);
    let header = format!("impl {type_name} {{");
    for line in source.lines() {
        let code = line.trim();
        if !line.starts_with(' ') && !code.is_empty() {
            is_inside = line == header;
        }
        if code.is_empty() {
            is_unstable = false;
        }
        is_unstable |= code.starts_with("#[unstable(");
        if let (true, Some(rest)) = (is_inside, code.strip_prefix("pub fn ")) {
            let name = rest.split(['(', '<']).next().expect("there is a first part");
            if !is_unstable {
                methods.insert(name.to_string());
            }
        }
    }
    methods
}

#[test]
fn the_list_is_the_same_for_both() {
    assert_eq!(of_std::methods::NAMES, of_pila::methods::NAMES);
}

#[test]
fn no_method_of_the_std_at_hand_is_missing() {
    if rustc(&["--version"]).contains("-nightly") {
        return; // what is stable there is not yet stable
    }
    let sysroot = PathBuf::from(rustc(&["--print", "sysroot"]));
    let source = sysroot.join("lib/rustlib/src/rust/library/std/src");
    if !source.is_dir() {
        return left_out("rustup component add rust-src");
    }
    for (type_name, names) in of_pila::methods::NAMES {
        let file = match *type_name {
            "TcpStream" | "TcpListener" => "net/tcp.rs",
            "UdpSocket" => "net/udp.rs",
            "UnixStream" => "os/unix/net/stream.rs",
            "UnixListener" => "os/unix/net/listener.rs",
            "UnixDatagram" => "os/unix/net/datagram.rs",
            other => panic!("where is std's {other}?"),
        };
        let expected = stable_methods(&fs::read_to_string(source.join(file)).unwrap(), type_name);
        let ours: BTreeSet<String> = names.iter().map(|name| name.to_string()).collect();
        assert!(
            expected.len() >= 8,
            "{type_name}: std's source is written differently: {expected:?}"
        );
        assert_eq!(ours, expected, "{type_name}: std's are on the right");
    }
}
