//! Code of the user that the runtime calls, at moments of its own: drivers, callbacks, hooks, iterators, errors. Whatever it
//! calls back is done or refused, and nobody is harmed.

use std::{
    cell::{Cell, RefCell},
    error::Error,
    fmt, io,
    panic::{self, AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use pila::{
    Channel, Handle, Select, Tasklet, Ticket, Waiting, current,
    driver::{self, Driver},
    dump, leftovers, offload, on_big_stack, park, run, schedule, schedule_remove, scope,
    set_channel_callback, set_schedule_callback, shield, sleep, tasklet, timeout, trim,
};

use crate::{again, ground::Ground, is_child};

const MILLISECOND: Duration = Duration::from_millis(1);

/// Calls all that may wait, switch, make or end tasklets. What is refused is refused with an error or a panic.
fn meddle() {
    let ground = Ground::new();
    let deeds: [&dyn Fn(); 15] = [
        &|| drop(tasklet(|| ())),
        &schedule,
        &|| {
            let made = tasklet(|| sleep(MILLISECOND));
            let _ = made.run();
            let _ = made.kill();
        },
        &|| _ = run(),
        &|| {
            scope(|s| {
                let own = ground.borrower();
                s.tasklet(move || {
                    own.touch();
                    schedule();
                    own.touch();
                });
                s.bind(|| ground.touch());
            })
        },
        &|| _ = timeout(MILLISECOND / 10, || sleep(MILLISECOND)),
        &|| shield(|| sleep(MILLISECOND / 10)),
        &|| drop(dump().to_string()),
        &|| drop(leftovers().to_string()),
        &|| _ = trim(),
        &|| _ = offload(|| 7),
        &|| {
            let channel = Channel::new();
            let theirs = channel.clone();
            tasklet(move || theirs.send(ground_free()));
            let _ = channel.receive_timeout(MILLISECOND);
            Select::new().receive(&channel, |_| ()).after(MILLISECOND / 10, || ()).wait();
            channel.close();
        },
        &|| _ = on_big_stack(|| tasklet(|| ()).join().is_ok()),
        &|| drop(tasklet(|| catch_unwind(|| resume_unwind(Box::new("a panic")))).join()),
        &|| _ = Tasklet::bind(|| unreachable!()).kill(),
    ];
    for deed in deeds {
        let _ = catch_unwind(AssertUnwindSafe(deed));
    }
    assert_eq!(ground.borrowers().1, 0, "something of a scope was left");
}

fn ground_free() -> Vec<u8> {
    vec![7; 100]
}

/// Tasklets of every kind, with the values that they must come to whatever happens meanwhile.
fn work() -> Vec<Tasklet<u64>> {
    let numbers = Channel::new();
    (0..20_u64)
        .map(|number| {
            let numbers = numbers.clone();
            tasklet(move || {
                let own = Box::new(number);
                for _ in 0..5 {
                    schedule();
                    sleep(MILLISECOND / 10);
                    if number % 2 == 0 {
                        numbers.send(*own).unwrap();
                    } else {
                        numbers.receive().unwrap();
                    }
                }
                *own
            })
        })
        .collect()
}

#[track_caller]
fn assert_done(work: Vec<Tasklet<u64>>) {
    for (number, tasklet) in work.into_iter().enumerate() {
        assert_eq!(tasklet.join().unwrap(), number as u64);
    }
}

/// Meddles once in so many calls, and not while it does.
#[derive(Debug, Default)]
struct Meddler {
    calls: Cell<u32>,
    is_at_it: Cell<bool>,
}

impl Meddler {
    fn called(&self) {
        self.calls.set(self.calls.get() + 1);
        if self.calls.get() < 60 && self.calls.get() % 7 == 3 && !self.is_at_it.replace(true) {
            meddle();
            self.is_at_it.set(false);
        }
    }
}

#[test]
fn a_driver_may_call_what_neither_waits_nor_yields() {
    /// Calls back whatever it is asked.
    #[derive(Debug)]
    struct Calling(Rc<Cell<u32>>);
    impl Calling {
        fn called(&self) {
            let calls = self.0.get();
            self.0.set(calls + 1);
            if calls < 60 && calls % 7 == 3 {
                let made = tasklet(|| drop(Box::new(7)));
                assert!(made.is_alive() && !made.is_current());
                Tasklet::bind(|| unreachable!()).kill_later().unwrap();
                assert!(Channel::<()>::new().try_receive().is_err());
                let _ = (dump().to_string(), leftovers().to_string(), trim(), pila::run_count());
            }
        }
    }
    impl Driver for Calling {
        fn now(&self) -> Instant {
            self.called();
            Instant::now()
        }
        fn wait(&mut self, _: Option<Duration>, _: &mut Vec<Ticket>) -> io::Result<()> {
            self.called();
            Ok(())
        }
    }
    let done = thread::spawn(|| {
        let calls = Rc::new(Cell::new(0));
        driver::install(Box::new(Calling(calls.clone()))).unwrap();
        assert_done(work());
        run();
        calls.get()
    });
    assert!(done.join().unwrap() > 60);
}

#[test]
fn a_driver_may_hand_back_tickets_of_anyone() {
    /// Wakes whoever it has ever heard of, and those of another thread.
    #[derive(Debug)]
    struct Waking(Rc<RefCell<Vec<Ticket>>>);
    impl Driver for Waking {
        fn wait(&mut self, _: Option<Duration>, woken: &mut Vec<Ticket>) -> io::Result<()> {
            woken.extend(self.0.borrow().iter());
            woken.extend(self.0.borrow().iter().rev());
            Ok(())
        }
    }
    // Slots that this thread has not, and numbers that are yet to come.
    let foreign = thread::spawn(|| {
        let begin = || tasklet(|| park::begin().unwrap());
        let tasklets: Vec<_> = (0..1000).map(|_| begin()).collect();
        tasklets.into_iter().map(|tasklet| tasklet.join().unwrap()).collect::<Vec<_>>()
    });
    let tickets = Rc::new(RefCell::new(foreign.join().unwrap()));
    thread::scope(|s| {
        let foreign = tickets.borrow().clone();
        s.spawn(move || {
            let tickets = Rc::new(RefCell::new(foreign));
            driver::install(Box::new(Waking(tickets.clone()))).unwrap();
            let woken = Rc::new(Cell::new(0));
            for _ in 0..50 {
                let (tickets, woken) = (tickets.clone(), woken.clone());
                tasklet(move || {
                    for _ in 0..10 {
                        let ticket = park::begin().unwrap();
                        tickets.borrow_mut().push(ticket);
                        park::wait(ticket, Waiting::Outside, None).unwrap();
                        woken.set(woken.get() + 1);
                    }
                });
            }
            assert_done(work());
            assert_eq!((run().blocked, woken.get()), (0, 500));
        });
    });
}

#[test]
fn callbacks_may_call_anything() {
    let meddler = Rc::new(Meddler::default());
    let (switches, messages) = (meddler.clone(), meddler.clone());
    set_schedule_callback(Some(Rc::new(move |_, _| switches.called())));
    set_channel_callback(Some(Rc::new(move |_| messages.called())));
    assert_done(work());
    set_schedule_callback(None);
    set_channel_callback(None);
    assert!(meddler.calls.get() > 100);
    run();
}

#[test]
fn a_panic_hook_may_call_anything() {
    if !is_child() {
        let output = again("callers::a_panic_hook_may_call_anything");
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload_as_str() != Some("looked at") {
            print(info);
        }
        thread_local!(static AT_IT: Cell<bool> = const { Cell::new(false) });
        if !AT_IT.replace(true) {
            // Nothing in here may panic: that would be a panic while panicking. So these are calls that have a result, or
            // return at once.
            schedule();
            sleep(MILLISECOND);
            let made = tasklet(|| ());
            let _ = (made.run(), made.kill(), run(), trim(), offload(|| 7));
            let _ = (dump().to_string(), leftovers().to_string());
            assert!(Channel::<()>::new().receive().is_err());
            scope(|s| assert!(!s.tasklet(|| unreachable!()).is_alive()));
            AT_IT.set(false);
        }
    }));
    let all = work();
    for _ in 0..10 {
        let panics = tasklet(|| {
            schedule();
            panic!("looked at");
        });
        assert!(panics.join().is_err());
    }
    assert_done(all);
}

