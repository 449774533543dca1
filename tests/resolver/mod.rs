//! A name server of our own, and processes that ask it and no other.

use std::{
    collections::BTreeMap,
    env, fs,
    net::{Ipv4Addr, UdpSocket},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    thread,
};

use super::system::{Directory, PATIENCE, finish, is_root, left_out, peer, tell};

/// Tells a process that it is one that asks our server.
const ASKING: &str = "PILA_TEST_ASKING";

/// How often each name was asked for, and what about it: 1 is IPv4, 28 is IPv6.
pub(crate) type Asked = BTreeMap<(String, u16), usize>;

/// A name server at port 53 of an address of its own.
#[derive(Debug)]
pub(crate) struct NameServer {
    socket: Arc<UdpSocket>,
    asked: Arc<Mutex<Asked>>,
}

impl NameServer {
    /// One that says nothing to anybody.
    pub(crate) fn silent() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(53);
        // Nobody else has this one: it is made of the number of the process.
        let [.., a, b] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, NEXT.fetch_add(1, Ordering::Relaxed), a, b);
        let socket = UdpSocket::bind((address, 53)).unwrap();
        Self { socket: Arc::new(socket), asked: Arc::default() }
    }

    /// One that knows the IPv4 addresses of these names, and that there are no others.
    pub(crate) fn that_knows(names: &'static [(&str, &[Ipv4Addr])]) -> Self {
        let server = Self::silent();
        let (socket, asked) = (server.socket.clone(), server.asked.clone());
        thread::spawn(move || {
            let mut packet = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut packet) {
                let (name, kind, end) = question(&packet[..length]);
                *asked.lock().unwrap().entry((name.clone(), kind)).or_default() += 1;
                let known = names.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name));
                let addresses = known.map(|(_, addresses)| *addresses);
                let answer = answer(&packet[..end], kind, addresses);
                socket.send_to(&answer, from).unwrap();
            }
        });
        server
    }

    /// What was asked so far.
    pub(crate) fn asked(&self) -> Asked {
        self.asked.lock().unwrap().clone()
    }
}

/// The name that is asked for, what about it, and where the question ends.
fn question(packet: &[u8]) -> (String, u16, usize) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while packet[at] != 0 {
        let end = at + 1 + packet[at] as usize;
        labels.push(str::from_utf8(&packet[at + 1..end]).unwrap());
        at = end;
    }
    (labels.join("."), u16::from_be_bytes([packet[at + 1], packet[at + 2]]), at + 5)
}

/// The answer to `question`, which is a packet up to the end of its question.
fn answer(question: &[u8], kind: u16, addresses: Option<&[Ipv4Addr]>) -> Vec<u8> {
    let found = if kind == 1 { addresses.unwrap_or_default() } else { &[] };
    let mut packet = question.to_vec();
    // An answer, recursion available; there is no such name, if it is not known.
    packet[2..4].copy_from_slice(&[0x81, if addresses.is_some() { 0x80 } else { 0x83 }]);
    packet[4..12].copy_from_slice(&[0, 1, 0, found.len() as u8, 0, 0, 0, 0]);
    for address in found {
        // The name is where the question has it; IPv4, internet, good for a minute, four bytes.
        packet.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        packet.extend_from_slice(&address.octets());
    }
    packet
}

/// Whether this is a process that asks our server.
pub(crate) fn is_asking() -> bool {
    env::var_os(ASKING).is_some()
}

/// Whether a test may give a process files of its own in place of the system's; if not, it has to be left out.
#[track_caller]
pub(crate) fn works() -> bool {
    let Some(unshare) = peer("unshare").filter(|_| is_root()) else { return false };
    let works = Command::new(unshare).args(["--mount", "true"]).status().unwrap().success();
    if !works {
        left_out("this root may not make mount namespaces");
    }
    works
}

/// Runs the test `name` once more, as a process that asks `server` and no other.
#[track_caller]
pub(crate) fn run_asking(server: &NameServer, name: &str) {
    let directory = Directory::new("resolver");
    let address = server.socket.local_addr().unwrap().ip();
    let options = "options timeout:30 attempts:5";
    fs::write(directory.join("resolv.conf"), format!("nameserver {address}\n{options}\n")).unwrap();
    fs::write(directory.join("nsswitch.conf"), "hosts: files dns\n").unwrap();
    let script = "mount --bind \"$0/resolv.conf\" /etc/resolv.conf &&
        mount --bind \"$0/nsswitch.conf\" /etc/nsswitch.conf && exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", script])
        .arg(directory.path())
        .arg(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(ASKING, "1");
    let outcome = finish(&mut command, PATIENCE);
    assert_eq!(outcome.status, Some(0), "{}\n{}", outcome.stdout, outcome.stderr);
    outcome.stderr.lines().for_each(tell);
}
