//! A program in which nothing unwinds. Its argument says what it does.

use std::{
    cell::Cell,
    io::{Read, Write},
    rc::Rc,
    time::Duration,
};

use pila::{
    Builder, Channel, Tasklet, current, kill_all,
    net::{TcpListener, TcpStream},
    offload, run, schedule, schedule_remove, scope, shield, sleep, spawn_thread, tasklet,
    thread_queue, timeout,
};

const NEVER: Duration = Duration::from_secs(3600);

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("ordinary") => ordinary(),
        Some("kill") => kill(),
        Some("timeout") => drop(timeout(Duration::from_secs(1), || ()).is_ok()),
        Some("scope of one that waits for ever") => {
            scope(|s| drop(s.tasklet(|| Channel::<()>::new().receive())));
        }
        Some("scope of one that never starts") => scope(|s| drop(s.bind(|| ()))),
        Some("scope of one that panics") => {
            scope(|s| drop(s.tasklet(|| panic!("no way"))));
        }
        Some("scope of one without a stack") => without_a_stack(),
        Some("no_switch") => scope(|s| {
            s.tasklet(|| sleep(NEVER));
            schedule();
            std::mem::forget(pila::no_switch());
        }),
        other => panic!("{other:?} is none of them"),
    }
}

fn ordinary() {
    let sum = Cell::new(0);
    scope(|s| {
        let numbers = Channel::new();
        let theirs = numbers.clone();
        s.tasklet(move || {
            (1..=10).for_each(|number| theirs.send(number).unwrap());
            theirs.close();
        });
        for number in &numbers {
            sum.set(sum.get() + number);
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let echo = tasklet(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut buffer = [0; 5];
        stream.read_exact(&mut buffer).unwrap();
        stream.write_all(&buffer).unwrap();
    });
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut buffer = [0; 5];
    stream.read_exact(&mut buffer).unwrap();
    echo.join().unwrap();
    let (sender, receiver) = thread_queue(1);
    let thread = spawn_thread(move || (1..4).for_each(|number| sender.send(number).unwrap()));
    let received: u32 = receiver.iter().sum();
    thread.unwrap().join().unwrap();
    shield(|| sleep(Duration::from_millis(1)));
    let deadlock = Channel::<()>::new().receive().unwrap_err();
    println!("{} {} {received} {}", sum.get(), offload(|| 42).unwrap(), buffer == *b"hello");
    println!("{}", deadlock.to_string().lines().next().unwrap());
}

fn kill() {
    let dropped = Rc::new(());
    let [early, late] = [(); 2].map(|()| dropped.clone());
    let unstarted = Tasklet::bind(move || drop(early));
    println!("unstarted: {:?}", unstarted.kill());
    let unstarted = tasklet(move || drop(late));
    println!("unstarted, later: {:?}", unstarted.kill_later());
    schedule();
    println!("it ended: {}, {}", unstarted.join().unwrap_err(), Rc::strong_count(&dropped) == 1);

    let waits = Builder::new().name("waits").tasklet(|| {
        schedule_remove();
        "went on"
    });
    let waits = waits.unwrap();
    schedule();
    println!("started: {}", waits.kill().unwrap_err());
    println!("started, later: {}", waits.kill_later().unwrap_err());
    println!("left by kill_all: {}", kill_all().len());
    waits.insert().unwrap();
    println!("it {}", waits.join().unwrap());
    println!("itself: {}", tasklet(|| current().kill().unwrap_err()).join().unwrap());
    println!("blocked: {}", run().blocked);
}

fn without_a_stack() {
    scope(|s| {
        let huge = || Builder::new().stack_size(1 << 40);
        drop(huge().bind_scoped(s, || ()).unwrap().insert());
        // The first of these takes the stack that it would have had.
        let holder = huge().tasklet_scoped(s, schedule_remove).unwrap();
        holder.run().unwrap();
        while huge().tasklet_scoped(s, schedule_remove).is_ok_and(|t| t.run().is_ok()) {}
    });
}
