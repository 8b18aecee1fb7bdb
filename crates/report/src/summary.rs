//! What a run came to: one row a test, totals, the exit code.

use std::collections::{BTreeMap, BTreeSet};

use ktstr_topology::Topology;

use crate::{AssertResult, ExitCode, FailureKind, Outcome, Run, Sidecar};

/// A run in short.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunSummary {
    /// One entry a test, in the order in which the tests first started.
    pub tests: Vec<TestSummary>,
    /// What could not be read, one line each. Such a run is never green: nobody knows what is missing.
    pub unreadable: Vec<String>,
    /// Checks that no test of the run judged though some could have, each with the reasons given.
    pub checked_nowhere: BTreeMap<String, Vec<String>>,
    /// Tests that the runner ran and that left no result.
    pub others: Others,
    /// Results that could not be stored where they belong, one line a reason. Such a run is never green: who
    /// looks for them finds less than was run.
    pub unstored: Vec<String>,
}

/// Tests without a result, by the word of the test runner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// How many passed: none of them is a `#[ktstr_test]`, which fails if it can't leave its result anywhere.
    pub passed: usize,
    /// Those that failed: of any kind, crashed before they could leave a result, or not what their result says.
    pub failed: Vec<OtherTest>,
}

/// A failed test, by the word of the test runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherTest {
    /// Its binary and name, as the runner prints them.
    pub test: String,
    /// What the runner says of it.
    pub reason: String,
}

/// A test in short. When it ran several times in the run, this is its worst attempt: passing at the
/// second try does not undo the first.
#[derive(Clone, Debug, PartialEq)]
pub struct TestSummary {
    /// Full name.
    pub test: String,
    /// What it came to.
    pub outcome: Outcome,
    /// Whose fault it is, when it was not a check that decided.
    pub failure: Option<FailureKind>,
    /// Declared shape of its machine.
    pub topology: Topology,
    /// Wall time of the whole test.
    pub total_ms: u64,
    /// Checks that were judged.
    pub judged: usize,
    /// Checks that were not, or had no signal to be judged by.
    pub not_judged: usize,
    /// Boots that failed before the guest spoke, over all attempts.
    pub boot_retries: usize,
    /// The emulator's faults by which they failed.
    pub boot_faults: Vec<String>,
    /// How many times it ran in this run.
    pub attempts: usize,
    /// Why it is not a pass.
    pub reason: Option<String>,
}

/// How many tests came to which outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Tests without data to judge by.
    pub inconclusive: usize,
    /// Tests that did not run.
    pub skipped: usize,
}

impl RunSummary {
    /// Sums up a run.
    pub fn of_run(run: &Run) -> Self {
        Self::of_runs([run])
    }

