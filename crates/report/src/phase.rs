//! The phases of a test's body, and the figures of each.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A part of a test's body, in order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Phase(u32);

impl Phase {
    /// From the body's beginning to the first load.
    pub const BASELINE: Self = Self(0);

    /// The `k`th load that is held, from 0.
    pub const fn step(k: u32) -> Self {
        Self(k.saturating_add(1))
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.checked_sub(1) {
            None => f.pad("baseline"),
            Some(k) => f.pad(&format!("step {k}")),
        }
    }
}

/// One phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseReport {
    /// Which.
    pub phase: Phase,
    /// When it began, by the guest's `CLOCK_MONOTONIC`.
    pub from_ns: u64,
    /// When it ended.
    pub to_ns: u64,
    /// What the workers of each cgroup did in it.
    pub cgroups: Vec<PhaseCgroup>,
    /// Name that the kernel had for the scheduler when it began; `None` for the kernel's own.
    pub scheduler_from: Option<String>,
    /// The same when it ended.
    pub scheduler_to: Option<String>,
}

/// One cgroup in one phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseCgroup {
    /// Name that the test gave it.
    pub name: String,
    /// Its workers.
    pub workers: Vec<PhaseWorker>,
}

/// What one worker did in one phase: the difference of two readings, which it was not stopped for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseWorker {
    /// Process id in the guest, or thread id for a worker that is a thread.
    pub pid: i32,
    /// Iterations that it ended.
    pub iterations: u64,
    /// Units of work that it did.
    pub work_units: u64,
    /// CPU time: field 1 of /proc/PID/schedstat. `None`, as for the next two, if the kernel doesn't count or the worker
    /// has ended.
    pub cpu_time_ns: Option<u64>,
    /// Time spent runnable but waiting for a CPU: field 2.
    pub run_delay_ns: Option<u64>,
    /// Times it was picked to run: field 3.
    pub run_count: Option<u64>,
    /// Longest time without the end of an iteration, by `CLOCK_MONOTONIC`. One that goes on over the phase's end counts
    /// for both phases: up to there in this one, whole in the next.
    pub max_gap_ns: u64,
    /// Times an iteration found it on another CPU than the one before.
    pub migrations: u64,
    /// Wake-ups that were measured.
    pub wakes: u64,
    /// The longest wake latency.
    pub max_wake_ns: u64,
}

impl PhaseCgroup {
    /// Iterations of all workers.
    pub fn total_iterations(&self) -> u64 {
        self.workers.iter().map(|worker| worker.iterations).sum()
    }

    /// Run delay of its workers in microseconds: the mean and the longest. `None` if the kernel counts none.
    #[expect(
        clippy::cast_precision_loss,
        reason = "nanoseconds of a test are far below 2^53"
    )]
    pub fn run_delay_summary(&self) -> Option<(f64, f64)> {
        let delays = self.workers.iter().filter_map(|worker| worker.run_delay_ns);
        let delays: Vec<f64> = delays.map(|ns| ns as f64 / 1000.0).collect();
        let longest = delays.iter().copied().reduce(f64::max)?;
        Some((delays.iter().sum::<f64>() / delays.len() as f64, longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_in_order_and_have_names() {
        let phases = [Phase::BASELINE, Phase::step(0), Phase::step(1)];
        assert!(phases.is_sorted());
        assert_eq!(
            phases.map(|phase| phase.to_string()),
            ["baseline", "step 0", "step 1"]
        );
    }

    #[test]
    fn a_run_delay_that_is_not_known_is_no_zero() {
        let worker = |run_delay_ns| PhaseWorker {
            run_delay_ns,
            ..PhaseWorker::default()
        };
        let cgroup = |delays: &[Option<u64>]| PhaseCgroup {
            name: "a".to_owned(),
            workers: delays.iter().copied().map(worker).collect(),
        };
        assert_eq!(cgroup(&[None]).run_delay_summary(), None);
        let known = cgroup(&[Some(1_000), None, Some(5_000)]);
        assert_eq!(known.run_delay_summary(), Some((3.0, 5.0)));
    }
}
