//! Threads and their ends: each has a scheduler of its own, and what is left suspended when it ends is leaked.

use std::{
    cell::RefCell,
    marker::PhantomData,
    process,
    sync::mpsc::{self, Sender},
    thread,
};

use pila::{
    Channel, Handle, ReceiveError, Refused, SendReason, Tasklet, TaskletError, current,
    main_tasklet, run, run_count, schedule, schedule_remove, tasklet,
};

use crate::support::{DEAD, OnDrop, again, is_child, states};

/// Calls what it was given when its thread-local is destroyed.
#[derive(Default)]
struct AtEnd(RefCell<Option<Box<dyn FnOnce()>>>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call();
        }
    }
}

thread_local! {
    static AT_END: AtEnd = AtEnd::default();
}

/// Calls `call` when the thread ends, after what the tasklets of the thread left was leaked.
fn at_end(call: impl FnOnce() + 'static) {
    AT_END.with(|at_end| *at_end.0.borrow_mut() = Some(Box::new(call)));
}

/// What `body` and all that it leaves behind say, on a thread that has ended since.
fn on_a_thread(body: impl FnOnce(Sender<String>) + Send + 'static) -> Vec<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || body(sender)).join().unwrap();
    // What is leaked keeps its sender: do not wait for more.
    receiver.try_iter().collect()
}

/// A tasklet that makes way by `wait`, and tells if it goes on or is unwound.
fn leftover(sender: &Sender<String>, wait: fn()) -> Tasklet<()> {
    let (on, end) = (sender.clone(), sender.clone());
    tasklet(move || {
        let _end = OnDrop::new(move || end.send("unwound".into()).unwrap());
        wait();
        on.send("went on".into()).unwrap();
    })
}

/// What has `Unsent::SENT` false unless `T` is `Send`: the inherent constant wins where it applies.
struct Is<T>(PhantomData<T>);

trait Unsent {
    const SENT: bool = false;
}

impl<T> Unsent for Is<T> {}

impl<T: Send> Is<T> {
    const SENT: bool = true;
}

/// TestRebindCrash.test_rebind_nontrivial: a tasklet cannot go to another thread, nor can its channels: the compiler
/// says so. Errors may.
#[test]
fn tasklets_stay_on_their_thread() {
    const {
        assert!(!Is::<Tasklet<()>>::SENT && !Is::<Handle>::SENT && !Is::<Channel<()>>::SENT);
        assert!(Is::<TaskletError>::SENT && Is::<ReceiveError>::SENT && Is::<SendReason>::SENT);
    }
}

/// TestRemove.test_remove_balance: what happens on one thread leaves the run count of another alone.
#[test]
fn each_thread_has_its_own_ring() {
    let _here = tasklet(|| ());
    let there = thread::spawn(|| {
        let tasklets = [(); 5].map(|()| tasklet(|| ()));
        tasklets[0].remove().unwrap();
        (run_count(), main_tasklet().is_current())
    });
    assert_eq!(there.join().unwrap(), (5, true));
    assert_eq!(run_count(), 2);
}

/// DeadThreadTest.test_tasklet_from_dead_thread: a handle that outlives its scheduler says that its tasklet is not
/// alive.
#[test]
fn a_scheduled_tasklet_of_an_ended_thread_is_dead() {
    let said = on_a_thread(|sender| {
        at_end(|| ());
        let tasklet = leftover(&sender, schedule);
        let handle = (*tasklet).clone();
        schedule();
        assert!(handle.is_alive() && handle.is_scheduled());
        at_end(move || sender.send(format!("{:?}", states(&handle))).unwrap());
    });
    assert_eq!(said, [format!("{DEAD:?}")]);
}

/// DeadThreadTest.test_removed_tasklet_from_dead_thread: the same for one that was removed.
#[test]
fn a_removed_tasklet_of_an_ended_thread_is_dead() {
    let said = on_a_thread(|sender| {
        at_end(|| ());
        let tasklet = leftover(&sender, schedule);
        let handle = (*tasklet).clone();
        schedule();
        handle.remove().unwrap();
        at_end(move || sender.send(format!("{:?}", states(&handle))).unwrap());
    });
    assert_eq!(said, [format!("{DEAD:?}")]);
}

/// DeadThreadTest.test_death: after its end a thread has no tasklet that could wait: every wait is refused.
#[test]
fn an_ended_thread_waits_no_more() {
    let said = on_a_thread(|sender| {
        at_end(|| ());
        let _tasklet = leftover(&sender, schedule_remove);
        run();
        at_end(move || {
            let refused = pila::park::check();
            sender.send(format!("{}", matches!(refused, Err(Refused::ThreadEnded)))).unwrap();
        });
    });
    assert_eq!(said, ["true"]);
}

