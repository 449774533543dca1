//! One signal of the system: its number and its name.
//!
//! - Only signals that have a name here exist: what they do by default is known of no others.

use std::fmt;

use signal_hook::{consts, low_level::signal_name};

/// A signal of the system, as `kill` sends it. `Display` gives its name: `SIGINT`.
///
/// Not to be confused with [`sync::Signal`](crate::sync::Signal), by which tasklets wake each other.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::Signal;
///
/// assert_eq!(Signal::INTERRUPT.to_string(), "SIGINT");
/// assert_eq!(Signal::from_number(10), Some(Signal::USER1));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(i32);

impl Signal {
    /// `SIGHUP`: the terminal is gone. Daemons take it as a request to read their configuration again.
    pub const HANGUP: Signal = Signal(consts::SIGHUP);
    /// `SIGINT`: Ctrl-C.
    pub const INTERRUPT: Signal = Signal(consts::SIGINT);
    /// `SIGQUIT`: Ctrl-\.
    pub const QUIT: Signal = Signal(consts::SIGQUIT);
    /// `SIGUSR1`: whatever the program says.
    pub const USER1: Signal = Signal(consts::SIGUSR1);
    /// `SIGUSR2`: whatever the program says.
    pub const USER2: Signal = Signal(consts::SIGUSR2);
    /// `SIGTERM`: the system, or whoever runs the program, asks it to end.
    pub const TERMINATE: Signal = Signal(consts::SIGTERM);
    /// `SIGCHLD`: a child process has ended or stopped.
    pub const CHILD: Signal = Signal(consts::SIGCHLD);
    /// `SIGCONT`: the process goes on after it was stopped.
    pub const CONTINUE: Signal = Signal(consts::SIGCONT);
    /// `SIGTSTP`: Ctrl-Z.
    pub const SUSPEND: Signal = Signal(consts::SIGTSTP);
    /// `SIGWINCH`: the terminal has another size.
    pub const WINDOW_CHANGE: Signal = Signal(consts::SIGWINCH);

    /// The signal of this number. `None` when none that has a name has it: real-time signals have no names.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// use pila::Signal;
    ///
    /// assert_eq!(Signal::from_number(15), Some(Signal::TERMINATE));
    /// assert_eq!(Signal::from_number(0), None);
    /// ```
    #[must_use]
    pub fn from_number(number: i32) -> Option<Signal> {
        signal_name(number).map(|_| Signal(number))
    }

    /// The number by which the system knows it.
    ///
    /// ```
    /// # use pila_runtime as pila;
    /// assert_eq!(pila::Signal::HANGUP.number(), 1);
    /// ```
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }

    /// Whether whoever sends it wants the process to end.
    pub(crate) fn asks_to_end(self) -> bool {
        [Signal::INTERRUPT, Signal::TERMINATE, Signal::QUIT].contains(&self)
    }

    /// Why no program can receive it, if that is so.
    pub(crate) fn cannot_be_received(self) -> Option<&'static str> {
        match self.0 {
            consts::SIGKILL | consts::SIGSTOP => Some("the system lets no process handle it"),
            // A handler that returned from one of these would return to the instruction that failed.
            consts::SIGSEGV | consts::SIGILL | consts::SIGFPE | consts::SIGBUS => {
                Some("it says that an instruction of the program has failed and cannot go on")
            }
            _ => None,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(signal_name(self.0).expect("only signals that have a name are made"))
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signal({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_that_can_be_received_fits_a_set_and_one_that_cannot_is_known() {
        let all: Vec<Signal> = (-1..200).filter_map(Signal::from_number).collect();
        assert!(all.len() > 20 && all.iter().all(|signal| (1..64).contains(&signal.number())));
        let forbidden = all.iter().filter(|signal| signal.cannot_be_received().is_some());
        let forbidden: Vec<i32> = forbidden.map(|signal| signal.number()).collect();
        assert!(signal_hook::consts::FORBIDDEN.iter().all(|number| forbidden.contains(number)));
        assert_eq!(forbidden.len(), signal_hook::consts::FORBIDDEN.len() + 1);
    }
}
