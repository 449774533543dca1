//! The life of tasklets: making them, holding them, joining them, their states, their panics and their ends.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    process::{Command, Output},
    rc::Rc,
    time::Duration,
};

use pila::{
    Builder, Channel, Handle, JoinError, ReceiveError, Tasklet, TaskletError, current,
    driver::{self, VirtualClock},
    main_tasklet, run, run_count, schedule, schedule_remove, sleep, tasklet,
};

/// A panic without a message on standard error.
fn silent_panic(text: &'static str) -> ! {
    resume_unwind(Box::new(text))
}

fn text(payload: Box<dyn Any + Send>) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().expect("a text")
}

/// What comes out of `f` by unwinding.
#[track_caller]
fn panic_of<T>(f: impl FnOnce() -> T) -> &'static str {
    text(catch_unwind(AssertUnwindSafe(f)).err().expect("a panic"))
}

/// Counts its drops.
struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// Calls its function when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Runs the test `name` of this file again, alone, in a process of its own.
fn again(name: &str) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env("PILA_TEST_CHILD", "1");
    command.output().unwrap()
}

fn is_child() -> bool {
    env::var_os("PILA_TEST_CHILD").is_some()
}

// Results.

#[test]
fn join_gives_the_result() {
    let early = tasklet(|| "early");
    let late = tasklet(|| {
        schedule();
        "late"
    });
    assert_eq!(late.join().unwrap(), "late");
    assert_eq!(early.join().unwrap(), "early");
}

#[test]
fn a_tasklet_may_join_another() {
    let inner = tasklet(|| 40);
    let outer = tasklet(move || inner.join().unwrap() + 2);
    assert_eq!(outer.join().unwrap(), 42);
}

#[test]
fn a_detached_tasklet_runs_on() {
    let done = Rc::new(Cell::new(false));
    let theirs = done.clone();
    drop(tasklet(move || {
        schedule();
        theirs.set(true);
    }));
    assert_eq!(run().finished, 1);
    assert!(done.get());
}

#[test]
fn joining_oneself_is_a_deadlock() {
    let channel = Channel::new();
    let theirs = channel.clone();
    let told = Rc::new(Cell::new(false));
    let tell = told.clone();
    let own = tasklet(move || {
        let own: Tasklet<()> = theirs.receive().unwrap();
        // Main is to block first, so that it is this one that is told.
        schedule();
        tell.set(matches!(own.join(), Err(JoinError::Deadlock(_))));
    });
    schedule();
    channel.send(own).unwrap();
    assert!(matches!(channel.receive(), Err(ReceiveError::Deadlock(_))));
    assert!(told.get());
}

#[test]
fn joining_what_was_never_inserted_is_a_deadlock() {
    let error = Tasklet::bind(|| ()).join().unwrap_err();
    let JoinError::Deadlock(report) = &error else { panic!("{error:?}") };
    assert_eq!(report.waiters().len(), 2);
    assert!(error.to_string().contains("waits for the end of tasklet #1"), "{error}");
}

#[test]
fn results_are_dropped_once() {
    let drops = Rc::new(Cell::new(0));
    let result = |drops: &Rc<Cell<usize>>| {
        let counted = Counted(drops.clone());
        tasklet(move || counted)
    };
    // Joined, dropped before the end, dropped after the end.
    drop(result(&drops).join().unwrap());
    assert_eq!(drops.get(), 1);
    drop(result(&drops));
    run();
    assert_eq!(drops.get(), 2);
    let held = result(&drops);
    run();
    assert_eq!(drops.get(), 2);
    drop(held);
    assert_eq!(drops.get(), 3);
}

#[test]
fn closures_are_dropped_once() {
    let drops = Rc::new(Cell::new(0));
    let counted = Counted(drops.clone());
    tasklet(move || drop(counted));
    assert_eq!(drops.get(), 0);
    run();
    assert_eq!(drops.get(), 1);
    let counted = Counted(drops.clone());
    let panicking = tasklet(move || {
        let _counted = counted;
        silent_panic("on the way");
    });
    run();
    assert_eq!(drops.get(), 2);
    drop(panicking);
    assert_eq!(drops.get(), 2);
}

