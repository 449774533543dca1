//! Names that are never found: tests that look one up run in a process that asks a name server of ours, which says
//! nothing.

use std::{fs, net::Ipv4Addr, time::Duration};

use pila::{net::TcpStream, sleep, tasklet};

use crate::{
    alone,
    resolver::{NameServer, is_asking, run_asking, works},
    system::{PATIENCE, until},
};

/// A name that is looked up for longer than any test takes.
pub(crate) const SILENT: &str = "silent.example:25";

/// Runs `body`, the whole of the test `name`, in a process where names are never found. Where there can be none, here.
pub(crate) fn where_names_are_never_found(name: &str, body: impl FnOnce()) {
    if is_asking() || !works() {
        return body();
    }
    let _alone = alone();
    run_asking(&NameServer::silent(), name);
}

/// Whether names are never found here.
pub(crate) fn are_never_found() -> bool {
    is_asking()
}

/// Has the name asked for. It goes on being asked for when nobody waits for it any more, and everyone who comes later waits
/// for the same answer: so the descriptor that this takes is not theirs.
pub(crate) fn ask() {
    if !is_asking() {
        return;
    }
    let asks = tasklet(|| TcpStream::connect(SILENT));
    until("the question is on its way", PATIENCE, || {
        sleep(Duration::from_millis(1));
        is_asked().then_some(())
    });
    asks.kill().unwrap();
}

/// Whether some process asks the name server of this one.
fn is_asked() -> bool {
    let configuration = fs::read_to_string("/etc/resolv.conf").unwrap();
    let server = configuration.lines().find_map(|line| line.strip_prefix("nameserver ")).unwrap();
    let server: Ipv4Addr = server.trim().parse().unwrap();
    let peer = format!("{:08X}:0035", u32::from_le_bytes(server.octets()));
    let sockets = fs::read_to_string("/proc/net/udp").unwrap();
    sockets.lines().any(|line| line.split_whitespace().nth(2) == Some(&*peer))
}
