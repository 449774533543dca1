//! The end of a thread that leaves tasklets behind: they are leaked, and nothing that is gone is ever used again.
//!
//! A thread-local's destructor may call anything. It runs before or after the destructors of those that suspended
//! tasklets look at, so whatever it calls must not let one of these go on too late. The value they look at here knows
//! whether it is alive. What would end the process if it went wrong runs in a process of its own.

use std::{
    cell::{Cell, RefCell},
    env, io,
    panic::{AssertUnwindSafe, catch_unwind},
    process::{self, Command, Output},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, LocalKey},
    time::{Duration, Instant},
};

use pila::{
    Channel, JoinError, ReceiveError, Refused, SendReason, Ticket, Waiting,
    driver::{self, Driver},
    park,
};

/// Tells whether its thread-local was destroyed. The flag itself lives for ever.
struct Value(&'static Cell<bool>);

impl Value {
    fn new() -> Value {
        Value(Box::leak(Box::new(Cell::new(true))))
    }

    fn state(&self) -> &'static str {
        if self.0.get() { "alive" } else { "destroyed" }
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Calls what it was given when its thread-local is destroyed.
#[derive(Default)]
struct AtEnd(RefCell<Vec<Box<dyn FnOnce()>>>);

impl AtEnd {
    fn call(key: &'static LocalKey<AtEnd>, call: impl FnOnce() + 'static) {
        key.with(|at_end| at_end.0.borrow_mut().push(Box::new(call)));
    }
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        for call in self.0.take() {
            call();
        }
    }
}

thread_local! {
    static VALUE: Value = Value::new();
    static EARLY: AtEnd = AtEnd::default();
    static LATE: AtEnd = AtEnd::default();
}

/// What `body` and all that it leaves behind say, on a thread that has ended since.
fn on_a_thread(body: impl FnOnce(mpsc::Sender<String>) + Send + 'static) -> Vec<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || body(sender)).join().unwrap();
    // What is leaked keeps its sender: do not wait for more.
    receiver.try_iter().collect()
}

/// Runs the test `name` of this file again, alone, in a process of its own.
fn again(name: &str) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--include-ignored"]).env("PILA_TEST_CHILD", "1");
    command.output().unwrap()
}

fn is_child() -> bool {
    env::var_os("PILA_TEST_CHILD").is_some()
}

#[track_caller]
fn assert_success(output: &Output) {
    assert!(output.status.success(), "{output:#?}");
}

/// Lets suspended tasklets go on, of which one waits at this channel.
type Wake = fn(&Channel<()>);

/// Each way in which code of the user can do that.
const WAKES: [(&str, Wake); 7] = [
    ("run", |_| _ = pila::run()),
    ("schedule", |_| pila::schedule()),
    ("schedule_remove", |_| pila::schedule_remove()),
    ("sleep", |_| pila::sleep(Duration::from_millis(1))),
    ("send", |gate| drop(gate.send(()))),
    ("receive", |_| drop(Channel::<()>::new().receive())),
    ("join", |_| drop(pila::tasklet(|| ()).join())),
];

/// Leaves two tasklets inside `VALUE.with`, one in the run queue and one that waits at `gate`.
fn suspend_in_value(gate: &Channel<()>, say: &mpsc::Sender<String>) {
    let (gate, saying) = (gate.clone(), say.clone());
    pila::tasklet(move || {
        VALUE.with(|value| {
            let _ = gate.receive();
            let _ = saying.send(value.state().into());
        });
    });
    let saying = say.clone();
    pila::tasklet(move || {
        VALUE.with(|value| {
            for _ in 0..100 {
                pila::schedule();
                let _ = saying.send(value.state().into());
            }
        });
    });
    pila::schedule();
}

fn wake_at_end(key: &'static LocalKey<AtEnd>, wake: Wake, gate: &Channel<()>) {
    let gate = gate.clone();
    AtEnd::call(key, move || {
        // More than once: whoever was woken by the first may be seen by the second only.
        for _ in 0..3 {
            wake(&gate);
        }
    });
}

