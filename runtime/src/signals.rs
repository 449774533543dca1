//! Signals of the system, received like messages.
//!
//! - What is asked for is heard from before `signals` returns until its [`Signals`] is dropped; `herald` hears it.
//! - A channel for a [`Select`](crate::Select) is fed by a tasklet, the pump, which takes what it can get and ends with its
//!   `Signals`.

use std::{
    cell::{OnceCell, RefCell},
    collections::BTreeSet,
    io,
    rc::Rc,
    time::Duration,
};

use crate::{
    channel::Channel,
    error::{ReceiveError, Refused},
    herald::Ear,
    signal::Signal,
    tasklet::{Handle, tasklet},
};

/// Listens for `signals` from now on: they are received like messages, and no longer have their default effect.
///
/// Every `Signals` gets each signal, on whatever threads they are. A signal that comes again before it was received counts
/// once, as the system does it with one that is pending. A wait for signals is a wait for the outside: it is no deadlock,
/// and [`run`](crate::run) does not end while a tasklet waits so.
///
/// The first call begins a thread that hears the signals of the whole process. The handler itself only writes a byte to a
/// pipe; it takes a few KiB of whatever stack is in use.
///
/// # Errors
/// `InvalidInput` for none at all and for those that no program can receive, as `SIGKILL` and `SIGSEGV`; what the system
/// says when it refuses the handler or the thread.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::Signal;
///
/// let signals = pila::signals([Signal::INTERRUPT, Signal::USER1])?;
/// signal_hook::low_level::raise(Signal::USER1.number())?; // as `kill -USR1` does
/// assert_eq!(signals.receive().unwrap(), Signal::USER1);
///
/// let error = pila::signals(Signal::from_number(9)).unwrap_err();
/// assert!(error.to_string().starts_with("SIGKILL cannot be received: "));
/// # Ok::<(), std::io::Error>(())
/// ```
#[doc(alias = "ctrl_c")]
pub fn signals(signals: impl IntoIterator<Item = Signal>) -> io::Result<Signals> {
    let signals: BTreeSet<Signal> = signals.into_iter().collect();
    let refused = |message: String| Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    for signal in &signals {
        if let Some(why) = signal.cannot_be_received() {
            return refused(format!("{signal} cannot be received: {why}; leave it out"));
        }
    }
    if signals.is_empty() {
        return refused("signals were asked for, but none was named; name one".into());
    }
    let ear = Rc::new(Ear::new(signals)?);
    Ok(Signals { ear, channel: OnceCell::new(), pump: RefCell::new(None) })
}

/// Signals of the system, to be received like messages. Made by [`signals`].
///
/// When it is dropped, signals that nobody else listens for have their former effect again: Ctrl-C ends the process. What
/// has come by then and was not received is dropped.
///
/// While [`Group::stop`](crate::Group::stop) is under way, the second signal of `SIGINT`, `SIGTERM` and `SIGQUIT` is not
/// received: it ends the process at once, even one whose thread hangs.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::Signal;
///
/// let signals = pila::signals([Signal::HANGUP, Signal::TERMINATE])?;
/// # signal_hook::low_level::raise(1)?;
/// # signal_hook::low_level::raise(15)?;
/// for signal in &signals {
///     match signal {
///         Signal::HANGUP => println!("reading the configuration again"),
///         _ => break,
///     }
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Signals {
    ear: Rc<Ear>,
    /// What the pump feeds.
    channel: OnceCell<Channel<Signal>>,
    pump: RefCell<Option<Handle>>,
}

