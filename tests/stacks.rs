//! Stacks: a hundred thousand of them, their guards, and what happens when there are no more.
//!
//! What kills a process, or needs one with other limits, runs in a process of its own.

use std::{
    cell::{Cell, RefCell},
    env, fs,
    os::unix::process::ExitStatusExt,
    panic::catch_unwind,
    process::{Command, Output},
    rc::Rc,
    time::Duration,
};

use pila::{
    Builder, Channel, Group, JoinError, SendReason, Tasklet, run, schedule, schedule_remove, sleep,
    tasklet,
};
use random::{Random, Seed};

mod random;

/// The largest stack: some 127 of them fill the address space, for no memory at all.
const TIB: usize = 1 << 40;

/// Runs the test `name` of this file again, alone, in a process of its own: that of `sh -c` with `setup` before it.
fn again(name: &str, setup: &str) -> Output {
    let mut command = Command::new("sh");
    let program = env::current_exe().unwrap();
    command.arg("-c").arg(format!("{setup} exec \"$0\" --exact {name} --nocapture"));
    command.arg(program).env("PILA_TEST_CHILD", "1");
    // Under AddressSanitizer, let faults be what they are.
    command.env("ASAN_OPTIONS", "detect_leaks=0:handle_segv=0").output().unwrap()
}

fn is_child() -> bool {
    env::var_os("PILA_TEST_CHILD").is_some()
}

#[track_caller]
fn assert_success(output: &Output) {
    assert!(output.status.success(), "{output:#?}");
}

