//! `fail_on_rq_clock_stuck`: the clock of a busy CPU's runqueue moves.
//!
//! The scheduler's tick moves it, so a clock that stands still on a CPU with tasks means that the CPU takes
//! no interrupts. The host must have run the vCPU meanwhile, else it is not the guest that stands still.

use super::conclude::Findings;
use super::evidence::{Evidence, Kind, Run, Tally};
use super::timeline::{Look, Timeline};
use crate::delivered;
use crate::recording::float;
use crate::sample::Sample;

const NS_PER_MS: f64 = 1e6;

pub(super) fn judge(_bound: f64, timeline: &Timeline<'_>) -> Findings {
    let tally = |cpu| (Some(cpu), Tally::of(Walk::new(cpu, timeline).evidence()));
    Findings {
        tallies: (0..timeline.cpu_count).map(tally).collect(),
        why_nothing: "no CPU was seen busy in two samples in a row".to_owned(),
        describe: Box::new(|cpu: Option<usize>, run: &Run| {
            let cpu = cpu.unwrap_or_default();
            format!(
                "the runqueue clock of CPU {cpu} stood still for {:.0} ms with tasks on it,",
                run.peak
            )
        }),
    }
}

/// The samples of one CPU.
struct Walk<'a> {
    cpu: usize,
    timeline: &'a Timeline<'a>,
    /// The sample before, if it shows the CPU.
    before: Option<&'a Sample>,
    /// Whether the sample before is missing: the difference to it is missing too.
    after_gap: bool,
    /// Since when the vCPU's CPU time is counted towards the next violation.
    counted_from: Option<&'a Sample>,
    /// When the clock was first seen to stand where it stands.
    standing_since_ns: u64,
}

impl<'a> Walk<'a> {
    fn new(cpu: usize, timeline: &'a Timeline<'a>) -> Self {
        Self {
            cpu,
            timeline,
            before: None,
            after_gap: false,
            counted_from: None,
            standing_since_ns: 0,
        }
    }

    fn evidence(mut self) -> Vec<Evidence> {
        let mut all = Vec::with_capacity(self.timeline.looks.len());
        for look in &self.timeline.looks {
            let (at_ns, kind) = match look {
                Look::Missed(at_ns) => (*at_ns, self.miss()),
                Look::Taken(sample) => (sample.at_ns, self.step(sample)),
            };
            all.extend(kind.map(|kind| Evidence { at_ns, kind }));
        }
        all
    }

    fn miss(&mut self) -> Option<Kind> {
        self.before = None;
        self.after_gap = true;
        Some(Kind::Missing)
    }

    /// What `sample` says in view of those before; `None` if nothing.
    fn step(&mut self, sample: &'a Sample) -> Option<Kind> {
        let Some(rq) = sample.rq(self.cpu) else {
            return if sample.is_offline(self.cpu) {
                self.exempt()
            } else {
                self.miss()
            };
        };
        if rq.clock_ns == 0 {
            // The CPU has not scheduled yet.
            return self.exempt();
        }
        let after_gap = std::mem::take(&mut self.after_gap);
        let before = self.before.replace(sample);
        let Some(earlier) = before.and_then(|before| before.rq(self.cpu)) else {
            self.stand_from(sample);
            return after_gap.then_some(Kind::Missing);
        };
        if earlier.clock_ns != rq.clock_ns {
            self.stand_from(sample);
            return Some(Kind::Holds(0.0));
        }
        if earlier.nr_running == 0 && rq.nr_running == 0 {
            // An idle CPU has no tick.
            self.stand_from(sample);
            return Some(Kind::Exempt);
        }
        let from = self.counted_from.unwrap_or(sample);
        let delivered = delivered::to_cpu(from, sample, self.cpu);
        if delivered.is_some_and(|delivered| !delivered.surely(self.timeline.least_ns)) {
            return None;
        }
        self.counted_from = Some(sample);
        let stood_ns = sample.at_ns.saturating_sub(self.standing_since_ns);
        Some(Kind::Violates(float(stood_ns) / NS_PER_MS))
    }

    fn exempt(&mut self) -> Option<Kind> {
        self.before = None;
        self.after_gap = false;
        Some(Kind::Exempt)
    }

    fn stand_from(&mut self, sample: &'a Sample) {
        self.counted_from = Some(sample);
        self.standing_since_ns = sample.at_ns;
    }
}
