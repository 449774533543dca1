//! `timeout` and `shield`: what ends, when, by which of several, and what is not touched.

use std::{
    cell::{Cell, RefCell},
    error::Error,
    io::{self, Read},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    time::{Duration, Instant},
};

use pila::{
    Channel, Elapsed, JoinError, Killed, ReceiveError, Refused, TaskletError, Ticket, Waiting,
    current,
    driver::{self, Driver, VirtualClock},
    offload, park, run, schedule, schedule_callback, schedule_remove, scope, set_schedule_callback,
    shield, sleep, tasklet, timeout,
};

const SOON: Duration = Duration::from_millis(5);
const NEVER: Duration = Duration::from_secs(3600);

#[test]
fn a_timeout_ends_a_wait_and_not_early() {
    let start = Instant::now();
    let elapsed = timeout(SOON, || sleep(NEVER)).unwrap_err();
    assert!(start.elapsed() >= SOON && start.elapsed() < Duration::from_secs(5));
    assert_eq!(elapsed.limit(), SOON);
    assert_eq!(elapsed.place().file(), file!());
}

#[test]
fn what_returns_in_time_is_given() {
    assert_eq!(timeout(NEVER, || 42), Ok(42));
    assert_eq!(timeout(Duration::MAX, || sleep(SOON)), Ok(()));
    assert_eq!(run().finished, 0);
}

#[test]
fn a_limit_and_the_wait_inside_it_may_be_over_at_the_same_moment() {
    driver::install(Box::new(VirtualClock::new())).unwrap();
    assert_eq!(timeout(SOON, || sleep(SOON)).unwrap_err().limit(), SOON);
    // Nor is a deadline taken away from somebody else.
    let other = tasklet(|| sleep(2 * SOON));
    let both = tasklet(|| timeout(SOON, || timeout(SOON, || sleep(SOON))).unwrap_err().limit());
    assert_eq!(both.join().unwrap(), SOON);
    other.join().unwrap();
    assert_eq!(run().blocked, 0);
}

#[test]
fn nested_timeouts_keep_the_earliest_and_say_which() {
    let inner_first = timeout(NEVER, || timeout(SOON, || sleep(NEVER)));
    assert_eq!(inner_first.unwrap().unwrap_err().limit(), SOON);
    let outer_first = timeout(SOON, || timeout(NEVER, || sleep(NEVER)));
    assert_eq!(outer_first.unwrap_err().limit(), SOON);
    // Both have passed when the loop looks: the outer one ends the inner one too.
    let both = timeout(SOON, || {
        let inner = timeout(SOON / 2, || {
            std::thread::yield_now();
            let busy = Instant::now();
            while busy.elapsed() < SOON * 2 {}
            sleep(NEVER);
        });
        panic!("the inner one was told: {inner:?}");
    });
    assert_eq!(both.unwrap_err().limit(), SOON);
}

#[test]
fn the_outer_one_goes_on_after_the_inner_one_has_struck() {
    let outer = timeout(SOON * 3, || {
        timeout(SOON, || sleep(NEVER)).unwrap_err();
        sleep(NEVER);
    });
    assert_eq!(outer.unwrap_err().limit(), SOON * 3);
}

/// A clock that a test puts forward, and every wait by as long as it lasts.
#[derive(Clone, Debug)]
struct Clock(Rc<Cell<Instant>>);

impl Clock {
    fn install() -> Clock {
        let clock = Clock(Rc::new(Cell::new(Instant::now())));
        driver::install(Box::new(clock.clone())).unwrap();
        clock
    }

    fn forward(&self, duration: Duration) {
        self.0.set(self.0.get() + duration);
    }
}

impl Driver for Clock {
    fn now(&self) -> Instant {
        self.0.get()
    }

    fn wait(&mut self, timeout: Option<Duration>, _: &mut Vec<Ticket>) -> io::Result<()> {
        self.forward(timeout.expect("somebody waits for a time"));
        Ok(())
    }
}

#[test]
fn what_a_wait_has_brought_is_not_lost() {
    let clock = Clock::install();
    let channel = Channel::with_capacity(1);
    let theirs = channel.clone();
    tasklet(move || {
        sleep(SOON);
        theirs.send("in time").unwrap();
        // The deadline passes while the receiver is in the run queue.
        clock.forward(SOON * 2);
    });
    let got = Cell::new(None);
    let ended = timeout(SOON * 2, || {
        got.set(channel.receive().ok());
        sleep(NEVER);
    });
    assert!(ended.is_err());
    assert_eq!(got.get(), Some("in time"));
}

#[test]
fn one_that_only_yields_is_ended() {
    tasklet(|| {
        let ended = timeout(SOON, || {
            loop {
                schedule();
            }
        });
        let Err(elapsed) = ended;
        assert_eq!(elapsed.limit(), SOON);
    })
    .join()
    .unwrap();
}

