//! Ends a tasklet at each place in each way.

use std::{
    panic::catch_unwind,
    rc::Rc,
    time::{Duration, Instant},
};

use pila::{
    Elapsed, JoinError, Tasklet, TaskletError, run, schedule, scope, sleep, tasklet, timeout,
};

use crate::{
    alone, assert_back_at, descriptors, names,
    net_support::bounded,
    places::{Case, NEVER, PLACES, Place, Stand},
    scene::{Last, Scene},
    warm_up,
};

/// How a tasklet is ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Kill,
    KillLater,
    Timeout,
    /// By `kill`; the victim's last destructor kills the victim and its killer.
    KillBack,
}

pub(crate) const WAYS: [Way; 4] = [Way::Kill, Way::KillLater, Way::Timeout, Way::KillBack];

/// The timeout of those that are ended by one.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(3);

/// What happens at each place, in the order of `WAYS`; without those that cannot be had here.
pub(crate) fn seen() -> Vec<(&'static str, [String; 4])> {
    let _alone = alone();
    let mut failures = Vec::new();
    let mut rows = Vec::new();
    let is_there = |place: &&Place| !place.looks_up || names::are_never_found();
    for place in PLACES.iter().filter(is_there) {
        rows.push((
            place.name,
            WAYS.map(|way| {
                let cell = format!("{} / {way:?}", place.name);
                let ended = catch_unwind(|| bounded(move || end_one(place, way)));
                ended.unwrap_or_else(|_| {
                    println!("failed: {cell}");
                    failures.push(cell);
                    String::new()
                })
            }),
        ));
    }
    assert!(failures.is_empty(), "these cells failed, each with its message above: {failures:#?}");
    rows
}

/// Ends one tasklet and says in a few words what was seen.
fn end_one(place: &Place, way: Way) -> String {
    warm_up();
    let before = descriptors();

    let scene = Rc::new(Scene::default());
    scene.kills_back.set(way == Way::KillBack);
    let stand = (place.set_up)(way);
    let bystanders = scene.bystanders();
    let (words, after) = match (place.case(), way) {
        (Case::NeverStarted, Way::Timeout) => end_unstarted_in_time(&scene, stand),
        _ => end_victim(place.case(), way, &scene, stand),
    };
    scene.assert_all_dropped_once();

    scene.assert_the_next_are_well(bystanders);
    after();
    let summary = run();
    assert_eq!((summary.blocked, summary.paused, summary.unread_panics), (0, 0, 0));
    assert_back_at(before);
    words
}

type After = Box<dyn FnOnce()>;

fn end_victim(case: Case, way: Way, scene: &Rc<Scene>, stand: Stand) -> (String, After) {
    let Stand { wait, label, after } = stand;
    let (last, theirs) = (scene.last(), scene.clone());
    let body = move || {
        let goes_on = |_: &Last| {
            theirs.deadline.set(Some(Instant::now() + TIMEOUT).filter(|_| way == Way::Timeout));
            theirs.entered.set(true);
            theirs.at.set(label);
            let _inner = theirs.counted();
            wait(&theirs);
            theirs.at.set("its next call");
            sleep(NEVER);
            theirs.returned.set(true);
        };
        match way {
            Way::Timeout => timeout(TIMEOUT, move || goes_on(&last)),
            _ => {
                goes_on(&last);
                Ok(())
            }
        }
    };
    let victim = if case == Case::NeverStarted { Tasklet::bind(body) } else { tasklet(body) };
    *scene.victim.borrow_mut() = Some(victim.handle());
    if case == Case::Current {
        *scene.killer.borrow_mut() = Some(victim.handle());
    } else {
        bring_there(case, way, scene, &victim);
        match way {
            Way::Timeout => {}
            Way::KillLater => kill_later(scene, &victim),
            Way::Kill | Way::KillBack => kill(way, scene, &victim),
        }
    }
    let id = victim.id();
    let result = victim.join();
    let words = describe(case, way, scene, id, &result);
    (words, after)
}

/// Lets the victim run until it is where it is to be ended.
fn bring_there(case: Case, way: Way, scene: &Scene, victim: &Tasklet<Result<(), Elapsed>>) {
    if case == Case::NeverStarted {
        return;
    }
    let has_arrived = || match case {
        Case::Runnable => scene.entered.get() && victim.is_scheduled(),
        _ => victim.is_blocked(),
    };
    // Where the machine is busy with other things its timeout may have struck by now.
    let has_ended = || way == Way::Timeout && !victim.is_alive();
    while !has_arrived() && !has_ended() {
        schedule();
    }
    // The tasklets of its scope get there after it.
    schedule();
    assert!(has_arrived() || has_ended());
}