#[test]
fn the_destructor_of_an_unread_result_may_wait() {
    let channel = Channel::new();
    let (sending, other) = (channel.clone(), channel.clone());
    let result = OnDrop(move || {
        schedule();
        sending.send("from a destructor").unwrap();
    });
    drop(tasklet(move || result));
    let receiver = tasklet(move || other.receive().unwrap());
    let done = run();
    assert_eq!((done.finished, done.blocked), (2, 0));
    assert_eq!(receiver.join().unwrap(), "from a destructor");
}

#[test]
fn the_destructor_of_an_unread_result_may_panic() {
    let result = OnDrop(|| silent_panic("the result"));
    drop(tasklet(move || result));
    let other = tasklet(|| "unharmed");
    assert_eq!(panic_of(run), "the result");
    assert_eq!(other.join().unwrap(), "unharmed");
}

#[test]
fn the_destructor_of_an_unread_result_may_make_tasklets() {
    let done = Rc::new(Cell::new(false));
    let theirs = done.clone();
    let result = OnDrop(move || {
        let theirs = theirs.clone();
        tasklet(move || theirs.set(true)).join().unwrap();
    });
    drop(tasklet(move || result));
    assert_eq!(run().finished, 2);
    assert!(done.get());
}

#[test]
fn a_closure_of_64_kib_fits_a_stack() {
    if is_child() {
        let large = std::hint::black_box([7u8; 64 << 10]);
        let tasklet = tasklet(move || {
            schedule();
            large.iter().all(|&byte| byte == 7)
        });
        assert!(tasklet.join().unwrap());
        return;
    }
    // Were it to overflow its stack, the process would die.
    let output = again("a_closure_of_64_kib_fits_a_stack");
    assert!(output.status.success(), "{output:#?}");
}

#[test]
fn a_result_of_16_kib_fits_a_stack() {
    if is_child() {
        let tasklet = tasklet(|| {
            schedule();
            std::hint::black_box([7u8; 16 << 10])
        });
        assert!(tasklet.join().unwrap().iter().all(|&byte| byte == 7));
        return;
    }
    let output = again("a_result_of_16_kib_fits_a_stack");
    assert!(output.status.success(), "{output:#?}");
}

// Panics.

#[test]
fn a_panic_goes_to_the_holder_alone() {
    let tasklet = tasklet(|| silent_panic("held"));
    assert_eq!(run().finished, 1);
    let Err(JoinError::Panicked(panic)) = tasklet.join() else { panic!("no panic") };
    assert_eq!(panic.message(), "held");
    assert_eq!(text(panic.into_payload()), "held");
}

#[test]
fn a_panic_that_is_not_a_text_is_kept() {
    let tasklet = tasklet(|| resume_unwind(Box::new(42)));
    let Err(JoinError::Panicked(panic)) = tasklet.join() else { panic!("no panic") };
    assert_eq!(panic.message(), "a value that is not a string");
    assert_eq!(panic.into_payload().downcast_ref(), Some(&42));
}

#[test]
fn a_panic_without_a_holder_comes_out_of_run_and_the_others_keep_their_places() {
    let log = Rc::new(RefCell::new(String::new()));
    let add = |name: &'static str| {
        let log = log.clone();
        tasklet(move || log.borrow_mut().push_str(name));
    };
    add("a");
    tasklet(|| silent_panic("nobody holds me"));
    add("b");
    add("c");
    assert_eq!(panic_of(run), "nobody holds me");
    assert_eq!(*log.borrow(), "a");
    assert_eq!(run().finished, 2);
    assert_eq!(*log.borrow(), "abc");
}

#[test]
fn panics_come_out_one_by_one() {
    tasklet(|| silent_panic("first"));
    tasklet(|| silent_panic("second"));
    assert_eq!(panic_of(run), "first");
    assert_eq!(panic_of(run), "second");
    assert_eq!(run().finished, 0);
}

