//! Why a machine does not do as told.

use std::error::Error;
use std::time::Duration;

/// Why a running machine did not do as told, whatever runs it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// It has ended.
    #[error("can't {action}: the machine has ended")]
    Ended {
        /// What was asked for.
        action: &'static str,
    },
    /// A part of it did not answer in time.
    #[error("can't {action}: {what} did not answer within {} s; is the host out of CPU time?", timeout.as_secs())]
    Timeout {
        /// What was asked for.
        action: &'static str,
        /// The part.
        what: String,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// It was refused, or the way to the machine failed.
    #[error("can't {action}")]
    Failed {
        /// What was asked for.
        action: &'static str,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl ControlError {
    /// What makes a [`Self::Failed`] of its cause.
    pub fn failed<E: Into<Box<dyn Error + Send + Sync>>>(
        action: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Failed {
            action,
            source: source.into(),
        }
    }
}
