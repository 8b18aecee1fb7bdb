//! The four outcomes and their order.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a check, or a whole test, came to. Ordered by severity: the outcome of several together is the
/// largest of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was not run, for a stated reason.
    Skip,
    /// It was judged, and held.
    Pass,
    /// It ran, but there was no signal to judge by.
    Inconclusive,
    /// It was judged, and did not hold.
    Fail,
}

impl Outcome {
    /// The word printed for it: `PASS`, `FAIL`, `INCONCLUSIVE`, `SKIP`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Skip => "SKIP",
            Self::Pass => "PASS",
            Self::Inconclusive => "INCONCLUSIVE",
            Self::Fail => "FAIL",
        }
    }

    /// Whether a test with this outcome leaves the run green.
    pub const fn is_green(self) -> bool {
        matches!(self, Self::Skip | Self::Pass)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}
