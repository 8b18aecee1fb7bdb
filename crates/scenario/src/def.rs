//! One cgroup of a scenario, with its workers.

use ktstr_topology::CpuSet;

use crate::CpusetSpec;
use crate::cgroup::{CpuMax, Knob, Limit};
use crate::cpuset_spec::share;
use crate::workload::{AffinityIntent, CloneMode, SchedPolicy, WorkSpec, WorkType};

#[derive(Clone, Copy, Debug)]
pub(crate) enum WorkerCount {
    /// One group of the work type.
    OneGroup,
    Exactly(usize),
    PctOfCpus(f64),
}

/// A cgroup and the workers in it. Unless said otherwise it has all CPUs, no limits, and one worker (a
/// pair for work types that work in pairs) that spins, as a process of its own.
#[derive(Clone, Debug)]
#[must_use]
pub struct CgroupDef {
    pub(crate) name: String,
    pub(crate) workers: WorkerCount,
    pub(crate) spec: WorkSpec,
    pub(crate) clone_mode: CloneMode,
    pub(crate) affinity: AffinityIntent,
    pub(crate) cpuset: Option<CpusetSpec>,
    pub(crate) knobs: Vec<Knob>,
    pub(crate) nice_levels: Vec<i32>,
}

impl CgroupDef {
    /// A cgroup called `name`; `a/b` nests.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            workers: WorkerCount::OneGroup,
            spec: WorkSpec::new(WorkType::SpinWait),
            clone_mode: CloneMode::Fork,
            affinity: AffinityIntent::Inherit,
            cpuset: None,
            knobs: Vec::new(),
            nice_levels: Vec::new(),
        }
    }

    /// This many workers.
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = WorkerCount::Exactly(count);
        self
    }

    /// As many workers as `fraction` of the cgroup's CPUs (1.0: one for each), rounded up,
    /// also to whole groups of the work type.
    pub fn workers_pct(mut self, fraction: f64) -> Self {
        self.workers = WorkerCount::PctOfCpus(fraction);
        self
    }

    /// What the workers do.
    pub fn work_type(mut self, work_type: WorkType) -> Self {
        self.spec.work_type = work_type;
        self
    }

    /// The CPUs that they may use.
    pub fn cpuset(mut self, cpuset: CpusetSpec) -> Self {
        self.cpuset = Some(cpuset);
        self
    }

    /// The NUMA nodes that their memory may come from.
    pub fn cpuset_mems(self, nodes: CpuSet) -> Self {
        self.knob(Knob::Mems(nodes))
    }

    /// Share of CPU time against the other cgroups, 1 to 10000; 100 is the kernel's default.
    pub fn cpu_weight(self, weight: u32) -> Self {
        self.knob(Knob::CpuWeight(weight))
    }

    /// CPU time that all workers together may use, in percent of one CPU.
    pub fn cpu_quota_pct(self, pct: u32) -> Self {
        self.knob(Knob::CpuMax(CpuMax::Pct(pct)))
    }

    /// Memory that all workers together may use, in bytes.
    pub fn memory_max(self, bytes: u64) -> Self {
        self.knob(Knob::MemoryMax(Limit::At(bytes)))
    }

    /// Tasks that may be in it, those that the workers start included.
    pub fn pids_max(self, count: u64) -> Self {
        self.knob(Knob::PidsMax(Limit::At(count)))
    }

    /// Any other setting of the cgroup.
    pub fn knob(mut self, knob: Knob) -> Self {
        self.knobs.push(knob);
        self
    }

    /// Niceness of the workers, -20 to 19.
    pub fn nice(mut self, nice: i32) -> Self {
        self.spec.nice = nice;
        self
    }

    /// Niceness of the workers in turn: with `[0, 5]` the first has 0, the second 5, the third 0.
    pub fn nice_levels(mut self, levels: impl Into<Vec<i32>>) -> Self {
        self.nice_levels = levels.into();
        self
    }

    /// Scheduling policy of the workers.
    pub fn sched_policy(mut self, policy: SchedPolicy) -> Self {
        self.spec.sched_policy = policy;
        self
    }

    /// How the workers are bound to CPUs within the cgroup's.
    pub fn affinity(mut self, affinity: AffinityIntent) -> Self {
        self.affinity = affinity;
        self
    }

    /// Name of the workers' tasks, cut to 15 bytes by the kernel.
    pub fn comm(mut self, comm: impl Into<String>) -> Self {
        self.spec.comm = Some(comm.into());
        self
    }

    /// Processes or threads.
    pub fn clone_mode(mut self, mode: CloneMode) -> Self {
        self.clone_mode = mode;
        self
    }

    /// The number of workers in a cgroup of `cpus` CPUs.
    pub(crate) fn worker_count(&self, cpus: u32) -> usize {
        match self.workers {
            WorkerCount::OneGroup => self.spec.work_type.group_size(),
            WorkerCount::Exactly(count) => count,
            // A fraction that isn't positive gives 0, which is refused with the other counts of 0.
            WorkerCount::PctOfCpus(fraction) => {
                let count = share(fraction, cpus, f64::ceil) as usize;
                count.next_multiple_of(self.spec.work_type.group_size())
            }
        }
    }
}
