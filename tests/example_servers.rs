//! The examples that serve, as their readers use them: with curl, and with clients that behave badly.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};
use system::{Directory, PATIENCE, Process, example, finish, peer, until};

mod system;

/// An example that has said where it listens.
struct Server {
    process: Process,
    address: SocketAddr,
}

impl Server {
    fn start(name: &str) -> Self {
        let mut process = Process::start(example(name).stdout(Stdio::piped()));
        let mut line = String::new();
        BufReader::new(process.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let place = line.trim().strip_prefix("listening at ").expect("it says where");
        let address = place.trim_start_matches("http://").parse().unwrap();
        Self { process, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// What comes back for `request`, after which the server closes.
    fn answer(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.0.id())).unwrap().count()
    }

    /// That every connection has been closed again. What the server has besides is no more than a few.
    #[track_caller]
    fn assert_has_closed_all(&self) {
        until("connections closed", PATIENCE, || (self.descriptors() < 16).then_some(()));
    }
}

/// What curl prints.
#[track_caller]
fn curl(arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    let outcome = finish(command.args(["-sS", "--max-time", "60"]).args(arguments), PATIENCE);
    assert!(outcome.status == Some(0) && outcome.stderr.is_empty(), "{arguments:?}: {outcome:?}");
    outcome.stdout
}

mod http {
    use super::*;

    /// The status line of an answer, and its body.
    fn parts(answer: &str) -> (&str, &str) {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
        (head.lines().next().unwrap(), body)
    }

    #[test]
    fn curl_is_answered_and_keeps_its_connection() {
        if peer("curl").is_none() {
            return;
        }
        let server = Server::start("http_server");
        let url = format!("http://{}/", server.address);
        assert_eq!(curl(&[&url]), "Hello, world!\n");
        assert!(curl(&["-I", &url]).starts_with("HTTP/1.1 200 OK\r\n"));
        assert_eq!(
            curl(&["-w", "%{http_code} %{num_connects}\n", &url, &url]),
            "Hello, world!\n200 1\nHello, world!\n200 0\n"
        );
        assert!(curl(&["-w", "%{http_code}", "-o", "/dev/null", &format!("{url}no")]) == "404");

        let directory = Directory::new("http");
        let (sent, came) = (directory.join("sent"), directory.join("came"));
        let body: Vec<u8> =
            (0..1_000_000_u32).flat_map(|n| (n % 251).to_ne_bytes()).take(1 << 20).collect();
        fs::write(&sent, &body).unwrap();
        // Above a MiB curl asks first; here it is told to.
        let upload = format!("@{}", sent.display());
        let echo = format!("{url}echo");
        let came_to = came.to_str().unwrap();
        curl(&["-H", "expect: 100-continue", "--data-binary", &upload, "-o", came_to, &echo]);
        assert!(fs::read(&came).unwrap() == body);
        server.assert_has_closed_all();
    }

