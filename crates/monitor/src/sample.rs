//! What one look at a running kernel gives.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// It changed while it was read, again and again. This says nothing of the scheduler.
    #[error("it changed while it was read")]
    Unstable,
    /// The kernel has not set it up yet.
    #[error("the kernel has not set it up yet")]
    NotInitialised,
    /// This kernel has no such thing; the text names the type, member or symbol.
    #[error("this kernel has no {0}")]
    Absent(String),
    /// Reading it, and what was read before in the same look, costs more than a look may; the text says what of.
    #[error("{0}")]
    Budget(String),
    /// The host can't tell; the text says why.
    #[error("{0}")]
    Failed(String),
}

/// A value, or why there is none.
pub type Reading<T> = Result<T, Missing>;

/// One look at the machine. Its parts are read one after the other while the guest runs: they belong
/// together only within [`Sample::took_ns`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When it was taken, from the start of the recording, by the host's `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// How long taking it took.
    pub took_ns: u64,
    /// CPUs by their number in the guest. Empty if nothing could be read.
    pub cpus: Vec<CpuSample>,
    /// sched_ext as a whole.
    pub sched_ext: Reading<SchedExtSample>,
    /// CPU time that the host has given to the vCPUs.
    pub vcpu_time: Reading<VcpuTime>,
    /// Time for which the host had the threads that run vCPUs wait for a CPU: of each vCPU, or of the one thread
    /// that takes all.
    pub vcpu_wait_ns: Reading<Vec<u64>>,
}

/// One CPU of the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CpuSample {
    /// Whether it is online. The other fields of a CPU that is not decide nothing.
    pub online: bool,
    /// Its runqueue.
    pub rq: Reading<RqSample>,
    /// Its part of sched_ext.
    pub scx: Reading<ScxRqSample>,
    /// Its counters of scheduling, on a kernel with `CONFIG_SCHEDSTATS`.
    pub schedstat: Reading<SchedStats>,
}

/// `struct rq` (kernel/sched/sched.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RqSample {
    /// `nr_running`: tasks that run or wait, of all classes.
    pub nr_running: u32,
    /// `clock`. 0 before the CPU first schedules.
    pub clock_ns: u64,
}

/// `struct scx_rq` (kernel/sched/sched.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScxRqSample {
    /// `nr_running`: tasks of the sched_ext class that run or wait.
    pub nr_running: u32,
    /// `local_dsq.nr`: tasks on the CPU's local DSQ.
    pub local_dsq_depth: u32,
    /// `flags`: `SCX_RQ_*`.
    pub flags: u32,
}

/// Counters of `struct rq` and its `rq_sched_info` (kernel/sched/sched.h), since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedStats {
    /// `rq_sched_info.run_delay`: time that tasks spent runnable but waiting here.
    pub run_delay_ns: u64,
    /// `rq_sched_info.pcount`: times a task was picked to run.
    pub pcount: u64,
    /// `yld_count`: calls of sched_yield.
    pub yld_count: u32,
    /// `sched_count`: calls of schedule.
    pub sched_count: u32,
    /// `sched_goidle`: times it went idle.
    pub sched_goidle: u32,
    /// `ttwu_count`: wake-ups.
    pub ttwu_count: u32,
    /// `ttwu_local`: wake-ups of tasks on the CPU that woke them.
    pub ttwu_local: u32,
}

/// State of sched_ext (`enum scx_enable_state`, kernel/sched/ext.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SchedExtState {
    /// A scheduler is being loaded.
    Enabling,
    /// A scheduler schedules.
    Enabled,
    /// The scheduler is being taken out.
    Disabling,
    /// There is none.
    Disabled,
    /// A state that is not known here, by the kernel's number.
    Other(u32),
}

/// sched_ext as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchedExtSample {
    /// Its state.
    pub state: SchedExtState,
    /// Event counters by the kernel's names (`SCX_EV_…`), summed over all CPUs, since the scheduler was
    /// loaded.
    pub events: Reading<BTreeMap<String, u64>>,
}

/// CPU time that the host has given to the vCPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VcpuTime {
    /// Each vCPU is a thread of its own: its CPU time, by CPU number.
    Own(Vec<u64>),
    /// One thread takes the vCPUs in turns.
    Shared {
        /// CPU time of that thread.
        thread_ns: u64,
        /// Longest turn of one vCPU while others have work.
        turn_ns: u64,
    },
}

impl Sample {
    /// A sample of which nothing could be read.
    pub fn unreadable(at_ns: u64, why: &Missing) -> Self {
        Self {
            at_ns,
            took_ns: 0,
            cpus: Vec::new(),
            sched_ext: Err(why.clone()),
            vcpu_time: Err(why.clone()),
            vcpu_wait_ns: Err(why.clone()),
        }
    }

    /// The runqueue of a CPU that is online.
    pub fn rq(&self, cpu: usize) -> Option<&RqSample> {
        self.online(cpu)?.rq.as_ref().ok()
    }

    /// The sched_ext part of a CPU that is online.
    pub fn scx(&self, cpu: usize) -> Option<&ScxRqSample> {
        self.online(cpu)?.scx.as_ref().ok()
    }

    /// Whether a sched_ext scheduler schedules; `None` if that could not be read.
    pub fn scx_enabled(&self) -> Option<bool> {
        let scx = self.sched_ext.as_ref().ok()?;
        Some(scx.state == SchedExtState::Enabled)
    }

    /// The event counter of this name.
    pub fn event(&self, name: &str) -> Option<u64> {
        let events = self.sched_ext.as_ref().ok()?.events.as_ref().ok()?;
        events.get(name).copied()
    }

    /// Whether the CPU is known to be offline.
    pub(crate) fn is_offline(&self, cpu: usize) -> bool {
        self.cpus.get(cpu).is_some_and(|cpu| !cpu.online)
    }

    fn online(&self, cpu: usize) -> Option<&CpuSample> {
        self.cpus.get(cpu).filter(|cpu| cpu.online)
    }
}
