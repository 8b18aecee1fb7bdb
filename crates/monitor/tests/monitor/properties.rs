//! What holds for any recording.

use std::collections::BTreeMap;

use ktstr_monitor::{
    CpuSample, Missing, Reading, Recording, RqSample, Sample, SchedExtSample, SchedExtState,
    ScxRqSample, Span, VcpuTime, judge,
};
use ktstr_report::{Assert, Outcome};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::guest::{FALLBACK, INTERVAL_NS, KEEP_LAST, TICK_NS, healthy};

fn missing() -> impl Strategy<Value = Missing> {
    prop_oneof![
        Just(Missing::Unstable),
        Just(Missing::NotInitialised),
        Just(Missing::Absent("it".to_owned())),
        Just(Missing::Failed("no".to_owned())),
    ]
}

/// Mostly there.
fn reading<T: Clone + std::fmt::Debug + 'static>(
    value: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Reading<T>> {
    prop_oneof![8 => value.prop_map(Ok), 1 => missing().prop_map(Err)]
}

/// Small numbers that meet each other, and any.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0_u64..4, 1 => any::<u64>()]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0_u32..3, 4 => 50_u32..60, 1 => any::<u32>()]
}

fn cpu() -> impl Strategy<Value = CpuSample> {
    let rq = (small(), number()).prop_map(|(nr_running, clock_ns)| RqSample {
        nr_running,
        clock_ns,
    });
    let scx = small().prop_map(|local_dsq_depth| ScxRqSample {
        nr_running: 0,
        local_dsq_depth,
        flags: 0,
    });
    let online = prop::bool::weighted(0.9);
    (online, reading(rq), reading(scx)).prop_map(|(online, rq, scx)| CpuSample {
        online,
        rq,
        scx,
        schedstat: Err(Missing::Unstable),
    })
}

fn sched_ext() -> impl Strategy<Value = SchedExtSample> {
    let state = prop_oneof![
        9 => Just(SchedExtState::Enabled),
        1 => Just(SchedExtState::Disabling),
    ];
    let events = (number(), number()).prop_map(|(fallback, kept)| {
        BTreeMap::from([
            (FALLBACK.to_owned(), fallback),
            (KEEP_LAST.to_owned(), kept),
        ])
    });
    (state, reading(events)).prop_map(|(state, events)| SchedExtSample { state, events })
}

fn vcpu_time() -> impl Strategy<Value = VcpuTime> {
    let time =
        || prop_oneof![4 => (0_u64..100).prop_map(|n| n * INTERVAL_NS / 10), 1 => any::<u64>()];
    prop_oneof![
        3 => vec(time(), 0..4).prop_map(VcpuTime::Own),
        1 => (time(), time()).prop_map(|(thread_ns, turn_ns)| VcpuTime::Shared { thread_ns, turn_ns }),
    ]
}

fn sample() -> impl Strategy<Value = Sample> {
    let cpus = vec(cpu(), 0..4);
    (number(), cpus, reading(sched_ext()), reading(vcpu_time())).prop_map(
        |(at_ns, cpus, sched_ext, vcpu_time)| Sample {
            at_ns,
            took_ns: 0,
            cpus,
            sched_ext,
            vcpu_wait_ns: Ok(vec![at_ns; 2]),
            vcpu_time,
        },
    )
}

/// Whatever memory may hold.
fn any_recording() -> impl Strategy<Value = Recording> {
    (number(), number(), vec(sample(), 0..12), number()).prop_map(
        |(interval_ns, tick_ns, samples, dropped)| Recording {
            interval_ns,
            tick_ns,
            samples: samples.into(),
            dropped,
            cost: ktstr_monitor::Cost::default(),
        },
    )
}

