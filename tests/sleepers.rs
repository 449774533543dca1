//! Half a million that wait for time, and are killed, thrown at and inserted at random: each is accounted for at every
//! step, ends at its deadline or by its kill, and leaves nothing behind.

use std::{
    cell::{Cell, RefCell},
    fs,
    rc::Rc,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use pila::{
    Builder, Channel, Handle, ReceiveError, Select, TaskletError,
    driver::{self, VirtualClock},
};

/// How many sleep at one time.
const SLEEPERS: usize = if cfg!(debug_assertions) { 20_000 } else { 500_000 };

/// A minute, second by second.
const STEPS: u64 = 60;

/// How many are killed, thrown at and inserted in a step, of each kind.
const ACCIDENTS: usize = SLEEPERS / 250;

/// The longest sleep, in milliseconds.
const LONGEST: usize = 120_000;

/// The memory is the process's.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

/// What became of all that were made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Counts {
    made: usize,
    /// At their deadlines.
    woke: usize,
    /// By an error that was thrown at them.
    thrown_out: usize,
    /// By a kill.
    killed: usize,
    /// Destructors of theirs that ran.
    dropped: usize,
}

impl Counts {
    fn ended(self) -> usize {
        self.woke + self.thrown_out + self.killed
    }

    fn alive(self) -> usize {
        self.made - self.ended()
    }
}

struct Dormitory {
    counts: Cell<Counts>,
    sleepers: RefCell<Vec<Handle>>,
    /// Nobody ever sends to it.
    silence: Channel<()>,
    random: RefCell<Random>,
    /// Whether nobody wakes late: the clock stands still while anyone runs.
    exact: bool,
}

/// What every sleeper owns.
struct Pillow {
    dormitory: Rc<Dormitory>,
    /// Whether it has ended by itself.
    risen: Cell<bool>,
}

impl Drop for Pillow {
    fn drop(&mut self) {
        self.dormitory.count(|counts| {
            counts.dropped += 1;
            counts.killed += usize::from(!self.risen.get());
        });
        // It cannot be held up.
        if thread::panicking() {
            pila::sleep(Duration::MAX);
            assert!(matches!(self.dormitory.silence.receive(), Err(ReceiveError::Refused(_))));
        }
    }
}

