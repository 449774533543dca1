//! Names, and connecting to what they stand for: only the tasklet waits, and no longer than it wants to.

use std::{
    cell::Cell,
    fmt::Debug,
    fs::{self, File},
    io::{self, ErrorKind},
    net::{self, Ipv4Addr, Ipv6Addr},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use net_support::{bounded, refusing};
use pila::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use resolver::{NameServer, is_asking, run_asking, works};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use system::{Stopwatch, alone, tell};

mod net_support;
mod resolver;
mod system;

/// Runs `body` in a process of its own that asks the server that `serve` makes, which is returned with what it was asked.
fn asking(name: &str, serve: fn() -> NameServer, body: impl FnOnce()) -> Option<resolver::Asked> {
    if is_asking() {
        body();
        return None;
    }
    let _alone = alone();
    works().then(|| {
        let server = serve();
        run_asking(&server, name);
        server.asked()
    })
}

fn small_town() -> NameServer {
    const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;
    const TWO: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)];
    const NAMES: [(&str, &[Ipv4Addr]); 3] =
        [("mail.example", &[LOCAL]), ("two.example", &TWO), ("nothing.example", &[])];
    NameServer::that_knows(&NAMES)
}

/// For how long at most nobody else could run while `tasklet` did.
fn longest_stall<T: 'static>(tasklet: &pila::Tasklet<T>) -> Duration {
    let mut longest = Duration::ZERO;
    while tasklet.is_alive() {
        let start = Stopwatch::start();
        pila::sleep(Duration::from_millis(1));
        longest = longest.max(start.elapsed().saturating_sub(Duration::from_millis(1)));
    }
    longest
}

#[test]
fn a_name_server_that_never_answers_is_bounded_by_the_timeout() {
    const NAME: &str = "a_name_server_that_never_answers_is_bounded_by_the_timeout";
    asking(NAME, NameServer::silent, || {
        let limit = Duration::from_secs(1);
        // What the machine does to the thread comes and goes; what the thread does to itself would come each time.
        let mut stalls = Vec::new();
        while stalls.len() < 5
            && stalls.last().is_none_or(|&stall| stall >= Duration::from_millis(5))
        {
            let connects = pila::tasklet(move || {
                let (start, watch) = (Instant::now(), Stopwatch::start());
                let outcome = pila::timeout(limit, || TcpStream::connect("silent.example:25"));
                assert!(start.elapsed() >= limit);
                (outcome.unwrap_err().limit(), watch.elapsed())
            });
            stalls.push(longest_stall(&connects));
            let (struck, elapsed) = connects.join().unwrap();
            tell(&format!("no answer: ended after {elapsed:?}, others waited at most {stalls:?}"));
            assert_eq!(struck, limit);
            assert!(elapsed < limit * 11 / 10, "{elapsed:?}");
        }
        assert!(stalls.iter().any(|&stall| stall < Duration::from_millis(5)), "{stalls:?}");
    });
}

#[test]
fn a_tasklet_that_asks_is_killed_at_once() {
    const NAME: &str = "a_tasklet_that_asks_is_killed_at_once";
    asking(NAME, NameServer::silent, || {
        let connects = pila::tasklet(|| TcpStream::connect("silent.example:25"));
        pila::sleep(Duration::from_millis(50));
        assert!(connects.is_blocked());
        let start = Stopwatch::start();
        connects.kill().unwrap();
        assert!(start.elapsed() < Duration::from_millis(50));
        assert_eq!(pila::run().blocked, 0);
    });
}

#[test]
fn ten_thousand_askers_make_one_query() {
    let asked = asking("ten_thousand_askers_make_one_query", small_town, || {
        let found = Rc::new(Cell::new(0));
        for number in 0..10_000_u16 {
            let found = found.clone();
            pila::tasklet(move || {
                let mut addresses = ("mail.example", number).to_socket_addrs().unwrap();
                assert_eq!(addresses.next(), Some((Ipv4Addr::LOCALHOST, number).into()));
                assert_eq!(addresses.next(), None);
                found.set(found.get() + 1);
            });
        }
        pila::run();
        assert_eq!(found.get(), 10_000);
        // A moment later it is known, to other threads as well.
        let other = thread::spawn(|| "MAIL.example:25".to_socket_addrs().unwrap().count());
        assert_eq!(other.join().unwrap(), 1);
    });
    let Some(asked) = asked else { return };
    // The system asks for either family.
    let expected = [(("mail.example".to_owned(), 1), 1), (("mail.example".to_owned(), 28), 1)];
    assert_eq!(asked, expected.into());
}

