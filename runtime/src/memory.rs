//! The memory that a thread keeps for its next tasklets, and how it is given back.

use crate::current::with;

/// Gives the memory of the calling thread's free stacks back to the system: for after a spike. Returns the bytes of them.
///
/// The stacks of tasklets that have ended are kept for those to come. Without this they hold about 128 MiB of memory at most for
/// each thread, for what is beyond that is given back at once. With this they hold none; and where the neighbours of a
/// stack are free as well, its page tables (0.5 KiB for a stack of 256 KiB) and its address space go too. So does the room
/// for tasklets, timers and turns that nobody needs any more, and what the C library's allocator has free: some 0.4 KiB
/// for each tasklet that there was at once.
///
/// It costs 0.1 µs for each free stack and 0.1 µs for each page; a stack that is used again pays 0.8 µs for its first page.
///
/// ```
/// # use pila_runtime as pila;
/// for _ in 0..1000 {
///     pila::tasklet(pila::schedule);
/// }
/// pila::run();
/// assert!(pila::trim() >= 1000 * 4096);
/// assert_eq!(pila::trim(), 0);
/// ```
#[doc(alias = "malloc_trim")]
pub fn trim() -> usize {
    with(|scheduler| scheduler.trim())
}
