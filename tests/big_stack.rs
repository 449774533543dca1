//! `on_big_stack`: deep recursion in a tasklet with a small stack, which waits, is killed and panics in there as anywhere.

use std::{
    cell::{Cell, RefCell},
    hint::black_box,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    thread,
    time::Duration,
};

use pila::{
    Builder, Channel, JoinError, Tasklet, on_big_stack, on_stack_of, run, schedule, sleep, tasklet,
};
use rerun::{in_its_own_process, resident};

mod rerun;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const SMALL: usize = 64 * KIB;
/// More than any thread's own stack has room for by default, and than the tasklet's has.
const DEEP: usize = 10 * MIB;

/// Goes `bytes` deep, calls `bottom` there and gives its result back through every frame, each of which it visits.
fn deep<T>(bytes: usize, bottom: &mut dyn FnMut() -> T) -> T {
    let frame = black_box([bytes; 64]);
    // A word less than the frame takes: no optimisation makes it smaller than that.
    let result = if bytes < size_of_val(&frame) {
        bottom()
    } else {
        deep(bytes - size_of_val(&frame), bottom)
    };
    assert!(frame.iter().all(|&word| word == bytes), "another stack was written to");
    result
}

fn small<T: 'static>(f: impl FnOnce() -> T + 'static) -> Tasklet<T> {
    Builder::new().name("small").stack_size(SMALL).tasklet(f).unwrap()
}

#[test]
fn ten_megabytes_of_recursion_in_a_tasklet_of_64_kib() {
    let tasklet = small(|| on_big_stack(|| deep(DEEP, &mut || 42)).unwrap());
    assert_eq!(tasklet.join().unwrap(), 42);
}

#[test]
fn it_waits_at_the_bottom_while_others_run() {
    let numbers = Channel::new();
    let order = Rc::new(RefCell::new(Vec::new()));
    let tasklets: Vec<_> = (0..4)
        .map(|who| {
            let (numbers, order) = (numbers.clone(), order.clone());
            small(move || {
                let bottom = &mut || {
                    order.borrow_mut().push(who);
                    schedule();
                    sleep(Duration::from_millis(1));
                    order.borrow_mut().push(who);
                    numbers.receive().unwrap()
                };
                on_big_stack(|| deep(DEEP, bottom)).unwrap()
            })
        })
        .collect();
    schedule();
    assert_eq!(*order.borrow(), [0, 1, 2, 3]);
    for number in 0..4 {
        numbers.send(number * 11).unwrap();
    }
    let results: Vec<_> = tasklets.into_iter().map(|tasklet| tasklet.join().unwrap()).collect();
    assert_eq!(results, [0, 11, 22, 33]);
    assert_eq!(order.borrow().len(), 8);
}

pila::task_local! {
    static NUMBER: Cell<u32> = Cell::new(0);
}

#[test]
fn whoever_runs_on_it_is_who_it_was() {
    let tasklet = small(|| {
        NUMBER.with(|number| number.set(7));
        let me = pila::current().id();
        on_big_stack(|| {
            assert_eq!((pila::current().id(), pila::current().name()), (me, Some("small")));
            assert!(pila::current().is_current());
            assert_eq!(NUMBER.with(Cell::get), 7);
            NUMBER.with(|number| number.set(8));
            schedule();
            assert_eq!(pila::current().id(), me);
        })
        .unwrap();
        NUMBER.with(Cell::get)
    });
    tasklet.insert().unwrap();
    tasklet.set_block_trap(false).unwrap();
    assert_eq!(tasklet.join().unwrap(), 8);
}

/// Notes when it is dropped.
struct Noted(Rc<Cell<u32>>);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn a_kill_at_the_bottom_unwinds_both_stacks() {
    let dropped = Rc::new(Cell::new(0));
    let theirs = dropped.clone();
    let tasklet = small(move || {
        let _on_the_small_one = Noted(theirs.clone());
        let bottom = &mut || {
            let _on_the_big_one = Noted(theirs.clone());
            sleep(Duration::MAX);
        };
        on_big_stack(|| deep(DEEP, bottom)).unwrap();
        unreachable!("it was killed");
    });
    schedule();
    assert!(tasklet.is_blocked());
    tasklet.kill().unwrap();
    assert_eq!(dropped.get(), 2);
    assert!(matches!(tasklet.join(), Err(JoinError::Killed)));
}

#[test]
fn a_panic_passes_from_one_to_the_other() {
    let tasklet = small(|| {
        let caught = catch_unwind(|| on_big_stack(|| deep(DEEP, &mut || panic!("far down"))));
        let message = *caught.unwrap_err().downcast::<&str>().unwrap();
        on_big_stack(|| deep::<()>(DEEP, &mut || panic!("{message} again"))).unwrap();
    });
    let error = tasklet.join().unwrap_err();
    assert_eq!(error.to_string(), "the tasklet panicked: far down again");
}

