//! Random programs over locks, semaphores and conditions, whose tasklets are killed, thrown at and out of time at any
//! place: nobody is where another is, nothing is lost, and nobody waits who could go on.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use pila::{
    Handle, Tasklet,
    driver::{self, VirtualClock},
    sleep,
    sync::{Condvar, Mutex, RwLock, Semaphore},
    tasklet,
};

const PERMITS: usize = 4;

struct Random(Cell<u64>);

impl Random {
    fn below(&self, end: u64) -> u64 {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D) % end
    }

    fn time(&self) -> Duration {
        Duration::from_micros(self.below(30))
    }
}

/// What one waits for, as far as it itself knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum For {
    Mutex,
    Read,
    Write,
    Permits(usize),
    Token,
}

struct World {
    random: Random,
    /// Which kind of step is the most frequent.
    subject: u64,
    mutex: Mutex<()>,
    lock: RwLock<()>,
    semaphore: Semaphore,
    tokens: Mutex<u32>,
    token_added: Condvar,
    /// Who is inside, by the program's own count.
    in_mutex: Cell<usize>,
    readers: Cell<usize>,
    writers: Cell<usize>,
    permits: Cell<usize>,
    /// Who asked for what, in the order of asking.
    asked: RefCell<BTreeMap<u64, (Handle, For)>>,
    next: Cell<u64>,
}

/// Counts someone in, and out by any road.
struct Inside<'a>(&'a Cell<usize>, usize);

impl<'a> Inside<'a> {
    fn new(count: &'a Cell<usize>, by: usize) -> Inside<'a> {
        count.set(count.get() + by);
        Inside(count, by)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - self.1);
    }
}

/// Notes a question until it is answered, by any road.
struct Asking<'a>(&'a World, u64);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.asked.borrow_mut().remove(&self.1);
    }
}

impl World {
    fn new(seed: u64) -> World {
        let random = Random(Cell::new(seed));
        World {
            subject: random.below(5),
            random,
            mutex: Mutex::new(()),
            lock: RwLock::new(()),
            semaphore: Semaphore::bounded(PERMITS, PERMITS),
            tokens: Mutex::new(0),
            token_added: Condvar::new(),
            in_mutex: Cell::default(),
            readers: Cell::default(),
            writers: Cell::default(),
            permits: Cell::default(),
            asked: RefCell::default(),
            next: Cell::default(),
        }
    }

    fn ask(&self, what: For) -> Asking<'_> {
        let number = self.next.replace(self.next.get() + 1);
        self.asked.borrow_mut().insert(number, (pila::current(), what));
        Asking(self, number)
    }

    fn linger(&self) {
        match self.random.below(3) {
            0 => {}
            1 => pila::schedule(),
            _ => sleep(self.random.time()),
        }
    }

    fn step(&self) {
        // Most of a program is about one thing, so that many meet there.
        let kind = if self.random.below(3) == 0 { self.random.below(6) } else { self.subject };
        match kind {
            0 => self.lock_mutex(),
            1 => self.read(),
            2 => self.write(),
            3 => self.acquire(),
            4 if self.random.below(3) > 0 => self.take_token(),
            _ => self.add_token(),
        }
    }

    fn lock_mutex(&self) {
        let asking = self.ask(For::Mutex);
        let guard = match self.random.below(4) {
            0 => self.mutex.try_lock(),
            1 => self.mutex.lock_timeout(self.random.time()),
            _ => self.mutex.lock(),
        };
        drop(asking);
        if let Ok(_guard) = guard {
            let _inside = Inside::new(&self.in_mutex, 1);
            assert_eq!(self.in_mutex.get(), 1);
            self.linger();
            assert!(self.mutex.owner().unwrap().is_current());
        }
    }

    fn read(&self) {
        let asking = self.ask(For::Read);
        let guard = match self.random.below(4) {
            0 => self.lock.try_read(),
            1 => self.lock.read_timeout(self.random.time()),
            _ => self.lock.read(),
        };
        drop(asking);
        if let Ok(_guard) = guard {
            let _inside = Inside::new(&self.readers, 1);
            assert_eq!(self.writers.get(), 0);
            self.linger();
            let again = self.lock.read();
            assert!(again.is_ok());
            assert_eq!(self.writers.get(), 0);
        }
    }

    fn write(&self) {
        let asking = self.ask(For::Write);
        let guard = match self.random.below(4) {
            0 => self.lock.try_write(),
            1 => self.lock.write_timeout(self.random.time()),
            _ => self.lock.write(),
        };
        drop(asking);
        if let Ok(_guard) = guard {
            let _inside = Inside::new(&self.writers, 1);
            self.linger();
            assert_eq!((self.writers.get(), self.readers.get()), (1, 0));
        }
    }

    fn acquire(&self) {
        let count = 1 + self.random.below(PERMITS as u64) as usize;
        let asking = self.ask(For::Permits(count));
        let permit = match self.random.below(4) {
            0 => self.semaphore.try_acquire_many(count),
            1 => self.semaphore.acquire_many_timeout(count, self.random.time()),
            _ => self.semaphore.acquire_many(count),
        };
        drop(asking);
        if let Ok(_permit) = permit {
            let _inside = Inside::new(&self.permits, count);
            assert!(self.permits.get() + self.semaphore.available_permits() <= PERMITS);
            self.linger();
        }
    }

    fn take_token(&self) {
        let _asking = self.ask(For::Token);
        let Ok(tokens) = self.tokens.lock() else { return };
        let none = |tokens: &mut u32| *tokens == 0;
        let tokens = match self.random.below(2) {
            0 => self.token_added.wait_while(tokens, none).ok(),
            _ => {
                let waited =
                    self.token_added.wait_timeout_while(tokens, self.random.time(), none).ok();
                waited.and_then(|(tokens, result)| (!result.timed_out()).then_some(tokens))
            }
        };
        if let Some(mut tokens) = tokens {
            *tokens -= 1;
        }
    }

    fn add_token(&self) {
        let Ok(mut tokens) = self.tokens.lock() else { return };
        *tokens += 1;
        if self.random.below(2) == 0 {
            self.token_added.notify_one();
            drop(tokens);
        } else {
            drop(tokens);
            self.token_added.notify_one();
        }
    }

    /// Nobody is blocked who could go on.
    fn check(&self) {
        let kinds: [fn(For) -> bool; 4] = [
            |what| what == For::Mutex,
            |what| matches!(what, For::Read | For::Write),
            |what| matches!(what, For::Permits(_)),
            |what| what == For::Token,
        ];
        let asked = self.asked.borrow();
        for kind in kinds {
            let mut asking = asked.values().filter(|(_, what)| kind(*what));
            let Some((_, what)) = asking.clone().next() else { continue };
            // While one of them is about to go on, what it was given is not counted yet.
            if asking.any(|(who, _)| !who.is_blocked()) {
                continue;
            }
            let could_go_on = match *what {
                For::Mutex => !self.mutex.is_locked(),
                For::Read => self.writers.get() == 0,
                For::Write => self.writers.get() + self.readers.get() == 0,
                For::Permits(count) => count <= self.semaphore.available_permits(),
                For::Token => self.tokens.try_lock().is_ok_and(|tokens| *tokens > 0),
            };
            assert!(!could_go_on, "one waits in vain for {what:?}");
        }
    }

    fn disturb(&self, tasklets: &[Tasklet<()>]) {
        let victim = &tasklets[self.random.below(tasklets.len() as u64) as usize];
        let _ = match self.random.below(6) {
            0 => victim.kill(),
            1 => victim.kill_later(),
            2 => victim.throw("thrown"),
            3 => victim.throw_later("thrown"),
            _ => Ok(()),
        };
    }
}

