//! Scopes: which tasklets a call of `scope` has to see ended before it returns.
//!
//! - A tasklet is on its scope's list from its creation until it has left its stack for the last time, or its closure,
//!   never started, is dropped.

use std::rc::Rc;

use slab::Slab;

use crate::{
    frame::FrameKey,
    scheduler::Payload,
    table::{Job, Key},
    wake::{Slot, Ticket},
};

/// Where a tasklet stands in its scope's list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    pub(crate) scope: u32,
    place: Slot,
}

/// The scopes of a thread that have not returned.
#[derive(Debug)]
pub(crate) struct Scopes {
    scopes: Slab<Scope>,
}

/// A call of `scope`.
#[derive(Debug)]
pub(crate) struct Scope {
    /// Whose call it is.
    pub(crate) owner: Key,
    /// The limit that ends the call's body when a tasklet of the scope panics.
    pub(crate) frame: FrameKey,
    pub(crate) children: Slab<Key>,
    /// Whether it takes no new ones and has killed those it has.
    pub(crate) ending: bool,
    /// The owner's wait for the last of them to end.
    pub(crate) waiter: Option<Ticket>,
    /// The first panic of one whose handle nobody held.
    pub(crate) panic: Option<Payload>,
    /// Those that found no stack: their closures borrow from the owner, which drops them.
    pub(crate) leftovers: Vec<(Member, Rc<dyn Job>)>,
}

impl Scopes {
    pub(crate) const fn new() -> Scopes {
        Scopes { scopes: Slab::new() }
    }

    pub(crate) fn begin(&mut self, owner: Key, frame: FrameKey) -> u32 {
        let scope = Scope {
            owner,
            frame,
            children: Slab::new(),
            ending: false,
            waiter: None,
            panic: None,
            leftovers: Vec::new(),
        };
        self.scopes.insert(scope) as u32
    }

    pub(crate) fn end(&mut self, scope: u32) -> Scope {
        self.scopes.remove(scope as usize)
    }

    pub(crate) fn get(&mut self, scope: u32) -> &mut Scope {
        &mut self.scopes[scope as usize]
    }

    /// Adds a tasklet that is about to have `key`.
    pub(crate) fn join(&mut self, scope: u32, key: Key) -> Member {
        Member { scope, place: Slot::new(self.scopes[scope as usize].children.insert(key)) }
    }

    /// Takes one that has ended off its list. Says whom to wake, when it was the last.
    pub(crate) fn leave(&mut self, member: Member) -> Option<Ticket> {
        let scope = &mut self.scopes[member.scope as usize];
        scope.children.remove(member.place.index());
        if scope.children.is_empty() { scope.waiter.take() } else { None }
    }

    /// Whose scope a tasklet belongs to, and whether it is ending.
    pub(crate) fn owner(&self, member: Member) -> (Key, bool) {
        let scope = &self.scopes[member.scope as usize];
        (scope.owner, scope.ending)
    }

    /// The tasklets for whose end `owner` waits in an ending scope.
    pub(crate) fn survivors(&self, owner: Key) -> impl Iterator<Item = Key> {
        let theirs = move |scope: &&Scope| scope.owner == owner && scope.ending;
        let scopes = self.scopes.iter().map(|(_, scope)| scope).filter(theirs);
        scopes.flat_map(|scope| scope.children.iter().map(|(_, &child)| child))
    }
}
