//! A workload to be made.

use std::time::Duration;

use super::sched_policy::{SchedPolicy, check_range};
use super::worker::CloneMode;
use super::{WorkType, WorkloadError};

/// How long all workers together may take to begin, before any allowance of the engine.
const READY_DEADLINE: Duration = Duration::from_secs(5);

/// How long all workers together may take to stop and report, before any allowance of the engine.
const REPORT_DEADLINE: Duration = Duration::from_secs(5);

/// What each worker is and does.
#[derive(Clone, Debug)]
pub struct WorkSpec {
    /// The kind of work.
    pub work_type: WorkType,
    /// The policy it runs under.
    pub sched_policy: SchedPolicy,
    /// Niceness, -20 to 19; for the policies that know it.
    pub nice: i32,
    /// Name of its task (`comm`), cut to 15 bytes by the kernel. `None`: the work type's name.
    pub comm: Option<String>,
}

impl WorkSpec {
    /// Workers of `work_type` with the usual policy, niceness and name.
    pub const fn new(work_type: WorkType) -> Self {
        Self {
            work_type,
            sched_policy: SchedPolicy::Normal,
            nice: 0,
            comm: None,
        }
    }
}

/// A workload to be made.
#[derive(Clone, Debug)]
pub struct WorkloadConfig {
    /// What each worker is and does.
    pub spec: WorkSpec,
    /// How many workers.
    pub workers: usize,
    /// Processes or threads.
    pub clone_mode: CloneMode,
    /// Added to the deadlines for beginning and for stopping (5 s each, for all workers together).
    pub slack: Duration,
    /// Whether each worker allocates memory (64 pages) and tells where that is, for the check `mem_binding`.
    pub tell_memory: bool,
}

impl WorkloadConfig {
    /// `workers` processes that do `work_type`.
    pub const fn new(work_type: WorkType, workers: usize) -> Self {
        Self {
            spec: WorkSpec::new(work_type),
            workers,
            clone_mode: CloneMode::Fork,
            slack: Duration::ZERO,
            tell_memory: false,
        }
    }

    pub(super) fn check(&self) -> Result<(), WorkloadError> {
        let group_size = self.spec.work_type.group_size();
        if self.workers == 0 {
            return Err(WorkloadError::NoWorkers);
        }
        if !self.workers.is_multiple_of(group_size) {
            return Err(WorkloadError::GroupSize {
                work_type: self.spec.work_type.to_string(),
                workers: self.workers,
                group_size,
            });
        }
        check_range("the niceness", i64::from(self.spec.nice), -20, 19)?;
        self.spec.sched_policy.check()
    }

    /// How long all workers together may take to begin.
    pub(super) fn ready_time(&self) -> Duration {
        READY_DEADLINE.saturating_add(self.slack)
    }

    /// How long all workers together may take to stop and report.
    pub(super) fn report_time(&self) -> Duration {
        REPORT_DEADLINE.saturating_add(self.slack)
    }
}
