//! Select: exactly one branch commits, and for the others nothing has happened.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use pila::{
    Channel, JoinError, Preference, ReceiveError, Refused, Select, SendError, SendReason, Tasklet,
    TaskletError,
    driver::{self, VirtualClock},
};

const LONG: Duration = Duration::from_secs(3600);

fn virtual_clock() {
    driver::install(Box::new(VirtualClock::new())).unwrap();
}

/// Lets everyone run who can, but not time pass.
fn settle() {
    for _ in 0..8 {
        pila::schedule();
    }
}

/// A tasklet that waits to send `value`.
fn sender<T: 'static>(channel: &Channel<T>, value: T) -> Tasklet<bool> {
    let channel = channel.clone();
    pila::tasklet(move || channel.send(value).is_ok())
}

fn receiver<T: 'static>(channel: &Channel<T>) -> Tasklet<Result<T, ReceiveError>> {
    let channel = channel.clone();
    pila::tasklet(move || channel.receive())
}

/// A tasklet that waits to receive from, or to send `value` to, any of `channels`, and tells which branch it was and
/// what came of it.
fn selecting(channels: &[Channel<u32>], value: u32) -> Tasklet<(usize, String)> {
    let channels = channels.to_vec();
    pila::tasklet(move || either(&channels, value))
}

fn either(channels: &[Channel<u32>], value: u32) -> (usize, String) {
    let mut select = Select::new();
    for (place, channel) in channels.iter().enumerate() {
        select = select
            .receive(channel, move |got| (2 * place, format!("{:?}", got.map_err(name))))
            .send(channel, value, move |done| {
                let done = done.map_err(|error| unsent(&error, value));
                (2 * place + 1, format!("{done:?}"))
            });
    }
    select.wait()
}

fn name(error: ReceiveError) -> String {
    match error {
        ReceiveError::Deadlock(_) => "Deadlock".into(),
        ReceiveError::Thrown(error) => format!("Thrown {error}"),
        ReceiveError::Refused(Refused::NoSwitch(_)) => "NoSwitch".into(),
        ReceiveError::Refused(refused) => format!("{refused:?}"),
        other => format!("{other:?}"),
    }
}

fn unsent(error: &SendError<u32>, value: u32) -> String {
    assert_eq!(error.value, value, "another's value came back");
    match &error.reason {
        SendReason::Deadlock(_) => "Deadlock".into(),
        SendReason::Refused(Refused::NoSwitch(_)) => "NoSwitch".into(),
        SendReason::Refused(refused) => format!("{refused:?}"),
        other => format!("{other:?}"),
    }
}

fn channels(count: usize) -> Vec<Channel<u32>> {
    (0..count).map(|_| Channel::new()).collect()
}

fn balances<T>(channels: &[Channel<T>]) -> Vec<isize> {
    channels.iter().map(Channel::balance).collect()
}

