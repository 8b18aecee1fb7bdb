//! Times in bounded memory.

use hdrhistogram::Histogram as Hdr;
use ktstr_report::WakeLatency;

/// Decimal digits of a time that are kept: percentiles are right within 1 %.
const DIGITS: u8 = 2;

/// Counts times, so that percentiles are right within 1 % over the whole range, however many samples there are.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    times_ns: Hdr<u64>,
    max_ns: u64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        // All buckets up to the largest time are made here (60 KB), so that recording allocates nothing.
        let times_ns = Hdr::new_with_max(u64::MAX, DIGITS);
        Self {
            times_ns: times_ns.expect("constant bounds"),
            max_ns: 0,
        }
    }

    pub(super) fn record(&mut self, time_ns: u64) {
        self.times_ns.saturating_record(time_ns);
        self.max_ns = self.max_ns.max(time_ns);
    }

    pub(super) fn summary(&self) -> WakeLatency {
        WakeLatency {
            samples: self.times_ns.len(),
            p50_ns: self.percentile(50.0),
            p99_ns: self.percentile(99.0),
            max_ns: self.max_ns,
        }
    }

    /// The time that `percent` of the samples don't exceed: the top of its bucket, but never more than the
    /// largest sample. 0 without samples.
    fn percentile(&self, percent: f64) -> u64 {
        let top = self.times_ns.value_at_percentile(percent);
        top.min(self.max_ns)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_samples_it_says_nothing() {
        assert_eq!(Histogram::new().summary(), WakeLatency::default());
    }

    proptest! {
        #[test]
        fn percentiles_are_within_one_part_in_a_hundred(mut times in prop::collection::vec(any::<u64>(), 1..200)) {
            let mut histogram = Histogram::new();
            for &time in &times {
                histogram.record(time);
            }
            times.sort_unstable();
            let summary = histogram.summary();
            let rank = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1];
            prop_assert_eq!(summary.samples, times.len() as u64);
            prop_assert_eq!(summary.max_ns, times[times.len() - 1]);
            for (found, exact) in [(summary.p50_ns, rank(50)), (summary.p99_ns, rank(99))] {
                prop_assert!(found >= exact && found - exact <= exact / 100, "{found} for {exact}");
            }
        }
    }
}
