//! What the checks make of recordings.

use ktstr_monitor::{
    Missing, PhaseSpan, Recording, Sample, SchedExtState, Span, VcpuTime, judge, judge_phases,
    without_samples,
};
use ktstr_report::{Assert, AssertResult, CheckResult, Outcome, Phase};

use crate::guest::{FALLBACK, INTERVAL_NS, changed, cpu, healthy, recording, rq, scheduler, scx};

/// All checks of the monitor, at their customary bounds.
const ALL: Assert = Assert::DEFAULT.with_monitor_defaults();

fn all(recording: &Recording) -> AssertResult {
    judge(recording, Span::ALL, &ALL)
}

fn check(result: &AssertResult, name: &str) -> CheckResult {
    let found = result.checks.iter().find(|check| check.check == name);
    found
        .unwrap_or_else(|| panic!("{name} was not judged: {result:?}"))
        .clone()
}

fn why_not(result: &AssertResult, name: &str) -> String {
    let found = result.not_checked.iter().find(|left| left.check == name);
    found
        .unwrap_or_else(|| panic!("{name} was judged: {result:?}"))
        .why
        .clone()
}

fn outcome(recording: &Recording, name: &str) -> Outcome {
    check(&all(recording), name).outcome
}

#[test]
fn a_healthy_machine_passes_all_checks() {
    let result = all(&changed(20, |_, _| {}));
    assert_eq!(result.checks.len(), 5);
    for check in &result.checks {
        assert_eq!(check.outcome, Outcome::Pass, "{check:?}");
    }
}

#[test]
fn an_imbalance_fails_when_it_lasts() {
    let uneven = |from: u64, to: u64| {
        changed(20, move |at, sample| {
            if (from..to).contains(&at) {
                rq(sample, 1).nr_running = 9;
            }
        })
    };
    assert_eq!(outcome(&uneven(5, 9), "max_imbalance_ratio"), Outcome::Pass);
    let failed = check(&all(&uneven(5, 10)), "max_imbalance_ratio");
    assert_eq!(failed.outcome, Outcome::Fail);
    assert_eq!((failed.value, failed.bound), (Some(4.5), Some(4.0)));
    assert_eq!(
        failed.detail,
        "the busiest CPU had up to 4.5 times as many runnable tasks as the least busy, from 0.5 s to 0.9 s \
         (5 samples in a row; 5 are too many)"
    );
}

#[test]
fn an_idle_cpu_counts_as_one_task_and_an_offline_one_not_at_all() {
    let recording = changed(9, |_, sample| {
        rq(sample, 0).nr_running = 0;
        rq(sample, 1).nr_running = 5;
    });
    let failed = check(&all(&recording), "max_imbalance_ratio");
    assert_eq!((failed.outcome, failed.value), (Outcome::Fail, Some(5.0)));
    let recording = changed(9, |_, sample| {
        rq(sample, 0).nr_running = 0;
        sample.cpus[0].online = false;
        rq(sample, 1).nr_running = 5;
    });
    assert_eq!(outcome(&recording, "max_imbalance_ratio"), Outcome::Pass);
}

#[test]
fn a_deep_local_dsq_fails_and_names_the_cpu() {
    let recording = changed(9, |_, sample| scx(sample, 1).local_dsq_depth = 51);
    let failed = check(&all(&recording), "max_local_dsq_depth");
    assert_eq!(failed.outcome, Outcome::Fail);
    assert_eq!((failed.value, failed.subject.cpu), (Some(51.0), Some(1)));
    assert!(
        failed
            .detail
            .starts_with("CPU 1 had up to 51 tasks on its local DSQ from 0.0 s"),
        "{}",
        failed.detail
    );
}

#[test]
fn one_moment_seen_often_is_one_violation() {
    // The machine is paused at a moment that looks bad.
    let recording = changed(20, |at, sample| {
        let paused = if (5..=15).contains(&at) { 5 } else { at };
        for cpu in 0..2 {
            rq(sample, cpu).clock_ns = 1 + paused * INTERVAL_NS + u64::try_from(cpu).unwrap();
        }
        if (5..=15).contains(&at) {
            rq(sample, 1).nr_running = 90;
            scx(sample, 1).local_dsq_depth = 90;
            sample.vcpu_time = Ok(VcpuTime::Own(vec![5 * INTERVAL_NS; 2]));
        }
    });
    for name in [
        "max_imbalance_ratio",
        "max_local_dsq_depth",
        "fail_on_rq_clock_stuck",
    ] {
        assert_eq!(outcome(&recording, name), Outcome::Pass, "{name}");
    }
}

