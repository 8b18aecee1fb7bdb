//! What a run comes to.

use ktstr_report::{ExitCode, Outcome, RunSummary, Sidecar, Totals};

use crate::samples;

fn exit_code(sidecars: &[Sidecar]) -> ExitCode {
    RunSummary::of_sidecars(sidecars).exit_code()
}

#[test]
fn the_exit_code_names_the_cause_nearest_to_the_thing_under_test() {
    let pass = samples::pass("pass");
    let skip = samples::skipped("skip");
    let inconclusive = samples::inconclusive("inconclusive");
    let host = samples::host_unfit("host");
    let harness = samples::harness_failed("harness");
    let guest = samples::guest_died("guest");
    let fail = samples::check_failed("fail");

    assert_eq!(exit_code(&[]), ExitCode::NoTests);
    let mut sidecars = vec![];
    for (sidecar, expected) in [
        (skip, ExitCode::Ok),
        (pass, ExitCode::Ok),
        (inconclusive, ExitCode::Inconclusive),
        (host, ExitCode::HostUnfit),
        (harness, ExitCode::HarnessFailed),
        (guest, ExitCode::GuestDied),
        (fail, ExitCode::TestFailed),
    ] {
        sidecars.insert(0, sidecar);
        assert_eq!(exit_code(&sidecars), expected);
    }
}

#[test]
fn what_can_not_be_read_is_never_green() {
    let mut summary = RunSummary::of_sidecars(&[samples::pass("pass")]);
    summary.unreadable.push("x.json is damaged".to_owned());
    assert_eq!(summary.exit_code(), ExitCode::HarnessFailed);
}

#[test]
fn a_pass_at_the_second_try_does_not_undo_the_first() {
    let sidecars = [samples::guest_died("crash"), samples::retried("crash")];
    let summary = RunSummary::of_sidecars(&sidecars);
    assert_eq!(summary.exit_code(), ExitCode::GuestDied);
    let [test] = &summary.tests[..] else {
        panic!("one test, not {:?}", summary.tests);
    };
    assert_eq!(
        (test.outcome, test.attempts, test.boot_retries),
        (Outcome::Fail, 2, 1)
    );
}

#[test]
fn totals_count_tests_by_outcome() {
    let sidecars = [
        samples::pass("a"),
        samples::pass("b"),
        samples::skipped("c"),
        samples::inconclusive("d"),
        samples::check_failed("e"),
        samples::host_unfit("f"),
    ];
    let expected = Totals {
        passed: 2,
        failed: 2,
        inconclusive: 1,
        skipped: 1,
    };
    assert_eq!(RunSummary::of_sidecars(&sidecars).totals(), expected);
}

#[test]
fn a_check_that_one_test_judged_was_checked_somewhere() {
    let mut other = samples::pass("b");
    let unjudged = |sidecars: &[Sidecar]| {
        let summary = RunSummary::of_sidecars(sidecars);
        summary.checked_nowhere.into_keys().collect::<Vec<_>>()
    };
    let sidecars = [samples::pass("a"), other.clone()];
    assert_eq!(unjudged(&sidecars), ["max_spread_pct"]);

    other.result.checks[0].check = "max_spread_pct".to_owned();
    assert_eq!(unjudged(&[samples::pass("a"), other]), [""; 0]);
}
