//! Checks that hold one figure of each worker against a bound.

use ktstr_declaration::Check;
use ktstr_report::{AssertResult, CheckResult, WorkerReport};

use super::Case;
use super::figure::{Measured, float};
use super::view::completed;

/// A figure of each worker.
struct Figure {
    check: Check,
    allowed: Allowed,
    /// `None`: the worker has no such figure.
    of: fn(&WorkerReport) -> Option<f64>,
    what: &'static str,
    /// Why no worker may have one.
    no_data: &'static str,
}

/// What the bound is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Allowed {
    AtMost,
    AtLeast,
}

const FIGURES: &[Figure] = &[
    Figure {
        check: Check::MaxP99WakeLatencyNs,
        allowed: Allowed::AtMost,
        of: |worker| {
            let latency = worker.wake_latency;
            (latency.samples > 0).then_some(float(latency.p99_ns))
        },
        what: "the 99th percentile of the wake latency, in ns",
        no_data: "no worker measured a wake-up: use a work type that sleeps and is woken",
    },
    Figure {
        check: Check::MinIterationRate,
        allowed: Allowed::AtLeast,
        of: |worker| per_cpu_second(worker, worker.iterations),
        what: "iterations per second of CPU time",
        no_data: "no worker got any CPU time",
    },
    Figure {
        check: Check::MinWorkRate,
        allowed: Allowed::AtLeast,
        of: |worker| per_cpu_second(worker, worker.work_units),
        what: "units of work per second of CPU time",
        no_data: "no worker got any CPU time",
    },
    Figure {
        check: Check::MaxMigrationRatio,
        allowed: Allowed::AtMost,
        of: |worker| {
            (worker.iterations > 0).then_some(float(worker.migrations) / float(worker.iterations))
        },
        what: "migrations per iteration",
        no_data: "no worker did an iteration",
    },
];

/// `None` if it got no CPU time.
fn per_cpu_second(worker: &WorkerReport, count: u64) -> Option<f64> {
    let cpu_s = float(worker.cpu_time_ns) / 1e9;
    (worker.cpu_time_ns > 0).then(|| float(count) / cpu_s)
}

pub(super) fn judge(case: &Case<'_>, result: &mut AssertResult) {
    result.push(
        match FIGURES.iter().find(|figure| figure.check == case.check) {
            Some(figure) => figure.judge(case),
            None => CheckResult::inconclusive(case.check, "nothing judges this check"),
        },
    );
}

impl Figure {
    fn judge(&self, case: &Case<'_>) -> CheckResult {
        let bound = case.bound();
        let figures =
            completed(case.cgroups).filter_map(|placed| Some(((self.of)(placed.worker)?, placed)));
        let worst = figures.max_by(|(a, _), (b, _)| match self.allowed {
            Allowed::AtMost => a.total_cmp(b),
            Allowed::AtLeast => b.total_cmp(a),
        });
        let Some((value, placed)) = worst else {
            return CheckResult::inconclusive(case.check, self.no_data).with_bound(bound);
        };
        let (holds, limit) = match self.allowed {
            Allowed::AtMost => (value <= bound, "most"),
            Allowed::AtLeast => (value >= bound, "least"),
        };
        let detail = format!(
            "{placed}: {} is {}; the {limit} allowed is {}",
            self.what,
            rounded(value),
            rounded(bound)
        );
        let judged = CheckResult::judged(case.check, holds, detail);
        Measured { value, bound }.of(judged, placed.subject())
    }
}

/// Whole where that says enough, else with six digits behind the point.
fn rounded(value: f64) -> String {
    if value.abs() >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.6}")
    }
}

#[cfg(test)]
mod tests {
    use ktstr_declaration::JudgedBy;

    use super::super::JUDGES;
    use super::*;

    #[test]
    fn every_check_of_workers_is_judged_once() {
        let of_workers = |check: &&Check| check.spec().judged_by == JudgedBy::Workers;
        for check in Check::ALL.iter().filter(of_workers) {
            let figures = FIGURES.iter().filter(|figure| figure.check == *check);
            let judges = JUDGES.iter().filter(|(of, ..)| of == check);
            assert_eq!(figures.count() + judges.count(), 1, "{check:?}");
        }
    }
}
