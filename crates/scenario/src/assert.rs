//! Which checks a test wants, and their bounds.

use ktstr_report::{Bound, Switch, Thresholds};

/// The checks of a test.
///
/// [`Assert::DEFAULT`] has on what every test should hold to: `progress`, `isolation`, `max_gap_ms`,
/// `max_spread_pct`, `cpus_online` and `kernel_log`, and for each property that a test declares the check
/// that it holds ([`PropertyCheck`]). Each can be given another bound or turned off; what is off
/// is named as not judged in the report. The other checks are off until a test gives them a bound,
/// since only the test knows its load. Every name here is an attribute of `#[ktstr_test]` and a check's
/// name in the report.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct Assert {
    pub(crate) progress: bool,
    pub(crate) isolation: bool,
    pub(crate) cpus_online: bool,
    pub(crate) kernel_log: bool,
    pub(crate) cpu_quota: Switch,
    pub(crate) cpu_share: Switch,
    pub(crate) affinity: Switch,
    pub(crate) nice_share: Switch,
    pub(crate) sched_policy: Switch,
    pub(crate) mem_binding: Switch,
    pub(crate) max_gap_ms: Bound<u64>,
    pub(crate) max_spread_pct: Bound<f64>,
    pub(crate) max_p99_wake_latency_ns: Option<u64>,
    pub(crate) min_iteration_rate: Option<f64>,
    pub(crate) max_migration_ratio: Option<f64>,
    pub(crate) max_throughput_cv: Option<f64>,
    pub(crate) monitor: Thresholds,
}

/// Checks that a property holds which the test declares. A scheduler that ignores one by design turns it off in
/// its declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropertyCheck {
    /// No cgroup used more CPU time than its quota (`cpu.max`) or that of one above it.
    CpuQuota,
    /// Cgroups that compete for CPUs got them by their weights (`cpu.weight`).
    CpuShare,
    /// No worker ran outside the CPUs that it was bound to.
    Affinity,
    /// Workers of a cgroup that compete for CPUs got them by their niceness.
    NiceShare,
    /// Each worker ended under the policy that was declared for it, and in its scheduling class.
    SchedPolicy,
    /// The workers' memory is on the NUMA nodes that were declared for it (`cpuset.mems`).
    MemBinding,
}

impl Default for Assert {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Assert {
    /// Bound of `max_gap_ms` unless the test sets another: 2000, or 3000 in a build without
    /// optimisation, whose workers and harness are slower.
    pub const DEFAULT_MAX_GAP_MS: u64 = if cfg!(debug_assertions) { 3000 } else { 2000 };

    /// Bound of `max_spread_pct` unless the test sets another: 15, or 35 in a build without
    /// optimisation.
    pub const DEFAULT_MAX_SPREAD_PCT: f64 = if cfg!(debug_assertions) { 35.0 } else { 15.0 };

    /// The checks of a test that says nothing about them.
    pub const DEFAULT: Self = Self {
        progress: true,
        isolation: true,
        cpus_online: true,
        kernel_log: true,
        cpu_quota: Switch::On,
        cpu_share: Switch::On,
        affinity: Switch::On,
        nice_share: Switch::On,
        sched_policy: Switch::On,
        mem_binding: Switch::On,
        max_gap_ms: Bound::Default(Self::DEFAULT_MAX_GAP_MS),
        max_spread_pct: Bound::Default(Self::DEFAULT_MAX_SPREAD_PCT),
        max_p99_wake_latency_ns: None,
        min_iteration_rate: None,
        max_migration_ratio: None,
        max_throughput_cv: None,
        monitor: Thresholds::DEFAULT,
    };

    /// Whether every worker must have done work, and stopped when told.
    pub const fn progress(mut self, on: bool) -> Self {
        self.progress = on;
        self
    }

    /// Whether no worker may have run outside its cgroup's CPUs.
    pub const fn isolation(mut self, on: bool) -> Self {
        self.isolation = on;
        self
    }

    /// Whether all CPUs of the declared machine must be online.
    pub const fn cpus_online(mut self, on: bool) -> Self {
        self.cpus_online = on;
        self
    }

    /// Whether the guest's kernel must not have printed a warning, a bug, an oops, a lockup or a stall.
    pub const fn kernel_log(mut self, on: bool) -> Self {
        self.kernel_log = on;
        self
    }

    /// Whether no cgroup may have used more CPU time than its quota, or that of one above it, allows. Judged
    /// where a quota is declared that the workers could exceed.
    pub const fn cpu_quota(mut self, on: bool) -> Self {
        self.cpu_quota = Switch::of_test(on);
        self
    }

    /// Whether cgroups must have got CPU time by their weights. Judged where one declares a weight, and all that
    /// compete for the same CPUs always had enough workers that want them.
    pub const fn cpu_share(mut self, on: bool) -> Self {
        self.cpu_share = Switch::of_test(on);
        self
    }

    /// Whether no worker may have run outside the CPUs that it was bound to at the time.
    pub const fn affinity(mut self, on: bool) -> Self {
        self.affinity = Switch::of_test(on);
        self
    }

    /// Whether the workers of a cgroup must have got CPU time by their niceness. Judged where their niceness
    /// differs, and they had their CPUs to themselves.
    pub const fn nice_share(mut self, on: bool) -> Self {
        self.nice_share = Switch::of_test(on);
        self
    }

