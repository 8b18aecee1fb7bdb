//! `max_fallback_rate`, `max_keep_last_rate`: events of sched_ext per CPU time given to the guest, so that
//! a host that starves the guest can't hide a bad rate.

use ktstr_declaration::Check;

use super::NO_SCHEDULER;
use super::conclude::Findings;
use super::evidence::{Evidence, Kind, Run, Tally};
use super::timeline::{Look, Timeline};
use crate::delivered;
use crate::recording::float;
use crate::sample::{Missing, Sample};

/// The checks of rates, and the kernel's counter for each.
const RATES: &[(Check, &str)] = &[
    (Check::MaxFallbackRate, "SCX_EV_SELECT_CPU_FALLBACK"),
    (Check::MaxKeepLastRate, "SCX_EV_DISPATCH_KEEP_LAST"),
];

const NS_PER_S: f64 = 1e9;

pub(super) fn judge(check: Check, bound: f64, timeline: &Timeline<'_>) -> Findings {
    let Some((_, event)) = RATES.iter().find(|(of, _)| *of == check) else {
        return Findings {
            tallies: Vec::new(),
            why_nothing: "the monitor can't judge it".to_owned(),
            describe: Box::new(|_, _| String::new()),
        };
    };
    let mut walk = Walk {
        event,
        bound,
        tick_ns: timeline.tick_ns,
        before: None,
        after_gap: false,
        why_nothing: None,
    };
    let evidence: Vec<Evidence> = timeline
        .looks
        .iter()
        .filter_map(|look| walk.look(look))
        .collect();
    Findings {
        tallies: vec![(None, Tally::of(evidence))],
        why_nothing: walk.why_nothing.unwrap_or_else(|| NO_SCHEDULER.to_owned()),
        describe: Box::new(move |_: Option<usize>, run: &Run| {
            format!(
                "{event} grew by up to {:.0} per second of vCPU time",
                run.peak
            )
        }),
    }
}

struct Walk<'a> {
    event: &'static str,
    bound: f64,
    tick_ns: u64,
    /// The sample before, if it says what is counted.
    before: Option<&'a Sample>,
    /// Whether the sample before is missing: the difference to it is missing too.
    after_gap: bool,
    /// The first reason for which nothing could be said.
    why_nothing: Option<String>,
}

impl<'a> Walk<'a> {
    fn look(&mut self, look: &Look<'a>) -> Option<Evidence> {
        let (at_ns, kind) = match look {
            Look::Missed(at_ns) => {
                self.before = None;
                (*at_ns, Some(Kind::Missing))
            }
            Look::Taken(sample) => (sample.at_ns, self.step(sample)),
        };
        self.after_gap = self.before.is_none() && kind == Some(Kind::Missing);
        kind.map(|kind| Evidence { at_ns, kind })
    }

    /// What `sample` says in view of the one before; `None` if nothing.
    fn step(&mut self, sample: &'a Sample) -> Option<Kind> {
        let before = self.before.take();
        match sample.scx_enabled() {
            None => return Some(self.unread(sample.sched_ext.as_ref().err())),
            Some(false) => return Some(Kind::Exempt),
            Some(true) => {}
        }
        let Some(count) = sample.event(self.event) else {
            let why = sample.sched_ext.as_ref().ok();
            let why = why.and_then(|scx| scx.events.as_ref().err());
            return Some(self.unread(why));
        };
        self.before = Some(sample);
        let Some(before) = before else {
            return self.after_gap.then_some(Kind::Missing);
        };
        let Some(grown) = before
            .event(self.event)
            .and_then(|was| count.checked_sub(was))
        else {
            // A new scheduler starts its counters at 0.
            return Some(Kind::Exempt);
        };
        let Some(given_ns) = delivered::to_all(before, sample) else {
            let why = sample.vcpu_time.as_ref().err().cloned();
            let why = why.unwrap_or(Missing::Failed(
                "the CPU time of all vCPUs is not known".to_owned(),
            ));
            return Some(self.unread(Some(&why)));
        };
        if given_ns < self.tick_ns.max(1) {
            // A few events over next to no time make no rate.
            return None;
        }
        let rate = float(grown) / (float(given_ns) / NS_PER_S);
        Some(if rate > self.bound {
            Kind::Violates(rate)
        } else {
            Kind::Holds(rate)
        })
    }

    fn unread(&mut self, why: Option<&Missing>) -> Kind {
        let absent = Missing::Absent(self.event.to_owned());
        let why = why.unwrap_or(&absent);
        self.why_nothing
            .get_or_insert_with(|| format!("{} could not be judged: {why}", self.event));
        Kind::Missing
    }
}