/// A machine whose tasks, queues, clocks and counters move or not, with CPU time as it comes.
fn plausible_recording() -> impl Strategy<Value = Recording> {
    let step = (
        (0_u32..8, 0_u32..8, 0_u32..60),
        (any::<bool>(), any::<bool>()),
        (0_u64..60, 0_u64..=10),
        prop::bool::weighted(0.1),
    );
    let shared = any::<bool>();
    (vec(step, 0..24), shared).prop_map(|(steps, shared)| {
        let mut clocks = [1_u64, 2];
        let (mut events, mut given) = (0, 0);
        let mut samples = Vec::new();
        for (at, ((first, second, depth), (moves, other_moves), (grown, tenths), lost)) in
            (0..).zip(steps)
        {
            clocks[0] += u64::from(moves) * INTERVAL_NS;
            clocks[1] += u64::from(other_moves) * INTERVAL_NS;
            events += grown;
            given += tenths * INTERVAL_NS / 10;
            let mut sample = healthy(at);
            for (cpu, (nr_running, clock_ns)) in [first, second].into_iter().zip(clocks).enumerate()
            {
                sample.cpus[cpu].rq = Ok(RqSample {
                    nr_running,
                    clock_ns,
                });
            }
            sample.cpus[1].scx = Ok(ScxRqSample {
                local_dsq_depth: depth,
                ..ScxRqSample::default()
            });
            sample.sched_ext = Ok(crate::guest::scheduler(events, events));
            sample.vcpu_time = Ok(if shared {
                VcpuTime::Shared {
                    thread_ns: given,
                    turn_ns: INTERVAL_NS / 2,
                }
            } else {
                VcpuTime::Own(vec![given, given])
            });
            if lost {
                sample = Sample::unreadable(sample.at_ns, &Missing::Unstable);
            }
            samples.push(sample);
        }
        Recording {
            interval_ns: INTERVAL_NS,
            tick_ns: TICK_NS,
            samples: samples.into(),
            ..Recording::default()
        }
    })
}

fn bounds(sustained_samples: u32) -> Assert {
    Assert::DEFAULT
        .with_monitor_defaults()
        .max_local_dsq_depth(30)
        .max_keep_last_rate(300.0)
        .sustained_samples(sustained_samples)
}

/// Outcomes by check; `None` where it was not judged.
fn outcomes(recording: &Recording, assert: &Assert) -> BTreeMap<String, Outcome> {
    let result = judge(recording, Span::ALL, assert);
    let judged = result.checks.into_iter();
    judged.map(|check| (check.check, check.outcome)).collect()
}

proptest! {
    #[test]
    fn any_recording_is_judged(
        recording in any_recording(),
        (from_ns, to_ns) in (number(), number()),
        window in prop_oneof![0_u32..6, Just(u32::MAX)],
        bound in prop_oneof![Just(4.0), any::<f64>()],
    ) {
        let assert = Assert::DEFAULT
            .with_monitor_defaults()
            .max_imbalance_ratio(bound)
            .max_fallback_rate(bound)
            // More than a window of gaps is filled in, so an endless one is for short recordings.
            .sustained_samples(window.min(1000));
        let result = judge(&recording, Span { from_ns, to_ns }, &assert);
        prop_assert_eq!(result.checks.len() + result.not_checked.len(), 5);
    }

    #[test]
    fn a_missing_sample_between_others_clears_nothing(
        recording in plausible_recording(),
        window in 1_u32..6,
        at: prop::sample::Index,
        how in missing(),
    ) {
        let assert = bounds(window);
        let before = outcomes(&recording, &assert);
        let mut patchy = recording.clone();
        let at = at.index(patchy.samples.len() + 1);
        let at_ns = patchy.samples.get(at).or(patchy.samples.back()).map_or(0, |s| s.at_ns);
        patchy.samples.insert(at, Sample::unreadable(at_ns, &how));
        let after = outcomes(&patchy, &assert);
        for (check, outcome) in before {
            if outcome != Outcome::Pass {
                prop_assert!(after[&check] >= Outcome::Inconclusive, "{} {:?} {:?}", check, outcome, after);
            }
        }
    }

    #[test]
    fn a_sample_that_is_lost_clears_no_violation(
        recording in plausible_recording(),
        window in 1_u32..6,
        at: prop::sample::Index,
    ) {
        let assert = bounds(window);
        let before = outcomes(&recording, &assert);
        let mut patchy = recording.clone();
        if let Some(len) = patchy.samples.len().checked_sub(1) {
            let at = at.index(len + 1);
            patchy.samples[at] = Sample::unreadable(patchy.samples[at].at_ns, &Missing::Unstable);
        }
        let after = outcomes(&patchy, &assert);
        for (check, outcome) in before {
            if outcome == Outcome::Fail {
                prop_assert!(after[&check] >= Outcome::Inconclusive, "{} {:?}", check, after);
            }
        }
    }

    #[test]
    fn judging_is_pure(recording in plausible_recording()) {
        let assert = bounds(3);
        prop_assert_eq!(outcomes(&recording, &assert), outcomes(&recording, &assert));
    }
}
