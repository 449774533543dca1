//! Blocking work on a pool of threads.

use std::{
    cell::Cell,
    collections::HashSet,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
    rc::Rc,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use pila::Refused;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Runs the test `name` of this file in a process of its own, with a pool of `threads`. False in that process.
fn alone(name: &str, threads: usize) -> bool {
    if std::env::var_os("PILA_TEST_CHILD").is_some() {
        return false;
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.env("PILA_TEST_CHILD", "1").env("PILA_OFFLOAD_THREADS", threads.to_string());
    let output = again.args(["--exact", name, "--nocapture"]).output().unwrap();
    assert!(output.status.success(), "{output:#?}");
    true
}

/// Stops the whole thread for a while.
fn stop(milliseconds: u64) {
    let (_keep, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(milliseconds));
}

#[test]
fn work_runs_on_another_thread_and_parks_only_the_tasklet() {
    let own = thread::current().id();
    let (go, begin) = mpsc::channel::<()>();
    let working = pila::tasklet(move || {
        pila::offload(move || {
            begin.recv().unwrap();
            thread::current().id()
        })
        .unwrap()
    });
    pila::schedule();
    assert!(working.is_blocked());
    go.send(()).unwrap();
    assert_ne!(working.join().unwrap(), own);
}

#[test]
fn a_panic_of_the_work_is_the_callers() {
    let working = pila::tasklet(|| pila::offload(|| -> () { panic!("disk on fire") }));
    let error = working.join().unwrap_err();
    assert_eq!(error.to_string(), "the tasklet panicked: disk on fire");
    let payload = catch_unwind(|| pila::offload(|| std::panic::panic_any(7))).unwrap_err();
    assert_eq!(payload.downcast_ref::<i32>(), Some(&7));
}

#[test]
fn ten_thousand_tasklets_are_served_by_a_few_threads() {
    if alone("ten_thousand_tasklets_are_served_by_a_few_threads", 4) {
        return;
    }
    let threads = Arc::new(Mutex::new(HashSet::new()));
    let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let done = Rc::new(Cell::new(0));
    for i in 0..10_000u64 {
        let (threads, at_once, most) = (threads.clone(), at_once.clone(), most.clone());
        let done = done.clone();
        pila::tasklet(move || {
            let result = pila::offload(move || {
                most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                threads.lock().unwrap().insert(thread::current().id());
                at_once.fetch_sub(1, Ordering::SeqCst);
                i * 2
            });
            assert_eq!(result.unwrap(), i * 2);
            done.set(done.get() + 1);
        });
    }
    assert_eq!(pila::run().finished, 10_000);
    assert_eq!(done.get(), 10_000);
    assert!(threads.lock().unwrap().len() <= 4 && most.load(Ordering::SeqCst) <= 4);
    let pool = pila::offload_pool();
    assert_eq!((pool.limit, pool.waiting, pool.abandoned), (4, 0, 0));
}

#[test]
fn callers_are_served_first_come_first_served() {
    if alone("callers_are_served_first_come_first_served", 1) {
        return;
    }
    let order = Arc::new(Mutex::new(Vec::new()));
    for i in 0..100 {
        let order = order.clone();
        pila::tasklet(move || pila::offload(move || order.lock().unwrap().push(i)).unwrap());
    }
    pila::run();
    assert_eq!(*order.lock().unwrap(), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_killed_caller_abandons_its_work() {
    if alone("a_killed_caller_abandons_its_work", 1) {
        return;
    }
    /// Says where it was dropped.
    struct Result(mpsc::Sender<thread::ThreadId>);
    impl Drop for Result {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().id());
        }
    }
    let (go, begin) = mpsc::channel::<()>();
    let (say, dropped) = mpsc::channel();
    let begun = Arc::new(Barrier::new(2));
    let theirs = begun.clone();
    let running = pila::tasklet(move || {
        let work = move || {
            theirs.wait();
            begin.recv().unwrap();
            Result(say)
        };
        drop(pila::offload(work));
    });
    let in_line = Arc::new(());
    let theirs = in_line.clone();
    let waiting = pila::tasklet(move || {
        pila::offload(move || {
            drop(theirs);
            unreachable!("nobody waits for it")
        })
    });
    pila::schedule();
    begun.wait();
    waiting.kill().unwrap();
    assert_eq!(Arc::strong_count(&in_line), 1);
    running.kill().unwrap();
    go.send(()).unwrap();
    assert_ne!(dropped.recv().unwrap(), thread::current().id());
    assert_eq!(pila::offload_pool().abandoned, 2);
    // The pool goes on.
    assert_eq!(pila::offload(|| 3).unwrap(), 3);
}

#[test]
fn abandoned_work_does_not_pile_up() {
    if alone("abandoned_work_does_not_pile_up", 1) {
        return;
    }
    let (go, begin) = mpsc::channel::<()>();
    let stuck = pila::tasklet(move || pila::offload(move || begin.recv()));
    pila::schedule();
    for _ in 0..1000 {
        let impatient = pila::tasklet(|| pila::offload(|| ()));
        pila::schedule();
        impatient.kill().unwrap();
    }
    assert!(pila::offload_pool().waiting <= 1);
    go.send(()).unwrap();
    stuck.join().unwrap().unwrap().unwrap();
}

#[test]
fn kills_at_every_step_leave_the_pool_whole() {
    let rounds = if cfg!(debug_assertions) { 2_000 } else { 20_000u32 };
    for round in 0..rounds {
        let victim = pila::tasklet(move || pila::offload(move || round));
        let survivor = pila::tasklet(move || pila::offload(move || round).unwrap());
        pila::schedule();
        (0..round % 300).for_each(|_| std::hint::spin_loop());
        if round % 3 == 0 {
            pila::sleep(Duration::from_micros(u64::from(round % 50)));
        }
        victim.kill().unwrap();
        assert_eq!(survivor.join().unwrap(), round);
    }
    assert_eq!(pila::offload(|| 1).unwrap(), 1);
}

#[test]
fn an_error_thrown_into_the_call_is_its_error() {
    let (go, begin) = mpsc::channel::<()>();
    let waiting = pila::tasklet(move || pila::offload(move || begin.recv()).map(drop));
    pila::schedule();
    waiting.throw("never mind").unwrap();
    let error = waiting.join().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "never mind");
    drop(go);
}

#[test]
fn where_nothing_may_wait_it_runs_in_place() {
    struct Report(Rc<Cell<bool>>);
    impl Drop for Report {
        fn drop(&mut self) {
            let (own, there) = (thread::current().id(), pila::offload(|| thread::current().id()));
            self.0.set(own == there.unwrap());
        }
    }
    let killed = Rc::new(Cell::new(false));
    let report = Report(killed.clone());
    let victim = pila::tasklet(move || {
        let _report = report;
        pila::schedule_remove();
    });
    pila::schedule();
    victim.kill().unwrap();
    assert!(killed.get());

    let unwinding = Rc::new(Cell::new(false));
    let report = Report(unwinding.clone());
    let panicking = pila::tasklet(move || {
        let _report = report;
        panic!("on purpose");
    });
    assert!(panicking.join().is_err());
    assert!(unwinding.get());
}

#[test]
fn guards_refuse_it() {
    let guard = pila::no_switch();
    let error = pila::offload(|| unreachable!("refused")).map(|(): ()| ()).unwrap_err();
    drop(guard);
    assert_eq!(error.kind(), io::ErrorKind::Other);
    assert!(error.to_string().contains("no_switch guard"), "{error}");
    pila::current().set_block_trap(true).unwrap();
    let error = pila::offload(|| ()).unwrap_err();
    pila::current().set_block_trap(false).unwrap();
    assert!(error.to_string().contains(&Refused::BlockTrap.to_string()), "{error}");
}

#[test]
fn a_thread_that_ends_abandons_its_work() {
    if alone("a_thread_that_ends_abandons_its_work", 1) {
        return;
    }
    let (go, begin) = mpsc::channel::<()>();
    let (say, said) = mpsc::channel();
    let in_line = Arc::new(());
    let theirs = in_line.clone();
    thread::spawn(move || {
        pila::tasklet(move || {
            pila::offload(move || {
                begin.recv().unwrap();
                say
            })
        });
        pila::tasklet(move || pila::offload(move || drop(theirs)));
        pila::schedule();
        stop(20);
    })
    .join()
    .unwrap();
    assert_eq!(Arc::strong_count(&in_line), 1);
    go.send(()).unwrap();
    // The result, a sender, is dropped although its caller is leaked.
    assert!(said.recv().map(|(): ()| ()).is_err());
    assert_eq!(pila::offload_pool().abandoned, 2);
}

#[test]
fn tasklets_that_the_work_makes_end_with_it() {
    let held = Arc::new(());
    let theirs = held.clone();
    pila::offload(move || {
        pila::tasklet(move || {
            let _theirs = theirs;
            pila::sleep(Duration::MAX);
        });
        pila::schedule();
    })
    .unwrap();
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn many_threads_share_the_pool() {
    let threads: Vec<_> = (0..8)
        .map(|_| {
            pila::spawn_thread(|| {
                let working: Vec<_> = (0..200u64)
                    .map(|i| pila::tasklet(move || pila::offload(move || i).unwrap()))
                    .collect();
                working.into_iter().map(|tasklet| tasklet.join().unwrap()).sum::<u64>()
            })
            .unwrap()
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), 19_900);
    }
    let pool = pila::offload_pool();
    assert!(pool.threads <= pool.limit, "{pool:?}");
}

#[test]
fn idle_threads_end() {
    if alone("idle_threads_end", 3) {
        return;
    }
    let barrier = Arc::new(Barrier::new(3));
    for _ in 0..3 {
        let barrier = barrier.clone();
        pila::tasklet(move || pila::offload(move || barrier.wait()).unwrap());
    }
    pila::run();
    assert_eq!(pila::offload_pool().threads, 3);
    let start = Instant::now();
    while pila::offload_pool().threads > 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", pila::offload_pool());
        pila::sleep(Duration::from_millis(100));
    }
    assert!(start.elapsed() > Duration::from_secs(3));
    assert_eq!(pila::offload(|| 1).unwrap(), 1);
}

