//! A process in the queue, as others see it.

use super::claim::Claim;

/// Whether a machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// It runs.
    Running,
    /// Its process waits in the queue.
    Waiting,
}

impl Place {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
        }
    }
}

/// One process in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whether its machine runs.
    pub place: Place,
    /// What it said about itself.
    pub claim: Claim,
}
