//! What the tests of whole programs share: peers and examples as processes that end with the test, what the system says
//! about them, and bounds on how long anything may take.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, WaitId, WaitIdOptions, geteuid, waitid};

/// What Linux counts processor time in, on every architecture there is.
const TICK: Duration = Duration::from_millis(10);

/// Far more than anything here takes that is not counted in mails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Lets the tests of one file run one after the other, as those must that measure.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed has cleaned up behind it all the same.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the program `name` is. Where it is missing the test has to be left out, which only CI does not accept.
#[track_caller]
pub(crate) fn peer(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/bin".into()]);
    let found = directories.map(|directory| directory.join(name)).find(|path| path.is_file());
    if found.is_none() {
        left_out(&format!("{name} is not installed"));
    }
    found
}

/// Whether this user may do what only root may; if not, the test has to be left out.
#[track_caller]
pub(crate) fn is_root() -> bool {
    if !geteuid().is_root() {
        left_out("only root can do this");
    }
    geteuid().is_root()
}

/// Says that a test proves nothing here, past the harness that would keep it to itself.
#[track_caller]
pub(crate) fn left_out(why: &str) {
    assert!(env::var_os("CI").is_none(), "{why}");
    writeln!(io::stderr(), "LEFT OUT at {}: {why}", std::panic::Location::caller()).ok();
}

/// Shows a figure, past the harness that would keep it to itself.
pub(crate) fn tell(figure: &str) {
    writeln!(io::stderr(), "{figure}").ok();
}

/// Looks every few milliseconds until there is something, for `limit` at most.
#[track_caller]
pub(crate) fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < limit, "{what}: not within {limit:?}");
        pila::sleep(Duration::from_millis(2));
    }
}

/// Measures time, less what its thread stood in line for a processor meanwhile: others may have them, and that is no
/// matter of ours.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    begun: Instant,
    in_line: Duration,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { begun: Instant::now(), in_line: in_line("/proc/thread-self") }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        let in_line = in_line("/proc/thread-self") - self.in_line;
        self.begun.elapsed().saturating_sub(in_line)
    }
}

/// How long a thread or process, by its directory in `/proc`, has stood in line for a processor.
pub(crate) fn in_line(directory: &str) -> Duration {
    // Where the system does not say, it is as if it never had.
    let statistics = fs::read_to_string(format!("{directory}/schedstat")).unwrap_or_default();
    let nanoseconds = statistics.split_whitespace().nth(1).and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// Runs `body` on a thread of its own, with a scheduler of its own, and fails when it hangs.
#[track_caller]
pub(crate) fn bounded<T: Send + 'static>(
    limit: Duration,
    body: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, result) = mpsc::channel();
    let thread = thread::spawn(move || done.send(body()).expect("the test waits for it"));
    match result.recv_timeout(limit) {
        Ok(value) => {
            thread.join().expect("it has sent its result");
            value
        }
        Err(RecvTimeoutError::Timeout) => panic!("hangs: no end within {limit:?}"),
        Err(RecvTimeoutError::Disconnected) => {
            resume_unwind(thread.join().expect_err("it ended without a result"))
        }
    }
}

/// A loopback address that nobody listens at, for a program that cannot choose a port itself. Its port is below those
/// that the system gives to connections, so that none of them takes it in between.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    (0..10_000)
        .map(|_| {
            let number = std::process::id().wrapping_mul(37) + NEXT.fetch_add(1, Ordering::Relaxed);
            SocketAddr::from((Ipv4Addr::LOCALHOST, 20_000 + (number % 12_000) as u16))
        })
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("one of so many ports is free")
}

