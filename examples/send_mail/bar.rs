//! `Bar`: how far a way is, for whoever watches at a terminal.

use std::{
    cell::Cell,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// How often it moves.
const PAUSE: Duration = Duration::from_millis(100);

/// A progress bar, gone when it is dropped; nothing where standard error is no terminal.
pub(crate) struct Bar {
    bar: Option<ProgressBar>,
    next: Cell<Instant>,
}

impl Bar {
    /// One for so many mails, or for a number that nobody will tell of.
    pub(crate) fn new(way: &'static str, mails: Option<u32>) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let (length, template) = match mails {
                Some(mails) => (mails, "{prefix:10} {wide_bar} {pos} of {len} mails, {elapsed}"),
                None => (0, "{prefix:10} {spinner} {elapsed}"),
            };
            let style = ProgressStyle::with_template(template).expect("it is well-formed");
            let bar = ProgressBar::new(length.into()).with_style(style).with_prefix(way);
            bar.tick();
            bar
        });
        Self { bar, next: Cell::new(Instant::now() + PAUSE) }
    }

    /// Whether somebody wants to know where it stands.
    pub(crate) fn is_due(&self) -> bool {
        let (Some(bar), true) = (&self.bar, Instant::now() >= self.next.get()) else {
            return false;
        };
        bar.tick();
        self.next.set(Instant::now() + PAUSE);
        true
    }

    pub(crate) fn show(&self, mails: usize) {
        if let Some(bar) = &self.bar {
            bar.set_position(mails as u64);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
