//! PostgreSQL from many tasklets, through tokio-postgres. The server is a real one, in a directory of the test's own.
//!
//! crate: tokio-postgres | how: `Config::connect_raw` over `pila::net::AsyncStream`, feature `tokio-io`, without its feature `runtime`; its `Connection` in a tasklet

use std::{
    env, fs,
    future::poll_fn,
    net::SocketAddr,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    rc::Rc,
    time::Duration,
};

use books::balanced;
use pila::{
    Channel, block_on,
    net::{AsyncStream, TcpStream},
};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use system::{Directory, Process, finish, free_address, left_out};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, error::SqlState};

mod books;
#[path = "../../system/mod.rs"]
mod system;

const LIMIT: Duration = Duration::from_secs(240);

/// The user that a server runs as when the test runs as root, which a server refuses to be: nobody.
const NOBODY: u32 = 65_534;

/// Debian keeps the programs of its servers to itself.
fn program(name: &str) -> Option<PathBuf> {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let directories = debian.map(|version| version.path().join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<_> = directories.chain(env::split_paths(&path)).collect();
    places.sort();
    let found = places.iter().rev().map(|place| place.join(name)).find(|path| path.is_file());
    if found.is_none() {
        left_out("PostgreSQL is not installed");
    }
    found
}

/// `path`, as someone may run it who is not root.
fn unprivileged(path: &Path) -> Command {
    let mut command = Command::new(path);
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.env("LC_ALL", "C").env_remove("PGOPTIONS");
    command
}

struct Server {
    address: SocketAddr,
    process: Process,
    _directory: Directory,
}

impl Server {
    fn start() -> Option<Self> {
        let (initdb, postgres) = (program("initdb")?, program("postgres")?);
        let directory = Directory::new("postgres");
        if geteuid().is_root() {
            chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let data = directory.join("data");
        let mut command = unprivileged(&initdb);
        command.args(["--auth=trust", "--username=pila", "--no-sync", "-D"]).arg(&data);
        let made = finish(command.current_dir(directory.path()), LIMIT);
        assert_eq!(made.status, Some(0), "{made:?}");
        let address = free_address();
        let mut command = unprivileged(&postgres);
        command.arg("-D").arg(&data).arg("-k").arg(directory.path());
        command.args(["-h", "127.0.0.1", "-p", &address.port().to_string()]);
        command.args(["-c", "fsync=off", "-c", "max_connections=120"]);
        command.args(["-c", "shared_buffers=16MB"]);
        let log = fs::File::create(directory.join("log")).unwrap();
        command.current_dir(directory.path()).stdout(Stdio::null()).stderr(log);
        let mut process = Process::start(&mut command);
        assert!(process.listens(address), "{}", fs::read_to_string(directory.join("log")).unwrap());
        let server = Self { address, process, _directory: directory };
        // It listens before it takes anyone.
        system::until("a server that is up", LIMIT, || server.try_connect().ok());
        Some(server)
    }

    fn try_connect(&self) -> Result<Client, tokio_postgres::Error> {
        let stream = AsyncStream::new(TcpStream::connect(self.address).unwrap());
        let config = Self::config();
        let (client, connection) = block_on(config.connect_raw(stream, NoTls))?;
        pila::tasklet(move || block_on(connection));
        Ok(client)
    }

    fn connect(&self) -> Client {
        self.try_connect().unwrap()
    }

    fn config() -> Config {
        let mut config = Config::new();
        config.user("pila").dbname("postgres");
        config
    }
}

#[test]
fn a_hundred_tasklets_query_at_once_and_each_gets_its_own_answers() {
    balanced(LIMIT, || {
        let Some(server) = Server::start() else { return };
        let server = Rc::new(server);
        let shared = Rc::new(server.connect());
        block_on(shared.batch_execute("CREATE TABLE mails (id INT PRIMARY KEY, rcpt TEXT)"))
            .unwrap();
        let tasklets: Vec<_> = (0..100)
            .map(|number| {
                let (server, shared) = (server.clone(), shared.clone());
                pila::tasklet(move || {
                    // One connection for all of them, on which queries are pipelined; then one each.
                    let sum = "SELECT $1::INT + $2::INT";
                    let row = block_on(shared.query_one(sum, &[&number, &1])).unwrap();
                    assert_eq!(row.get::<_, i32>(0), number + 1);
                    let mut own = server.connect();
                    block_on(async {
                        let transaction = own.transaction().await.unwrap();
                        let insert = "INSERT INTO mails VALUES ($1, $2)";
                        let rcpt = format!("you{number}@example.org");
                        transaction.execute(insert, &[&number, &rcpt]).await.unwrap();
                        // Every third one is taken back.
                        if number % 3 == 0 {
                            transaction.rollback().await.unwrap();
                        } else {
                            transaction.commit().await.unwrap();
                        }
                    });
                })
            })
            .collect();
        tasklets.into_iter().for_each(|tasklet| tasklet.join().unwrap());
        let rows = block_on(shared.query("SELECT id, rcpt FROM mails ORDER BY id", &[])).unwrap();
        let ids: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(ids, (0..100).filter(|id| id % 3 != 0).collect::<Vec<_>>());
        assert!(rows.iter().all(|row| {
            row.get::<_, String>(1) == format!("you{}@example.org", row.get::<_, i32>(0))
        }));
        let error =
            block_on(shared.execute("INSERT INTO mails VALUES (1, 'twice')", &[])).unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION));
    });
}

