//! Figures of checks.

use ktstr_report::{CheckResult, Subject};

/// What a check saw and what it was held against, in its unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) value: f64,
    pub(super) bound: f64,
}

impl Measured {
    /// Things counted, where there should be none.
    pub(super) fn count(count: usize) -> Self {
        Self {
            value: float(count as u64),
            bound: 0.0,
        }
    }

    /// Whether the value is at most the bound.
    pub(super) fn is_within(self) -> bool {
        self.value <= self.bound
    }

    /// The result with these figures, about `subject`.
    pub(super) fn of(self, result: CheckResult, subject: Subject) -> CheckResult {
        let result = result.with_value(self.value).with_bound(self.bound);
        result.about(subject)
    }
}

/// A count as the reports' number.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts and nanoseconds of a test are far below 2^53"
)]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

/// `1 worker`, `2 workers`.
pub(super) fn plural(count: usize, one: &str) -> String {
    if count == 1 {
        format!("1 {one}")
    } else {
        format!("{count} {one}s")
    }
}
