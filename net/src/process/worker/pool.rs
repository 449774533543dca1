//! [`Pool`]: several workers of one role.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::process::ExitStatus;
use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::CallError;
use super::handle::{call, status};
use super::hub::Hub;
use super::terms::Terms;

/// Several worker processes of one [`Role`](super::Role); made by [`Role::pool`](super::Role::pool). Clones share them.
///
/// A call goes to the worker that has least to do. When all have as many requests as the role allows, callers wait in line,
/// first come first served.
///
/// A worker that dies is replaced: at once if it had served for a second, else after a pause, which doubles with each time
/// from 10 ms to a second. The requests that it had are errors of their callers, with the requests handed back; they are not
/// made again, for nobody but the caller knows whether they may run twice. Only those of which the worker had not all yet,
/// and which it so cannot have begun with, go to another. A death is noticed, and the worker replaced, while someone calls or
/// joins.
///
/// It belongs to the thread that has started it, and ends with that thread. Dropping the last clone kills the processes.
///
/// ```
/// use pila_net::process::{CallReason, Role};
///
/// let role = Role::declare("moody", |n: u32| {
///     if n == 13 {
///         std::process::abort();
///     }
///     2 * n
/// });
/// let pool = role.pool(2)?;
/// let error = pool.call(13).unwrap_err();
/// assert!(matches!(error.reason, CallReason::Died(_)) && error.may_have_run);
/// assert_eq!(pool.call(21)?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pool<Request, Reply> {
    hub: Rc<Hub>,
    terms: Arc<Terms>,
    types: PhantomData<fn(Request) -> Reply>,
}

impl<Request, Reply> Pool<Request, Reply>
where
    Request: Serialize + DeserializeOwned + 'static,
    Reply: Serialize + DeserializeOwned + 'static,
{
    pub(super) fn new(hub: Rc<Hub>, terms: &Arc<Terms>) -> Self {
        Self { hub, terms: Arc::clone(terms), types: PhantomData }
    }

    /// Has one of the workers handle `request`, and waits for the reply.
    ///
    /// # Errors
    /// As [`Worker::call`](super::Worker::call). When no worker runs and another cannot be started, who waits in line is
    /// told so, and the next call has it tried again.
    ///
    /// ```
    /// # use pila_net::process::Role;
    /// let shout = Role::declare("shout", |text: String| text.to_uppercase());
    /// let pool = shout.pool(2)?;
    /// assert_eq!(pool.call("hello".to_string())?, "HELLO");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "send")]
    pub fn call(&self, request: Request) -> Result<Reply, CallError<Request>> {
        call(&self.hub, &self.terms, &request).map_err(|failure| CallError::new(request, failure))
    }

    /// Takes no more requests, waits until those that there are have been answered and all processes have ended, and gives
    /// the statuses of the last ones.
    ///
    /// # Errors
    /// As [`Worker::join`](super::Worker::join).
    ///
    /// ```
    /// # use pila_net::process::Role;
    /// let double = Role::declare("double", |n: u32| 2 * n);
    /// let pool = double.pool(2)?;
    /// assert!(pool.join()?.iter().all(|status| status.success()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join(&self) -> io::Result<Vec<ExitStatus>> {
        self.hub.join()?.iter().map(status).collect()
    }

    /// Ends all its processes by force. Those who wait for them get the error; the next call starts others.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::process::Role;
    /// let double = Role::declare("double", |n: u32| 2 * n);
    /// let pool = double.pool(2)?;
    /// pool.kill()?;
    /// assert!(pool.join()?.iter().all(|status| !status.success()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn kill(&self) -> io::Result<()> {
        self.hub.kill()
    }

    /// The numbers of the processes that are not known to have ended.
    ///
    /// ```
    /// # use pila_net::process::Role;
    /// let who = Role::declare("who", |()| std::process::id());
    /// let pool = who.pool(2)?;
    /// assert!(pool.ids().contains(&pool.call(())?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn ids(&self) -> Vec<u32> {
        self.hub.ids()
    }

    /// How many requests the workers have, those among them whose callers are gone.
    ///
    /// ```
    /// # use pila_net::process::Role;
    /// let double = Role::declare("double", |n: u32| 2 * n);
    /// assert_eq!(double.pool(2)?.in_flight(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.hub.in_flight()
    }

    /// How many requests wait in line.
    ///
    /// ```
    /// # use pila_net::process::Role;
    /// let double = Role::declare("double", |n: u32| 2 * n);
    /// assert_eq!(double.pool(2)?.in_line(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn in_line(&self) -> usize {
        self.hub.in_line()
    }

    /// How many times another worker was started, or could not be, in the place of one that had died.
    ///
    /// ```
    /// # use pila_net::process::Role;
    /// let leave = Role::declare("leave", |()| -> () { std::process::exit(0) });
    /// let pool = leave.pool(1)?;
    /// for _ in 0..2 {
    ///     pool.call(()).unwrap_err();
    /// }
    /// assert_eq!(pool.replaced(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn replaced(&self) -> u64 {
        self.hub.replaced()
    }
}

impl<Request, Reply> Clone for Pool<Request, Reply> {
    fn clone(&self) -> Self {
        Self { hub: Rc::clone(&self.hub), terms: Arc::clone(&self.terms), types: PhantomData }
    }
}

impl<Request, Reply> fmt::Debug for Pool<Request, Reply> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut pool = f.debug_struct("Pool");
        pool.field("role", &self.terms.name).field("ids", &self.hub.ids());
        pool.field("in_flight", &self.hub.in_flight()).finish()
    }
}
