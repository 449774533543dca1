//! Variables of which every tasklet has a value of its own.
//!
//! - A tasklet's values are dropped when it has done its work, been killed or panicked, on its own stack, the youngest
//!   first, before it counts as ended: whoever joins it goes on later.
//! - A value is lent inside a shared pointer to it, so nothing that others do can take it away meanwhile.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use crate::{
    current::with,
    locals::Found,
    scheduler::{Payload, Scheduler, drop_quietly},
};

/// Declares variables of which every tasklet, main included, has a value of its own, made when it first uses it.
///
/// It reads as `std::thread_local!`. Each is a [`LocalKey`].
///
/// ```
/// # use pila_runtime as pila;
/// use std::cell::Cell;
///
/// pila::task_local! {
///     /// The request that the tasklet serves.
///     static REQUEST: Cell<u32> = Cell::new(0);
/// }
///
/// for number in 1..=3 {
///     pila::tasklet(move || {
///         REQUEST.set(number);
///         pila::schedule();
///         assert_eq!(REQUEST.get(), number);
///     });
/// }
/// pila::run();
/// assert_eq!(REQUEST.get(), 0);
/// ```
#[macro_export]
macro_rules! task_local {
    () => {};
    ($(#[$attribute:meta])* $visibility:vis static $name:ident: $type:ty = $init:expr; $($rest:tt)*) => {
        $crate::task_local!($(#[$attribute])* $visibility static $name: $type = $init);
        $crate::task_local!($($rest)*);
    };
    ($(#[$attribute:meta])* $visibility:vis static $name:ident: $type:ty = $init:expr) => {
        $(#[$attribute])*
        $visibility static $name: $crate::LocalKey<$type> = $crate::LocalKey::new(|| $init);
    };
}

/// A variable of which every tasklet has a value of its own; made by [`task_local!`](crate::task_local).
///
/// A value is dropped on its tasklet's stack before the tasklet counts as ended, the youngest first. Its destructor may
/// use older values and make those of other variables, which are then dropped in their turn; what was dropped does not
/// come back. It may wait, unless the tasklet was killed. When it panics, so does the tasklet.
///
/// Main's values are dropped when its thread ends, and their destructors find no others. Those of a tasklet that is
/// suspended when its thread ends are leaked with its stack.
///
/// ```
/// # use pila_runtime as pila;
/// use std::cell::Cell;
///
/// pila::task_local!(static DEPTH: Cell<u32> = Cell::new(0));
///
/// DEPTH.set(1);
/// assert_eq!(pila::tasklet(|| DEPTH.get()).join().unwrap(), 0);
/// assert_eq!(DEPTH.get(), 1);
/// ```
pub struct LocalKey<T: 'static> {
    init: fn() -> T,
}

impl<T: 'static> LocalKey<T> {
    #[doc(hidden)]
    #[must_use]
    pub const fn new(init: fn() -> T) -> LocalKey<T> {
        LocalKey { init }
    }

    /// Calls `f` with the value of the tasklet that runs, making it if need be. `f` may wait.
    ///
    /// # Panics
    /// When the value was dropped: the tasklet, or its thread, is ending.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// pila::task_local!(static NAME: String = "nobody".to_owned());
    /// assert_eq!(NAME.with(|name| name.len()), 6);
    /// ```
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        match self.try_with(f) {
            Ok(result) => result,
            Err(error) => panic!("{error}"),
        }
    }

    /// As [`with`](LocalKey::with), for destructors, which may come too late.
    ///
    /// # Errors
    /// [`AccessError`] when the value was dropped.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// pila::task_local!(static NAME: String = "nobody".to_owned());
    /// assert_eq!(NAME.try_with(String::len), Ok(6));
    /// ```
    pub fn try_with<R>(&'static self, f: impl FnOnce(&T) -> R) -> Result<R, AccessError> {
        let value = with(|scheduler| self.value(scheduler))?;
        Ok(f(value.downcast_ref().expect("a variable's values are of its type")))
    }

    fn value(&'static self, scheduler: &Scheduler) -> Result<Rc<dyn Any>, AccessError> {
        if let Some(value) = self.find(scheduler)? {
            return Ok(value);
        }
        let value: Rc<dyn Any> = Rc::new((self.init)());
        // The initial value may have been made with the help of this very variable: then the first one stays.
        if let Some(first) = self.find(scheduler)? {
            return Ok(first);
        }
        let mut core = scheduler.core.borrow_mut();
        let current = core.current as usize;
        let task = &mut core.tasks[current];
        if !task.locals_over {
            task.rare().locals.insert(self.key(), value.clone());
        }
        Ok(value)
    }

    fn find(&'static self, scheduler: &Scheduler) -> Result<Option<Rc<dyn Any>>, AccessError> {
        let found = {
            let core = scheduler.core.borrow();
            core.tasks.get(core.current as usize).map(|task| task.find_local(self.key()))
        };
        match found {
            Some(Found::Value(value)) => Ok(Some(value)),
            Some(Found::Missing) => Ok(None),
            Some(Found::Gone) => Err(AccessError),
            None => settle_main(scheduler).map(|()| None),
        }
    }

    /// Where a static is says which one it is.
    fn key(&'static self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// Gives main its slot in the table, unless its thread is ending.
#[cold]
fn settle_main(scheduler: &Scheduler) -> Result<(), AccessError> {
    let _ = scheduler.current();
    if scheduler.core.borrow().tasks.is_empty() { Err(AccessError) } else { Ok(()) }
}

impl<T: 'static> LocalKey<Cell<T>> {
    /// Sets the value.
    ///
    /// # Panics
    /// As [`with`](LocalKey::with).
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// # use std::cell::Cell;
    /// pila::task_local!(static COUNT: Cell<u32> = Cell::new(0));
    /// COUNT.set(7);
    /// assert_eq!(COUNT.get(), 7);
    /// ```
    pub fn set(&'static self, value: T) {
        self.with(|cell| cell.set(value));
    }

    /// A copy of the value.
    ///
    /// # Panics
    /// As [`with`](LocalKey::with).
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// # use std::cell::Cell;
    /// pila::task_local!(static COUNT: Cell<u32> = Cell::new(7));
    /// assert_eq!(COUNT.get(), 7);
    /// ```
    pub fn get(&'static self) -> T
    where
        T: Copy,
    {
        self.with(Cell::get)
    }

    /// Takes the value and leaves the default one.
    ///
    /// # Panics
    /// As [`with`](LocalKey::with).
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// # use std::cell::Cell;
    /// pila::task_local!(static COUNT: Cell<u32> = Cell::new(7));
    /// assert_eq!((COUNT.take(), COUNT.get()), (7, 0));
    /// ```
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(Cell::take)
    }

    /// Sets the value and gives the one that was there.
    ///
    /// # Panics
    /// As [`with`](LocalKey::with).
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// # use std::cell::Cell;
    /// pila::task_local!(static COUNT: Cell<u32> = Cell::new(7));
    /// assert_eq!((COUNT.replace(8), COUNT.get()), (7, 8));
    /// ```
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> LocalKey<RefCell<T>> {
    /// Calls `f` with the value.
    ///
    /// # Panics
    /// As [`with`](LocalKey::with), and when it is borrowed mutably.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// # use std::cell::RefCell;
    /// pila::task_local!(static LOG: RefCell<Vec<u32>> = RefCell::default());
    /// LOG.with_borrow_mut(|log| log.push(7));
    /// assert_eq!(LOG.with_borrow(|log| log.len()), 1);
    /// ```
    pub fn with_borrow<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        self.with(|cell| f(&cell.borrow()))
    }

    /// Calls `f` with the value, to change it.
    ///
    /// # Panics
    /// As [`with`](LocalKey::with), and when it is borrowed.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// # use std::cell::RefCell;
    /// pila::task_local!(static LOG: RefCell<Vec<u32>> = RefCell::default());
    /// LOG.with_borrow_mut(|log| log.extend([1, 2]));
    /// assert_eq!(LOG.take(), [1, 2]);
    /// ```
    pub fn with_borrow_mut<R>(&'static self, f: impl FnOnce(&mut T) -> R) -> R {
        self.with(|cell| f(&mut cell.borrow_mut()))
    }

    /// Sets the value.
    ///
    /// # Panics
    /// As [`with`](LocalKey::with), and when it is borrowed.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// # use std::cell::RefCell;
    /// pila::task_local!(static NAME: RefCell<String> = RefCell::default());
    /// NAME.set("seven".to_owned());
    /// assert_eq!(NAME.take(), "seven");
    /// ```
    pub fn set(&'static self, value: T) {
        drop(self.replace(value));
    }

    /// Takes the value and leaves the default one.
    ///
    /// # Panics
    /// As [`with`](LocalKey::with), and when it is borrowed.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// # use std::cell::RefCell;
    /// pila::task_local!(static NAME: RefCell<String> = RefCell::new("seven".to_owned()));
    /// assert_eq!((NAME.take().as_str(), NAME.take().as_str()), ("seven", ""));
    /// ```
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(RefCell::take)
    }

    /// Sets the value and gives the one that was there.
    ///
    /// # Panics
    /// As [`with`](LocalKey::with), and when it is borrowed.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// # use std::cell::RefCell;
    /// pila::task_local!(static NAME: RefCell<String> = RefCell::new("seven".to_owned()));
    /// assert_eq!(NAME.replace("eight".to_owned()), "seven");
    /// assert_eq!(NAME.take(), "eight");
    /// ```
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}

/// The value of a task-local variable was dropped: the tasklet that runs, or its thread, is ending.
///
/// ```
/// # use pila_runtime as pila;
/// use std::cell::Cell;
///
/// pila::task_local!(static COUNT: Cell<u32> = Cell::new(7));
///
/// struct Late;
/// impl Drop for Late {
///     fn drop(&mut self) {
///         assert_eq!(COUNT.try_with(Cell::get), Err(pila::AccessError));
///     }
/// }
/// // A result that nobody holds is dropped after the task-local values.
/// drop(pila::tasklet(|| Late));
/// pila::run();
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccessError;

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a task-local variable was used after its value was dropped at the tasklet's end",
        )
    }
}

impl std::error::Error for AccessError {}

/// Drops the values of the tasklet that runs and has done its work. What is raised by a destructor takes the place of
/// a result, but not of what was raised before.
#[inline(always)]
pub(crate) fn drop_all<T>(
    scheduler: &Scheduler,
    mut result: Result<T, Payload>,
) -> Result<T, Payload> {
    loop {
        let youngest = {
            let mut core = scheduler.core.borrow_mut();
            let current = core.current as usize;
            core.tasks[current].take_last_local()
        };
        let Some(value) = youngest else {
            return result;
        };
        if let Err(raised) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
            result = or_raised(result, raised);
        }
    }
}

#[cold]
fn or_raised<T>(result: Result<T, Payload>, raised: Payload) -> Result<T, Payload> {
    match result {
        Ok(value) => {
            drop_quietly(value);
            Err(raised)
        }
        Err(first) => {
            drop_quietly(raised);
            Err(first)
        }
    }
}
