//! What a test does in its guest, for authors of tests.
//!
//! A test's body gets a [`Ctx`], describes cgroups and their workers with [`CgroupDef`], runs them with
//! [`execute_defs`] (or one of the ready-made [`scenarios`]), and hands back the [`AssertResult`] that
//! the [`checks`] came to. [`CgroupManager`] and [`workload::WorkloadHandle`] are the parts below, for
//! tests that need another course of events.
//!
//! All of it runs inside the machine, as root, in the harness: a process that may have other threads, and
//! that sits in the root of the cgroup hierarchy.

#![warn(missing_docs)]

pub mod cgroup;
pub mod checks;
mod cpuset_spec;
mod ctx;
mod def;
mod execute;
mod host;
mod load_stop;
mod phases;
pub mod scenarios;
pub mod sched_ext;
mod scheduler_control;
pub mod workload;

pub use cgroup::{
    CgroupError, CgroupGroup, CgroupKind, CgroupManager, CgroupOps, CpuMax, Knob, Limit,
};
pub use cpuset_spec::{CpusetSpec, CpusetSpecError};
pub use ctx::Ctx;
pub use def::CgroupDef;
pub use execute::{ScenarioError, execute_defs};
pub use host::{Host, HostError};
pub use ktstr_declaration::Check;
pub use ktstr_report::{
    Assert, AssertResult, BandwidthSpan, CgroupAccount, CgroupLevel, CgroupReport, CheckName,
    CheckResult, CpuDemand, MaskSpan, NodePages, NotChecked, Outcome, Phase, PhaseCgroup,
    PhaseReport, PhaseWorker, PolicyAccount, PolicyKind, Quota, Setting, Subject, TimingSlack,
    WakeLatency, WorkerExit, WorkerReport,
};
pub use ktstr_topology::{CpuSet, NumaMemory, Topology};
pub use load_stop::{LoadStop, StopReason};
pub use scheduler_control::{SchedulerControl, SchedulerControlError};
pub use workload::{
    AffinityIntent, CloneMode, SchedPolicy, WorkSpec, WorkType, WorkerControl, WorkloadConfig,
    WorkloadHandle,
};
