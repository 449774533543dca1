//! More stack for the time of a call, for deep recursion.

use std::{
    io,
    panic::{Location, resume_unwind},
};

use crate::current::with;

/// What [`on_big_stack`] gives.
const BIG: usize = 64 << 20;

/// Calls `f` on a stack of 64 MiB and returns what it returns: for deep recursion in a tasklet, whose own stack is small.
///
/// The caller stays who it is: the current tasklet, its name, its task-locals and its waits are the same in there, and
/// `f` may wait, be killed and panic as anywhere else. It may borrow what the caller has. Calls may nest.
///
/// Of the 64 MiB only the pages that are touched take memory. They are kept warm for the next call, or given back: see
/// [`trim`](crate::trim). A call costs 0.1 µs besides.
///
/// # Errors
/// When no such stack can be had: the message says what the system refused. At the end of the thread, in a destructor of
/// a thread-local. `f` is dropped then.
///
/// # Panics
/// With the panic of `f`.
///
/// ```
/// # use pila_runtime as pila;
/// enum List {
///     End,
///     Item(Box<List>),
/// }
///
/// fn length(list: &List) -> usize {
///     match list {
///         List::End => 0,
///         List::Item(rest) => 1 + length(rest),
///     }
/// }
///
/// let tasklet = pila::tasklet(|| {
///     let list = (0..50_000).fold(List::End, |list, _| List::Item(Box::new(list)));
///     // To drop it takes as deep a recursion.
///     pila::on_big_stack(move || length(&list))
/// });
/// assert_eq!(tasklet.join().unwrap()?, 50_000);
/// # Ok::<(), std::io::Error>(())
/// ```
#[doc(alias = "stacker")]
#[doc(alias = "maybe_grow")]
#[track_caller]
pub fn on_big_stack<T>(f: impl FnOnce() -> T) -> io::Result<T> {
    on_stack_of(BIG, f)
}

/// As [`on_big_stack`], on a stack of at least `bytes`: the next power of two, 32 KiB or more.
///
/// # Errors
/// As [`on_big_stack`]. `InvalidInput` for a stack of over 1 TiB.
///
/// # Panics
/// With the panic of `f`.
///
/// ```
/// # use pila_runtime as pila;
/// let sum = pila::on_stack_of(1 << 30, || {
///     let megabytes = std::hint::black_box([1u8; 4 << 20]);
///     megabytes.iter().map(|&byte| usize::from(byte)).sum::<usize>()
/// })?;
/// assert_eq!(sum, 4 << 20);
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn on_stack_of<T>(bytes: usize, f: impl FnOnce() -> T) -> io::Result<T> {
    // Both stay where they are: the caller's stack may have no room for copies of them.
    let (mut f, mut value) = (Some(f), None);
    let mut call = || value = f.take().map(|f| f());
    let place = Location::caller();
    match with(|scheduler| scheduler.call_on_stack(bytes, place, &mut call))? {
        Ok(()) => Ok(value.expect("a call that has returned left its value")),
        Err(payload) => resume_unwind(payload),
    }
}
