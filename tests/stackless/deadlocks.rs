//! Deadlocks: who is told when nothing can run, and what the report says.

use pila::{
    Channel, JoinError, ReceiveError, SendReason, Tasklet, run, schedule, schedule_remove, sleep,
    tasklet,
};

use crate::support::{BLOCKED, Log, panic_of, silent_panic, states};

/// TestDeadlock.testReceiveOnMain: the error is a deadlock and says who waits for what.
#[test]
fn main_alone_receives() {
    let error = Channel::<()>::new().receive().unwrap_err();
    let ReceiveError::Deadlock(report) = &error else { panic!("{error:?}") };
    assert_eq!(report.waiters().len(), 1);
    let text = error.to_string();
    assert!(text.contains("deadlock") && text.contains("'main' (#0)"), "{text}");
    assert!(text.contains("waits for a sender on channel 1"), "{text}");
    assert!(text.contains(file!()), "{text}");
}

/// TestDeadlock.test_main_receiving_endttasklet: the last tasklet ends while main receives.
#[test]
fn main_receives_when_the_last_ends() {
    let channel = Channel::<()>::new();
    tasklet(|| ());
    let error = channel.receive().unwrap_err();
    assert!(matches!(error, ReceiveError::Deadlock(_)), "{error:?}");
    assert!(error.to_string().contains("waits for a sender"), "{error}");
    assert_eq!(channel.balance(), 0);
}

/// TestDeadlock.test_main_sending_enddtasklet: the last tasklet ends while main sends.
#[test]
fn main_sends_when_the_last_ends() {
    let channel = Channel::new();
    tasklet(|| ());
    let error = channel.send("back").unwrap_err();
    assert!(matches!(error.reason, SendReason::Deadlock(_)), "{error:?}");
    assert!(error.to_string().contains("waits for a receiver"), "{error}");
    assert_eq!((error.value, channel.balance()), ("back", 0));
}

/// TestDeadlock.test_main_gets_exception: the panic of a tasklet that nobody holds comes out of main's receive.
#[test]
fn main_gets_a_panic_where_it_blocks() {
    let channel = Channel::<()>::new();
    drop(tasklet(|| silent_panic("mumbai")));
    assert_eq!(panic_of(|| channel.receive()), "mumbai");
    assert_eq!(channel.balance(), 0);
}

/// TestDeadlock.test_tasklet_deadlock: the last to block while main is blocked is told, and can go on to unblock main.
#[test]
fn the_last_to_block_is_told() {
    let channel = Channel::new();
    let theirs = channel.clone();
    let blocker = tasklet(move || {
        let error = Channel::<()>::new().receive().unwrap_err();
        theirs.send("unblocked").unwrap();
        matches!(error, ReceiveError::Deadlock(report) if report.waiters().len() == 2)
    });
    assert_eq!(channel.receive().unwrap(), "unblocked");
    assert!(blocker.join().unwrap());
}

/// TestDeadlock.test_tasklet_and_main_receive: a deadlock that the tasklet does not handle comes out of main's
/// receive.
#[test]
fn an_unhandled_deadlock_reaches_main() {
    let channel = Channel::<()>::new();
    drop(tasklet(|| Channel::<()>::new().receive().unwrap()));
    let panic = panic_of(|| channel.receive());
    assert!(panic.contains("Deadlock"), "{panic}");
    assert_eq!(channel.balance(), 0);
}

/// TestDeadlock.test_error_propagation_when_not_deadlock: a panic comes out of `run` though another can run.
#[test]
fn a_panic_does_not_wait_for_the_others() {
    let first = tasklet(schedule);
    drop(tasklet(|| silent_panic("bar")));
    assert_eq!(panic_of(run), "bar");
    assert!(first.is_alive() && first.is_scheduled());
    assert_eq!(run().finished, 1);
}

/// Schedule.testScheduleRemove: the only tasklet removes itself under `run`: `run` returns, the tasklet stays paused.
#[test]
fn the_only_one_removes_itself() {
    let log = Log::default();
    let theirs = log.clone();
    let remover = tasklet(move || {
        theirs.add("before");
        schedule_remove();
        theirs.add("after");
    });
    assert_eq!(run().paused, 1);
    assert!(remover.is_paused());
    log.assert("before");
}