/// A line of a file like /proc/meminfo, in bytes.
fn kilobytes(file: &str, name: &str) -> usize {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// What the process has in memory.
fn resident() -> usize {
    kilobytes("/proc/self/status", "VmRSS:")
}

/// Parks `count` tasklets on a channel that closing releases.
fn park(count: usize) -> Channel<()> {
    let gate = Channel::new();
    for _ in 0..count {
        let gate = gate.clone();
        tasklet(move || drop(gate.receive()));
    }
    gate
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer has mappings of its own")]
fn a_hundred_thousand_tasklets_park_in_4_5_kib_each() {
    if is_child() {
        let limit = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
        assert!(limit.trim().parse::<usize>().unwrap() < 100_000, "{limit}");
        let count = if cfg!(debug_assertions) { 20_000 } else { 100_000 };
        let before = resident();
        let gate = park(count);
        assert_eq!(run().blocked, count);
        let each = (resident() - before) / count;
        println!("{each} bytes each");
        // The frames of a debug build are larger.
        let allowed = if cfg!(debug_assertions) { 9_000 } else { 4_608 };
        assert!((4_096..=allowed).contains(&each), "{each} bytes each");
        gate.close();
        assert_eq!(run().finished, count);
        return;
    }
    let output = again("a_hundred_thousand_tasklets_park_in_4_5_kib_each", "");
    assert_success(&output);
}

/// Runs off the end of its stack.
fn fall(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { fall(depth + 1) + frame[3] }
}

/// The guard was hit, and told of as what it is: the process dies of an abort.
#[track_caller]
fn assert_overflow(output: &Output) {
    assert_eq!(output.status.signal(), Some(6), "{output:#?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains(") overflowed its 256 KiB stack\n"), "{output:#?}");
}

fn overflow_in_the_second_of_three() {
    // So that there is a stack below: what lies beyond the guard belongs to another.
    let gate = park(1);
    schedule();
    tasklet(|| std::hint::black_box(fall(0)));
    tasklet(|| ());
    run();
    drop(gate);
}

#[test]
fn a_write_below_a_stack_faults_on_its_guard() {
    if is_child() {
        overflow_in_the_second_of_three();
        return;
    }
    let output = again("a_write_below_a_stack_faults_on_its_guard", "");
    assert_overflow(&output);
}

#[test]
fn a_write_below_a_stack_faults_on_a_guard_made_by_mprotect() {
    if is_child() {
        overflow_in_the_second_of_three();
        return;
    }
    let name = "a_write_below_a_stack_faults_on_a_guard_made_by_mprotect";
    let output = again(name, "PILA_STACK_GUARD=mprotect");
    assert_overflow(&output);
}

#[test]
fn a_reused_stack_keeps_its_guard() {
    if is_child() {
        for _ in 0..1000 {
            tasklet(schedule);
        }
        run();
        overflow_in_the_second_of_three();
        return;
    }
    let output = again("a_reused_stack_keeps_its_guard", "");
    assert_overflow(&output);
}

#[test]
fn with_mprotect_32_000_park_then_builders_fail_and_the_rest_wait() {
    if is_child() {
        let gate = park(40_000);
        // Those that cannot start wait for a stack, so they are not blocked. Main takes a turn instead of `run`, which
        // would end them.
        schedule();
        let parked = -gate.balance();
        println!("{parked} parked");
        assert!((30_000..33_000).contains(&parked), "{parked} parked");

        let error = Builder::new().tasklet(|| ()).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory, "{text}");
        assert!(text.contains("vm.max_map_count"), "{text}");
        assert!(text.contains(&format!("{parked} live")), "{text}");
        assert!(text.contains("sysctl -w vm.max_map_count=131060"), "{text}");

        // The process can still do other things that need mappings.
        assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
        let last = tasklet(|| "last");
        gate.close();
        assert_eq!(run().finished, 40_001);
        assert_eq!(last.join().unwrap(), "last");
        Builder::new().tasklet(|| ()).unwrap().join().unwrap();
        return;
    }
    let name = "with_mprotect_32_000_park_then_builders_fail_and_the_rest_wait";
    let output = again(name, "PILA_STACK_GUARD=mprotect");
    assert_success(&output);
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer has mappings of its own")]
fn under_a_memory_limit_builders_fail_and_the_runtime_goes_on() {
    if is_child() {
        let mut parked = Vec::new();
        let gate = Channel::<()>::new();
        let error = loop {
            let theirs = gate.clone();
            let builder = Builder::new().stack_size(64 << 20);
            match builder.tasklet(move || drop(theirs.receive())) {
                Ok(tasklet) => parked.push(tasklet),
                Err(error) => break error,
            }
            assert!(parked.len() < 100, "the limit is not felt");
            schedule();
        };
        let text = error.to_string();
        assert!(text.contains(&format!("{} live", parked.len())), "{text}");
        assert!(parked.len() > 2, "{}", parked.len());
        // Small ones are still to be had, and the large ones again once released.
        assert_eq!(Builder::new().stack_size(1).tasklet(|| 1).unwrap().join().unwrap(), 1);
        gate.close();
        assert_eq!(run().blocked, 0);
        let again = Builder::new().stack_size(64 << 20).tasklet(|| 2).unwrap();
        assert_eq!(again.join().unwrap(), 2);
        return;
    }
    let name = "under_a_memory_limit_builders_fail_and_the_runtime_goes_on";
    let output = again(name, "ulimit -v 1000000 &&");
    assert_success(&output);
}

/// Parks tasklets with stacks of 1 TiB until there are no more, and gives what releases them.
fn fill_the_address_space() -> (Channel<()>, usize) {
    let gate = Channel::<()>::new();
    let mut parked = 0;
    loop {
        let theirs = gate.clone();
        let huge = Builder::new().stack_size(TIB);
        let Ok(tasklet) = huge.tasklet(move || drop(theirs.receive())) else { break };
        parked += 1;
        schedule();
        assert!(tasklet.is_blocked());
    }
    assert!((8..=128).contains(&parked), "{parked} parked");
    (gate, parked)
}

/// Makes a tasklet that needs a stack of 1 TiB and gets none at its turn: it is made while there still is one.
fn make_starved<T: 'static>(count: usize, f: impl Fn(usize) -> T + 'static) -> Starved<T> {
    let f = Rc::new(f);
    let tasklets = (0..count).map(|number| {
        let f = f.clone();
        Builder::new().stack_size(TIB).bind(move || f(number)).unwrap()
    });
    let tasklets: Vec<_> = tasklets.collect();
    let (gate, parked) = fill_the_address_space();
    for tasklet in &tasklets {
        tasklet.insert().unwrap();
    }
    Starved { tasklets, gate, parked }
}

struct Starved<T> {
    tasklets: Vec<Tasklet<T>>,
    /// Closing it releases the stacks.
    gate: Channel<()>,
    parked: usize,
}

/// The address space is the process's, so each test that fills it has one of its own.
fn in_its_own_process(name: &str, body: impl FnOnce()) {
    if is_child() {
        return body();
    }
    assert_success(&again(name, ""));
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer has mappings of its own")]
fn one_without_a_stack_waits_for_one() {
    in_its_own_process("one_without_a_stack_waits_for_one", || {
        let starved = make_starved(3, |number| number);
        schedule();
        for tasklet in &starved.tasklets {
            assert!(tasklet.is_scheduled() && !tasklet.is_blocked());
        }
        starved.gate.close();
        let results: Vec<_> =
            starved.tasklets.into_iter().map(|tasklet| tasklet.join().unwrap()).collect();
        assert_eq!(results, [0, 1, 2]);
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer has mappings of its own")]
fn those_without_a_stack_keep_their_order() {
    in_its_own_process("those_without_a_stack_keep_their_order", || {
        let log = Rc::new(RefCell::new(Vec::new()));
        let theirs = log.clone();
        let starved = make_starved(5, move |number| theirs.borrow_mut().push(number));
        schedule();
        // One leaves the line, and comes back at its end.
        starved.tasklets[1].remove().unwrap();
        assert!(starved.tasklets[1].is_paused());
        starved.tasklets[1].insert().unwrap();
        starved.gate.close();
        assert_eq!(run().finished, starved.parked + 5);
        assert_eq!(*log.borrow(), [0, 2, 3, 4, 1]);
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer has mappings of its own")]
fn one_for_which_nothing_can_free_a_stack_ends_without() {
    in_its_own_process("one_for_which_nothing_can_free_a_stack_ends_without", || {
        let dropped = Rc::new(());
        let closure = dropped.clone();
        let starved = make_starved(3, move |_| drop(closure.clone()));
        let done = run();
        assert_eq!((done.finished, done.no_stack, done.blocked), (0, 3, starved.parked));
        for tasklet in starved.tasklets {
            assert!(!tasklet.is_alive());
            let error = tasklet.join().unwrap_err();
            let JoinError::NoStack(source) = &error else { panic!("{error:?}") };
            assert!(source.to_string().contains(&format!("{} live", starved.parked)), "{error}");
        }
        assert_eq!(Rc::strong_count(&dropped), 1, "the closures were not dropped");
        starved.gate.close();
        assert_eq!(run().finished, starved.parked);
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer has mappings of its own")]
fn a_sleeper_may_free_a_stack_so_the_others_wait_for_it() {
    in_its_own_process("a_sleeper_may_free_a_stack_so_the_others_wait_for_it", || {
        let starved = make_starved(1, |_| "ran after all");
        let gate = starved.gate;
        tasklet(move || {
            sleep(Duration::from_millis(5));
            gate.close();
        });
        run();
        for tasklet in starved.tasklets {
            assert_eq!(tasklet.join().unwrap(), "ran after all");
        }
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer has mappings of its own")]
fn no_panic_is_lost_when_those_without_a_stack_get_one() {
    in_its_own_process("no_panic_is_lost_when_those_without_a_stack_get_one", || {
        // Each end frees a stack for the next, whose panic must not take the place of the one under way.
        // Nobody holds them.
        let Starved { gate, .. } =
            make_starved(3, |number| std::panic::resume_unwind(Box::new(number)));
        schedule();
        gate.close();
        let mut seen = Vec::new();
        while let Err(payload) = catch_unwind(run) {
            let payload: Box<usize> = payload.downcast().unwrap();
            seen.push(*payload);
        }
        assert_eq!(seen, [0, 1, 2]);
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer has mappings of its own")]
fn one_that_waits_for_a_stack_does_not_come_between_a_killer_and_its_victim() {
    let name = "one_that_waits_for_a_stack_does_not_come_between_a_killer_and_its_victim";
    in_its_own_process(name, || {
        let victim = Builder::new().stack_size(TIB).tasklet(|| Channel::<()>::new().receive());
        schedule();
        let ran = Rc::new(Cell::new(0));
        let theirs = ran.clone();
        let starved = make_starved(2, move |_| theirs.set(theirs.get() + 1));
        schedule();
        let victim = victim.unwrap();
        victim.kill().unwrap();
        assert_eq!((victim.is_alive(), ran.get()), (false, 0));
        schedule();
        assert_eq!(ran.get(), 2);
        starved.gate.close();
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer has mappings of its own")]
fn a_closure_that_never_got_a_stack_may_wait_in_its_destructor() {
    struct Waits(Rc<Cell<u32>>);
    impl Drop for Waits {
        fn drop(&mut self) {
            sleep(Duration::from_millis(1));
            self.0.set(self.0.get() + 1);
        }
    }
    in_its_own_process("a_closure_that_never_got_a_stack_may_wait_in_its_destructor", || {
        let drops = Rc::new(Cell::new(0));
        let waits = Waits(drops.clone());
        // The closure is the scheduler's alone.
        let Starved { gate, .. } = make_starved(1, move |_| waits.0.get());
        // Main waits for something else when it is told of the deadlock, and must still be told of that.
        let error = Channel::new().send("mine").unwrap_err();
        assert_eq!(error.value, "mine");
        assert!(matches!(error.reason, SendReason::Deadlock(_)));
        assert_eq!(drops.get(), 1);
        gate.close();
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer has mappings of its own")]
fn a_closure_that_never_got_a_stack_takes_no_strike_away_in_its_destructor() {
    struct Shields;
    impl Drop for Shields {
        fn drop(&mut self) {
            pila::shield(|| ());
        }
    }
    let name = "a_closure_that_never_got_a_stack_takes_no_strike_away_in_its_destructor";
    in_its_own_process(name, || {
        let shields = Rc::new(Shields);
        let Starved { mut tasklets, gate, .. } = make_starved(1, move |_| drop(shields.clone()));
        let (group, starved) = (Group::new(), tasklets.pop().unwrap());
        let theirs = group.clone();
        tasklet(move || {
            assert!(matches!(starved.join(), Err(JoinError::NoStack(_))));
            let _ = theirs.stop(Duration::ZERO);
        });
        let channel = Channel::new();
        assert!(group.until_stop(|| channel.send("nobody takes it")).is_none());
        assert_eq!(channel.balance(), 0);
        gate.close();
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer has mappings of its own")]
fn a_closure_that_never_got_a_stack_takes_no_panic_away_with_its_own() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("the bomb"));
        }
    }
    let name = "a_closure_that_never_got_a_stack_takes_no_panic_away_with_its_own";
    in_its_own_process(name, || {
        let bomb = Rc::new(Bomb);
        let Starved { mut tasklets, gate, .. } = make_starved(1, move |_| drop(bomb.clone()));
        let starved = tasklets.pop().unwrap();
        tasklet(move || {
            assert!(starved.join().is_err());
            std::panic::resume_unwind(Box::new("raised meanwhile"));
        });
        let raised =
            [(); 2].map(|()| *catch_unwind(run).unwrap_err().downcast::<&'static str>().unwrap());
        assert_eq!(raised, ["the bomb", "raised meanwhile"]);
        gate.close();
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer has mappings of its own")]
fn closures_that_never_got_a_stack_are_dropped_one_by_one_and_each_panic_is_raised() {
    struct Bomb(u32);
    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new(self.0));
        }
    }
    let name = "closures_that_never_got_a_stack_are_dropped_one_by_one_and_each_panic_is_raised";
    in_its_own_process(name, || {
        let with_bomb = |number| {
            let bomb = Bomb(number);
            Builder::new().stack_size(TIB).bind(move || drop(bomb)).unwrap()
        };
        let tasklets = [1, 2, 3].map(with_bomb);
        let (gate, _) = fill_the_address_space();
        for tasklet in tasklets {
            tasklet.insert().unwrap();
        }
        let raised = [(); 3].map(|()| *catch_unwind(run).unwrap_err().downcast::<u32>().unwrap());
        assert_eq!(raised, [1, 2, 3]);
        gate.close();
        run();
    });
}

/// Touches some `bytes` of the caller's stack: all but the last frames.
fn fill(bytes: usize) {
    fn fill_to(end: usize) {
        let frame = std::hint::black_box([1u8; 2048]);
        if frame.as_ptr().addr() > end {
            fill_to(end);
        }
        std::hint::black_box(frame);
    }
    let start = std::hint::black_box(0u8);
    fill_to((&raw const start).addr() - bytes);
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer has memory of its own")]
fn memory_comes_back_after_a_spike() {
    in_its_own_process("memory_comes_back_after_a_spike", || {
        const MIB: usize = 1 << 20;
        /// What the documentation of `trim` says that the free stacks of a thread hold at most, and what a tasklet leaves
        /// in the tables and in the allocator.
        const KEPT: usize = 128 * MIB;
        const TASKLET: usize = 400;
        let plenty = kilobytes("/proc/meminfo", "MemAvailable:") > 12 << 30;
        let count = if plenty { 100_000 } else { 20_000 };
        let tables = || kilobytes("/proc/self/status", "VmPTE:");

        // What any first use of the runtime takes is not the spike's.
        park(1).close();
        run();
        let (before, tables_before) = (resident(), tables());
        let gate = Channel::<()>::new();
        for _ in 0..count {
            let gate = gate.clone();
            tasklet(move || {
                fill(64 << 10);
                drop(gate.receive());
            });
        }
        assert_eq!(run().blocked, count);
        let spike = resident() - before;
        assert!(spike > count * (64 << 10), "{spike}");
        gate.close();
        assert_eq!(run().finished, count);
        drop(gate);
        let (kept, tables_kept) = (resident().saturating_sub(before), tables() - tables_before);
        let given_back = pila::trim();
        let rest = resident().saturating_sub(before);
        let tables_rest = tables().saturating_sub(tables_before);
        println!(
            "of {} MiB for {count} tasklets {} were kept; trim gave back {} of stacks and left {}; \
             of page tables {} MiB were kept and {} left",
            spike / MIB,
            kept / MIB,
            given_back / MIB,
            rest / MIB,
            tables_kept / MIB,
            tables_rest / MIB,
        );
        assert!(kept <= KEPT + count * TASKLET, "{kept} bytes are kept");
        assert!((MIB..=KEPT).contains(&given_back), "{given_back} bytes given back");
        assert!(rest <= 10 * MIB, "{rest} bytes are left");
        assert!(tables_rest <= MIB, "{tables_rest} bytes of page tables are left");

        let gate = park(1000);
        assert_eq!(run().blocked, 1000);
        gate.close();
        assert_eq!(run().finished, 1000);
        assert!(pila::trim() >= 1000 * 4096);
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer has memory of its own")]
fn free_stacks_of_all_sizes_together_keep_128_mib() {
    in_its_own_process("free_stacks_of_all_sizes_together_keep_128_mib", || {
        park(1).close();
        run();
        let before = resident();
        for bits in (15..=28).rev() {
            // 256 MiB of each size, most of it touched.
            let gate = Channel::<()>::new();
            for _ in 0..(1 << 28 >> bits) {
                let gate = gate.clone();
                let fill = move || {
                    fill((1 << bits) - (16 << 10));
                    drop(gate.receive());
                };
                drop(Builder::new().stack_size(1 << bits).tasklet(fill).unwrap());
            }
            run();
            gate.close();
            run();
        }
        let kept = resident().saturating_sub(before);
        println!("{} MiB kept", kept >> 20);
        assert!(kept <= 128 << 20, "{kept} bytes are kept");
    });
}

#[test]
fn trim_leaves_those_in_use_alone() {
    let values = Channel::new();
    let tasklets: Vec<_> = (0..1000)
        .map(|number| {
            let values = values.clone();
            tasklet(move || {
                let kept = std::hint::black_box([number; 100]);
                let received: usize = values.receive().unwrap();
                assert!(kept.iter().all(|&kept| kept == number));
                received
            })
        })
        .collect();
    run();
    // Of every ten neighbours nine end.
    let mut left = Vec::new();
    for (number, tasklet) in tasklets.into_iter().enumerate() {
        match number % 10 {
            0 => left.push(tasklet),
            _ => tasklet.kill().unwrap(),
        }
    }
    assert!(pila::trim() >= 900 * 4096);
    assert_eq!(pila::trim(), 0);
    for number in 0..100 {
        values.send(number).unwrap();
    }
    let received: Vec<_> = left.into_iter().map(|tasklet| tasklet.join().unwrap()).collect();
    assert_eq!(received, (0..100).collect::<Vec<_>>());
    assert!(pila::trim() >= 100 * 4096);
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer has memory of its own")]
fn trim_leaves_nothing_where_a_neighbour_is_in_use() {
    in_its_own_process("trim_leaves_nothing_where_a_neighbour_is_in_use", || {
        let tasklets: Vec<_> = (0..4_000)
            .map(|_| {
                tasklet(|| {
                    fill(64 << 10);
                    schedule_remove();
                })
            })
            .collect();
        run();
        // Those of the first mapping come back last. Of every mapping one stays in use, so it is not unmapped.
        let (left, ended): (Vec<_>, Vec<_>) =
            tasklets.into_iter().enumerate().partition(|(number, _)| number % 60 == 0);
        for (_, tasklet) in ended.into_iter().rev() {
            tasklet.kill().unwrap();
        }
        assert!(pila::trim() > 8 << 20);
        assert_eq!(pila::trim(), 0);
        assert_eq!(left.len(), 67);
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "AddressSanitizer has memory of its own")]
fn deep_stacks_among_shallow_ones_are_given_back_too() {
    in_its_own_process("deep_stacks_among_shallow_ones_are_given_back_too", || {
        const GROUPS: usize = 9;
        const DEEP: usize = 94;
        park(1).close();
        run();
        let before = resident();
        let seed = Seed::new();
        let random = Random::new(seed.0);
        for _ in 0..4 {
            let shallow = 1 + random.below(120);
            let groups: Vec<_> = (0..GROUPS)
                .map(|_| {
                    let gate = Channel::<()>::new();
                    for _ in 0..DEEP {
                        let gate = gate.clone();
                        let deep = move || {
                            fill(900 << 10);
                            drop(gate.receive());
                        };
                        drop(Builder::new().stack_size(1 << 20).tasklet(deep).unwrap());
                    }
                    (gate, park(shallow))
                })
                .collect();
            park(random.below(100)).close();
            run();
            for (deep, shallow) in groups {
                deep.close();
                schedule();
                shallow.close();
                schedule();
            }
            run();
            let kept = resident().saturating_sub(before);
            println!("{} MiB kept, {shallow} shallow ones among {DEEP}", kept >> 20);
            assert!(kept <= 160 << 20, "{kept} bytes are kept");
        }
    });
}

#[test]
fn those_that_end_in_any_order_take_nothing_from_those_that_stay() {
    in_its_own_process("those_that_end_in_any_order_take_nothing_from_those_that_stay", || {
        let seed = Seed::new();
        let random = Random::new(seed.0);
        let hold = |number: usize| {
            tasklet(move || {
                let held = std::hint::black_box([number as u8; 48 << 10]);
                schedule_remove();
                assert!(held.iter().all(|&byte| byte == number as u8), "of tasklet {number}");
            })
        };
        let mut left: Vec<_> = (0..6_000).map(hold).collect();
        run();
        // In pairs and runs, and alone; some make room for others meanwhile.
        for number in 0..5_000 {
            left.swap_remove(random.below(left.len())).kill().unwrap();
            if random.once_in(10) {
                left.push(hold(number));
                schedule();
            }
        }
        #[cfg(not(feature = "sanitizer"))]
        assert!(resident() < left.len() * (64 << 10) + (160 << 20), "{} KiB", resident() >> 10);
        for tasklet in left {
            tasklet.insert().unwrap();
            tasklet.join().unwrap();
        }
    });
}

#[test]
fn a_trimmed_stack_keeps_its_guard() {
    if is_child() {
        let gate = park(100);
        schedule();
        let last = park(1);
        schedule();
        gate.close();
        // The last one keeps its mapping from being unmapped.
        assert_eq!(run().blocked, 1);
        assert!(pila::trim() > 0);
        overflow_in_the_second_of_three();
        drop(last);
        return;
    }
    for setup in ["", "PILA_STACK_GUARD=mprotect"] {
        let output = again("a_trimmed_stack_keeps_its_guard", setup);
        assert_overflow(&output);
    }
}

#[test]
fn the_guards_of_a_thread_that_ended_do_not_count() {
    if is_child() {
        for _ in 0..5 {
            let thread = pila::spawn_thread(|| {
                let gate = park(10_000);
                schedule();
                let parked = -gate.balance();
                gate.close();
                (parked, run().finished)
            });
            assert_eq!(thread.unwrap().join().unwrap(), (10_000, 10_000));
        }
        return;
    }
    let name = "the_guards_of_a_thread_that_ended_do_not_count";
    assert_success(&again(name, "PILA_STACK_GUARD=mprotect"));
}
