//! `Row`: what one way has done with one number of mails, and what went wrong.

use std::time::Duration;

use serde::Serialize;

use crate::{
    post::Task, smtp::ledger::Report, table::grouped, tally::Score, way_process::Ending, ways::Way,
};

/// A row of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) way: &'static str,
    /// How many mails it was to send.
    pub(crate) mails: u32,
    /// How many bytes of address space it had, if there was a limit.
    pub(crate) address_space: Option<u64>,
    /// How many of them the server has accepted.
    pub(crate) sent: u32,
    pub(crate) seconds: f64,
    pub(crate) mails_per_second: f64,
    /// How many connections the server has had at one time, if it could be asked.
    pub(crate) at_once: Option<usize>,
    pub(crate) threads: u64,
    pub(crate) peak_kib: u64,
    pub(crate) cpu_seconds: f64,
    /// How many mails were sent that the way has not counted.
    pub(crate) lost_updates: u32,
    /// How many came twice, if the server could be asked.
    pub(crate) came_twice: Option<usize>,
    /// Lines of code.
    pub(crate) lines: usize,
    /// It was not meant to send them all.
    pub(crate) is_sample: bool,
    pub(crate) went_wrong: Vec<String>,
    /// It did what it should, if that is to fail at a limit.
    pub(crate) is_as_expected: bool,
}

impl Row {
    pub(crate) fn new(
        way: &'static Way,
        task: &Task,
        ending: Ending,
        report: Option<&Report>,
    ) -> Self {
        let Ending { status, score, threads, peak_kib } = ending;
        let died = score.is_none();
        let score = score.unwrap_or_default();
        let seconds = score.elapsed.as_secs_f64();
        let arrived = report.map_or(0, |report| (report.once + report.doubled) as u32);
        let failed: u32 = score.failures.values().sum();
        let is_sample = way.name == "sequential" && !died && score.sent + failed < task.mails;
        let mut row = Self {
            way: way.name,
            mails: task.mails,
            address_space: task.address_space,
            sent: if died { arrived } else { score.sent },
            seconds,
            mails_per_second: if seconds > 0.0 { f64::from(score.sent) / seconds } else { 0.0 },
            at_once: report.map(|report| report.peak),
            threads: score.threads.max(threads),
            peak_kib: score.peak_kib.max(peak_kib),
            cpu_seconds: score.cpu.as_secs_f64(),
            lost_updates: score.sent.saturating_sub(score.counted),
            came_twice: report.map(|report| report.doubled),
            lines: way.lines(),
            is_sample,
            went_wrong: Vec::new(),
            is_as_expected: false,
        };
        if died {
            row.went_wrong.push(format!("the process ended without a word: {status}"));
        }
        row.complain(score, report);
        row.is_as_expected = row.judge(failed, died, report);
        row
    }

    fn complain(&mut self, score: Score, report: Option<&Report>) {
        self.went_wrong.extend(score.notes);
        for (kind, mails) in score.failures {
            self.went_wrong.push(format!("{kind}: {} mails", grouped(mails)));
        }
        let Some(report) = report else { return };
        let arrived = (report.once + report.doubled) as u32;
        if arrived < self.sent {
            let (arrived, sent) = (grouped(arrived), grouped(self.sent));
            self.went_wrong.push(format!("of {sent} mails that were sent, {arrived} arrived"));
        }
        if report.doubled > 0 {
            self.went_wrong.push(format!("{} mails came twice", report.doubled));
        }
        if report.damaged > 0 {
            self.went_wrong.push(format!("{} mails came damaged", report.damaged));
        }
    }

    fn judge(&self, failed: u32, died: bool, report: Option<&Report>) -> bool {
        let is_complete = self.sent == self.mails || self.is_sample;
        let counts = self.lost_updates == 0 || self.way == "threads";
        let arrived = report.is_none_or(|report| report.bears_out(self.sent as usize));
        let may_fail = self.address_space.is_some();
        !died && counts && arrived && failed == 0 && (is_complete || may_fail)
    }

    /// How long all mails would take, if this was a sample.
    pub(crate) fn time_of_all(&self) -> Duration {
        let seconds = f64::from(self.mails) / self.mails_per_second.max(f64::MIN_POSITIVE);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}
