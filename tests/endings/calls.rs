//! Each call of the face that waits, ended by a timeout and by a kill.

use std::{
    cell::Cell,
    fmt::Write as _,
    future::poll_fn,
    io::{self, Read, Write},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use pila::{
    Channel, Select, Tasklet,
    driver::{self, VirtualClock},
    offload,
    park::{self, Waiting},
    run, schedule, schedule_remove, scope, sleep, spawn_thread,
    sync::{Barrier, Condvar, Event, Mutex, RwLock, Semaphore, Signal},
    tasklet, thread_queue, timeout,
};

use crate::{
    alone, assert_back_at, descriptors, names,
    net_support::{bounded, pair},
    outside,
    places::NEVER,
    secured, warm_up,
};

const SOON: Duration = Duration::from_millis(3);

/// A call that waits: its name, and how it is made to wait for ever.
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) set_up: fn() -> Ready,
}

/// A call that is about to wait for ever.
pub(crate) struct Ready {
    call: Box<dyn FnOnce()>,
    /// Clears away what the call needed, and looks whether it can be used again.
    after: Box<dyn FnOnce()>,
}

pub(crate) fn ready(call: impl FnOnce() + 'static) -> Ready {
    Ready { call: Box::new(call), after: Box::new(|| ()) }
}

impl Ready {
    pub(crate) fn and_after(self, after: impl FnOnce() + 'static) -> Ready {
        Ready { after: Box::new(after), ..self }
    }
}

/// A call on one side of a shared thing, and what still works on it afterwards.
pub(crate) fn shared<T: 'static>(
    thing: T,
    call: impl FnOnce(&T) + 'static,
    after: impl FnOnce(&T) + 'static,
) -> Ready {
    let thing = Rc::new(thing);
    let theirs = thing.clone();
    ready(move || call(&theirs)).and_after(move || after(&thing))
}

fn on_channel(call: impl FnOnce(&Channel<u32>) + 'static) -> Ready {
    shared(Channel::new(), call, |channel| assert_eq!(channel.balance(), 0))
}

/// A lock that a tasklet holds, which ends afterwards.
fn held<T: 'static>(
    lock: T,
    hold: fn(&T, &dyn Fn()),
    call: impl FnOnce(&T) + 'static,
    is_free: fn(&T) -> bool,
) -> Ready {
    let lock = Rc::new(lock);
    let (theirs, holders) = (lock.clone(), lock.clone());
    let holder = tasklet(move || hold(&holders, &schedule_remove));
    schedule();
    assert!(holder.is_paused());
    ready(move || call(&theirs)).and_after(move || {
        assert!(!is_free(&lock));
        holder.kill().unwrap();
        assert!(is_free(&lock), "a turn that nobody took was lost");
    })
}

fn on_mutex(call: fn(&Mutex<()>)) -> Ready {
    let hold = |mutex: &Mutex<()>, wait: &dyn Fn()| {
        let _guard = mutex.lock().unwrap();
        wait();
    };
    held(Mutex::new(()), hold, call, |mutex| mutex.try_lock().is_ok())
}

fn on_rwlock(call: fn(&RwLock<()>)) -> Ready {
    let hold = |lock: &RwLock<()>, wait: &dyn Fn()| {
        let _guard = lock.write().unwrap();
        wait();
    };
    held(RwLock::new(()), hold, call, |lock| lock.try_write().is_ok())
}

fn on_semaphore(call: fn(&Semaphore)) -> Ready {
    let hold = |semaphore: &Semaphore, wait: &dyn Fn()| {
        let _permit = semaphore.acquire_many(3).unwrap();
        wait();
    };
    held(Semaphore::new(4), hold, call, |semaphore| semaphore.try_acquire_many(4).is_ok())
}

fn on_barrier(call: fn(&Barrier)) -> Ready {
    shared(Barrier::new(2), call, |barrier| assert_eq!(barrier.waiters(), 0))
}

fn on_event(call: fn(&Event)) -> Ready {
    shared(Event::new(), call, |event| {
        event.set();
        event.wait().unwrap();
    })
}

fn on_condvar(call: fn(&(Mutex<u32>, Condvar))) -> Ready {
    shared((Mutex::new(0), Condvar::new()), call, |(mutex, condvar)| {
        assert_eq!(condvar.notify(1), 0, "someone is left in line");
        assert!(mutex.try_lock().is_ok());
    })
}

fn on_signal(call: fn(&Signal)) -> Ready {
    shared(Signal::new(), call, |signal| assert_eq!(signal.notify(1), 0, "someone is in line"))
}