#[test]
fn a_panic_without_a_holder_comes_out_of_whatever_main_waits_in() {
    let raise = || drop(tasklet(|| silent_panic("for main")));
    raise();
    assert_eq!(panic_of(schedule), "for main");
    raise();
    assert_eq!(panic_of(schedule_remove), "for main");
    raise();
    assert_eq!(panic_of(|| sleep(Duration::from_secs(3600))), "for main");
    raise();
    assert_eq!(panic_of(|| Channel::<()>::new().receive()), "for main");
    raise();
    assert_eq!(panic_of(|| Channel::new().send(()).is_ok()), "for main");
    raise();
    let never = Tasklet::bind(|| ());
    assert_eq!(panic_of(|| never.join()), "for main");
    assert!(current().is_main() && current().is_current());
    assert_eq!(run_count(), 1);
}

#[test]
fn a_panic_without_a_holder_goes_to_the_innermost_run() {
    let inner = tasklet(|| {
        tasklet(|| silent_panic("innermost"));
        panic_of(run)
    });
    assert_eq!(run().finished, 2);
    assert_eq!(inner.join().unwrap(), "innermost");
}

#[test]
fn a_panic_dropped_unread_is_counted() {
    let dropped_during_the_run = tasklet(|| silent_panic("unread"));
    tasklet(move || {
        schedule();
        drop(dropped_during_the_run);
    });
    let done = run();
    assert_eq!((done.finished, done.unread_panics), (2, 1));
    assert_eq!(run().unread_panics, 0);
}

#[test]
fn a_holder_that_goes_while_its_tasklet_unwinds_is_none() {
    let place = Rc::new(RefCell::new(None));
    let theirs = place.clone();
    *place.borrow_mut() = Some(tasklet(move || {
        let _own = OnDrop(|| drop(theirs.borrow_mut().take()));
        silent_panic("nobody is left");
    }));
    assert_eq!(panic_of(run), "nobody is left");
}

// States.

/// What a handle says of itself: alive, blocked, scheduled, paused, current.
fn states(handle: &Handle) -> [bool; 5] {
    [
        handle.is_alive(),
        handle.is_blocked(),
        handle.is_scheduled(),
        handle.is_paused(),
        handle.is_current(),
    ]
}

const PAUSED: [bool; 5] = [true, false, false, true, false];
const SCHEDULED: [bool; 5] = [true, false, true, false, false];
const CURRENT: [bool; 5] = [true, false, true, false, true];
const BLOCKED: [bool; 5] = [true, true, true, false, false];
const DEAD: [bool; 5] = [false; 5];

#[test]
fn insert_and_remove_do_in_each_state_what_the_grid_says() {
    let channel = Channel::<()>::new();
    let theirs = channel.clone();

    // Paused, never started: remove changes nothing, insert schedules.
    let tasklet = Tasklet::bind(move || {
        // Current: insert changes nothing, remove is an error.
        let own = current();
        assert_eq!(states(&own), CURRENT);
        own.insert().unwrap();
        assert!(matches!(own.remove(), Err(TaskletError::Current(_))));
        schedule();
        schedule_remove();
        let _ = theirs.receive();
    });
    let handle = (*tasklet).clone();
    assert_eq!(states(&handle), PAUSED);
    handle.remove().unwrap();
    assert_eq!(states(&handle), PAUSED);

    // Scheduled: insert changes nothing, remove pauses.
    handle.insert().unwrap();
    assert_eq!(states(&handle), SCHEDULED);
    handle.insert().unwrap();
    assert_eq!(run_count(), 2);
    handle.remove().unwrap();
    assert_eq!(states(&handle), PAUSED);
    handle.insert().unwrap();
    schedule();

    // Scheduled and started: the same.
    assert_eq!(states(&handle), SCHEDULED);
    handle.remove().unwrap();
    assert_eq!(states(&handle), PAUSED);
    handle.insert().unwrap();
    run();

    // Paused by itself.
    assert_eq!(states(&handle), PAUSED);
    handle.insert().unwrap();
    run();

    // Blocked: both are errors.
    assert_eq!(states(&handle), BLOCKED);
    assert!(matches!(handle.insert(), Err(TaskletError::Blocked(_))));
    assert!(matches!(handle.remove(), Err(TaskletError::Blocked(_))));
    assert_eq!((states(&handle), channel.balance()), (BLOCKED, -1));

    // Dead: insert is an error, remove changes nothing.
    channel.close();
    run();
    assert_eq!(states(&handle), DEAD);
    assert!(matches!(handle.insert(), Err(TaskletError::Dead(_))));
    handle.remove().unwrap();
}

