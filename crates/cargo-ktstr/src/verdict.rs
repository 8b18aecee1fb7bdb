//! What the command exits with after a run of tests.

use std::process::ExitStatus;

use ktstr_report::{ExitCode, RunSummary};
use nix::sys::signal::Signal;

/// Exit codes of nextest (its crate `nextest-metadata`, `NextestExitCode`).
const NEXTEST_OK: i32 = 0;
const NEXTEST_NO_TESTS_RUN: i32 = 4;
const NEXTEST_TEST_RUN_FAILED: i32 = 100;

/// The outcome of a run, by nextest's exit code and by the results that the tests left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Exit code.
    pub(crate) code: u8,
    /// Said beneath the summary: what the summary alone doesn't tell.
    pub(crate) remark: Option<String>,
}

impl Verdict {
    fn new(code: ExitCode, remark: Option<&str>) -> Self {
        Self {
            code: code as u8,
            remark: remark.map(str::to_owned),
        }
    }
}

/// How a run went beside its results.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// How nextest ended.
    pub(crate) nextest: ExitStatus,
    /// How many tests it ran by its own record, if it left one.
    pub(crate) recorded: Option<usize>,
    /// The signal that was sent to end this command during the run.
    pub(crate) signal: Option<Signal>,
    /// Whether tests were only to be built.
    pub(crate) is_build_only: bool,
    /// Whether a test that is skipped is a failure.
    pub(crate) no_skips: bool,
}

/// Brings nextest's exit status and the results together.
pub(crate) fn verdict(run: Run, summary: &RunSummary) -> Verdict {
    if let Some(signal) = run.signal {
        let remark = format!("interrupted by {signal}: what had not ended by then has no result");
        return Verdict {
            code: 128 + u8::try_from(signal as i32).unwrap_or(0),
            remark: Some(remark),
        };
    }
    let by_results = summary.exit_code();
    match (run.nextest.code(), by_results) {
        (Some(NEXTEST_OK), _) if run.is_build_only => Verdict::new(ExitCode::Ok, None),
        // Nextest takes a run without a test for a failure, unless it was told not to.
        (Some(NEXTEST_OK), ExitCode::NoTests) if run.recorded == Some(0) => {
            Verdict::new(ExitCode::Ok, None)
        }
        (Some(NEXTEST_OK), ExitCode::NoTests) => Verdict::new(
            ExitCode::NoTests,
            Some("the tests that ran left no result: none of them is a `#[ktstr_test]`"),
        ),
        (Some(NEXTEST_NO_TESTS_RUN), _) => Verdict::new(ExitCode::NoTests, None),
        (Some(NEXTEST_TEST_RUN_FAILED), code) if is_green(code) => Verdict::new(
            ExitCode::TestFailed,
            Some(
                "a test failed that left no result: it crashed, or is not a `#[ktstr_test]`; nextest's output says which",
            ),
        ),
        (Some(NEXTEST_OK | NEXTEST_TEST_RUN_FAILED), code) => by_skips(run, code, summary),
        // Cargo or nextest failed, and has said why.
        (Some(code), _) => Verdict {
            code: u8::try_from(code).unwrap_or(ExitCode::HarnessFailed as u8),
            remark: None,
        },
        (None, _) => Verdict {
            code: ExitCode::HarnessFailed as u8,
            remark: Some(format!("nextest did not end by itself: {}", run.nextest)),
        },
    }
}

fn by_skips(run: Run, code: ExitCode, summary: &RunSummary) -> Verdict {
    let skipped = summary.totals().skipped;
    if run.no_skips && skipped > 0 {
        let remark = format!("{skipped} skipped, and --no-skips lets none be");
        return Verdict::new(ExitCode::TestFailed, Some(&remark));
    }
    let remark =
        (code == ExitCode::AllSkipped).then_some("every test was skipped, so nothing was tested");
    Verdict::new(code, remark)
}

fn is_green(code: ExitCode) -> bool {
    matches!(
        code,
        ExitCode::Ok | ExitCode::NoTests | ExitCode::AllSkipped
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use ktstr_report::{Outcome, TestSummary};
    use ktstr_topology::Topology;

    use super::*;

    fn nextest(code: i32) -> Run {
        Run {
            nextest: ExitStatus::from_raw(code << 8),
            recorded: None,
            signal: None,
            is_build_only: false,
            no_skips: false,
        }
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
            boot_faults: Vec::new(),
            attempts: 1,
            reason: None,
        };
        RunSummary {
            tests: outcomes.iter().map(test).collect(),
            ..RunSummary::default()
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
    fn fault_a2_with_no_skips_a_skipped_test_fails_the_run() {
        let outcomes = [Outcome::Pass, Outcome::Skip, Outcome::Inconclusive];
        let strict = Run {
            no_skips: true,
            ..nextest(100)
        };
        assert_eq!(verdict(nextest(100), &run(&outcomes)).code, 2);
        let failed = verdict(strict, &run(&outcomes));
        assert_eq!(failed.code, 1);
        assert!(failed.remark.unwrap().starts_with("1 skipped"));
        assert_eq!(verdict(strict, &run(&outcomes[2..])).code, 2);
        let all = verdict(nextest(0), &run(&outcomes[1..2]));
        assert_eq!(all.code, 7);
        assert!(all.remark.unwrap().contains("nothing was tested"));
    }

    #[test]
    fn fault_f5_what_was_only_to_be_built_is_a_success_when_it_was() {
        let build = |code| Run {
            is_build_only: true,
            ..nextest(code)
        };
        let built = verdict(build(0), &run(&[]));
        assert_eq!((built.code, built.remark), (0, None));
        assert_eq!(verdict(build(101), &run(&[])).code, 101);
        let wanted_none = Run {
            recorded: Some(0),
            ..nextest(0)
        };
        assert_eq!(verdict(wanted_none, &run(&[])).code, 0, "--no-tests=pass");
    }

    #[test]
    fn fault_f11_an_interrupted_run_ends_with_the_signals_code() {
        let interrupted = Run {
            signal: Some(Signal::SIGINT),
            ..nextest(100)
        };
        let ended = verdict(interrupted, &run(&[Outcome::Pass]));
        assert_eq!(ended.code, 130);
        assert!(ended.remark.unwrap().starts_with("interrupted by SIGINT"));
    }

    #[test]
    fn other_failures_keep_the_code_of_nextest() {
        assert_eq!(verdict(nextest(101), &run(&[])).code, 101);
        assert_eq!(verdict(nextest(96), &run(&[])).code, 96);
        let killed = Run {
            nextest: ExitStatus::from_raw(9),
            ..nextest(0)
        };
        let killed = verdict(killed, &run(&[Outcome::Pass]));
        assert_eq!(killed.code, 5);
        assert!(killed.remark.unwrap().contains("signal: 9"));
    }
}
