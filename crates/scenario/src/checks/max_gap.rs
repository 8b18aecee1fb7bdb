//! `max_gap_ms`: no worker was kept from its work for longer than the bound.

use ktstr_report::{AssertResult, CgroupReport};

use super::OFF;
use super::verdict::{Check, Measured, float};
use super::view::completed;
use crate::{Bound, Timing};

const CHECK: Check = Check {
    name: "max_gap_ms",
    unit: "ms",
};

const NS_PER_MS: f64 = 1e6;

pub(super) fn judge(
    result: &mut AssertResult,
    bound: Bound<u64>,
    timing: &Timing,
    cgroups: &[CgroupReport],
) {
    let Some(own_bound_ms) = bound.get() else {
        return result.push_not_checked(CHECK.name, OFF);
    };
    let bound_ms = own_bound_ms.saturating_add(timing.gap_slack_ms);
    // A worker that never got to run has no gap between iterations, but its whole time as one.
    let worst = completed(cgroups)
        .filter(|placed| placed.worker.wall_time_ns > 0)
        .max_by_key(|placed| placed.worker.max_gap_ns);
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

fn allowance(own_bound_ms: u64, timing: &Timing) -> String {
    if timing.gap_slack_ms == 0 {
        return String::new();
    }
    let (slack, why) = (timing.gap_slack_ms, &timing.why);
    format!(" ({own_bound_ms} ms, and {slack} ms because {why})")
}
