//! What is printed of a panic in a tasklet, and of tasklets that wait for ever, line by line.

mod live;

use std::panic;

use live::{again, errors, is_child};
use pila::{Builder, Channel, tasklet};

/// What the test `name` prints to standard error, with its thread's number left out.
#[track_caller]
fn printed(name: &str) -> String {
    let output = live::command(name).output().unwrap();
    let errors = errors(&output);
    let Some((before, rest)) = errors.split_once("' (") else { return errors };
    let (_, after) = rest.split_once(')').unwrap();
    format!("{before}'{after}")
}

#[test]
fn the_tasklet_that_panics_is_named_after_the_message() {
    const NAME: &str = "the_tasklet_that_panics_is_named_after_the_message";
    let line = line!() + 3;
    if is_child() {
        let mail = Builder::new().name("mail-17");
        drop(mail.tasklet(|| panic!("no such mailbox")).unwrap());
        // Raises it again, without another message.
        pila::run();
        unreachable!("run panics");
    }
    let file = file!();
    let expected = format!(
        "
thread '{NAME}' panicked at {file}:{line}:30:
no such mailbox
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
in tasklet 'mail-17' (#1, created at {file}:{line}:19)
"
    );
    assert_eq!(printed(NAME), expected);
}

#[test]
fn a_tasklet_without_a_name_is_told_by_its_number_and_main_not_at_all() {
    const NAME: &str = "a_tasklet_without_a_name_is_told_by_its_number_and_main_not_at_all";
    let line = line!() + 2;
    if is_child() {
        tasklet(|| panic!("first")).join().unwrap_err();
        panic!("second");
    }
    let errors = errors(&live::command(NAME).output().unwrap());
    let lines: Vec<_> = errors.lines().filter(|line| !line.is_empty()).collect();
    let file = file!();
    assert_eq!(lines.len(), 6, "{errors}");
    assert_eq!(lines[1], "first");
    assert_eq!(lines[3], format!("in tasklet #1 (created at {file}:{line}:9)"));
    assert!(lines[4].starts_with(&format!("thread '{NAME}' ")), "{errors}");
    assert_eq!(lines[5], "second");
}

#[test]
fn the_hook_that_was_there_is_still_called() {
    if is_child() {
        panic::set_hook(Box::new(|info| {
            eprintln!("mine: {}", info.payload_as_str().unwrap_or("?"));
        }));
        tasklet(|| panic!("look")).join().unwrap_err();
        // Every thread has a scheduler of its own, the hook is one.
        let thread = pila::spawn_thread(|| tasklet(|| panic!("again")).join().unwrap_err());
        thread.unwrap().join().unwrap();
        return;
    }
    let errors = errors(&again("the_hook_that_was_there_is_still_called"));
    let lines: Vec<_> =
        errors.lines().map(|line| line.split(" (created").next().unwrap()).collect();
    assert_eq!(lines, ["mine: look", "in tasklet #1", "mine: again", "in tasklet #1"]);
}

#[test]
fn a_hook_that_is_set_later_stands_alone() {
    if is_child() {
        drop(pila::current());
        panic::set_hook(Box::new(|_| eprintln!("mine")));
        tasklet(|| panic!("look")).join().unwrap_err();
        return;
    }
    assert_eq!(errors(&again("a_hook_that_is_set_later_stands_alone")), "mine\n");
}

#[test]
fn a_kill_prints_nothing() {
    if is_child() {
        let sleeper = tasklet(|| pila::sleep(std::time::Duration::MAX));
        pila::schedule();
        sleeper.kill().unwrap();
        return;
    }
    assert_eq!(errors(&again("a_kill_prints_nothing")), "");
}

#[test]
fn a_thread_that_first_uses_pila_while_it_unwinds_leaves_the_hook_alone() {
    struct Late;
    impl Drop for Late {
        fn drop(&mut self) {
            drop(pila::current());
        }
    }
    if is_child() {
        let _late = Late;
        panic!("first");
    }
    let output =
        live::command("a_thread_that_first_uses_pila_while_it_unwinds_leaves_the_hook_alone")
            .output()
            .unwrap();
    assert_eq!(output.status.code(), Some(101), "{output:#?}");
}

#[test]
fn thousands_that_wait_for_one_thing_are_a_line_of_a_deadlock() {
    const NAME: &str = "thousands_that_wait_for_one_thing_are_a_line_of_a_deadlock";
    let line = line!() + 2;
    if is_child() {
        let (mails, other) = (Channel::<u8>::new(), Channel::<u8>::new());
        for number in 0..5000 {
            let mails = mails.clone();
            let mail = Builder::new().name(format!("mail-{number}"));
            drop(mail.tasklet(move || mails.receive().is_ok()).unwrap());
        }
        let theirs = other.clone();
        drop(tasklet(move || theirs.receive().is_ok()));
        let paused = pila::Tasklet::bind(|| ());
        pila::schedule();
        // Main blocks last, so the deadlock is its own; the others stay as they are.
        eprintln!("{}", other.receive().unwrap_err());
        eprintln!("{}", pila::run());
        drop(paused);
        return;
    }
    let file = file!();
    let expected = format!(
        "deadlock: nothing can run, and nothing outside can wake anyone
  'main' (#0): waits for a sender on channel 2 (created at {file}:{line}:53)
  'mail-0' (#1), 'mail-1' (#2), 'mail-2' (#3) and 4997 more, created at {file}:{}:23: \
   waits for a sender on channel 1 (created at {file}:{line}:31)
  #5001, created at {file}:{}:14: waits for a sender on channel 2 (created at {file}:{line}:53)
  #5002, created at {file}:{}:22: is paused: waits to be inserted
0 finished, 5001 still blocked, 1 paused, 0 without a stack, 0 unread panics
",
        line + 4,
        line + 7,
        line + 8,
    );
    let errors = errors(&again(NAME));
    // The clock was read once or twice: how long they have waited is not what is tested here.
    let lines = errors.lines().map(|line| line.split(", for ").next().unwrap().to_owned() + "\n");
    assert_eq!(lines.collect::<String>(), expected);
}

#[test]
fn thousands_that_wait_alike_each_for_its_own_are_a_few_lines() {
    const NAME: &str = "thousands_that_wait_alike_each_for_its_own_are_a_few_lines";
    let line = line!() + 2;
    if is_child() {
        for number in 0..5000 {
            let waits = Builder::new().name(format!("mail-{number}"));
            drop(waits.tasklet(|| Channel::<u8>::new().receive().is_ok()).unwrap());
        }
        let gone = Channel::<u8>::new();
        let theirs = gone.clone();
        drop(tasklet(move || theirs.receive().is_ok()));
        assert_eq!(pila::run().blocked, 5001);
        // Who is left says so when asked, and when main cannot go on either.
        eprintln!("{}", pila::leftovers());
        eprintln!("{}", gone.receive().unwrap_err());
        return;
    }
    let file = file!();
    let (mails, other) = (line + 2, line + 6);
    let all: String = (1..=5)
        .map(|number| {
            format!(
                "  'mail-{}' (#{number}), created at {file}:{mails}:24: \
                 waits for a sender on channel {} (created at {file}:{mails}:35)\n",
                number - 1,
                number + 1,
            )
        })
        .chain([
            format!("  and 4995 more like these, created at {file}:{mails}:24\n"),
            format!(
                "  #5001, created at {file}:{other}:14: \
                 waits for a sender on channel 1 (created at {file}:{}:20)\n",
                line + 4
            ),
        ])
        .collect();
    let main = format!(
        "  'main' (#0): waits for a sender on channel 1 (created at {file}:{}:20)\n",
        line + 4
    );
    let expected = format!(
        "5001 tasklets wait:\n{all}\
         deadlock: nothing can run, and nothing outside can wake anyone\n{main}{all}"
    );
    let errors = errors(&again(NAME));
    // How long they have waited is not what is tested here.
    let lines = errors.lines().map(|line| line.split(", for ").next().unwrap().to_owned() + "\n");
    assert_eq!(lines.collect::<String>(), expected);
}