impl Dormitory {
    fn new(seed: u64, exact: bool) -> Rc<Dormitory> {
        Rc::new(Dormitory {
            counts: Cell::default(),
            sleepers: RefCell::default(),
            silence: Channel::new(),
            random: RefCell::new(Random(seed)),
            exact,
        })
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    fn below(&self, bound: usize) -> usize {
        self.random.borrow_mut().below(bound)
    }

    /// One more, who sleeps for up to `longest` milliseconds, in one of several ways.
    fn bed(self: &Rc<Dormitory>, longest: usize) {
        self.count(|counts| counts.made += 1);
        let (way, time) = (self.below(8), Duration::from_millis(1 + self.below(longest) as u64));
        let pillow = Pillow { dormitory: self.clone(), risen: Cell::new(false) };
        let tasklet = Builder::new().stack_size(32 << 10).tasklet(move || {
            // All of it, not its fields.
            let pillow = pillow;
            let dormitory = &pillow.dormitory;
            let deadline = driver::now() + time;
            let thrown_out = match way {
                0 => {
                    matches!(dormitory.silence.receive_timeout(time), Err(ReceiveError::Thrown(_)))
                }
                1 => Select::new()
                    .receive(&dormitory.silence, |got| matches!(got, Err(ReceiveError::Thrown(_))))
                    .after(time, || false)
                    .wait(),
                2 => {
                    (0..4).for_each(|_| pila::sleep(time / 4));
                    pila::sleep(deadline.saturating_duration_since(driver::now()));
                    false
                }
                _ => {
                    pila::sleep(time);
                    false
                }
            };
            let now = driver::now();
            pillow.risen.set(true);
            if thrown_out {
                return dormitory.count(|counts| counts.thrown_out += 1);
            }
            assert!(now >= deadline, "it woke {:?} early", deadline - now);
            assert!(!dormitory.exact || now == deadline, "it woke {:?} late", now - deadline);
            dormitory.count(|counts| counts.woke += 1);
        });
        self.sleepers.borrow_mut().push((*tasklet.unwrap()).clone());
    }

    /// Anyone who was ever made and is not forgotten.
    fn anyone(&self) -> Handle {
        let sleepers = self.sleepers.borrow();
        sleepers[self.random.borrow_mut().below(sleepers.len())].clone()
    }

    /// What happens to sleepers in a step. Returns how many are going to end at their next turn.
    fn disturb(self: &Rc<Dormitory>, accidents: usize) -> usize {
        let mut doomed = 0;
        for _ in 0..accidents {
            let victim = self.anyone();
            let (was_alive, before) = (victim.is_alive(), self.counts.get());
            victim.kill().unwrap();
            assert!(!victim.is_alive());
            let after = self.counts.get();
            assert_eq!(after.killed - before.killed, usize::from(was_alive));
            assert_eq!(after.dropped - before.dropped, usize::from(was_alive));

            let victim = self.anyone();
            doomed += usize::from(victim.is_blocked());
            victim.kill_later().unwrap();

            let victim = self.anyone();
            match victim.throw_later("wake up") {
                Ok(()) => doomed += 1,
                Err(TaskletError::CannotThrow(_) | TaskletError::Dead(_)) => {}
                Err(error) => panic!("{error}"),
            }

            // Nobody is woken by being put into the run queue.
            let victim = self.anyone();
            match victim.insert() {
                Ok(()) => assert!(victim.is_scheduled() && !victim.is_blocked()),
                Err(TaskletError::Blocked(_)) => assert!(victim.is_blocked()),
                Err(TaskletError::Dead(_)) => assert!(!victim.is_alive()),
                Err(error) => panic!("{error}"),
            }
        }
        doomed
    }

    /// Runs for `time` and checks what `run` says of it.
    fn run_for(self: &Rc<Dormitory>, time: Duration) {
        let (before, main) = (self.counts.get(), pila::current());
        let dormitory = self.clone();
        let warden = pila::tasklet(move || {
            let deadline = driver::now() + time;
            // Some are killed while the others sleep.
            for _ in 0..8 {
                pila::sleep(time / 10);
                dormitory.anyone().kill().unwrap();
            }
            pila::sleep(deadline.saturating_duration_since(driver::now()));
            main.insert().unwrap();
        });
        let summary = pila::run();
        let after = self.counts.get();
        assert!(!warden.is_alive());
        assert_eq!(summary.finished, after.ended() - before.ended() + 1, "{before:?} {after:?}");
        assert_eq!((summary.paused, summary.no_stack, summary.unread_panics), (0, 0, 0));
        assert_eq!(summary.blocked, self.check());
    }

    /// How many are asleep, when all are accounted for.
    fn check(&self) -> usize {
        let counts = self.counts.get();
        assert_eq!(counts.dropped, counts.ended(), "{counts:?}");
        let (mut asleep, mut woken) = (0, 0);
        self.sleepers.borrow_mut().retain(|sleeper| {
            asleep += usize::from(sleeper.is_blocked());
            woken += usize::from(sleeper.is_scheduled() && !sleeper.is_blocked());
            sleeper.is_alive()
        });
        assert_eq!(self.sleepers.borrow().len(), counts.alive(), "{counts:?}");
        assert_eq!(asleep + woken, counts.alive(), "{counts:?}");
        assert!(woken == 0 || !self.exact, "their time has come, and that of main after it");
        asleep
    }

    /// Those that are left sleep until their deadlines.
    fn sleep_out(&self) -> Counts {
        let before = self.counts.get();
        let summary = pila::run();
        let counts = self.counts.get();
        assert_eq!((summary.blocked, summary.paused), (0, 0), "someone is asleep for ever");
        assert_eq!(summary.finished, counts.ended() - before.ended());
        self.check();
        assert_eq!((counts.alive(), self.silence.balance()), (0, 0));
        assert!(self.silence.waiters().is_empty());
        counts
    }
}

/// Half a million sleepers for a minute of a clock that is not the machine's.
fn a_minute(seed: u64) -> Counts {
    let (start, dormitory) = (driver::now(), Dormitory::new(seed, true));
    for second in 0..STEPS {
        while dormitory.counts.get().alive() < SLEEPERS {
            dormitory.bed(LONGEST);
        }
        // Some are killed before they have ever run.
        let unborn = dormitory.disturb(ACCIDENTS / 8);
        pila::schedule();
        let doomed = dormitory.disturb(ACCIDENTS);
        assert!(second == 0 || unborn + doomed > 0);
        dormitory.run_for(Duration::from_secs(1));
        assert_eq!(driver::now() - start, Duration::from_secs(second + 1));
    }
    let counts = dormitory.sleep_out();
    let longest = Duration::from_millis(LONGEST as u64);
    assert!(driver::now() - start <= Duration::from_secs(STEPS) + longest);
    assert!(counts.woke > 0 && counts.killed > 0 && counts.thrown_out > 0, "{counts:?}");
    counts
}

/// What is resident, in KiB.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
}

