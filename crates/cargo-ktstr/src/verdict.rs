//! What the command exits with after a run of tests.

use std::process::ExitStatus;

use ktstr_report::{ExitCode, RunSummary};

/// Exit codes of nextest (its crate `nextest-metadata`, `NextestExitCode`).
const NEXTEST_OK: i32 = 0;
const NEXTEST_NO_TESTS_RUN: i32 = 4;
const NEXTEST_TEST_RUN_FAILED: i32 = 100;

/// What a run came to, by nextest's word and by what the tests left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Exit code.
    pub(crate) code: u8,
    /// Said beneath the summary: where the two don't tell the same.
    pub(crate) remark: Option<String>,
}

/// Brings nextest's exit status and the results together. The results are more exact, but only nextest knows
/// of tests that left none.
pub(crate) fn verdict(nextest: ExitStatus, summary: &RunSummary) -> Verdict {
    let by_results = summary.exit_code();
    let verdict = |code: ExitCode, remark: Option<&str>| Verdict {
        code: code as u8,
        remark: remark.map(str::to_owned),
    };
    match (nextest.code(), by_results) {
        (Some(NEXTEST_OK), ExitCode::NoTests) => verdict(
            ExitCode::NoTests,
            Some(
                "the tests that ran left no result: none of them is a `#[ktstr_test]`, or none could write it",
            ),
        ),
        (Some(NEXTEST_OK), code) => verdict(code, None),
        (Some(NEXTEST_NO_TESTS_RUN), _) => verdict(ExitCode::NoTests, None),
        (Some(NEXTEST_TEST_RUN_FAILED), ExitCode::Ok | ExitCode::NoTests) => verdict(
            ExitCode::TestFailed,
            Some(
                "a test failed that left no result: it was interrupted, crashed, or is no `#[ktstr_test]`",
            ),
        ),
        (Some(NEXTEST_TEST_RUN_FAILED), code) => verdict(code, None),
        // Cargo or nextest failed, and has said why.
        (Some(code), _) => Verdict {
            code: u8::try_from(code).unwrap_or(ExitCode::HarnessFailed as u8),
            remark: None,
        },
        (None, _) => Verdict {
            code: ExitCode::HarnessFailed as u8,
            remark: Some(format!("nextest did not end by itself: {nextest}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::process::ExitStatusExt as _;

    use ktstr_report::{Outcome, TestSummary};
    use ktstr_topology::Topology;

    use super::*;

    fn nextest(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    fn run(outcomes: &[Outcome]) -> RunSummary {
        let test = |&outcome| TestSummary {
            test: "t".to_owned(),
            outcome,
            failure: None,
            topology: Topology::SINGLE,
            total_ms: 1,
            judged: 1,
            not_judged: 0,
            boot_retries: 0,
            attempts: 1,
            reason: None,
        };
        RunSummary {
            tests: outcomes.iter().map(test).collect(),
            unreadable: Vec::new(),
            checked_nowhere: BTreeMap::new(),
        }
    }

    #[test]
    fn the_results_decide_where_there_are_any() {
        let code = |status, outcomes: &[Outcome]| verdict(nextest(status), &run(outcomes)).code;
        assert_eq!(code(0, &[Outcome::Pass, Outcome::Skip]), 0);
        assert_eq!(code(100, &[Outcome::Pass, Outcome::Fail]), 1);
        assert_eq!(code(100, &[Outcome::Inconclusive]), 2);
        // A test that passed at its second try has failed once.
        assert_eq!(code(0, &[Outcome::Fail]), 1);
    }

    #[test]
    fn no_result_is_never_a_success() {
        let passed = verdict(nextest(0), &run(&[]));
        assert_eq!(passed.code, 4);
        assert!(passed.remark.is_some());
        assert_eq!(verdict(nextest(4), &run(&[])).code, 4);
        let failed = verdict(nextest(100), &run(&[Outcome::Pass]));
        assert_eq!(failed.code, 1);
        assert!(failed.remark.is_some());
    }

    #[test]
    fn other_failures_keep_the_code_of_nextest() {
        assert_eq!(verdict(nextest(101), &run(&[])).code, 101);
        assert_eq!(verdict(nextest(96), &run(&[])).code, 96);
        let killed = verdict(ExitStatus::from_raw(9), &run(&[Outcome::Pass]));
        assert_eq!(killed.code, 5);
        assert!(killed.remark.unwrap().contains("signal: 9"));
    }
}
