//! Something on a frame that tasklets borrow, and which knows whether it is still there.

use std::cell::Cell;

/// What lies on a live frame.
const ALIVE: u64 = 0x0a11_0e0a_11fe_0a11;

/// Borrowed by the tasklets of a scope. It must outlive them.
pub(crate) struct Ground {
    alive: Cell<u64>,
    made: Cell<u32>,
    dropped: Cell<u32>,
    /// On the heap, where AddressSanitizer sees a use of what was freed.
    touched: Box<Cell<u32>>,
}

impl Ground {
    pub(crate) fn new() -> Ground {
        Ground {
            alive: Cell::new(ALIVE),
            made: Cell::new(0),
            dropped: Cell::new(0),
            touched: Box::new(Cell::new(0)),
        }
    }

    /// Fails when this is gone.
    #[track_caller]
    pub(crate) fn touch(&self) {
        assert_eq!(self.alive.get(), ALIVE, "this was used after its frame was gone");
        self.touched.set(self.touched.get() + 1);
    }

    /// Something that borrows this, and uses it when it is dropped.
    pub(crate) fn borrower(&self) -> Borrower<'_> {
        self.touch();
        self.made.set(self.made.get() + 1);
        Borrower(self)
    }

    /// How many borrowers there were, and how many of them were not dropped.
    pub(crate) fn borrowers(&self) -> (u32, u32) {
        (self.made.get(), self.made.get() - self.dropped.get())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.touch();
        self.alive.set(0);
    }
}

pub(crate) struct Borrower<'a>(&'a Ground);

impl Borrower<'_> {
    #[track_caller]
    pub(crate) fn touch(&self) {
        self.0.touch();
    }
}

impl Drop for Borrower<'_> {
    fn drop(&mut self) {
        self.0.touch();
        self.0.dropped.set(self.0.dropped.get() + 1);
    }
}
