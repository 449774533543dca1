//! A baker bakes, a guest eats: who goes first when the two meet is the channel's preference.
//!
//!     cargo run --release --example producer_consumer
//!
//! prints what happens, in order, for one baker and one guest with nothing, then with a shelf for two, between them:
//!
//!      Receiver: bake 1 eat 1 bake 2 eat 2 bake 3 eat 3 bake 4 eat 4 bake 5 eat 5
//!       Neither: bake 1 bake 2 eat 1 eat 2 bake 3 bake 4 eat 3 eat 4 bake 5 eat 5
//!        Sender: bake 1 bake 2 eat 1 bake 3 eat 2 bake 4 eat 3 bake 5 eat 4 eat 5
//!         Shelf: bake 1 bake 2 bake 3 bake 4 eat 1 eat 2 eat 3 eat 4 bake 5 eat 5

use pila::{Channel, Preference};

const LOAVES: u32 = 5;

fn bake(counter: &Channel<u32>) {
    for loaf in 1..=LOAVES {
        print!(" bake {loaf}");
        counter.send(loaf).unwrap();
    }
    counter.close();
}

fn eat(counter: &Channel<u32>) {
    for loaf in counter {
        print!(" eat {loaf}");
    }
}

/// A day of the bakery: ends when the last loaf is eaten.
fn day(name: &str, counter: Channel<u32>) {
    print!("{name:>9}:");
    let theirs = counter.clone();
    let guest = pila::tasklet(move || eat(&theirs));
    pila::tasklet(move || bake(&counter));
    guest.join().unwrap();
    println!();
}

fn main() {
    for preference in [Preference::Receiver, Preference::Neither, Preference::Sender] {
        let counter = Channel::new();
        counter.set_preference(preference);
        day(&format!("{preference:?}"), counter);
    }
    let shelf = Channel::with_capacity(2);
    shelf.set_preference(Preference::Neither);
    day("Shelf", shelf);
}
