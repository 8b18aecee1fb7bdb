//! What a worker reports about itself.

use ktstr_topology::CpuSet;
use serde::{Deserialize, Serialize};

use crate::{CgroupAccount, MaskSpan, NodePages, PolicyAccount};

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerExit {
    /// It stopped when told and sent its report.
    Completed,
    /// Its process exited with this status and sent no report.
    Exited(i32),
    /// Its process was killed by this signal.
    Signaled(i32),
    /// It sent no report within the deadline and was killed.
    TimedOut,
    /// Its exit status is unknown; the text says why.
    WaitFailed(String),
    /// Its work panicked with this message.
    Panicked(String),
}

/// When a worker wants a CPU, by the kind of its work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CpuDemand {
    /// At every moment: the CPU time that it gets is the scheduler's decision alone.
    Constant,
    /// At every moment, but it yields (`sched_yield(2)`).
    Yielding,
    /// It sleeps voluntarily, so time off the CPU says nothing about the scheduler.
    #[default]
    Sleeping,
}

/// Time from a wake-up being due to the worker running, over all wake-ups of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeLatency {
    /// Wake-ups measured. 0: the work type has none, and the other fields mean nothing.
    pub samples: u64,
    /// Median.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// Longest.
    pub max_ns: u64,
}

/// Telemetry of one worker, taken by the worker itself. For a worker that sent none, all figures are 0
/// and [`WorkerReport::exit`] says why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Process id in the guest, or thread id for a worker that is a thread.
    pub pid: i32,
    /// Work type, as `WorkType` spells it.
    pub work_type: String,
    /// When it wants a CPU.
    #[serde(default)]
    pub cpu_demand: CpuDemand,
    /// How it ended.
    pub exit: WorkerExit,
    /// Units of work done: loop turns of a spinner, messages of a pipe. Comparable only within one work type.
    pub work_units: u64,
    /// Outer iterations, at which stop is noticed and telemetry is taken.
    pub iterations: u64,
    /// From release to stop, by `CLOCK_MONOTONIC`.
    pub wall_time_ns: u64,
    /// CPU time in that span, by `CLOCK_THREAD_CPUTIME_ID`.
    pub cpu_time_ns: u64,
    /// Time spent runnable but waiting for a CPU in that span: field 2 of /proc/self/schedstat. `None`
    /// on a kernel without `CONFIG_SCHED_INFO`.
    pub run_delay_ns: Option<u64>,
    /// Times it was picked to run in that span: field 3 of /proc/self/schedstat.
    pub run_count: Option<u64>,
    /// Longest time between two iterations, by `CLOCK_MONOTONIC`.
    pub max_gap_ns: u64,
    /// Where it was after the longest gap.
    pub max_gap_cpu: u32,
    /// When the longest gap ended, from release.
    pub max_gap_at_ns: u64,
    /// Times an iteration found it on another CPU than the one before.
    pub migrations: u64,
    /// CPUs on which an iteration found it.
    pub cpus_used: CpuSet,
    /// Wake latency, for work types that sleep and are woken.
    pub wake_latency: WakeLatency,
    /// Times it gave up the CPU by itself (getrusage `ru_nvcsw`).
    pub voluntary_switches: u64,
    /// Times it was preempted (getrusage `ru_nivcsw`).
    pub involuntary_switches: u64,
    /// Niceness that was declared for it, -20 to 19.
    #[serde(default)]
    pub nice: i32,
    /// Times its niceness was changed while it ran.
    #[serde(default)]
    pub nice_changes: u32,
    /// The policy that was declared for it, and the one that it ended under.
    #[serde(default)]
    pub policy: Option<PolicyAccount>,
    /// Where it was found under each of its masks. Those of the first changes only: see
    /// [`Self::mask_changes`].
    #[serde(default)]
    pub masks: Vec<MaskSpan>,
    /// Times its mask was set, before and while it ran.
    #[serde(default)]
    pub mask_changes: u32,
    /// The NUMA nodes of the memory that it allocated and held to its end, if it was to tell.
    #[serde(default)]
    pub node_pages: Vec<NodePages>,
}

impl WorkerReport {
    /// The report of a worker that sent none.
    pub fn sentinel(pid: i32, work_type: impl Into<String>, exit: WorkerExit) -> Self {
        Self {
            pid,
            work_type: work_type.into(),
            cpu_demand: CpuDemand::default(),
            exit,
            work_units: 0,
            iterations: 0,
            wall_time_ns: 0,
            cpu_time_ns: 0,
            run_delay_ns: None,
            run_count: None,
            max_gap_ns: 0,
            max_gap_cpu: 0,
            max_gap_at_ns: 0,
            migrations: 0,
            cpus_used: CpuSet::new(),
            wake_latency: WakeLatency::default(),
            voluntary_switches: 0,
            involuntary_switches: 0,
            nice: 0,
            nice_changes: 0,
            policy: None,
            masks: Vec::new(),
            mask_changes: 0,
            node_pages: Vec::new(),
        }
    }

    /// Whether the worker stopped when told and sent its report.
    pub fn completed(&self) -> bool {
        self.exit == WorkerExit::Completed
    }

    /// Share of its time in which the worker was not on a CPU, in percent; `None` if it never ran.
    #[expect(
        clippy::cast_precision_loss,
        reason = "nanoseconds of a test are far below 2^53"
    )]
    pub fn off_cpu_pct(&self) -> Option<f64> {
        (self.wall_time_ns > 0).then(|| {
            let on_cpu = self.cpu_time_ns.min(self.wall_time_ns);
            (self.wall_time_ns - on_cpu) as f64 * 100.0 / self.wall_time_ns as f64
        })
    }
}

/// All workers of one cgroup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CgroupReport {
    /// Name the test gave the cgroup.
    pub name: String,
    /// CPUs its workers may use (`cpuset.cpus.effective`), as far as it was known.
    pub cpuset: Option<CpuSet>,
    /// Reports of its workers.
    pub workers: Vec<WorkerReport>,
    /// What was declared of it and of those above it, and what they used. `None` for a report that was
    /// made without.
    #[serde(default)]
    pub account: Option<CgroupAccount>,
}

impl CgroupReport {
    /// A report without an account.
    pub fn new(
        name: impl Into<String>,
        cpuset: Option<CpuSet>,
        workers: Vec<WorkerReport>,
    ) -> Self {
        Self {
            name: name.into(),
            cpuset,
            workers,
            account: None,
        }
    }
}
