//! What a sink has received: the `Ledger` it keeps, and the `Report` it gives of it.

use std::{fmt, str::FromStr};

use super::letter::Letter;

/// A sink's book: how often each of the numbered mails came, and how many connections were open.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// What every mail should say.
    letter: Letter,
    /// How often each mail came, by its number; 255 stands for more, too.
    received: Vec<u8>,
    /// How many texts came that are none of the numbered ones.
    damaged: usize,
    /// How many connections are open, and how many there were at most.
    open: usize,
    peak: usize,
}

impl Ledger {
    /// An empty one, for `mails` mails with bodies of `body_size` bytes.
    pub(crate) fn new(mails: u32, body_size: usize) -> Self {
        let letter = Letter::new(String::new(), body_size);
        Self { letter, received: vec![0; mails as usize], damaged: 0, open: 0, peak: 0 }
    }

    /// A connection was accepted.
    pub(crate) fn open(&mut self) {
        self.open += 1;
        self.peak = self.peak.max(self.open);
    }

    /// A connection was closed.
    pub(crate) fn close(&mut self) {
        self.open -= 1;
    }

    /// A mail came.
    pub(crate) fn receive(&mut self, text: &[u8]) {
        let number = self.letter.number_of(text);
        match number.and_then(|number| self.received.get_mut(number as usize)) {
            Some(count) => *count = count.saturating_add(1),
            None => self.damaged += 1,
        }
    }

    /// What has come so far.
    pub(crate) fn report(&self) -> Report {
        let count =
            |wanted: fn(&u8) -> bool| self.received.iter().filter(|times| wanted(times)).count();
        Report {
            once: count(|&times| times == 1),
            missing: count(|&times| times == 0),
            doubled: count(|&times| times > 1),
            damaged: self.damaged,
            peak: self.peak,
        }
    }
}

/// How many of the numbered mails came how often.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// Those that came once, as they should.
    pub(crate) once: usize,
    /// Those that did not come.
    pub(crate) missing: usize,
    /// Those that came more than once.
    pub(crate) doubled: usize,
    /// Texts that are none of the numbered ones.
    pub(crate) damaged: usize,
    /// How many connections were open at one time.
    pub(crate) peak: usize,
}

impl Report {
    /// Whether what came is what a sender says that has had `sent` mails accepted. One that failed may have come, too:
    /// the sender does not know when the connection breaks before it hears of it.
    pub(crate) fn bears_out(&self, sent: usize) -> bool {
        self.once >= sent && self.doubled == 0 && self.damaged == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { once, missing, doubled, damaged, peak } = self;
        write!(
            f,
            "{once} once, {missing} missing, {doubled} doubled, {damaged} damaged, {peak} connections at once"
        )
    }
}

impl FromStr for Report {
    type Err = &'static str;

    /// Reads what `Display` writes.
    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let mut numbers = line.split([' ', ',']).filter_map(|word| word.parse().ok());
        let mut next = || numbers.next().ok_or("the sink ended without a report");
        let (once, missing, doubled) = (next()?, next()?, next()?);
        Ok(Self { once, missing, doubled, damaged: next()?, peak: next()? })
    }
}
