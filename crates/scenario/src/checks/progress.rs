//! `progress`: every worker did work, and stopped when told.
//!
//! Whether it did work is not judged where a quota leaves each worker less than 100 ms of CPU time, or its cgroup
//! was frozen; whether it stopped is.

use ktstr_report::{AssertResult, CgroupReport, CheckResult, WorkerExit};
use nix::sys::signal::Signal;

use super::Case;
use super::figure::{Measured, plural};
use super::restraint::{frozen, rationed};
use super::view::{Placed, all};

/// Less CPU time than this, in ns, may pass without work: it takes some to begin.
const MIN_CPU_TIME_NS: f64 = 100e6;

pub(super) fn judge(case: &Case<'_>, result: &mut AssertResult) {
    let cgroups = case.cgroups;
    let workers: Vec<Placed<'_>> = all(cgroups).collect();
    let stuck: Vec<&Placed<'_>> = workers
        .iter()
        .filter(|placed| {
            let idled = placed.worker.completed() && may_idle(placed, cgroups);
            !progressed(placed) && !idled
        })
        .collect();
    for cgroup in cgroups {
        if let Some(why) = frozen(cgroup).or_else(|| meagre(cgroup, cgroups)) {
            result.push_not_checked(case.check.name(), format!("whether they did work: {why}"));
        }
    }
    if workers.is_empty() {
        let no_data = CheckResult::inconclusive(case.check, "there were no workers");
        return result.push(no_data.with_bound(0.0));
    }
    // A dead worker explains more than one that only did nothing.
    let worst = stuck
        .iter()
        .find(|placed| !placed.worker.completed())
        .or(stuck.first());
    let subject = worst.map(|placed| placed.subject()).unwrap_or_default();
    let detail = match worst {
        Some(placed) => format!(
            "{placed} {}; {} of {} made no progress or did not finish",
            fate(placed),
            stuck.len(),
            plural(workers.len(), "worker")
        ),
        None => all_well(&workers),
    };
    let judged = CheckResult::judged(case.check, stuck.is_empty(), detail);
    result.push(Measured::count(stuck.len()).of(judged, subject));
}

fn all_well(workers: &[Placed<'_>]) -> String {
    let slowest = workers.iter().map(|placed| placed.worker.iterations).min();
    format!(
        "all of {} made progress, at least {} iterations each",
        plural(workers.len(), "worker"),
        slowest.unwrap_or(0)
    )
}

/// Whether what the test declares may leave `placed` without work.
fn may_idle(placed: &Placed<'_>, cgroups: &[CgroupReport]) -> bool {
    frozen(placed.cgroup).is_some() || meagre(placed.cgroup, cgroups).is_some()
}

/// Says so, if a quota leaves each worker of `cgroup` too little to judge by.
fn meagre(cgroup: &CgroupReport, cgroups: &[CgroupReport]) -> Option<String> {
    let ration = rationed(cgroup, cgroups)?;
    let each_ms = ration.cpu_time_each_ns / 1e6;
    (ration.cpu_time_each_ns < MIN_CPU_TIME_NS).then(|| {
        format!(
            "{}, which is {each_ms:.0} ms for each worker",
            ration.clause
        )
    })
}

fn progressed(placed: &Placed<'_>) -> bool {
    let worker = placed.worker;
    worker.completed() && worker.iterations > 0 && worker.work_units > 0
}

fn fate(placed: &Placed<'_>) -> String {
    let worker = placed.worker;
    match &worker.exit {
        WorkerExit::Completed => format!(
            "did no work in {} ms ({} iterations, {} ms of CPU time)",
            worker.wall_time_ns / 1_000_000,
            worker.iterations,
            worker.cpu_time_ns / 1_000_000
        ),
        WorkerExit::Exited(status) => {
            format!("exited with status {status} and sent no report")
        }
        WorkerExit::Signaled(number) => format!("was killed by {}", signal_name(*number)),
        WorkerExit::TimedOut => "did not stop when told, and was killed".to_owned(),
        WorkerExit::WaitFailed(why) => format!("its exit status is unknown: {why}"),
        WorkerExit::Panicked(message) => format!("panicked: {message}"),
    }
}

fn signal_name(number: i32) -> String {
    Signal::try_from(number).map_or_else(
        |_| format!("signal {number}"),
        |signal| signal.as_str().to_owned(),
    )
}
