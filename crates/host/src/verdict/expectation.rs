//! Holding what happened against what a test expects to go wrong. A pure function of the sidecar.
//!
//! An expectation excuses the checks that can't hold because of it, and no others: a stall leaves gaps, but no warning in
//! the kernel's log. What it excuses is in the report.

use ktstr_declaration::{Cause, Check};
use ktstr_report::{
    Expectation, Expected, Failure, FailureKind, KernelExit, Outcome, SchedulerEnd,
    SchedulerReport, Sidecar,
};

use crate::diagnosis;

/// Whether `check` can't be expected to hold, as `what` came.
fn excuses(what: &Expectation, check: &str) -> bool {
    let cause = match what {
        Expectation::Stall => Cause::Stall,
        Expectation::ScxError { .. } => Cause::Gone,
        Expectation::LoadFailure | Expectation::LoadFailureWith(_) => Cause::NotLoaded,
        // That the scheduler goes is expected, and so what follows from that.
        Expectation::Check(name) if name == SchedulerReport::ALIVE => Cause::Gone,
        Expectation::Check(name) => return name == check,
    };
    // What the kernel says about itself, what CPUs it has, where tasks may run, what limits hold whoever schedules, what was
    // asked of the kernel's watchdog, and what a body judges by itself follow from nothing: their rows are empty, or
    // there is none.
    Check::by_name(check).is_some_and(|check| check.spec().excused_by.contains(&cause))
}

/// Turns the outcome of a test that expects something to go wrong: a pass if just that happened, else a
/// failure that says what happened instead. A test that was not run stays a skip, and one of which nothing can be said
/// stays inconclusive.
pub(crate) fn apply(sidecar: &mut Sidecar, what: &Expectation) {
    if sidecar.outcome == Outcome::Skip {
        return;
    }
    let met = met(sidecar, what);
    let (Ok(more) | Err(more)) = &met;
    let mut seen = seen(sidecar);
    if !seen.contains(more.as_str()) {
        seen = format!("{seen}; {more}");
    }
    let mut expected = Expected {
        what: what.clone(),
        met: met.is_ok(),
        seen,
        excused: Vec::new(),
    };
    if expected.met {
        let (outcome, failure) = beside(sidecar, what, &mut expected.excused);
        (sidecar.outcome, sidecar.failure) = (outcome, failure);
    } else if sidecar.outcome != Outcome::Inconclusive || sidecar.failure.is_none() {
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
            summary: format!("expected {what}, but {}", expected.seen),
            detail,
        });
    }
    sidecar.expected = Some(expected);
}

/// What else did not hold, or had no data, once what was expected came. What follows from it is put into `excused`.
fn beside(
    sidecar: &Sidecar,
    what: &Expectation,
    excused: &mut Vec<String>,
) -> (Outcome, Option<Failure>) {
    let mut worst: Option<(Outcome, String)> = None;
    for outcome in [Outcome::Fail, Outcome::Inconclusive] {
        for check in sidecar.result.with_outcome(outcome) {
            let name = &check.check;
            if excuses(what, name) {
                if !excused.contains(name) {
                    excused.push(name.clone());
                }
                continue;
            }
            let verdict = match outcome {
                Outcome::Fail => "did not hold",
                _ => "had no data",
            };
            let summary = format!(
                "expected {what}, which came, but `{name}` {verdict}, which does not follow from it: {}",
                check.detail
            );
            worst.get_or_insert((outcome, summary));
        }
    }
    match worst {
        None => (Outcome::Pass, None),
        Some((outcome, summary)) => {
            let failure = Failure {
                kind: FailureKind::Test,
                summary,
                detail: String::new(),
            };
            (outcome, Some(failure))
        }
    }
}

