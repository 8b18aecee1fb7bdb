//! Test results as data that outsiders may read, and their renderings.
//!
//! The guest fills in an [`AssertResult`] (checks, worker reports), the host wraps it in a [`Sidecar`],
//! one JSON file a test. Everything printed for a person is made from a sidecar, so what is on disk is
//! never less than what was on the screen. A [`RunStore`] keeps the sidecars of all runs, and a
//! [`RunSummary`] says what a run came to.

#![warn(missing_docs)]

mod account;
mod assert;
mod check;
mod exit_code;
mod file_names;
mod kernel_panic;
mod outcome;
mod phase;
mod render;
mod run_id;
mod scheduler;
mod sidecar;
mod sidecar_file;
mod store;
mod summary;
mod timing;
mod unstored;
mod worker;

pub use account::{
    BandwidthSpan, CgroupAccount, CgroupLevel, MaskSpan, NodePages, PolicyAccount, PolicyKind,
    Quota,
};
pub use assert::{Assert, OffBy, Setting};
pub use check::{AssertResult, CheckName, CheckResult, NotChecked, Subject};
pub use exit_code::ExitCode;
pub use kernel_panic::KERNEL_PANIC;
pub use outcome::Outcome;
pub use phase::{Phase, PhaseCgroup, PhaseReport, PhaseWorker};
pub use render::{Palette, Renderer};
pub use run_id::{RUN_ID_ENV, RunId, RunIdError};
pub use scheduler::{
    Expectation, Expected, FailedLoad, KernelExit, RefusedCall, SchedulerEnd, SchedulerReport,
};
pub use sidecar::{
    BootAttempt, EngineInfo, Failure, FailureKind, KernelInfo, SCHEMA_VERSION, Sidecar, Timings,
    shell_word,
};
pub use sidecar_file::SidecarError;
pub use store::{HeldRun, RUNS_DIR_ENV, Run, RunStore, StoreError, StoredSidecar};
pub use summary::{OtherTest, Others, RunSummary, TestSummary, Totals};
pub use timing::TimingSlack;
pub use unstored::UNSTORED_DIR_ENV;
pub use worker::{CgroupReport, CpuDemand, WakeLatency, WorkerExit, WorkerReport};
