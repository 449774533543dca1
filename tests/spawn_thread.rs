//! Threads with schedulers of their own, and the end of all tasklets of a thread.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use pila::{Channel, JoinError, Refused};

/// Notes that it was dropped, and whether the thread-locals lived.
struct Noted(Arc<AtomicUsize>);

thread_local! {
    static LOCAL: Cell<bool> = const { Cell::new(true) };
    static ALIVE: Alive = const { Alive };
}

struct Alive;

impl Drop for Alive {
    fn drop(&mut self) {
        LOCAL.set(false);
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        ALIVE.with(|_| ());
        assert!(LOCAL.get());
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn join_gives_the_result_and_parks_only_the_tasklet() {
    let (go, begin) = mpsc::channel::<()>();
    let thread = pila::spawn_thread(move || {
        begin.recv().unwrap();
        42
    })
    .unwrap();
    let joining = pila::tasklet(move || thread.join().unwrap());
    pila::schedule();
    assert!(joining.is_blocked());
    go.send(()).unwrap();
    assert_eq!(joining.join().unwrap(), 42);
}

#[test]
fn join_gives_the_panic() {
    let thread = pila::spawn_thread(|| -> () { panic!("thread down") }).unwrap();
    let JoinError::Panicked(panic) = thread.join().unwrap_err() else { panic!("no panic") };
    assert_eq!(panic.message(), "thread down");
}

#[test]
fn a_finished_thread_is_joined_without_waiting() {
    let thread = pila::spawn_thread_named("quick", || 1).unwrap();
    assert_eq!(thread.thread().name(), Some("quick"));
    while !thread.is_finished() {
        thread::yield_now();
    }
    let _guard = pila::no_switch();
    assert_eq!(thread.join().unwrap(), 1);
}

#[test]
fn a_join_that_may_not_wait_is_refused() {
    let (go, begin) = mpsc::channel::<()>();
    let thread = pila::spawn_thread(move || begin.recv()).unwrap();
    let guard = pila::no_switch();
    let error = thread.join().unwrap_err();
    assert!(matches!(error, JoinError::Refused(Refused::NoSwitch(_))));
    drop(guard);
    // The thread was let go.
    drop(go);
}

#[test]
fn the_end_of_a_thread_ends_its_tasklets_while_its_thread_locals_live() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let theirs = dropped.clone();
    let thread = pila::spawn_thread(move || {
        ALIVE.with(|_| ());
        for i in 0..100 {
            let noted = Noted(theirs.clone());
            pila::tasklet(move || {
                let _noted = noted;
                match i % 4 {
                    0 => drop(Channel::<()>::new().receive()),
                    1 => pila::sleep(Duration::MAX),
                    2 => pila::schedule_remove(),
                    _ => pila::schedule(),
                }
            });
            if i == 50 {
                pila::schedule();
            }
        }
        "over"
    })
    .unwrap();
    assert_eq!(thread.join().unwrap(), "over");
    assert_eq!(dropped.load(Ordering::Relaxed), 100);
}

#[test]
fn a_panicking_thread_ends_its_tasklets_too() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let theirs = dropped.clone();
    let thread = pila::spawn_thread(move || -> () {
        let noted = Noted(theirs);
        pila::tasklet(move || {
            let _noted = noted;
            pila::sleep(Duration::MAX);
        });
        pila::schedule();
        panic!("main is gone");
    })
    .unwrap();
    assert_eq!(thread.join().unwrap_err().to_string(), "the tasklet panicked: main is gone");
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
}

#[test]
fn a_panic_of_a_tasklet_nobody_holds_is_the_threads() {
    let thread = pila::spawn_thread(|| {
        drop(pila::tasklet(|| {
            let _ = std::panic::catch_unwind(|| pila::sleep(Duration::MAX));
            panic!("while it ends");
        }));
        pila::schedule();
    })
    .unwrap();
    assert_eq!(thread.join().unwrap_err().to_string(), "the tasklet panicked: while it ends");
}

#[test]
fn kill_all_ends_all_but_main_and_the_caller_oldest_first() {
    let order = Rc::new(RefCell::new(Vec::new()));
    struct Last(Rc<RefCell<Vec<u64>>>);
    impl Drop for Last {
        fn drop(&mut self) {
            self.0.borrow_mut().push(pila::current().id().get());
        }
    }
    let blocked: Vec<_> = (0..5)
        .map(|_| {
            let last = Last(order.clone());
            pila::tasklet(move || {
                let _last = last;
                pila::sleep(Duration::MAX);
            })
        })
        .collect();
    pila::schedule();
    let caller = pila::tasklet(|| pila::kill_all().len());
    assert_eq!(caller.join().unwrap(), 0);
    assert_eq!(
        *order.borrow(),
        blocked.iter().map(|tasklet| tasklet.id().get()).collect::<Vec<_>>()
    );
    assert!(pila::main_tasklet().is_current());
}

