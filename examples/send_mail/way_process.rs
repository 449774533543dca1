//! The process that sends mails in one way, so that what it takes is measured apart: `Watched` is what its parent sees of
//! it, `main` what it does.

use std::{
    env, fs,
    io::{self, Read},
    os::unix::process::CommandExt,
    process::{ExitCode, ExitStatus},
    sync::Arc,
    time::{Duration, Instant},
};

use pila::process::{Child, Command, Stdio};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::{
    descriptors, limits,
    post::{Post, Task},
    tally::{Score, cpu_time},
    ways::Way,
};

/// How often the parent looks.
const PAUSE: Duration = Duration::from_millis(20);

/// How a way's process has ended.
pub(crate) struct Ending {
    pub(crate) status: ExitStatus,
    /// What it has to say, if it came to that.
    pub(crate) score: Option<Score>,
    /// What was seen of it.
    pub(crate) threads: u64,
    pub(crate) peak_kib: u64,
}

/// A way's process, killed if it is given up.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already unless whoever waits for it is killed.
        self.0.kill().ok();
    }
}

/// Has another process do this, calls `look` now and then, and returns when it has ended.
pub(crate) fn run(task: &Task, mut look: impl FnMut() -> io::Result<()>) -> io::Result<Ending> {
    let task = serde_json::to_string(task)?;
    let mut command = Command::new(env::current_exe()?);
    command.args(["--task", &task]).stdin(Stdio::null()).stdout(Stdio::piped());
    // Ctrl-C is for the parent alone, which knows what to do about its children.
    command.as_std_mut().process_group(0);
    let mut running = Running(command.spawn()?);
    let mut output = running.0.stdout.take().expect("standard output is a pipe");
    let (mut threads, mut peak_kib) = (0, 0);
    let status = loop {
        let seen = See::process(running.0.id());
        (threads, peak_kib) = (threads.max(seen.threads), peak_kib.max(seen.peak_kib));
        look()?;
        if let Ok(status) = pila::timeout(PAUSE, || running.0.wait()) {
            break status?;
        }
    };
    let mut text = String::new();
    output.read_to_string(&mut text)?;
    Ok(Ending { status, score: serde_json::from_str(&text).ok(), threads, peak_kib })
}

/// What the system says about a process; nothing when it has ended.
#[derive(Default)]
struct See {
    threads: u64,
    peak_kib: u64,
}

impl See {
    fn process(id: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let [threads, peak_kib] = ["Threads:", "VmHWM:"].map(|name| number(name).unwrap_or(0));
        Self { threads, peak_kib }
    }
}

/// What the process does.
pub(crate) fn main(task: &Task) -> ExitCode {
    match send(task).and_then(|score| Ok(serde_json::to_string(&score)?)) {
        Ok(score) => {
            println!("{score}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("send_mail: {}: {error}", task.way);
            ExitCode::FAILURE
        }
    }
}

fn send(task: &Task) -> io::Result<Score> {
    // Whoever kills the parent does not want this one to go on.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    descriptors::raise_limit();
    let way = Way::find(&task.way).map_err(io::Error::other)?;
    let post = Arc::new(Post::new(task.clone()));
    if let Some(bytes) = task.address_space {
        limits::set_address_space(bytes)?;
    }
    let (start, cpu) = (Instant::now(), cpu_time());
    let counted = match (way.run)(&post) {
        Ok(counted) => counted,
        Err(error) => {
            post.cannot_go_on(error.to_string());
            post.tally.sent()
        }
    };
    Ok(post.tally.score(counted, start.elapsed(), cpu))
}