#[test]
fn it_borrows_nests_and_returns() {
    let tasklet = small(|| {
        let mut sum = 0;
        let large = on_big_stack(|| {
            sum += 1;
            on_stack_of(MIB, || {
                sum += 1;
                schedule();
                on_big_stack(|| deep(DEEP, &mut || sum += 1)).unwrap();
            })
            .unwrap();
            [sum; 100]
        });
        (sum, large.unwrap())
    });
    assert_eq!(tasklet.join().unwrap(), (3, [3; 100]));
}

#[test]
fn main_waits_on_it_too() {
    // The loop itself runs there then, and tasklets that stand on stacks of their own are entered from it.
    let numbers = Channel::new();
    let theirs = numbers.clone();
    let sender = small(move || {
        for number in 0..3 {
            sleep(Duration::from_millis(1));
            theirs.send(number).unwrap();
        }
        on_big_stack(|| deep(DEEP, &mut || theirs.close())).unwrap();
    });
    let sum = on_big_stack(|| deep(DEEP, &mut || numbers.iter().sum::<i32>())).unwrap();
    assert_eq!(sum, 3);
    sender.join().unwrap();
    let summary = on_big_stack(run).unwrap();
    assert_eq!(summary.blocked, 0);
}

#[test]
fn a_suspended_one_is_entered_from_main_on_any_stack() {
    let gate = Channel::<()>::new();
    let theirs = gate.clone();
    let tasklet = small(move || {
        on_big_stack(|| deep(DEEP, &mut || (theirs.receive().is_err(), schedule()).0)).unwrap()
    });
    on_big_stack(schedule).unwrap();
    schedule();
    assert!(tasklet.is_blocked());
    on_stack_of(MIB, || gate.close()).unwrap();
    assert!(tasklet.join().unwrap());
}

#[test]
fn a_thousand_one_after_the_other_leave_memory_flat() {
    // Half of them are killed in the middle.
    let count = if cfg!(feature = "sanitizer") { 100 } else { 1000 };
    let one = |number: usize| {
        let tasklet = small(move || {
            let bottom = &mut || {
                schedule();
                if number.is_multiple_of(2) {
                    sleep(Duration::MAX);
                }
            };
            on_big_stack(|| deep(DEEP, bottom)).unwrap();
        });
        schedule();
        schedule();
        match number.is_multiple_of(2) {
            true => tasklet.kill().unwrap(),
            false => tasklet.join().unwrap(),
        }
    };
    in_its_own_process("a_thousand_one_after_the_other_leave_memory_flat", || {
        (0..10).for_each(one);
        let before = resident();
        (0..count).for_each(one);
        let after = resident();
        // One of them alone takes 10 MiB. AddressSanitizer keeps memory of its own for each stack.
        let flat = after < before + 2 * MIB || cfg!(feature = "sanitizer");
        assert!(flat, "{before} bytes before, {after} after");
    });
}

#[test]
fn too_large_a_stack_is_an_error() {
    let error = on_stack_of(usize::MAX, || ()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    let mut held = 0;
    fn fill(held: &mut u32) -> io::Error {
        *held += 1;
        match on_stack_of(1 << 40, || fill(held)) {
            Ok(error) => error,
            Err(error) => error,
        }
    }
    let error = fill(&mut held);
    assert!((8..=128).contains(&held), "{held}");
    let text = error.to_string();
    assert!(text.starts_with("no stack of 1 TiB for a call, "), "{text}");
    assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "{text}");
    // All are free again.
    assert_eq!(on_stack_of(1 << 40, || 1).unwrap(), 1);
    assert_ne!(pila::trim(), 0);
    assert_eq!(pila::trim(), 0);
}

#[test]
fn a_destructor_that_runs_while_its_tasklet_unwinds_may_use_it() {
    struct Deep(Rc<Cell<usize>>);
    impl Drop for Deep {
        fn drop(&mut self) {
            self.0.set(on_big_stack(|| deep(DEEP, &mut || 42)).unwrap());
        }
    }
    let result = Rc::new(Cell::new(0));
    let theirs = Deep(result.clone());
    let tasklet = small(move || {
        let _theirs = theirs;
        panic!("on purpose");
    });
    tasklet.join().unwrap_err();
    assert_eq!(result.get(), 42);
}

#[test]
fn a_thread_that_ends_leaks_those_that_are_suspended_on_it() {
    let (dropped, theirs) = (Arc::new(()), Arc::new(()));
    let weak = Arc::downgrade(&theirs);
    thread::spawn(move || {
        tasklet(move || {
            let bottom = &mut || {
                let _kept = (&theirs, &dropped);
                sleep(Duration::MAX);
            };
            on_big_stack(|| deep(DEEP, bottom)).unwrap();
        });
        schedule();
        // Main leaves its own big stack, which the thread's end must not mind.
        on_big_stack(|| catch_unwind(AssertUnwindSafe(schedule)).unwrap()).unwrap();
    })
    .join()
    .unwrap();
    assert!(weak.upgrade().is_some(), "a suspended stack was unwound");
}