fn run_program(seed: u64) {
    let world = Rc::new(World::new(seed));
    let tasklets: Vec<_> = (0..3 + world.random.below(12))
        .map(|_| {
            let world = world.clone();
            tasklet(move || (0..world.random.below(12)).for_each(|_| world.step()))
        })
        .collect();
    for _ in 0..60 {
        match world.random.below(2) {
            0 => pila::schedule(),
            _ => sleep(world.random.time()),
        }
        world.check();
        if world.random.below(4) == 0 {
            world.disturb(&tasklets);
            world.check();
        }
    }
    pila::run();
    world.check();
    // Only those are left for whom there is no token.
    while pila::run().blocked > 0 {
        assert!(world.asked.borrow().values().all(|(_, what)| *what == For::Token));
        assert_eq!(*world.tokens.try_lock().unwrap(), 0);
        world.add_token();
    }
    for tasklet in tasklets {
        assert!(matches!(tasklet.join(), Ok(()) | Err(pila::JoinError::Killed)));
    }
    assert_eq!(world.semaphore.available_permits(), PERMITS);
    assert!(!world.mutex.is_locked() && world.lock.try_write().is_ok());
    assert!(world.asked.borrow().is_empty());
}

#[test]
fn no_turn_is_lost_and_nobody_waits_who_could_go_on() {
    let programs: u64 =
        std::env::var("PILA_PROGRAMS").map_or(3_000, |count| count.parse().unwrap());
    driver::install(Box::new(VirtualClock::new())).unwrap();
    for seed in 1..=programs {
        let run = std::panic::AssertUnwindSafe(|| {
            run_program(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
        });
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("program {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_thousand_tasklets_pass_a_lock_on_in_the_order_of_their_coming() {
    driver::install(Box::new(VirtualClock::new())).unwrap();
    let (mutex, semaphore) = (Rc::new(Mutex::new(Vec::new())), Rc::new(Semaphore::new(10)));
    let start = driver::now();
    for i in 0..1000 {
        let (mutex, semaphore) = (mutex.clone(), semaphore.clone());
        tasklet(move || {
            let _permit = semaphore.acquire().unwrap();
            let mut order = mutex.lock().unwrap();
            sleep(Duration::from_micros(10));
            order.push(i);
        });
    }
    pila::run();
    assert_eq!(*mutex.lock().unwrap(), (0..1000).collect::<Vec<_>>());
    assert_eq!(driver::now() - start, Duration::from_millis(10));
}