#[test]
fn main_has_the_states_of_any_tasklet() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let look = |seen: &Rc<RefCell<Vec<[bool; 5]>>>| {
        let seen = seen.clone();
        tasklet(move || seen.borrow_mut().push(states(&main_tasklet())));
    };
    assert_eq!(states(&main_tasklet()), CURRENT);
    look(&seen);
    schedule();
    look(&seen);
    run();
    look(&seen);
    drop(Channel::<()>::new().receive());
    look(&seen);
    schedule_remove();
    assert_eq!(*seen.borrow(), [SCHEDULED, PAUSED, BLOCKED, PAUSED]);
}

#[test]
fn errors_name_the_tasklet() {
    let named = Builder::new().name("mail-17").bind(|| ()).unwrap();
    let handle = (*named).clone();
    named.insert().unwrap();
    run();
    assert_eq!(handle.insert().unwrap_err().to_string(), "tasklet 'mail-17' (#1) has ended");
    let error = main_tasklet().remove().unwrap_err();
    assert_eq!(error.to_string(), "tasklet 'main' (#0) is the one that runs");
    let sleeper = tasklet(|| drop(Channel::<()>::new().receive()));
    run();
    let error = sleeper.insert().unwrap_err().to_string();
    assert!(error.starts_with("tasklet #2 is blocked"), "{error}");
}

#[test]
fn numbers_are_never_used_twice() {
    let mut last = 0;
    for _ in 0..1000 {
        let tasklet = tasklet(|| ());
        assert!(tasklet.id().get() > last);
        last = tasklet.id().get();
        run();
    }
}

#[test]
fn handles_of_the_dead_do_not_touch_whoever_came_after() {
    let dead = (*tasklet(|| ())).clone();
    run();
    // It has the place of the dead one in the table.
    let heir = Tasklet::bind(|| "mine");
    assert!(dead.insert().is_err());
    assert!(heir.is_paused() && !dead.is_alive());
    heir.insert().unwrap();
    dead.remove().unwrap();
    assert!(heir.is_scheduled() && !heir.is_paused());
    assert_ne!(dead.id(), heir.id());
    assert_eq!(heir.join().unwrap(), "mine");
}

#[test]
fn tickets_of_the_dead_wake_nobody() {
    use pila::park;
    let place = Rc::new(Cell::new(None));
    let theirs = place.clone();
    tasklet(move || theirs.set(Some(park::begin().unwrap())));
    run();
    let heir = tasklet(|| drop(Channel::<()>::new().receive()));
    run();
    assert!(!park::unpark(place.get().unwrap()));
    assert!(heir.is_blocked());
}

#[test]
fn current_and_names_are_true_on_every_stack() {
    assert!(current().is_main());
    assert_eq!((current().name(), current().id()), (Some("main"), main_tasklet().id()));
    let named =
        Builder::new().name("deep").tasklet(|| (current().id(), current().name() == Some("deep")));
    let named = named.unwrap();
    let id = named.id();
    assert_eq!(named.join().unwrap(), (id, true));
    let unnamed = tasklet(|| current().name().is_none() && !current().is_main());
    assert!(unnamed.join().unwrap());
    assert!(current().is_main());
}

#[test]
fn run_count_counts_the_ring_alone() {
    assert_eq!(run_count(), 1);
    let blocked = tasklet(|| drop(Channel::<()>::new().receive()));
    let paused = Tasklet::bind(|| ());
    let counter = tasklet(run_count);
    assert_eq!(run_count(), 3);
    // Main is in `run` then, so the counter is alone.
    run();
    assert!(blocked.is_blocked() && paused.is_paused());
    assert_eq!(counter.join().unwrap(), 1);
}

#[test]
fn schedule_remove_pauses_until_inserted() {
    let sleeper = tasklet(|| {
        schedule_remove();
        "awake"
    });
    assert_eq!(run().paused, 1);
    assert!(sleeper.is_paused());
    sleeper.insert().unwrap();
    assert_eq!(sleeper.join().unwrap(), "awake");
}