/// Schedule.testScheduleRemove2: the last one removes itself while main is blocked: it is told of the deadlock.
#[test]
fn the_last_removes_itself_while_main_is_blocked() {
    let channel = Channel::new();
    let theirs = channel.clone();
    tasklet(move || theirs.send(panic_of(schedule_remove)));
    let report = channel.receive().unwrap();
    assert!(report.contains("deadlock"), "{report}");
}

/// Schedule.testScheduleRemove3: it removes itself under `run` when nobody holds it any more: nothing is lost, no
/// crash.
#[test]
fn one_that_nobody_holds_removes_itself() {
    let (flag, guard) = crate::support::drop_flag();
    drop(tasklet(move || {
        let _guard = guard;
        schedule_remove();
    }));
    assert_eq!(run().paused, 1);
    assert!(!flag.get());
    assert_eq!(run().paused, 1);
}

/// Schedule.testScheduleRemove4: the same when main removed itself too: main goes on.
#[test]
fn main_and_one_that_nobody_holds_remove_themselves() {
    let (flag, guard) = crate::support::drop_flag();
    drop(tasklet(move || {
        let _guard = guard;
        schedule_remove();
    }));
    schedule_remove();
    assert!(pila::current().is_main() && !flag.get());
    assert_eq!(run().paused, 1);
}

/// own only the last to block is told: with several blocked and main blocked, the others stay blocked.
#[test]
fn the_others_stay_blocked() {
    let channel = Channel::new();
    let others: [Tasklet<bool>; 2] = [(); 2].map(|()| {
        tasklet(|| {
            let error = Channel::<()>::new().receive();
            matches!(error, Err(ReceiveError::Deadlock(_)))
        })
    });
    let theirs = channel.clone();
    let last = tasklet(move || {
        let error = Channel::<()>::new().receive().unwrap_err();
        theirs.send(()).unwrap();
        matches!(error, ReceiveError::Deadlock(_))
    });
    channel.receive().unwrap();
    assert!(last.join().unwrap());
    assert_eq!(others.map(|other| states(&other)), [BLOCKED; 2]);
}

/// own no deadlock while main can go on: the last one blocks while main is in `run`, `t.run()` or `t.switch()`: main
/// goes on.
#[test]
fn main_that_can_go_on_is_no_deadlock() {
    let block = || drop(Channel::<()>::new().receive());
    let waits: [fn(&Tasklet<()>); 3] =
        [|_| _ = run(), |target| target.run().unwrap(), |target| target.switch().unwrap()];
    for wait in waits {
        let target = tasklet(block);
        wait(&target);
        assert_eq!(states(&target), BLOCKED);
        target.kill().unwrap();
    }
}

/// own deadlock of a join: waiting for the end of one that can never end names both.
#[test]
fn a_join_can_be_a_deadlock() {
    let paused = Tasklet::bind(|| ());
    let Err(JoinError::Deadlock(report)) = paused.join() else { panic!("no deadlock") };
    assert_eq!(report.waiters().len(), 2);
}

/// own iteration of main: main that iterates over a channel whose senders have all ended is told of the deadlock.
#[test]
fn main_that_iterates_is_told() {
    let channel = Channel::new();
    let theirs = channel.clone();
    tasklet(move || theirs.send_all(0..2).unwrap());
    let mut received = channel.iter();
    assert_eq!((received.next(), received.next()), (Some(0), Some(1)));
    let panic = panic_of(|| received.next());
    assert!(panic.contains("deadlock"), "{panic}");
}

/// own outside is no deadlock: main waits as long as time can wake someone.
#[test]
fn a_timer_is_no_deadlock() {
    pila::driver::install(Box::new(pila::driver::VirtualClock::new())).unwrap();
    let channel = Channel::new();
    let theirs = channel.clone();
    tasklet(move || {
        sleep(std::time::Duration::from_secs(3600));
        theirs.send("late").unwrap();
    });
    assert_eq!(channel.receive().unwrap(), "late");
}
