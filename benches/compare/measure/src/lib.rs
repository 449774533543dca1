//! What the Rust programs that are compared have in common: the work they are asked for on the command line, and how they
//! answer. The programs in other languages take the same words and give the same lines.
//!
//! ```text
//! spawn TASKS                        make them in batches of 1,000, run them, see them end    ns
//! switch TASKS ROUNDS DEPTH ORDER    each yields so often                                      ns
//! ring TASKS HOPS DEPTH              hand one value round them, through a channel each         ns
//! idle TASKS                         let them wait, then wake all     resident page_tables make end
//! sleeps TASKS                       each sleeps ten times, 0 to 100 ms                        cpu
//! timeouts COUNT                     set a timeout of an hour and cancel it, so often          ns
//! echo                               send back what comes, for ever                            port
//! ```
//!
//! An answer is a line: what was measured, and a number. `resident` and `page_tables` are bytes, `cpu` is nanoseconds that
//! the process's processors worked, the others are nanoseconds, and all but `cpu` are for one task, switch or timeout.
//! `unsupported` is an answer as well. DEPTH is `inlined` or `deep`, ORDER `creation` or `random`.

use std::{env, fmt::Display, fs, str::FromStr, time::Duration};

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};

/// Tasks that are made before the first of them runs.
pub const BATCH: u64 = 1_000;
/// How often a sleeper sleeps.
pub const NAPS: u32 = 10;
/// A timeout that is never over.
pub const HOUR: Duration = Duration::from_secs(3600);
/// Read at a time by an echo server.
pub const BUFFER: usize = 1024;

/// What a program is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    Spawn { tasks: u64 },
    Switch { tasks: usize, rounds: u64, depth: Depth, order: Order },
    Ring { tasks: usize, hops: u64, depth: Depth },
    Idle { tasks: usize },
    Sleeps { tasks: u64 },
    Timeouts { count: u64 },
    Echo,
}

/// Where a task makes way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// In its body, as far as the compiler inlines the call.
    Inlined,
    /// Below three calls, as in all real code.
    Deep,
}

/// In which order tasks take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// That in which they were made.
    Creation,
    /// A random one, the same in every run.
    Random,
}

impl Order {
    /// The places 0 to `size` in this order.
    pub fn places(self, size: usize) -> Vec<usize> {
        let mut order: Vec<_> = (0..size).collect();
        if self == Order::Random {
            let mut random = Random::new(0);
            for place in (1..size).rev() {
                order.swap(place, (random.draw() % (place as u64 + 1)) as usize);
            }
        }
        order
    }
}

impl Work {
    /// What the command line asks for.
    pub fn asked() -> Work {
        raise_descriptor_limit();
        let mut words = env::args().skip(1);
        let mut next = || words.next().expect("the driver gives all words");
        let kind = next();
        match &*kind {
            "spawn" => Work::Spawn { tasks: number(&next()) },
            "switch" => Work::Switch {
                tasks: number(&next()),
                rounds: number(&next()),
                depth: depth(&next()),
                order: if next() == "random" { Order::Random } else { Order::Creation },
            },
            "ring" => {
                Work::Ring { tasks: number(&next()), hops: number(&next()), depth: depth(&next()) }
            }
            "idle" => Work::Idle { tasks: number(&next()) },
            "sleeps" => Work::Sleeps { tasks: number(&next()) },
            "timeouts" => Work::Timeouts { count: number(&next()) },
            "echo" => Work::Echo,
            other => panic!("no such work: {other}"),
        }
    }
}

fn number<N: FromStr>(word: &str) -> N {
    word.parse().ok().expect("the driver gives numbers")
}

fn depth(word: &str) -> Depth {
    if word == "deep" { Depth::Deep } else { Depth::Inlined }
}

/// Two descriptors a connection are more than the usual soft limit.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // A server that lacks them says so when it accepts.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Gives an answer.
pub fn answer(what: &str, value: impl Display) {
    println!("{what} {value}");
}

/// Gives a time, divided by how many things were done in it.
pub fn answer_each(what: &str, time: Duration, count: u64) {
    answer(what, time.as_nanos() as f64 / count as f64);
}

/// Says that this cannot be asked of this program.
pub fn unsupported() {
    println!("unsupported");
}

/// How long this process's processors have worked.
pub fn worked() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What this process has of memory.
#[derive(Debug)]
pub struct Memory {
    resident: u64,
    page_tables: u64,
}

impl Memory {
    pub fn now() -> Memory {
        let status = fs::read_to_string("/proc/self/status").expect("this is Linux");
        let bytes = |name| {
            let line = status.lines().find(|line| line.starts_with(name));
            let kib = line.and_then(|line| line.split_whitespace().nth(1));
            number::<u64>(kib.expect("Linux tells")) * 1024
        };
        Memory { resident: bytes("VmRSS:"), page_tables: bytes("VmPTE:") }
    }

    /// Says what came to it since, for each of `count` tasks.
    pub fn answer_growth(&self, count: usize) {
        let now = Memory::now();
        let each = |now: u64, then| now.saturating_sub(then) as f64 / count as f64;
        answer("resident", each(now.resident, self.resident));
        answer("page_tables", each(now.page_tables, self.page_tables));
    }
}

/// Numbers without a visible order, the same in every run and in every language.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(2_654_435_761).wrapping_add(88_172_645_463_325_252))
    }

    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// 0 to 100 ms, in whole microseconds.
    pub fn nap(&mut self) -> Duration {
        Duration::from_micros(self.draw() % 100_000)
    }
}

// After the call, so that it cannot become a jump that leaves no frame.
macro_rules! then_something {
    ($call:expr) => {{
        let result = $call;
        std::hint::black_box(());
        result
    }};
}

/// Calls `operation` below three calls that are never inlined.
#[inline(never)]
pub fn below_three_calls<R>(operation: impl FnOnce() -> R) -> R {
    then_something!(second(operation))
}

#[inline(never)]
fn second<R>(operation: impl FnOnce() -> R) -> R {
    then_something!(third(operation))
}

#[inline(never)]
fn third<R>(operation: impl FnOnce() -> R) -> R {
    then_something!(operation())
}
