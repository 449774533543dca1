//! A family has lunch. Each lives at its own speed, and all wait for one another where manners ask for it.
//!
//!     cargo run --release --example family_lunch
//!
//! The clock is virtual: the sleeps are in order and in proportion, and lunch takes no time.
//!
//!     12:00 Mother cooks
//!     12:00 Anna   sits down
//!     12:07 Ben    sits down
//!     12:10 Mother calls: lunch is ready!
//!     12:12 Father sits down
//!     12:12 Mother serves Anna, Ben, Father
//!     12:12 Anna   was told "enjoy!", has noodles and the salt
//!     12:13 Ben    was told "enjoy!", has soup and the salt
//!     12:14 Father was told "enjoy!", has more noodles and the salt
//!     12:18 Ben    has finished
//!     12:24 Father has finished
//!     12:33 Anna   has finished
//!     12:33 Mother brings the cake

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use pila::{Channel, driver};

/// Where the family meets.
struct Table {
    noon: Instant,
    seated: Channel<&'static str>,
    plates: Channel<&'static str>,
    wishes: Channel<&'static str>,
    /// There is one salt shaker: whoever received it has it.
    salt: Channel<&'static str>,
}

impl Table {
    fn note(&self, who: &str, what: &str) {
        let minutes = (driver::now() - self.noon).as_secs() / 60;
        println!("12:{minutes:02} {who:<6} {what}");
    }
}

fn spend(minutes: u64) {
    pila::sleep(Duration::from_secs(60 * minutes));
}

fn have_lunch(table: &Table, name: &'static str, comes_after: u64, eats_for: u64) {
    spend(comes_after);
    table.note(name, "sits down");
    table.seated.send(name).unwrap();
    let plate = table.plates.receive().unwrap();
    let wish = table.wishes.receive().unwrap();
    let salt = table.salt.receive().unwrap();
    table.note(name, &format!("was told \"{wish}\", has {plate} and {salt}"));
    spend(1);
    table.salt.send(salt).unwrap();
    spend(eats_for);
    table.note(name, "has finished");
}

fn main() -> Result<(), driver::AlreadyInstalled> {
    driver::install(Box::new(driver::VirtualClock::new()))?;
    let table = Rc::new(Table {
        noon: driver::now(),
        seated: Channel::new(),
        plates: Channel::new(),
        wishes: Channel::new(),
        salt: Channel::with_capacity(1),
    });
    table.salt.send("the salt").unwrap();
    let eaters = [("Father", 12, 9), ("Anna", 0, 20), ("Ben", 7, 4)].map(|(name, comes, eats)| {
        let table = table.clone();
        pila::tasklet(move || have_lunch(&table, name, comes, eats))
    });

    table.note("Mother", "cooks");
    spend(10);
    table.note("Mother", "calls: lunch is ready!");
    let names = eaters.each_ref().map(|_| table.seated.receive().unwrap());
    table.note("Mother", &format!("serves {}", names.join(", ")));
    table.plates.send_all(["noodles", "soup", "more noodles"]).unwrap();
    table.wishes.send_all(["enjoy!"; 3]).unwrap();
    for eater in eaters {
        eater.join().unwrap();
    }
    table.note("Mother", "brings the cake");
    Ok(())
}