#[test]
fn suspended_tasklets_are_leaked_and_unstarted_closures_dropped() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let [suspended, unstarted, paused, result] = [(); 4].map(|()| Arc::new(AtomicUsize::new(0)));
    let counts = [&suspended, &unstarted, &paused, &result].map(Arc::clone);

    on_a_thread(move |_| {
        let [suspended, unstarted, paused, result] = counts.map(Counted);
        let gate = Channel::<()>::new();
        pila::tasklet(move || {
            let _local = suspended;
            let _ = gate.receive();
        });
        let ended = pila::tasklet(move || result);
        pila::run();
        pila::tasklet(move || drop(unstarted));
        pila::Tasklet::bind(move || drop(paused));
        drop(ended);
    });

    let count = |counter: Arc<AtomicUsize>| counter.load(Ordering::Relaxed);
    assert_eq!([suspended, unstarted, paused, result].map(count), [0, 1, 1, 1]);
}

#[test]
fn nothing_destroyed_is_seen_by_tasklets_woken_later_than_it() {
    for (name, wake) in WAKES {
        // EARLY is registered first and destroyed last, when VALUE is gone.
        let seen = on_a_thread(move |say| {
            let gate = Channel::new();
            wake_at_end(&EARLY, wake, &gate);
            VALUE.with(|_| ());
            suspend_in_value(&gate, &say);
        });
        assert_eq!(seen, [""; 0], "{name}");
    }
}

#[test]
fn nothing_destroyed_is_seen_of_a_value_that_a_tasklet_touched_first() {
    for (name, wake) in WAKES {
        let seen = on_a_thread(move |say| {
            let gate = Channel::new();
            wake_at_end(&EARLY, wake, &gate);
            suspend_in_value(&gate, &say);
        });
        assert_eq!(seen, [""; 0], "{name}");
    }
}

#[test]
fn nothing_destroyed_is_seen_by_tasklets_woken_earlier_than_it() {
    for (name, wake) in WAKES {
        // LATE is registered last and destroyed first: going on is safe then, but not for ever.
        let seen = on_a_thread(move |say| {
            let gate = Channel::new();
            wake_at_end(&EARLY, wake, &gate);
            suspend_in_value(&gate, &say);
            wake_at_end(&LATE, wake, &gate);
        });
        assert!(seen.iter().all(|state| state == "alive"), "{name}: {seen:?}");
    }
}

#[test]
fn nothing_destroyed_is_seen_by_what_a_destructor_suspends() {
    for (name, wake) in WAKES {
        let seen = on_a_thread(move |say| {
            let gate = Channel::new();
            wake_at_end(&EARLY, wake, &gate);
            // So that the end of the thread is known to matter.
            suspend_in_value(&gate, &say);
            AtEnd::call(&LATE, move || {
                let gate = Channel::new();
                suspend_in_value(&gate, &say);
                EARLY.with(|_| ());
                let _ = gate.send(());
            });
        });
        assert!(seen.iter().all(|state| state == "alive"), "{name}: {seen:?}");
    }
}

#[test]
fn nothing_destroyed_is_seen_after_70_000_returns_to_main() {
    // Past the number of markers that a thread registers, its call stack tells.
    for (name, wake) in WAKES {
        let seen = on_a_thread(move |say| {
            let turns = Rc::new(Cell::new(0));
            let counter = turns.clone();
            pila::tasklet(move || {
                // It is suspended when the thread ends, and would not run for ever if it were woken.
                for turn in 1..=70_100 {
                    counter.set(turn);
                    pila::schedule();
                }
            });
            while turns.get() < 70_000 {
                pila::schedule();
            }
            let gate = Channel::new();
            wake_at_end(&EARLY, wake, &gate);
            suspend_in_value(&gate, &say);
        });
        assert_eq!(seen, [""; 0], "{name}");
    }
}

