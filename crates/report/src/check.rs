//! The results of single checks, and of a test's checks together.

use ktstr_declaration::Check;
use serde::{Deserialize, Serialize};

use crate::{CgroupReport, Outcome, PhaseReport};

/// Whom a check speaks of. For a failed check it is the worst offender.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Cgroup, by the name the test gave it.
    pub cgroup: Option<String>,
    /// Worker, by its pid (tid in thread mode) in the guest.
    pub worker: Option<i32>,
    /// CPU number.
    pub cpu: Option<u32>,
}

/// One judged check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// Name of the check, as the attribute of `#[ktstr_test]` spells it.
    pub check: String,
    /// Its outcome. A single check is never [`Outcome::Skip`]: what is not judged is [`NotChecked`].
    pub outcome: Outcome,
    /// The measured value that decides it (the worst one seen), in `unit`.
    pub value: Option<f64>,
    /// The bound that the value was held against, in `unit`.
    pub bound: Option<f64>,
    /// Unit of value and bound: `ms`, `%`, `iterations`; empty for a plain count.
    pub unit: String,
    /// The worst offender.
    pub subject: Subject,
    /// One sentence for a person: what was seen.
    pub detail: String,
}

/// What a check is called, and the unit of its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckName {
    name: String,
    unit: String,
}

impl CheckName {
    /// A check of a test's own.
    pub fn new(name: impl Into<String>, unit: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            unit: unit.into(),
        }
    }
}

impl From<Check> for CheckName {
    fn from(check: Check) -> Self {
        Self::new(check.name(), check.spec().unit)
    }
}

impl CheckResult {
    /// The check holds.
    pub fn pass(check: impl Into<CheckName>, detail: impl Into<String>) -> Self {
        Self::new(check.into(), Outcome::Pass, detail.into())
    }

    /// The check does not hold.
    pub fn fail(check: impl Into<CheckName>, detail: impl Into<String>) -> Self {
        Self::new(check.into(), Outcome::Fail, detail.into())
    }

    /// There was no data to judge it by.
    pub fn inconclusive(check: impl Into<CheckName>, detail: impl Into<String>) -> Self {
        Self::new(check.into(), Outcome::Inconclusive, detail.into())
    }

    /// The check holds if `holds`.
    pub fn judged(check: impl Into<CheckName>, holds: bool, detail: impl Into<String>) -> Self {
        match holds {
            true => Self::pass(check, detail),
            false => Self::fail(check, detail),
        }
    }

    fn new(CheckName { name, unit }: CheckName, outcome: Outcome, detail: String) -> Self {
        Self {
            check: name,
            outcome,
            value: None,
            bound: None,
            unit,
            subject: Subject::default(),
            detail,
        }
    }

    /// With the value that decides it.
    #[must_use]
    pub fn with_value(mut self, value: impl Into<Option<f64>>) -> Self {
        self.value = value.into();
        self
    }

    /// With the bound that the value is held against.
    #[must_use]
    pub fn with_bound(mut self, bound: impl Into<Option<f64>>) -> Self {
        self.bound = bound.into();
        self
    }

    /// With the worst offender.
    #[must_use]
    pub fn about(mut self, subject: Subject) -> Self {
        self.subject = subject;
        self
    }

    /// Judges a test's own measurement: it holds if `value` is at most `bound`.
    pub fn at_most(
        check: impl Into<String>,
        value: f64,
        bound: f64,
        unit: impl Into<String>,
    ) -> Self {
        let check = CheckName::new(check, unit);
        Self::bounded(check, value, bound, value <= bound, "at most")
    }

    /// Judges a test's own measurement: it holds if `value` is at least `bound`.
    pub fn at_least(
        check: impl Into<String>,
        value: f64,
        bound: f64,
        unit: impl Into<String>,
    ) -> Self {
        let check = CheckName::new(check, unit);
        Self::bounded(check, value, bound, value >= bound, "at least")
    }

    /// Judges a test's own observation: it holds if what was `seen` of `what` is what was `wanted`.
    pub fn equal(check: impl Into<String>, what: &str, seen: &str, wanted: &str) -> Self {
        let detail = format!("expected {what} `{wanted}`, got `{seen}`");
        Self::judged(CheckName::new(check, ""), seen == wanted, detail)
    }

    fn bounded(check: CheckName, value: f64, bound: f64, holds: bool, word: &str) -> Self {
        let space = if check.unit.is_empty() { "" } else { " " };
        let unit = &check.unit;
        let detail = format!("{value:.2}{space}{unit}, expected {word} {bound:.2}{space}{unit}");
        // Without a number on both sides there is nothing to compare.
        let result = match value.is_finite() && !bound.is_nan() {
            true => Self::judged(check, holds, detail),
            false => Self::inconclusive(check, detail),
        };
        result.with_value(value).with_bound(bound)
    }
}

/// A check that was not judged, and why: so that a green test says what it does not vouch for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotChecked {
    /// Name of the check.
    pub check: String,
    /// Why it was not judged, as a clause: `turned off by the test`, `one worker in the cgroup`.
    pub why: String,
}

