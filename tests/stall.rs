//! The stall watch: who does not switch is named, who does or waits is not, and nobody is disturbed.

#![allow(clippy::disallowed_methods, reason = "a stall is what is tested")]

mod live;

use std::{
    hint::black_box,
    io::{self, Read, Write},
    panic::catch_unwind,
    process::Command,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use live::{Started, command, errors, is_child};
use pila::{Builder, Channel, run, schedule, sleep, tasklet, watch_stalls};
use rustix::time::{ClockId, clock_gettime};

const MILLISECOND: Duration = Duration::from_millis(1);

/// The test `name` in a process of its own, under a watch with a limit of 50 ms.
fn watched(name: &str) -> Command {
    let mut command = command(name);
    command.env("PILA_STALL_MS", "50");
    command
}

/// What it prints to standard error.
#[track_caller]
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:#?}");
    errors(&output)
}

/// What it prints until there are so many reports and it was let go on.
#[track_caller]
fn printed_with(count: usize, mut command: Command) -> String {
    let mut child = Started::new(&mut command);
    for _ in 0..count {
        child.wait_for(|line| line.contains("has not switched for"));
        // The names follow when they are found.
        child.wait_for(|line| line.starts_with("   0: "));
    }
    child.finish().join("\n") + "\n"
}

/// Waits until the parent lets it go on: names may take a while to be found.
fn linger() {
    pila::offload(|| io::stdin().read_to_end(&mut Vec::new()).ok()).unwrap();
}

/// The first lines of the reports in `errors`, each with the milliseconds that it tells.
#[track_caller]
fn reports(errors: &str) -> Vec<(String, u64)> {
    let is_first = |line: &&str| line.contains("has not switched for");
    let split = |line: &str| {
        let (who, rest) = line.split_once(" has not switched for ").unwrap();
        let (lasts, end) = rest.split_once(" ms").unwrap();
        assert_eq!(end, ", at:", "{errors}");
        (who.to_owned(), lasts.parse().unwrap())
    };
    errors.lines().filter(is_first).map(split).collect()
}

#[inline(never)]
fn compute(time: Duration) -> u64 {
    let (begun, mut sum) = (Instant::now(), 0_u64);
    while begun.elapsed() < time {
        sum = black_box((0..100_000).fold(sum, |sum, number| sum ^ black_box(number)));
    }
    sum
}

#[test]
fn one_that_computes_is_reported_with_its_calls() {
    const NAME: &str = "one_that_computes_is_reported_with_its_calls";
    let line = line!() + 3;
    if is_child() {
        let calculates = Builder::new().name("calculates");
        let calculates = calculates.tasklet(|| compute(300 * MILLISECOND));
        calculates.unwrap().join().unwrap();
        return linger();
    }
    let errors = printed_with(1, watched(NAME));
    let reports = reports(&errors);
    assert_eq!(reports.len(), 1, "{errors}");
    let (who, lasts) = &reports[0];
    let file = file!();
    let origin = format!("created at {file}:{line}:37");
    assert_eq!(*who, format!("tasklet 'calculates' (#1, {origin}) of thread '{NAME}'"));
    assert!(*lasts >= 50, "{errors}");
    let lines: Vec<_> = errors.lines().collect();
    let place = lines.iter().position(|line| line.ends_with(": stall::compute")).unwrap();
    assert!(lines[place + 1].starts_with(&format!("             at {file}:")), "{errors}");
    assert!(lines[place + 2].contains(&format!(": stall::{NAME}::{{")), "{errors}");
    assert_eq!(lines[place + 3], format!("             at {file}:{line}:48"));
    assert_eq!(lines.len(), place + 4, "what starts a tasklet is left out: {errors}");
}

#[test]
fn one_that_is_the_last_of_its_process_is_reported_before_its_calls_have_names() {
    const NAME: &str =
        "one_that_is_the_last_of_its_process_is_reported_before_its_calls_have_names";
    if is_child() {
        tasklet(|| compute(300 * MILLISECOND)).join().unwrap();
        return;
    }
    let errors = printed(&mut watched(NAME));
    assert_eq!(reports(&errors).len(), 1, "{errors}");
}

#[test]
fn one_that_blocks_the_thread_is_reported_and_goes_on_as_before() {
    const NAME: &str = "one_that_blocks_the_thread_is_reported_and_goes_on_as_before";
    if is_child() {
        let begun = Instant::now();
        tasklet(|| thread::sleep(300 * MILLISECOND)).join().unwrap();
        assert!(begun.elapsed() >= 300 * MILLISECOND);
        // A read that is interrupted is begun again.
        let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let other = thread::spawn(move || {
            thread::sleep(300 * MILLISECOND);
            theirs.write_all(b"x").unwrap();
        });
        tasklet(move || assert_eq!(ours.read(&mut [0]).unwrap(), 1)).join().unwrap();
        other.join().unwrap();
        return linger();
    }
    let errors = printed_with(2, watched(NAME));
    let reports = reports(&errors);
    assert_eq!(reports.len(), 2, "{errors}");
    assert!(reports[0].0.starts_with("tasklet #1 (created at tests/stall.rs:"), "{errors}");
    assert!(reports[1].0.starts_with("tasklet #2 (created at tests/stall.rs:"), "{errors}");
    assert!(errors.contains("sleep\n"), "{errors}");
}