#[test]
fn a_panic_of_a_driver_does_not_hide_the_end_of_the_thread() {
    /// Fails once, by a panic.
    #[derive(Debug)]
    struct Broken(bool);
    impl Driver for Broken {
        fn wait(&mut self, _: Option<Duration>, _: &mut Vec<Ticket>) -> io::Result<()> {
            assert!(std::mem::replace(&mut self.0, true), "the driver breaks");
            Ok(())
        }
    }
    if is_child() {
        on_a_thread(|_| {
            driver::install(Box::new(Broken(false))).unwrap();
            // The thread's end is watched from here on.
            pila::tasklet(|| ());
            pila::run();
            let gate = Channel::new();
            wake_at_end(&EARLY, |gate| drop(gate.send(())), &gate);
            // The tasklet touches VALUE, then main waits for time, which the driver does not give.
            let theirs = gate.clone();
            pila::tasklet(move || {
                VALUE.with(|value| {
                    let _ = theirs.receive();
                    println!("seen {}", value.state());
                });
            });
            let main_sleeps = || pila::sleep(Duration::from_millis(1));
            assert!(catch_unwind(AssertUnwindSafe(main_sleeps)).is_err());
            assert_eq!(gate.balance(), -1);
        });
        return;
    }
    let output = again("a_panic_of_a_driver_does_not_hide_the_end_of_the_thread");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("seen destroyed"), "{output:#?}");
    assert_success(&output);
}

/// After a panic of its driver, which comes out of whatever main waited in, a thread can go on.
#[test]
fn main_goes_on_after_a_panic_of_a_driver() {
    #[derive(Debug)]
    struct Broken(bool);
    impl Driver for Broken {
        fn wait(&mut self, _: Option<Duration>, _: &mut Vec<Ticket>) -> io::Result<()> {
            assert!(std::mem::replace(&mut self.0, true), "the driver breaks");
            Ok(())
        }
    }
    driver::install(Box::new(Broken(false))).unwrap();
    let channel = Channel::new();
    let theirs = channel.clone();
    let tasklet = pila::tasklet(move || theirs.receive().unwrap());
    let main_sleeps = || pila::sleep(Duration::from_millis(1));

    assert!(catch_unwind(AssertUnwindSafe(main_sleeps)).is_err());

    assert!(pila::current().is_main());
    channel.send("still there").unwrap();
    assert_eq!(tasklet.join().unwrap(), "still there");
}

#[test]
fn blocking_calls_in_destructors_return_at_once() {
    let said = on_a_thread(|say| {
        AtEnd::call(&EARLY, move || {
            let channel = Channel::new();
            let start = Instant::now();
            pila::schedule();
            pila::schedule_remove();
            pila::sleep(Duration::from_secs(3600));
            assert!(start.elapsed() < Duration::from_secs(60));
            assert_eq!(pila::run(), pila::Summary::default());
            assert_eq!(park::check(), Err(Refused::ThreadEnded));
            let error = channel.send(7).unwrap_err();
            assert_eq!(error.value, 7);
            assert!(matches!(error.reason, SendReason::Refused(Refused::ThreadEnded)));
            let error = channel.receive().unwrap_err();
            assert!(matches!(error, ReceiveError::Refused(Refused::ThreadEnded)));
            assert!(pila::current().is_main() && pila::main_tasklet().is_alive());
            assert_eq!((channel.balance(), pila::run_count()), (0, 1));
            say.send("all returned".into()).unwrap();
        });
        let nobody_sends = Channel::<()>::new();
        pila::tasklet(move || nobody_sends.receive());
        pila::schedule();
    });
    assert_eq!(said, ["all returned"]);
}

#[test]
fn a_tasklet_made_in_a_destructor_never_runs_and_its_join_is_refused() {
    let said = on_a_thread(|say| {
        EARLY.with(|_| ());
        let old = pila::Tasklet::bind(|| ());
        AtEnd::call(&EARLY, move || {
            let dropped = Rc::new(());
            let closure = dropped.clone();
            let tasklet = pila::tasklet(move || {
                drop(closure);
                unreachable!("its thread has ended");
            });
            assert!(!tasklet.is_alive() && !old.is_alive());
            assert!(tasklet.insert().is_err() && old.insert().is_err());
            let error = tasklet.join().unwrap_err();
            assert!(matches!(error, JoinError::Refused(Refused::ThreadEnded)), "{error}");
            assert!(matches!(old.join(), Err(JoinError::Refused(Refused::ThreadEnded))));
            assert_eq!(Rc::strong_count(&dropped), 1);
            say.send("refused".into()).unwrap();
        });
    });
    assert_eq!(said, ["refused"]);
}

