//! 503 tasklets in a ring pass a token on, and the one that has it when it is worn out says so.
//!
//!     cargo run --release --example thread_ring [PASSES]
//!
//! The old benchmark of threads. After a million passes:
//!
//!     tasklet 37 has the token after 1000000 passes
//!     0 of 503 tasklets are alive

use std::{env, io};

use pila::{Builder, Channel};

const TASKLETS: usize = 503;

/// Passes the token on for ever. Ends by being killed in one of its waits.
fn pass_on(mine: &Channel<u32>, next: &Channel<u32>, worn_out: &Channel<String>) {
    for passes_left in mine {
        match passes_left {
            0 => worn_out.send(pila::current().name().unwrap_or_default().to_string()).unwrap(),
            _ => next.send(passes_left - 1).unwrap(),
        }
    }
}

fn main() -> io::Result<()> {
    let passes = env::args().nth(1).map_or(1_000_000, |word| word.parse().expect("a number"));
    let worn_out = Channel::new();
    let places: Vec<Channel<u32>> = (0..TASKLETS).map(|_| Channel::new()).collect();
    let mut ring = Vec::new();
    for place in 0..TASKLETS {
        let (mine, next) = (places[place].clone(), places[(place + 1) % TASKLETS].clone());
        let worn_out = worn_out.clone();
        let builder = Builder::new().name(format!("tasklet {}", place + 1));
        ring.push(builder.tasklet(move || pass_on(&mine, &next, &worn_out))?);
    }

    places[0].send(passes).unwrap();
    println!("{} has the token after {passes} passes", worn_out.receive().unwrap());
    for tasklet in &ring {
        tasklet.kill().unwrap();
    }
    let alive = ring.iter().filter(|tasklet| tasklet.is_alive()).count();
    println!("{alive} of {TASKLETS} tasklets are alive");
    Ok(())
}