/// Counts its drops.
struct Counted(Rc<Cell<u32>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

// Which branch commits.

#[test]
fn the_first_listed_of_those_that_are_ready_commits_and_no_other() {
    for first in 0..4 {
        let channels = channels(4);
        let senders: Vec<_> = channels[first..].iter().map(|channel| sender(channel, 7)).collect();
        settle();
        let mut select = Select::new();
        for (place, channel) in channels.iter().enumerate() {
            select = select.receive(channel, move |got| (place, got.unwrap()));
        }
        assert_eq!(select.wait(), (first, 7));
        settle();
        let expected: Vec<isize> = (0..4).map(|place| isize::from(place > first)).collect();
        assert_eq!(balances(&channels), expected);
        let served: Vec<bool> = senders.iter().map(|sender| !sender.is_alive()).collect();
        assert_eq!(served.iter().filter(|&&served| served).count(), 1);
        assert!(served[0]);
        channels.iter().for_each(|channel| while channel.try_receive().is_ok() {});
        pila::run();
    }
}

#[test]
fn sends_and_receives_are_tried_in_the_order_they_were_added() {
    let (full, wanted) = (Channel::new(), Channel::new());
    let (sender, receiver) = (sender(&full, 1), receiver(&wanted));
    settle();
    let which = Select::new().send(&wanted, 2, |_| "sent").receive(&full, |_| "received").wait();
    assert_eq!(which, "sent");
    assert_eq!(receiver.join().unwrap().unwrap(), 2);
    assert!(sender.is_blocked());
    assert_eq!(full.receive().unwrap(), 1);
    assert!(sender.join().unwrap());
}

#[test]
fn a_branch_whose_channel_is_closed_gets_its_error_when_its_turn_comes() {
    let (closed, ready) = (Channel::new(), Channel::new());
    closed.close();
    let first = sender(&ready, 1);
    settle();
    let got = Select::new()
        .receive(&closed, |got: Result<u32, _>| name(got.unwrap_err()))
        .receive(&ready, |_| unreachable!())
        .wait();
    assert_eq!(got, "Closed");
    let got = Select::new()
        .send(&closed, 3, |done| unsent(&done.unwrap_err(), 3))
        .receive(&ready, |_| unreachable!())
        .wait();
    assert_eq!(got, "Closed");
    let got = Select::new()
        .receive(&ready, |got| got.unwrap())
        .receive(&closed, |_| unreachable!())
        .wait();
    assert_eq!(got, 1);
    assert!(first.join().unwrap());
}

#[test]
fn closing_a_channel_ends_a_receiving_branch_that_waits_and_no_sending_one() {
    let all = channels(2);
    let theirs = all.clone();
    let tasklet = pila::tasklet(move || {
        let sent = |done: Result<(), SendError<u32>>| format!("{:?}", done.is_ok());
        Select::new()
            .send(&theirs[0], 1, sent)
            .receive(&theirs[1], |got| name(got.unwrap_err()))
            .wait()
    });
    settle();
    all[0].close();
    settle();
    assert!(tasklet.is_blocked());
    all[1].close();
    assert_eq!(balances(&all), [0, 0]);
    assert_eq!(tasklet.join().unwrap(), "Closed");

    let all = channels(1);
    let theirs = all[0].clone();
    let tasklet = pila::tasklet(move || Select::new().send(&theirs, 5, |done| done.is_ok()).wait());
    settle();
    all[0].close();
    assert_eq!(all[0].receive().unwrap(), 5);
    assert!(tasklet.join().unwrap());
}

#[test]
fn a_buffer_with_room_or_with_values_is_ready() {
    let channel = Channel::with_capacity(1);
    assert!(
        Select::new().send(&channel, 1, |done| done.is_ok()).receive(&channel, |_| false).wait()
    );
    let got = Select::new().send(&channel, 2, |_| 0).receive(&channel, |got| got.unwrap()).wait();
    assert_eq!(got, 1);
    assert_eq!(channel.balance(), 0);
}

#[test]
fn an_error_that_is_sent_arrives_as_one() {
    let channel = Channel::<u32>::new();
    let theirs = channel.clone();
    let sender = pila::tasklet(move || theirs.send_error("no more").is_ok());
    let got = Select::new().receive(&channel, |got| got.unwrap_err().to_string()).wait();
    assert_eq!(got, "no more");
    assert!(sender.join().unwrap());
}

#[test]
fn who_runs_after_a_select_is_up_to_the_preference_of_the_channel() {
    for (preference, expected) in
        [(Preference::Receiver, "received sent"), (Preference::Neither, "sent received")]
    {
        let (channel, story) = (Channel::new(), Rc::new(RefCell::new(Vec::new())));
        channel.set_preference(preference);
        let (theirs, told) = (channel.clone(), story.clone());
        let waiter = pila::tasklet(move || {
            Select::new().receive(&theirs, |_| told.borrow_mut().push("received")).wait();
        });
        settle();
        Select::new().send(&channel, 1, |_| story.borrow_mut().push("sent")).wait();
        waiter.join().unwrap();
        assert_eq!(story.borrow().join(" "), expected);
    }
}

// The losers.

#[test]
fn a_value_that_was_not_sent_is_dropped_once_before_the_winner_is_called() {
    let (drops, wanted) = (Rc::new(Cell::new(0)), Channel::new());
    let nobody = Channel::new();
    let waiter = sender(&wanted, ());
    let early = Rc::clone(&drops);
    let seen = Select::new()
        .send(&nobody, Counted(drops.clone()), |_| unreachable!())
        .receive(&wanted, move |_| early.get())
        .wait();
    assert_eq!((seen, drops.get(), nobody.balance()), (1, 1, 0));
    assert!(waiter.join().unwrap());
}

#[test]
fn a_value_that_was_sent_is_the_receivers_alone() {
    let (drops, channel) = (Rc::new(Cell::new(0)), Channel::new());
    let other = Channel::<()>::new();
    let (theirs, counted) = (channel.clone(), Counted(drops.clone()));
    let tasklet = pila::tasklet(move || {
        Select::new().receive(&other, |_| false).send(&theirs, counted, |done| done.is_ok()).wait()
    });
    settle();
    let value = channel.receive().unwrap();
    assert!(tasklet.join().unwrap());
    assert_eq!(drops.get(), 0);
    drop(value);
    assert_eq!(drops.get(), 1);
}

#[test]
fn the_others_in_a_losers_line_keep_their_places() {
    let (busy, other) = (Channel::new(), Channel::new());
    let first = receiver(&busy);
    settle();
    let (mine, theirs) = (busy.clone(), other.clone());
    let tasklet = pila::tasklet(move || {
        Select::new().receive(&mine, |_| 0).receive(&theirs, |got| got.unwrap()).wait()
    });
    settle();
    let last = receiver(&busy);
    settle();
    let ids = |channel: &Channel<u32>| -> Vec<_> {
        channel.waiters().iter().map(|waiter| waiter.id()).collect()
    };
    assert_eq!(ids(&busy), [first.id(), tasklet.id(), last.id()]);
    assert_eq!(busy.balance(), -3);
    other.send(9).unwrap();
    assert_eq!(tasklet.join().unwrap(), 9);
    assert_eq!(ids(&busy), [first.id(), last.id()]);
    assert_eq!(busy.balance(), -2);
    busy.send(1).unwrap();
    busy.send(2).unwrap();
    assert_eq!((first.join().unwrap().unwrap(), last.join().unwrap().unwrap()), (1, 2));
}

#[test]
fn one_that_was_served_is_passed_over_by_all_other_channels_at_once() {
    let all = channels(3);
    let tasklet = selecting(&all, 1);
    settle();
    assert_eq!(balances(&all), [0, 0, 0], "it waits on both sides of each");
    all[1].set_preference(Preference::Neither);
    all[1].send(5).unwrap();
    // It has not run yet, and is in nobody's line any more.
    assert!(tasklet.is_alive() && !tasklet.is_blocked());
    for channel in &all {
        assert!(channel.try_receive().is_err());
        assert!(channel.try_send(6).is_err());
        assert!(channel.waiters().is_empty());
    }
    assert_eq!(tasklet.join().unwrap(), (2, "Ok(5)".into()));
}

// Both sides of one channel.

#[test]
fn two_that_select_on_both_sides_of_a_channel_meet_and_one_does_not_meet_itself() {
    let all = channels(1);
    let one = selecting(&all, 1);
    settle();
    assert!(one.is_blocked());
    let two = selecting(&all, 2);
    assert_eq!(two.join().unwrap(), (0, "Ok(1)".into()));
    assert_eq!(one.join().unwrap(), (1, "Ok(())".into()));
    assert_eq!(all[0].balance(), 0);
}

#[test]
fn an_even_number_that_selects_on_both_sides_meets_in_pairs() {
    let all = channels(5);
    let tasklets: Vec<_> = (0..100).map(|number| selecting(&all, number)).collect();
    let summary = pila::run();
    assert_eq!((summary.finished, summary.blocked), (100, 0));
    let ends: Vec<_> = tasklets.into_iter().map(|tasklet| tasklet.join().unwrap()).collect();
    assert_eq!(ends.iter().filter(|(branch, _)| branch % 2 == 0).count(), 50);
    assert_eq!(balances(&all), [0; 5]);
}

// The deadline.

#[test]
fn a_deadline_is_not_early_and_strikes_only_if_nothing_else_has_come() {
    virtual_clock();
    let (start, channel) = (driver::now(), Channel::<u32>::new());
    let millis = Duration::from_millis;
    let wait = |time| {
        let got = Select::new().receive(&channel, |got| got.ok()).after(time, || None).wait();
        (got, (driver::now() - start).as_millis())
    };
    assert_eq!(wait(millis(20)), (None, 20));
    let theirs = channel.clone();
    let sender = pila::tasklet(move || {
        pila::sleep(millis(5));
        theirs.send(1).is_ok()
    });
    assert_eq!(wait(millis(20)), (Some(1), 25));
    assert!(sender.join().unwrap());
    let ready = self::sender(&channel, 2);
    settle();
    assert_eq!(wait(Duration::ZERO), (Some(2), 25), "what is ready comes before any deadline");
    assert!(ready.join().unwrap());
    assert_eq!(wait(Duration::ZERO), (None, 25));
    assert_eq!(channel.balance(), 0);
}

#[test]
fn a_deadline_in_real_time_is_not_early() {
    let (start, time) = (std::time::Instant::now(), Duration::from_millis(30));
    let nobody = Channel::<()>::new();
    assert!(Select::new().receive(&nobody, |_| false).after(time, || true).wait());
    assert!(start.elapsed() >= time);
}

#[test]
fn of_several_deadlines_the_shortest_holds_and_of_equals_the_first() {
    virtual_clock();
    let (long, short) = (Duration::from_secs(2), Duration::from_secs(1));
    let got = Select::new().after(long, || 0).after(short, || 1).after(short, || 2).wait();
    assert_eq!(got, 1);
}

// What else ends a select.

#[test]
fn one_that_is_killed_leaves_every_line_and_its_value_goes_once() {
    let (drops, all) = (Rc::new(Cell::new(0)), channels(3));
    let counted = Channel::new();
    let (theirs, sends, value) = (all.clone(), counted.clone(), Counted(drops.clone()));
    let tasklet = pila::tasklet(move || {
        let mut select = Select::new().send(&sends, value, |_| ()).after(LONG, || ());
        for channel in &theirs {
            select = select.receive(channel, |_| ());
        }
        select.wait();
    });
    settle();
    assert_eq!((balances(&all), counted.balance()), (vec![-1; 3], 1));
    tasklet.kill().unwrap();
    assert_eq!((balances(&all), counted.balance()), (vec![0; 3], 0));
    assert_eq!(drops.get(), 1);
    assert!(matches!(tasklet.join(), Err(JoinError::Killed)));
    assert!(counted.try_receive().is_err());
}

#[test]
fn a_value_handed_to_one_that_is_killed_before_it_runs_goes_once() {
    let (drops, channel) = (Rc::new(Cell::new(0)), Channel::new());
    channel.set_preference(Preference::Neither);
    let theirs = channel.clone();
    let tasklet = pila::tasklet(move || Select::new().receive(&theirs, |_| unreachable!()).wait());
    settle();
    assert!(channel.send(Counted(drops.clone())).is_ok());
    assert_eq!(drops.get(), 0);
    tasklet.kill().unwrap();
    assert_eq!((drops.get(), channel.balance()), (1, 0));
    let _: Result<(), _> = tasklet.join();
}

#[test]
fn an_error_thrown_into_a_select_goes_to_its_first_branch() {
    let all = channels(2);
    let tasklet = selecting(&all, 1);
    settle();
    tasklet.throw("give up").unwrap();
    assert_eq!(tasklet.join().unwrap(), (0, "Err(\"Thrown give up\")".into()));
    assert_eq!(balances(&all), [0, 0]);

    let later = selecting(&all, 1);
    settle();
    later.throw_later("give up").unwrap();
    assert!(all.iter().all(|channel| channel.waiters().is_empty()));
    assert!(matches!(later.throw("twice"), Err(TaskletError::CannotThrow(_))));
    assert_eq!(later.join().unwrap().0, 0);
}

#[test]
fn one_whose_deadline_strikes_leaves_every_line() {
    virtual_clock();
    let all = channels(3);
    let mut select = Select::new().after(LONG, || "late");
    for channel in &all {
        select = select.receive(channel, |_| "").send(channel, 1, |_| "");
    }
    assert_eq!(select.wait(), "late");
    assert!(all.iter().all(|channel| channel.waiters().is_empty()));
    assert_eq!(balances(&all), [0; 3]);
}

#[test]
fn a_deadlock_goes_to_the_first_branch_and_hands_its_value_back() {
    let all = channels(2);
    assert_eq!(either(&all, 1), (0, "Err(\"Deadlock\")".into()));
    let done = Select::new()
        .send(&all[0], 8, |done| unsent(&done.unwrap_err(), 8))
        .receive(&all[1], |_| unreachable!())
        .wait();
    assert_eq!(done, "Deadlock");
    assert_eq!(balances(&all), [0, 0]);
    assert!(all.iter().all(|channel| channel.waiters().is_empty()));
}

#[test]
fn main_selects_like_anyone() {
    virtual_clock();
    let all = channels(2);
    let (requests, answers) = (all[0].clone(), all[1].clone());
    let server = pila::tasklet(move || {
        while let Ok(request) = requests.receive() {
            answers.send(request * 2).unwrap();
        }
    });
    let (mut asked, mut answered) = (0, Vec::new());
    while answered.len() < 10 {
        let got = Select::new()
            .receive(&all[1], |got| Some(got.unwrap()))
            .send(&all[0], asked, |done| done.ok().and(None))
            .after(LONG, || unreachable!())
            .wait();
        match got {
            Some(answer) => answered.push(answer),
            None => asked += 1,
        }
    }
    assert_eq!(answered, (0..10).map(|number| number * 2).collect::<Vec<_>>());
    all[0].close();
    // It may still have an answer to give.
    while !matches!(all[1].try_receive(), Err(ReceiveError::Timeout)) {}
    assert_eq!(pila::run().blocked, 0);
    server.join().unwrap();
}

// Where waiting is forbidden.

#[test]
fn inside_a_no_switch_guard_only_a_branch_that_switches_to_nobody_commits() {
    let all = channels(2);
    let waiting = receiver(&all[1]);
    settle();
    let guard = pila::no_switch();
    assert_eq!(either(&all[..1], 1), (0, "Err(\"NoSwitch\")".into()));
    // To send to it would switch: its branch fails, and it is not disturbed.
    let refused = Select::new()
        .receive(&all[0], |_| unreachable!())
        .send(&all[1], 2, |done| unsent(&done.unwrap_err(), 2))
        .wait();
    assert_eq!(refused, "NoSwitch");
    assert_eq!((balances(&all), waiting.is_blocked()), (vec![0, -1], true));
    all[1].set_preference(Preference::Neither);
    let sent = Select::new().receive(&all[0], |_| false).send(&all[1], 3, |done| done.is_ok());
    assert!(sent.wait());
    drop(guard);
    assert_eq!(waiting.join().unwrap().unwrap(), 3);
}

#[test]
fn one_that_may_not_be_blocked_selects_what_is_ready_and_nothing_else() {
    let all = channels(2);
    let waiting = sender(&all[1], 4);
    settle();
    pila::current().set_block_trap(true).unwrap();
    assert_eq!(either(&all[..1], 1), (0, "Err(\"BlockTrap\")".into()));
    let got = Select::new()
        .send(&all[0], 1, |_| unreachable!())
        .receive(&all[1], |got| got.unwrap())
        .wait();
    assert_eq!(got, 4);
    pila::current().set_block_trap(false).unwrap();
    assert!(waiting.join().unwrap());
    assert_eq!(balances(&all), [0, 0]);
}

#[test]
fn a_destructor_that_selects_while_its_tasklet_is_killed_is_refused_at_once() {
    struct Selects(Channel<u32>, Rc<RefCell<String>>);
    impl Drop for Selects {
        fn drop(&mut self) {
            let (_, what) = either(std::slice::from_ref(&self.0), 1);
            *self.1.borrow_mut() = what;
        }
    }
    let (channel, what) = (Channel::new(), Rc::new(RefCell::default()));
    let selects = Selects(channel.clone(), what.clone());
    let tasklet = pila::tasklet(move || {
        let _selects = selects;
        pila::schedule_remove();
    });
    settle();
    tasklet.kill().unwrap();
    assert_eq!(*what.borrow(), "Err(\"Killed\")");
    assert_eq!(channel.balance(), 0);
}

// Many.

#[test]
fn hundreds_of_branches_wait_and_leave_together() {
    const BRANCHES: usize = 500;
    let all = channels(BRANCHES);
    let theirs = all.clone();
    let tasklet = pila::tasklet(move || {
        let mut came = Vec::new();
        while came.len() < BRANCHES {
            let mut select = Select::new();
            for (place, channel) in theirs.iter().enumerate() {
                select = select.receive(channel, move |got| (place, got.unwrap()));
            }
            came.push(select.wait());
        }
        came
    });
    settle();
    assert_eq!(balances(&all), [-1; BRANCHES]);
    let order: Vec<usize> = (0..BRANCHES).map(|place| place * 333 % BRANCHES).collect();
    for &place in &order {
        all[place].send(place as u32).unwrap();
    }
    let came = tasklet.join().unwrap();
    assert_eq!(came, order.iter().map(|&place| (place, place as u32)).collect::<Vec<_>>());
    assert_eq!(balances(&all), [0; BRANCHES]);
}

// Random ones.

const SELECTS: u64 = if cfg!(debug_assertions) { 50_000 } else { 1_000_000 };
const TASKLETS: usize = 64;
const CHANNELS: usize = 24;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

/// The next of `sender`'s messages to `channel`.
struct Message {
    sender: usize,
    channel: usize,
    number: u32,
    /// How many messages there are.
    alive: Rc<Cell<i64>>,
}

impl Drop for Message {
    fn drop(&mut self) {
        self.alive.set(self.alive.get() - 1);
    }
}

/// What was sent and received.
struct Ledger {
    channels: Vec<Channel<Message>>,
    alive: Rc<Cell<i64>>,
    selects: Cell<u64>,
    commits: [Cell<u64>; 3],
    /// How many of its messages each sender has sent to each channel.
    sent: RefCell<BTreeMap<(usize, usize), u32>>,
    /// Those that have come.
    received: RefCell<BTreeSet<(usize, usize, u32)>>,
    /// The last that each receiver got from each sender through each channel.
    last: RefCell<BTreeMap<(usize, usize, usize), u32>>,
}

enum Branch {
    Sent(usize),
    Received(Message),
    Late,
    Closed,
}

impl Ledger {
    fn new(random: &mut Random) -> Rc<Ledger> {
        let channel = |_| {
            let channel = Channel::with_capacity(random.below(5).saturating_sub(2));
            let preferences = [Preference::Receiver, Preference::Neither, Preference::Sender];
            channel.set_preference(preferences[random.below(3)]);
            channel.set_schedule_all(random.below(6) == 0);
            channel
        };
        Rc::new(Ledger {
            channels: (0..CHANNELS).map(channel).collect(),
            alive: Rc::default(),
            selects: Cell::new(0),
            commits: Default::default(),
            sent: RefCell::default(),
            received: RefCell::default(),
            last: RefCell::default(),
        })
    }

    /// Selects at random until there have been enough of them, or a channel is closed.
    fn work(&self, me: usize, mut random: Random) {
        while self.selects.get() < SELECTS {
            self.selects.set(self.selects.get() + 1);
            match self.select(me, &mut random) {
                Branch::Sent(channel) => {
                    self.commit(0);
                    *self.sent.borrow_mut().entry((me, channel)).or_default() += 1;
                }
                Branch::Received(message) => {
                    self.commit(1);
                    self.note(me, &message);
                }
                Branch::Late => self.commit(2),
                Branch::Closed => return,
            }
        }
    }

    fn commit(&self, which: usize) {
        self.commits[which].set(self.commits[which].get() + 1);
    }

    fn select(&self, me: usize, random: &mut Random) -> Branch {
        let mut select = Select::new();
        for _ in 0..1 + random.below(5) {
            let number = random.below(CHANNELS);
            let channel = &self.channels[number];
            select = if random.below(2) == 0 {
                self.alive.set(self.alive.get() + 1);
                let sent = self.sent.borrow().get(&(me, number)).copied().unwrap_or(0);
                let alive = self.alive.clone();
                let message = Message { sender: me, channel: number, number: sent, alive };
                select.send(channel, message, move |done| match done {
                    Ok(()) => Branch::Sent(number),
                    Err(SendError { value, reason: SendReason::Closed }) => {
                        assert_eq!((value.sender, value.number), (me, sent));
                        Branch::Closed
                    }
                    Err(error) => panic!("{:?}", error.reason),
                })
            } else {
                select.receive(channel, move |got| match got {
                    Ok(message) => {
                        assert_eq!(message.channel, number, "it came through another channel");
                        Branch::Received(message)
                    }
                    Err(ReceiveError::Closed) => Branch::Closed,
                    Err(error) => panic!("{error}"),
                })
            };
        }
        if random.below(3) == 0 {
            let time = Duration::from_micros(random.below(50) as u64);
            select = select.after(time, || Branch::Late);
        }
        select.wait()
    }

    fn note(&self, me: usize, message: &Message) {
        let Message { sender, channel, number, .. } = *message;
        assert!(self.received.borrow_mut().insert((sender, channel, number)), "it came twice");
        let before = self.last.borrow_mut().insert((me, sender, channel), number);
        assert!(before.is_none_or(|before| before < number), "they came out of order");
    }

    /// Runs until everyone has ended; those that wait for nobody are told by closing.
    fn finish(&self) {
        pila::run();
        self.channels.iter().for_each(Channel::close);
        loop {
            pila::run();
            let mut quiet = true;
            for channel in &self.channels {
                while channel.balance() > 0 {
                    quiet = false;
                    self.note(TASKLETS, &channel.receive().unwrap());
                }
            }
            if quiet {
                break;
            }
        }
        assert_eq!(pila::run().blocked, 0);
        assert!(self.channels.iter().all(|channel| channel.waiters().is_empty()));
    }
}

#[test]
fn of_a_million_random_selects_no_message_is_lost_doubled_or_out_of_order() {
    virtual_clock();
    let mut random = Random(20_261_122);
    let ledger = Ledger::new(&mut random);
    let tasklets: Vec<_> = (0..TASKLETS)
        .map(|me| {
            let (ledger, random) = (ledger.clone(), Random(random.below(usize::MAX) as u64));
            pila::tasklet(move || ledger.work(me, random))
        })
        .collect();
    ledger.finish();
    tasklets.into_iter().for_each(|tasklet| tasklet.join().unwrap());

    let [sends, receives, late] = [0, 1, 2].map(|which| ledger.commits[which].get());
    assert!(ledger.selects.get() >= SELECTS);
    assert!(sends + receives > SELECTS / 2 && late > 0, "{sends} {receives} {late}");
    let sent = ledger.sent.borrow();
    let expected: BTreeSet<_> = sent
        .iter()
        .flat_map(|(&(sender, channel), &count)| (0..count).map(move |n| (sender, channel, n)))
        .collect();
    assert!(*ledger.received.borrow() == expected, "what came is not what was sent");
    assert_eq!(ledger.alive.get(), 0, "messages that were not sent are dropped once");
}

#[test]
fn random_selects_among_random_kills_double_nothing_and_leave_nothing() {
    virtual_clock();
    let mut random = Random(7);
    let ledger = Ledger::new(&mut random);
    let mut tasklets = Vec::new();
    for round in 0..if cfg!(debug_assertions) { 50 } else { 1000 } {
        while tasklets.len() < TASKLETS {
            // Each has a number of its own, for a killed one leaves its count behind.
            let me = 1000 + round * TASKLETS + tasklets.len();
            let (ledger, random) = (ledger.clone(), Random(random.below(usize::MAX) as u64));
            tasklets.push(pila::tasklet(move || ledger.work(me, random)));
        }
        for _ in 0..4 {
            settle();
            let victim = tasklets.swap_remove(random.below(tasklets.len()));
            match random.below(4) {
                0 => victim.kill_later().unwrap(),
                _ => {
                    victim.kill().unwrap();
                    assert!(!victim.is_alive());
                }
            }
        }
        pila::sleep(Duration::from_micros(20));
    }
    for tasklet in &tasklets {
        tasklet.kill().unwrap();
    }
    ledger.finish();
    let sent = ledger.sent.borrow();
    for &(sender, channel, number) in &*ledger.received.borrow() {
        // A sender that was killed before it could go on has sent one more than it knows.
        assert!(number <= sent.get(&(sender, channel)).copied().unwrap_or(0));
    }
    assert_eq!(ledger.alive.get(), 0);
}