#[test]
fn a_ticket_from_before_the_end_is_refused_in_a_destructor() {
    if is_child() {
        on_a_thread(|_| {
            AtEnd::call(&EARLY, || {
                let ticket = LATER.take().unwrap();
                let error = park::wait(ticket, Waiting::Insert, None).unwrap_err();
                assert!(matches!(error, park::Interrupt::Refused(Refused::ThreadEnded)));
            });
            LATER.set(Some(park::begin().unwrap()));
        });
        return;
    }
    // A panic in the destructor of a thread-local ends the process.
    assert_success(&again("a_ticket_from_before_the_end_is_refused_in_a_destructor"));
}

/// On a thread that has so many returns to main behind it that its end is found out by looking, with a tasklet that is
/// suspended, calls `body` in a destructor that runs before the end is known.
fn when_the_end_is_not_known_yet(body: impl FnOnce() + Send + 'static) {
    on_a_thread(|_| {
        pila::tasklet(|| {
            loop {
                pila::schedule();
            }
        });
        for _ in 0..70_000 {
            pila::schedule();
        }
        AtEnd::call(&LATE, body);
    });
}

#[test]
fn a_scope_in_whose_body_the_thread_turns_out_to_have_ended_returns() {
    let name = "a_scope_in_whose_body_the_thread_turns_out_to_have_ended_returns";
    if is_child() {
        for waits in [true, false] {
            let (said, hears) = mpsc::channel();
            when_the_end_is_not_known_yet(move || {
                let (ran, dropped) = (Cell::new(false), Rc::new(()));
                let borrowed = (&ran, dropped.clone());
                let value = pila::scope(|s| {
                    let child = s.tasklet(move || borrowed.0.set(true));
                    if waits {
                        // Here, and not when the scope waits for its tasklets.
                        pila::schedule();
                        assert!(!child.is_alive());
                        assert!(s.tasklet(|| ()).join().is_err());
                    }
                    pila::timeout(Duration::ZERO, || 42)
                });
                said.send((value, ran.get(), Rc::strong_count(&dropped))).unwrap();
            });
            // Its closure borrows, so it is leaked and not dropped.
            assert_eq!(hears.recv().unwrap(), (Ok(42), false, 2));
        }
        return;
    }
    // A panic in the destructor of a thread-local ends the process.
    assert_success(&again(name));
}

thread_local! {
    static LATER: Cell<Option<Ticket>> = const { Cell::new(None) };
}

#[test]
fn a_panicking_destructor_of_an_unstarted_closure_does_not_end_the_process() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a closure was dropped");
        }
    }
    if is_child() {
        on_a_thread(|_| {
            for _ in 0..3 {
                let bomb = Bomb;
                pila::tasklet(move || drop(bomb));
            }
        });
        println!("the process lives");
        return;
    }

    let output = again("a_panicking_destructor_of_an_unstarted_closure_does_not_end_the_process");
    assert_success(&output);
    let (out, errors) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
    assert!(out.unwrap().contains("the process lives"));
    assert_eq!(errors.unwrap().matches("a closure was dropped").count(), 3);
}

