//! What a victim leaves behind for those who look: what was dropped, when, and on whose stack.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Mutex,
    thread,
    time::Instant,
};

use pila::{Handle, Tasklet, TaskletError, TaskletId, current, schedule, tasklet};

/// Turns of bystanders after which the loop has looked at the clock: 61 switches, and once around the ring.
const TURNS: u32 = 61 + 8;

/// How many tasklets have to be well after an ending.
const NEXT: usize = 1000;

/// Everything that is seen of one ending.
#[derive(Default)]
pub(crate) struct Scene {
    /// How often each of those that were counted was dropped.
    drops: RefCell<Vec<Rc<Cell<u32>>>>,
    /// Whether the victim began.
    pub(crate) entered: Cell<bool>,
    /// Which call of the victim is under way.
    pub(crate) at: Cell<&'static str>,
    /// Whether the victim's closure returned.
    pub(crate) returned: Cell<bool>,
    /// How the victim's last destructor ran.
    pub(crate) end: RefCell<Option<End>>,
    /// Whether the victim's last destructor kills: the killer, and the victim once more.
    pub(crate) kills_back: Cell<bool>,
    pub(crate) killer: RefCell<Option<Handle>>,
    pub(crate) victim: RefCell<Option<Handle>>,
    /// Whether the killer has something counted as well.
    pub(crate) killer_counts: Cell<bool>,
    /// What it was told of these kills, as far as they returned. One that kills itself does that last.
    pub(crate) told: RefCell<Vec<Result<(), TaskletError>>>,
    /// Turns that bystanders had, and those of them after `deadline` and before the end.
    pub(crate) turns: Cell<u32>,
    pub(crate) late: Cell<u32>,
    pub(crate) deadline: Cell<Option<Instant>>,
    /// The turns when the ending was asked for.
    pub(crate) turns_before: Cell<u32>,
    stop: Cell<bool>,
}

/// The moment of the victim's last destructor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// On whose stack it ran.
    pub(crate) on: TaskletId,
    pub(crate) unwinding: bool,
    /// Whether all else that the victim had, and its tasklets, was dropped by then.
    pub(crate) is_last: bool,
    pub(crate) turns: u32,
}

/// Something whose destructor must run exactly once.
pub(crate) struct Counted(Rc<Cell<u32>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// What a victim owns from before its start: dropped last, and it may kill.
pub(crate) struct Last {
    scene: Rc<Scene>,
    _counted: Counted,
}

impl Drop for Last {
    fn drop(&mut self) {
        let scene = &self.scene;
        let (on, unwinding) = (current().id(), thread::panicking());
        // Its own is still there, and so is the killer's, if there is one.
        let left = scene.drops().into_iter().filter(|&drops| drops == 0).count();
        let is_last = left == 1 + usize::from(scene.killer_counts.get());
        *scene.end.borrow_mut() = Some(End { on, unwinding, is_last, turns: scene.turns.get() });
        if scene.kills_back.get() {
            let handle =
                |place: &RefCell<Option<Handle>>| place.borrow().clone().expect("it is there");
            let (victim, killer) = (handle(&scene.victim), handle(&scene.killer));
            // Whoever kills itself may not come to the second.
            let order = if on == victim.id() { [killer, victim] } else { [victim, killer] };
            for target in order {
                let told = target.kill();
                scene.told.borrow_mut().push(told);
            }
        }
    }
}

impl Scene {
    pub(crate) fn counted(&self) -> Counted {
        let drops = Rc::new(Cell::new(0));
        self.drops.borrow_mut().push(drops.clone());
        Counted(drops)
    }

    pub(crate) fn last(self: &Rc<Self>) -> Last {
        Last { _counted: self.counted(), scene: self.clone() }
    }

    /// How often each destructor has run.
    pub(crate) fn drops(&self) -> Vec<u32> {
        self.drops.borrow().iter().map(|drops| drops.get()).collect()
    }

    #[track_caller]
    pub(crate) fn assert_all_dropped_once(&self) {
        let drops = self.drops();
        assert!(drops.iter().all(|&drops| drops == 1), "dropped so often: {drops:?}");
    }

    /// Tasklets that yield for as long as the scene is under way, and lock what nobody else locks.
    pub(crate) fn bystanders(self: &Rc<Self>) -> [Tasklet<()>; 2] {
        [(); 2].map(|()| {
            let scene = self.clone();
            tasklet(move || {
                let innocent = Mutex::new(());
                while !scene.stop.get() {
                    scene.turns.set(scene.turns.get() + 1);
                    let is_late = scene.deadline.get().is_some_and(|at| Instant::now() >= at);
                    if is_late && scene.end.borrow().is_none() {
                        scene.late.set(scene.late.get() + 1);
                    }
                    assert!(!thread::panicking(), "it is the victim that unwinds");
                    drop(innocent.lock().expect("nobody panicked with it"));
                    schedule();
                }
            })
        })
    }

    /// Nobody but the victim ran between the asking and the end.
    #[track_caller]
    pub(crate) fn assert_nobody_in_between(&self) {
        let end = self.end.borrow().expect("its last destructor has run");
        assert_eq!(end.turns, self.turns_before.get(), "others ran before its destructors");
        assert_eq!(
            self.turns.get(),
            self.turns_before.get(),
            "others ran before the kill returned"
        );
    }

    /// The victim ended in the first turn of the loop after its deadline.
    #[track_caller]
    pub(crate) fn assert_not_late(&self) {
        assert!(self.late.get() <= TURNS, "{} turns after the deadline", self.late.get());
    }

    /// Nothing of the ending is left for those who come after it.
    pub(crate) fn assert_the_next_are_well(&self, bystanders: [Tasklet<()>; 2]) {
        self.stop.set(true);
        for bystander in bystanders {
            bystander.join().expect("nobody touched it");
        }
        let (innocent, well) = (Rc::new(Mutex::new(0)), Rc::new(Cell::new(0)));
        let next: Vec<_> = (0..NEXT)
            .map(|_| {
                let (innocent, well) = (innocent.clone(), well.clone());
                tasklet(move || {
                    assert!(!thread::panicking());
                    *innocent.lock().expect("nobody panicked with it") += 1;
                    schedule();
                    assert!(!thread::panicking());
                    well.set(well.get() + 1);
                })
            })
            .collect();
        for tasklet in next {
            tasklet.join().expect("nobody touched it");
        }
        assert_eq!((*innocent.lock().unwrap(), well.get()), (NEXT, NEXT));
    }
}