/// DeadThreadTest.test_methods_on_dead: every method of a handle is safe after its scheduler: queries say no, what
/// would make it run is an error, what would take it out changes nothing.
#[test]
fn methods_of_an_orphan() {
    let said = on_a_thread(|sender| {
        at_end(|| ());
        let tasklet = leftover(&sender, schedule_remove);
        let handle = (*tasklet).clone();
        run();
        at_end(move || {
            assert!(matches!(handle.insert(), Err(TaskletError::Dead(_))));
            assert!(matches!(handle.run(), Err(TaskletError::Dead(_))));
            assert!(matches!(handle.switch(), Err(TaskletError::Dead(_))));
            assert!(matches!(handle.throw("late"), Err(TaskletError::Dead(_))));
            assert!(matches!(handle.throw_later("late"), Err(TaskletError::Dead(_))));
            assert!(matches!(handle.set_block_trap(true), Err(TaskletError::Dead(_))));
            handle.remove().unwrap();
            handle.kill().unwrap();
            handle.kill_later().unwrap();
            assert!(!handle.block_trap() && !handle.is_main());
            assert_eq!(states(&handle), DEAD);
            sender.send("all of them".into()).unwrap();
        });
    });
    assert_eq!(said, ["all of them"]);
}

/// TestThreadLocalStorage.test_destructor_at_end_of_thread: the destructor of a thread-local may use the scheduler:
/// nothing waits, nothing that is left goes on, nothing panics.
#[test]
fn a_thread_locals_destructor_uses_the_scheduler() {
    let said = on_a_thread(|sender| {
        at_end(|| ());
        let _tasklet = leftover(&sender, schedule);
        let channel = Channel::new();
        schedule();
        at_end(move || {
            drop(tasklet(|| ()));
            schedule();
            schedule_remove();
            assert_eq!(run().finished, 0);
            assert!(channel.send(1).is_err() && channel.receive().is_err());
            assert!(current().is_main());
            sender.send("done".into()).unwrap();
        });
    });
    assert_eq!(said, ["done"]);
}

/// test_defects.test_tasklet_dealloc_in_thread_shutdown, TestInterpreterShutdown.test_shutdown_hard_running_nl1: a
/// thread that ends with a tasklet in the run ring leaks it: it neither goes on nor unwinds.
#[test]
fn a_thread_ends_with_a_runnable_tasklet() {
    let said = on_a_thread(|sender| {
        let tasklet = leftover(&sender, schedule);
        schedule();
        assert!(tasklet.is_scheduled());
    });
    assert!(said.is_empty(), "{said:?}");
}

/// TestInterpreterShutdown.test_shutdown_hard_paused_nl1: the same with a paused one.
#[test]
fn a_thread_ends_with_a_paused_tasklet() {
    let said = on_a_thread(|sender| {
        let tasklet = leftover(&sender, schedule_remove);
        run();
        assert!(tasklet.is_paused());
    });
    assert!(said.is_empty(), "{said:?}");
}

/// TestInterpreterShutdown.test_shutdown_hard_blocked_nl1: the same with a blocked one.
#[test]
fn a_thread_ends_with_a_blocked_tasklet() {
    let said = on_a_thread(|sender| {
        let tasklet = leftover(&sender, || drop(Channel::<()>::new().receive()));
        run();
        assert!(tasklet.is_blocked());
    });
    assert!(said.is_empty(), "{said:?}");
}

/// Waits for ever, and exits, below many calls.
fn below(depth: u32, then: fn()) -> u32 {
    if depth == 0 {
        then();
        return 0;
    }
    std::hint::black_box(below(depth - 1, then) + 1)
}

/// TestShutdown.test_cstack_new: the process exits with tasklets suspended below nested calls.
#[test]
fn the_process_exits_with_suspended_tasklets() {
    if is_child() {
        for _ in 0..20 {
            tasklet(|| below(100, schedule_remove));
        }
        assert_eq!(run().paused, 20);
        process::exit(17);
    }
    let output = again("threads::the_process_exits_with_suspended_tasklets");
    assert_eq!(output.status.code(), Some(17), "{output:#?}");
}

/// test_shutdown.test_exit_in_deep_tasklet1: a tasklet that exits the process below many calls does, with its status.
#[test]
fn a_deep_tasklet_exits_the_process() {
    if is_child() {
        tasklet(|| below(100, || process::exit(17)));
        run();
        unreachable!("the process has exited");
    }
    let output = again("threads::a_deep_tasklet_exits_the_process");
    assert_eq!(output.status.code(), Some(17), "{output:#?}");
}

/// test_shutdown.test_exit_in_deep_tasklet2: the same after a switch, with others suspended.
#[test]
fn a_deep_tasklet_exits_the_process_later() {
    if is_child() {
        tasklet(|| below(100, schedule_remove));
        tasklet(|| {
            below(100, || {
                schedule();
                process::exit(17);
            })
        });
        drop(Channel::<()>::new().receive());
        unreachable!("the process has exited");
    }
    let output = again("threads::a_deep_tasklet_exits_the_process_later");
    assert_eq!(output.status.code(), Some(17), "{output:#?}");
}