fn kill(way: Way, scene: &Rc<Scene>, victim: &Tasklet<Result<(), Elapsed>>) {
    let (theirs, handle) = (scene.clone(), victim.handle());
    let killer = tasklet(move || {
        let _counted = theirs.counted();
        theirs.killer_counts.set(true);
        theirs.turns_before.set(theirs.turns.get());
        let told = handle.kill();
        assert!(!theirs.kills_back.get(), "the killer was killed");
        told.expect("it ends");
        assert!(!handle.is_alive());
        let drops = theirs.drops();
        assert_eq!(drops.iter().sum::<u32>(), drops.len() as u32 - 1, "all but the killer's");
        theirs.assert_nobody_in_between();
    });
    *scene.killer.borrow_mut() = Some(killer.handle());
    match (way, killer.join()) {
        (Way::KillBack, Err(JoinError::Killed)) => {}
        (Way::Kill, Ok(())) => {}
        (_, ended) => panic!("the killer: {ended:?}"),
    }
}

fn kill_later(scene: &Rc<Scene>, victim: &Tasklet<Result<(), Elapsed>>) {
    let (theirs, handle) = (scene.clone(), victim.handle());
    let killer = tasklet(move || {
        handle.kill_later().expect("it ends later");
        assert!(handle.is_alive() && theirs.end.borrow().is_none(), "not in this turn");
        theirs.turns_before.set(theirs.turns.get());
    });
    killer.join().unwrap();
    // The victim went to the tail before the one that joins the killer.
    assert!(!victim.is_alive(), "it has had its turn");
}

/// A tasklet that never started has no call in which a timeout could find it: it is its scope that is ended.
fn end_unstarted_in_time(scene: &Rc<Scene>, stand: Stand) -> (String, After) {
    let (last, theirs) = (scene.last(), scene.clone());
    let owner = tasklet(move || {
        timeout(TIMEOUT, || {
            theirs.deadline.set(Some(Instant::now() + TIMEOUT));
            scope(|s| {
                s.bind(move || {
                    let _last = &last;
                    unreachable!("it is not inserted")
                });
            });
        })
    });
    let id = owner.id();
    assert_eq!(owner.join().unwrap().unwrap_err().limit(), TIMEOUT);
    scene.assert_not_late();
    let end = scene.end.borrow().expect("it was dropped");
    assert!(!end.unwinding && end.on == id && !scene.entered.get());
    ("closure dropped by its scope's owner, which the timeout ends".into(), stand.after)
}

/// Checks how the victim ended, and says it in the words of the document.
fn describe(
    case: Case,
    way: Way,
    scene: &Scene,
    victim: pila::TaskletId,
    result: &Result<Result<(), Elapsed>, JoinError>,
) -> String {
    let end = scene.end.borrow().expect("its last destructor has run");
    assert!(end.is_last, "its first is dropped last, and its tasklets before it");
    let swallowed = case == Case::Swallows;
    assert_eq!(scene.returned.get(), swallowed, "whether it goes on to its end");
    match result {
        Err(JoinError::Killed) => {
            assert!(way == Way::KillBack || way != Way::Timeout && !swallowed)
        }
        Ok(Err(elapsed)) => assert!(way == Way::Timeout && elapsed.limit() == TIMEOUT),
        Ok(Ok(())) => assert!(swallowed && way != Way::KillBack),
        other => panic!("the victim: {other:?}"),
    }
    if way == Way::Timeout {
        scene.assert_not_late();
    }
    let mut words = match (scene.entered.get(), end.unwinding) {
        (false, unwinding) => {
            assert!(!unwinding, "what never started has nothing to unwind");
            match end.on == victim {
                true => "closure dropped at its turn, on its own stack".into(),
                false => "closure dropped by the killer".into(),
            }
        }
        (true, true) => format!("unwinds from {}", scene.at.get()),
        (true, false) => "caught; its calls are refused until it returns".to_owned(),
    };
    if way == Way::KillBack {
        words += match (&scene.told.borrow()[..], case) {
            ([Err(TaskletError::Pending(_)), Err(TaskletError::Pending(_))], Case::Current) => {
                "; both kills are `Pending`, for it ends"
            }
            ([Err(TaskletError::Pending(_)), Err(TaskletError::Pending(_))], _) => {
                "; both kills are `Pending`, then the killer unwinds from its `kill`"
            }
            ([Err(TaskletError::Pending(_))], Case::Swallows) => {
                "; the killer's is `Pending`, its own is raised anew"
            }
            ([Ok(())], Case::NeverStarted) => "; it has ended, and the killer unwinds out of it",
            (told, _) => panic!("the destructor was told {told:?}"),
        };
    }
    words
}
