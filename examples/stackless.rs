//! Ten thousand mails at once, on one thread, with code that reads as if there were only one.
//!
//!     cargo run --release --example stackless
//!
//! starts an SMTP server of its own, which takes half a second to greet as a far one would, and ends with
//!
//!     sent 10000 of 10000 mails in 1.24 s on 1 thread: 8093 mails/s, at most 10000 at once, 52 MiB peak
//!
//! `--server HOST:PORT` sends to a real server, and `--help` tells the rest.

mod mailing;
mod smtp;

use std::{process::ExitCode, rc::Rc};

use mailing::{
    descriptors, options::Options, outbox::Outbox, progress, server::Server, sink_process,
    tally::Tally,
};
use smtp::{client::send_data, error::MailError};

/// One mail from beginning to end. Wherever it has to wait, for a connection, a reply, room to write, only it waits.
fn send_mail(outbox: &Outbox, number: u32) -> Result<(), MailError> {
    let mut connection = outbox.connect()?;
    let outcome = send_data(&mut connection, &outbox.envelope, outbox.letter.text(number));
    connection.close();
    outcome
}

/// Sends the next mail while there is one, and counts. No lock: between two waits nobody else runs.
fn send_mails(outbox: &Outbox, tally: &Tally) {
    while let Some(number) = tally.take_number() {
        match send_mail(outbox, number) {
            Ok(()) => tally.sent.set(tally.sent.get() + 1),
            Err(error) => tally.fail(number, &error),
        }
        tally.end_one();
    }
}

fn main() -> ExitCode {
    let options = Options::from_command_line();
    if let Some(order) = &options.sink {
        return sink_process::main("stackless", order);
    }
    let at_once = descriptors::grant(options.at_once.unwrap_or(options.mails).min(options.mails));
    let server = match Server::find(&options) {
        Ok(server) => server,
        Err(error) => {
            eprintln!("stackless: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outbox = Rc::new(Outbox::new(&options, server.addresses()));
    let tally = Rc::new(Tally::new(options.mails));

    for _ in 0..at_once {
        let (outbox, tally) = (outbox.clone(), tally.clone());
        pila::tasklet(move || send_mails(&outbox, &tally));
    }
    progress::show(options.mails, &tally);
    pila::run();

    print!("{}", tally.failures());
    let all_arrived = server.confirms(&tally);
    println!("{}", tally.summary(outbox.peak()));
    if tally.is_success() && all_arrived { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