#[test]
fn soak_half_a_million_sleepers_with_random_kills_for_a_minute_are_all_accounted_for() {
    let _alone = alone();
    let before = resident();
    let night = thread::spawn(|| {
        driver::install(Box::new(VirtualClock::new())).unwrap();
        a_minute(1);
        pila::trim();
        let first = resident();
        a_minute(2);
        // Free stacks may keep some memory for the next.
        pila::trim();
        (first, resident())
    });
    let (first, second) = night.join().unwrap();
    let after = resident();
    let report = format!("{before} KiB, then {first}, then {second}, after the thread {after}");
    // What the first needed serves the second, and with the thread it goes. Of so many small pieces the allocator keeps
    // some MiB, now more, now less: far under what a piece lost with each sleeper would come to.
    let pieces = 4096 + SLEEPERS * 32 / 1024;
    assert!(second <= first + pieces, "{report}");
    assert!(after <= before + pieces, "{report}");
}

#[test]
fn sleepers_on_the_machines_clock_with_random_kills_are_all_accounted_for() {
    const LONGEST: Duration = Duration::from_secs(2);
    let _alone = alone();
    let (start, dormitory) = (Instant::now(), Dormitory::new(3, false));
    for _ in 0..SLEEPERS / 10 {
        dormitory.bed(LONGEST.as_millis() as usize);
    }
    for _ in 0..10 {
        dormitory.disturb(ACCIDENTS / 10);
        dormitory.run_for(Duration::from_millis(100));
    }
    let counts = dormitory.sleep_out();
    assert!(counts.woke > 0 && counts.killed > 0 && counts.thrown_out > 0, "{counts:?}");
    // Nobody oversleeps by much, whatever else the machine has to do.
    assert!(start.elapsed() < LONGEST + Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn one_of_many_sleepers_dies_at_its_kill_and_all_others_wake_in_the_order_of_their_deadlines() {
    let _alone = alone();
    driver::install(Box::new(VirtualClock::new())).unwrap();
    let woken = Rc::new(RefCell::new(Vec::new()));
    let sleepers: Vec<_> = (0..1000)
        .map(|number: u64| {
            let (woken, time) = (woken.clone(), number * 333 % 1000 / 2);
            pila::tasklet(move || {
                pila::sleep(Duration::from_millis(time));
                woken.borrow_mut().push((time, number));
            })
        })
        .collect();
    pila::schedule();
    sleepers[500].kill().unwrap();
    assert_eq!(pila::run().finished, 999);
    let mut expected: Vec<_> = (0..1000).filter(|&number| number != 500).collect();
    expected.sort_by_key(|number| number * 333 % 1000 / 2);
    let numbers: Vec<_> = woken.borrow().iter().map(|&(_, number)| number).collect();
    assert_eq!(numbers, expected);
}
