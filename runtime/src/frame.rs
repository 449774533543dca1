//! Frames: calls of a tasklet that can be ended before they return, or that put such an ending off.
//!
//! - `timeout`, `scope` and their like leave a limit on their tasklet; `shield` leaves a shield. They nest as the calls do.
//! - A limit is struck at most once. Of several struck ones the outermost is what unwinds the tasklet and what refuses
//!   its calls, for the others end with it.
//! - A shield hides what is outside of it: a kill, and the strikes of limits around it. What comes meanwhile is raised
//!   when it ends.
//!
//! A frame is named by its number, which is no wait's number: a ticket in a timer may stand for a limit.

use slab::Slab;

use crate::{error::Refused, timer::TimerKey, wake::Slot};

/// Where a frame is, and its number, which never repeats on its thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameKey {
    pub(crate) place: Slot,
    pub(crate) number: u64,
}

/// The innermost frame of a tasklet, which leads to all others of it.
pub(crate) type Innermost = Option<Slot>;

/// The frames of all tasklets of a thread.
#[derive(Debug)]
pub(crate) struct Frames {
    frames: Slab<Frame>,
}

#[derive(Debug)]
struct Frame {
    outer: Innermost,
    number: u64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Limit {
        /// What refused calls are told once it is struck.
        why: Refused,
        struck: bool,
        /// What strikes it in time.
        timer: Option<TimerKey>,
    },
    Shield {
        /// Whether something that it hides has still to be raised.
        raise: bool,
    },
}

/// What a strike asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Strike {
    /// To be raised in the tasklet.
    Raise,
    /// Nothing: a shield keeps it, or what is outside of it is ending already.
    Kept,
    /// Nothing: there is no such frame any more.
    Stale,
}

/// What is left of a frame that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ended {
    pub(crate) outer: Innermost,
    /// The deadline that has not fired.
    pub(crate) timer: Option<TimerKey>,
    /// Whether it was a shield, and what it hid has still to be raised.
    pub(crate) was_shield: bool,
    pub(crate) raise: bool,
}

impl Frames {
    pub(crate) const fn new() -> Frames {
        Frames { frames: Slab::new() }
    }

    /// Gives back the memory that the frames there are do not need.
    pub(crate) fn shrink(&mut self) {
        self.frames.shrink_to_fit();
    }

    /// Adds a limit inside `outer`.
    pub(crate) fn add_limit(
        &mut self,
        outer: Innermost,
        number: u64,
        why: Refused,
        timer: Option<TimerKey>,
    ) -> FrameKey {
        self.add(outer, number, Kind::Limit { why, struck: false, timer })
    }

    /// Adds a shield inside `outer`. `raise` tells whether an ending has come that was not raised yet.
    pub(crate) fn add_shield(&mut self, outer: Innermost, number: u64, raise: bool) -> FrameKey {
        self.add(outer, number, Kind::Shield { raise })
    }

    fn add(&mut self, outer: Innermost, number: u64, kind: Kind) -> FrameKey {
        FrameKey { place: Slot::new(self.frames.insert(Frame { outer, number, kind })), number }
    }

    /// Ends the innermost frame of a tasklet.
    pub(crate) fn end(&mut self, innermost: Innermost, key: FrameKey) -> Ended {
        assert!(innermost == Some(key.place), "frames end in the order in which they nest");
        let Frame { outer, kind, .. } = self.frames.remove(key.place.index());
        match kind {
            Kind::Limit { timer, .. } => Ended { outer, timer, was_shield: false, raise: false },
            Kind::Shield { raise } => Ended { outer, timer: None, was_shield: true, raise },
        }
    }

    /// Strikes the limit of this number among those of the tasklet whose innermost frame is given.
    pub(crate) fn strike(&mut self, innermost: Innermost, number: u64) -> Strike {
        let (mut next, mut shield) = (innermost, None);
        let place = loop {
            let Some(place) = next else { return Strike::Stale };
            let frame = &self.frames[place.index()];
            if frame.number == number {
                break place;
            }
            if let Kind::Shield { .. } = frame.kind {
                shield = Some(place);
            }
            next = frame.outer;
        };
        let Frame { outer, kind: Kind::Limit { struck, timer, .. }, .. } =
            &mut self.frames[place.index()]
        else {
            return Strike::Stale;
        };
        let (outer, again) = (*outer, std::mem::replace(struck, true));
        *timer = None;
        // What is outside of it and within the same shield ends it too.
        if again || self.struck(outer).is_some() {
            return Strike::Kept;
        }
        match shield.map(|place| &mut self.frames[place.index()].kind) {
            Some(Kind::Shield { raise }) => *raise = true,
            _ => return Strike::Raise,
        }
        Strike::Kept
    }