fn stuck(change: impl Fn(u64, &mut Sample)) -> CheckResult {
    let recording = changed(12, |at, sample| {
        rq(sample, 1).clock_ns = 1_000_000_007;
        change(at, sample);
    });
    check(&all(&recording), "fail_on_rq_clock_stuck")
}

#[test]
fn a_clock_that_stands_still_on_a_busy_cpu_fails() {
    let failed = stuck(|_, _| {});
    assert_eq!(
        (failed.outcome, failed.subject.cpu),
        (Outcome::Fail, Some(1))
    );
    assert_eq!(
        failed.detail,
        "the runqueue clock of CPU 1 stood still for 1100 ms with tasks on it, from 0.1 s to 1.1 s (11 samples \
         in a row; 5 are too many)"
    );
}

#[test]
fn a_clock_may_stand_still_on_an_idle_cpu() {
    let idle = stuck(|_, sample| rq(sample, 1).nr_running = 0);
    assert_eq!(idle.outcome, Outcome::Pass);
    let busy_now_and_then = stuck(|at, sample| rq(sample, 1).nr_running = u32::from(at % 2 == 0));
    assert_eq!(busy_now_and_then.outcome, Outcome::Fail);
}

#[test]
fn a_clock_may_stand_still_while_the_host_does_not_run_the_vcpu() {
    let starved = |ns_per_sample: u64| {
        stuck(move |at, sample| {
            sample.vcpu_time = Ok(VcpuTime::Own(vec![at * INTERVAL_NS, at * ns_per_sample]));
        })
    };
    // Half a tick a sample: ten ticks are had after twenty samples.
    assert_eq!(starved(2_000_000).outcome, Outcome::Pass);
    // Five ticks a sample: ten ticks every other one.
    assert_eq!(starved(20_000_000).outcome, Outcome::Fail);
    // Without a reading the alarm can still go off.
    let unknown = stuck(|_, sample| {
        sample.vcpu_time = Err(Missing::Failed("no such process".to_owned()));
    });
    assert_eq!(unknown.outcome, Outcome::Fail);
}

#[test]
fn vcpus_that_share_a_thread_are_given_their_turns() {
    // A turn of the other vCPU takes as long as a sample.
    let shared = |samples: u64| {
        let recording = changed(samples, |at, sample| {
            rq(sample, 1).clock_ns = 1_000_000_007;
            sample.vcpu_time = Ok(VcpuTime::Shared {
                thread_ns: at * INTERVAL_NS,
                turn_ns: INTERVAL_NS,
            });
        });
        outcome(&recording, "fail_on_rq_clock_stuck")
    };
    // 100 ms of the other and 40 ms of its own make one standstill: two samples.
    assert_eq!(shared(10), Outcome::Pass);
    assert_eq!(shared(11), Outcome::Fail);
}

#[test]
fn a_clock_of_zero_is_a_cpu_that_has_not_started() {
    let recording = changed(12, |_, sample| rq(sample, 1).clock_ns = 0);
    assert_eq!(outcome(&recording, "fail_on_rq_clock_stuck"), Outcome::Pass);
}

fn falling_back(per_sample: u64, ns_per_sample: u64) -> CheckResult {
    let recording = changed(20, |at, sample| {
        sample.sched_ext = Ok(scheduler(at * per_sample, 0));
        sample.vcpu_time = Ok(VcpuTime::Own(vec![at * ns_per_sample; 2]));
    });
    check(&all(&recording), "max_fallback_rate")
}

#[test]
fn an_event_rate_is_per_cpu_time_of_all_vcpus() {
    // Two CPUs have 0.2 s of CPU time a sample.
    assert_eq!(falling_back(40, INTERVAL_NS).outcome, Outcome::Pass);
    let failed = falling_back(41, INTERVAL_NS);
    assert_eq!(failed.outcome, Outcome::Fail);
    assert_eq!(failed.value.map(f64::round), Some(205.0));
    assert!(
        failed
            .detail
            .starts_with("SCX_EV_SELECT_CPU_FALLBACK grew by up to 205 per second of vCPU time"),
        "{}",
        failed.detail
    );
    // The host gives a tenth of that: the same events are ten times the rate.
    assert_eq!(falling_back(5, INTERVAL_NS / 10).outcome, Outcome::Fail);
}