    /// Whether each worker must have ended under its declared policy, and in the scheduling class that it is due.
    pub const fn sched_policy(mut self, on: bool) -> Self {
        self.sched_policy = Switch::of_test(on);
        self
    }

    /// Whether the workers' memory must be on the NUMA nodes that are declared for it.
    pub const fn mem_binding(mut self, on: bool) -> Self {
        self.mem_binding = Switch::of_test(on);
        self
    }

    /// Turns `check` off in the name of a scheduler that ignores by design what it checks.
    pub const fn off_by_scheduler(mut self, check: PropertyCheck, scheduler: &'static str) -> Self {
        let off = Switch::OffByScheduler(scheduler);
        match check {
            PropertyCheck::CpuQuota => self.cpu_quota = off,
            PropertyCheck::CpuShare => self.cpu_share = off,
            PropertyCheck::Affinity => self.affinity = off,
            PropertyCheck::NiceShare => self.nice_share = off,
            PropertyCheck::SchedPolicy => self.sched_policy = off,
            PropertyCheck::MemBinding => self.mem_binding = off,
        }
        self
    }

    /// Longest time, in milliseconds, that any worker may have been kept from its work.
    pub const fn max_gap_ms(mut self, bound_ms: u64) -> Self {
        self.max_gap_ms = Bound::Set(bound_ms);
        self
    }

    /// Turns `max_gap_ms` off.
    pub const fn no_max_gap_ms(mut self) -> Self {
        self.max_gap_ms = Bound::Off;
        self
    }

    /// Largest difference, in percentage points, between the off-CPU shares of the workers of one type in
    /// one cgroup. A test's own bound is judged for every load; the library's is left out where equal
    /// shares aren't possible.
    pub const fn max_spread_pct(mut self, bound_pct: f64) -> Self {
        self.max_spread_pct = Bound::Set(bound_pct);
        self
    }

    /// Turns `max_spread_pct` off.
    pub const fn no_max_spread_pct(mut self) -> Self {
        self.max_spread_pct = Bound::Off;
        self
    }

    /// Longest 99th percentile, in nanoseconds, of any worker's wake latency.
    pub const fn max_p99_wake_latency_ns(mut self, bound_ns: u64) -> Self {
        self.max_p99_wake_latency_ns = Some(bound_ns);
        self
    }

    /// Fewest iterations per second of CPU time that any worker may have done.
    pub const fn min_iteration_rate(mut self, bound_per_cpu_s: f64) -> Self {
        self.min_iteration_rate = Some(bound_per_cpu_s);
        self
    }

    /// Most migrations per iteration of any worker.
    pub const fn max_migration_ratio(mut self, bound: f64) -> Self {
        self.max_migration_ratio = Some(bound);
        self
    }

    /// Largest coefficient of variation (standard deviation over mean) of work per CPU time among the
    /// workers of one type in one cgroup.
    pub const fn max_throughput_cv(mut self, bound: f64) -> Self {
        self.max_throughput_cv = Some(bound);
        self
    }

    /// The bounds of the checks that the host's monitor judges from what it sees of the running kernel.
    pub const fn monitor(&self) -> &Thresholds {
        &self.monitor
    }

    /// Puts the monitor's checks at their customary bounds, those included that have none by default.
    pub const fn with_monitor_defaults(mut self) -> Self {
        self.monitor = Thresholds::ALL;
        self
    }

    /// Most runnable tasks that the busiest CPU may have for long, as a multiple of those on the least
    /// busy (at least 1). For load that may run anywhere: tasks that are pinned are uneven of themselves.
    pub const fn max_imbalance_ratio(mut self, bound: f64) -> Self {
        self.monitor.max_imbalance_ratio = Some(bound);
        self
    }

    /// Most tasks that may be on one CPU's local DSQ for long.
    pub const fn max_local_dsq_depth(mut self, bound: u64) -> Self {
        self.monitor.max_local_dsq_depth = Bound::Set(bound);
        self
    }

    /// Turns `max_local_dsq_depth` off.
    pub const fn no_max_local_dsq_depth(mut self) -> Self {
        self.monitor.max_local_dsq_depth = Bound::Off;
        self
    }

    /// Whether the runqueue clock of a busy CPU must move.
    pub const fn fail_on_rq_clock_stuck(mut self, on: bool) -> Self {
        self.monitor.fail_on_rq_clock_stuck = if on { Bound::Set(()) } else { Bound::Off };
        self
    }

    /// Most times that `ops.select_cpu` may name a CPU that the task can't use, per second of CPU time
    /// given to all vCPUs together.
    pub const fn max_fallback_rate(mut self, bound_per_vcpu_s: f64) -> Self {
        self.monitor.max_fallback_rate = Bound::Set(bound_per_vcpu_s);
        self
    }

    /// Turns `max_fallback_rate` off.
    pub const fn no_max_fallback_rate(mut self) -> Self {
        self.monitor.max_fallback_rate = Bound::Off;
        self
    }

    /// Most times that a task may run on for want of another, per second of CPU time given to all vCPUs
    /// together.
    pub const fn max_keep_last_rate(mut self, bound_per_vcpu_s: f64) -> Self {
        self.monitor.max_keep_last_rate = Some(bound_per_vcpu_s);
        self
    }

    /// Samples in a row, one every 100 ms, that must be beyond a bound of the monitor to break it.
    pub const fn sustained_samples(mut self, samples: u32) -> Self {
        self.monitor.sustained_samples = samples;
        self
    }
}