#[test]
fn an_iterator_of_messages_may_end_its_sender_and_close_the_channel() {
    /// Does its deed before the third value.
    fn values(deed: impl Fn()) -> impl Iterator<Item = Box<u32>> {
        (0..5).map(Box::new).inspect(move |value| {
            if **value == 3 {
                deed();
            }
        })
    }
    type Deed = fn(&Channel<Box<u32>>, &Handle);
    let deeds: [Deed; 5] = [
        |channel, _| channel.close(),
        |_, sender| _ = sender.kill(),
        |_, sender| _ = sender.kill_later(),
        |channel, _| _ = channel.send_timeout(Box::new(100), MILLISECOND),
        |_, _| meddle(),
    ];
    for deed in deeds {
        let channel = Channel::new();
        let theirs = channel.clone();
        let sender = tasklet(move || {
            let me = current();
            let _ = theirs.send_all(values(|| deed(&theirs, &me)));
            theirs.close();
        });
        let mut got = Vec::new();
        while let Ok(value) = channel.receive() {
            got.push(*value);
        }
        assert_eq!(got[..3], [0, 1, 2]);
        let _ = sender.join();
        run();
    }
}

#[test]
fn an_error_that_is_thrown_may_call_anything_when_it_is_looked_at_and_dropped() {
    #[derive(Debug)]
    struct Meddles;
    impl fmt::Display for Meddles {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            meddle();
            f.write_str("meddles")
        }
    }
    impl Error for Meddles {}
    impl Drop for Meddles {
        fn drop(&mut self) {
            meddle();
        }
    }
    let all = work();
    let never = Channel::<()>::new();
    let victims: Vec<_> = (0..4)
        .map(|number| {
            let never = never.clone();
            tasklet(move || match number {
                0 => never.receive().unwrap_err().to_string(),
                1 => schedule_remove_and_say(),
                _ => never.receive().map(|()| String::new()).unwrap_or_default(),
            })
        })
        .collect();
    schedule();
    for (number, victim) in victims.iter().enumerate() {
        let _ = if number % 2 == 0 { victim.throw(Meddles) } else { victim.throw_later(Meddles) };
        let _ = victim.kill();
    }
    drop(victims);
    assert_done(all);
    never.close();
    run();
}

fn schedule_remove_and_say() -> String {
    schedule_remove();
    "inserted".into()
}