/// Joins a tasklet that goes on.
fn joining(call: impl FnOnce(Tasklet<()>) + 'static) -> Ready {
    let joined = tasklet(schedule_remove);
    let handle = joined.handle();
    ready(move || call(joined)).and_after(move || handle.kill().unwrap())
}

/// What speaks a protocol of its own over any stream, as TLS does: three flights before anything can be said.
struct Secured<S> {
    stream: S,
}

impl<S: Read + Write> Secured<S> {
    fn shake_hands(mut stream: S) -> io::Result<Secured<S>> {
        for flight in 0..3 {
            stream.write_all(&[flight; 16])?;
            let mut answer = [0; 16];
            stream.read_exact(&mut answer)?;
            assert_eq!(answer, [flight; 16]);
        }
        Ok(Secured { stream })
    }
}

fn handshake() -> Ready {
    let (mine, mut peer) = pair();
    // It answers two flights and then keeps silent.
    let answering = tasklet(move || {
        for _ in 0..2 {
            let mut flight = [0; 16];
            peer.read_exact(&mut flight).unwrap();
            peer.write_all(&flight).unwrap();
        }
        peer
    });
    ready(move || _ = Secured::shake_hands(mine).map(|secured| secured.stream)).and_after(
        move || {
            let mut peer = answering.join().unwrap();
            let mut last = Vec::new();
            peer.read_to_end(&mut last).unwrap();
            assert_eq!(last, [2; 16], "the third flight, and then the end");
        },
    )
}

