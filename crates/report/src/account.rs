//! What was declared of cgroups and workers, and what the kernel says became of it.
//!
//! The checks of declared properties (`cpu_quota`, `cpu_share`, `affinity`, `nice_share`, `sched_policy`,
//! `mem_binding`) judge by these.

use ktstr_topology::CpuSet;
use serde::{Deserialize, Serialize};

/// A cgroup and those above it, while load was held on them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CgroupAccount {
    /// Outermost first: the workload root, then down to the cgroup itself.
    pub levels: Vec<CgroupLevel>,
}

/// One cgroup on the way down from the workload root.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CgroupLevel {
    /// Name the test gave the cgroup; for the workload root its own.
    pub name: String,
    /// `cpu.weight`, 1 to 10000, if the test declared one. The kernel's default is 100.
    pub cpu_weight: Option<u32>,
    /// `cpuset.mems`, if the test declared it.
    pub cpuset_mems: Option<CpuSet>,
    /// What it used, from one change of `cpu.max` to the next; the first begins when all workers had begun,
    /// the last ends before they were told to stop. Empty if it could not be read, see [`Self::trouble`].
    pub spans: Vec<BandwidthSpan>,
    /// Control files that the harness wrote meanwhile, each once.
    pub changed: Vec<String>,
    /// Whether its tasks were stopped (`cgroup.freeze`) at any time meanwhile.
    pub frozen: bool,
    /// Why there are no figures, or none to rely on, as a clause.
    pub trouble: Option<String>,
}

/// CPU time of a cgroup over a span with one quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BandwidthSpan {
    /// Length, by `CLOCK_MONOTONIC`.
    pub wall_ns: u64,
    /// CPU time of all tasks in it and below it in that span: `usage_usec` of `cpu.stat`.
    pub cpu_time_ns: u64,
    /// `cpu.max`, if it is a limit.
    pub quota: Option<Quota>,
}

/// A limit of CPU time (`cpu.max`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// CPU time in each period.
    pub quota_ns: u64,
    /// Length of the period; never 0.
    pub period_ns: u64,
}

impl Quota {
    /// How many CPUs it is worth.
    #[expect(
        clippy::cast_precision_loss,
        reason = "quotas and periods are far below 2^53 ns"
    )]
    pub fn cpus(&self) -> f64 {
        self.quota_ns as f64 / self.period_ns.max(1) as f64
    }
}

impl CgroupLevel {
    /// The weight that holds.
    pub fn weight(&self) -> u32 {
        self.cpu_weight.unwrap_or(100)
    }

    /// The narrowest quota that held at any time.
    pub fn narrowest_quota(&self) -> Option<Quota> {
        let quotas = self.spans.iter().filter_map(|span| span.quota);
        quotas.min_by(|a, b| a.cpus().total_cmp(&b.cpus()))
    }

    /// Length of all spans.
    pub fn wall_ns(&self) -> u64 {
        self.spans.iter().map(|span| span.wall_ns).sum()
    }

    /// CPU time in all spans.
    pub fn cpu_time_ns(&self) -> u64 {
        self.spans.iter().map(|span| span.cpu_time_ns).sum()
    }
}

impl CgroupAccount {
    /// The cgroup itself.
    pub fn own(&self) -> Option<&CgroupLevel> {
        self.levels.last()
    }
}

/// CPUs on which a worker was found while one mask (sched_setaffinity(2)) held for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaskSpan {
    /// Changes of its mask before: 0 for the span before the first.
    pub changes: u32,
    /// The mask; `None` if it was not bound beyond its cgroup.
    pub mask: Option<CpuSet>,
    /// CPUs on which an iteration found it.
    pub cpus_used: CpuSet,
}

/// Kind of a scheduling policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyKind {
    /// SCHED_OTHER, SCHED_BATCH or SCHED_EXT: shares of CPU time by niceness.
    Weighted,
    /// SCHED_IDLE.
    Idle,
    /// SCHED_FIFO or SCHED_RR.
    RealTime,
    /// SCHED_DEADLINE.
    Deadline,
}

/// The policy that was declared for a worker, and the one that it ended under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyAccount {
    /// Kind of the declared policy.
    pub kind: PolicyKind,
    /// Declared policy and parameters, as a person reads them: `SCHED_FIFO 50`.
    pub declared: String,
    /// What sched_getattr(2) told the worker at its end, in the same words. `None` if the call failed.
    pub seen: Option<String>,
    /// Whether the kernel should have handed it to the sched_ext scheduler (`task_should_scx()` in
    /// kernel/sched/ext.c). `None` if that can't be told.
    pub ext_due: Option<bool>,
    /// Whether it did: `ext.enabled` in /proc/thread-self/sched. `None` where there is no such line.
    pub ext_seen: Option<bool>,
}

/// Pages of a worker on one NUMA node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePages {
    /// The node.
    pub node: u32,
    /// Pages there.
    pub pages: u64,
}
