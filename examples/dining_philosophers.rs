//! Five philosophers, five forks, and a dinner that stops when everyone holds one fork and waits for another.
//!
//!     cargo run --release --example dining_philosophers
//!
//! Elsewhere such a program hangs. Here the wait of the philosopher who came last ends with an error, which says who
//! waits for what. He puts his fork down, and the others can eat. A left-hander prevents it all:
//!
//!     left-handed: nobody
//!     Diotima eats
//!     Epicurus eats
//!     Hypatia eats
//!     Plato eats
//!     Zeno leaves hungry, after a deadlock: nothing can run, and nothing outside can wake anyone
//!       'main' (#0): waits for the end of tasklet #1
//!       'Plato' (#1), created at examples/dining_philosophers.rs:69:35: waits for a sender on channel 2 (created at examples/dining_philosophers.rs:59:21)
//!       'Hypatia' (#2), created at examples/dining_philosophers.rs:69:35: waits for a sender on channel 3 (created at examples/dining_philosophers.rs:59:21)
//!       'Epicurus' (#3), created at examples/dining_philosophers.rs:69:35: waits for a sender on channel 4 (created at examples/dining_philosophers.rs:59:21)
//!       'Diotima' (#4), created at examples/dining_philosophers.rs:69:35: waits for a sender on channel 5 (created at examples/dining_philosophers.rs:59:21)
//!       'Zeno' (#5), created at examples/dining_philosophers.rs:69:35: waits for a sender on channel 1 (created at examples/dining_philosophers.rs:59:21)
//!     left-handed: Zeno
//!     Diotima eats
//!     Epicurus eats
//!     Hypatia eats
//!     Plato eats
//!     Zeno eats

use std::io;

use pila::{Builder, Channel, Preference, ReceiveError, Tasklet};

const NAMES: [&str; 5] = ["Plato", "Hypatia", "Epicurus", "Diotima", "Zeno"];

type Dinner = Result<(), ReceiveError>;

/// A fork that someone holds. When dropped it lies in its place again.
struct Fork<'a>(&'a Channel<()>);

impl Drop for Fork<'_> {
    fn drop(&mut self) {
        self.0.try_send(()).expect("its place is free");
    }
}

fn take(place: &Channel<()>) -> Result<Fork<'_>, ReceiveError> {
    place.receive().map(|()| Fork(place))
}

fn dine(first: &Channel<()>, second: &Channel<()>) -> Dinner {
    let _first = take(first)?;
    pila::schedule(); // a thought
    let _second = take(second)?;
    println!("{} eats", pila::current().name().unwrap_or("someone"));
    Ok(())
}

/// Seats everyone, each with a fork at either side. The `left_hander` takes them in the other order.
fn seat(left_hander: Option<&str>) -> io::Result<Vec<Tasklet<Dinner>>> {
    let forks = NAMES.map(|_| {
        let place = Channel::with_capacity(1);
        place.set_preference(Preference::Neither); // whoever puts a fork down goes on
        place.send(()).expect("there is room for one");
        place
    });
    let seated = NAMES.iter().enumerate().map(|(seat, &name)| {
        let (mut first, mut second) = (forks[seat].clone(), forks[(seat + 1) % 5].clone());
        if left_hander == Some(name) {
            (first, second) = (second, first);
        }
        Builder::new().name(name).tasklet(move || dine(&first, &second))
    });
    seated.collect()
}

fn main() -> io::Result<()> {
    for left_hander in [None, Some("Zeno")] {
        println!("left-handed: {}", left_hander.unwrap_or("nobody"));
        for (guest, name) in seat(left_hander)?.into_iter().zip(NAMES) {
            if let Err(ReceiveError::Deadlock(report)) = guest.join().expect("nobody panics") {
                println!("{name} leaves hungry, after a {report}");
            }
        }
    }
    Ok(())
}