/// Kind, text and number of an error.
type Failure = (ErrorKind, String, Option<i32>);

fn outcome<I: Iterator<Item = SocketAddr>>(
    result: io::Result<I>,
) -> Result<Vec<SocketAddr>, Failure> {
    let failure = |error: io::Error| (error.kind(), error.to_string(), error.raw_os_error());
    result.map(Iterator::collect).map_err(failure)
}

#[track_caller]
fn assert_stds<A: ToSocketAddrs + net::ToSocketAddrs + Debug>(address: A) {
    let (std, pila) = (
        outcome(net::ToSocketAddrs::to_socket_addrs(&address)),
        outcome(ToSocketAddrs::to_socket_addrs(&address)),
    );
    assert_eq!(pila, std, "{address:?}");
}

#[test]
fn what_stands_for_an_address_is_stds() {
    asking("what_stands_for_an_address_is_stds", small_town, || {
        let v4 = SocketAddr::from(([127, 0, 0, 1], 80));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 80));
        assert_stds(v4);
        assert_stds((v4.ip(), 80));
        assert_stds((Ipv4Addr::LOCALHOST, 80));
        assert_stds((Ipv6Addr::LOCALHOST, 80));
        assert_stds([v4, v6].as_slice());
        assert_stds(&[v4, v6][..0]);
        let reference = &v6;
        assert_stds::<&&SocketAddr>(&reference);
        let (SocketAddr::V4(v4), SocketAddr::V6(v6)) = (v4, v6) else { unreachable!() };
        assert_stds(v4);
        assert_stds(v6);
        let texts = [
            "127.0.0.1:80",
            "[::1]:80",
            "[fe80::1%1]:80",
            "mail.example:25",
            "two.example:25",
            "MAIL.example.:25",
            "nothing.example:25",
            "nowhere.example:25",
            "::1:80",
            "no port",
            "mail.example:http",
            "mail.example:65536",
            "mail.example:",
            ":80",
            "",
            "mail\0.example:25",
            "a host with blanks:25",
            "localhost:1",
            "127.1:80",
        ];
        for text in texts {
            assert_stds(text);
            assert_stds(text.to_owned());
            let (host, _) = text.rsplit_once(':').unwrap_or((text, ""));
            assert_stds((host, 25));
            assert_stds((host.to_owned(), 25));
        }
        assert_stds(("::1", 25));
        // Once more, now that what has addresses is known.
        texts.into_iter().for_each(assert_stds);
    });
}

#[test]
fn connecting_to_a_name_is_connecting_to_its_address() {
    asking("connecting_to_a_name_is_connecting_to_its_address", small_town, || {
        let listener = TcpListener::bind("mail.example:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(("mail.example", address.port())).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        let error = TcpStream::connect("nowhere.example:25").unwrap_err();
        assert!(error.to_string().starts_with("failed to lookup address information"), "{error}");
    });
}

#[test]
fn a_name_waits_for_the_descriptors_that_looking_it_up_takes() {
    const NAME: &str = "a_name_waits_for_the_descriptors_that_looking_it_up_takes";
    asking(NAME, small_town, || {
        let few = Rlimit { current: Some(64), ..getrlimit(Resource::Nofile) };
        setrlimit(Resource::Nofile, few).unwrap();
        let mut taken: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        let asks = pila::tasklet(|| "mail.example:25".to_socket_addrs().map(Iterator::count));
        pila::sleep(Duration::from_millis(100));
        assert!(asks.is_blocked());
        taken.truncate(taken.len() - 5);
        assert_eq!(asks.join().unwrap().unwrap(), 1);

        taken.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
        let start = Instant::now();
        let error = "two.example:25".to_socket_addrs().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MFILE.raw_os_error()));
        assert!(start.elapsed() < Duration::from_secs(5));
    });
}