impl Signals {
    /// Waits for the next signal. Parks only the calling tasklet.
    ///
    /// # Errors
    /// [`ReceiveError::Refused`] when the caller may not wait, [`ReceiveError::Thrown`].
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::Signal;
    ///
    /// let signals = pila::signals([Signal::TERMINATE])?;
    /// pila::tasklet(|| signal_hook::low_level::raise(Signal::TERMINATE.number()));
    /// assert_eq!(signals.receive().unwrap(), Signal::TERMINATE);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn receive(&self) -> Result<Signal, ReceiveError> {
        match self.fed_channel() {
            Some(channel) => channel.receive(),
            None => self.ear.receive(None),
        }
    }

    /// As [`receive`](Signals::receive), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As [`receive`](Signals::receive), and [`ReceiveError::Timeout`] when the time is up.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::{ReceiveError, Signal};
    ///
    /// let signals = pila::signals([Signal::USER2])?;
    /// let nothing = signals.receive_timeout(std::time::Duration::from_millis(1));
    /// assert!(matches!(nothing, Err(ReceiveError::Timeout)));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn receive_timeout(&self, timeout: Duration) -> Result<Signal, ReceiveError> {
        match self.fed_channel() {
            Some(channel) => channel.receive_timeout(timeout),
            None => self.ear.receive(Some(timeout)),
        }
    }

    /// The next signal, if one has come. Never waits. A signal takes a moment from its sender to here, as another thread
    /// hears it first.
    ///
    /// # Errors
    /// [`ReceiveError::Timeout`] when none has come.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::{ReceiveError, Signal};
    ///
    /// let signals = pila::signals([Signal::USER2])?;
    /// assert!(matches!(signals.try_receive(), Err(ReceiveError::Timeout)));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn try_receive(&self) -> Result<Signal, ReceiveError> {
        // What the pump holds is older than what it has not taken yet.
        match self.channel.get().map(Channel::try_receive) {
            Some(Ok(signal)) => Ok(signal),
            _ => self.ear.try_receive(),
        }
    }

    /// Receives until the caller may not wait any more.
    ///
    /// # Panics
    /// Its `next` panics with an error that was thrown, and inside a `no_switch` guard.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::Signal;
    ///
    /// let signals = pila::signals([Signal::USER1])?;
    /// # signal_hook::low_level::raise(Signal::USER1.number())?;
    /// assert_eq!(signals.iter().next(), Some(Signal::USER1));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn iter(&self) -> SignalIter<'_> {
        SignalIter { signals: self }
    }

    /// A channel on which the signals arrive, for a [`Select`](crate::Select).
    ///
    /// From the first call on a tasklet waits for signals to put them there. So [`run`](crate::run) ends only after this
    /// is dropped.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::{Channel, Select, Signal};
    ///
    /// let (signals, work) = (pila::signals([Signal::USER1])?, Channel::<u32>::new());
    /// # signal_hook::low_level::raise(Signal::USER1.number())?;
    /// let told = Select::new()
    ///     .receive(signals.channel(), |signal| format!("got {}", signal.unwrap()))
    ///     .receive(&work, |number| format!("work {}", number.unwrap()))
    ///     .wait();
    /// assert_eq!(told, "got SIGUSR1");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    #[must_use]
    pub fn channel(&self) -> &Channel<Signal> {
        let channel = match self.channel.get() {
            Some(channel) => channel,
            None => {
                let made = Channel::new();
                self.channel.get_or_init(|| made)
            }
        };
        let is_fed = self.pump.borrow().as_ref().is_some_and(Handle::is_alive);
        if !is_fed {
            let (ear, fed) = (self.ear.clone(), channel.clone());
            let pump = tasklet(move || {
                while let Ok(signal) = ear.receive(None)
                    && fed.send(signal).is_ok()
                {}
            });
            self.pump.replace(Some(pump.handle()));
        }
        channel
    }

    /// The channel, if the pump feeds it.
    fn fed_channel(&self) -> Option<&Channel<Signal>> {
        let is_fed = self.pump.borrow().as_ref().is_some_and(Handle::is_alive);
        self.channel.get().filter(|_| is_fed)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.ear.close();
        if let Some(pump) = self.pump.take() {
            // It has nothing more to wait for, unless it waits for someone to take a signal that nobody wants.
            let _ = pump.kill_later();
        }
    }
}

/// Iterates over the signals that are received; made by [`Signals::iter`].
///
/// ```
/// # use pila_runtime as pila;
/// let signals = pila::signals([pila::Signal::USER1])?;
/// # signal_hook::low_level::raise(10)?;
/// let mut iter: pila::SignalIter<'_> = signals.iter();
/// assert_eq!(iter.next(), Some(pila::Signal::USER1));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct SignalIter<'a> {
    signals: &'a Signals,
}

impl Iterator for SignalIter<'_> {
    type Item = Signal;

    fn next(&mut self) -> Option<Signal> {
        match self.signals.receive() {
            Ok(signal) => Some(signal),
            Err(ReceiveError::Closed) => None,
            Err(ReceiveError::Refused(refused)) if !matches!(refused, Refused::NoSwitch(_)) => None,
            Err(error) => panic!("iterating over signals: {error}"),
        }
    }
}

impl<'a> IntoIterator for &'a Signals {
    type Item = Signal;
    type IntoIter = SignalIter<'a>;

    fn into_iter(self) -> SignalIter<'a> {
        self.iter()
    }
}
