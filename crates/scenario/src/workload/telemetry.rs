//! What a worker measures about itself.

use std::fs;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ktstr_report::{MaskSpan, WorkerExit, WorkerReport};
use ktstr_topology::CpuSet;
use nix::sched::sched_getcpu;
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};

use super::histogram::Histogram;
use super::shared::Published;

/// Masks of a worker that are told apart in its report.
const MAX_MASKS: usize = 16;

/// CLOCK_MONOTONIC, one and the same for all processes of a machine.
pub(crate) fn now_ns() -> u64 {
    clock_ns(ClockId::CLOCK_MONOTONIC)
}

fn clock_ns(clock: ClockId) -> u64 {
    // These clocks always exist; a reading of 0 would show as a worker without time.
    clock_gettime(clock)
        .ok()
        .and_then(|time| {
            let seconds = u64::try_from(time.tv_sec()).ok()?;
            let rest = u64::try_from(time.tv_nsec()).ok()?;
            Some(seconds * 1_000_000_000 + rest)
        })
        .unwrap_or(0)
}

fn current_cpu() -> u32 {
    sched_getcpu()
        .ok()
        .and_then(|cpu| u32::try_from(cpu).ok())
        .unwrap_or(0)
}

/// What the kernel has counted for the calling thread so far.
#[derive(Clone, Copy, Debug)]
struct Account {
    cpu_time_ns: u64,
    schedstat: Option<SchedStat>,
    voluntary_switches: u64,
    involuntary_switches: u64,
}

impl Account {
    fn take() -> Self {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).ok();
        let count = |value: Option<i64>| value.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        Self {
            cpu_time_ns: clock_ns(ClockId::CLOCK_THREAD_CPUTIME_ID),
            schedstat: fs::read_to_string("/proc/thread-self/schedstat")
                .ok()
                .as_deref()
                .and_then(parse_schedstat),
            voluntary_switches: count(usage.map(|u| u.voluntary_context_switches())),
            involuntary_switches: count(usage.map(|u| u.involuntary_context_switches())),
        }
    }
}

/// A line of /proc/PID/schedstat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SchedStat {
    pub(super) cpu_time_ns: u64,
    pub(super) run_delay_ns: u64,
    pub(super) run_count: u64,
}

/// A kernel with scheduler accounting turned off prints `0 0 0` (proc_pid_schedstat in fs/proc/base.c); a worker has
/// run at least once when its file is read.
pub(super) fn parse_schedstat(text: &str) -> Option<SchedStat> {
    let mut fields = text.split_whitespace().map(str::parse::<u64>);
    let mut next = || fields.next()?.ok();
    let (cpu_time_ns, run_delay_ns, run_count) = (next()?, next()?, next()?);
    (run_count > 0).then_some(SchedStat {
        cpu_time_ns,
        run_delay_ns,
        run_count,
    })
}

/// Measures one worker from its release on.
#[derive(Debug)]
pub(super) struct Telemetry {
    at_start: Account,
    start_ns: u64,
    last_ns: u64,
    last_cpu: u32,
    iterations: u64,
    work_units: u64,
    /// The last gap.
    gap_ns: u64,
    max_gap_ns: u64,
    max_gap_cpu: u32,
    max_gap_at_ns: u64,
    migrations: u64,
    cpus_used: CpuSet,
    masks: Vec<MaskSpan>,
    wakes: Histogram,
}

impl Telemetry {
    /// To be called once the worker is released, so that nothing before counts.
    pub(super) fn begin(released_ns: u64) -> Self {
        let cpu = current_cpu();
        Self {
            at_start: Account::take(),
            start_ns: released_ns,
            last_ns: released_ns,
            last_cpu: cpu,
            iterations: 0,
            work_units: 0,
            gap_ns: 0,
            max_gap_ns: 0,
            max_gap_cpu: cpu,
            max_gap_at_ns: 0,
            migrations: 0,
            cpus_used: CpuSet::from_range(cpu..cpu + 1),
            masks: Vec::new(),
            wakes: Histogram::new(),
        }
    }

    /// Records the end of an iteration.
    pub(super) fn iteration(&mut self, units: u64, mask_epoch: &AtomicU32) {
        self.iterations += 1;
        self.work_units = self.work_units.saturating_add(units);
        self.look(now_ns(), mask_epoch);
    }

    /// Tells the harness how far it is.
    pub(super) fn publish(&self, published: &Published) {
        let put = |figure: &AtomicU64, value| figure.store(value, Ordering::Relaxed);
        put(&published.iterations, self.iterations);
        put(&published.work_units, self.work_units);
        put(&published.migrations, self.migrations);
        put(&published.busy_since_ns, self.last_ns);
        if self.gap_ns > published.max_gap_ns.load(Ordering::Relaxed) {
            published
                .max_gap_ns
                .fetch_max(self.gap_ns, Ordering::Relaxed);
        }
    }