const CALLS: &[Call] = &[
    Call { name: "`Channel::send`", set_up: || on_channel(|channel| drop(channel.send(1))) },
    Call {
        name: "`Channel::send_timeout`",
        set_up: || on_channel(|channel| drop(channel.send_timeout(1, NEVER))),
    },
    Call {
        name: "`Channel::send_error`",
        set_up: || on_channel(|channel| drop(channel.send_error("no"))),
    },
    Call {
        name: "`Channel::send_all`",
        set_up: || on_channel(|channel| drop(channel.send_all(1..9))),
    },
    Call { name: "`Channel::receive`", set_up: || on_channel(|channel| drop(channel.receive())) },
    Call {
        name: "`Channel::receive_timeout`",
        set_up: || on_channel(|channel| drop(channel.receive_timeout(NEVER))),
    },
    Call {
        name: "`Channel::iter`",
        set_up: || on_channel(|channel| channel.iter().for_each(drop)),
    },
    Call {
        name: "`Select::wait`",
        set_up: || {
            on_channel(|channel| {
                Select::new()
                    .receive(channel, |_| ())
                    .send(&Channel::new(), 1, |_| ())
                    .after(NEVER, || ())
                    .wait();
            })
        },
    },
    Call { name: "`Tasklet::join`", set_up: || joining(|joined| drop(joined.join())) },
    Call {
        name: "`ScopedTasklet::join`",
        set_up: || ready(|| scope(|s| drop(s.tasklet(schedule_remove).join()))),
    },
    Call {
        name: "`ThreadHandle::join`",
        set_up: || {
            let (end, ended) = thread_queue::<()>(1);
            let thread = spawn_thread(move || drop(ended.receive())).unwrap();
            ready(move || drop(thread.join())).and_after(move || drop(end))
        },
    },
    Call { name: "`scope`", set_up: || ready(|| scope(|s| drop(s.tasklet(|| sleep(NEVER))))) },
    Call {
        name: "`run`",
        set_up: || {
            let sleeper = tasklet(|| sleep(NEVER));
            ready(|| _ = run()).and_after(move || sleeper.kill().unwrap())
        },
    },
    Call { name: "`sleep`", set_up: || ready(|| sleep(NEVER)) },
    Call {
        name: "`schedule`, again and again",
        set_up: || {
            ready(|| {
                loop {
                    schedule();
                }
            })
        },
    },
    Call { name: "`schedule_remove`", set_up: || ready(schedule_remove) },
    Call {
        name: "`Handle::run`, again and again",
        set_up: || {
            let other = tasklet(|| {
                loop {
                    schedule();
                }
            });
            let handle = other.handle();
            ready(move || {
                loop {
                    for _ in 0..100 {
                        handle.run().unwrap();
                    }
                    // It passes over all others each time, so that nobody else would ever have a turn.
                    schedule();
                }
            })
            .and_after(move || other.kill().unwrap())
        },
    },
    Call { name: "`Handle::switch`", set_up: || joining(|joined| drop(joined.switch())) },
    Call {
        name: "`offload`",
        set_up: || {
            let (end, ended) = std::sync::mpsc::channel::<()>();
            ready(move || _ = offload(move || ended.recv().is_err())).and_after(move || drop(end))
        },
    },
    Call {
        name: "`block_on`",
        set_up: || {
            let waker = Rc::new(Cell::new(None));
            let theirs = waker.clone();
            let keep = move |context: &mut Context<'_>| {
                theirs.set(Some(context.waker().clone()));
                Poll::<()>::Pending
            };
            ready(move || pila::block_on(poll_fn(keep)))
                .and_after(move || waker.take().expect("it was polled").wake())
        },
    },
    Call {
        name: "`park::wait`",
        set_up: || ready(|| drop(park::wait(park::begin().unwrap(), Waiting::Outside, None))),
    },
    Call { name: "`Mutex::lock`", set_up: || on_mutex(|mutex| drop(mutex.lock())) },
    Call {
        name: "`Mutex::lock_timeout`",
        set_up: || on_mutex(|mutex| drop(mutex.lock_timeout(NEVER))),
    },
    Call { name: "`RwLock::read`", set_up: || on_rwlock(|lock| drop(lock.read())) },
    Call {
        name: "`RwLock::read_timeout`",
        set_up: || on_rwlock(|lock| drop(lock.read_timeout(NEVER))),
    },
    Call { name: "`RwLock::write`", set_up: || on_rwlock(|lock| drop(lock.write())) },
    Call {
        name: "`RwLock::write_timeout`",
        set_up: || on_rwlock(|lock| drop(lock.write_timeout(NEVER))),
    },
    Call {
        name: "`Semaphore::acquire`",
        set_up: || {
            on_semaphore(|semaphore| {
                let _last = semaphore.acquire().unwrap();
                drop(semaphore.acquire());
            })
        },
    },
    Call {
        name: "`Semaphore::acquire_timeout`",
        set_up: || {
            on_semaphore(|semaphore| {
                let _last = semaphore.acquire().unwrap();
                drop(semaphore.acquire_timeout(NEVER));
            })
        },
    },
    Call {
        name: "`Semaphore::acquire_many`",
        set_up: || on_semaphore(|semaphore| drop(semaphore.acquire_many(2))),
    },
    Call {
        name: "`Semaphore::acquire_many_timeout`",
        set_up: || on_semaphore(|semaphore| drop(semaphore.acquire_many_timeout(2, NEVER))),
    },
    Call { name: "`Event::wait`", set_up: || on_event(|event| drop(event.wait())) },
    Call {
        name: "`Event::wait_timeout`",
        set_up: || on_event(|event| drop(event.wait_timeout(NEVER))),
    },
    Call { name: "`Barrier::wait`", set_up: || on_barrier(|barrier| drop(barrier.wait())) },
    Call {
        name: "`Barrier::wait_timeout`",
        set_up: || on_barrier(|barrier| drop(barrier.wait_timeout(NEVER))),
    },
    Call {
        name: "`Condvar::wait`",
        set_up: || on_condvar(|(mutex, condvar)| drop(condvar.wait(mutex.lock().unwrap()))),
    },
    Call {
        name: "`Condvar::wait_timeout`",
        set_up: || {
            on_condvar(|(mutex, condvar)| drop(condvar.wait_timeout(mutex.lock().unwrap(), NEVER)))
        },
    },
    Call {
        name: "`Condvar::wait_while`",
        set_up: || {
            on_condvar(|(mutex, condvar)| {
                drop(condvar.wait_while(mutex.lock().unwrap(), |value| *value == 0));
            })
        },
    },
    Call {
        name: "`Condvar::wait_timeout_while`",
        set_up: || {
            on_condvar(|(mutex, condvar)| {
                let guard = mutex.lock().unwrap();
                drop(condvar.wait_timeout_while(guard, NEVER, |value| *value == 0));
            })
        },
    },
    Call { name: "`Signal::wait`", set_up: || on_signal(|signal| drop(signal.wait())) },
    Call {
        name: "`Signal::wait_timeout`",
        set_up: || on_signal(|signal| drop(signal.wait_timeout(NEVER))),
    },
    Call {
        name: "`QueueSender::send`",
        set_up: || {
            let (sender, receiver) = thread_queue(1);
            sender.send(1).unwrap();
            ready(move || drop(sender.send(2)))
                .and_after(move || assert_eq!(receiver.iter().collect::<Vec<_>>(), [1]))
        },
    },
    Call {
        name: "`QueueSender::send_timeout`",
        set_up: || {
            let (sender, receiver) = thread_queue(1);
            sender.send(1).unwrap();
            ready(move || drop(sender.send_timeout(2, NEVER)))
                .and_after(move || assert_eq!(receiver.iter().collect::<Vec<_>>(), [1]))
        },
    },
    Call {
        name: "`QueueReceiver::receive`",
        set_up: || {
            let (sender, receiver) = thread_queue::<u32>(1);
            ready(move || drop(receiver.receive())).and_after(move || assert!(sender.is_closed()))
        },
    },
    Call {
        name: "`QueueReceiver::receive_timeout`",
        set_up: || {
            let (sender, receiver) = thread_queue::<u32>(1);
            ready(move || drop(receiver.receive_timeout(NEVER)))
                .and_after(move || assert!(sender.is_closed()))
        },
    },
    Call {
        name: "`QueueReceiver::iter`",
        set_up: || {
            let (sender, receiver) = thread_queue::<u32>(1);
            ready(move || receiver.iter().for_each(drop))
                .and_after(move || assert!(sender.is_closed()))
        },
    },
    Call { name: "a handshake over several reads of a socket", set_up: handshake },
];

