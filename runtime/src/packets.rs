//! Packets of tasklets that have ended, kept for their memory: a tasklet whose closure is of a kind that was seen before
//! costs no allocation.
//!
//! - What is kept is empty: no value of the user's is in it, and nobody else has it.
//! - It is bounded: [`KINDS`] kinds, [`EACH`] packets of each, none larger than [`LARGEST`] bytes.

use std::{any::Any, rc::Rc};

const KINDS: usize = 8;
const EACH: usize = 1024;
const LARGEST: usize = 256;

/// The packets that one thread keeps.
#[derive(Debug)]
pub(crate) struct Packets {
    /// A `Vec<Rc<P>>` for each kind, the one that was asked for last in front.
    kinds: Vec<Box<dyn Any>>,
}

impl Packets {
    pub(crate) const fn new() -> Packets {
        Packets { kinds: Vec::new() }
    }

    /// One that was kept.
    #[inline]
    pub(crate) fn take<P: 'static>(&mut self) -> Option<Rc<P>> {
        if let Some(kept) = self.in_front::<P>() {
            return kept.pop();
        }
        self.put_in_front::<P>()?;
        self.in_front::<P>()?.pop()
    }

    /// Keeps one that is empty, if it is the last of its clones.
    #[inline(always)]
    pub(crate) fn keep<P: 'static>(&mut self, packet: Rc<P>) {
        if size_of::<P>() > LARGEST || Rc::strong_count(&packet) > 1 {
            return;
        }
        match self.in_front::<P>() {
            Some(kept) if kept.len() < EACH => kept.push(packet),
            Some(_) => {}
            None => self.keep_in_front(packet),
        }
    }

    #[inline]
    fn in_front<P: 'static>(&mut self) -> Option<&mut Vec<Rc<P>>> {
        self.kinds.first_mut()?.downcast_mut()
    }

    #[inline(never)]
    fn put_in_front<P: 'static>(&mut self) -> Option<()> {
        let place = self.kinds.iter().position(|kept| kept.is::<Vec<Rc<P>>>())?;
        self.kinds.swap(0, place);
        Some(())
    }

    #[inline(never)]
    fn keep_in_front<P: 'static>(&mut self, packet: Rc<P>) {
        if self.put_in_front::<P>().is_none() {
            self.kinds.truncate(KINDS - 1);
            self.kinds.insert(0, Box::new(Vec::<Rc<P>>::new()));
        }
        self.keep(packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_comes_back_and_nothing_else() {
        let mut packets = Packets::new();
        let packet = Rc::new(7_u64);
        let address = Rc::as_ptr(&packet);
        packets.keep(packet);
        assert_eq!(packets.take::<i64>(), None);
        assert_eq!(packets.take::<u64>().map(|packet| Rc::as_ptr(&packet)), Some(address));
        assert_eq!(packets.take::<u64>(), None);
    }

    #[test]
    fn one_that_somebody_has_is_not_kept() {
        let mut packets = Packets::new();
        let packet = Rc::new(7_u64);
        packets.keep(packet.clone());
        assert_eq!(packets.take::<u64>(), None);
    }

    #[test]
    fn they_are_bounded_in_number_kind_and_size() {
        let mut packets = Packets::new();
        (0..2 * EACH).for_each(|_| packets.keep(Rc::new(0_u8)));
        assert_eq!(std::iter::from_fn(|| packets.take::<u8>()).count(), EACH);
        packets.keep(Rc::new([0_u8; LARGEST + 1]));
        assert_eq!(packets.take::<[u8; LARGEST + 1]>(), None);
        macro_rules! keep_some {
            ($($size:literal)*) => { $(packets.keep(Rc::new([0_u16; $size]));)* };
        }
        keep_some!(1 2 3 4 5 6 7 8 9);
        assert_eq!(
            (packets.kinds.len(), packets.take::<[u16; 9]>()),
            (KINDS, Some(Rc::new([0; 9])))
        );
    }
}
