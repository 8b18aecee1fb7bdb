//! Ending and starting the scheduler under test while the body runs.

use std::error::Error;
use std::fmt;

/// What a test may do with its scheduler. The guest's runtime implements it.
pub trait SchedulerControl: fmt::Debug + Send + Sync {
    /// Starts the scheduler and waits until it is attached.
    fn attach(&self) -> Result<(), SchedulerControlError>;

    /// Ends the scheduler and waits until the kernel has none.
    fn detach(&self) -> Result<(), SchedulerControlError>;

    /// Detaches and attaches.
    fn restart(&self) -> Result<(), SchedulerControlError>;

    /// Detaches, and attaches the same program with these arguments instead of those that the test declares.
    fn replace(&self, args: &[String]) -> Result<(), SchedulerControlError>;
}

/// The scheduler is not as the test wants it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchedulerControlError {
    /// The test runs under the kernel's own scheduler.
    #[error("the test declares no scheduler")]
    NoScheduler,
    /// It is attached already.
    #[error("the scheduler is attached already: detach it first")]
    Attached,
    /// It is not attached.
    #[error("the scheduler is not attached: the test has detached it")]
    Detached,
    /// It was started and not attached.
    #[error("{why}")]
    NotAttached {
        /// What became of it.
        why: String,
    },
    /// Arguments are for programs.
    #[error("the scheduler is switched on by a command, and takes no arguments")]
    NoProgram,
    /// It was attached too often.
    #[error("a scheduler is attached at most {times} times in a test")]
    TooOften {
        /// How often it may be.
        times: u32,
    },
    /// The host could not be told.
    #[error("the host can't be told of the scheduler")]
    Link(#[source] Box<dyn Error + Send + Sync>),
}

impl SchedulerControlError {
    /// That the host could not be told, and why.
    pub fn link(why: impl Error + Send + Sync + 'static) -> Self {
        Self::Link(Box::new(why))
    }
}
