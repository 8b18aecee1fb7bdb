//! What the checks of shares have in common: their tolerance, when they tell something, and which workers they can judge.

use ktstr_report::{CpuDemand, TimingSlack, WorkerReport};

use super::figure::{Measured, float};

/// Part of the CPU time that may go to the wrong ones, in percent. Load is balanced by moving whole tasks, and
/// only now and then.
const TOLERANCE_PCT: f64 = 15.0;

/// Shorter loads are not judged: tasks have first to be spread over the CPUs.
const MIN_LOAD_NS: u64 = 1_000_000_000;

/// What may go to the wrong ones on `cpus` CPUs, in percent; the reason if the load is too short to be judged.
///
/// A CPU of the engine that stands still charges whoever runs on it, and not every scheduler has that paid back:
/// many count no more than a slice. Who it is is left to chance, at each of `n` such times, so that a share is off by
/// a standard deviation of `sqrt(p * (1 - p) / n)`, at most `0.5 / sqrt(n)`. Twice that is added.
pub(super) fn bound_pct(timing: &TimingSlack, load_ns: u64, cpus: usize) -> Result<f64, String> {
    if load_ns < MIN_LOAD_NS {
        return Err("the load was shorter than 1 s".to_owned());
    }
    let standstills = float(cpus as u64) * float(load_ns) / (float(timing.gap_ms) * 1e6);
    Ok(TOLERANCE_PCT + 100.0 / standstills.sqrt())
}

/// Whether a scheduler that gives all workers the same would be found, given how much of
/// that would go to the wrong ones; the reason why not. What is beyond the bound is found in any case.
pub(super) fn tells_apart(
    measured: Measured,
    misallocated_if_equal: f64,
    timing: &TimingSlack,
) -> Result<(), String> {
    if misallocated_if_equal > measured.bound || measured.value > measured.bound {
        return Ok(());
    }
    let why = if timing.gap_ms > 0 { &timing.why } else { "" };
    let space = if why.is_empty() { "" } else { ": " };
    Err(format!(
        "what is declared is too near to equal shares, or the load too short, to tell{space}{why}"
    ))
}

/// Why `worker` of the cgroup `name` tells nothing about shares, whatever decides them.
pub(super) fn obstacle(name: &str, worker: &WorkerReport) -> Option<String> {
    let work_type = &worker.work_type;
    if worker.cpu_demand != CpuDemand::Constant {
        return Some(format!(
            "workers of {work_type} in cgroup `{name}` don't want a CPU all the time"
        ));
    }
    if !worker.completed() {
        return Some(format!(
            "worker {} of cgroup `{name}` did not last",
            worker.pid
        ));
    }
    let is_bound = worker.masks.iter().any(|span| span.mask.is_some());
    is_bound.then(|| format!("workers of cgroup `{name}` are bound to CPUs"))
}
