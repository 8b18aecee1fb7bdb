//! The host side of one test, end to end.
//!
//! [`Session`] holds what all tests of a process share: the kernel, the engine, the caches. A
//! [`TestPlan`] says what one test wants. [`Session::run_test`] packs the initramfs, boots the machine,
//! listens to it under a watchdog, and returns a [`Sidecar`](ktstr_report::Sidecar) whatever happened.
//! [`Session::run_shell`] does the same for a command or a person at a terminal.

mod boot;
mod cargo_build;
mod causes;
mod cpu_queue;
mod deadline;
mod diagnosis;
mod drive;
mod expectation;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod host_only;
pub mod initramfs;
mod link;
mod memory;
mod nested;
mod observe;
mod order;
mod outcome;
mod plan;
mod scheduler;
mod session;
mod shell;
mod sidecar;
mod text;
mod vm_result;
mod watchdog;

pub use cargo_build::BuildError;
pub use cpu_queue::{
    Claim, CpuCap, CpuCapError, CpuQueue, Entry, Lack, Place, QueueError, Share, Waiting,
};
pub use drive::OnOutput;
pub use host_only::{Body, run_host_only};
pub use ktstr_machine::{EngineKind, EngineOptions};
pub use ktstr_monitor as monitor;
pub use ktstr_wire::{NestedTest, TestEnd, TimingSlack};
pub use memory::MemoryPlan;
pub use observe::{Moment, MonitorRate, MonitorRateError, Observation, VcpuState};
pub use plan::TestPlan;
pub use scheduler::{SchedulerError, SchedulerPlan, SchedulerSource};
pub use session::{Session, SessionError, Settings, look_in_cache};
pub use shell::{ShellEnd, ShellError, ShellPlan};
pub use sidecar::blank_sidecar;
pub use vm_result::{DUMP_SCHEMA_VERSION, VmResult};