#[test]
fn a_notification_wakes_who_listens_and_a_query_that_takes_too_long_is_cancelled() {
    balanced(LIMIT, || {
        let Some(server) = Server::start() else { return };
        let stream = AsyncStream::new(TcpStream::connect(server.address).unwrap());
        let (listener, mut connection) =
            block_on(Server::config().connect_raw(stream, NoTls)).unwrap();
        let news = Channel::with_capacity(4);
        let theirs = news.clone();
        pila::tasklet(move || {
            while let Some(message) = block_on(poll_fn(|context| connection.poll_message(context)))
            {
                if let AsyncMessage::Notification(notification) = message.unwrap() {
                    theirs.send(notification.payload().to_string()).unwrap();
                }
            }
        });
        block_on(listener.batch_execute("LISTEN mail")).unwrap();
        let other = server.connect();
        block_on(other.batch_execute("NOTIFY mail, 'sent'")).unwrap();
        assert_eq!(news.receive().unwrap(), "sent");

        let limit = Duration::from_millis(50);
        let late = pila::timeout(limit, || block_on(other.batch_execute("SELECT pg_sleep(60)")));
        assert_eq!(late.unwrap_err().limit(), limit);
        let stream = AsyncStream::new(TcpStream::connect(server.address).unwrap());
        block_on(other.cancel_token().cancel_query_raw(stream, NoTls)).unwrap();
        let row = block_on(other.query_one("SELECT 6 * 7", &[])).unwrap();
        assert_eq!(row.get::<_, i32>(0), 42);
    });
}

#[test]
fn a_server_that_dies_ends_every_query_with_an_error() {
    balanced(LIMIT, || {
        let Some(server) = Server::start() else { return };
        let tasklets: Vec<_> = (0..20)
            .map(|_| {
                let client = server.connect();
                pila::tasklet(move || block_on(client.batch_execute("SELECT pg_sleep(60)")))
            })
            .collect();
        pila::sleep(Duration::from_millis(100));
        // At once, without waiting for anyone.
        kill_process(Pid::from_child(&server.process.0), Signal::QUIT).unwrap();
        for tasklet in tasklets {
            let error = tasklet.join().unwrap().unwrap_err();
            let told = error.code() == Some(&SqlState::CRASH_SHUTDOWN)
                || error.code() == Some(&SqlState::ADMIN_SHUTDOWN);
            assert!(
                told || error.is_closed() || error.to_string().contains("communicating"),
                "{error:?}"
            );
        }
        assert_eq!(pila::run().blocked, 0);
    });
}
