//! [`Role`]: what a worker does, declared where its process comes by.

use std::any::type_name;
use std::ffi::OsString;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::badge::Badge;
use super::error::StartError;
use super::handle::Worker;
use super::hub::{Hub, Replacement};
use super::pool::Pool;
use super::serve;
use super::terms::Terms;
use super::wire;

/// The least that a message may be allowed: what the worker has to say for itself has to fit.
const LEAST_MESSAGE: usize = 64;

/// What worker processes of this program do: a name, and a function from requests to replies.
///
/// A worker is a process of its own that runs the same program from its beginning. So the roles are declared at the
/// beginning of `main`, before anything else is done: in a worker, [`declare`](Self::declare) of its role serves and never
/// returns. Only who has declared a role can start workers, so this cannot be forgotten; and should a worker come by no
/// declaration of its role, or too late, starting it fails with an error that says so, and it can start nothing itself.
///
/// ```
/// use pila_net::process::Role;
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let primes = Role::declare("primes", |(from, to): (u64, u64)| {
///         (from..to).filter(|n| (2..*n).all(|d| n % d != 0)).count()
///     });
///     let worker = primes.start()?;
///     assert_eq!(worker.call((2, 100))?, 25); // computed by another process; only this tasklet waits
///     worker.join()?;
///     Ok(())
/// }
/// ```
///
/// In a test, where `main` is not ours, a test that does nothing else declares the role, and the role's
/// [`args`](Self::args) have the worker run that test alone:
/// `role.args(["--exact", "the_test", "--nocapture", "--test-threads=1"])`.
pub struct Role<Request, Reply> {
    terms: Arc<Terms>,
    /// Made of neither, and may go to any thread.
    types: PhantomData<fn(Request) -> Reply>,
}

impl<Request, Reply> Role<Request, Reply>
where
    Request: Serialize + DeserializeOwned + 'static,
    Reply: Serialize + DeserializeOwned + 'static,
{
    /// Declares what the workers called `name` do. In a process that was started as one of them this serves until the
    /// process ends; in any other it returns at once.
    ///
    /// The worker handles each request in a tasklet of its own: while one waits, the others go on; one that computes stops
    /// the others, as ever. What a handler keeps for the next one belongs into what it captures, or a thread-local. A
    /// handler that panics gives its caller the message, and the worker goes on. A worker ends when it is
    /// [joined](Worker::join), when the process that started it ends, or the thread in it that did, and when it is dropped
    /// there.
    ///
    /// Requests and replies are anything that serde can write and read, as long as it would survive JSON; as there,
    /// `Some(None)` and `Some(())` come as `None`. Values may be nested 32 deep. Two roles may have one name if their types
    /// differ.
    ///
    /// ```
    /// use pila_net::process::Role;
    ///
    /// // First of all, in `main`:
    /// let shout = Role::declare("shout", |text: String| text.to_uppercase());
    /// let count = Role::declare("count", |text: String| text.len());
    ///
    /// assert_eq!(shout.start()?.call("hello".to_string())?, "HELLO");
    /// assert_eq!(count.start()?.call("hello".to_string())?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "serve")]
    pub fn declare(name: &str, handler: impl Fn(Request) -> Reply + 'static) -> Self {
        let title = format!("{name}: {} -> {}", type_name::<Request>(), type_name::<Reply>());
        if let Some(badge) = Badge::of_this_process().filter(|badge| badge.title == title) {
            serve::serve(&badge, name, handler);
        }
        let terms = Terms {
            name: name.into(),
            title: title.into(),
            max_in_flight: 16,
            max_message: 16 << 20,
            start_timeout: Duration::from_secs(10),
            args: Vec::new(),
            envs: Vec::new(),
        };
        Self { terms: Arc::new(terms), types: PhantomData }
    }

    /// How many requests one worker has at one time; 16 if nothing is said. More callers wait in line.
    ///
    /// 1 or 2 for work that computes, so that a worker that is done does not wait for what another has not begun; more for
    /// work that waits.
    ///
    /// # Panics
    /// When it is 0.
    ///
    /// ```
    /// # use pila_net::process::Role;
    /// let role = Role::declare("double", |n: u32| 2 * n).max_in_flight(1);
    /// ```
    #[must_use]
    pub fn max_in_flight(self, requests: usize) -> Self {
        assert!(requests > 0, "a worker that has no request at any time can do nothing: allow one");
        self.with(|terms| terms.max_in_flight = requests)
    }

    /// How many bytes a request or a reply may take; 16 MiB if nothing is said. A longer one is an error of its call alone.
    ///
    /// # Panics
    /// When it is below 64, or above what 32 bits can tell.
    ///
    /// ```
    /// use pila_net::process::{CallReason, Role};
    ///
    /// let role = Role::declare("repeat", |n: usize| "x".repeat(n)).max_message(1000);
    /// let worker = role.start()?;
    /// assert_eq!(worker.call(990)?.len(), 990);
    /// let error = worker.call(1000).unwrap_err();
    /// assert!(matches!(error.reason, CallReason::ReplyTooLong { length: 1003, limit: 1000 }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn max_message(self, bytes: usize) -> Self {
        let allowed = LEAST_MESSAGE..=wire::LONGEST;
        assert!(allowed.contains(&bytes), "messages of {bytes} bytes: allow between {allowed:?}");
        self.with(|terms| terms.max_message = bytes)
    }

    /// How long a worker may take to come to its declaration; 10 seconds if nothing is said.
    ///
    /// ```
    /// # use pila_net::process::Role;
    /// let role = Role::declare("double", |n: u32| 2 * n).start_timeout(std::time::Duration::from_secs(60));
    /// ```
    #[must_use]
    pub fn start_timeout(self, timeout: Duration) -> Self {
        self.with(|terms| terms.start_timeout = timeout)
    }

    /// Adds arguments to the workers' command line, for a `main` that looks at it before the role is declared. If nothing is
    /// said there are none.
    ///
    /// ```
    /// # use pila_net::process::Role;
    /// let role = Role::declare("double", |n: u32| 2 * n).args(["--quiet"]);
    /// ```
    #[must_use]
    pub fn args(self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.with(|terms| terms.args.extend(args.into_iter().map(Into::into)))
    }

    /// Sets a variable of the workers' environment, which is otherwise that of this process.
    ///
    /// ```
    /// # use pila_net::process::Role;
    /// let role = Role::declare("variable", |name: String| std::env::var(name).ok()).env("COLOUR", "blue");
    /// assert_eq!(role.start()?.call("COLOUR".to_string())?.as_deref(), Some("blue"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn env(self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.with(|terms| terms.envs.push((key.into(), value.into())))
    }

    /// Starts a worker and waits until it serves. Only the tasklet waits, but for about a millisecond that starting a
    /// process takes.
    ///
    /// Its standard output and error are those of this process; there is nothing on its standard input.
    ///
    /// # Errors
    /// When the system does not start it, when it ends or takes too long before it serves, when this process is itself a
    /// worker that has not come to the declaration of its own role.
    ///
    /// ```
    /// use pila_net::process::Role;
    ///
    /// let parity = Role::declare("is even", |n: u32| n % 2 == 0);
    /// let worker = parity.start()?;
    /// assert!(worker.call(42)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start(&self) -> Result<Worker<Request, Reply>, StartError> {
        let hub = Hub::open(&self.terms, 1, Replacement::Never)?;
        Ok(Worker::new(Rc::new(hub), &self.terms))
    }

    /// Starts `workers` workers and waits until all serve. One that dies is replaced.
    ///
    /// # Errors
    /// As [`start`](Self::start), if that is so of any of them; then all are ended.
    ///
    /// # Panics
    /// When it is to be of no worker.
    ///
    /// ```
    /// use pila_net::process::Role;
    ///
    /// let square = Role::declare("square", |n: u64| n * n);
    /// let pool = square.max_in_flight(2).pool(3)?;
    /// let squares = pila_runtime::scope(|s| {
    ///     let calls: Vec<_> = (1..=10).map(|n| { let pool = &pool; s.tasklet(move || pool.call(n)) }).collect();
    ///     calls.into_iter().map(|call| call.join().unwrap()).sum::<Result<u64, _>>()
    /// });
    /// assert_eq!(squares?, 385);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pool(&self, workers: usize) -> Result<Pool<Request, Reply>, StartError> {
        assert!(workers > 0, "a pool of no workers can do nothing: start one");
        let hub = Hub::open(&self.terms, workers, Replacement::Always)?;
        Ok(Pool::new(Rc::new(hub), &self.terms))
    }

    fn with(mut self, change: impl FnOnce(&mut Terms)) -> Self {
        change(Arc::make_mut(&mut self.terms));
        self
    }
}

impl<Request, Reply> Clone for Role<Request, Reply> {
    fn clone(&self) -> Self {
        Self { terms: Arc::clone(&self.terms), types: PhantomData }
    }
}

impl<Request, Reply> fmt::Debug for Role<Request, Reply> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Role").field(&self.terms.title).finish()
    }
}
