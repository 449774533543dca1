//! Scopes in scopes in scopes, with kills, timeouts and panics at random.
//!
//! What must hold is simple: when a scope has returned, by whatever road, no tasklet of it is alive and nothing that
//! borrowed from its frame is left. `PILA_SEED=n` plays one seed again.

use std::{
    cell::{Cell, RefCell},
    env, mem,
    panic::{self, AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    sync::Once,
    thread,
    time::Duration,
};

use pila::{
    Channel, Handle, Scope, ScopedTasklet, Select, current,
    driver::{self, VirtualClock},
    run, schedule, schedule_remove, scope, shield, sleep,
    sync::Mutex,
    tasklet, timeout,
};

use crate::ground::{Borrower, Ground};

/// How deep scopes nest.
const DEPTH: u32 = 3;
/// How deep the calls of one tasklet nest.
const NESTING: u32 = 6;
/// How much all tasklets of one game may do.
const FUEL: u32 = 400;
/// How long a wait may be.
const LONGEST: u64 = 20;

thread_local! {
    /// What panics of this thread said.
    static SAID: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Has the panics of games noted instead of printed.
fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if thread::current().name() != Some("game") {
                return print(info);
            }
            let _ = SAID.try_with(|said| said.borrow_mut().push(info.to_string()));
        }));
    });
}

/// What all tasklets of a game share.
struct Game {
    random: Cell<u64>,
    fuel: Cell<u32>,
    /// All that were made, of any scope.
    everyone: RefCell<Vec<Handle>>,
    gates: [Channel<u32>; 2],
    mutex: Mutex<()>,
    /// How many scopes were left, by their depth.
    scopes: Cell<[u32; DEPTH as usize]>,
    failures: RefCell<Vec<String>>,
}

impl Game {
    /// A number below `bound`.
    fn draw(&self, bound: u64) -> u64 {
        // xorshift64*
        let mut state = self.random.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn anyone(&self) -> Option<Handle> {
        let everyone = self.everyone.borrow();
        let place = self.draw(everyone.len().max(1) as u64) as usize;
        everyone.get(place).cloned()
    }

    fn time(&self) -> Duration {
        Duration::from_millis(self.draw(LONGEST))
    }

    fn burns(&self) -> bool {
        let fuel = self.fuel.get();
        self.fuel.set(fuel.saturating_sub(1));
        fuel > 0
    }
}

/// One scope of a game.
#[derive(Clone, Copy)]
struct Level<'scope, 'env> {
    game: &'scope Game,
    s: &'scope Scope<'scope, 'env>,
    ground: &'scope Ground,
    members: &'scope RefCell<Vec<Handle>>,
    depth: u32,
}

/// Looks, however the frame of a scope is left, whether it was left too early.
struct Look<'a> {
    game: &'a Game,
    ground: &'a Ground,
    members: &'a RefCell<Vec<Handle>>,
    depth: u32,
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        let alive = self.members.borrow().iter().filter(|member| member.is_alive()).count();
        let (made, left) = self.ground.borrowers();
        if (alive, left) != (0, 0) {
            let failure =
                format!("a scope was left with {alive} alive, {left} of {made} borrowers");
            self.game.failures.borrow_mut().push(failure);
        }
        let mut scopes = self.game.scopes.get();
        scopes[self.depth as usize - 1] += 1;
        self.game.scopes.set(scopes);
    }
}

fn play(game: &Game, depth: u32) {
    let (ground, members) = (Ground::new(), RefCell::new(Vec::new()));
    let _look = Look { game, ground: &ground, members: &members, depth };
    scope(|s| {
        let level = Level { game, s, ground: &ground, members: &members, depth };
        let mut held = Vec::new();
        for _ in 0..=game.draw(4) {
            held.extend(level.make());
        }
        level.act(0);
        if let (Some(one), 0) = (held.pop(), game.draw(3)) {
            let _ = one.join();
        }
    });
}

