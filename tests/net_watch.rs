//! What waits for any descriptor promise: only the tasklet waits, for what is really there, and nothing is left behind.

use std::cell::Cell;
use std::fs::File;
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use net_support::{again_portably, bounded, pair};
use pila::net::{Watch, readable, writable};
use rustix::event::{EventfdFlags, eventfd};

mod net_support;

const SHORT: Duration = Duration::from_millis(20);

fn read_some(mut output: &PipeReader) -> usize {
    output.read(&mut [0; 16]).unwrap()
}

/// Fills a pipe to the last byte; how many it took.
fn fill(input: &PipeWriter) -> usize {
    rustix::io::ioctl_fionbio(input, true).unwrap();
    let (mut filled, mut input) = (0, input);
    while let Ok(count) = input.write(&[0; 4096]) {
        filled += count;
    }
    filled
}

#[test]
fn only_the_tasklet_waits() {
    bounded(|| {
        let (output, mut input) = pipe().unwrap();
        let reader = pila::tasklet(move || {
            readable(&output).unwrap();
            read_some(&output)
        });
        let turns = Rc::new(Cell::new(0));
        let counted = Rc::clone(&turns);
        pila::tasklet(move || {
            for _ in 0..100 {
                counted.set(counted.get() + 1);
                pila::schedule();
            }
            input.write_all(b"at last").unwrap();
        });
        assert_eq!(reader.join().unwrap(), 7);
        assert_eq!(turns.get(), 100);
    });
}

#[test]
fn what_is_ready_is_not_waited_for() {
    bounded(|| {
        let (output, mut input) = pipe().unwrap();
        input.write_all(b"x").unwrap();
        let main_waits = pila::no_switch();
        readable(&output).unwrap();
        writable(&input).unwrap();
        // Those that can never be waited on: a file, and what is always ready.
        for path in ["Cargo.toml", "/dev/null"] {
            let file = File::open(path).unwrap();
            readable(&file).unwrap();
            writable(&file).unwrap();
        }
        drop(main_waits);
    });
}

