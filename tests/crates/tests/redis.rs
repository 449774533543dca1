//! Redis from many tasklets, in both ways that its crate has. The server is a real one, in a directory of the test's own.
//!
//! crate: redis | how: `aio::MultiplexedConnection::new_with_config` over `pila::net::AsyncStream`, feature `tokio-io`, with no response timeout (that needs tokio's clock), its driver in a tasklet; or `ConnectionLike` and `Parser` over a `TcpStream`

use std::{
    io::Write,
    net::SocketAddr,
    process::{Command, Stdio},
    rc::Rc,
    time::{Duration, Instant},
};

use books::balanced;
use pila::{
    block_on,
    net::{AsyncStream, TcpStream},
};
use redis::{
    AsyncCommands, AsyncConnectionConfig, Commands, ConnectionLike, Parser, ProtocolVersion,
    PushInfo, PushKind, RedisConnectionInfo, RedisError, RedisResult, Value,
    aio::MultiplexedConnection, from_redis_value, pipe,
};
use system::{Directory, Process, free_address, peer};
use tokio::sync::mpsc;

mod books;
#[path = "../../system/mod.rs"]
mod system;

const LIMIT: Duration = Duration::from_secs(120);

struct Server {
    address: SocketAddr,
    process: Process,
    _directory: Directory,
}

impl Server {
    fn start() -> Option<Self> {
        let program = peer("redis-server")?;
        let (directory, address) = (Directory::new("redis"), free_address());
        let mut command = Command::new(program);
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(directory.path());
        let mut process = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        assert!(process.listens(address));
        Some(Self { address, process, _directory: directory })
    }

    /// A connection that any number of tasklets may use at once. Its driver is a tasklet.
    fn connect_with(
        &self,
        info: &RedisConnectionInfo,
        config: AsyncConnectionConfig,
    ) -> MultiplexedConnection {
        let stream = AsyncStream::new(TcpStream::connect(self.address).unwrap());
        let config = config.set_response_timeout(None);
        let connected = MultiplexedConnection::new_with_config(info, stream, config);
        let (connection, driver) = block_on(connected).unwrap();
        pila::tasklet(move || block_on(driver));
        connection
    }

    fn connect(&self) -> MultiplexedConnection {
        self.connect_with(&RedisConnectionInfo::default(), AsyncConnectionConfig::new())
    }
}

/// The other way: a connection that waits.
struct Waiting {
    stream: TcpStream,
    parser: Parser,
}

impl Waiting {
    fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).unwrap(), parser: Parser::new() }
    }

    fn next(&mut self) -> RedisResult<Value> {
        self.parser.parse_value(&mut self.stream)
    }
}

impl ConnectionLike for Waiting {
    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        self.stream.write_all(command)?;
        self.next()?.extract_error()
    }

    fn req_packed_commands(
        &mut self,
        commands: &[u8],
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        self.stream.write_all(commands)?;
        for _ in 0..offset {
            self.next()?;
        }
        (0..count).map(|_| self.next()).collect()
    }

    fn get_db(&self) -> i64 {
        0
    }

    fn check_connection(&mut self) -> bool {
        redis::cmd("PING").query::<String>(self).is_ok()
    }

    fn is_open(&self) -> bool {
        self.stream.take_error().is_ok_and(|error| error.is_none())
    }
}

#[test]
fn a_hundred_tasklets_share_one_connection() {
    balanced(LIMIT, || {
        let Some(server) = Server::start() else { return };
        let connection = server.connect();
        let tasklets: Vec<_> = (0..100_u32)
            .map(|number| {
                let mut connection = connection.clone();
                pila::tasklet(move || {
                    block_on(async {
                        let key = format!("key{number}");
                        for round in 0..10_u32 {
                            let () = connection.set(&key, number * round).await.unwrap();
                            let kept: u32 = connection.get(&key).await.unwrap();
                            assert_eq!(kept, number * round);
                            let _: u32 = connection.incr("total", 1).await.unwrap();
                        }
                    });
                    let (first, second): (u32, u32) = block_on(
                        pipe().incr("piped", 1).incr("piped", 1).query_async(&mut connection),
                    )
                    .unwrap();
                    // Nobody comes in between two commands that were sent as one.
                    assert_eq!(second, first + 1);
                })
            })
            .collect();
        tasklets.into_iter().for_each(|tasklet| tasklet.join().unwrap());
        let mut connection = connection;
        let (total, piped): (u32, u32) = block_on(connection.mget(&["total", "piped"])).unwrap();
        assert_eq!((total, piped), (1_000, 200));
        let wrong: RedisResult<u32> = block_on(connection.hget("total", "field"));
        assert_eq!(wrong.unwrap_err().code(), Some("WRONGTYPE"));
    });
}

