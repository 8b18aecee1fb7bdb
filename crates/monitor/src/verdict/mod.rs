//! Recorded samples held against thresholds. Pure functions.
//!
//! Each check is in a file of its own and turns the samples into evidence; a bound is broken when enough
//! samples in a row are beyond it. Where so many may be, because some could not be read, the check is
//! inconclusive: missing data hides no violation. So is everything read from a kernel that was not ready.

mod conclude;
mod event_rate;
mod evidence;
mod imbalance;
mod local_dsq;
mod rq_clock;
mod timeline;
mod validity;

use ktstr_report::{AssertResult, Bound, Thresholds};

use crate::recording::Recording;
use crate::sample::Sample;
use conclude::{Check, nothing, unset};
use timeline::Timeline;

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

/// Judges the samples of `span`. Every check of `thresholds` is in the result: as judged, or as not
/// checked with the reason.
pub fn judge(recording: &Recording, span: Span, thresholds: &Thresholds) -> AssertResult {
    let samples: Vec<&Sample> = recording
        .samples
        .iter()
        .filter(|sample| span.holds(sample))
        .collect();
    if samples.is_empty() {
        return without_samples(thresholds, "no sample was taken while the test ran");
    }
    if let Err(why) = validity::check(&samples) {
        return not_ready(thresholds, &why);
    }
    let timeline = Timeline::new(recording, span, samples, thresholds.sustained_samples);
    let mut result = AssertResult::default();
    match thresholds.max_imbalance_ratio {
        Some(bound) => imbalance::judge(&mut result, bound, &timeline),
        None => unset(&mut result, imbalance::CHECK),
    }
    local_dsq::judge(&mut result, thresholds.max_local_dsq_depth, &timeline);
    rq_clock::judge(&mut result, thresholds.fail_on_rq_clock_stuck, &timeline);
    event_rate::judge(
        &mut result,
        event_rate::FALLBACK,
        thresholds.max_fallback_rate,
        &timeline,
    );
    match thresholds.max_keep_last_rate {
        Some(bound) => event_rate::judge(
            &mut result,
            event_rate::KEEP_LAST,
            Bound::Set(bound),
            &timeline,
        ),
        None => unset(&mut result, event_rate::KEEP_LAST.check),
    }
    result
}

/// The checks of a test that nobody watched, and `why`: those with a bound of the test's own are
/// inconclusive, the others not checked.
pub fn without_samples(thresholds: &Thresholds, why: &str) -> AssertResult {
    let mut result = AssertResult::default();
    for (check, bound) in checks(thresholds) {
        match bound {
            None => unset(&mut result, check),
            Some(bound) => nothing(&mut result, check, bound, why),
        }
    }
    result
}

/// What was read is no state of a running kernel, so it is evidence of nothing.
fn not_ready(thresholds: &Thresholds, why: &str) -> AssertResult {
    let mut result = AssertResult::default();
    for (check, bound) in checks(thresholds) {
        match bound {
            None => unset(&mut result, check),
            Some(Bound::Off) => nothing(&mut result, check, Bound::Off, why),
            Some(_) => nothing(&mut result, check, Bound::Set(()), why),
        }
    }
    result
}

/// All checks, and whether and how each is on; `None` for one that the test sets no bound for.
fn checks(thresholds: &Thresholds) -> [(Check, Option<Bound<()>>); 5] {
    let set = |bound: Option<f64>| bound.map(|_| Bound::Set(()));
    [
        (imbalance::CHECK, set(thresholds.max_imbalance_ratio)),
        (
            local_dsq::CHECK,
            Some(without_value(&thresholds.max_local_dsq_depth)),
        ),
        (rq_clock::CHECK, Some(thresholds.fail_on_rq_clock_stuck)),
        (
            event_rate::FALLBACK.check,
            Some(without_value(&thresholds.max_fallback_rate)),
        ),
        (
            event_rate::KEEP_LAST.check,
            set(thresholds.max_keep_last_rate),
        ),
    ]
}

fn without_value<T>(bound: &Bound<T>) -> Bound<()> {
    match bound {
        Bound::Off => Bound::Off,
        Bound::Default(_) => Bound::Default(()),
        Bound::Set(_) => Bound::Set(()),
    }
}
