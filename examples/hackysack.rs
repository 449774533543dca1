//! Friends in a circle kick a sack to one another until it has been kicked often enough.
//!
//!     cargo run --release --example hackysack [PLAYERS [KICKS]]
//!
//! Every player is a loop over what comes in through a channel of its own. Five players and a million kicks give
//!
//!     player 0: 200253 kicks
//!     player 1: 199838 kicks
//!     player 2: 199985 kicks
//!     player 3: 200174 kicks
//!     player 4: 199750 kicks
//!     1000000 kicks in 0.15 s: 6804030 kicks/s

use std::{env, rc::Rc, time::Instant};

use pila::{Channel, Tasklet};

/// Kicks whatever comes to someone else, and says how often. Whoever makes the last kick sends everyone home.
fn play(me: usize, circle: &[Channel<u64>]) -> u64 {
    let mut kicks = 0;
    let mut mood = me as u64;
    for kicks_left in &circle[me] {
        kicks += 1;
        if kicks_left == 1 {
            circle.iter().for_each(Channel::close);
            break;
        }
        mood = mood.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let steps = 1 + (mood >> 33) as usize % (circle.len() - 1);
        circle[(me + steps) % circle.len()].send(kicks_left - 1).unwrap();
    }
    kicks
}

fn main() {
    let mut numbers =
        env::args().skip(1).map(|word| word.parse().expect("the arguments are numbers"));
    let players = numbers.next().unwrap_or(5) as usize;
    let kicks = numbers.next().unwrap_or(1_000_000);
    assert!(players > 1 && kicks > 0, "hackysack takes two, and a kick");

    let circle: Rc<[Channel<u64>]> = (0..players).map(|_| Channel::new()).collect();
    let friends: Vec<Tasklet<u64>> = (0..players)
        .map(|me| {
            let circle = circle.clone();
            pila::tasklet(move || play(me, &circle))
        })
        .collect();

    let start = Instant::now();
    circle[0].send(kicks).unwrap();
    let mut total = 0;
    for (number, friend) in friends.into_iter().enumerate() {
        let kicks = friend.join().unwrap();
        println!("player {number}: {kicks} kicks");
        total += kicks;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{total} kicks in {seconds:.2} s: {:.0} kicks/s", total as f64 / seconds);
}
