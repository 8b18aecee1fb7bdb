//! `max_imbalance_ratio`: no CPU has many more tasks than another for long.

use super::conclude::Findings;
use super::evidence::{Kind, Run, Tally};
use super::timeline::Timeline;
use crate::sample::Sample;

pub(super) fn judge(bound: f64, timeline: &Timeline<'_>) -> Findings {
    let evidence = timeline.states(|sample| kind(bound, sample));
    Findings {
        tallies: vec![(None, Tally::of(evidence))],
        why_nothing: "no sample shows the runqueues".to_owned(),
        describe: Box::new(|_: Option<usize>, run: &Run| {
            format!(
                "the busiest CPU had up to {:.1} times as many runnable tasks as the least busy,",
                run.peak
            )
        }),
    }
}

fn kind(bound: f64, sample: &Sample) -> Kind {
    let online = (0..sample.cpus.len()).filter(|&cpu| !sample.is_offline(cpu));
    let counts: Vec<Option<u32>> = online
        .map(|cpu| sample.rq(cpu).map(|rq| rq.nr_running))
        .collect();
    let known = || counts.iter().copied().flatten();
    let (Some(most), Some(least)) = (known().max(), known().min()) else {
        return Kind::Missing;
    };
    // An idle CPU counts as one with one task. A CPU that is not known can only make it worse.
    let ratio = f64::from(most) / f64::from(least.max(1));
    if ratio > bound {
        Kind::Violates(ratio)
    } else if counts.iter().all(Option::is_some) {
        Kind::Holds(ratio)
    } else {
        Kind::Missing
    }
}
