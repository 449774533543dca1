//! Conway's game of life with one tasklet a cell, which knows its eight neighbours by their channels and nobody else.
//!
//!     cargo run --release --example game_of_tasklets [GENERATIONS]
//!
//! In a terminal it moves; elsewhere it prints where it ends. The gun has fired two gliders after 60 generations:
//!
//!                           ▄ █
//!                ▄▀▀ ▄    ██            ██
//!     ██        █   ▄ █▄  ▀▀▄ ▄
//!               ▀▄   ▄▀       ▀
//!                 ▀▀         ▄
//!                            ▄█▀
//!
//!
//!                                   ▄ ▄
//!                                    █▀
//!     60 generations of 800 tasklets

use std::{
    cell::Cell,
    env,
    io::{self, IsTerminal},
    rc::Rc,
    time::Duration,
};

use pila::{Channel, Tasklet};

const WIDTH: usize = 40;
const CELLS: usize = 20 * WIDTH;
const GUN: [&str; 9] = [
    "                        O           ",
    "                      O O           ",
    "            OO      OO            OO",
    "           O   O    OO            OO",
    "OO        O     O   OO              ",
    "OO        O   O OO    O O           ",
    "          O     O       O           ",
    "           O   O                    ",
    "            OO                      ",
];

/// The eight places around a place. The end of each row touches the beginning of the next.
fn around(at: usize) -> [usize; 8] {
    let steps = [1, WIDTH - 1, WIDTH, WIDTH + 1];
    let ahead = steps.map(|step| (at + step) % CELLS);
    let behind = steps.map(|step| (at + CELLS - step) % CELLS);
    std::array::from_fn(|n| if n < 4 { ahead[n] } else { behind[n - 4] })
}

/// Between two rests: tells the neighbours, hears from them, and changes.
fn live(mine: &Channel<bool>, neighbours: &[Channel<bool>], dot: &Cell<bool>) {
    loop {
        for neighbour in neighbours {
            neighbour.send(dot.get()).unwrap();
        }
        let alive = neighbours.iter().filter(|_| mine.receive().unwrap()).count();
        dot.set(alive == 3 || alive == 2 && dot.get());
        pila::schedule_remove();
    }
}

/// The picture, a character for two cells.
fn picture(dots: &[Cell<bool>]) -> String {
    let dot = |at: usize| usize::from(dots[at].get());
    let character = |at| [' ', '▀', '▄', '█'][dot(at) + 2 * dot(at + WIDTH)];
    let line = |row| (row..row + WIDTH).map(character).chain(['\n']).collect::<String>();
    (0..CELLS).step_by(2 * WIDTH).map(line).collect()
}

fn main() {
    let generations = env::args().nth(1).map_or(60, |word| word.parse().expect("a number"));
    let dots: Rc<[Cell<bool>]> = vec![Cell::new(false); CELLS].into();
    for (row, line) in GUN.iter().enumerate() {
        for (column, _) in line.match_indices('O') {
            dots[row * WIDTH + column].set(true);
        }
    }
    let lines: Vec<Channel<bool>> = (0..CELLS).map(|_| Channel::with_capacity(8)).collect();
    let cells: Vec<Tasklet<()>> = (0..CELLS)
        .map(|at| {
            let (mine, neighbours, dots) = (lines[at].clone(), around(at), dots.clone());
            let neighbours = neighbours.map(|neighbour| lines[neighbour].clone());
            Tasklet::bind(move || live(&mine, &neighbours, &dots[at]))
        })
        .collect();

    for _ in 0..generations {
        for cell in &cells {
            cell.insert().unwrap();
        }
        pila::run();
        if io::stdout().is_terminal() {
            println!("\x1b[H\x1b[2J{}", picture(&dots));
            pila::sleep(Duration::from_millis(25));
        }
    }
    println!("{}{generations} generations of {} tasklets", picture(&dots), cells.len());
}
