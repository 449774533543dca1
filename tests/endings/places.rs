//! The places where an ending can meet a tasklet.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    sync::mpsc,
    time::{Duration, Instant},
};

use pila::{
    Channel, Select, current,
    net::{TcpListener, TcpStream},
    offload, schedule, schedule_remove, scope, sleep,
    sync::Mutex,
    tasklet,
};
use rustix::net::{AddressFamily, SocketType};

use crate::{
    matrix::{TIMEOUT, Way},
    names::SILENT,
    net_support::{FLOOD, pair},
    scene::{Counted, Scene},
};

pub(crate) const NEVER: Duration = Duration::from_secs(3600);

/// Where a tasklet is when it is ended.
pub(crate) struct Place {
    pub(crate) name: &'static str,
    pub(crate) set_up: fn(Way) -> Stand,
    /// Whether it needs a process where names are never found.
    pub(crate) looks_up: bool,
}

/// A place for one victim.
pub(crate) struct Stand {
    /// What the victim does to get there. The label says in the document's words which call that is.
    pub(crate) wait: Wait,
    pub(crate) label: &'static str,
    /// Checks and clears away what else was needed, when the victim has ended.
    pub(crate) after: Box<dyn FnOnce()>,
}

pub(crate) type Wait = Box<dyn FnOnce(&Rc<Scene>)>;

/// Which of the particular cases a place is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Case {
    NeverStarted,
    Current,
    Runnable,
    Swallows,
    Waiting,
}

impl Place {
    pub(crate) fn case(&self) -> Case {
        match self.name {
            "never started" => Case::NeverStarted,
            "current" => Case::Current,
            "runnable" => Case::Runnable,
            "inside `catch_unwind`, which swallows it" => Case::Swallows,
            _ => Case::Waiting,
        }
    }
}

pub(crate) const PLACES: [Place; 19] = [
    place("never started", |_| stand(|_| unreachable!("it never starts"))),
    place("runnable", runnable),
    place("current", the_current),
    place("in `send`", in_send),
    place("in `receive`", in_receive),
    place("in a `Select`", in_select),
    place("in `sleep`", |_| stand(|_| sleep(NEVER))),
    place("in `join`", in_join),
    place("in a socket's `read`", in_read),
    place("in a socket's `write`", in_write),
    place("in `accept`", in_accept),
    place("in `connect`", in_connect),
    Place {
        name: "in `connect`, looking up a name",
        set_up: |_| stand(|_| drop(TcpStream::connect(SILENT))),
        looks_up: true,
    },
    place("in `offload`", in_offload),
    place("in a mutex's `lock`", in_lock),
    place("in `scope`, with tasklets", in_scope),
    place("inside a destructor", in_destructor),
    place("inside `catch_unwind`, which passes it on", in_catch_unwind),
    place("inside `catch_unwind`, which swallows it", in_swallowing_catch_unwind),
];

const fn place(name: &'static str, set_up: fn(Way) -> Stand) -> Place {
    Place { name, set_up, looks_up: false }
}

fn stand(wait: impl FnOnce(&Rc<Scene>) + 'static) -> Stand {
    Stand { wait: Box::new(wait), label: "the call", after: Box::new(|| ()) }
}

impl Stand {
    fn called(self, label: &'static str) -> Stand {
        Stand { label, ..self }
    }

    fn and_after(self, after: impl FnOnce() + 'static) -> Stand {
        Stand { after: Box::new(after), ..self }
    }
}

fn runnable(_: Way) -> Stand {
    stand(|_| {
        loop {
            schedule();
        }
    })
    .called("`schedule`")
}

fn the_current(way: Way) -> Stand {
    match way {
        Way::Kill | Way::KillBack => stand(|scene| {
            scene.turns_before.set(scene.turns.get());
            let _ = current().kill();
        })
        .called("`kill`"),
        Way::KillLater => stand(|_| _ = current().kill_later()).called("`kill_later`"),
        Way::Timeout => stand(|_| {
            let start = Instant::now();
            while start.elapsed() < 2 * TIMEOUT {}
        }),
    }
}

/// Sent by nobody to nobody.
struct Letter {
    _counted: Counted,
}

fn in_send(_: Way) -> Stand {
    let channel = Channel::new();
    let theirs = channel.clone();
    stand(move |scene| {
        let letter = Letter { _counted: scene.counted() };
        drop(theirs.send(letter));
    })
    .and_after(move || assert_eq!(channel.balance(), 0))
}