#[test]
fn kill_all_ends_those_that_are_made_meanwhile() {
    struct Again(u32);
    impl Drop for Again {
        fn drop(&mut self) {
            if self.0 > 0 {
                let again = Again(self.0 - 1);
                pila::tasklet(move || drop(again));
            }
        }
    }
    let again = Again(5);
    pila::tasklet(move || drop(again));
    assert!(pila::kill_all().is_empty());
    // The rest of them is dropped when the thread ends, each in the one before: its stack is not for many more such frames,
    // least of all the sanitizer's.
    let for_ever = Again(if cfg!(feature = "sanitizer") { 150 } else { 500 });
    pila::tasklet(move || drop(for_ever));
    assert_eq!(pila::kill_all().len(), 1);
}

#[test]
fn kill_all_names_those_that_live_on() {
    let stop = Rc::new(Cell::new(false));
    let seen = stop.clone();
    let stubborn = pila::Builder::new()
        .name("stubborn")
        .tasklet(move || {
            while !seen.get() {
                let _ = std::panic::catch_unwind(|| pila::sleep(Duration::from_secs(1)));
            }
        })
        .unwrap();
    pila::schedule();
    let alive = pila::kill_all();
    assert_eq!(alive.len(), 1);
    assert_eq!((alive[0].id(), alive[0].name()), (stubborn.id(), Some("stubborn")));
    stop.set(true);
    stubborn.join().unwrap();
}

#[test]
fn kill_all_goes_on_after_a_panic_and_raises_it_when_all_have_ended() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped unstarted");
        }
    }
    for _ in 0..3 {
        let bomb = Bomb;
        pila::tasklet(move || drop(bomb));
    }
    let last = pila::tasklet(|| ());
    let payload = std::panic::catch_unwind(|| drop(pila::kill_all())).unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"dropped unstarted"));
    assert!(!last.is_alive());
}

#[test]
fn kill_all_on_a_thread_without_tasklets_does_nothing() {
    thread::spawn(|| assert!(pila::kill_all().is_empty())).join().unwrap();
}

#[test]
fn a_thread_cannot_join_itself() {
    let (give, take) = mpsc::channel::<pila::ThreadHandle<()>>();
    let (say, said) = mpsc::channel();
    let thread = pila::spawn_thread(move || {
        let own = take.recv().unwrap();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| own.join())).unwrap_err();
        say.send(()).unwrap();
    })
    .unwrap();
    give.send(thread).unwrap();
    said.recv().unwrap();
}

#[test]
fn a_killed_joiner_lets_the_thread_go_its_way() {
    let (go, begin) = mpsc::channel::<()>();
    let (say, said) = mpsc::channel();
    let thread = pila::spawn_thread(move || {
        let _ = begin.recv();
        say.send(()).unwrap();
    })
    .unwrap();
    let joining = pila::tasklet(move || thread.join());
    pila::schedule();
    joining.kill().unwrap();
    go.send(()).unwrap();
    said.recv().unwrap();
}

#[test]
fn a_hundred_threads_of_a_hundred_tasklets() {
    let (sender, receiver) = pila::thread_queue(64);
    let threads: Vec<_> = (0..100u64)
        .map(|i| {
            let sender = sender.clone();
            pila::spawn_thread(move || {
                for j in 0..100 {
                    let sender = sender.clone();
                    pila::tasklet(move || sender.send(i * 100 + j).unwrap());
                }
                pila::run();
            })
            .unwrap()
        })
        .collect();
    drop(sender);
    let sum = pila::tasklet(move || receiver.iter().sum::<u64>());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(sum.join().unwrap(), 9_999 * 10_000 / 2);
}

#[test]
fn a_thread_the_system_refuses_is_an_error() {
    const NAME: &str = "a_thread_the_system_refuses_is_an_error";
    if std::env::var_os("PILA_TEST_CHILD").is_none() {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        // Alone and on one thread, whose stack is there already.
        again.args(["--exact", NAME, "--test-threads", "1"]).env("PILA_TEST_CHILD", "1");
        let output = again.output().unwrap();
        assert!(output.status.success(), "{output:#?}");
        return;
    }
    // Tasklets of this thread need no more address space after this.
    pila::tasklet(|| ()).join().unwrap();
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let mapped = statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096;
    let (_, maximum) = limit();
    set_limit(Some(mapped + (1 << 20)), maximum);
    let thread = pila::spawn_thread(|| 1).map(drop);
    let work = pila::offload(|| 2);
    set_limit(maximum, maximum);
    assert!(thread.is_err() && work.is_err(), "{thread:?} {work:?}");
    assert_eq!(pila::offload_pool().waiting, 0);
    assert_eq!(pila::spawn_thread(|| 1).unwrap().join().unwrap(), 1);
    assert_eq!(pila::offload(|| 2).unwrap(), 2);
}

fn limit() -> (Option<u64>, Option<u64>) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::As);
    (limit.current, limit.maximum)
}

fn set_limit(current: Option<u64>, maximum: Option<u64>) {
    let limit = rustix::process::Rlimit { current, maximum };
    rustix::process::setrlimit(rustix::process::Resource::As, limit).unwrap();
}