    #[test]
    fn requests_that_come_together_are_answered_in_order() {
        let server = Server::start("http_server");
        let mut stream = server.connect();
        let mut requests = Vec::new();
        for number in 0..100 {
            let body = format!("number {number}");
            let length = body.len();
            write!(
                requests,
                "POST /echo HTTP/1.1\r\nhost: here\r\ncontent-length: {length}\r\n\r\n{body}"
            )
            .unwrap();
        }
        requests.extend_from_slice(b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n");
        // In pieces that end anywhere.
        for piece in requests.chunks(997) {
            stream.write_all(piece).unwrap();
            thread::yield_now();
        }
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        let mut rest = &*answers;
        for number in 0..100 {
            let (_, after) = rest.split_once("\r\n\r\n").unwrap();
            rest = after
                .strip_prefix(&format!("number {number}"))
                .unwrap_or_else(|| panic!("{number}: {rest}"));
        }
        assert_eq!(parts(rest).1, "Hello, world!\n");
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_said() {
        let server = Server::start("http_server");
        let many = "a: b\r\n".repeat(100);
        let cases = [
            ("GET\r\n\r\n".to_string(), "400 Bad Request"),
            ("GET / HTTP/1.1\r\n\r\n".into(), "400 Bad Request"),
            ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".into(), "400 Bad Request"),
            ("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\nx".into(), "400 Bad Request"),
            ("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx".into(), "400 Bad Request"),
            ("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into(), "501 Not Implemented"),
            ("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 999999999\r\n\r\n".into(), "413 Content Too Large"),
            (format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), "431 Request Header Fields Too Large"),
            (format!("GET /{} HTTP/1.1\r\n", "x".repeat(9000)), "431 Request Header Fields Too Large"),
        ];
        for (request, status) in cases {
            let answer = server.answer(request.as_bytes());
            assert_eq!(parts(&answer).0, format!("HTTP/1.1 {status}"), "{request}");
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        }
        assert!(server.answer(b"GET / HTTP/1.0\r\n\r\n").ends_with("Hello, world!\n"));
        server.assert_has_closed_all();
    }
}

mod socks {
    use super::*;

    const SIZE: u64 = 50 << 20;

    /// An HTTP server of Python's over `directory`.
    fn file_server(directory: &Path) -> (Process, SocketAddr) {
        let address = system::free_address();
        let port = address.port().to_string();
        let mut command = Command::new("python3");
        command.args(["-m", "http.server", "--bind", "127.0.0.1", &port]).current_dir(directory);
        let mut server = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        assert!(server.listens(address));
        (server, address)
    }

    fn checksum(path: &Path) -> String {
        let outcome = finish(Command::new("sha256sum").arg(path), PATIENCE);
        outcome.stdout.split_whitespace().next().expect("it prints one").to_string()
    }

    #[test]
    fn several_downloads_come_through_whole_at_once() {
        if peer("curl").is_none() || peer("python3").is_none() {
            return;
        }
        let directory = Directory::new("socks");
        let file = directory.join("file");
        let mut random = File::open("/dev/urandom").unwrap().take(SIZE);
        assert_eq!(std::io::copy(&mut random, &mut File::create(&file).unwrap()).unwrap(), SIZE);
        let expected = checksum(&file);
        let (_files, address) = file_server(directory.path());
        let proxy = Server::start("socks_proxy");
        let url = format!("http://localhost:{}/file", address.port());

        // By name, which the proxy looks up, and by address.
        let ways = [
            ("--socks5-hostname", &url),
            ("--socks5", &url),
            ("--socks5-hostname", &url),
            ("--socks5", &url),
        ];
        let downloads: Vec<_> = ways
            .into_iter()
            .enumerate()
            .map(|(number, (way, url))| {
                let (to, proxy) = (directory.join(number.to_string()), proxy.address.to_string());
                let url = url.clone();
                thread::spawn(move || {
                    curl(&[way, &proxy, "-o", to.to_str().unwrap(), &url]);
                    to
                })
            })
            .collect();
        for download in downloads {
            assert_eq!(checksum(&download.join().unwrap()), expected);
        }
        proxy.assert_has_closed_all();
    }

    #[test]
    fn refusals_are_told() {
        let proxy = Server::start("socks_proxy");
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let [high, low] = nobody.port().to_be_bytes();
        // Greeting and request; the answer to both.
        let cases: [(&[u8], &[u8]); 4] = [
            (
                &[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, high, low],
                &[5, 0, 5, 5, 0, 1, 0, 0, 0, 0, 0, 0],
            ),
            (
                &[5, 1, 0, 5, 2, 0, 1, 127, 0, 0, 1, high, low],
                &[5, 0, 5, 7, 0, 1, 0, 0, 0, 0, 0, 0],
            ),
            (&[5, 1, 2], &[5, 0xff]),
            (&[4, 1, 0, 80, 127, 0, 0, 1, 0], &[5, 0xff]),
        ];
        for (request, expected) in cases {
            let mut stream = proxy.connect();
            stream.write_all(request).unwrap();
            let mut answer = vec![0; expected.len()];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, expected, "{request:?}");
        }
        proxy.assert_has_closed_all();
    }

    #[test]
    fn one_direction_may_end_before_the_other() {
        let proxy = Server::start("socks_proxy");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let [high, low] = listener.local_addr().unwrap().port().to_be_bytes();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = String::new();
            stream.read_to_string(&mut question).unwrap();
            write!(stream, "you said {question}").unwrap();
        });
        let mut stream = proxy.connect();
        stream.write_all(&[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, high, low]).unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
        stream.write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "you said hello");
        server.join().unwrap();
        proxy.assert_has_closed_all();
    }
}

mod chat {
    use super::*;

    struct Guest(BufReader<TcpStream>);

    impl Guest {
        fn enter(server: &Server, name: &str) -> Self {
            let mut guest = Self(BufReader::new(server.connect()));
            assert_eq!(guest.hear(), "your name?");
            guest.say(name);
            guest
        }

        fn say(&mut self, line: &str) {
            self.0.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
        }

        fn hear(&mut self) -> String {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            line.trim_end().to_string()
        }
    }

    #[test]
    fn everyone_hears_everyone_by_name() {
        let server = Server::start("chat");
        let mut ann = Guest::enter(&server, "Ann");
        let mut bob = Guest::enter(&server, "no spaces");
        assert_eq!(bob.hear(), "letters and digits, please");
        bob.say("Ann");
        assert_eq!(bob.hear(), "somebody has that name");
        bob.say("Bob");
        assert_eq!(ann.hear(), "* Bob is here");
        ann.say("hello");
        assert_eq!(bob.hear(), "Ann: hello");
        bob.say("hello yourself");
        assert_eq!(ann.hear(), "Bob: hello yourself");
        drop(bob);
        assert_eq!(ann.hear(), "* Bob has left");
        drop(ann);
        server.assert_has_closed_all();
    }

    /// More lines than the buffers of sockets and the backlog take.
    const LINES: usize = 30_000;

    /// A guest who is told things and never reads them. The system keeps no more for it than it must.
    fn deaf(server: &Server) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(1).unwrap();
        socket.connect(&server.address.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.write_all(b"Deaf\n").unwrap();
        stream
    }

    #[test]
    fn who_does_not_read_is_shown_the_door_and_stalls_nobody() {
        let server = Server::start("chat");
        let mut ann = Guest::enter(&server, "Ann");
        let _deaf = deaf(&server);
        assert_eq!(ann.hear(), "* Deaf is here");
        let mut bob = Guest::enter(&server, "Bob");
        assert_eq!(ann.hear(), "* Bob is here");
        // Bob hears all that Ann says, line by line, whatever Deaf does.
        let words = "x".repeat(900);
        let mut longest = Duration::ZERO;
        let mut is_alone = false;
        for number in 0..LINES {
            let begun = Instant::now();
            ann.say(&format!("{number} {words}"));
            let mut heard = bob.hear();
            if heard == "* Deaf has left" {
                is_alone = true;
                heard = bob.hear();
            }
            longest = longest.max(begun.elapsed());
            assert_eq!(heard, format!("Ann: {number} {words}"));
            if is_alone {
                break;
            }
        }
        assert!(is_alone, "Deaf is still there");
        // The server writes to nobody for longer than 30 seconds: by then everyone would have waited for Deaf.
        assert!(longest < Duration::from_secs(15), "{longest:?}");
    }
}
