//! The checks, one row each.

use crate::check::{Bound, Cause, CheckSpec, JudgedBy, Preset};

/// Calls the macro `$then` with the rows of all checks. A row is
///
/// ```text
/// /// When it holds.
/// Variant name [no_name]: what it takes, preset, unit, who judges it [, a scheduler may ignore it], [excuses];
/// ```
#[macro_export]
macro_rules! for_each_check {
    ($then:ident) => {
        $then! {
            /// Every worker did work, and stopped when told.
            // A task that waits does nothing, and can't stop when told. An interrupted load may have done nothing yet.
            Progress progress: Switch, Preset::On, "workers", Workers, false, [Stall, Gone];

            /// No worker ran outside the CPUs of its cgroup.
            Isolation isolation: Switch, Preset::On, "CPUs", Workers, false, [];

            /// No worker went longer than this without progress, in milliseconds. The library's bound is left out where what the
            /// test declares makes long gaps due.
            // A stall is a gap. As a scheduler is disabled, tasks wait until each has its new class.
            MaxGapMs max_gap_ms no_max_gap_ms: Whole,
                Preset::BoundByBuild { optimised: 2000.0, debug: 3000.0 }, "ms", Workers, false, [Stall, Gone];

            /// The off-CPU shares of the workers of one type in one cgroup differ by at most this, in percentage points.
            /// The library's bound is left out where equal shares aren't possible.
            // This and what follows: shares and rates of a time that was cut short, and that passed under two schedulers.
            MaxSpreadPct max_spread_pct no_max_spread_pct: Number,
                Preset::BoundByBuild { optimised: 15.0, debug: 35.0 }, "%", Workers, false, [Stall, Gone];

            /// The 99th percentile of each worker's wake latency is at most this, in nanoseconds.
            MaxP99WakeLatencyNs max_p99_wake_latency_ns no_max_p99_wake_latency_ns: Whole,
                Preset::Off(None), "ns", Workers, false, [Stall, Gone];

            /// Each worker did at least this many iterations per second of CPU time.
            MinIterationRate min_iteration_rate no_min_iteration_rate: Number,
                Preset::Off(None), "iterations/CPU-s", Workers, false, [Stall, Gone];

            /// Each worker did at least this many units of work per second of CPU time. What a unit is depends on the work
            /// type: a turn of a spinner's loop, a message of a pipe.
            MinWorkRate min_work_rate no_min_work_rate: Number,
                Preset::Off(None), "units/CPU-s", Workers, false, [Stall, Gone];

            /// Each worker migrated at most this often per iteration.
            MaxMigrationRatio max_migration_ratio no_max_migration_ratio: Number,
                Preset::Off(None), "migrations/iteration", Workers, false, [Stall, Gone];

            /// Work per CPU time varies by at most this among the workers of one type in one cgroup (standard deviation
            /// over mean).
            MaxThroughputCv max_throughput_cv no_max_throughput_cv: Number,
                Preset::Off(None), "", Workers, false, [Stall, Gone];

            /// No cgroup used more CPU time than its quota (`cpu.max`) allows, or that of one above it. Judged where a
            /// quota is declared that the workers could exceed. Tolerated: a tenth, one period's quota, 15 ms for each CPU.
            CpuQuota cpu_quota: Switch, Preset::On, "% of a CPU", Workers, true, [];

            /// Cgroups that compete for CPUs got them by their weights (`cpu.weight`). Judged where one declares a weight,
            /// and all that compete for the same CPUs always had enough workers that want them. 15 % of the CPU time may go
            /// to the wrong ones.
            CpuShare cpu_share: Switch, Preset::On, "% of the CPU time", Workers, true, [Stall, Gone];

            /// No worker ran outside the CPUs that it was bound to at the time.
            Affinity affinity: Switch, Preset::On, "CPUs", Workers, true, [];

            /// Workers of a cgroup that compete for CPUs got them by their niceness. Judged where their niceness differs,
            /// and they had their CPUs to themselves. 15 % of the CPU time may go to the wrong ones.
            NiceShare nice_share: Switch, Preset::On, "% of the CPU time", Workers, true, [Stall, Gone];

            /// Each worker ended under its declared policy, and in its scheduling class.
            // The class of a task changes with the scheduler.
            SchedPolicy sched_policy: Switch, Preset::On, "workers", Workers, true, [Stall, Gone];

            /// The workers' memory is on the NUMA nodes that are declared for it (`cpuset.mems`).
            MemBinding mem_binding: Switch, Preset::On, "pages", Workers, true, [];

            /// All CPUs of the declared machine are online.
            CpusOnline cpus_online: Switch, Preset::On, "CPUs", Guest, false, [];

            /// The guest's kernel printed no warning, bug, oops, trap, lockup, stall, hung task or report of lockdep.
            KernelLog kernel_log: Switch, Preset::On, "complaints", Guest, false, [];

            /// The kernel had the scheduler attached, and named it.
            SchedulerAttached scheduler_attached: Fixed, Preset::On, "", Scheduler, false, [NotLoaded];

            /// The scheduler stayed attached until the end of the test.
            SchedulerAlive scheduler_alive: Fixed, Preset::On, "", Scheduler, false, [Stall, Gone];

            /// The kernel's watchdog has the limit that `watchdog_timeout_s` asks for.
            WatchdogTimeout watchdog_timeout: Fixed, Preset::On, "", Scheduler, false, [];

            /// The busiest CPU has at most this many times the runnable tasks of the least busy (at least 1). For load that
            /// may run anywhere: tasks that are bound to CPUs are uneven by design.
            // This and what follows: what the monitor sees of the scheduler's decisions. A stall or an error is the end of
            // bad ones.
            MaxImbalanceRatio max_imbalance_ratio no_max_imbalance_ratio: Number,
                Preset::Off(Some(4.0)), "", Monitor, false, [Stall, Gone];

            /// No CPU has more tasks on its local DSQ.
            MaxLocalDsqDepth max_local_dsq_depth no_max_local_dsq_depth: Whole,
                Preset::Bound(50.0), "tasks", Monitor, false, [Stall, Gone];

            /// The runqueue clock of a CPU with tasks moves.
            // The clock of a CPU stands still that idles while its tasks wait elsewhere.
            FailOnRqClockStuck fail_on_rq_clock_stuck: Switch, Preset::On, "", Monitor, false, [Stall];

            /// `ops.select_cpu` names a CPU that the task can't use (`SCX_EV_SELECT_CPU_FALLBACK`) at most this often per
            /// second of CPU time given to all vCPUs together.
            MaxFallbackRate max_fallback_rate no_max_fallback_rate: Number,
                Preset::Bound(200.0), "/vCPU-s", Monitor, false, [Stall, Gone];

            /// A task runs on because there is no other (`SCX_EV_DISPATCH_KEEP_LAST`) at most this often per second of CPU
            /// time given to all vCPUs together. 100 suits slices of 20 ms, `SCX_SLICE_DFL`.
            MaxKeepLastRate max_keep_last_rate no_max_keep_last_rate: Number,
                Preset::Off(Some(100.0)), "/vCPU-s", Monitor, false, [Stall, Gone];
        }
    };
}

