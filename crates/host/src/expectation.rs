//! Holding what happened against what a test expects to go wrong. A pure function of the sidecar.

use ktstr_report::{
    Expectation, Expected, Failure, FailureKind, Outcome, SchedulerEnd, SchedulerReport, Sidecar,
};

/// Turns the outcome of a test that expects something to go wrong: a pass if just that happened, else a
/// failure that says what happened instead. A test that was not run stays a skip.
pub(crate) fn apply(sidecar: &mut Sidecar, what: &Expectation) {
    if sidecar.outcome == Outcome::Skip {
        return;
    }
    let seen = seen(sidecar);
    let met = is_met(sidecar, what);
    sidecar.expected = Some(Expected {
        what: what.clone(),
        met,
        seen: seen.clone(),
    });
    if met {
        sidecar.outcome = Outcome::Pass;
        sidecar.failure = None;
        return;
    }
    sidecar.outcome = Outcome::Fail;
    // Whoever is to blame for a dead guest or a failed harness stays to blame.
    let (kind, detail) = sidecar
        .failure
        .take()
        .map_or((FailureKind::Test, String::new()), |failure| {
            (failure.kind, failure.detail)
        });
    sidecar.failure = Some(Failure {
        kind,
        summary: format!("expected {what}, but {seen}"),
        detail,
    });
}

fn is_met(sidecar: &Sidecar, what: &Expectation) -> bool {
    let end = sidecar.scheduler.as_ref().map(|scheduler| scheduler.end);
    let was_attached = sidecar
        .scheduler
        .as_ref()
        .is_some_and(SchedulerReport::was_attached);
    match what {
        // The scheduler's own fault is one thing; a body that fails, or a guest that dies, is another.
        _ if sidecar.failure.is_some() => false,
        Expectation::Stall => was_attached && end == Some(SchedulerEnd::Stalled),
        Expectation::ScxError { contains } => {
            let exit = sidecar
                .scheduler
                .as_ref()
                .and_then(|scheduler| scheduler.exit.as_ref());
            was_attached
                && end == Some(SchedulerEnd::Error)
                && exit.is_some_and(|exit| {
                    contains
                        .as_ref()
                        .is_none_or(|text| exit.to_string().contains(text.as_ref()))
                })
        }
        Expectation::Check(name) => {
            let failed = sidecar
                .result
                .with_outcome(Outcome::Fail)
                .any(|check| check.check == *name);
            // A scheduler that was disabled fails many checks; that is not what was expected. Unless it is.
            let stayed = matches!(end, None | Some(SchedulerEnd::Attached));
            failed && (stayed || (was_attached && name == "scheduler_alive"))
        }
        Expectation::LoadFailure => end == Some(SchedulerEnd::NeverLoaded),
    }
}

/// What happened, in one sentence without a capital.
fn seen(sidecar: &Sidecar) -> String {
    if let Some(failure) = &sidecar.failure {
        return failure.summary.clone();
    }
    let failed: Vec<&str> = sidecar
        .result
        .with_outcome(Outcome::Fail)
        .map(|check| check.check.as_str())
        .collect();
    let checks = match failed.as_slice() {
        [] if sidecar.result.judged() == 0 => "no check was judged".to_owned(),
        [] => "every judged check held".to_owned(),
        [one] => format!("the check `{one}` did not hold"),
        many => format!("the checks `{}` did not hold", many.join("`, `")),
    };
    match &sidecar.scheduler {
        Some(scheduler) if scheduler.end == SchedulerEnd::Attached => {
            format!("{}, and {checks}", scheduler.sentence())
        }
        Some(scheduler) => scheduler.sentence(),
        None => checks,
    }
}

#[cfg(test)]
mod tests {
    use ktstr_report::{AssertResult, CheckResult, KernelExit};

    use super::*;
    use crate::plan::TestPlan;
    use crate::sidecar::blank_sidecar;

    fn sidecar(end: SchedulerEnd, reason: &str, message: &str, failing: &[&str]) -> Sidecar {
        let plan = TestPlan {
            name: "t".to_owned(),
            run_id: String::new(),
            topology: ktstr_topology::Topology::SINGLE,
            memory_mib: None,
            numa: ktstr_topology::NumaSpec::default(),
            performance_mode: false,
            duration: std::time::Duration::from_secs(1),
            thresholds: ktstr_report::Thresholds::default(),
            num_snapshots: 0,
            timeout: None,
            modules: Vec::new(),
            kaslr: false,
            includes: Vec::new(),
            scheduler: None,
            expect: None,
        };
        let mut result = AssertResult::default();
        result.push(CheckResult::at_most("progress", 0.0, 1.0, ""));
        for name in failing {
            result.push(CheckResult::at_most(*name, 2.0, 1.0, ""));
        }
        Sidecar {
            outcome: result.outcome(),
            result,
            scheduler: Some(SchedulerReport {
                name: "x".to_owned(),
                attach_ms: (end != SchedulerEnd::NeverLoaded).then_some(7),
                end,
                exit: Some(KernelExit {
                    reason: reason.to_owned(),
                    message: message.to_owned(),
                    ..KernelExit::default()
                }),
                ..SchedulerReport::default()
            }),
            ..blank_sidecar(&plan)
        }
    }

