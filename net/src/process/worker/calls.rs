//! The calls that are being made, and who is next to be given to a worker. Pure data.
//!
//! - Numbers grow with the time of arrival and never repeat, so the first in line is the one with the least number.
//! - A call whose caller has gone stays while a worker has it: the worker's answer to it has to be known as late, and not as
//!   garbage.

use std::collections::{BTreeMap, HashMap};

use super::error::Failure;
use super::wire::Parcel;

/// What became of a call: the message with the reply, or why there is none.
pub(super) type Outcome = Result<Vec<u8>, Failure>;

/// The calls of one worker, or one pool.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// Those that have not been given to a worker.
    line: BTreeMap<u64, Parcel>,
    /// Those that have: of each, whether its caller waits, and what came of it.
    sent: HashMap<u64, Sent>,
    /// How many numbers have been given out.
    numbers: u64,
}

#[derive(Debug)]
enum Sent {
    /// A worker has it.
    Unanswered,
    /// A worker has it, and nobody waits for its answer.
    Abandoned,
    /// Its caller has not taken the answer yet.
    Answered(Outcome),
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    Waits,
    HasGone,
}

/// How far a call had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    InLine,
    Sent,
    Answered {
        may_have_run: bool,
    },
    /// It has its answer, or never was.
    Over,
}

impl Calls {
    /// A number that nobody has had.
    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Puts a call in line: at its end, or, if it has been there, where it was.
    pub(super) fn queue(&mut self, number: u64, parcel: Parcel) {
        self.sent.remove(&number);
        self.line.insert(number, parcel);
    }

    /// Whether someone is in line.
    pub(super) fn has_line(&self) -> bool {
        !self.line.is_empty()
    }

    /// How many are in line.
    pub(super) fn line_len(&self) -> usize {
        self.line.len()
    }

    /// Takes the first in line, to be given to a worker.
    pub(super) fn next(&mut self) -> Option<(u64, Parcel)> {
        let (number, parcel) = self.line.pop_first()?;
        self.sent.insert(number, Sent::Unanswered);
        Some((number, parcel))
    }

    /// Leaves the answer for the caller of a call that a worker had.
    pub(super) fn answer(&mut self, number: u64, outcome: Outcome) -> Caller {
        match self.sent.get_mut(&number) {
            Some(call @ Sent::Unanswered) => {
                *call = Sent::Answered(outcome);
                Caller::Waits
            }
            Some(Sent::Abandoned) => {
                self.sent.remove(&number);
                Caller::HasGone
            }
            Some(Sent::Answered(_)) | None => Caller::HasGone,
        }
    }

    /// Leaves answers for all in line, and gives their numbers.
    pub(super) fn answer_line(&mut self, mut outcome: impl FnMut() -> Outcome) -> Vec<u64> {
        let numbers: Vec<u64> = std::mem::take(&mut self.line).into_keys().collect();
        for &number in &numbers {
            self.sent.insert(number, Sent::Answered(outcome()));
        }
        numbers
    }

    /// Takes the answer, if it is there.
    pub(super) fn take(&mut self, number: u64) -> Option<Outcome> {
        let Sent::Answered(_) = self.sent.get(&number)? else { return None };
        match self.sent.remove(&number) {
            Some(Sent::Answered(outcome)) => Some(outcome),
            _ => unreachable!("it was there"),
        }
    }

    /// How far a call has come.
    pub(super) fn progress(&self, number: u64) -> Progress {
        match self.sent.get(&number) {
            _ if self.line.contains_key(&number) => Progress::InLine,
            Some(Sent::Unanswered | Sent::Abandoned) => Progress::Sent,
            Some(Sent::Answered(Ok(_))) => Progress::Answered { may_have_run: true },
            Some(Sent::Answered(Err(Failure { may_have_run, .. }))) => {
                Progress::Answered { may_have_run: *may_have_run }
            }
            None => Progress::Over,
        }
    }

    /// Whether someone waits for the answer to a call that a worker has.
    pub(super) fn is_awaited(&self, number: u64) -> bool {
        matches!(self.sent.get(&number), Some(Sent::Unanswered))
    }

    /// The caller is gone, and no worker has anything of the call.
    pub(super) fn forget(&mut self, number: u64) {
        self.line.remove(&number);
        self.sent.remove(&number);
    }

    /// The caller is gone, and a worker has the call.
    pub(super) fn abandon(&mut self, number: u64) {
        self.sent.insert(number, Sent::Abandoned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::worker::wire::Kind;

    fn parcel() -> Parcel {
        Parcel::text(Kind::Request, "x", 1)
    }

    #[test]
    fn who_comes_back_is_where_it_was() {
        let mut calls = Calls::default();
        for _ in 0..3 {
            let number = calls.number();
            calls.queue(number, parcel());
        }
        let (first, _) = calls.next().unwrap();
        let (second, parcel) = calls.next().unwrap();
        assert_eq!(calls.progress(second), Progress::Sent);
        calls.queue(second, parcel);
        assert_eq!(calls.progress(second), Progress::InLine);
        let (again, _) = calls.next().unwrap();
        assert_eq!((first, again, calls.line_len()), (1, 2, 1));
    }

    #[test]
    fn an_answer_is_had_once_and_a_late_one_by_nobody() {
        let mut calls = Calls::default();
        for _ in 0..2 {
            let number = calls.number();
            calls.queue(number, parcel());
            calls.next();
        }
        assert!(calls.take(1).is_none());
        assert_eq!(calls.answer(1, Ok(vec![1])), Caller::Waits);
        assert_eq!(calls.take(1).unwrap().unwrap(), [1]);
        assert!(calls.take(1).is_none());

        calls.abandon(2);
        assert_eq!(calls.answer(2, Ok(vec![2])), Caller::HasGone);
        assert!(calls.take(2).is_none());
        assert_eq!(calls.progress(2), Progress::Over);
    }
}
