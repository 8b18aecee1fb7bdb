//! From a check's findings to its result.

use ktstr_declaration::Check;
use ktstr_report::{Assert, AssertResult, CheckResult, Setting, Subject};

use super::evidence::{Run, Tally};
use crate::recording::float;

/// Says what was seen on a CPU, as a clause: `CPU 3 had 60 tasks on its local DSQ`.
type Describe = Box<dyn Fn(Option<usize>, &Run) -> String>;

/// What a check has found.
pub(super) struct Findings {
    /// Evidence by CPU, or about the machine as a whole.
    pub(super) tallies: Vec<(Option<usize>, Tally)>,
    /// Why there is no evidence, if there is none.
    pub(super) why_nothing: String,
    pub(super) describe: Describe,
}

impl Findings {
    /// Puts the result of `check`, which is on, into `result`.
    pub(super) fn conclude(self, check: Check, assert: &Assert, result: &mut AssertResult) {
        let setting = assert.of(check);
        let window = assert.window().max(1);
        let judged = self.tallies.iter().map(|(_, tally)| tally.judged).max();
        let judged = judged.unwrap_or(0);
        if judged == 0 {
            return no_data(result, check, setting, &self.why_nothing);
        }
        let limit = has_bound(check).then(|| setting.get()).flatten();
        let about = |check_result: CheckResult, value: Option<f64>, cpu: Option<usize>| {
            let subject = Subject {
                cpu: cpu.and_then(|cpu| u32::try_from(cpu).ok()),
                ..Subject::default()
            };
            let check_result = check_result.with_value(value).with_bound(limit);
            check_result.about(subject)
        };
        if let Some((cpu, run)) = self.worst_run(window) {
            let detail = format!(
                "{} from {} to {} ({} samples in a row; {window} are too many)",
                (self.describe)(cpu, &run),
                seconds(run.from_ns),
                seconds(run.to_ns),
                run.samples
            );
            let value = limit.map(|_| run.peak);
            return result.push(about(CheckResult::fail(check, detail), value, cpu));
        }
        if let Some((cpu, detail)) = self.worst_doubt(window) {
            return result.push(about(CheckResult::inconclusive(check, detail), None, cpu));
        }
        if judged < window {
            let why = format!(
                "{judged} samples have data, and {window} in a row decide: the test is too short for it"
            );
            return no_data(result, check, setting, &why);
        }
        let worst = self.tallies.iter().max_by(|(_, a), (_, b)| {
            let value = |tally: &Tally| tally.worst.unwrap_or(f64::NEG_INFINITY);
            value(a).total_cmp(&value(b))
        });
        let (cpu, value) = worst.map_or((None, None), |(cpu, tally)| (*cpu, tally.worst));
        let detail = format!("never beyond its bound for {window} samples in a row");
        let value = limit.and(value);
        result.push(about(CheckResult::pass(check, detail), value, cpu));
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
}

fn has_bound(check: Check) -> bool {
    !matches!(check.spec().preset, ktstr_declaration::Preset::On)
}

/// There is no data: inconclusive where the test itself asks for the check, else not checked.
pub(super) fn no_data(result: &mut AssertResult, check: Check, setting: Setting<f64>, why: &str) {
    match setting.is_by_test() {
        true => result.push(CheckResult::inconclusive(check, why)),
        false => result.push_not_checked(check.name(), why),
    }
}

/// A moment of the recording: `3.2 s`.
fn seconds(at_ns: u64) -> String {
    format!("{:.1} s", float(at_ns) / 1e9)
}
