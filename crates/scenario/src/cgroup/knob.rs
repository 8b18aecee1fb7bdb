//! The settings of a cgroup, as its control files take them.

use std::fmt;
use std::time::Duration;

use ktstr_topology::CpuSet;

/// A limit, in the control file's own unit (bytes or a count), or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// No limit.
    Max,
    /// At most this much.
    At(u64),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max => f.write_str("max"),
            Self::At(limit) => write!(f, "{limit}"),
        }
    }
}

/// CPU bandwidth (`cpu.max`): how much CPU time, of all CPUs together, in each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuMax {
    /// No limit.
    Max,
    /// Percent of one CPU, in the kernel's own period of 100 ms; 200 is two whole CPUs.
    Pct(u32),
    /// This much in each period. The kernel takes quotas from 1 ms and periods from 1 ms to 1 s
    /// (kernel/sched/core.c).
    Quota {
        /// CPU time in each period.
        quota: Duration,
        /// The period.
        period: Duration,
    },
}

impl fmt::Display for CpuMax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PERIOD_US: u64 = 100_000;
        match self {
            Self::Max => write!(f, "max {PERIOD_US}"),
            Self::Pct(pct) => write!(f, "{} {PERIOD_US}", u64::from(*pct) * PERIOD_US / 100),
            Self::Quota { quota, period } => {
                write!(f, "{} {}", quota.as_micros(), period.as_micros())
            }
        }
    }
}

/// One setting of one cgroup.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Knob {
    /// CPUs its tasks may use; empty: those of the parent.
    Cpus(CpuSet),
    /// NUMA nodes its memory may come from; empty: those of the parent.
    Mems(CpuSet),
    /// CPU bandwidth.
    CpuMax(CpuMax),
    /// Share of CPU time against its siblings, 1 to 10000; 100 is the kernel's default.
    CpuWeight(u32),
    /// Hard limit (`memory.max`) in bytes; the OOM killer acts above it.
    MemoryMax(Limit),
    /// Memory beyond which it is slowed down, in bytes.
    MemoryHigh(Limit),
    /// Memory that is kept for it unless none is left elsewhere, in bytes.
    MemoryLow(Limit),
    /// Swap space, in bytes.
    SwapMax(Limit),
    /// Share of disk time against its siblings, 1 to 10000.
    IoWeight(u32),
    /// Tasks it may have.
    PidsMax(Limit),
    /// Whether its tasks are stopped.
    Freeze(bool),
}

impl Knob {
    /// The control file.
    pub const fn file(&self) -> &'static str {
        match self {
            Self::Cpus(_) => "cpuset.cpus",
            Self::Mems(_) => "cpuset.mems",
            Self::CpuMax(_) => "cpu.max",
            Self::CpuWeight(_) => "cpu.weight",
            Self::MemoryMax(_) => "memory.max",
            Self::MemoryHigh(_) => "memory.high",
            Self::MemoryLow(_) => "memory.low",
            Self::SwapMax(_) => "memory.swap.max",
            Self::IoWeight(_) => "io.weight",
            Self::PidsMax(_) => "pids.max",
            Self::Freeze(_) => "cgroup.freeze",
        }
    }

    /// Whether a threaded cgroup has it: only the cpu, cpuset and pids controllers know threads
    /// (`.threaded = true` in their `cgroup_subsys`), and every cgroup can be frozen.
    pub const fn works_threaded(&self) -> bool {
        !matches!(
            self,
            Self::MemoryMax(_)
                | Self::MemoryHigh(_)
                | Self::MemoryLow(_)
                | Self::SwapMax(_)
                | Self::IoWeight(_)
        )
    }

    /// The value as the control file takes it.
    pub fn value(&self) -> String {
        match self {
            Self::Cpus(set) | Self::Mems(set) => set.to_string(),
            Self::CpuMax(max) => max.to_string(),
            Self::CpuWeight(weight) => weight.to_string(),
            Self::IoWeight(weight) => format!("default {weight}"),
            Self::MemoryMax(limit)
            | Self::MemoryHigh(limit)
            | Self::MemoryLow(limit)
            | Self::SwapMax(limit)
            | Self::PidsMax(limit) => limit.to_string(),
            Self::Freeze(on) => u8::from(*on).to_string(),
        }
    }
}