    /// Has the outermost shield remember a kill. False when there is none.
    pub(crate) fn keep_kill(&mut self, innermost: Innermost) -> bool {
        let (mut next, mut shield) = (innermost, None);
        while let Some(place) = next {
            let frame = &self.frames[place.index()];
            if let Kind::Shield { .. } = frame.kind {
                shield = Some(place);
            }
            next = frame.outer;
        }
        let Some(place) = shield else { return false };
        self.frames[place.index()].kind = Kind::Shield { raise: true };
        true
    }

    /// The outermost struck limit that no shield hides: its number and what refused calls are told.
    pub(crate) fn struck(&self, innermost: Innermost) -> Option<(u64, Refused)> {
        let mut outermost = None;
        for frame in self.unshielded(innermost) {
            if let Kind::Limit { why, struck: true, .. } = frame.kind {
                outermost = Some((frame.number, why));
            }
        }
        outermost
    }

    /// Whether a limit that no shield hides is going to be struck in time.
    pub(crate) fn has_deadline(&self, innermost: Innermost) -> bool {
        self.unshielded(innermost)
            .any(|frame| matches!(frame.kind, Kind::Limit { timer: Some(_), .. }))
    }

    pub(crate) fn is_shielded(&self, innermost: Innermost) -> bool {
        self.unshielded(innermost).last().map_or(innermost, |frame| frame.outer).is_some()
    }

    /// The frames inside the innermost shield, from the inside out.
    fn unshielded(&self, innermost: Innermost) -> impl Iterator<Item = &Frame> {
        let frame = |place: Innermost| self.frames.get(place?.index());
        let limit =
            move |place| frame(place).filter(|frame| matches!(frame.kind, Kind::Limit { .. }));
        std::iter::successors(limit(innermost), move |inner| limit(inner.outer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHY: Refused = Refused::Killed;

    fn place(key: FrameKey) -> Innermost {
        Some(key.place)
    }

    #[test]
    fn a_limit_is_struck_once() {
        let mut frames = Frames::new();
        let limit = frames.add_limit(None, 1, WHY, None);
        assert_eq!(frames.struck(place(limit)), None);
        assert_eq!(frames.strike(place(limit), 1), Strike::Raise);
        assert_eq!(frames.strike(place(limit), 1), Strike::Kept);
        assert_eq!(frames.strike(place(limit), 2), Strike::Stale);
        assert_eq!(frames.struck(place(limit)), Some((1, WHY)));
        assert_eq!(frames.end(place(limit), limit).outer, None);
    }

    #[test]
    fn the_outermost_struck_limit_is_the_one_that_unwinds() {
        let mut frames = Frames::new();
        let outer = frames.add_limit(None, 1, WHY, None);
        let inner = frames.add_limit(place(outer), 2, WHY, None);
        assert_eq!(frames.strike(place(inner), 2), Strike::Raise);
        assert_eq!(frames.strike(place(inner), 1), Strike::Raise);
        assert_eq!(frames.struck(place(inner)), Some((1, WHY)));
    }

    #[test]
    fn an_inner_limit_is_not_raised_while_an_outer_one_ends() {
        let mut frames = Frames::new();
        let outer = frames.add_limit(None, 1, WHY, None);
        let inner = frames.add_limit(place(outer), 2, WHY, None);
        assert_eq!(frames.strike(place(inner), 1), Strike::Raise);
        assert_eq!(frames.strike(place(inner), 2), Strike::Kept);
    }

    #[test]
    fn a_shield_keeps_what_is_outside_of_it_until_it_ends() {
        let mut frames = Frames::new();
        let limit = frames.add_limit(None, 1, WHY, None);
        let shield = frames.add_shield(place(limit), 2, false);
        assert!(frames.is_shielded(place(shield)) && !frames.is_shielded(place(limit)));
        assert_eq!(frames.strike(place(shield), 1), Strike::Kept);
        assert_eq!(frames.struck(place(shield)), None);
        let ended = frames.end(place(shield), shield);
        assert!(ended.raise && ended.outer == place(limit));
        assert_eq!(frames.struck(ended.outer), Some((1, WHY)));
    }

    #[test]
    fn a_limit_inside_a_shield_strikes() {
        let mut frames = Frames::new();
        let shield = frames.add_shield(None, 1, false);
        let limit = frames.add_limit(place(shield), 2, WHY, None);
        assert!(frames.is_shielded(place(limit)));
        assert_eq!(frames.strike(place(limit), 2), Strike::Raise);
        assert_eq!(frames.end(place(limit), limit).outer, place(shield));
        assert!(!frames.end(place(shield), shield).raise);
    }

    #[test]
    fn the_outermost_shield_keeps_a_kill() {
        let mut frames = Frames::new();
        assert!(!frames.keep_kill(None));
        let outer = frames.add_shield(None, 1, false);
        let inner = frames.add_shield(place(outer), 2, false);
        assert!(frames.keep_kill(place(inner)));
        assert!(!frames.end(place(inner), inner).raise);
        assert!(frames.end(place(outer), outer).raise);
    }
}
