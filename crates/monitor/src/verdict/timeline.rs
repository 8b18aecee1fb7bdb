//! Samples in order, with the places where some are missing.

use super::evidence::{Evidence, Kind};
use super::{Span, TICKS_TO_JUDGE};
use crate::delivered;
use crate::recording::Recording;
use crate::sample::Sample;

/// One place on the grid of samples.
#[derive(Clone, Copy, Debug)]
pub(super) enum Look<'a> {
    Taken(&'a Sample),
    /// None was taken here, though the guest ran.
    Missed(u64),
}

/// The samples of a span.
#[derive(Clone, Debug)]
pub(super) struct Timeline<'a> {
    pub(super) looks: Vec<Look<'a>>,
    /// Number of CPUs: the most that any sample saw.
    pub(super) cpu_count: usize,
    /// Violations in a row that break a bound.
    pub(super) window: u32,
    /// Length of the guest's scheduling tick.
    pub(super) tick_ns: u64,
    /// CPU time below which nothing is said of a vCPU.
    pub(super) least_ns: u64,
}

impl<'a> Timeline<'a> {
    pub(super) fn new(
        recording: &Recording,
        span: Span,
        samples: Vec<&'a Sample>,
        window: u32,
    ) -> Self {
        let mut timeline = Self {
            cpu_count: samples.iter().map(|s| s.cpus.len()).max().unwrap_or(0),
            looks: Vec::with_capacity(samples.len()),
            window,
            tick_ns: recording.tick_ns,
            least_ns: recording.tick_ns.saturating_mul(TICKS_TO_JUDGE),
        };
        let interval_ns = recording.interval_ns;
        // Dropped samples lie before the first that is left.
        let first_ns = samples.first().map_or(0, |sample| sample.at_ns);
        if first_ns > span.from_ns {
            timeline.miss(recording.dropped, first_ns);
        }
        let mut before: Option<&Sample> = None;
        for sample in samples {
            if let Some(before) = before {
                timeline.miss(missed(before, sample, interval_ns), sample.at_ns);
            }
            timeline.looks.push(Look::Taken(sample));
            before = Some(sample);
        }
        // A sampler that died leaves the rest unseen.
        if let Some(last) = before
            && span.to_ns != u64::MAX
        {
            let rest_ns = span.to_ns.saturating_sub(last.at_ns);
            timeline.miss(grid_points_between(rest_ns, interval_ns), span.to_ns);
        }
        timeline
    }

    /// More than a window of them says no more than a window.
    fn miss(&mut self, count: u64, at_ns: u64) {
        for _ in 0..count.min(u64::from(self.window)) {
            self.looks.push(Look::Missed(at_ns));
        }
    }

    /// The samples that were taken.
    pub(super) fn samples(&self) -> impl Iterator<Item = &'a Sample> {
        self.looks.iter().filter_map(|look| match look {
            Look::Taken(sample) => Some(*sample),
            Look::Missed(_) => None,
        })
    }

    /// What each sample says by itself. A violation counts once however often the same moment is seen.
    pub(super) fn states(&self, kind: impl Fn(&Sample) -> Kind) -> Vec<Evidence> {
        let mut all = Vec::with_capacity(self.looks.len());
        let mut last: Option<&Sample> = None;
        for look in &self.looks {
            let (at_ns, kind) = match look {
                Look::Missed(at_ns) => (*at_ns, Kind::Missing),
                Look::Taken(sample) => (sample.at_ns, kind(sample)),
            };
            if let Look::Taken(sample) = look
                && kind != Kind::Missing
            {
                let same = last.is_some_and(|last| !self.guest_moved_on(last, sample));
                if same && matches!(kind, Kind::Violates(_)) {
                    continue;
                }
                last = Some(sample);
            }
            all.push(Evidence { at_ns, kind });
        }
        all
    }

    /// Whether what is seen at `after` may differ from what was seen at `before`: the guest scheduled in
    /// between, and every vCPU had its turn. A machine that stands still shows one moment again and again.
    fn guest_moved_on(&self, before: &Sample, after: &Sample) -> bool {
        if let Some(shared) = delivered::on_shared(before, after) {
            return shared.surely(self.least_ns);
        }
        let clocks = (0..self.cpu_count).filter_map(|cpu| {
            let (before, after) = (before.rq(cpu)?, after.rq(cpu)?);
            Some(before.clock_ns != after.clock_ns)
        });
        let mut compared = clocks.peekable();
        compared.peek().is_none() || compared.any(|moved| moved)
    }
}

/// Samples that should have been taken between two, at most as many as the guest ran for.
fn missed(before: &Sample, after: &Sample, interval_ns: u64) -> u64 {
    let apart_ns = after.at_ns.saturating_sub(before.at_ns);
    let ran_ns = (0..after.cpus.len())
        .filter_map(|cpu| delivered::to_cpu(before, after, cpu))
        .map(|delivered| delivered.thread_ns)
        .max();
    let on_grid = grid_points_between(apart_ns, interval_ns);
    match ran_ns {
        Some(ran_ns) => on_grid.min(ran_ns.checked_div(interval_ns).unwrap_or(0)),
        None => on_grid,
    }
}

fn grid_points_between(apart_ns: u64, interval_ns: u64) -> u64 {
    let intervals = apart_ns.checked_div(interval_ns).unwrap_or(0);
    intervals.saturating_sub(1)
}