/// A directory that is removed with all that is in it.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("pila-{name}-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A process that is killed, if it still runs, when the test is done with it.
#[derive(Debug)]
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Waits until it listens at `address`. False if it ends instead.
    pub(crate) fn listens(&mut self, address: SocketAddr) -> bool {
        until("a server that listens", PATIENCE, || match self.0.try_wait().unwrap() {
            Some(_) => Some(false),
            None => std::net::TcpStream::connect(address).is_ok().then_some(true),
        })
    }

    /// A line of what the system says about it.
    fn status(&self, field: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).ok()?;
        number_after(&status, field)
    }

    /// Whether it has ended. It stays there to be looked at.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&self.0)), options).unwrap().is_some()
    }

    /// Waits for its end, and returns the processor time it has used. It stays there to be asked for its status.
    #[track_caller]
    pub(crate) fn ended(&self, limit: Duration) -> Duration {
        until("a process that ends", limit, || self.has_ended().then_some(()));
        self.cpu()
    }

    /// The processor time it has used itself, without that of its children.
    fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        // The name, in parentheses, may contain anything.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |field: usize| fields[field].parse::<u32>().unwrap();
        TICK * (ticks(11) + ticks(12))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The number that follows `field` in a file of `/proc`.
pub(crate) fn number_after(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What a process left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// User and system time, in ticks of 10 ms.
    pub(crate) cpu: Duration,
    pub(crate) elapsed: Duration,
    /// The most threads it was seen to have.
    pub(crate) threads: u64,
}

/// Runs `command` to its end, which must come within `limit`.
#[track_caller]
pub(crate) fn finish(command: &mut Command, limit: Duration) -> Outcome {
    let begun = Instant::now();
    let mut process = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let stdout = collect(process.0.stdout.take().expect("it is a pipe"));
    let stderr = collect(process.0.stderr.take().expect("it is a pipe"));
    let mut threads = 0;
    until(&format!("{command:?} ends"), limit, || {
        threads = threads.max(process.status("Threads:").unwrap_or(0));
        process.has_ended().then_some(())
    });
    let (elapsed, cpu) = (begun.elapsed(), process.cpu());
    let status = process.0.wait().unwrap().code();
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    Outcome { status, stdout, stderr, cpu, elapsed, threads }
}

fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// An example, as `cargo test` has built it beside the tests.
pub(crate) fn example(name: &str) -> Command {
    let test = env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(
        path.exists(),
        "{} is built by `cargo test` or `cargo build --examples`",
        path.display()
    );
    Command::new(path)
}

/// The stackless example with these arguments.
pub(crate) fn stackless<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = example("stackless");
    command.args(arguments);
    command
}

/// A row of the example's table of mails that failed.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) step: String,
    pub(crate) what: String,
    pub(crate) mails: u64,
}

impl Outcome {
    /// The last line the example wrote.
    pub(crate) fn summary(&self) -> &str {
        self.stdout.lines().last().unwrap_or_default()
    }

    /// The number that stands before `words` in the last line.
    #[track_caller]
    pub(crate) fn number_before(&self, words: &str) -> u64 {
        let (before, _) = self.summary().split_once(words).unwrap_or_else(|| panic!("{self:?}"));
        let number = before.split_whitespace().next_back().and_then(|word| word.parse().ok());
        number.unwrap_or_else(|| panic!("{self:?}"))
    }

    /// How many mails the last line says were sent.
    #[track_caller]
    pub(crate) fn sent(&self) -> u64 {
        self.number_before(" of ")
    }

    /// The table of the mails that failed.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let table = self.stdout.lines().skip_while(|line| !line.starts_with("step ")).skip(1);
        let row = |line: &str| {
            let column = |range| line.get(range).map(|text: &str| text.trim().to_owned());
            let mails = column(33..41)?.parse().ok()?;
            Some(Row { step: column(0..9)?, what: column(11..31)?, mails })
        };
        table.map_while(row).collect()
    }

    /// Asserts that every one of `mails` mails was either sent or is in the table, and that the exit status says which.
    #[track_caller]
    pub(crate) fn assert_accounts_for(&self, mails: u64) {
        let failed: u64 = self.rows().iter().map(|row| row.mails).sum();
        assert_eq!(self.number_before(" mails in "), mails, "{self:?}");
        assert_eq!(self.sent() + failed, mails, "{self:?}");
        assert_eq!(self.status, Some(i32::from(failed > 0)), "{self:?}");
    }

    /// Asserts that all of `mails` mails were sent.
    #[track_caller]
    pub(crate) fn assert_sent(&self, mails: u64) {
        self.assert_accounts_for(mails);
        assert_eq!(self.sent(), mails, "{self:?}");
    }
}