/// Whether it came: with what shows it, or what is missing, as far as the scheduler's own end doesn't say it.
fn met(sidecar: &Sidecar, what: &Expectation) -> Result<String, String> {
    let scheduler = sidecar.scheduler.as_ref();
    let end = scheduler.map(|scheduler| scheduler.end);
    let was_attached = scheduler.is_some_and(SchedulerReport::was_attached);
    let holds = match what {
        // The scheduler's own fault is one thing; a body that fails, or a guest that dies, is another.
        _ if sidecar.failure.is_some() => false,
        Expectation::Stall => was_attached && end == Some(SchedulerEnd::Stalled),
        Expectation::ScxError { contains } => {
            let exit = scheduler.and_then(|scheduler| scheduler.exit.as_ref());
            let text = contains.as_deref().unwrap_or_default();
            was_attached
                && end == Some(SchedulerEnd::Error)
                && exit.is_some_and(|exit| exit.to_string().contains(text))
        }
        Expectation::Check(name) => {
            let failed = sidecar
                .result
                .with_outcome(Outcome::Fail)
                .any(|check| check.check == *name);
            // A scheduler that was disabled fails many checks; that is not what was expected. Unless it is.
            let stayed = matches!(end, None | Some(SchedulerEnd::Attached));
            failed && (stayed || (was_attached && name == SchedulerReport::ALIVE))
        }
        Expectation::LoadFailure => return refused(scheduler, ""),
        Expectation::LoadFailureWith(text) => return refused(scheduler, text),
    };
    holds.then(String::new).ok_or_else(String::new)
}