#[test]
fn a_few_events_over_next_to_no_cpu_time_are_no_rate() {
    let recording = changed(20, |at, sample| {
        sample.sched_ext = Ok(scheduler(at, 0));
        sample.vcpu_time = Ok(VcpuTime::Own(vec![at * 1_000; 2]));
    });
    let inconclusive = check(&all(&recording), "max_fallback_rate");
    assert_eq!(inconclusive.outcome, Outcome::Inconclusive);
}

#[test]
fn a_counter_that_starts_anew_is_a_new_scheduler() {
    let recording = changed(20, |at, sample| {
        sample.sched_ext = Ok(scheduler(if at < 10 { 1_000_000 } else { at }, 0));
    });
    assert_eq!(outcome(&recording, "max_fallback_rate"), Outcome::Pass);
}

#[test]
fn a_rate_needs_the_cpu_time_of_every_vcpu() {
    let recording = changed(20, |_, sample| {
        sample.vcpu_time = Err(Missing::Failed("the engine does not say".to_owned()));
    });
    let check = check(&all(&recording), "max_fallback_rate");
    assert_eq!(check.outcome, Outcome::Inconclusive);
    assert!(
        check.detail.contains("the engine does not say"),
        "{}",
        check.detail
    );
}

#[test]
fn missing_samples_do_not_hide_a_violation() {
    let patchy = |missing: fn(u64) -> bool| {
        changed(20, move |at, sample| {
            scx(sample, 0).local_dsq_depth = if (5..10).contains(&at) { 90 } else { 0 };
            if missing(at) {
                sample.cpus[0].scx = Err(Missing::Unstable);
            }
        })
    };
    assert_eq!(
        outcome(&patchy(|_| false), "max_local_dsq_depth"),
        Outcome::Fail
    );
    // One within, one at its end, and a patch that hides it whole.
    for missing in [|at| at == 7, |at| at == 9, |at| (5..10).contains(&at)] {
        let result = all(&patchy(missing));
        let check = check(&result, "max_local_dsq_depth");
        assert_eq!(check.outcome, Outcome::Inconclusive, "{check:?}");
        assert!(check.detail.contains("of CPU 0"), "{}", check.detail);
    }
}

#[test]
fn a_hole_in_time_is_a_patch_of_missing_samples_if_the_guest_ran() {
    let with_hole = |ran: bool| {
        let after = (10..20).map(|at| {
            let mut sample = healthy(at);
            if !ran {
                let before = INTERVAL_NS * (at - 5);
                sample.vcpu_time = Ok(VcpuTime::Own(vec![before; 2]));
            }
            sample
        });
        recording((0..5).map(healthy).chain(after))
    };
    assert_eq!(
        outcome(&with_hole(true), "max_imbalance_ratio"),
        Outcome::Inconclusive
    );
    assert_eq!(
        outcome(&with_hole(false), "max_imbalance_ratio"),
        Outcome::Pass
    );
}

#[test]
fn dropped_samples_and_a_sampler_that_died_are_patches_too() {
    let mut dropped = changed(20, |_, _| {});
    dropped.samples.pop_front();
    dropped.dropped = 9;
    assert_eq!(
        outcome(&dropped, "max_imbalance_ratio"),
        Outcome::Inconclusive
    );
    let span = Span {
        from_ns: 0,
        to_ns: 30 * INTERVAL_NS,
    };
    let died = judge(&changed(20, |_, _| {}), span, &ALL);
    assert_eq!(
        check(&died, "max_imbalance_ratio").outcome,
        Outcome::Inconclusive
    );
}

#[test]
fn memory_that_was_not_initialised_is_no_evidence() {
    let deep = changed(9, |at, sample| {
        if at == 3 {
            scx(sample, 0).local_dsq_depth = 10_001;
        }
    });
    let same_clocks = changed(9, |_, sample| {
        sample.cpus = vec![cpu(5, 1, 0), cpu(5, 1, 0)];
    });
    for recording in [deep, same_clocks] {
        for result in [
            all(&recording),
            judge(&recording, Span::ALL, &Assert::DEFAULT),
        ] {
            assert_eq!(result.outcome(), Outcome::Inconclusive);
            for check in &result.checks {
                assert_eq!(check.outcome, Outcome::Inconclusive);
                assert!(check.detail.contains("not initialised"), "{check:?}");
            }
        }
    }
}

#[test]
fn only_the_span_is_judged() {
    let recording = changed(20, |at, sample| {
        if at < 10 {
            rq(sample, 1).nr_running = 90;
        }
    });
    let span = Span {
        from_ns: 10 * INTERVAL_NS,
        to_ns: 19 * INTERVAL_NS,
    };
    let result = judge(&recording, span, &ALL);
    assert_eq!(check(&result, "max_imbalance_ratio").outcome, Outcome::Pass);
}

