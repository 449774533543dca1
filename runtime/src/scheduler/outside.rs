//! The world outside the thread: news, time, and who goes on when neither will change anything any more.

use std::{
    io, mem,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{BLIND_WAIT, Scheduler, stint::STINT};
use crate::{
    driver::{AlreadyInstalled, Driver, Notify},
    error::{JoinError, NO_UNWINDING},
    mailbox::{Heir, Mailbox},
    report::Occasion,
    state::{Last, TURNS},
    table::{MAIN, State, Wake},
    wake::Ticket,
};

impl Scheduler {
    /// Hears the news from outside, waiting for some if nobody can run.
    #[cold]
    pub(super) fn look_outside(&self) {
        if self.do_errand() {
            return;
        }
        self.attend();
        let mut core = self.core.borrow_mut();
        core.turns_left = TURNS;
        self.stint.set(STINT);
        if core.queue.is_empty() && core.feed_starved() {
            return;
        }
        let runnable = !core.queue.is_empty();
        let outside = core.outside > 0 || (!runnable && core.has_paused_limit());
        let news = self.has_news();
        let quiet = core.timers.is_empty() && self.driver.borrow().is_none() && !news;
        drop(core);
        match (runnable, outside || news) {
            (true, _) if quiet => {}
            (true, _) => self.wait_outside(Some(Duration::ZERO)),
            (false, true) if self.let_go() => {}
            (false, true) => self.wait_outside(self.until_next_deadline()),
            (false, false) => self.resolve(),
        }
    }

    pub(super) fn wait_outside(&self, timeout: Option<Duration>) {
        let mut woken = mem::take(&mut *self.woken.borrow_mut());
        let timeout = self.collect_before_wait(timeout, &mut woken);
        let rest = self.member.get().filter(|_| timeout != Some(Duration::ZERO));
        let _rest = rest.map(|member| member.pulse.rest());
        let now = {
            let (mut driver, mut idle) = (self.driver.borrow_mut(), self.idle.borrow_mut());
            let driver: &mut dyn Driver = match &mut *driver {
                Some(driver) => &mut **driver,
                None => &mut *idle,
            };
            match driver.wait(timeout, &mut woken) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    panic!("the driver can no longer wait for news from outside: {error}")
                }
                _ => driver.now(),
            }
        };
        if let Some(mailbox) = &*self.mailbox.borrow()
            && (timeout != Some(Duration::ZERO) || mailbox.has_news())
        {
            mailbox.collect(&mut woken);
        }
        self.core.borrow_mut().hear(now, &woken);
        woken.clear();
        self.woken.replace(woken);
    }

    pub(super) fn has_news(&self) -> bool {
        self.mailbox.borrow().as_ref().is_some_and(|mailbox| mailbox.has_news())
    }

    /// Takes what other threads have posted and says how long the driver may wait after that.
    pub(super) fn collect_before_wait(
        &self,
        timeout: Option<Duration>,
        woken: &mut Vec<Ticket>,
    ) -> Option<Duration> {
        let mailbox = self.mailbox.borrow();
        let Some(mailbox) = mailbox.as_ref().filter(|_| timeout != Some(Duration::ZERO)) else {
            return timeout;
        };
        let can_be_notified = mailbox.collect_before_wait(woken);
        if !woken.is_empty() {
            return Some(Duration::ZERO);
        }
        match can_be_notified {
            true => timeout,
            false => Some(timeout.map_or(BLIND_WAIT, |timeout| timeout.min(BLIND_WAIT))),
        }
    }

    /// What other threads post to. Only for a thread that has settled in, so that its end will be seen.
    pub(crate) fn mailbox(&self) -> Arc<Mailbox> {
        if self.has_ended() {
            let closed = Mailbox::new(None);
            closed.close();
            return Arc::new(closed);
        }
        let mut mailbox = self.mailbox.borrow_mut();
        let mailbox = mailbox.get_or_insert_with(|| Arc::new(Mailbox::new(self.notifier())));
        mailbox.clone()
    }

    /// As [`mailbox`](Self::mailbox), for a thread that may not have settled in.
    pub(crate) fn settled_mailbox(&self) -> Arc<Mailbox> {
        if !self.has_ended() {
            self.settle_in(&mut self.core.borrow_mut());
        }
        self.mailbox()
    }

    /// Ends the wait of `ticket`, which is of the thread that `mailbox` is of. On that thread it says whether there was one to
    /// end; elsewhere, whether the thread is still there.
    pub(crate) fn wake(&self, mailbox: &Arc<Mailbox>, ticket: Ticket) -> bool {
        match self.is_own(mailbox) {
            true => self.unpark(ticket),
            false => mailbox.post(ticket),
        }
    }

    pub(crate) fn is_own(&self, mailbox: &Arc<Mailbox>) -> bool {
        self.mailbox.borrow().as_ref().is_some_and(|own| Arc::ptr_eq(own, mailbox))
    }

    pub(super) fn notifier(&self) -> Option<Arc<dyn Notify>> {
        match &*self.driver.borrow() {
            Some(driver) => driver.notifier(),
            None => self.idle.borrow().notifier(),
        }
    }

    /// Has `heir` told of the thread's end, until [`disinherit`](Self::disinherit).
    pub(crate) fn inherit(&self, heir: Arc<dyn Heir>, number: u64) -> usize {
        self.heirs.borrow_mut().insert((heir, number))
    }

    pub(crate) fn disinherit(&self, key: usize) {
        let heir = self.heirs.borrow_mut().try_remove(key);
        drop(heir);
    }

    /// How long the driver may wait: until the next deadline, if there is one.
    pub(super) fn until_next_deadline(&self) -> Option<Duration> {
        let next = self.core.borrow().timers.next_deadline()?;
        Some(Duration::from_nanos(next.saturating_sub(self.now())))
    }

    /// Decides who goes on when nobody can and nothing outside can change that: someone who waits for a stack ends
    /// without one; else the innermost `run` returns; else main goes on, unless it is blocked: then the one that made
    /// way last is told, or main when that one has ended.
    #[cold]
    pub(super) fn resolve(&self) {
        let mut core = self.core.borrow_mut();
        if let Some(index) = core.starved.pop_front() {
            drop(core);
            return self.end_without_stack(index);
        }
        if let Some(&runner) = core.runners.last() {
            return core.enqueue(runner);
        }
        if !matches!(core.stands[MAIN as usize].state, State::Parked(_)) {
            return core.enqueue(MAIN);
        }
        let wake = Wake::Deadlock(Box::new(core.report(Occasion::Deadlock)));
        let last = match core.last {
            Last::Paused(key) if core.state(key) == Some(State::Paused) => key.index,
            Last::Parked(ticket) if core.is_parked(ticket) => ticket.index,
            Last::Paused(_) | Last::Parked(_) | Last::Ended => MAIN,
        };
        let told = core.responsible(last);
        core.take_out(told, wake);
        core.enqueue(told);
    }

    /// Ends one that never started, for no stack can be had and none will be freed.
    pub(super) fn end_without_stack(&self, index: u32) {
        let mut core = self.core.borrow_mut();
        let class = core.stands[index as usize].class;
        let Err(error) = core.stacks.check(class) else {
            return core.enqueue(index);
        };
        let task = core.remove(index);
        core.totals.no_stack += 1;
        core.last = Last::Ended;
        let job = task.job.expect("only what never started lacks a stack");
        drop(core);
        let error = io::Error::from(error);
        let Some(member) = task.member else {
            job.refuse(JoinError::NoStack(error));
            return self.core.borrow_mut().leftovers.push(job);
        };
        // Nobody else would tell that a part of the scope's work was not done.
        if !job.clone().is_held() {
            let message = format!("a tasklet of the scope, created at {}: {error}", task.created);
            if cfg!(panic = "abort") {
                panic!("{message}\na scope cannot end its other tasklets: {NO_UNWINDING}");
            }
            self.fail_scope(member, Box::new(message));
        }
        job.refuse(JoinError::NoStack(error));
        let mut core = self.core.borrow_mut();
        let scope = core.scopes.get(member.scope);
        scope.leftovers.push((member, job));
        if let Some(waiter) = scope.waiter.take() {
            core.interrupt(waiter, Wake::Unparked);
        }
    }

    /// The time, in nanoseconds of the scheduler's clock.
    pub(crate) fn now(&self) -> u64 {
        let now = self.clock();
        self.core.borrow_mut().nanoseconds(now)
    }

    /// The driver's clock.
    pub(crate) fn clock(&self) -> Instant {
        self.driver.borrow().as_ref().map_or_else(Instant::now, |driver| driver.now())
    }

    /// `duration` from now, in nanoseconds of the scheduler's clock. `None` when that is after the end of all time: who
    /// waits for it waits for nothing, so that a deadlock is seen.
    pub(crate) fn deadline_in(&self, duration: Duration) -> Option<u64> {
        self.now().checked_add(u64::try_from(duration.as_nanos()).ok()?)
    }

    /// `instant` in nanoseconds of the scheduler's clock.
    pub(crate) fn nanoseconds(&self, instant: Instant) -> u64 {
        // The epoch must not lie after the first instant that is asked about.
        if self.core.borrow().epoch.is_none() {
            self.now();
        }
        self.core.borrow_mut().nanoseconds(instant)
    }

    pub(crate) fn install(&self, driver: Box<dyn Driver>) -> Result<(), AlreadyInstalled> {
        let mut place = self.driver.borrow_mut();
        if place.is_some() || self.has_ended() {
            return Err(AlreadyInstalled);
        }
        // The driver must end with its thread, even when no tasklet ever ran on it.
        self.settle_in(&mut self.core.borrow_mut());
        if let Some(mailbox) = &*self.mailbox.borrow() {
            mailbox.set_notifier(driver.notifier());
        }
        *place = Some(driver);
        Ok(())
    }
}
