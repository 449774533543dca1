//! Primes through a chain of channels: each prime that is found becomes a tasklet that stops its multiples.
//!
//!     cargo run --release --example sieve [HOW_MANY]
//!
//! The chain grows by one link for each prime. When main has enough it closes the last channel; each link then finds
//! nobody behind it, closes the channel before it and ends, and nobody is left:
//!
//!         2    3    5    7   11   13   17   19   23   29
//!        31   37   41   43   47   53   59   61   67   71
//!        73   79   83   89   97  101  103  107  109  113
//!       127  131  137  139  149  151  157  163  167  173
//!       179  181  191  193  197  199  211  223  227  229
//!     51 tasklets ended, 0 wait

use std::env;

use pila::Channel;

/// 2, 3, 4, and so on, as long as someone wants them.
fn count() -> Channel<u64> {
    let numbers = Channel::new();
    let out = numbers.clone();
    pila::tasklet(move || {
        for number in 2.. {
            if out.send(number).is_err() {
                break;
            }
        }
    });
    numbers
}

/// What is in `numbers` without the multiples of `prime`.
fn without_multiples(prime: u64, numbers: Channel<u64>) -> Channel<u64> {
    let rest = Channel::new();
    let out = rest.clone();
    pila::tasklet(move || {
        for number in &numbers {
            if number % prime != 0 && out.send(number).is_err() {
                break;
            }
        }
        numbers.close();
    });
    rest
}

fn main() {
    let how_many = env::args().nth(1).map_or(50, |word| word.parse().expect("a number"));
    let mut numbers = count();
    for nth in 1..=how_many {
        let prime = numbers.receive().unwrap();
        print!("{prime:>5}{}", if nth % 10 == 0 || nth == how_many { "\n" } else { "" });
        numbers = without_multiples(prime, numbers);
    }
    numbers.close();
    let left = pila::run();
    println!("{} tasklets ended, {} wait", left.finished, left.blocked);
}