/// What a test's body comes to: its checks, and the reports of its workers.
///
/// Build it with the scenario functions, or from [`AssertResult::default`] and [`AssertResult::push`];
/// join the results of several steps with [`AssertResult::merge`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AssertResult {
    /// Judged checks, in the order in which they were judged.
    pub checks: Vec<CheckResult>,
    /// Checks that were not judged.
    pub not_checked: Vec<NotChecked>,
    /// Reports of all workers, by cgroup.
    pub cgroups: Vec<CgroupReport>,
    /// Remarks for a reader; they decide nothing.
    pub notes: Vec<String>,
    /// The phases of the body, in order.
    #[serde(default)]
    pub phases: Vec<PhaseReport>,
    /// Set when the test decided not to run, with the reason.
    pub skipped: Option<String>,
    /// When the kernel printed stall reports, in microseconds of its own clock. Filled in only where `kernel_log`
    /// fails for nothing but these: the host weighs them with the CPU time that the vCPUs had.
    #[serde(default)]
    pub kernel_stalls_us: Vec<u64>,
}

impl AssertResult {
    /// A result that says the test did not run, and why.
    pub fn skip(reason: impl Into<String>) -> Self {
        Self {
            skipped: Some(reason.into()),
            ..Self::default()
        }
    }

    /// Adds one judged check.
    pub fn push(&mut self, check: CheckResult) {
        self.checks.push(check);
    }

    /// Records that `check` was not judged, and why.
    pub fn push_not_checked(&mut self, check: impl Into<String>, why: impl Into<String>) {
        self.not_checked.push(NotChecked {
            check: check.into(),
            why: why.into(),
        });
    }

    /// Takes over everything of `other`. A skip is kept only if neither side judged anything.
    pub fn merge(&mut self, other: Self) {
        self.checks.extend(other.checks);
        self.not_checked.extend(other.not_checked);
        self.cgroups.extend(other.cgroups);
        self.notes.extend(other.notes);
        self.phases.extend(other.phases);
        self.skipped = self.skipped.take().or(other.skipped);
        self.kernel_stalls_us.extend(other.kernel_stalls_us);
    }

    /// The most severe outcome of all checks. Without any judged check a test that did not skip has no
    /// evidence: [`Outcome::Inconclusive`], never a pass.
    pub fn outcome(&self) -> Outcome {
        match self.checks.iter().map(|check| check.outcome).max() {
            Some(outcome) => outcome,
            None if self.skipped.is_some() => Outcome::Skip,
            None => Outcome::Inconclusive,
        }
    }

    /// Number of checks that were judged: those that held and those that did not.
    pub fn judged(&self) -> usize {
        self.checks.len() - self.with_outcome(Outcome::Inconclusive).count()
    }

    /// Checks that came to `outcome`.
    pub fn with_outcome(&self, outcome: Outcome) -> impl Iterator<Item = &CheckResult> {
        self.checks
            .iter()
            .filter(move |check| check.outcome == outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_held_against_its_bound() {
        let outcome = |value, bound| CheckResult::at_most("x", value, bound, "ms").outcome;
        assert_eq!(outcome(1.0, 1.0), Outcome::Pass);
        assert_eq!(outcome(1.1, 1.0), Outcome::Fail);
        assert_eq!(
            CheckResult::at_least("x", 0.9, 1.0, "").outcome,
            Outcome::Fail
        );
        assert_eq!(
            CheckResult::at_least("x", 1.0, 1.0, "").outcome,
            Outcome::Pass
        );
    }

    #[test]
    fn what_is_no_number_is_inconclusive() {
        for (value, bound) in [(f64::NAN, 1.0), (f64::INFINITY, 1.0), (1.0, f64::NAN)] {
            assert_eq!(
                CheckResult::at_most("x", value, bound, "").outcome,
                Outcome::Inconclusive
            );
            assert_eq!(
                CheckResult::at_least("x", value, bound, "").outcome,
                Outcome::Inconclusive
            );
        }
    }

    #[test]
    fn what_is_seen_must_be_what_is_wanted() {
        assert_eq!(
            CheckResult::equal("x", "the text", "a", "a").outcome,
            Outcome::Pass
        );
        let other = CheckResult::equal("x", "the text", "a", "b");
        assert_eq!(other.outcome, Outcome::Fail);
        assert_eq!(other.detail, "expected the text `b`, got `a`");
    }

    #[test]
    fn no_check_is_no_pass() {
        assert_eq!(AssertResult::default().outcome(), Outcome::Inconclusive);
        assert_eq!(AssertResult::skip("no").outcome(), Outcome::Skip);
        let mut both = AssertResult::skip("no");
        both.push(CheckResult::at_most("x", 2.0, 1.0, ""));
        both.push(CheckResult::at_most("y", f64::NAN, 1.0, ""));
        assert_eq!(both.outcome(), Outcome::Fail);
    }
}