    /// Sums up the parts of one run that are in several stores.
    pub fn of_runs<'a>(runs: impl IntoIterator<Item = &'a Run>) -> Self {
        let runs: Vec<&Run> = runs.into_iter().collect();
        let mut sidecars: Vec<&Sidecar> = runs
            .iter()
            .flat_map(|run| &run.sidecars)
            .map(|stored| &stored.sidecar)
            .collect();
        sidecars.sort_by_key(|sidecar| sidecar.started_unix_ms);
        let mut summary = Self::of_sidecars(sidecars);
        let unreadable = runs.iter().flat_map(|run| &run.unreadable);
        summary.unreadable = unreadable.map(error_chain).collect();
        summary
    }

    /// Sums up sidecars, given in the order in which their tests started.
    pub fn of_sidecars<'a>(sidecars: impl IntoIterator<Item = &'a Sidecar>) -> Self {
        let mut summary = Self::default();
        let mut judged = BTreeSet::new();
        let mut not_judged: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for sidecar in sidecars {
            summary.add(TestSummary::of(sidecar));
            let AssertResult {
                checks,
                not_checked,
                ..
            } = &sidecar.result;
            let (no_signal, decided): (Vec<_>, Vec<_>) = checks
                .iter()
                .partition(|check| check.outcome == Outcome::Inconclusive);
            judged.extend(decided.into_iter().map(|check| check.check.as_str()));
            let no_signal = no_signal.iter().map(|check| (&check.check, &check.detail));
            let skipped = not_checked.iter().map(|check| (&check.check, &check.why));
            for (check, why) in skipped.chain(no_signal) {
                let reasons = not_judged.entry(check.clone()).or_default();
                if !reasons.contains(why) {
                    reasons.push(why.clone());
                }
            }
        }
        not_judged.retain(|check, _| !judged.contains(check.as_str()));
        summary.checked_nowhere = not_judged;
        summary
    }

    fn add(&mut self, attempt: TestSummary) {
        let Some(known) = self
            .tests
            .iter_mut()
            .find(|known| known.test == attempt.test)
        else {
            self.tests.push(attempt);
            return;
        };
        let attempts = known.attempts + 1;
        let boot_retries = known.boot_retries + attempt.boot_retries;
        let boot_faults = [known.boot_faults.as_slice(), &attempt.boot_faults].concat();
        if attempt.outcome > known.outcome {
            *known = attempt;
        }
        known.attempts = attempts;
        known.boot_retries = boot_retries;
        known.boot_faults = boot_faults;
    }

    /// How many tests came to which outcome.
    pub fn totals(&self) -> Totals {
        let count = |outcome| {
            self.tests
                .iter()
                .filter(|test| test.outcome == outcome)
                .count()
        };
        Totals {
            passed: count(Outcome::Pass),
            failed: count(Outcome::Fail) + self.others.failed.len(),
            inconclusive: count(Outcome::Inconclusive),
            skipped: count(Outcome::Skip),
        }
    }

    /// The exit code of the run. Of several causes the one closest to the thing under test decides: a
    /// failed test before a dead guest, before a failure of the harness or the host, before a lack of data.
    pub fn exit_code(&self) -> ExitCode {
        const BY_PRECEDENCE: [ExitCode; 5] = [
            ExitCode::TestFailed,
            ExitCode::GuestDied,
            ExitCode::HarnessFailed,
            ExitCode::HostUnfit,
            ExitCode::Inconclusive,
        ];
        let mut causes: Vec<ExitCode> = self.tests.iter().map(TestSummary::exit_code).collect();
        if !self.others.failed.is_empty() {
            causes.push(ExitCode::TestFailed);
        }
        if !self.unreadable.is_empty() {
            causes.push(ExitCode::HarnessFailed);
        }
        if !self.unstored.is_empty() {
            causes.push(ExitCode::HostUnfit);
        }
        let all_skipped = || self.tests.iter().all(|test| test.outcome == Outcome::Skip);
        let worst = BY_PRECEDENCE.into_iter().find(|code| causes.contains(code));
        match worst {
            Some(code) => code,
            None if causes.is_empty() => ExitCode::NoTests,
            None if all_skipped() => ExitCode::AllSkipped,
            None => ExitCode::Ok,
        }
    }
}

impl TestSummary {
    fn of(sidecar: &Sidecar) -> Self {
        Self {
            test: sidecar.test.clone(),
            outcome: sidecar.outcome,
            failure: sidecar.failure.as_ref().map(|failure| failure.kind),
            topology: sidecar.topology,
            total_ms: sidecar.timings.total_ms,
            judged: sidecar.result.judged(),
            not_judged: not_judged(&sidecar.result),
            boot_retries: sidecar.boot_retries.len(),
            boot_faults: sidecar
                .boot_retries
                .iter()
                .map(|boot| boot.fault.clone())
                .filter(|fault| !fault.is_empty())
                .collect(),
            attempts: 1,
            reason: sidecar.reason(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match (self.outcome, self.failure) {
            (Outcome::Pass | Outcome::Skip, _) => ExitCode::Ok,
            (Outcome::Inconclusive, _) => ExitCode::Inconclusive,
            (Outcome::Fail, None | Some(FailureKind::Test)) => ExitCode::TestFailed,
            (Outcome::Fail, Some(FailureKind::Guest)) => ExitCode::GuestDied,
            (Outcome::Fail, Some(FailureKind::Harness)) => ExitCode::HarnessFailed,
            (Outcome::Fail, Some(FailureKind::Host)) => ExitCode::HostUnfit,
        }
    }
}

impl Sidecar {
    /// Why the test is not a pass, in one line; `None` for a pass.
    pub fn reason(&self) -> Option<String> {
        if self.outcome == Outcome::Pass {
            return None;
        }
        if let Some(failure) = &self.failure {
            return Some(failure.summary.clone());
        }
        if let Some(decisive) = self.result.with_outcome(self.outcome).next() {
            return Some(format!("{}: {}", decisive.check, decisive.detail));
        }
        let AssertResult {
            checks, skipped, ..
        } = &self.result;
        match (self.outcome, skipped) {
            (Outcome::Skip, Some(reason)) => Some(reason.clone()),
            (Outcome::Inconclusive, _) if checks.is_empty() => {
                Some("no check was judged, so there is nothing to vouch for".to_owned())
            }
            _ => Some("no reason was recorded".to_owned()),
        }
    }
}

fn not_judged(result: &AssertResult) -> usize {
    result.not_checked.len() + result.with_outcome(Outcome::Inconclusive).count()
}

fn error_chain(error: &impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
