//! Ending a load before its time.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Why a load is ended before its time. Detaching a scheduler on purpose is not among the reasons: the load goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The scheduler under test is no longer attached, and the test did not detach it.
    SchedulerGone {
        /// Name that the test gave it.
        scheduler: String,
    },
}

/// As a clause after "until": `scheduler `x` had gone`.
impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SchedulerGone { scheduler } => write!(f, "scheduler `{scheduler}` had gone"),
        }
    }
}

/// Tells whoever holds a load to end it early, and why. All clones share one state.
#[derive(Clone, Debug, Default)]
pub struct LoadStop {
    reason: Arc<Mutex<Option<StopReason>>>,
}

impl LoadStop {
    /// Ends the load. The first reason stands until it is [withdrawn](Self::withdraw).
    pub fn request(&self, reason: StopReason) {
        self.lock().get_or_insert(reason);
    }

    /// Takes a request back: a scheduler is attached again.
    pub fn withdraw(&self) {
        *self.lock() = None;
    }

    /// Why the load has to end, if it has to.
    pub fn reason(&self) -> Option<StopReason> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<StopReason>> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stands_until_it_is_withdrawn() {
        let gone = |scheduler: &str| StopReason::SchedulerGone {
            scheduler: scheduler.to_owned(),
        };
        let stop = LoadStop::default();
        let clone = stop.clone();
        assert_eq!(clone.reason(), None);
        stop.request(gone("x"));
        clone.request(gone("y"));
        assert_eq!(stop.reason(), Some(gone("x")));
        stop.withdraw();
        clone.request(gone("y"));
        assert_eq!(stop.reason(), Some(gone("y")));
    }
}