/// What shows that the kernel refused to load the scheduler, with `text` in its reason or in what the program printed.
/// A program that could not be run, that ended before it loaded anything, as for a wrong argument, or that is still at
/// it when its time is over, was not refused.
fn refused(scheduler: Option<&SchedulerReport>, text: &str) -> Result<String, String> {
    let not_loaded = |scheduler: &&SchedulerReport| scheduler.end == SchedulerEnd::NeverLoaded;
    let scheduler = scheduler.filter(not_loaded).ok_or_else(String::new)?;
    // What was not run, or did not end, is said by the report.
    let load = scheduler.failed_load.as_ref().ok_or_else(String::new)?;
    if scheduler.enables.is_some_and(|enables| enables > 0) {
        return Err(String::new());
    }
    let by_kernel = |exit: &&KernelExit| !exit.is_from_user_space();
    let evidence = if let Some(exit) = scheduler.exits.iter().find(by_kernel) {
        exit.to_string()
    } else if let Some(refused) = &load.refused {
        refused.to_string()
    } else {
        match load.bpf_calls {
            None => return Err("its calls of bpf(2) could not be traced".to_owned()),
            Some(0) => return Err("it ended before it had the kernel load anything".to_owned()),
            // libbpf finds in the kernel's types that it lacks what the program needs.
            Some(calls) => diagnosis::refusal_in_log(&scheduler.log).ok_or_else(|| {
                format!("the kernel refused nothing in the end, by {calls} calls of bpf(2)")
            })?,
        }
    };
    if evidence.contains(text) || scheduler.log.contains(text) {
        Ok(evidence)
    } else {
        Err(format!("{evidence}; that is not in it"))
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
    use ktstr_report::{AssertResult, CheckResult, FailedLoad, RefusedCall};

    use super::*;
    use crate::plan::TestPlan;
    use crate::verdict::blank_sidecar;

    fn sidecar(end: SchedulerEnd, reason: &str, message: &str, failing: &[&str]) -> Sidecar {
        let plan = TestPlan::new("t".to_owned(), String::new());
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

    /// One whose program ended by itself after these calls of bpf(2).
    fn never_loaded(bpf_calls: Option<u64>, refused: Option<(&str, &str)>) -> Sidecar {
        let mut sidecar = sidecar(SchedulerEnd::NeverLoaded, "", "", &["scheduler_attached"]);
        let scheduler = sidecar.scheduler.as_mut().expect("one");
        scheduler.exit = None;
        scheduler.detail = "its process ended with exit status 1".to_owned();
        scheduler.failed_load = Some(FailedLoad {
            bpf_calls,
            refused: refused.map(|(command, errno)| RefusedCall {
                command: command.to_owned(),
                errno: errno.to_owned(),
            }),
        });
        sidecar
    }

    fn refused_by_the_verifier() -> Sidecar {
        never_loaded(Some(9), Some(("BPF_PROG_LOAD", "EACCES")))
    }

    fn with_log(mut sidecar: Sidecar, log: &str) -> Sidecar {
        sidecar.scheduler.as_mut().expect("one").log = log.to_owned();
        sidecar
    }

    /// The outcome of a test that expects `what`, the checks that it excuses, and the failure.
    fn excused(mut sidecar: Sidecar, what: &Expectation) -> (Outcome, String, String) {
        apply(&mut sidecar, what);
        let summary = sidecar.failure.map(|failure| failure.summary);
        let excused = sidecar.expected.expect("one").excused;
        (
            sidecar.outcome,
            excused.join(", "),
            summary.unwrap_or_default(),
        )
    }

    fn with_failed(mut sidecar: Sidecar, check: &str) -> Sidecar {
        let failed = CheckResult::at_most(check, 2.0, 1.0, "");
        sidecar.result.push(failed);
        sidecar
    }

    #[test]
    fn fault_a1_an_expectation_excuses_only_the_checks_that_follow_from_it() {
        let (outcome, names, _) = excused(stalled(), &Expectation::Stall);
        assert_eq!(
            (outcome, names.as_str()),
            (Outcome::Pass, "scheduler_alive, max_gap_ms")
        );
        // The faults that were green.
        let spread = Expectation::Check("max_spread_pct".into());
        let failing = ["max_spread_pct", "kernel_log"];
        let unfair = sidecar(SchedulerEnd::Attached, "", "", &failing);
        let (outcome, names, words) = excused(unfair, &spread);
        assert_eq!((outcome, names.as_str()), (Outcome::Fail, "max_spread_pct"));
        assert_eq!(
            words,
            "expected a failure of the check `max_spread_pct`, which came, but `kernel_log` did not hold, which does \
             not follow from it: 2.00, expected at most 1.00"
        );
        // Of two checks that fail one was expected.
        let failing = ["max_gap_ms", "max_spread_pct"];
        let both = sidecar(SchedulerEnd::Attached, "", "", &failing);
        assert_eq!(excused(both, &spread).0, Outcome::Fail);
    }

    #[test]
    fn fault_a1_no_expectation_excuses_a_check_that_has_nothing_to_do_with_it() {
        let error = |failing: &[&str]| sidecar(SchedulerEnd::Error, "scx_bpf_error", "x", failing);
        let any_error = Expectation::ScxError { contains: None };
        for check in [
            "kernel_log",
            "cpus_online",
            "isolation",
            "watchdog_timeout",
            "a check of the body's own",
        ] {
            let failing = [SchedulerReport::ALIVE, check];
            let alive = Expectation::Check("scheduler_alive".into());
            for (sidecar, what) in [
                (with_failed(stalled(), check), Expectation::Stall),
                (error(&failing), any_error.clone()),
                (error(&failing), alive),
                (
                    with_failed(refused_by_the_verifier(), check),
                    Expectation::LoadFailure,
                ),
            ] {
                let (outcome, _, words) = excused(sidecar, &what);
                assert_eq!(outcome, Outcome::Fail, "{what}: {check}");
                assert!(
                    words.contains(&format!("`{check}` did not hold")),
                    "{words}"
                );
            }
        }
        // The clock of a CPU stands still in a stall, and by no error.
        let clock = [SchedulerReport::ALIVE, "fail_on_rq_clock_stuck"];
        assert_eq!(excused(error(&clock), &any_error).0, Outcome::Fail);
    }

    #[test]
    fn fault_a1_what_had_no_data_beside_an_expectation_leaves_it_open() {
        let mut unread = stalled();
        unread
            .result
            .push(CheckResult::at_most("kernel_log", f64::NAN, 0.0, ""));
        let (outcome, words) = judged(unread, &Expectation::Stall);
        assert_eq!(outcome, Outcome::Inconclusive);
        assert!(words.contains("`kernel_log` had no data"), "{words}");
        let mut unread = stalled();
        unread.result.push(CheckResult::at_most(
            "max_imbalance_ratio",
            f64::NAN,
            0.0,
            "",
        ));
        assert_eq!(judged(unread, &Expectation::Stall).0, Outcome::Pass);
    }

    #[test]
    fn fault_a1_a_load_failure_is_the_kernels_refusal() {
        let extern_missing =
            "libbpf: extern (func ksym) 'scx_bpf_cpu_rq': not found in kernel or module BTFs\n";
        let mut at_attach = never_loaded(Some(9), None);
        at_attach.scheduler.as_mut().expect("one").exits = vec![KernelExit {
            kind: Some(1024),
            reason: "runtime error".to_owned(),
            message: "ops.init() failed (-12)".to_owned(),
            uptime_ms: None,
        }];
        for met in [
            refused_by_the_verifier(),
            with_log(never_loaded(Some(9), None), extern_missing),
            at_attach,
        ] {
            let (outcome, words) = judged(met, &Expectation::LoadFailure);
            assert_eq!(outcome, Outcome::Pass, "{words}");
        }
        let mut not_run = never_loaded(None, None);
        not_run.scheduler.as_mut().expect("one").failed_load = None;
        let mut came_and_went = refused_by_the_verifier();
        came_and_went.scheduler.as_mut().expect("one").enables = Some(1);
        for (sidecar, why) in [
            // It could not be run, or its time was over.
            (not_run, "its process ended with exit status 1"),
            (came_and_went, "its process ended with exit status 1"),
            // A wrong argument.
            (
                never_loaded(Some(0), None),
                "it ended before it had the kernel load anything",
            ),
            (
                with_log(never_loaded(Some(0), None), extern_missing),
                "it ended before it had the kernel load anything",
            ),
            (
                never_loaded(Some(9), None),
                "the kernel refused nothing in the end, by 9 calls of bpf(2)",
            ),
            (
                never_loaded(None, None),
                "its calls of bpf(2) could not be traced",
            ),
        ] {
            let (outcome, words) = judged(sidecar, &Expectation::LoadFailure);
            assert_eq!(outcome, Outcome::Fail);
            let expected = "expected a scheduler that the kernel refuses to load, but scheduler `x` was never attached; ";
            assert!(
                words.starts_with(expected) && words.ends_with(why),
                "{words}"
            );
        }
    }

    #[test]
    fn fault_a1_the_reason_of_a_load_failure_can_be_asked_for() {
        let contains = |text: &'static str| Expectation::LoadFailureWith(text.into());
        let refused = || with_log(refused_by_the_verifier(), "R2 unbounded memory access\n");
        for text in ["EACCES", "BPF_PROG_LOAD", "unbounded memory access"] {
            assert_eq!(judged(refused(), &contains(text)).0, Outcome::Pass);
        }
        let (outcome, words) = judged(refused(), &contains("ENOMEM"));
        assert_eq!(outcome, Outcome::Fail);
        assert!(
            words.ends_with("the kernel refused BPF_PROG_LOAD: EACCES; that is not in it"),
            "{words}"
        );
    }

    #[test]
    fn what_says_nothing_of_the_test_stays_inconclusive() {
        let mut sidecar = stalled();
        sidecar.outcome = Outcome::Inconclusive;
        sidecar.failure = Some(Failure {
            kind: FailureKind::Harness,
            summary: "frames on the link were corrupted".to_owned(),
            detail: String::new(),
        });
        let (outcome, words) = judged(sidecar, &Expectation::Stall);
        assert_eq!(
            (outcome, words.as_str()),
            (Outcome::Inconclusive, "frames on the link were corrupted")
        );
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
            (refused_by_the_verifier(), Expectation::LoadFailure),
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
