//! The host side of one test, end to end.
//!
//! [`Session`] holds what all tests of a process share: the kernel, the engine, the caches. A
//! [`TestPlan`] says what one test wants. [`Session::run_test`] packs the initramfs, boots the machine,
//! listens to it under a watchdog, and returns a [`Sidecar`](ktstr_report::Sidecar) whatever happened.
//! [`Session::run_shell`] does the same for a command or a person at a terminal.

mod causes;
mod cpu_queue;
mod diagnosis;
mod events;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod initramfs;
mod memory;
mod millis;
mod observe;
mod plan;
mod progress;
mod run;
mod run_log;
mod runner;
mod scheduler;
mod session;
mod verdict;

pub use cpu_queue::{
    Admission, Claim, CpuCap, CpuCapError, CpuQueue, Entry, Lack, Permit, Place, QueueError,
    Ticket, Waiting,
};
pub use events::{RunEvent, RunObserver};
pub use memory::MemoryPlan;
pub use observe::{Moment, MonitorRate, MonitorRateError, Observation, VcpuState};
pub use plan::TestPlan;
pub use progress::{PROGRESS_ENV, Progress, ProgressLines, ProgressSender};
pub use run_log::RunLog;
pub use runner::{
    Body, OuterMachine, RunsIn, ShellEnd, ShellError, ShellPlan, TestsOnly, UnknownEngine,
    run_host_only,
};
pub use scheduler::{BuildError, CargoSettings, SchedulerError, SchedulerPlan, SchedulerSource};
pub use session::{Session, SessionError, Settings, look_in_cache};
pub use verdict::{DUMP_SCHEMA_VERSION, VmResult, blank_sidecar};
