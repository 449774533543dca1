//! Which tasklet panics: std's message names the thread alone.

use std::{io::Write as _, panic, sync::Once, thread};

use crate::{current::with, report::Origin};

/// Adds a line to what is printed when a tasklet panics, after what the hook prints that is there now. Once for the process.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    // A hook cannot be changed while its thread panics. The next thread will do it.
    if thread::panicking() {
        return;
    }
    INSTALLED.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            previous(info);
            say_who();
        }));
    });
}

/// Says which tasklet runs, if one does. It must not panic.
fn say_who() {
    with(|scheduler| {
        if !scheduler.switch().is_inside() {
            return;
        }
        let Ok(core) = scheduler.core.try_borrow() else { return };
        let Some(task) = core.tasks.get(core.current as usize) else { return };
        let origin = Origin { who: &task.who(), created: task.created };
        writeln!(std::io::stderr(), "in tasklet {origin}").ok();
    });
}