#[test]
fn closures_dropped_at_the_end_may_call_everything() {
    struct Busy(mpsc::Sender<String>);
    impl Drop for Busy {
        fn drop(&mut self) {
            pila::tasklet(|| unreachable!("its thread has ended"));
            pila::run();
            assert!(Channel::new().send(()).is_err());
            self.0.send("dropped".into()).unwrap();
        }
    }
    let said = on_a_thread(|say| {
        for _ in 0..3 {
            let busy = Busy(say.clone());
            pila::tasklet(move || drop(busy));
        }
    });
    assert_eq!(said, ["dropped"; 3]);
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer has mappings of its own")]
fn a_thread_without_suspended_tasklets_gives_its_stacks_back() {
    let mapped = || {
        let maps = std::fs::read_to_string("/proc/self/statm").unwrap();
        maps.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
    };
    let before = mapped();
    for _ in 0..200 {
        on_a_thread(|_| {
            pila::tasklet(|| ());
            pila::run();
        });
    }
    // Each has mapped 16 MiB for its stacks.
    assert!(mapped() < before + (1 << 30), "{} MiB", (mapped() - before) >> 20);
}

#[test]
fn exit_from_a_tasklet_ends_the_process() {
    if is_child() {
        on_a_thread(|_| {
            let gate = Channel::new();
            wake_at_end(&EARLY, |_| _ = pila::run(), &gate);
            suspend_in_value(&gate, &mpsc::channel().0);
            pila::tasklet(|| process::exit(7));
            pila::run();
        });
        unreachable!("the process has ended");
    }
    assert_eq!(again("exit_from_a_tasklet_ends_the_process").status.code(), Some(7));
}

/// What stays open. `process::exit` called by a tasklet destroys the thread-locals of its thread on that tasklet's stack,
/// those first that were registered since the thread's native code last ran: their destructors can still let other
/// tasklets go on, which see what is destroyed. It takes three things at once: the exit from a tasklet, a destructor
/// that waits, and a tasklet suspended inside `LocalKey::with`.
#[test]
fn exit_from_a_tasklet_may_let_others_see_what_is_destroyed() {
    const NAME: &str = "exit_from_a_tasklet_may_let_others_see_what_is_destroyed";
    if is_child() {
        on_a_thread(|_| {
            pila::tasklet(|| wake_at_end(&EARLY, |_| pila::schedule(), &Channel::new()));
            pila::tasklet(|| {
                VALUE.with(|value| {
                    pila::schedule();
                    println!("seen {}", value.state());
                });
            });
            pila::tasklet(|| process::exit(7));
            pila::run();
        });
        unreachable!("the process has ended");
    }
    let output = again(NAME);
    assert_eq!(output.status.code(), Some(7));
    assert!(String::from_utf8(output.stdout).unwrap().contains("seen destroyed"));
}

/// What stays open, in every library of stackful coroutines. std lets the initializer of a thread-local use the same
/// thread-local, and drops the inner value when the outer one is ready, for nobody can be looking at it: unless the
/// initializer waited, and another tasklet got the inner one.
#[test]
fn a_thread_local_whose_initializer_waits_is_destroyed_while_another_looks() {
    thread_local! {
        static SLOW: Value = {
            pila::schedule();
            Value::new()
        };
    }
    let seen = on_a_thread(|say| {
        pila::tasklet(move || {
            SLOW.with(|value| {
                let flag = value.0;
                pila::schedule();
                say.send(if flag.get() { "alive" } else { "destroyed" }.into()).unwrap();
            });
        });
        pila::tasklet(|| SLOW.with(|_| ()));
        pila::run();
    });
    assert_eq!(seen, ["destroyed"]);
}

/// What stays open, wherever a suspended stack can be leaked. A tasklet inside `LocalKey::with` may have lent the value
/// to another thread by `std::thread::scope`. When its own thread ends, the tasklet never ends the scope, but the value
/// is destroyed.
#[test]
fn a_thread_local_lent_to_a_scoped_thread_is_destroyed_with_a_leaked_tasklet() {
    struct Shared(Arc<AtomicBool>);
    impl Drop for Shared {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    thread_local! {
        static SHARED: Shared = Shared(Arc::new(AtomicBool::new(false)));
    }
    let (say, said) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    thread::spawn(move || {
        pila::tasklet(move || {
            SHARED.with(|shared| {
                // The scoped thread may look at `shared` as long as it lives.
                let destroyed = shared.0.clone();
                thread::scope(|scope| {
                    scope.spawn(move || {
                        let lent: &Shared = shared;
                        ended.recv().unwrap();
                        say.send(destroyed.load(Ordering::Acquire)).unwrap();
                        std::hint::black_box(std::ptr::from_ref(lent));
                    });
                    pila::schedule_remove();
                });
            });
        });
        pila::schedule();
    })
    .join()
    .unwrap();
    end.send(()).unwrap();
    assert!(said.recv().unwrap(), "the value was destroyed while it was lent");
}