#[test]
fn the_end_is_readable_and_a_lost_reader_writable() {
    bounded(|| {
        let (output, input) = pipe().unwrap();
        let reader = pila::tasklet(move || {
            readable(&output).unwrap();
            read_some(&output)
        });
        pila::schedule();
        drop(input);
        assert_eq!(reader.join().unwrap(), 0);

        let (output, mut input) = pipe().unwrap();
        fill(&input);
        let writer = pila::tasklet(move || {
            writable(&input).unwrap();
            input.write(b"x").unwrap_err().kind()
        });
        pila::schedule();
        drop(output);
        assert_eq!(writer.join().unwrap(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_full_pipe_is_writable_when_it_has_room() {
    bounded(|| {
        let (output, input) = pipe().unwrap();
        let filled = fill(&input);
        let written = Rc::new(Cell::new(false));
        let theirs = Rc::clone(&written);
        let writer = pila::tasklet(move || {
            writable(&input).unwrap();
            theirs.set(true);
            (&input).write(b"x").unwrap()
        });
        pila::sleep(SHORT);
        assert!(!written.get());
        (&output).read_exact(&mut vec![0; filled / 2]).unwrap();
        assert_eq!(writer.join().unwrap(), 1);
    });
}

#[test]
fn all_who_wait_for_one_descriptor_are_served() {
    bounded(|| {
        for watched in [false, true] {
            let (output, mut input) = pipe().unwrap();
            rustix::io::ioctl_fionbio(&output, true).unwrap();
            let output = Rc::new(Watch::new(output));
            let readers = [(); 4].map(|()| {
                let output = Rc::clone(&output);
                pila::tasklet(move || {
                    loop {
                        match watched {
                            true => output.readable().unwrap(),
                            false => readable(&*output).unwrap(),
                        }
                        match output.get_ref().read_exact(&mut [0]) {
                            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                            done => return done.unwrap(),
                        }
                    }
                })
            });
            pila::schedule();
            for _ in 0..4 {
                input.write_all(b"x").unwrap();
                pila::sleep(Duration::from_millis(1));
            }
            for reader in readers {
                reader.join().unwrap();
            }
        }
    });
}

#[test]
fn a_socket_that_waits_itself_can_be_waited_for_too() {
    bounded(|| {
        let (client, mut server) = pair();
        let client = Rc::new(client);
        let parked = Rc::clone(&client);
        let reader = pila::tasklet(move || (&*parked).read(&mut [0; 8]).unwrap());
        pila::schedule();
        let parked = Rc::clone(&client);
        let watcher = pila::tasklet(move || readable(&*parked));
        let watch = Watch::new(Rc::clone(&client));
        let held = pila::tasklet(move || {
            watch.readable().unwrap();
            watch
        });
        pila::schedule();
        // Urgent data wakes whoever waits and is not for reading; the second piece is for whoever reads it.
        rustix::net::send(&server, b"!", rustix::net::SendFlags::OOB).unwrap();
        pila::schedule();
        server.write_all(b"x").unwrap();
        watcher.join().unwrap().unwrap();
        let watch = held.join().unwrap();
        assert_eq!(reader.join().unwrap(), 1);
        drop(watch);
        // The socket's own registration has outlived theirs.
        let reader = pila::tasklet(move || (&*client).read(&mut [0; 8]).unwrap());
        pila::schedule();
        server.write_all(b"yz").unwrap();
        assert_eq!(reader.join().unwrap(), 2);
    });
}

#[test]
fn what_another_took_is_waited_for_again() {
    bounded(|| {
        let (output, mut input) = pipe().unwrap();
        let output = Rc::new(output);
        let parked = Rc::clone(&output);
        let reader = pila::tasklet(move || {
            readable(&*parked).unwrap();
            read_some(&parked)
        });
        pila::schedule();
        input.write_all(b"for whoever is faster").unwrap();
        // The event is under way, and there is nothing left behind it.
        (&*output).read_exact(&mut [0; 21]).unwrap();
        pila::sleep(SHORT);
        assert!(reader.is_blocked());
        input.write_all(b"yours").unwrap();
        assert_eq!(reader.join().unwrap(), 5);
    });
}

#[test]
fn a_timeout_around_it_strikes_and_a_kill_ends_it() {
    bounded(|| {
        let (output, mut input) = pipe().unwrap();
        let watch = Watch::new(&output);
        let start = Instant::now();
        assert!(pila::timeout(SHORT, || readable(&output)).is_err());
        assert!(pila::timeout(SHORT, || watch.readable()).is_err());
        assert!(start.elapsed() >= 2 * SHORT);

        let output = Rc::new(output.try_clone().unwrap());
        let parked = Rc::clone(&output);
        let victim = pila::tasklet(move || readable(&*parked));
        pila::schedule();
        victim.kill().unwrap();
        assert!(matches!(victim.join(), Err(pila::JoinError::Killed)));
        // They have left no trace.
        let reader = pila::tasklet(move || readable(&*output));
        pila::schedule();
        input.write_all(b"x").unwrap();
        reader.join().unwrap().unwrap();
        watch.readable().unwrap();
    });
}

#[test]
fn calls_on_a_nonblocking_descriptor_are_made_until_they_do_something() {
    bounded(|| {
        let (output, input) = pipe().unwrap();
        let filled = fill(&input);
        rustix::io::ioctl_fionbio(&output, true).unwrap();
        let (output, input) = (Watch::new(output), Watch::new(input));
        let writer = pila::tasklet(move || {
            for _ in 0..100 {
                // All or nothing: a pipe does not split what is this short.
                input.write_with(|mut input| input.write(&[1; 4096])).unwrap();
            }
        });
        let mut received = 0;
        loop {
            match output.read_with(|mut output| output.read(&mut [0; 1000])).unwrap() {
                0 => break,
                count => received += count,
            }
        }
        assert_eq!(received, filled + 100 * 4096);
        writer.join().unwrap();
    });
}

#[test]
fn eventfds_timers_terminals_directories_and_processes_can_be_waited_for() {
    use rustix::fs::inotify;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };

    /// Waits in a tasklet until `happens` has made `descriptor` readable, which it was not before.
    fn becomes_readable(descriptor: OwnedFd, happens: impl FnOnce()) {
        let reader = pila::tasklet(move || readable(&descriptor));
        pila::sleep(Duration::from_millis(1));
        assert!(reader.is_blocked());
        happens();
        reader.join().unwrap().unwrap();
    }

    bounded(|| {
        let bell = eventfd(0, EventfdFlags::empty()).unwrap();
        let theirs = bell.try_clone().unwrap();
        becomes_readable(bell, || {
            rustix::io::write(&theirs, &1_u64.to_ne_bytes()).unwrap();
        });

        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::empty()).unwrap();
        let theirs = timer.try_clone().unwrap();
        becomes_readable(timer, || {
            let (soon, never) =
                (Timespec { tv_sec: 0, tv_nsec: 1 }, Timespec { tv_sec: 0, tv_nsec: 0 });
            let once = Itimerspec { it_interval: never, it_value: soon };
            timerfd_settime(&theirs, TimerfdTimerFlags::empty(), &once).unwrap();
        });

        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let user = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        becomes_readable(terminal, || (&user).write_all(b"typed\n").unwrap());

        let directory = std::env::temp_dir().join(format!("pila-watch-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let news = inotify::init(inotify::CreateFlags::empty()).unwrap();
        inotify::add_watch(&news, &directory, inotify::WatchFlags::CREATE).unwrap();
        becomes_readable(news, || drop(File::create(directory.join("new")).unwrap()));
        std::fs::remove_dir_all(&directory).unwrap();

        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("every system has cat");
        let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        becomes_readable(process, || drop(child.stdin.take()));
        assert!(child.try_wait().unwrap().unwrap().success());
    });
}

#[test]
fn tasklets_of_several_threads_wait_for_one_descriptor() {
    bounded(|| {
        let (output, mut input) = pipe().unwrap();
        let output = Arc::new(Watch::new(output));
        let threads = [(); 3].map(|()| {
            let output = Arc::clone(&output);
            thread::spawn(move || (output.readable(), readable(&*output)))
        });
        input.write_all(b"x").unwrap();
        for thread in threads {
            let (held, made) = thread.join().unwrap();
            held.and(made).unwrap();
        }
    });
}

#[test]
fn a_watch_gives_back_what_it_was_given() {
    let (output, _input) = pipe().unwrap();
    let number = output.as_raw_fd();
    let watch = Watch::new(output);
    assert_eq!((watch.as_raw_fd(), watch.as_fd().as_raw_fd()), (number, number));
    assert!(format!("{watch:?}").starts_with("Watch(PipeReader"));
    assert_eq!(watch.into_inner().as_raw_fd(), number);
}

#[test]
fn all_this_holds_portably() {
    again_portably();
}