impl<'scope> Level<'scope, '_> {
    /// Makes a tasklet. Gives its handle, unless it was dropped or forgotten.
    fn make(self) -> Option<ScopedTasklet<'scope, Option<Borrower<'scope>>>> {
        let own = self.ground.borrower();
        // What is forgotten leaks its result, so then there is none.
        let (gives, fate) = (self.game.draw(2) == 0, self.game.draw(4));
        let body = move || {
            own.touch();
            self.act(0);
            own.touch();
            (gives && fate != 0).then(|| self.ground.borrower())
        };
        let made = match self.game.draw(4) {
            0 => self.s.bind(body),
            _ => self.s.tasklet(body),
        };
        self.members.borrow_mut().push(made.handle());
        self.game.everyone.borrow_mut().push(made.handle());
        match fate {
            0 => mem::forget(made),
            1 => drop(made),
            _ => return Some(made),
        }
        None
    }

    /// Does things that may wait, end others, or never return.
    fn act(self, nesting: u32) {
        let mut held = Vec::new();
        for _ in 0..=self.game.draw(4) {
            if nesting < NESTING && self.game.burns() {
                held.extend(self.step(nesting));
            }
        }
    }

    fn step(self, nesting: u32) -> Option<ScopedTasklet<'scope, Option<Borrower<'scope>>>> {
        let Level { game, ground, .. } = self;
        let _step = ground.borrower();
        let gate = &game.gates[game.draw(2) as usize];
        match game.draw(28) {
            0..3 => schedule(),
            3 | 4 => sleep(game.time()),
            5 => drop(gate.receive()),
            6 => drop(gate.send(1)),
            7 => {
                let other = &game.gates[0];
                let send = Select::new().receive(gate, |_| ()).send(other, 2, |_| ());
                send.after(game.time(), || ()).wait();
            }
            8..10 => _ = game.anyone().map(|one| one.kill()),
            10 => _ = game.anyone().map(|one| one.kill_later()),
            11 => _ = game.anyone().map(|one| one.insert()),
            12 => _ = game.anyone().map(|one| one.remove()),
            13 => _ = game.anyone().map(|one| one.run()),
            14 | 15 => return self.make(),
            16 | 24..27 if self.depth < DEPTH => play(game, self.depth + 1),
            17 => _ = timeout(game.time(), || self.act(nesting + 1)),
            18 => shield(|| {
                schedule();
                sleep(game.time());
            }),
            19 => _ = catch_unwind(AssertUnwindSafe(|| self.act(nesting + 1))),
            20 => schedule_remove(),
            21 => {
                let _guard = game.mutex.lock();
                self.act(nesting + 1);
            }
            22 if game.draw(3) == 0 => resume_unwind(Box::new("the model's")),
            22 => _ = current().kill(),
            23 => _ = run(),
            _ => {}
        }
        None
    }
}

/// Plays one game. Gives what went wrong, and how many scopes were left, by their depth.
fn game(seed: u64) -> (Vec<String>, [u32; DEPTH as usize]) {
    driver::install(Box::new(VirtualClock::new())).unwrap();
    let game = Rc::new(Game {
        random: Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        fuel: Cell::new(FUEL),
        everyone: RefCell::default(),
        gates: [Channel::new(), Channel::with_capacity(1)],
        mutex: Mutex::new(()),
        scopes: Cell::default(),
        failures: RefCell::default(),
    });
    let (theirs, turns) = (game.clone(), Rc::new(Cell::new(0)));
    let counts = turns.clone();
    let bystander = tasklet(move || {
        for _ in 0..50 {
            counts.set(counts.get() + 1);
            schedule();
        }
    });
    let root = tasklet(move || {
        while theirs.fuel.get() > 0 {
            let _ = catch_unwind(AssertUnwindSafe(|| play(&theirs, 1)));
        }
    });
    let handle = root.handle();
    game.everyone.borrow_mut().push(root.handle());
    // Main waits, so that deadlocks are told, or it looks on.
    if game.draw(2) == 0 {
        let _ = catch_unwind(AssertUnwindSafe(|| root.join()));
    } else {
        drop(root);
    }
    for _ in 0..100 {
        let _ = catch_unwind(run);
        if !handle.is_alive() {
            break;
        }
        let _ = handle.kill();
        // Some may have been taken out of the queue, in a shield.
        let everyone = game.everyone.borrow().clone();
        everyone.iter().for_each(|one| drop(one.insert()));
    }
    let mut failures = game.failures.take();
    let alive = game.everyone.borrow().iter().filter(|one| one.is_alive()).count();
    if alive > 0 {
        failures.push(format!("{alive} are alive at the end"));
    }
    if bystander.join().is_err() || turns.get() != 50 {
        failures.push("a bystander was touched".into());
    }
    if game.mutex.try_lock().is_err() || game.gates.iter().any(|gate| gate.balance() < 0) {
        failures.push("something is held, or waited for, by nobody".into());
    }
    let told = "the tasklets of a scope could not go on and were ended";
    let told_too = "the last runnable tasklet left the run queue while main is blocked";
    let unforeseen = |said: &String| !said.contains(told) && !said.contains(told_too);
    failures.extend(SAID.take().into_iter().filter(unforeseen));
    (failures, game.scopes.get())
}

#[test]
fn no_scope_is_left_before_its_tasklets_have_ended() {
    listen();
    let seeds = match env::var("PILA_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (0..if cfg!(debug_assertions) { 400 } else { 4000 }).collect::<Vec<u64>>(),
    };
    let mut scopes = [0; DEPTH as usize];
    for &seed in &seeds {
        let name = thread::Builder::new().name("game".into());
        let played = name.spawn(move || game(seed)).unwrap().join();
        let (failures, left) =
            played.unwrap_or_else(|_| panic!("the game of PILA_SEED={seed} panicked"));
        assert!(failures.is_empty(), "PILA_SEED={seed}: {failures:#?}");
        scopes.iter_mut().zip(left).for_each(|(sum, left)| *sum += left);
    }
    println!("{} games, so many scopes left, by their depth: {scopes:?}", seeds.len());
    assert!(scopes.iter().all(|&left| left >= seeds.len() as u32 / 2), "too little was played");
}
