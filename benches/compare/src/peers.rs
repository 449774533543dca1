//! Who is compared: how each program is built, and what it cannot do.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Where things are.
pub(crate) struct Places {
    /// This workspace.
    pub(crate) here: PathBuf,
    /// The repository.
    pub(crate) repository: PathBuf,
    /// Where everything built and written goes.
    pub(crate) target: PathBuf,
}

impl Places {
    pub(crate) fn new() -> Places {
        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let repository = here.ancestors().nth(2).expect("it lies in benches/compare").to_owned();
        let target = repository.join("target/compare");
        Places { here, repository, target }
    }
}

/// How a program comes to be.
enum Source {
    /// The package `peer-NAME` of this workspace.
    Cargo,
    /// `peers/NAME`, with `go build`.
    Go,
    /// One file, a compiler and libraries of Debian's package.
    Compiled { compiler: &'static str, file: &'static str, libraries: &'static [&'static str] },
    /// `peers/python/peer.py`, in an environment of its own.
    Python,
}

/// One of those that are compared.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    source: Source,
    /// So many tasks may be alive.
    pub(crate) most_tasks: usize,
    /// It is asked for so many times less, or it would take minutes.
    pub(crate) slowness: u64,
    /// It is no peer but what there is without a scheduler.
    pub(crate) is_floor: bool,
}

const NO_LIMIT: usize = usize::MAX;
/// A guard page a stack, and the usual `vm.max_map_count`.
const GUARDED: usize = 30_000;

const fn peer(name: &'static str, source: Source, most_tasks: usize, slowness: u64) -> Peer {
    Peer { name, source, most_tasks, slowness, is_floor: false }
}

const fn floor(name: &'static str, most_tasks: usize) -> Peer {
    Peer { name, source: Source::Cargo, most_tasks, slowness: 1, is_floor: true }
}

/// All, pila first.
pub(crate) const PEERS: [Peer; 12] = [
    peer("pila", Source::Cargo, NO_LIMIT, 1),
    floor("corosensei", GUARDED),
    floor("epoll", NO_LIMIT),
    peer("tokio", Source::Cargo, NO_LIMIT, 1),
    peer("smol", Source::Cargo, NO_LIMIT, 2),
    peer("monoio", Source::Cargo, NO_LIMIT, 1),
    peer("may", Source::Cargo, GUARDED, 2),
    peer("go", Source::Go, NO_LIMIT, 2),
    peer("boost-fiber", BOOST, 100_000, 2),
    peer("state-threads", STATE_THREADS, GUARDED / 2, 10),
    peer("greenlet", Source::Python, 100_000, 10),
    peer("gevent", Source::Python, 100_000, 50),
];

const BOOST: Source = Source::Compiled {
    compiler: "g++",
    file: "peers/boost-fiber/main.cpp",
    libraries: &["-lboost_fiber", "-lboost_context", "-lpthread"],
};

const STATE_THREADS: Source =
    Source::Compiled { compiler: "gcc", file: "peers/state-threads/main.c", libraries: &["-lst"] };

/// A program that can be started.
pub(crate) struct Program {
    pub(crate) peer: &'static Peer,
    /// The program and its first arguments.
    pub(crate) command: Vec<String>,
}

impl Peer {
    /// Builds it. The error is the word with which it is skipped.
    pub(crate) fn build(&'static self, places: &Places) -> Result<Program, String> {
        let binary = places.target.join(format!("peer-{}", self.name));
        let command = match &self.source {
            Source::Cargo => vec![self.build_with_cargo(places)?],
            Source::Go => {
                let mut go = Command::new("go");
                go.args(["build", "-o"]).arg(&binary).arg(".");
                go.env("GOCACHE", places.target.join("go-cache"));
                build(go.current_dir(places.here.join("peers/go")))?;
                vec![text(&binary)]
            }
            Source::Compiled { compiler, file, libraries } => {
                let mut compile = Command::new(compiler);
                compile.args(["-O3", file, "-o"]).arg(&binary).args(*libraries);
                build(compile.current_dir(&places.here))?;
                vec![text(&binary)]
            }
            Source::Python => {
                let python = environment(places)?;
                let peer = places.here.join("peers/python/peer.py");
                vec![text(&python), text(&peer), self.name.to_owned()]
            }
        };
        Ok(Program { peer: self, command })
    }

    fn build_with_cargo(&self, places: &Places) -> Result<String, String> {
        let package = format!("peer-{}", self.name);
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--quiet", "--profile", "peers", "-p", &package]);
        build(cargo.current_dir(&places.here))?;
        Ok(text(&places.target.join("cargo/peers").join(package)))
    }

    /// Which version of it was compared.
    pub(crate) fn version(&self, places: &Places) -> Option<String> {
        match self.source {
            Source::Cargo => locked_version(&places.here.join("Cargo.lock"), self.name),
            Source::Go => first_line(Command::new("go").arg("version"))?
                .split_whitespace()
                .nth(2)
                .map(|version| version.trim_start_matches("go").to_owned()),
            Source::Compiled { compiler, .. } => {
                let package = if compiler == "g++" { "libboost-fiber-dev" } else { "libst-dev" };
                first_line(Command::new("dpkg-query").args(["-W", "-f", "${Version}", package]))
            }
            Source::Python => {
                let python = places.target.join("venv/bin/python");
                let print = format!("import {0}; print({0}.__version__)", self.name);
                first_line(Command::new(python).args(["-c", &print]))
            }
        }
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Runs what builds something. An error is what it said last.
fn build(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let error = said.lines().find(|line| line.contains("error")).or(said.lines().last());
    Err(format!("{program}: {}", error.unwrap_or("failed").trim()))
}

/// A Python that has greenlet and gevent, made once.
fn environment(places: &Places) -> Result<PathBuf, String> {
    let (venv, ready) = (places.target.join("venv"), places.target.join("venv/ready"));
    if !ready.exists() {
        build(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        let mut pip = Command::new(venv.join("bin/pip"));
        pip.args(["install", "-q", "-r"]).arg(places.here.join("peers/python/requirements.txt"));
        build(&mut pip)?;
        fs::write(&ready, "").map_err(|error| error.to_string())?;
    }
    Ok(venv.join("bin/python"))
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned())
}

/// What a lock file says of a package.
fn locked_version(lock: &Path, package: &str) -> Option<String> {
    let lock = fs::read_to_string(lock).ok()?;
    let (_, after) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    Some(after.split('"').next()?.to_owned())
}