/// What the process has of its address space, in bytes.
fn address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmSize:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer cannot live with so little memory")]
fn where_no_thread_can_be_made_it_fails_and_the_work_is_dropped() {
    if alone("where_no_thread_can_be_made_it_fails_and_the_work_is_dropped", 4) {
        return;
    }
    // The stacks of tasklets are there.
    pila::tasklet(|| ()).join().unwrap();
    let before = getrlimit(Resource::As);
    let no_more = Some(address_space() + (1 << 20));
    setrlimit(Resource::As, Rlimit { current: no_more, ..before }).unwrap();
    let dropped = Arc::new(());
    let callers: Vec<_> = (0..10)
        .map(|_| {
            let theirs = dropped.clone();
            pila::tasklet(move || pila::offload(move || Arc::strong_count(&theirs)))
        })
        .collect();
    for caller in callers {
        let error = caller.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
    }
    assert_eq!(Arc::strong_count(&dropped), 1);
    let pool = pila::offload_pool();
    assert_eq!((pool.threads, pool.waiting), (0, 0), "{pool:?}");
    // When there is memory again, all is as ever.
    setrlimit(Resource::As, before).unwrap();
    assert_eq!(pila::offload(|| 7).unwrap(), 7);
}

#[test]
fn at_the_end_of_a_thread_it_runs_in_place() {
    struct AtEnd(mpsc::Sender<i32>);
    impl Drop for AtEnd {
        fn drop(&mut self) {
            let result = catch_unwind(AssertUnwindSafe(|| pila::offload(|| 5).unwrap()));
            let _ = self.0.send(result.unwrap_or(-1));
        }
    }
    thread_local! {
        static AT_END: Cell<Option<AtEnd>> = const { Cell::new(None) };
    }
    let (say, said) = mpsc::channel();
    thread::spawn(move || {
        AT_END.set(Some(AtEnd(say)));
        pila::tasklet(|| ());
        pila::run();
    })
    .join()
    .unwrap();
    assert_eq!(said.recv().unwrap(), 5);
}
