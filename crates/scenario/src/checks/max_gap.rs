//! `max_gap_ms`: no worker went longer than the bound without progress.
//!
//! The library's own bound is left out where what the test declares makes long gaps due: a quota that the workers
//! can exhaust, a cgroup that was frozen, workers that weigh little beside others.

use ktstr_report::{AssertResult, CheckResult, TimingSlack};

use super::Case;
use super::figure::{Measured, float};
use super::restraint::{frozen, light, rationed};
use super::view::{Placed, completed};

const NS_PER_MS: f64 = 1e6;

pub(super) fn judge(case: &Case<'_>, result: &mut AssertResult) {
    let (timing, cgroups) = (case.timing, case.cgroups);
    let bound_ms = case.bound() + float(timing.gap_ms);
    // A worker that never got to run has no gap between iterations, but its whole time as one.
    let timed = completed(cgroups).filter(|placed| placed.worker.wall_time_ns > 0);
    let mut due: Vec<String> = Vec::new();
    let judged: Vec<Placed<'_>> = timed
        .filter(|placed| match gaps_are_due(case, placed) {
            None => true,
            Some(why) => {
                if !due.contains(&why) {
                    due.push(why);
                }
                false
            }
        })
        .collect();
    let all_due = judged.is_empty() && !due.is_empty();
    for why in due {
        result.push_not_checked(case.check.name(), why);
    }
    if all_due {
        return;
    }
    let worst = judged.iter().max_by_key(|placed| placed.worker.max_gap_ns);
    let Some(placed) = worst else {
        let why = "no worker sent a report with times in it";
        return result.push(CheckResult::inconclusive(case.check, why).with_bound(bound_ms));
    };
    let worker = placed.worker;
    let measured = Measured {
        value: float(worker.max_gap_ns) / NS_PER_MS,
        bound: bound_ms,
    };
    let mut subject = placed.subject();
    subject.cpu = Some(worker.max_gap_cpu);
    let detail = format!(
        "{placed} made no progress for {:.1} ms, until {:.1} ms after its release, then on CPU {}; the \
         bound is {bound_ms} ms{}",
        measured.value,
        float(worker.max_gap_at_ns) / NS_PER_MS,
        worker.max_gap_cpu,
        allowance(case.bound(), timing)
    );
    let judged = CheckResult::judged(case.check, measured.is_within(), detail);
    result.push(measured.of(judged, subject));
}

/// Why the library's bound is not judged for `placed`. A test's own always is.
fn gaps_are_due(case: &Case<'_>, placed: &Placed<'_>) -> Option<String> {
    if case.setting.is_by_test() {
        return None;
    }
    let cgroups = case.cgroups;
    frozen(placed.cgroup)
        .or_else(|| rationed(placed.cgroup, cgroups).map(|ration| ration.clause))
        .or_else(|| light(placed, cgroups))
}

fn allowance(own_bound_ms: f64, timing: &TimingSlack) -> String {
    if timing.gap_ms == 0 {
        return String::new();
    }
    let (slack, why) = (timing.gap_ms, &timing.why);
    format!(" ({own_bound_ms} ms, and {slack} ms because {why})")
}