    /// Leaves out the time up to `due_ns`, in which the worker wanted no CPU.
    pub(super) fn resume_at(&mut self, due_ns: u64) {
        self.last_ns = self.last_ns.max(due_ns);
    }

    pub(super) fn wake(&mut self, latency_ns: u64) {
        self.wakes.record(latency_ns);
    }

    fn look(&mut self, now_ns: u64, mask_epoch: &AtomicU32) {
        let epoch = mask_epoch.load(Ordering::Acquire);
        let cpu = current_cpu();
        // Seen under one mask only if none was set meanwhile.
        if epoch.is_multiple_of(2) && mask_epoch.load(Ordering::Acquire) == epoch {
            self.found_on(cpu, epoch / 2);
        }
        if cpu != self.last_cpu {
            self.migrations += 1;
            self.last_cpu = cpu;
            self.cpus_used.insert(cpu);
        }
        let gap_ns = now_ns.saturating_sub(self.last_ns);
        self.gap_ns = gap_ns;
        if gap_ns > self.max_gap_ns {
            self.max_gap_ns = gap_ns;
            self.max_gap_cpu = cpu;
            self.max_gap_at_ns = now_ns.saturating_sub(self.start_ns);
        }
        self.last_ns = now_ns;
    }

    fn found_on(&mut self, cpu: u32, changes: u32) {
        if self.masks.last().is_none_or(|span| span.changes != changes) {
            if self.masks.len() == MAX_MASKS {
                return;
            }
            self.masks.push(MaskSpan {
                changes,
                ..MaskSpan::default()
            });
        }
        if let Some(span) = self.masks.last_mut() {
            span.cpus_used.insert(cpu);
        }
    }

    /// The report, with the last gap: from the last iteration to now.
    pub(super) fn finish(
        mut self,
        tid: i32,
        exit: WorkerExit,
        mask_epoch: &AtomicU32,
    ) -> WorkerReport {
        let end_ns = now_ns();
        self.look(end_ns, mask_epoch);
        let (before, after) = (self.at_start, Account::take());
        let delta = |pick: fn(SchedStat) -> u64| {
            let (before, after) = (before.schedstat?, after.schedstat?);
            Some(pick(after).saturating_sub(pick(before)))
        };
        WorkerReport {
            work_units: self.work_units,
            iterations: self.iterations,
            wall_time_ns: end_ns.saturating_sub(self.start_ns),
            cpu_time_ns: after.cpu_time_ns.saturating_sub(before.cpu_time_ns),
            run_delay_ns: delta(|stat| stat.run_delay_ns),
            run_count: delta(|stat| stat.run_count),
            max_gap_ns: self.max_gap_ns,
            max_gap_cpu: self.max_gap_cpu,
            max_gap_at_ns: self.max_gap_at_ns,
            migrations: self.migrations,
            cpus_used: self.cpus_used,
            wake_latency: self.wakes.summary(),
            voluntary_switches: after
                .voluntary_switches
                .saturating_sub(before.voluntary_switches),
            involuntary_switches: after
                .involuntary_switches
                .saturating_sub(before.involuntary_switches),
            masks: self.masks,
            ..WorkerReport::sentinel(tid, "", exit)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_gives_delay_and_count() {
        let stat = SchedStat {
            cpu_time_ns: 812,
            run_delay_ns: 33,
            run_count: 7,
        };
        assert_eq!(parse_schedstat("812 33 7\n"), Some(stat));
    }

    #[test]
    fn schedstat_of_a_kernel_that_does_not_count_gives_nothing() {
        for text in ["0 0 0\n", "", "1 2", "a b c", "1 2 -3"] {
            assert_eq!(parse_schedstat(text), None, "{text:?}");
        }
    }

    #[test]
    fn time_left_out_is_no_gap() {
        let mut telemetry = Telemetry::begin(now_ns() - 5_000_000_000);
        telemetry.resume_at(now_ns());
        telemetry.iteration(1, &AtomicU32::new(0));
        assert!(telemetry.max_gap_ns < 5_000_000_000);
    }

    #[test]
    fn the_time_after_the_last_iteration_counts() {
        let telemetry = Telemetry::begin(now_ns() - 5_000_000_000);
        let report = telemetry.finish(1, WorkerExit::Completed, &AtomicU32::new(0));
        assert!(report.max_gap_ns >= 5_000_000_000);
        assert!(report.wall_time_ns >= 5_000_000_000);
    }

    #[test]
    fn cpus_are_told_apart_by_mask_and_not_while_one_is_set() {
        let mut telemetry = Telemetry::begin(now_ns());
        for epoch in [0, 0, 1, 2, 4] {
            telemetry.iteration(1, &AtomicU32::new(epoch));
        }
        let changes: Vec<u32> = telemetry.masks.iter().map(|span| span.changes).collect();
        assert_eq!(changes, [0, 1, 2]);
        for epoch in 3..100 {
            telemetry.iteration(1, &AtomicU32::new(epoch * 2));
        }
        assert_eq!(telemetry.masks.len(), MAX_MASKS);
    }
}
