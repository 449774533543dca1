//! What an ending has in common with any other unwinding of Rust, because it is one.
//!
//! What ends the process runs in a process of its own.

use std::{
    cell::Cell,
    env,
    os::unix::process::ExitStatusExt,
    panic::resume_unwind,
    process::{Command, Output},
    rc::Rc,
    sync::{LazyLock, Mutex},
    time::Duration,
};

use pila::{schedule, sleep, tasklet, timeout};

use crate::{alone, places::NEVER};

const ABORTED: Option<i32> = Some(6);

/// Runs the test `name` of this file again, alone, in a process of its own.
fn again(name: &str) -> Output {
    // Its pipes are descriptors.
    let _alone = alone();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", &format!("unwinding::{name}"), "--nocapture"]);
    command.env("PILA_TEST_CHILD", "1").output().unwrap()
}

fn is_child() -> bool {
    env::var_os("PILA_TEST_CHILD").is_some()
}

/// As a library written in C calls back.
extern "C" fn called_back() {
    println!("waits");
    sleep(NEVER);
}

#[test]
fn below_an_extern_c_frame_a_kill_aborts_the_process() {
    if is_child() {
        let victim = tasklet(|| called_back());
        schedule();
        let _ = victim.kill();
        return;
    }
    let output = again("below_an_extern_c_frame_a_kill_aborts_the_process");
    assert_eq!(output.status.signal(), ABORTED, "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("panic in a function that cannot unwind"), "{said}");
}

#[test]
fn below_an_extern_c_frame_a_timeout_aborts_the_process() {
    if is_child() {
        let _ = timeout(Duration::from_millis(1), || called_back());
        return;
    }
    let output = again("below_an_extern_c_frame_a_timeout_aborts_the_process");
    assert_eq!(output.status.signal(), ABORTED, "{output:?}");
}

#[test]
fn a_shield_keeps_an_ending_out_of_an_extern_c_frame() {
    extern "C" fn called_back() {
        pila::shield(|| sleep(Duration::from_millis(3)));
    }
    let ended = timeout(Duration::from_millis(1), || {
        called_back();
        sleep(NEVER);
    });
    assert!(ended.is_err());
}

#[test]
fn a_destructor_that_panics_while_its_tasklet_is_ended_aborts_the_process() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            resume_unwind(Box::new("while it unwinds already"));
        }
    }
    if is_child() {
        let victim = tasklet(|| {
            let _bomb = Bomb;
            sleep(NEVER);
        });
        schedule();
        let _ = victim.kill();
        return;
    }
    let output = again("a_destructor_that_panics_while_its_tasklet_is_ended_aborts_the_process");
    assert_eq!(output.status.signal(), ABORTED, "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("panic in a destructor during cleanup"), "{said}");
}

#[test]
fn a_std_mutex_that_the_victim_holds_across_its_wait_is_poisoned_and_no_other() {
    let [held, let_go, timed] = [(); 3].map(|()| Rc::new(Mutex::new(0)));
    let (its_held, its_other) = (held.clone(), let_go.clone());
    let victim = tasklet(move || {
        let mut guard = its_held.lock().unwrap();
        *guard += 1;
        *its_other.lock().unwrap() += 1;
        sleep(NEVER);
    });
    schedule();
    assert!(held.try_lock().is_err(), "the thread would be stuck here");
    victim.kill().unwrap();
    assert_eq!(*held.lock().unwrap_err().into_inner(), 1);
    assert_eq!(*let_go.lock().unwrap(), 1);

    let ended = timeout(Duration::from_millis(1), || {
        let _guard = timed.lock().unwrap();
        sleep(NEVER);
    });
    assert!(ended.is_err() && timed.is_poisoned());
}

#[test]
fn a_mutex_of_pila_that_the_victim_holds_is_handed_on() {
    let mutex = Rc::new(pila::sync::Mutex::new(0));
    let (victims, others) = (mutex.clone(), mutex.clone());
    let victim = tasklet(move || {
        *victims.lock().unwrap() += 1;
        let mut guard = victims.lock().unwrap();
        *guard += 1;
        sleep(NEVER);
    });
    let other = tasklet(move || *others.lock().unwrap());
    schedule();
    assert!(other.is_blocked());
    victim.kill().unwrap();
    assert_eq!(other.join().unwrap(), 2);
}

#[test]
fn a_lazy_value_whose_making_is_ended_is_poisoned_for_good() {
    thread_local! {
        static MADE: Cell<u32> = const { Cell::new(0) };
    }
    let lazy = LazyLock::new(|| {
        MADE.set(MADE.get() + 1);
        sleep(NEVER);
    });
    let ended = timeout(Duration::from_millis(1), || LazyLock::force(&lazy));
    assert!(ended.is_err());
    let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| LazyLock::force(&lazy)));
    assert!(again.is_err());
    assert_eq!(MADE.get(), 1);
}