#[test]
fn one_that_is_paused_is_ended() {
    let paused = tasklet(|| timeout(SOON, schedule_remove).is_err());
    assert!(paused.join().unwrap());
    // And nothing waits for a deadline that nobody needs.
    assert_eq!(timeout(NEVER, run).unwrap().finished, 0);
}

#[test]
fn after_the_strike_every_call_inside_is_refused() {
    let tasklet = tasklet(|| {
        let (refused, source, ran) = (Cell::new(None), Cell::new(None), Cell::new(0));
        let value = timeout(SOON, || {
            let _ = catch_unwind(AssertUnwindSafe(|| sleep(NEVER)));
            refused.set(Channel::<()>::new().receive().err());
            sleep(NEVER);
            schedule();
            ran.set(offload(|| 42).unwrap());
            source
                .set(io::Error::from(park::begin().unwrap_err()).source().map(ToString::to_string));
            "kept"
        });
        assert_eq!(value, Ok("kept"));
        let refused = refused.take();
        assert!(
            matches!(refused, Some(ReceiveError::Refused(Refused::Elapsed(e))) if e.limit() == SOON)
        );
        assert_eq!(ran.get(), 42);
        assert!(source.take().unwrap().starts_with("the timeout of 5ms set at"));
        // Outside of it all is as before.
        assert!(park::begin().is_ok());
        sleep(Duration::from_millis(1));
    });
    tasklet.join().unwrap();
}

#[test]
fn a_timeout_as_an_io_error_is_timed_out() {
    fn fails() -> io::Result<()> {
        timeout(SOON, || sleep(NEVER))?;
        Ok(())
    }
    let error = fails().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(error.get_ref().unwrap().is::<Elapsed>());
}

#[test]
fn a_read_inside_a_timeout_is_ended_and_the_socket_lives_on() {
    let listener = pila::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = pila::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    assert!(timeout(SOON, || server.read(&mut [0; 8])).is_err());
    let source = timeout(SOON, || {
        let _ = catch_unwind(AssertUnwindSafe(|| server.read(&mut [0; 8])));
        server.read(&mut [0; 8])
    });
    let error = source.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Other);
    assert!(error.source().unwrap().is::<Elapsed>());
    io::Write::write_all(&mut client, b"late").unwrap();
    let mut buffer = [0; 4];
    server.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"late");
}

#[test]
fn a_shield_puts_off_a_kill_and_a_timeout() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let theirs = log.clone();
    let tasklet = tasklet(move || {
        let ended = timeout(SOON, || {
            shield(|| sleep(SOON * 3));
            theirs.borrow_mut().push("shielded from the timeout");
            sleep(NEVER);
        });
        assert!(ended.is_err());
        shield(|| sleep(SOON * 3));
        theirs.borrow_mut().push("shielded from the kill");
        sleep(NEVER);
    });
    sleep(SOON * 4);
    assert!(matches!(tasklet.kill(), Err(TaskletError::Pending(_))));
    assert!(matches!(tasklet.kill(), Err(TaskletError::Pending(_))));
    assert!(matches!(tasklet.join(), Err(JoinError::Killed)));
    assert_eq!(*log.borrow(), ["shielded from the timeout", "shielded from the kill"]);
}

#[test]
fn a_killed_tasklet_may_wait_in_a_shield_for_its_clean_up() {
    let done = Rc::new(Cell::new(false));
    let theirs = done.clone();
    let tasklet = tasklet(move || {
        let ended = catch_unwind(|| sleep(NEVER));
        let refused = io::Error::from(park::begin().unwrap_err());
        assert!(refused.source().unwrap().is::<Killed>());
        shield(|| {
            sleep(SOON);
            assert!(timeout(SOON, || sleep(NEVER)).is_err());
            theirs.set(true);
        });
        assert!(matches!(park::check(), Err(Refused::Killed)));
        std::panic::resume_unwind(ended.unwrap_err());
    });
    schedule();
    assert!(matches!(tasklet.kill(), Err(TaskletError::StillAlive(_))));
    assert!(matches!(tasklet.join(), Err(JoinError::Killed)));
    assert!(done.get());
}

#[test]
fn a_shielded_tasklet_that_kills_itself_goes_on_to_its_next_wait() {
    let steps = Rc::new(Cell::new(0));
    let theirs = steps.clone();
    let tasklet = tasklet(move || {
        shield(|| assert!(matches!(current().kill(), Err(TaskletError::Pending(_)))));
        theirs.set(1);
        schedule();
        theirs.set(2);
    });
    assert!(matches!(tasklet.join(), Err(JoinError::Killed)));
    assert_eq!(steps.get(), 1);
}

