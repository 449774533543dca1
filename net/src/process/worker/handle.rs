//! [`Worker`]: a worker process that takes calls.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::process::ExitStatus;
use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec;
use super::error::{CallError, CallReason, Failure, WorkerDied};
use super::hub::Hub;
use super::terms::Terms;
use super::wire::{Kind, Parcel};

/// A process of this program that handles requests; made by [`Role::start`](super::Role::start). Clones share it.
///
/// Its channel is bounded: the worker has no more requests at one time than its role allows, and whoever calls beyond that
/// waits in line, first come first served. So does who calls a worker that does not read.
///
/// It belongs to the thread that has started it, and ends with that thread. Dropping the last clone kills the process.
///
/// ```
/// use pila_net::process::Role;
/// use std::time::Duration;
///
/// let role = Role::declare("nap", |time: Duration| pila_runtime::sleep(time));
/// let worker = role.start()?;
/// let naps: Vec<_> = (0..10)
///     .map(|_| {
///         let worker = worker.clone();
///         pila_runtime::tasklet(move || worker.call(Duration::from_millis(30)))
///     })
///     .collect();
/// for nap in naps {
///     nap.join()??; // all at once, in the worker as here
/// }
/// assert!(worker.join()?.success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Worker<Request, Reply> {
    hub: Rc<Hub>,
    terms: Arc<Terms>,
    types: PhantomData<fn(Request) -> Reply>,
}

impl<Request, Reply> Worker<Request, Reply>
where
    Request: Serialize + DeserializeOwned + 'static,
    Reply: Serialize + DeserializeOwned + 'static,
{
    pub(super) fn new(hub: Rc<Hub>, terms: &Arc<Terms>) -> Self {
        Self { hub, terms: Arc::clone(terms), types: PhantomData }
    }

    /// Has the worker handle `request`, and waits for the reply.
    ///
    /// A caller that is killed, or out of time, leaves the channel in order: if nothing of its request has been sent,
    /// nothing will be; otherwise the worker goes on with it, it counts as in flight until it is answered, and the answer is
    /// dropped.
    ///
    /// # Errors
    /// Each hands the request back, and says whether it may have run. When the worker dies, all who wait for it are told
    /// within 10 ms. When the handler panics, when a message is too long or cannot be written or read, the worker goes on.
    ///
    /// ```
    /// use pila_net::process::{CallReason, Role};
    ///
    /// let parse = Role::declare("parse", |text: String| text.parse::<i32>().unwrap());
    /// let worker = parse.start()?;
    /// let error = worker.call("forty-two".to_string()).unwrap_err();
    /// assert!(matches!(error.reason, CallReason::Panicked(_)));
    /// assert_eq!(error.request, "forty-two");
    /// assert_eq!(worker.call("42".to_string())?, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "send")]
    pub fn call(&self, request: Request) -> Result<Reply, CallError<Request>> {
        call(&self.hub, &self.terms, &request).map_err(|failure| CallError::new(request, failure))
    }

    /// Takes no more requests, waits until those that there are have been answered and the process has ended, and gives its
    /// status: a success, unless it died before. As often as it is called.
    ///
    /// # Errors
    /// When the tasklet may not wait any more; when someone else in this program has asked for the status.
    ///
    /// ```
    /// # use pila_net::process::{CallReason, Role};
    /// let double = Role::declare("double", |n: u32| 2 * n);
    /// let worker = double.start()?;
    /// assert_eq!(worker.call(21)?, 42);
    /// assert!(worker.join()?.success());
    /// assert!(matches!(worker.call(21).unwrap_err().reason, CallReason::Closed));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join(&self) -> io::Result<ExitStatus> {
        let died = self.hub.join()?.pop().expect("there was one");
        status(&died)
    }

    /// Ends the process by force. Those who wait for it get the error.
    ///
    /// # Errors
    /// Those of the system call.
    ///
    /// ```
    /// # use pila_net::process::{CallReason, Role};
    /// use std::os::unix::process::ExitStatusExt;
    ///
    /// let hang = Role::declare("hang", |()| pila_runtime::sleep(std::time::Duration::MAX));
    /// let worker = hang.start()?;
    /// let theirs = worker.clone();
    /// let caller = pila_runtime::tasklet(move || theirs.call(()));
    /// pila_runtime::schedule();
    /// worker.kill()?;
    /// let CallReason::Died(died) = caller.join()?.unwrap_err().reason else { unreachable!() };
    /// assert_eq!(died.status.unwrap().signal(), Some(9));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn kill(&self) -> io::Result<()> {
        self.hub.kill()
    }

    /// The number of the process. `None` when it is known to have ended.
    ///
    /// ```
    /// # use pila_net::process::Role;
    /// let who = Role::declare("who", |()| std::process::id());
    /// let worker = who.start()?;
    /// assert_eq!(worker.id(), Some(worker.call(())?));
    /// worker.join()?;
    /// assert_eq!(worker.id(), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    #[doc(alias = "pid")]
    pub fn id(&self) -> Option<u32> {
        self.hub.ids().pop()
    }

    /// How many requests the worker has, those among them whose callers are gone.
    ///
    /// ```
    /// # use pila_net::process::Role;
    /// let double = Role::declare("double", |n: u32| 2 * n);
    /// let worker = double.start()?;
    /// let theirs = worker.clone();
    /// let caller = pila_runtime::tasklet(move || theirs.call(21));
    /// pila_runtime::schedule();
    /// assert_eq!(worker.in_flight(), 1);
    /// caller.join()??;
    /// assert_eq!(worker.in_flight(), 0);
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
    /// let double = Role::declare("double", |n: u32| 2 * n).max_in_flight(1);
    /// let worker = double.start()?;
    /// for n in 0..3 {
    ///     let worker = worker.clone();
    ///     pila_runtime::tasklet(move || worker.call(n));
    /// }
    /// pila_runtime::schedule();
    /// assert_eq!((worker.in_flight(), worker.in_line()), (1, 2));
    /// pila_runtime::run();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn in_line(&self) -> usize {
        self.hub.in_line()
    }
}

/// One call, whoever handles it.
pub(super) fn call<Request: Serialize, Reply: DeserializeOwned>(
    hub: &Hub,
    terms: &Terms,
    request: &Request,
) -> Result<Reply, Failure> {
    let parcel = Parcel::new(Kind::Request, |bytes| codec::encode(request, bytes));
    let parcel = parcel.map_err(|why| Failure::unsent(CallReason::Unwritten(why)))?;
    let (length, limit) = (parcel.len(), terms.max_message);
    if length > limit {
        return Err(Failure::unsent(CallReason::RequestTooLong { length, limit }));
    }
    let reply = hub.call(parcel)?;
    codec::decode(&reply).map_err(|why| Failure::sent(CallReason::Unreadable(why)))
}

/// How a process ended, for whoever waits for that.
pub(super) fn status(died: &WorkerDied) -> io::Result<ExitStatus> {
    died.status.ok_or_else(|| io::Error::other(died.clone()))
}

impl<Request, Reply> Clone for Worker<Request, Reply> {
    fn clone(&self) -> Self {
        Self { hub: Rc::clone(&self.hub), terms: Arc::clone(&self.terms), types: PhantomData }
    }
}

impl<Request, Reply> fmt::Debug for Worker<Request, Reply> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut worker = f.debug_struct("Worker");
        worker.field("role", &self.terms.name).field("ids", &self.hub.ids());
        worker.field("in_flight", &self.hub.in_flight()).finish()
    }
}
