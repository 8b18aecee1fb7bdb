//! How far an engine may stretch a guest's time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the engine that runs the machine may itself add to a measurement. A host stops a guest CPU for longer than
/// any scheduler would; a bound that ignores it would blame the scheduler.
///
/// The default is no allowance: a machine with real CPUs of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TimingSlack {
    /// How long a runnable guest CPU may stand still because the host runs something else, in milliseconds. Added to
    /// the bound of `max_gap_ms`, and to the deadlines for starting and stopping workers.
    pub gap_ms: u64,
    /// How far equal CPUs may differ in work done over the same time, in percentage points of the mean. Added to the
    /// bound of `max_spread_pct`.
    pub spread_pct: f64,
    /// Why, as a clause for a person: `emulated CPUs share 2 host CPUs`.
    pub why: String,
}

impl TimingSlack {
    /// `limit` with the allowance for gaps added.
    pub fn stretch(&self, limit: Duration) -> Duration {
        limit.saturating_add(Duration::from_millis(self.gap_ms))
    }

    /// The allowance of an engine inside a machine that has `outer` itself.
    #[must_use]
    pub fn within(self, outer: &Self) -> Self {
        let why = match outer.why.as_str() {
            "" => self.why,
            outer => format!("{}, and {outer}", self.why),
        };
        Self {
            gap_ms: self.gap_ms + outer.gap_ms,
            spread_pct: self.spread_pct + outer.spread_pct,
            why,
        }
    }
}
