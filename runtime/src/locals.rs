//! The values of one tasklet's task-local variables.
//!
//! - A value that was dropped does not come back: so dropping all of them ends, whatever their destructors touch.
//! - Nothing here drops a value: destructors are the user's, and run where the caller wants them to.

use std::{any::Any, rc::Rc};

/// One tasklet's values, in the order of their creation.
#[derive(Default, Debug)]
pub(crate) enum Locals {
    #[default]
    Untouched,
    Alive(Box<Values>),
    /// All are dropped.
    Over,
}

#[derive(Default, Debug)]
pub(crate) struct Values(Vec<Local>);

#[derive(Debug)]
struct Local {
    /// Which variable.
    key: usize,
    /// `None` once it was dropped.
    value: Option<Rc<dyn Any>>,
}

/// What there is of a variable.
#[derive(Debug)]
pub(crate) enum Found {
    Value(Rc<dyn Any>),
    /// Nothing yet.
    Missing,
    /// Nothing any more.
    Gone,
}

impl Locals {
    pub(crate) fn find(&self, key: usize) -> Found {
        let values = match self {
            Locals::Untouched => return Found::Missing,
            Locals::Alive(values) => &values.0,
            Locals::Over => return Found::Gone,
        };
        match values.iter().find(|local| local.key == key) {
            None => Found::Missing,
            Some(Local { value: Some(value), .. }) => Found::Value(value.clone()),
            Some(Local { value: None, .. }) => Found::Gone,
        }
    }

    /// Adds the value of a variable that is missing. The caller keeps it too: it may be too late to add it.
    pub(crate) fn insert(&mut self, key: usize, value: Rc<dyn Any>) {
        if let Locals::Untouched = self {
            *self = Locals::Alive(Box::default());
        }
        if let Locals::Alive(values) = self {
            values.0.push(Local { key, value: Some(value) });
        }
    }

    /// Takes the youngest. When there is none left, none can be added any more.
    #[inline]
    pub(crate) fn take_last(&mut self) -> Option<Rc<dyn Any>> {
        if let Locals::Alive(values) = self {
            let last = values.0.iter_mut().rev().find_map(|local| local.value.take());
            if last.is_some() {
                return last;
            }
        }
        *self = Locals::Over;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(found: Found) -> &'static str {
        match found {
            Found::Value(value) => value.downcast_ref::<&str>().unwrap(),
            Found::Missing => "missing",
            Found::Gone => "gone",
        }
    }

    #[test]
    fn the_youngest_is_taken_first_and_does_not_come_back() {
        let mut locals = Locals::default();
        assert_eq!(text(locals.find(1)), "missing");
        locals.insert(1, Rc::new("first"));
        locals.insert(2, Rc::new("second"));
        assert_eq!(text(locals.find(1)), "first");
        assert_eq!(text(Found::Value(locals.take_last().unwrap())), "second");
        assert_eq!(text(locals.find(2)), "gone");
        locals.insert(3, Rc::new("third"));
        assert_eq!(text(Found::Value(locals.take_last().unwrap())), "third");
        assert_eq!(text(Found::Value(locals.take_last().unwrap())), "first");
        assert_eq!(text(locals.find(4)), "missing");
        assert!(locals.take_last().is_none());
        assert_eq!(text(locals.find(4)), "gone");
    }
}
