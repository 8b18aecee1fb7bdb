//! From tallies to a check's result.

use ktstr_report::{AssertResult, Bound, CheckResult, Outcome, Subject};

use super::evidence::{Run, Tally};
use crate::recording::float;

const OFF: &str = "turned off by the test";
const NO_BOUND: &str = "the test sets no bound";

/// A check of the monitor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
}

/// What a check has gathered.
pub(super) struct Case<'a> {
    pub(super) check: Check,
    /// How it is on.
    pub(super) bound: Bound<()>,
    /// The bound as a number, if it is one.
    pub(super) limit: Option<f64>,
    /// Violations in a row that break it.
    pub(super) window: u32,
    /// Evidence by CPU, or about the machine as a whole.
    pub(super) tallies: Vec<(Option<usize>, Tally)>,
    /// Why there is no evidence, if there is none.
    pub(super) why_nothing: String,
    /// Says what was seen, as a clause: `CPU 3 had 60 tasks on its local DSQ`.
    pub(super) describe: &'a dyn Fn(Option<usize>, &Run) -> String,
}

impl Case<'_> {
    pub(super) fn conclude(self, result: &mut AssertResult) {
        let window = self.window.max(1);
        let judged = self.tallies.iter().map(|(_, tally)| tally.judged).max();
        let judged = judged.unwrap_or(0);
        if self.bound == Bound::Off || judged == 0 {
            return nothing(result, self.check, self.bound, &self.why_nothing);
        }
        if let Some((cpu, run)) = self.worst_run(window) {
            let detail = format!(
                "{} from {} to {} ({} samples in a row; {window} are too many)",
                (self.describe)(cpu, &run),
                seconds(run.from_ns),
                seconds(run.to_ns),
                run.samples
            );
            let value = self.limit.map(|_| run.peak);
            return result.push(self.judged(Outcome::Fail, value, cpu, detail));
        }
        if let Some((cpu, detail)) = self.worst_doubt(window) {
            return result.push(self.judged(Outcome::Inconclusive, None, cpu, detail));
        }
        if judged < window {
            let why = format!(
                "{judged} samples that say something, where {window} in a row decide: the test is too short for it"
            );
            return nothing(result, self.check, self.bound, &why);
        }
        let worst = self.tallies.iter().max_by(|(_, a), (_, b)| {
            let value = |tally: &Tally| tally.worst.unwrap_or(f64::NEG_INFINITY);
            value(a).total_cmp(&value(b))
        });
        let (cpu, value) = worst.map_or((None, None), |(cpu, tally)| (*cpu, tally.worst));
        let detail = format!("never beyond its bound for {window} samples in a row");
        let value = self.limit.and(value);
        result.push(self.judged(Outcome::Pass, value, cpu, detail));
    }

    fn worst_run(&self, window: u32) -> Option<(Option<usize>, Run)> {
        let runs = self.tallies.iter().filter_map(|(cpu, tally)| {
            let run = tally.longest.filter(|run| run.samples >= window)?;
            Some((*cpu, run))
        });
        runs.max_by(|(_, a), (_, b)| {
            let by_peak = a.peak.total_cmp(&b.peak);
            by_peak.then(a.samples.cmp(&b.samples))
        })
    }

    fn worst_doubt(&self, window: u32) -> Option<(Option<usize>, String)> {
        let doubts = self.tallies.iter().map(|(cpu, tally)| (*cpu, tally.doubt));
        let (cpu, doubt) = doubts
            .filter(|(_, doubt)| doubt.samples() >= window)
            .max_by_key(|(_, doubt)| (doubt.violations, doubt.missing))?;
        let place = cpu.map_or_else(String::new, |cpu| format!(" of CPU {cpu}"));
        let detail = format!(
            "{} samples in a row{place} were beyond the bound ({}) or could not be taken ({}): {window} in a row \
             would break it",
            doubt.samples(),
            doubt.violations,
            doubt.missing
        );
        Some((cpu, detail))
    }

    fn judged(
        &self,
        outcome: Outcome,
        value: Option<f64>,
        cpu: Option<usize>,
        detail: String,
    ) -> CheckResult {
        CheckResult {
            check: self.check.name.to_owned(),
            outcome,
            value,
            bound: self.limit,
            unit: self.check.unit.to_owned(),
            subject: Subject {
                cpu: cpu.and_then(|cpu| u32::try_from(cpu).ok()),
                ..Subject::default()
            },
            detail,
        }
    }
}

/// There is no evidence: inconclusive for a bound of the test's own, else not checked.
pub(super) fn nothing(result: &mut AssertResult, check: Check, bound: Bound<()>, why: &str) {
    match bound {
        Bound::Off => result.push_not_checked(check.name, OFF),
        Bound::Default(()) => result.push_not_checked(check.name, why),
        Bound::Set(()) => result.push(CheckResult {
            check: check.name.to_owned(),
            outcome: Outcome::Inconclusive,
            value: None,
            bound: None,
            unit: check.unit.to_owned(),
            subject: Subject::default(),
            detail: why.to_owned(),
        }),
    }
}

/// The test sets no bound for a check that has none of itself.
pub(super) fn unset(result: &mut AssertResult, check: Check) {
    result.push_not_checked(check.name, NO_BOUND);
}

/// A moment of the recording: `3.2 s`.
fn seconds(at_ns: u64) -> String {
    format!("{:.1} s", float(at_ns) / 1e9)
}