    fn judged(mut sidecar: Sidecar, what: &Expectation) -> (Outcome, String) {
        apply(&mut sidecar, what);
        let words = sidecar.failure.map(|failure| failure.summary);
        (sidecar.outcome, words.unwrap_or_default())
    }

    fn stalled() -> Sidecar {
        sidecar(
            SchedulerEnd::Stalled,
            "runnable task stall",
            "w[9] failed to run for 2.7s",
            &["scheduler_alive", "max_gap_ms"],
        )
    }

    #[test]
    fn what_is_expected_and_comes_is_a_pass() {
        let error = || {
            sidecar(
                SchedulerEnd::Error,
                "scx_bpf_error",
                "dispatch gives up",
                &["scheduler_alive"],
            )
        };
        let contains = |text: &'static str| Expectation::ScxError {
            contains: Some(text.into()),
        };
        let unfair = sidecar(SchedulerEnd::Attached, "", "", &["max_spread_pct"]);
        for (sidecar, what) in [
            (stalled(), Expectation::Stall),
            (error(), Expectation::ScxError { contains: None }),
            (error(), contains("gives up")),
            (unfair, Expectation::Check("max_spread_pct".into())),
            (stalled(), Expectation::Check("scheduler_alive".into())),
            (
                sidecar(SchedulerEnd::NeverLoaded, "", "", &["scheduler_attached"]),
                Expectation::LoadFailure,
            ),
        ] {
            let (outcome, words) = judged(sidecar, &what);
            assert_eq!(outcome, Outcome::Pass, "{what}: {words}");
        }
    }

    #[test]
    fn a_scheduler_that_was_never_attached_meets_nothing_but_a_load_failure() {
        for what in [
            Expectation::Stall,
            Expectation::ScxError { contains: None },
            Expectation::Check("scheduler_attached".into()),
            Expectation::Check("scheduler_alive".into()),
        ] {
            let never = sidecar(SchedulerEnd::NeverLoaded, "", "", &["scheduler_attached"]);
            let (outcome, words) = judged(never, &what);
            assert_eq!(outcome, Outcome::Fail, "{what}");
            let seen = format!("expected {what}, but scheduler `x` was never attached");
            assert!(words.starts_with(&seen), "{words}");
        }
    }

    #[test]
    fn what_happened_instead_is_said() {
        let healthy = sidecar(SchedulerEnd::Attached, "", "", &[]);
        assert_eq!(
            judged(healthy, &Expectation::Stall),
            (
                Outcome::Fail,
                "expected a stall, but scheduler `x` was attached to the end of the test, and every judged \
                 check held"
                    .to_owned()
            )
        );
        let what = Expectation::Check("max_gap_ms".into());
        let (outcome, words) = judged(stalled(), &what);
        assert_eq!(outcome, Outcome::Fail);
        assert_eq!(
            words,
            "expected a failure of the check `max_gap_ms`, but scheduler `x` was disabled by the kernel's \
             watchdog; runnable task stall: w[9] failed to run for 2.7s"
        );
    }

    #[test]
    fn a_dead_guest_is_no_stall_and_its_own_kind_of_failure() {
        let mut sidecar = stalled();
        sidecar.failure = Some(Failure {
            kind: FailureKind::Guest,
            summary: "the guest kernel panicked: x".to_owned(),
            detail: "d".to_owned(),
        });
        apply(&mut sidecar, &Expectation::Stall);
        assert_eq!(sidecar.outcome, Outcome::Fail);
        let failure = sidecar.failure.expect("failed");
        assert_eq!(failure.kind, FailureKind::Guest);
        assert_eq!(
            failure.summary,
            "expected a stall, but the guest kernel panicked: x"
        );
    }

    #[test]
    fn a_skip_stays_one() {
        let mut skipped = sidecar(SchedulerEnd::Attached, "", "", &[]);
        skipped.outcome = Outcome::Skip;
        apply(&mut skipped, &Expectation::Stall);
        assert_eq!(skipped.outcome, Outcome::Skip);
    }
}
