//! What a run comes to.

use ktstr_report::{ExitCode, OtherTest, Outcome, Renderer, RunSummary, Sidecar, Totals};

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
        (skip, ExitCode::AllSkipped),
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
fn fault_a2_a_run_whose_tests_were_all_skipped_has_a_code_of_its_own() {
    let skipped = [samples::skipped("a"), samples::skipped("b")];
    assert_eq!(exit_code(&skipped), ExitCode::AllSkipped);
    let mut summary = RunSummary::of_sidecars(&skipped);
    summary.others.passed = 3;
    assert_eq!(summary.exit_code(), ExitCode::AllSkipped);
}

#[test]
fn fault_f12_a_failed_test_without_a_result_fails_the_run_and_is_counted() {
    let mut summary = RunSummary::of_sidecars(&[samples::inconclusive("a")]);
    summary.others.failed.push(OtherTest {
        test: "crate::unit sums".to_owned(),
        reason: "it panicked".to_owned(),
    });
    assert_eq!(summary.exit_code(), ExitCode::TestFailed);
    let text = Renderer::default().summary(&summary);
    assert!(
        text.contains("FAIL  crate::unit sums: it panicked\n"),
        "{text}"
    );
    assert!(
        text.contains("\n0 passed, 1 failed, 1 inconclusive"),
        "{text}"
    );
}

#[test]
fn fault_f6_a_result_that_was_not_stored_is_named_and_never_green() {
    let mut summary = RunSummary::of_sidecars(&[samples::pass("a")]);
    let reason = "1 result, in /runs/x: No space left on device (os error 28)";
    summary.unstored.push(reason.to_owned());
    assert_eq!(summary.exit_code(), ExitCode::HostUnfit);
    let text = Renderer::default().summary(&summary);
    assert!(text.contains(&format!("not stored  {reason}\n")), "{text}");
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
