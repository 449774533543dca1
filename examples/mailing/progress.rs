//! The progress bar: a tasklet that looks at the tally ten times a second, if somebody sees it.

use std::{
    io::{self, IsTerminal},
    rc::Rc,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use super::tally::Tally;

/// Shows on a terminal how far the `mails` mails are, until all have ended. Elsewhere it does nothing.
pub(crate) fn show(mails: u32, tally: &Rc<Tally>) {
    if !io::stderr().is_terminal() {
        return;
    }
    let style = ProgressStyle::with_template("{wide_bar} {pos} of {len} mails, {elapsed}")
        .expect("the template is well-formed");
    let bar = ProgressBar::new(mails.into()).with_style(style);
    let tally = tally.clone();
    pila::tasklet(move || {
        while !tally.is_complete() {
            bar.set_position(tally.finished().into());
            pila::sleep(Duration::from_millis(100));
        }
        bar.finish_and_clear();
    });
}