#[test]
fn main_alone_goes_on_from_schedule_remove() {
    schedule_remove();
    let done = Rc::new(Cell::new(false));
    let theirs = done.clone();
    tasklet(move || theirs.set(true));
    schedule_remove();
    assert!(done.get());
    assert_eq!(run_count(), 1);
}

#[test]
fn main_that_removed_itself_can_be_inserted() {
    let log = Rc::new(RefCell::new(String::new()));
    let theirs = log.clone();
    tasklet(move || {
        main_tasklet().insert().unwrap();
        theirs.borrow_mut().push('a');
        schedule();
        theirs.borrow_mut().push('c');
    });
    schedule_remove();
    log.borrow_mut().push('b');
    run();
    assert_eq!(*log.borrow(), "abc");
}

#[test]
fn schedule_remove_of_the_last_panics_while_main_is_blocked() {
    let channel = Channel::new();
    let theirs = channel.clone();
    tasklet(move || {
        let panic = catch_unwind(schedule_remove).unwrap_err();
        theirs.send(panic.downcast_ref::<String>().cloned().unwrap()).unwrap();
    });
    let report = channel.receive().unwrap();
    assert!(report.contains("deadlock") && report.contains("'main' (#0)"), "{report}");
}

// Nested runs.

#[test]
fn the_innermost_run_returns_first() {
    let log = Rc::new(RefCell::new(String::new()));
    let (outer, inner) = (log.clone(), log.clone());
    tasklet(move || {
        tasklet(move || {
            run();
            inner.borrow_mut().push('1');
        });
        tasklet(schedule);
        run();
        outer.borrow_mut().push('2');
    });
    run();
    log.borrow_mut().push('3');
    assert_eq!(*log.borrow(), "123");
}

#[test]
fn inserting_the_caller_of_an_outer_run_ends_the_runs_inside_it() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let (first, second, third) = (log.clone(), log.clone(), log.clone());
    let outer = tasklet(move || {
        run();
        first.borrow_mut().push("outer returned");
    });
    tasklet(move || {
        run();
        second.borrow_mut().push("inner returned");
    });
    let handle = (*outer).clone();
    tasklet(move || {
        assert!(handle.is_paused());
        handle.insert().unwrap();
        schedule();
        third.borrow_mut().push("busy");
        schedule();
        third.borrow_mut().push("busy");
    });
    run();
    assert_eq!(*log.borrow(), ["outer returned", "busy", "inner returned", "busy"]);
}

#[test]
fn a_run_ended_from_outside_does_not_end_the_runs_of_others() {
    // `inner` was inside the run of `outer`, which was inserted by hand. That must not end main's run.
    let outer = tasklet(run);
    let handle = (*outer).clone();
    tasklet(|| {
        run();
    });
    tasklet(move || {
        handle.insert().unwrap();
        for _ in 0..5 {
            schedule();
        }
    });
    assert_eq!(run().finished, 3, "main's run came back too early");
}

#[test]
fn main_is_paused_in_its_run_and_an_insert_ends_it() {
    let tail = tasklet(|| {
        assert!(main_tasklet().is_paused());
        main_tasklet().insert().unwrap();
        schedule();
        "after main"
    });
    assert_eq!(run().finished, 0);
    assert_eq!(tail.join().unwrap(), "after main");
}

#[test]
fn run_of_a_lone_tasklet_returns_at_once() {
    assert_eq!(run(), pila::Summary::default());
    assert_eq!(tasklet(run).join().unwrap().finished, 0);
}

#[test]
fn the_summary_says_what_was_done_and_what_is_left() {
    tasklet(|| ());
    tasklet(schedule);
    tasklet(|| drop(Channel::<()>::new().receive()));
    let _paused = Tasklet::bind(|| ());
    tasklet(schedule_remove);
    let done = run();
    assert_eq!((done.finished, done.blocked, done.paused), (2, 1, 2));
    assert_eq!((done.no_stack, done.unread_panics), (0, 0));
    assert_eq!(
        done.to_string(),
        "2 finished, 1 still blocked, 2 paused, 0 without a stack, 0 unread panics"
    );
}