#[test]
fn one_that_never_ends_is_reported_again_when_it_lasts_ten_times_as_long() {
    const NAME: &str = "one_that_never_ends_is_reported_again_when_it_lasts_ten_times_as_long";
    if is_child() {
        watch_stalls(20 * MILLISECOND).unwrap();
        tasklet(|| compute(900 * MILLISECOND)).join().unwrap();
        return linger();
    }
    let errors = printed_with(2, command(NAME));
    let lasts: Vec<_> = reports(&errors).into_iter().map(|(_, lasts)| lasts).collect();
    assert_eq!(lasts.len(), 2, "{errors}");
    assert!(lasts[1] >= 10 * lasts[0], "{errors}");
}

#[test]
fn who_switches_or_waits_is_not_reported() {
    if is_child() {
        // An idle thread, first with the driver that every thread starts with.
        tasklet(|| sleep(700 * MILLISECOND)).join().unwrap();
        // With sockets, and a peer on another thread that is idle as well.
        let listener = pila::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let peer = pila::spawn_thread(move || {
            sleep(700 * MILLISECOND);
            drop(pila::net::TcpStream::connect(address).unwrap());
        });
        tasklet(move || listener.accept().is_ok()).join().unwrap();
        peer.unwrap().join().unwrap();
        // Turns that are short enough, by one, by several, and by main.
        let begun = Instant::now();
        for _ in 0..3 {
            tasklet(move || {
                while begun.elapsed() < 1000 * MILLISECOND {
                    compute(2 * MILLISECOND);
                    schedule();
                }
            });
        }
        while pila::run_count() > 1 {
            compute(2 * MILLISECOND);
            schedule();
        }
        // An hour of virtual time, or what is left to wait for, is none.
        thread::spawn(|| {
            let clock = pila::driver::VirtualClock::new();
            pila::driver::install(Box::new(clock)).unwrap();
            sleep(Duration::from_secs(3600));
        })
        .join()
        .unwrap();
        return;
    }
    let mut command = command("who_switches_or_waits_is_not_reported");
    // So much that a machine that is busy with other things does not matter.
    assert_eq!(printed(command.env("PILA_STALL_MS", "300")), "");
}

#[test]
fn main_is_reported_only_while_it_holds_others_up() {
    if is_child() {
        // Nobody is there, or nobody who could go on.
        compute(200 * MILLISECOND);
        tasklet(|| drop(Channel::<()>::new().receive()));
        schedule();
        compute(200 * MILLISECOND);
        eprintln!("now");
        tasklet(|| ());
        // It is seldom looked at by then.
        compute(1500 * MILLISECOND);
        return linger();
    }
    let errors = printed_with(1, watched("main_is_reported_only_while_it_holds_others_up"));
    let (before, after) = errors.split_once("now\n").unwrap();
    assert_eq!(before, "");
    let is_of_main = |who: &String| who.starts_with("tasklet 'main' (#0) of thread '");
    assert!(reports(after).iter().all(|(who, _)| is_of_main(who)), "{errors}");
}

#[test]
fn five_are_reported_in_a_minute() {
    if is_child() {
        watch_stalls(10 * MILLISECOND).unwrap();
        for _ in 0..40 {
            tasklet(|| compute(40 * MILLISECOND)).join().unwrap();
        }
        return linger();
    }
    let errors = printed_with(5, command("five_are_reported_in_a_minute"));
    assert_eq!(reports(&errors).len(), 5, "{errors}");
}

#[test]
fn another_call_changes_the_limit() {
    if is_child() {
        watch_stalls(Duration::MAX).unwrap();
        tasklet(|| compute(100 * MILLISECOND)).join().unwrap();
        watch_stalls(20 * MILLISECOND).unwrap();
        tasklet(|| compute(100 * MILLISECOND)).join().unwrap();
        watch_stalls(Duration::MAX).unwrap();
        tasklet(|| compute(100 * MILLISECOND)).join().unwrap();
        return linger();
    }
    let errors = printed_with(1, command("another_call_changes_the_limit"));
    let reports = reports(&errors);
    assert_eq!(reports.len(), 1, "{errors}");
    assert!(reports[0].0.starts_with("tasklet #2 "), "{errors}");
}

