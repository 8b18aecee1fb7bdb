//! Putting a check's result together.

use ktstr_report::{AssertResult, CheckResult, Outcome, Subject};

/// A check that is being judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
}

/// What the check saw, in its unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) value: f64,
    pub(super) bound: f64,
}

impl Check {
    pub(super) fn conclude(
        self,
        result: &mut AssertResult,
        holds: bool,
        measured: Measured,
        subject: Subject,
        detail: String,
    ) {
        let outcome = if holds { Outcome::Pass } else { Outcome::Fail };
        result.push(CheckResult {
            check: self.name.to_owned(),
            outcome,
            value: Some(measured.value),
            bound: Some(measured.bound),
            unit: self.unit.to_owned(),
            subject,
            detail,
        });
    }

    /// There was nothing to judge by.
    pub(super) fn inconclusive(
        self,
        result: &mut AssertResult,
        bound: Option<f64>,
        detail: impl Into<String>,
    ) {
        result.push(CheckResult {
            check: self.name.to_owned(),
            outcome: Outcome::Inconclusive,
            value: None,
            bound,
            unit: self.unit.to_owned(),
            subject: Subject::default(),
            detail: detail.into(),
        });
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