#[test]
fn a_report_counts_a_pause_from_when_it_began() {
    driver::install(Box::new(VirtualClock::new())).unwrap();
    let tasklet = tasklet(|| {
        sleep(Duration::from_secs(5));
        schedule();
    });
    sleep(Duration::from_secs(5));
    schedule();
    tasklet.remove().unwrap();
    let error = Channel::<()>::new().receive().unwrap_err();
    let ReceiveError::Deadlock(report) = error else { panic!("{error}") };
    let since: Vec<_> = report.waiters().iter().map(|waiter| waiter.since).collect();
    assert_eq!(since, [Duration::ZERO; 2]);
}

// Stacks and numbers.

#[test]
fn a_stack_of_8_mib_holds_a_deep_recursion() {
    fn depth(left: u32) -> u32 {
        let frame = std::hint::black_box([left; 250]);
        if left == 0 { 0 } else { 1 + depth(frame[7] - 1) }
    }
    // At least 1,000 bytes a frame.
    let deep = Builder::new().stack_size(8 << 20).tasklet(|| depth(1_500)).unwrap();
    assert_eq!(deep.join().unwrap(), 1_500);
}

#[test]
fn the_smallest_stack_holds_a_panic() {
    let small = Builder::new().stack_size(0).tasklet(|| {
        schedule();
        silent_panic("small")
    });
    let error = small.unwrap().join().map(|(): ()| ()).unwrap_err();
    assert_eq!(error.to_string(), "the tasklet panicked: small");
}

#[test]
fn an_absurd_stack_is_an_error() {
    for size in [usize::MAX, 1 << 62, (1 << 40) + 1] {
        let error = Builder::new().stack_size(size).tasklet(|| ()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
    assert_eq!(tasklet(|| 1).join().unwrap(), 1);
}

/// What has `Unsent::SENT` false unless `T` is `Send`: the inherent constant wins where it applies.
struct Is<T>(std::marker::PhantomData<T>);

trait Unsent {
    const SENT: bool = false;
}

impl<T> Unsent for Is<T> {}

impl<T: Send> Is<T> {
    const SENT: bool = true;
}

// What stays on its thread. Errors may go anywhere.
const _: () = {
    assert!(!Is::<Tasklet<()>>::SENT);
    assert!(!Is::<Handle>::SENT);
    assert!(!Is::<Channel<()>>::SENT);
    assert!(Is::<JoinError>::SENT && Is::<ReceiveError>::SENT && Is::<TaskletError>::SENT);
};

#[test]
fn ten_thousand_tasklets_lose_no_update() {
    let sent = Rc::new(Cell::new(0));
    for _ in 0..10_000 {
        let sent = sent.clone();
        tasklet(move || {
            schedule();
            sent.set(sent.get() + 1);
            schedule();
        });
    }
    assert_eq!(run().finished, 10_000);
    assert_eq!(sent.get(), 10_000);
}

/// Resident bytes of the mappings that stacks are cut from: those that are reserved without swap (`nr`) and never get
/// huge pages (`nh`).
fn resident_stacks() -> usize {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut resident, mut sum) = (0, 0);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Rss:") => resident = words.next().unwrap().parse::<usize>().unwrap(),
            Some("VmFlags:") => {
                let flags: Vec<_> = words.collect();
                let is_stacks = flags.contains(&"nr") && flags.contains(&"nh");
                sum += if is_stacks { resident << 10 } else { 0 };
            }
            _ => {}
        }
    }
    sum
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer has mappings of its own")]
fn a_million_short_tasklets_share_one_warm_stack() {
    if is_child() {
        let ran = Rc::new(Cell::new(0));
        for _ in 0..1_000_000 {
            let ran = ran.clone();
            tasklet(move || ran.set(ran.get() + 1));
        }
        assert_eq!(resident_stacks(), 0);
        assert_eq!(run().finished, 1_000_000);
        assert_eq!(ran.get(), 1_000_000);
        let resident = resident_stacks();
        assert!(resident > 0, "the stacks were not found");
        assert!(resident < 1 << 20, "{} KiB", resident >> 10);
        return;
    }
    let output = again("a_million_short_tasklets_share_one_warm_stack");
    assert!(output.status.success(), "{output:#?}");
}
