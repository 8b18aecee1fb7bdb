//! `max_gap_ms`: no worker was kept from its work for longer than the bound.
//!
//! The library's own bound is left out where what the test declares makes long gaps due: a quota that the workers
//! can exhaust, a cgroup that was frozen, workers that weigh little beside others.

use ktstr_report::{AssertResult, CgroupReport, TimingSlack};

use super::OFF;
use super::restraint::{frozen, light, rationed};
use super::verdict::{Check, Measured, float};
use super::view::{Placed, completed};
use crate::Bound;

const CHECK: Check = Check {
    name: "max_gap_ms",
    unit: "ms",
};

const NS_PER_MS: f64 = 1e6;

pub(super) fn judge(
    result: &mut AssertResult,
    bound: Bound<u64>,
    timing: &TimingSlack,
    cgroups: &[CgroupReport],
) {
    let Some(own_bound_ms) = bound.get() else {
        return result.push_not_checked(CHECK.name, OFF);
    };
    let bound_ms = own_bound_ms.saturating_add(timing.gap_ms);
    // A worker that never got to run has no gap between iterations, but its whole time as one.
    let timed = completed(cgroups).filter(|placed| placed.worker.wall_time_ns > 0);
    let mut due: Vec<String> = Vec::new();
    let judged: Vec<Placed<'_>> = timed
        .filter(|placed| match gaps_are_due(bound, placed, cgroups) {
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
        result.push_not_checked(CHECK.name, why);
    }
    if all_due {
        return;
    }
    let worst = judged.iter().max_by_key(|placed| placed.worker.max_gap_ns);
    let Some(placed) = worst else {
        let why = "no worker sent a report with times in it";
        return CHECK.inconclusive(result, Some(float(bound_ms)), why);
    };
    let worker = placed.worker;
    let measured = Measured {
        value: float(worker.max_gap_ns) / NS_PER_MS,
        bound: float(bound_ms),
    };
    let mut subject = placed.subject();
    subject.cpu = Some(worker.max_gap_cpu);
    let detail = format!(
        "{placed} was kept from its work for {:.1} ms, until {:.1} ms after its release, then on CPU {}; the \
         bound is {bound_ms} ms{}",
        measured.value,
        float(worker.max_gap_at_ns) / NS_PER_MS,
        worker.max_gap_cpu,
        allowance(own_bound_ms, timing)
    );
    let holds = measured.value <= measured.bound;
    CHECK.conclude(result, holds, measured, subject, detail);
}

/// Why the library's bound is not judged for `placed`. A test's own always is.
fn gaps_are_due(
    bound: Bound<u64>,
    placed: &Placed<'_>,
    cgroups: &[CgroupReport],
) -> Option<String> {
    if matches!(bound, Bound::Set(_)) {
        return None;
    }
    frozen(placed.cgroup)
        .or_else(|| rationed(placed.cgroup, cgroups).map(|ration| ration.clause))
        .or_else(|| light(placed, cgroups))
}

fn allowance(own_bound_ms: u64, timing: &TimingSlack) -> String {
    if timing.gap_ms == 0 {
        return String::new();
    }
    let (slack, why) = (timing.gap_ms, &timing.why);
    format!(" ({own_bound_ms} ms, and {slack} ms because {why})")
}