#[test]
fn by_default_what_depends_on_the_load_is_not_judged() {
    let result = judge(&changed(20, |_, _| {}), Span::ALL, &Assert::DEFAULT);
    assert_eq!(result.outcome(), Outcome::Pass);
    assert_eq!(result.checks.len(), 3);
    for name in ["max_imbalance_ratio", "max_keep_last_rate"] {
        assert_eq!(why_not(&result, name), "the test sets no bound");
    }
}

#[test]
fn what_can_not_be_judged_by_default_says_why() {
    let no_scheduler = changed(20, |_, sample| {
        sample.sched_ext.as_mut().unwrap().state = SchedExtState::Disabled;
    });
    let result = judge(&no_scheduler, Span::ALL, &Assert::DEFAULT);
    for name in ["max_local_dsq_depth", "max_fallback_rate"] {
        assert_eq!(why_not(&result, name), "no sched_ext scheduler was enabled");
    }
    let no_counters = changed(20, |_, sample| {
        let events = Err(Missing::Absent("struct scx_event_stats".to_owned()));
        sample.sched_ext.as_mut().unwrap().events = events;
    });
    let result = judge(&no_counters, Span::ALL, &Assert::DEFAULT);
    assert_eq!(
        why_not(&result, "max_fallback_rate"),
        format!("{FALLBACK} could not be judged: this kernel has no struct scx_event_stats")
    );
    let short = judge(&changed(3, |_, _| {}), Span::ALL, &Assert::DEFAULT);
    assert!(short.checks.is_empty(), "{short:?}");
    assert!(why_not(&short, "fail_on_rq_clock_stuck").contains("too short"));
}

#[test]
fn without_samples_a_bound_of_the_tests_own_is_inconclusive() {
    let assert = Assert::DEFAULT
        .max_local_dsq_depth(3)
        .no_max_fallback_rate();
    let result = without_samples(&assert, "nobody looked");
    assert_eq!(result.checks.len(), 1);
    let check = check(&result, "max_local_dsq_depth");
    assert_eq!(check.outcome, Outcome::Inconclusive);
    assert_eq!(check.detail, "nobody looked");
    assert_eq!(why_not(&result, "fail_on_rq_clock_stuck"), "nobody looked");
    assert_eq!(
        why_not(&result, "max_fallback_rate"),
        "turned off by the test"
    );
    assert_eq!(
        judge(&recording([]), Span::ALL, &assert).outcome(),
        Outcome::Inconclusive
    );
}

/// Two phases of a body of 20 samples; the second begins with the sample `edge`.
fn two_phases(recording: &Recording, edge: u64, assert: &Assert) -> AssertResult {
    let span = |from: u64, to: u64| Span {
        from_ns: from * INTERVAL_NS,
        to_ns: to * INTERVAL_NS - 1,
    };
    let phase = |k, span| PhaseSpan {
        phase: Phase::step(k),
        span,
    };
    let phases = [phase(0, span(0, edge)), phase(1, span(edge, 20))];
    judge_phases(recording, span(0, 20), &phases, assert)
}

fn uneven(from: u64, to: u64) -> Recording {
    changed(20, move |at, sample| {
        if (from..to).contains(&at) {
            rq(sample, 1).nr_running = 9;
        }
    })
}

#[test]
fn a_fault_across_the_edge_of_two_phases_fails() {
    let failed = check(&two_phases(&uneven(8, 13), 10, &ALL), "max_imbalance_ratio");
    assert_eq!(failed.outcome, Outcome::Fail);
    assert!(!failed.detail.contains(", in step"), "{}", failed.detail);
}

#[test]
fn a_fault_within_a_phase_names_it() {
    let failed = check(
        &two_phases(&uneven(12, 18), 10, &ALL),
        "max_imbalance_ratio",
    );
    assert_eq!(failed.outcome, Outcome::Fail);
    assert!(failed.detail.ends_with(", in step 1"), "{}", failed.detail);
}

#[test]
fn phases_too_short_to_judge_leave_the_verdict_to_the_body() {
    let by_test = ALL.max_imbalance_ratio(4.0);
    for assert in [ALL, by_test] {
        let passed = check(
            &two_phases(&uneven(0, 0), 2, &assert),
            "max_imbalance_ratio",
        );
        assert_eq!(passed.outcome, Outcome::Pass, "{passed:?}");
    }
}
