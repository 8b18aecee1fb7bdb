//! The figures of a worker at one moment, while it works.

use std::fs;
use std::sync::atomic::Ordering;

use ktstr_report::PhaseWorker;

use super::shared::Published;
use super::telemetry::{SchedStat, now_ns, parse_schedstat};

/// What a worker tells about itself, and what the kernel counts for it.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pid: i32,
    iterations: u64,
    work_units: u64,
    migrations: u64,
    wakes: u64,
    /// Longest since the reading before.
    max_gap_ns: u64,
    max_wake_ns: u64,
    /// `None` if the kernel doesn't count, or the worker has ended.
    schedstat: Option<SchedStat>,
}

impl Reading {
    pub(super) fn take(pid: i32, published: &Published) -> Self {
        let schedstat = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok();
        let busy_since_ns = published.busy_since_ns.load(Ordering::Relaxed);
        let ended_ns = published.max_gap_ns.swap(0, Ordering::Relaxed);
        let open_ns = match busy_since_ns {
            0 => 0,
            since => now_ns().saturating_sub(since),
        };
        Self {
            pid,
            iterations: published.iterations.load(Ordering::Relaxed),
            work_units: published.work_units.load(Ordering::Relaxed),
            migrations: published.migrations.load(Ordering::Relaxed),
            wakes: published.wakes.load(Ordering::Relaxed),
            max_gap_ns: ended_ns.max(open_ns),
            max_wake_ns: published.max_wake_ns.swap(0, Ordering::Relaxed),
            schedstat: schedstat.as_deref().and_then(parse_schedstat),
        }
    }

    /// What the worker did from `before` to this reading.
    pub(crate) fn since(&self, before: &Self) -> PhaseWorker {
        let stats = self.schedstat.zip(before.schedstat);
        let counted = |pick: fn(SchedStat) -> u64| {
            stats.map(|(now, before)| pick(now).saturating_sub(pick(before)))
        };
        PhaseWorker {
            pid: self.pid,
            iterations: self.iterations.saturating_sub(before.iterations),
            work_units: self.work_units.saturating_sub(before.work_units),
            cpu_time_ns: counted(|stat| stat.cpu_time_ns),
            run_delay_ns: counted(|stat| stat.run_delay_ns),
            run_count: counted(|stat| stat.run_count),
            max_gap_ns: self.max_gap_ns,
            migrations: self.migrations.saturating_sub(before.migrations),
            wakes: self.wakes.saturating_sub(before.wakes),
            max_wake_ns: self.max_wake_ns,
        }
    }
}