#[test]
fn a_number_that_is_none_is_told_and_changes_nothing() {
    if is_child() {
        tasklet(|| compute(100 * MILLISECOND)).join().unwrap();
        return;
    }
    for number in ["soon", "0", ""] {
        let mut command = command("a_number_that_is_none_is_told_and_changes_nothing");
        command.env("PILA_STALL_MS", number);
        let says = "pila: no watch for stalls: \
                    PILA_STALL_MS is to be a number of milliseconds, as 50\n";
        assert_eq!(printed(&mut command), says);
    }
}

#[test]
fn other_uses_of_the_signal_go_on() {
    if is_child() {
        let mine = Arc::new(AtomicUsize::new(0));
        let theirs = mine.clone();
        signal_hook::flag::register_usize(signal_hook::consts::SIGURG, theirs, 7).unwrap();
        watch_stalls(5 * MILLISECOND).unwrap();
        tasklet(|| compute(100 * MILLISECOND)).join().unwrap();
        assert_eq!(mine.load(Ordering::Relaxed), 0, "the watch's are its own");
        signal_hook::low_level::raise(signal_hook::consts::SIGURG).unwrap();
        assert_eq!(mine.load(Ordering::Relaxed), 7);
        return;
    }
    printed(&mut command("other_uses_of_the_signal_go_on"));
}

/// Switches, waits, unwinds, allocates, starts and ends tasklets and threads, for some time.
fn bustle(time: Duration) -> u64 {
    let begun = Instant::now();
    let rounds = Rc::new(std::cell::Cell::new(0));
    for number in 0..20_u64 {
        let rounds = rounds.clone();
        tasklet(move || {
            while begun.elapsed() < time {
                rounds.set(rounds.get() + 1);
                match number % 5 {
                    0 => schedule(),
                    1 => sleep(Duration::from_micros(50)),
                    2 => assert_eq!(tasklet(|| vec![7; 1000].len()).join().unwrap(), 1000),
                    3 => drop(catch_unwind(|| std::panic::resume_unwind(Box::new("caught")))),
                    _ => drop(tasklet(schedule).kill()),
                }
                schedule();
            }
        });
    }
    run();
    rounds.get()
}

#[test]
fn a_storm_of_its_signals_changes_nothing() {
    if is_child() {
        // Looks twice a millisecond.
        watch_stalls(MILLISECOND).unwrap();
        let others = [(); 3].map(|()| pila::spawn_thread(|| bustle(700 * MILLISECOND)).unwrap());
        assert!(bustle(700 * MILLISECOND) > 100);
        for other in others {
            assert!(other.join().unwrap() > 100);
        }
        return;
    }
    printed(&mut command("a_storm_of_its_signals_changes_nothing"));
}

/// The processor time that this thread has used.
fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// The processor time of so many switches between four tasklets.
fn switch(rounds: u32) -> Duration {
    let before = cpu();
    let tasklets = [(); 4].map(|()| tasklet(move || (0..rounds).for_each(|_| schedule())));
    tasklets.into_iter().for_each(|tasklet| tasklet.join().unwrap());
    cpu() - before
}

/// A watch with a limit of 50 ms sends 40 signals a second. One with a limit of 1 ms sends 50 times as many, and so costs
/// 50 times as much: a part of the time that can be measured beside that of other processes.
#[test]
fn it_costs_less_than_a_hundredth_of_the_time_of_a_thread_that_switches() {
    const NAME: &str = "it_costs_less_than_a_hundredth_of_the_time_of_a_thread_that_switches";
    if !is_child() {
        let errors = printed(&mut command(NAME));
        let figures = errors.lines().find(|line| line.starts_with("the watch takes")).unwrap();
        writeln!(io::stderr(), "{figures}").unwrap();
        return;
    }
    let slice = 20 * MILLISECOND;
    let mut rounds = 1000;
    while switch(rounds) < slice {
        rounds *= 2;
    }
    let mut ratios = [0.0; 41].map(|_: f64| {
        watch_stalls(MILLISECOND).unwrap();
        let watched = switch(rounds);
        watch_stalls(Duration::MAX).unwrap();
        watched.as_secs_f64() / switch(rounds).as_secs_f64()
    });
    ratios.sort_by(f64::total_cmp);
    let part = (ratios[20] - 1.0) * 100.0;
    eprintln!(
        "the watch takes {part:.2} % of the time with a limit of 1 ms, a fiftieth with 50 ms"
    );
    assert!(part < 50.0, "{part} % is a fiftieth of more than one: {ratios:?}");
}

#[test]
fn threads_that_end_are_forgotten() {
    if is_child() {
        watch_stalls(MILLISECOND).unwrap();
        for _ in 0..200 {
            pila::spawn_thread(|| tasklet(|| ()).join().unwrap()).unwrap().join().unwrap();
        }
        tasklet(|| io::stderr().write_all(b"done\n").unwrap()).join().unwrap();
        return;
    }
    let errors = printed(&mut command("threads_that_end_are_forgotten"));
    assert!(errors.ends_with("done\n"), "{errors}");
}