fn all() -> impl Iterator<Item = &'static Call> {
    CALLS.iter().chain(outside::CALLS).chain(secured::CALLS).chain(outside::NAMED)
}

/// The names of all of them, as the document has them.
pub(crate) fn listed() -> String {
    let mut list = String::new();
    for call in all() {
        writeln!(list, "- {}", call.name).unwrap();
    }
    list
}

/// Has each of them ended by `end`, on a thread of its own, in the test `name`.
fn each(name: &str, end: fn(Ready)) {
    names::where_names_are_never_found(&format!("calls::{name}"), || {
        let _alone = alone();
        let named = if names::are_never_found() { outside::NAMED } else { &[] };
        let unnamed = CALLS.iter().chain(outside::CALLS).chain(secured::CALLS);
        for Call { name, set_up } in unnamed.chain(named) {
            println!("{name}");
            bounded(move || {
                warm_up();
                let before = descriptors();
                end(set_up());
                let summary = run();
                assert_eq!((summary.blocked, summary.paused, summary.unread_panics), (0, 0, 0));
                assert_back_at(before);
            });
        }
    });
}

#[test]
fn a_timeout_ends_every_call_that_waits() {
    each("a_timeout_ends_every_call_that_waits", |Ready { call, after }| {
        let ended = tasklet(move || timeout(SOON, call));
        let elapsed = ended.join().unwrap().unwrap_err();
        assert_eq!((elapsed.limit(), elapsed.place().file()), (SOON, file!()));
        after();
    });
}

#[test]
fn a_timeout_of_main_ends_every_call_that_waits() {
    each("a_timeout_of_main_ends_every_call_that_waits", |Ready { call, after }| {
        // To be paused is to let the others run until nothing can, and then main goes on: it waits for nobody.
        let ended = timeout(SOON, move || {
            call();
            sleep(NEVER);
        });
        assert_eq!(ended.unwrap_err().limit(), SOON);
        after();
    });
}

#[test]
fn a_kill_ends_every_call_that_waits() {
    each("a_kill_ends_every_call_that_waits", |Ready { call, after }| {
        let victim = tasklet(call);
        // Whatever it does before it waits.
        for _ in 0..3 {
            sleep(Duration::from_millis(1));
        }
        victim.kill().unwrap();
        assert!(!victim.is_alive());
        assert!(matches!(victim.join(), Err(pila::JoinError::Killed)));
        after();
    });
}

/// Sets timeouts of so many seconds inside each other around a wait. Gives the one that it was told of.
fn nest(limits: &[u64]) -> u64 {
    let [first, rest @ ..] = limits else {
        sleep(NEVER);
        unreachable!("one of them ends it");
    };
    match timeout(Duration::from_secs(*first), || nest(rest)) {
        Ok(told) => told,
        Err(elapsed) => {
            assert_eq!(elapsed.limit().as_secs(), *first, "told at the call that set it");
            elapsed.limit().as_secs()
        }
    }
}

#[test]
fn of_nested_timeouts_the_earliest_ends_and_says_so_in_whatever_order() {
    driver::install(Box::new(VirtualClock::new())).unwrap();
    let orders = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];
    for order in orders {
        let start = driver::now();
        assert_eq!(nest(&order), 1, "{order:?}");
        assert_eq!(driver::now() - start, Duration::from_secs(1));
    }
    // Of two that pass at once the outer one ends the other as well.
    let outer = timeout(SOON, || timeout(SOON, || sleep(NEVER)));
    assert!(outer.is_err());
}