#[test]
fn a_hundred_thousand_timeouts_leave_nothing_behind() {
    /// Notes for how long it is to wait at most when somebody waits for its ticket, which it hands back.
    #[derive(Clone, Default, Debug)]
    struct Asked {
        ticket: Rc<Cell<Option<Ticket>>>,
        timeout: Rc<Cell<Option<Duration>>>,
    }
    impl Driver for Asked {
        fn wait(&mut self, timeout: Option<Duration>, woken: &mut Vec<Ticket>) -> io::Result<()> {
            if let Some(ticket) = self.ticket.take() {
                self.timeout.set(timeout);
                woken.push(ticket);
            }
            Ok(())
        }
    }
    let asked = Asked::default();
    driver::install(Box::new(asked.clone())).unwrap();
    let wait = || {
        let ticket = park::begin().unwrap();
        asked.ticket.set(Some(ticket));
        park::wait(ticket, Waiting::Outside, None).unwrap();
        asked.timeout.take()
    };
    let with_one = timeout(NEVER, wait).unwrap();
    assert!(with_one.is_some_and(|left| left <= NEVER), "{with_one:?}");
    // To unwind takes the sanitizer a hundred times as long.
    for _ in 0..if cfg!(feature = "sanitizer") { 5_000 } else { 100_000 } {
        timeout(NEVER, || ()).unwrap();
        timeout(Duration::from_nanos(1), || sleep(NEVER)).unwrap_err();
    }
    assert_eq!(wait(), None, "a deadline is left over");
}

/// Leaves a tasklet that panics when main, which calls `body` then, has just been struck by a timeout of `SOON`.
fn panic_as_main_is_struck(body: impl FnOnce()) -> Box<dyn std::any::Any + Send> {
    driver::install(Box::new(VirtualClock::new())).unwrap();
    tasklet(|| {
        sleep(SOON);
        resume_unwind(Box::new("in between"));
    });
    schedule();
    catch_unwind(AssertUnwindSafe(body)).unwrap_err()
}

#[test]
fn a_panic_that_comes_before_main_can_unwind_leaves_nothing_to_be_raised_later() {
    let panic = panic_as_main_is_struck(|| _ = timeout(SOON, || sleep(NEVER)));
    assert_eq!(panic.downcast_ref(), Some(&"in between"));
    schedule();
    sleep(SOON);
}

#[test]
fn a_panic_that_comes_before_main_can_unwind_ends_the_scope_it_waits_in() {
    let ended = Cell::new(false);
    let panic = panic_as_main_is_struck(|| {
        let body = || {
            scope(|s| {
                s.tasklet(|| {
                    let _ended = OnDrop(|| ended.set(true));
                    sleep(NEVER);
                });
            });
        };
        let _ = timeout(SOON, body);
    });
    assert_eq!(panic.downcast_ref(), Some(&"in between"));
    assert!(ended.get());
    sleep(SOON);
}

/// Calls its function when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn a_callback_that_sends_does_not_stand_in_the_way_of_a_strike() {
    let switches = Channel::with_capacity(1_000_000);
    set_schedule_callback(Some(Rc::new(move |_, to| drop(switches.send(to.id())))));
    // The strike finds it in the run queue, so whoever asks first is told.
    let yields = || {
        timeout(SOON, || {
            loop {
                schedule();
            }
        })
    };
    let ended = tasklet(yields);
    let other = tasklet(yields);
    assert!(ended.join().unwrap().is_err() && other.join().unwrap().is_err());
    assert!(schedule_callback().is_some());
}

#[test]
fn what_one_that_was_removed_has_been_handed_is_not_lost() {
    let channel = Channel::new();
    channel.set_preference(pila::Preference::Neither);
    let (theirs, got) = (channel.clone(), Rc::new(Cell::new(0)));
    let place = got.clone();
    let receiver = tasklet(move || {
        timeout(SOON, || {
            place.set(theirs.receive().unwrap());
            sleep(NEVER);
        })
    });
    schedule();
    channel.send(7).unwrap();
    receiver.remove().unwrap();
    assert!(receiver.is_paused());
    assert!(receiver.join().unwrap().is_err());
    assert_eq!(got.get(), 7);
}

#[test]
fn one_that_pauses_itself_is_ended_whatever_the_call() {
    let switches = tasklet(|| timeout(SOON, || tasklet(schedule_remove).switch()).is_err());
    let runs = tasklet(|| {
        tasklet(|| sleep(NEVER));
        timeout(SOON, run).is_err()
    });
    assert!(switches.join().unwrap() && runs.join().unwrap());
}

#[test]
fn a_timeout_that_passes_together_with_the_wait_inside_of_it_ends_it_and_no_other() {
    driver::install(Box::new(VirtualClock::new())).unwrap();
    let both = tasklet(|| timeout(SOON, || sleep(SOON)));
    let others = [1, 2, 3].map(|times| tasklet(move || sleep(SOON * times)));
    assert!(both.join().unwrap().is_err());
    for other in others {
        other.join().unwrap();
    }
    assert_eq!(run().blocked, 0);
}