#[test]
fn a_hundred_tasklets_wait_each_with_a_connection_of_its_own() {
    balanced(LIMIT, || {
        let Some(server) = Server::start() else { return };
        let address = server.address;
        let tasklets: Vec<_> = (0..100_u32)
            .map(|number| {
                pila::tasklet(move || {
                    let mut connection = Waiting::connect(address);
                    let () = connection.set(format!("key{number}"), number).unwrap();
                    let (kept, total): (u32, u32) = pipe()
                        .get(format!("key{number}"))
                        .incr("total", 1)
                        .query(&mut connection)
                        .unwrap();
                    assert!(kept == number && (1..=100).contains(&total));
                    assert!(connection.check_connection() && connection.is_open());
                })
            })
            .collect();
        tasklets.into_iter().for_each(|tasklet| tasklet.join().unwrap());
        let total: u32 = Waiting::connect(address).get("total").unwrap();
        assert_eq!(total, 100);
    });
}

#[test]
fn a_command_that_blocks_ends_with_news_or_in_time_and_the_others_go_on() {
    balanced(LIMIT, || {
        let Some(server) = Server::start() else { return };
        let server = Rc::new(server);
        let (mut pushes, waits) = (server.connect(), server.clone());
        let worker = pila::tasklet(move || {
            let mut connection = waits.connect();
            let (_, job): (String, String) = block_on(connection.blpop("jobs", 0.0)).unwrap();
            let nothing: Option<(String, String)> =
                block_on(connection.blpop("jobs", 0.05)).unwrap();
            (job, nothing)
        });
        pila::sleep(Duration::from_millis(10));
        let _: u32 = block_on(pushes.rpush("jobs", "mail 1")).unwrap();
        assert_eq!(worker.join().unwrap(), ("mail 1".to_string(), None));

        let begun = Instant::now();
        let mut blocked = server.connect();
        let limit = Duration::from_millis(20);
        let late = pila::timeout(limit, || {
            let popped: RedisResult<(String, String)> = block_on(blocked.blpop("jobs", 0.0));
            popped
        });
        assert_eq!(late.unwrap_err().limit(), limit);
        assert!(begun.elapsed() < Duration::from_secs(10));
        let _: u32 = block_on(pushes.rpush("other", "still there")).unwrap();
    });
}

#[test]
fn a_subscriber_is_told() {
    balanced(LIMIT, || {
        let Some(server) = Server::start() else { return };
        let info = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
        let (sender, mut news) = mpsc::unbounded_channel::<PushInfo>();
        let config = AsyncConnectionConfig::new().set_push_sender(sender);
        let mut subscriber = server.connect_with(&info, config);
        block_on(subscriber.subscribe("mail")).unwrap();
        let mut publisher = server.connect();
        pila::tasklet(move || {
            for number in 0..10 {
                let heard: u32 = block_on(publisher.publish("mail", number)).unwrap();
                assert_eq!(heard, 1);
            }
        });
        let mut heard = Vec::new();
        while heard.len() < 10 {
            let PushInfo { kind, data } = block_on(news.recv()).unwrap();
            if kind == PushKind::Message {
                heard.push(from_redis_value::<u32>(data[1].clone()).unwrap());
            }
        }
        assert_eq!(heard, (0..10).collect::<Vec<_>>());
    });
}

#[test]
fn a_server_that_dies_ends_every_wait_with_an_error() {
    balanced(LIMIT, || {
        let Some(mut server) = Server::start() else { return };
        let shared = server.connect();
        let mut tasklets: Vec<_> = (0..20)
            .map(|_| {
                let mut connection = shared.clone();
                pila::tasklet(move || -> RedisError {
                    loop {
                        let pinged: RedisResult<String> = block_on(connection.ping());
                        if let Err(error) = pinged {
                            return error;
                        }
                    }
                })
            })
            .collect();
        let mut waiting = Waiting::connect(server.address);
        tasklets.push(pila::tasklet(move || {
            waiting.blpop::<_, (String, String)>("jobs", 0.0).unwrap_err()
        }));
        pila::sleep(Duration::from_millis(20));
        server.process.0.kill().unwrap();
        for tasklet in tasklets {
            let error = tasklet.join().unwrap();
            assert!(error.is_io_error() || error.is_connection_dropped(), "{error:?}");
        }
        drop(shared);
        assert_eq!(pila::run().blocked, 0);
    });
}
