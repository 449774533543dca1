//! The work on pila.

use std::{
    hint::black_box,
    io::{Read, Write},
    time::Instant,
};

use measure::{
    BATCH, BUFFER, Depth, HOUR, Memory, NAPS, Order, Random, Work, answer, answer_each,
    below_three_calls, worked,
};
use pila::{Channel, net::TcpListener};

fn spawn(tasks: u64) {
    let start = Instant::now();
    for _ in 0..tasks / BATCH {
        for _ in 0..BATCH {
            pila::tasklet(|| ());
        }
        assert_eq!(pila::run().finished as u64, BATCH);
    }
    answer_each("ns", start.elapsed(), tasks);
}

/// The first in the ring takes the time between two turns of its own: in between lie whole rounds and nothing else.
fn switch(tasks: usize, rounds: u64, order: Order, make_way: impl Fn() + Copy + 'static) {
    let places = order.places(tasks);
    let first = places[0];
    let tasklets: Vec<_> = (0..tasks)
        .map(|place| {
            pila::tasklet(move || {
                pila::schedule_remove();
                let start = (place == first).then(Instant::now);
                for _ in 0..rounds {
                    make_way();
                }
                if let Some(start) = start {
                    answer_each("ns", start.elapsed(), rounds * tasks as u64);
                }
            })
        })
        .collect();
    pila::run();
    for place in places {
        tasklets[place].insert().expect("it is paused");
    }
    pila::run();
}

fn ring(
    tasks: usize,
    hops: u64,
    receive: impl Fn(&Channel<u64>) -> u64 + Copy + 'static,
    send: impl Fn(&Channel<u64>, u64) + Copy + 'static,
) {
    let channels: Vec<_> = (0..tasks).map(|_| Channel::new()).collect();
    let rounds = hops / tasks as u64;
    for place in 1..tasks {
        let (from, to) = (channels[place].clone(), channels[(place + 1) % tasks].clone());
        pila::tasklet(move || (0..rounds).for_each(|_| send(&to, receive(&from) + 1)));
    }
    let (from, to) = (channels[0].clone(), channels[1].clone());
    pila::tasklet(move || {
        let mut value = 0;
        let start = Instant::now();
        for _ in 0..rounds {
            send(&to, value);
            value = receive(&from) + 1;
        }
        answer_each("ns", start.elapsed(), value);
    });
    pila::run();
}

fn idle(tasks: usize) {
    let (channel, before) = (Channel::<()>::new(), Memory::now());
    let start = Instant::now();
    for _ in 0..tasks {
        let channel = channel.clone();
        pila::tasklet(move || channel.receive().is_err());
    }
    assert_eq!(pila::run().blocked, tasks);
    answer_each("make", start.elapsed(), tasks as u64);
    before.answer_growth(tasks);
    let start = Instant::now();
    channel.close();
    assert_eq!(pila::run().finished, tasks);
    answer_each("end", start.elapsed(), tasks as u64);
}

fn sleeps(tasks: u64) {
    for number in 0..tasks {
        let mut random = Random::new(number);
        pila::tasklet(move || (0..NAPS).for_each(|_| pila::sleep(random.nap())));
    }
    pila::run();
    answer("cpu", worked().as_nanos());
}

fn timeouts(count: u64) {
    let tasklet = pila::tasklet(move || {
        let start = Instant::now();
        for number in 0..count {
            pila::timeout(HOUR, || black_box(number)).expect("an hour is not over");
        }
        answer_each("ns", start.elapsed(), count);
    });
    tasklet.join().expect("it does not panic");
}

fn echo() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a loopback");
    answer("port", listener.local_addr().expect("it is bound").port());
    pila::tasklet(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("there are descriptors enough");
            stream.set_nodelay(true).expect("it is a socket");
            pila::tasklet(move || {
                let mut buffer = [0; BUFFER];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..read]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    pila::run();
}

fn receive(channel: &Channel<u64>) -> u64 {
    channel.receive().expect("another sends")
}

fn send(channel: &Channel<u64>, value: u64) {
    channel.send(value).expect("another receives");
}

fn main() {
    match Work::asked() {
        Work::Spawn { tasks } => spawn(tasks),
        Work::Switch { tasks, rounds, depth: Depth::Inlined, order } => {
            switch(tasks, rounds, order, pila::schedule);
        }
        Work::Switch { tasks, rounds, depth: Depth::Deep, order } => {
            switch(tasks, rounds, order, || below_three_calls(pila::schedule));
        }
        Work::Ring { tasks, hops, depth: Depth::Inlined } => {
            ring(tasks, hops, receive, send);
        }
        Work::Ring { tasks, hops, depth: Depth::Deep } => ring(
            tasks,
            hops,
            |from| below_three_calls(|| receive(from)),
            |to, value| below_three_calls(|| send(to, value)),
        ),
        Work::Idle { tasks } => idle(tasks),
        Work::Sleeps { tasks } => sleeps(tasks),
        Work::Timeouts { count } => timeouts(count),
        Work::Echo => echo(),
    }
}
