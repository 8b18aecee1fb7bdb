//! Recorded samples held against the bounds of checks. Pure functions.
//!
//! Each check is in a file of its own and turns the samples into evidence; a bound is broken when enough
//! samples in a row are beyond it. Where so many may be, because some could not be read, the check is
//! inconclusive: missing data hides no violation. So is everything read from a kernel that was not ready.

mod conclude;
mod event_rate;
mod evidence;
mod imbalance;
mod local_dsq;
mod phases;
mod rq_clock;
mod timeline;
mod validity;

pub use phases::{PhaseSpan, judge_phases};

use ktstr_declaration::{Check, JudgedBy};
use ktstr_report::{Assert, AssertResult, CheckResult, Setting};

use crate::recording::Recording;
use crate::sample::Sample;
use conclude::{Findings, no_data};
use timeline::Timeline;

/// Finds what the samples say of a check with this bound.
type Judge = fn(bound: f64, timeline: &Timeline<'_>) -> Findings;

/// The monitor's checks, but those of event rates: they are in `event_rate`.
const JUDGES: &[(Check, Judge)] = &[
    (Check::MaxImbalanceRatio, imbalance::judge),
    (Check::MaxLocalDsqDepth, local_dsq::judge),
    (Check::FailOnRqClockStuck, rq_clock::judge),
];

/// Ticks of CPU time that a vCPU must have had before a standstill of its clock says something.
const TICKS_TO_JUDGE: u64 = 10;

const NO_SCHEDULER: &str = "no sched_ext scheduler was enabled";

/// The part of a recording that is judged, on the clock of [`Sample::at_ns`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First moment.
    pub from_ns: u64,
    /// Last moment.
    pub to_ns: u64,
}

impl Span {
    /// All of a recording.
    pub const ALL: Self = Self {
        from_ns: 0,
        to_ns: u64::MAX,
    };

    pub(crate) fn holds(self, sample: &Sample) -> bool {
        (self.from_ns..=self.to_ns).contains(&sample.at_ns)
    }
}

/// Judges the samples of `span`. Every check of the monitor is in the result: as judged, or as not checked with the
/// reason.
pub fn judge(recording: &Recording, span: Span, assert: &Assert) -> AssertResult {
    let samples: Vec<&Sample> = recording
        .samples
        .iter()
        .filter(|sample| span.holds(sample))
        .collect();
    if samples.is_empty() {
        return without_samples(assert, "no sample was taken while the test ran");
    }
    if let Err(why) = validity::check(&samples) {
        return not_ready(assert, &why);
    }
    let timeline = Timeline::new(recording, span, samples, assert.window());
    each(assert, |result, check, setting| {
        let bound = setting.get().unwrap_or_default();
        let findings = match JUDGES.iter().find(|(of, _)| *of == check) {
            Some((_, judge)) => judge(bound, &timeline),
            None => event_rate::judge(check, bound, &timeline),
        };
        findings.conclude(check, assert, result);
    })
}

/// The checks of a test that nobody watched, and `why`: those that the test itself asks for are inconclusive, the
/// others not checked.
pub fn without_samples(assert: &Assert, why: &str) -> AssertResult {
    each(assert, |result, check, setting| {
        no_data(result, check, setting, why);
    })
}

/// What was read is not the state of a running kernel, so it is evidence of nothing.
fn not_ready(assert: &Assert, why: &str) -> AssertResult {
    each(assert, |result, check, _| {
        result.push(CheckResult::inconclusive(check, why));
    })
}

/// Calls `judge` for each check of the monitor that is on; the others are not checked.
fn each(
    assert: &Assert,
    mut judge: impl FnMut(&mut AssertResult, Check, Setting<f64>),
) -> AssertResult {
    let mut result = AssertResult::default();
    let is_ours = |check: &&Check| check.spec().judged_by == JudgedBy::Monitor;
    for &check in Check::ALL.iter().filter(is_ours) {
        let setting = assert.of(check);
        match setting.why_not() {
            Some(why) => result.push_not_checked(check.name(), why),
            None => judge(&mut result, check, setting),
        }
    }
    result
}
