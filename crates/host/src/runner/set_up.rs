//! Why a machine could not be set up, and what that says of the test.

use std::path::PathBuf;

use ktstr_machine::{LaunchError, SpecError};
use ktstr_report::FailureKind;
use ktstr_topology::NumaError;

use crate::cpu_queue::QueueError;
use crate::initramfs::InitramfsError;
use crate::run::DriveError;
use crate::scheduler::SchedulerError;

/// A test could not be run to any end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetUpError {
    #[error(transparent)]
    Kernel(#[from] ktstr_kernels::CacheError),
    #[error(transparent)]
    Modules(#[from] ktstr_kernels::ModuleError),
    #[error("listing the kernel's files in {folder}")]
    KernelFiles {
        folder: PathBuf,
        source: std::io::Error,
    },
    #[error("the initramfs can't be packed")]
    Initramfs(#[from] InitramfsError),
    #[error(transparent)]
    Numa(#[from] NumaError),
    #[error(transparent)]
    Scheduler(#[from] SchedulerError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("the threads that serve the machine can't have real-time priority")]
    Priority(#[source] std::io::Error),
    #[error(transparent)]
    Drive(#[from] DriveError),
}

impl SetUpError {
    /// What this engine or host can never give, while another could: the test is then skipped, since nothing is
    /// wrong with it.
    pub(crate) fn beyond_host(&self) -> Option<&SpecError> {
        self.spec().filter(|error| error.is_beyond_host())
    }

    /// Whether the host lacks at this moment what it may have at another: the test is then inconclusive.
    pub(crate) fn is_for_now(&self) -> bool {
        matches!(self, Self::Queue(QueueError::TimedOut { .. }))
            || self.spec().is_some_and(SpecError::is_for_now)
    }

    fn spec(&self) -> Option<&SpecError> {
        match self {
            Self::Spec(error) | Self::Drive(DriveError::Launch(LaunchError::Spec(error))) => {
                Some(error)
            }
            _ => None,
        }
    }

    /// Whose fault it is.
    pub(crate) fn kind(&self) -> FailureKind {
        match self {
            error if error.beyond_host().is_some() || error.is_for_now() => FailureKind::Host,
            Self::Queue(_) | Self::Priority(_) => FailureKind::Host,
            _ => FailureKind::Harness,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cpu_queue::{Lack, Waiting};

    use super::*;

    #[test]
    fn fault_a2_what_the_host_lacks_for_good_skips_and_what_it_lacks_now_does_not() {
        let too_much = SetUpError::Spec(SpecError::TooMuchMemory {
            memory_mib: 9_000,
            total_mib: 8_000,
        });
        assert!(too_much.beyond_host().is_some() && !too_much.is_for_now());
        let waiting = Waiting {
            lack: Lack::Memory {
                needed_mib: 4_000,
                left_mib: 900,
            },
            waited: std::time::Duration::from_secs(120),
            before: Vec::new(),
        };
        let taken = SpecError::HugePagesTaken {
            source: std::io::Error::from_raw_os_error(12),
        };
        for now in [
            SetUpError::Queue(QueueError::TimedOut { waiting }),
            SetUpError::Drive(DriveError::Launch(taken.into())),
        ] {
            assert!(now.beyond_host().is_none() && now.is_for_now(), "{now}");
            assert_eq!(now.kind(), FailureKind::Host);
        }
    }
}
