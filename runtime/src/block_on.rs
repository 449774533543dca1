//! Futures, driven by the tasklet that waits for them.
//!
//! - A poll runs on the tasklet's own stack, a wait is a park like any other: what wakes the future ends it.
//! - Every way out drops the future, once, and then dismisses whoever waited with the call's help.

use std::{
    future::{Future, IntoFuture},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use crate::{
    alarm::{Polling, Ringing},
    current::with,
    error::{Interrupt, Refused},
    park,
    scheduler::Scheduler,
    wake::Waiting,
};

/// Polls `future` until it is ready, and gives what it gives. In between only the calling tasklet waits.
///
/// So a crate that is written for `async` is used from plain code, and needs no runtime of its own as long as it asks for
/// none. The future need be neither `Send` nor `'static`; it may borrow from the caller. Its waker works from any thread,
/// also after the call, the tasklet or the thread has ended, when it does nothing. Wake-ups that come between two polls are
/// one. One that is ready at once costs no switch. Calls may be nested: a poll may itself call `block_on`, or anything else
/// that waits, and then the outer future stands still until that is over.
///
/// The sockets of an async runtime need that runtime; those of `pila` have `net::AsyncStream`. What the future does without
/// waiting stops the others of the thread, as in any tasklet. One that wakes itself before it is polled lets them run first.
///
/// A kill or a [`timeout`](crate::timeout) around the call ends it where it waits, and drops the future.
///
/// # Panics
/// With the panic of the future. With the report of a deadlock, when nobody can run, nothing outside can wake anyone, and
/// nobody has kept the future's waker. As long as a clone of it is alive, on whatever thread, the call waits: whoever has it
/// may use it. So tasklets that wait for each other through channels of an async crate, which keep wakers, are not found
/// out.
///
/// When the future has to wait and the caller may not: inside a [`no_switch`](crate::no_switch) guard, under a block trap, at
/// the end of a thread, and in a destructor of a tasklet that unwinds, where Rust makes an abort of it. [`try_block_on`] gives
/// an error there. A tasklet that caught its kill, or its timeout, is ended anew.
///
/// ```
/// # use pila_runtime as pila;
/// use std::{future::poll_fn, task::Poll, thread, time::Duration};
///
/// let mut polls = 0;
/// let answer = pila::block_on(async {
///     poll_fn(|context| {
///         polls += 1;
///         if polls == 2 {
///             return Poll::Ready(());
///         }
///         let waker = context.waker().clone();
///         thread::spawn(move || {
///             thread::sleep(Duration::from_millis(1));
///             waker.wake();
///         });
///         Poll::Pending
///     })
///     .await;
///     6 * 7
/// });
/// assert_eq!((answer, polls), (42, 2));
/// ```
#[doc(alias = "await")]
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    match try_block_on(future) {
        Ok(output) => output,
        Err(Interrupt::Refused(refused)) if can_be_ended_anew(refused) => with(Scheduler::unwind),
        Err(interrupt) => panic!("block_on: {interrupt}"),
    }
}

/// Whether a refusal is that of a tasklet that is being ended, and has caught that.
fn can_be_ended_anew(refused: Refused) -> bool {
    match refused {
        Refused::Killed | Refused::Elapsed(_) | Refused::ScopeEnds | Refused::Stopping => {
            !std::thread::panicking()
        }
        Refused::Unwinding | Refused::ThreadEnded | Refused::NoSwitch(_) | Refused::BlockTrap => {
            false
        }
    }
}

/// As [`block_on`], for where the caller may not be allowed to wait, as in a destructor: says so instead of panicking.
///
/// On an error the future is dropped. Who wants to go on with it passes it by reference, pinned.
///
/// # Errors
/// [`Interrupt::Refused`] when the future has to wait and the caller may not; [`Interrupt::Deadlock`] when nothing could ever
/// wake it; [`Interrupt::Thrown`].
///
/// # Panics
/// With the panic of the future.
///
/// ```
/// # use pila_runtime as pila;
/// use pila::park::Interrupt;
///
/// let mut ready = std::pin::pin!(async { 7 });
/// assert_eq!(pila::try_block_on(ready.as_mut())?, 7);
///
/// let nobody_wakes_it = std::future::pending::<()>();
/// assert!(matches!(pila::try_block_on(nobody_wakes_it), Err(Interrupt::Deadlock(_))));
/// # Ok::<(), Interrupt>(())
/// ```
pub fn try_block_on<F: IntoFuture>(future: F) -> Result<F::Output, Interrupt> {
    let mut call = Call(Some(Ringing::new()));
    let mut future = pin!(future.into_future());
    loop {
        match call.poll(future.as_mut()) {
            Poll::Ready(output) => return Ok(output),
            Poll::Pending => call.wait()?,
        }
    }
}

/// A call under way. What it polls is dropped before it.
struct Call(Option<Ringing>);

impl Call {
    fn ringing(&mut self) -> &mut Ringing {
        self.0.as_mut().expect("only drop takes it")
    }

    fn poll<F: Future>(&mut self, future: Pin<&mut F>) -> Poll<F::Output> {
        let ringing = self.ringing();
        ringing.alarm.wake_due();
        // What rings from now on may have come too late for this poll.
        ringing.alarm.calm();
        let _polling = Polling::begin(&ringing.alarm);
        future.poll(&mut Context::from_waker(ringing.waker()))
    }

    /// Waits until the future is worth another poll.
    fn wait(&mut self) -> Result<(), Interrupt> {
        let ringing = self.ringing();
        if ringing.alarm.was_rung() {
            let_others_run();
            return Ok(());
        }
        let ticket = park::begin()?;
        if !ringing.alarm.arm(ticket) {
            let_others_run();
            return Ok(());
        }
        let (relays, others) = (ringing.alarm.pending_relays(), ringing.others());
        let waiting = Waiting::Future { wakers: others.max(relays) };
        if relays > 0 || others == 0 {
            return park::wait(ticket, waiting, None);
        }
        let waker = ringing.take_waker();
        let (ended, waker) = with(|scheduler| scheduler.wait_for_waker(ticket, &waiting, waker));
        ringing.put_back(waker);
        ended
    }
}

/// A future that is woken before it waits, by itself that is, wants others to have a turn.
fn let_others_run() {
    with(|scheduler| {
        if scheduler.check_switch().is_err() {
            return;
        }
        match scheduler.is_spent() {
            true => scheduler.make_way(),
            false => scheduler.schedule(),
        }
    });
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(ringing) = self.0.take() {
            ringing.end();
        }
    }
}
