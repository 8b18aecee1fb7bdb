//! Checks that hold one figure of each worker against a bound: `max_p99_wake_latency_ns`,
//! `min_iteration_rate`, `max_migration_ratio`.

use ktstr_report::{AssertResult, CgroupReport, WorkerReport};

use super::verdict::{Check, Measured, float};
use super::view::completed;
use crate::Assert;

struct PerWorker {
    check: Check,
    bound: Option<f64>,
    /// The bound is the least allowed, not the most.
    at_least: bool,
    /// `None`: the worker has no such figure.
    figure: fn(&WorkerReport) -> Option<f64>,
    what: &'static str,
    no_figure: &'static str,
}

pub(super) fn judge_all(result: &mut AssertResult, assert: &Assert, cgroups: &[CgroupReport]) {
    for check in [
        p99_wake_latency(assert),
        iteration_rate(assert),
        migration_ratio(assert),
    ] {
        check.judge(result, cgroups);
    }
}

fn p99_wake_latency(assert: &Assert) -> PerWorker {
    PerWorker {
        check: Check {
            name: "max_p99_wake_latency_ns",
            unit: "ns",
        },
        bound: assert.max_p99_wake_latency_ns.map(float),
        at_least: false,
        figure: |worker| {
            let latency = worker.wake_latency;
            (latency.samples > 0).then_some(float(latency.p99_ns))
        },
        what: "the 99th percentile of the wake latency, in ns",
        no_figure: "no worker measured a wake-up: use a work type that sleeps and is woken",
    }
}

fn iteration_rate(assert: &Assert) -> PerWorker {
    PerWorker {
        check: Check {
            name: "min_iteration_rate",
            unit: "iterations/CPU-s",
        },
        bound: assert.min_iteration_rate,
        at_least: true,
        figure: |worker| {
            let cpu_s = float(worker.cpu_time_ns) / 1e9;
            (worker.cpu_time_ns > 0).then_some(float(worker.iterations) / cpu_s)
        },
        what: "iterations per second of CPU time",
        no_figure: "no worker got any CPU time",
    }
}

fn migration_ratio(assert: &Assert) -> PerWorker {
    PerWorker {
        check: Check {
            name: "max_migration_ratio",
            unit: "migrations/iteration",
        },
        bound: assert.max_migration_ratio,
        at_least: false,
        figure: |worker| {
            (worker.iterations > 0).then_some(float(worker.migrations) / float(worker.iterations))
        },
        what: "migrations per iteration",
        no_figure: "no worker did an iteration",
    }
}

impl PerWorker {
    fn judge(&self, result: &mut AssertResult, cgroups: &[CgroupReport]) {
        let Some(bound) = self.bound else {
            return result.push_not_checked(self.check.name, super::NO_BOUND);
        };
        let figures =
            completed(cgroups).filter_map(|placed| Some(((self.figure)(placed.worker)?, placed)));
        let worst = figures.max_by(|(a, _), (b, _)| {
            if self.at_least {
                b.total_cmp(a)
            } else {
                a.total_cmp(b)
            }
        });
        let Some((value, placed)) = worst else {
            return self.check.inconclusive(result, Some(bound), self.no_figure);
        };
        let holds = if self.at_least {
            value >= bound
        } else {
            value <= bound
        };
        let limit = if self.at_least { "least" } else { "most" };
        let detail = format!(
            "{placed}: {} is {}; the {limit} allowed is {}",
            self.what,
            rounded(value),
            rounded(bound)
        );
        let measured = Measured { value, bound };
        self.check
            .conclude(result, holds, measured, placed.subject(), detail);
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
