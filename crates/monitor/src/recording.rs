//! Samples of one run, and what taking them cost.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::sample::Sample;

/// What the monitor itself used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Samples taken.
    pub samples: u64,
    /// CPU time of the monitor's thread, by `CLOCK_THREAD_CPUTIME_ID`.
    pub cpu_ns: u64,
    /// Wall time of the sample that took longest.
    pub longest_sample_ns: u64,
    /// From the first look to the last.
    pub span_ns: u64,
}

impl Cost {
    /// CPU time of the monitor in percent of one CPU; `None` if it did not run.
    pub fn cpu_share_pct(&self) -> Option<f64> {
        (self.span_ns > 0).then(|| float(self.cpu_ns) * 100.0 / float(self.span_ns))
    }
}

/// Samples of one run, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// Time between two samples, as asked for; 0 if the guest chose when they were taken.
    pub interval_ns: u64,
    /// Length of the guest's scheduling tick: a second over `CONFIG_HZ`.
    pub tick_ns: u64,
    /// The samples that were kept.
    pub samples: VecDeque<Sample>,
    /// Samples older than these, which were dropped to bound memory.
    pub dropped: u64,
    /// What taking them cost.
    pub cost: Cost,
}

impl Recording {
    /// Adds a sample; beyond `capacity` the oldest goes.
    pub fn push(&mut self, sample: Sample, capacity: usize) {
        self.samples.push_back(sample);
        while self.samples.len() > capacity.max(1) {
            self.samples.pop_front();
            self.dropped += 1;
        }
    }
}

/// A count as a number that can be divided.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts and nanoseconds of a run are far below 2^53; beyond it a rounded one does"
)]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}