macro_rules! table {
    ($(
        $(#[doc = $text:literal])+
        $variant:ident $name:ident $($no_name:ident)?:
            $takes:ident, $preset:expr, $unit:literal, $judged_by:ident, $may_ignore:literal, [$($cause:ident),*];
    )+) => {
        /// A check, by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Check {
            $($(#[doc = $text])+ $variant,)+
        }

        impl Check {
            /// All checks, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            const SPECS: &[CheckSpec] = &[$(CheckSpec {
                name: stringify!($name),
                takes: Bound::$takes,
                preset: $preset,
                unit: $unit,
                judged_by: JudgedBy::$judged_by,
                scheduler_may_ignore: $may_ignore,
                excused_by: &[$(Cause::$cause),*],
                text: concat!($($text),+),
            }),+];
        }
    };
}

for_each_check!(table);

impl Check {
    /// Number of checks.
    pub const COUNT: usize = Self::ALL.len();

    /// Its row.
    pub const fn spec(self) -> &'static CheckSpec {
        &Self::SPECS[self as usize]
    }

    /// What the attribute, the method of `Assert` and reports call it.
    pub const fn name(self) -> &'static str {
        self.spec().name
    }

    /// The check of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|check| check.name() == name)
    }

    /// Those that a test can set.
    pub fn settable() -> impl Iterator<Item = Self> {
        let all = Self::ALL.iter().copied();
        all.filter(|check| check.spec().takes != Bound::Fixed)
    }
}