fn in_receive(_: Way) -> Stand {
    let channel = Channel::<()>::new();
    let theirs = channel.clone();
    stand(move |_| drop(theirs.receive())).and_after(move || assert_eq!(channel.balance(), 0))
}

fn in_select(_: Way) -> Stand {
    let (letters, others) = (Channel::new(), Channel::<()>::new());
    let (their_letters, their_others) = (letters.clone(), others.clone());
    stand(move |scene| {
        let letter = Letter { _counted: scene.counted() };
        Select::new()
            .send(&their_letters, letter, |_| ())
            .receive(&their_others, |_| ())
            .after(NEVER, || ())
            .wait();
    })
    .and_after(move || assert_eq!((letters.balance(), others.balance()), (0, 0)))
}

fn in_join(_: Way) -> Stand {
    let joined = tasklet(schedule_remove);
    let handle = joined.handle();
    stand(move |_| drop(joined.join())).and_after(move || {
        assert!(handle.is_alive(), "it was not to be ended");
        handle.kill().unwrap();
    })
}

fn in_read(_: Way) -> Stand {
    let (mut mine, mut peer) = pair();
    stand(move |_| drop(mine.read(&mut [0; 8]))).and_after(move || {
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0, "the victim's socket is closed");
    })
}

fn in_write(_: Way) -> Stand {
    let (mut mine, peer) = pair();
    stand(move |_| drop(mine.write_all(&vec![0; FLOOD]))).and_after(move || drop(peer))
}

fn in_accept(_: Way) -> Stand {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    stand(move |_| drop(listener.accept()))
}

fn in_connect(_: Way) -> Stand {
    let hanging = Hanging::new();
    let address = hanging.address;
    stand(move |_| drop(TcpStream::connect(address))).and_after(move || drop(hanging))
}

/// A listener whose queue is full: who connects to it hears nothing.
pub(crate) struct Hanging {
    pub(crate) address: SocketAddr,
    _listener: std::net::TcpListener,
    _queue: Vec<std::net::TcpStream>,
}

impl Hanging {
    pub(crate) fn new() -> Hanging {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let listener = std::net::TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        while let Ok(queued) =
            std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50))
        {
            queue.push(queued);
            assert!(queue.len() < 100, "a queue for none takes a hundred");
        }
        Hanging { address, _listener: listener, _queue: queue }
    }
}

fn in_offload(_: Way) -> Stand {
    let (end, ended) = mpsc::channel::<()>();
    stand(move |_| _ = offload(move || ended.recv().is_err())).and_after(move || drop(end))
}

fn in_lock(_: Way) -> Stand {
    let mutex = Rc::new(Mutex::new(()));
    let (held, wanted) = (mutex.clone(), mutex.clone());
    let holder = tasklet(move || {
        let _guard = held.lock().unwrap();
        schedule_remove();
    });
    schedule();
    stand(move |_| drop(wanted.lock())).and_after(move || {
        assert_eq!(mutex.owner().map(|owner| owner.id()), Some(holder.id()));
        holder.kill().unwrap();
        assert!(mutex.try_lock().is_ok());
    })
}

fn in_scope(_: Way) -> Stand {
    stand(|victim| {
        scope(|s| {
            for _ in 0..3 {
                s.tasklet(|| {
                    let _counted = victim.counted();
                    sleep(NEVER);
                });
            }
            let unstarted = victim.counted();
            s.bind(move || drop(unstarted));
        });
    })
    .called("the call, when its tasklets have ended")
}

fn in_destructor(_: Way) -> Stand {
    struct Waits(Option<Counted>);
    impl Drop for Waits {
        fn drop(&mut self) {
            sleep(NEVER);
            unreachable!("{}", self.0.is_some());
        }
    }
    stand(|scene| drop(Waits(Some(scene.counted())))).called("the call in the destructor")
}

fn in_catch_unwind(_: Way) -> Stand {
    stand(|scene| {
        let _outside = scene.counted();
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let _inside = scene.counted();
            sleep(NEVER);
        }));
        resume_unwind(caught.expect_err("it waits for longer than that"));
    })
}

fn in_swallowing_catch_unwind(_: Way) -> Stand {
    stand(|scene| {
        let _outside = scene.counted();
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let _inside = scene.counted();
            sleep(NEVER);
        }));
        assert!(caught.is_err(), "it waits for longer than that");
    })
}