/// A socket that takes what knocks and says nothing: its queue is full.
fn dead(ip: IpAddr) -> Option<(SocketAddr, Vec<net::TcpStream>)> {
    let listener = net::TcpListener::bind((ip, 0)).ok()?;
    let address = listener.local_addr().unwrap();
    let wait = Duration::from_millis(50);
    let queued =
        std::iter::from_fn(|| net::TcpStream::connect_timeout(&address, wait).ok()).take(10_000);
    let queued = queued.collect();
    // It listens as long as somebody has it.
    std::mem::forget(listener);
    Some((address, queued))
}

#[test]
fn a_dead_address_costs_less_than_300_milliseconds() {
    bounded(|| {
        let six = dead(Ipv6Addr::LOCALHOST.into());
        let (dead, _queued) = six.or_else(|| dead(Ipv4Addr::LOCALHOST.into())).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let live = listener.local_addr().unwrap();
        let (start, watch) = (Instant::now(), Stopwatch::start());
        let stream = TcpStream::connect(&[dead, live][..]).unwrap();
        let (elapsed, ours) = (start.elapsed(), watch.elapsed());
        tell(&format!("{dead} is dead: connected to {live} after {elapsed:?}"));
        assert_eq!(stream.peer_addr().unwrap(), live);
        assert!(elapsed >= Duration::from_millis(250), "it has a head start: {elapsed:?}");
        assert!(ours < Duration::from_millis(300), "{ours:?}");
        // One that is alive has it to itself.
        let start = Stopwatch::start();
        let stream = TcpStream::connect(&[live, dead][..]).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), live);
        assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
    });
}

#[test]
fn an_address_that_refuses_costs_nothing() {
    bounded(|| {
        let (_refuses, gone) = refusing();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let live = listener.local_addr().unwrap();
        let start = Stopwatch::start();
        let stream = TcpStream::connect(&[gone, gone, live][..]).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), live);
        assert!(start.elapsed() < Duration::from_millis(200), "{:?}", start.elapsed());
    });
}

#[test]
fn the_error_names_every_address() {
    bounded(|| {
        let ((_one, first), (_other, second)) = (refusing(), refusing());
        let error = TcpStream::connect(&[first, second][..]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let text = format!(
            "none of the addresses could be connected to: {first}: Connection refused (os error 111); \
             {second}: Connection refused (os error 111)"
        );
        assert_eq!(error.to_string(), text);
    });
}

/// How many sockets of whatever process have knocked at `address`, an IPv4 one, and are waiting for an answer.
fn knocking_at(address: SocketAddr) -> usize {
    let IpAddr::V4(ip) = address.ip() else { unreachable!() };
    let wanted = format!("{:08X}:{:04X}", u32::from_le_bytes(ip.octets()), address.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let knocks = |line: &&str| {
        // Its number, from, to, state; 2 is SYN_SENT.
        let mut columns = line.split_whitespace().skip(2);
        columns.next() == Some(&*wanted) && columns.next() == Some("02")
    };
    table.lines().filter(knocks).count()
}

#[test]
fn the_sockets_of_those_who_come_too_late_are_closed() {
    bounded(|| {
        let (dead, _queued) = dead(Ipv4Addr::LOCALHOST.into()).unwrap();
        let (also_dead, _also_queued) = self::dead(Ipv4Addr::LOCALHOST.into()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let live = listener.local_addr().unwrap();
        let connects = pila::tasklet(move || TcpStream::connect(&[dead, live][..]));
        pila::sleep(Duration::from_millis(100));
        assert_eq!(knocking_at(dead), 1);
        let stream = connects.join().unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), live);
        assert_eq!(knocking_at(dead), 0);
        // Nor does one stay that is killed, or out of time, with two of them going.
        let connects = pila::tasklet(move || TcpStream::connect(&[dead, also_dead][..]));
        pila::sleep(Duration::from_millis(300));
        assert_eq!((knocking_at(dead), knocking_at(also_dead)), (1, 1));
        connects.kill().unwrap();
        assert_eq!((knocking_at(dead), knocking_at(also_dead)), (0, 0));
        let limit = Duration::from_millis(300);
        let late = pila::timeout(limit, || TcpStream::connect(&[dead, also_dead][..]));
        assert_eq!(late.unwrap_err().limit(), limit);
        assert_eq!((knocking_at(dead), knocking_at(also_dead)), (0, 0));
    });
}
