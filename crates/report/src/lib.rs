//! Test results as data that outsiders may read, and their renderings.
//!
//! The guest fills in an [`AssertResult`] (checks, worker reports), the host wraps it in a [`Sidecar`],
//! one JSON file a test. Everything printed for a person is made from a sidecar, so what is on disk is
//! never less than what was on the screen.

mod check;
mod exit_code;
mod outcome;
mod sidecar;
mod worker;

pub use check::{AssertResult, CheckResult, NotChecked, Subject};
pub use exit_code::ExitCode;
pub use outcome::Outcome;
pub use sidecar::{
    BootAttempt, EngineInfo, Failure, FailureKind, KernelInfo, SCHEMA_VERSION, Sidecar, Timings,
};
pub use worker::{CgroupReport, WakeLatency, WorkerExit, WorkerReport};
