//! `max_local_dsq_depth`: no CPU's local DSQ grows deep for long.

use super::NO_SCHEDULER;
use super::conclude::Findings;
use super::evidence::{Kind, Run, Tally};
use super::timeline::Timeline;
use crate::sample::Sample;

pub(super) fn judge(bound: f64, timeline: &Timeline<'_>) -> Findings {
    let tally = |cpu| {
        let evidence = timeline.states(|sample| kind(cpu, bound, sample));
        (Some(cpu), Tally::of(evidence))
    };
    Findings {
        tallies: (0..timeline.cpu_count).map(tally).collect(),
        why_nothing: why_nothing(timeline),
        describe: Box::new(|cpu: Option<usize>, run: &Run| {
            let cpu = cpu.unwrap_or_default();
            format!("CPU {cpu} had up to {} tasks on its local DSQ", run.peak)
        }),
    }
}

fn kind(cpu: usize, bound: f64, sample: &Sample) -> Kind {
    match sample.scx_enabled() {
        None => return Kind::Missing,
        Some(false) => return Kind::Exempt,
        Some(true) => {}
    }
    let Some(seen) = sample.cpus.get(cpu) else {
        return Kind::Missing;
    };
    match &seen.scx {
        _ if !seen.online => Kind::Exempt,
        Ok(scx) if f64::from(scx.local_dsq_depth) > bound => {
            Kind::Violates(f64::from(scx.local_dsq_depth))
        }
        Ok(scx) => Kind::Holds(f64::from(scx.local_dsq_depth)),
        Err(_) => Kind::Missing,
    }
}

/// Why no sample says anything of local DSQs.
fn why_nothing(timeline: &Timeline<'_>) -> String {
    let unread = |sample: &Sample| {
        let state = sample.sched_ext.as_ref().err();
        let queue = || sample.cpus.iter().find_map(|cpu| cpu.scx.as_ref().err());
        let why = state.or_else(queue)?;
        Some(format!("sched_ext could not be read: {why}"))
    };
    let unknown = timeline
        .samples()
        .filter(|sample| sample.scx_enabled() != Some(false))
        .find_map(unread);
    unknown.unwrap_or_else(|| NO_SCHEDULER.to_owned())
}
