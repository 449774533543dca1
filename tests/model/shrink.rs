//! Makes a failing program as small as it can be and still fail.

use crate::programs::{Op, Program, Script};

/// Drops whatever it can for as long as `fails` holds.
pub(crate) fn shrink(mut program: Program, fails: impl Fn(&Program) -> bool) -> Program {
    loop {
        let Some(smaller) = smaller(&program).into_iter().find(|smaller| fails(smaller)) else {
            return program;
        };
        program = smaller;
    }
}

/// All programs that are one step smaller.
fn smaller(program: &Program) -> Vec<Program> {
    let with = |change: &dyn Fn(&mut Program)| {
        let mut changed = program.clone();
        change(&mut changed);
        changed
    };
    let mut all = Vec::new();
    for number in 0..program.scripts.len() {
        let Script { steps, last_words, stubborn } = &program.scripts[number];
        all.push(with(&|changed| changed.scripts[number].steps.clear()));
        all.push(with(&|changed| changed.scripts[number].last_words.clear()));
        for place in (0..steps.len()).rev() {
            all.push(with(&|changed| drop(changed.scripts[number].steps.remove(place))));
            if let Op::Select(arms) = &steps[place] {
                for arm in (0..arms.len()).filter(|_| arms.len() > 1) {
                    all.push(with(&|changed| {
                        let Op::Select(arms) = &mut changed.scripts[number].steps[place] else {
                            return;
                        };
                        arms.remove(arm);
                    }));
                }
            }
        }
        for place in (0..last_words.len()).rev() {
            all.push(with(&|changed| drop(changed.scripts[number].last_words.remove(place))));
        }
        if *stubborn {
            all.push(with(&|changed| changed.scripts[number].stubborn = false));
        }
    }
    for channel in 0..program.capacities.len() {
        all.push(with(&|changed| changed.capacities[channel] = 0));
    }
    all.retain(|changed| changed != program);
    all
}
