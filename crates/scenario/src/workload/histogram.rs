//! Times in bounded memory.

use ktstr_report::WakeLatency;

/// Bits of a value that are kept below its highest one: buckets are at most 1/32 (3 %) wide.
const PRECISION_BITS: u32 = 5;
const PER_OCTAVE: usize = 1 << PRECISION_BITS;

/// Values below this have a bucket each.
const EXACT: u64 = 1 << (PRECISION_BITS + 1);

const BUCKETS: usize = (u64::BITS - PRECISION_BITS) as usize * PER_OCTAVE + PER_OCTAVE;

/// Counts times in buckets whose width grows with the time, so that percentiles are right within 3 % over
/// the whole range, however many samples there are.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    buckets: Vec<u64>,
    samples: u64,
    max_ns: u64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self {
            buckets: vec![0; BUCKETS],
            samples: 0,
            max_ns: 0,
        }
    }

    pub(super) fn record(&mut self, time_ns: u64) {
        self.buckets[bucket(time_ns)] += 1;
        self.samples += 1;
        self.max_ns = self.max_ns.max(time_ns);
    }

    pub(super) fn summary(&self) -> WakeLatency {
        WakeLatency {
            samples: self.samples,
            p50_ns: self.percentile(50),
            p99_ns: self.percentile(99),
            max_ns: self.max_ns,
        }
    }

    /// The time that `percent` of the samples don't exceed: the top of its bucket, but never more than the
    /// largest sample. 0 without samples.
    fn percentile(&self, percent: u64) -> u64 {
        let rank = (u128::from(self.samples) * u128::from(percent)).div_ceil(100);
        let mut seen = 0_u128;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= rank && *count > 0 {
                return top(index).min(self.max_ns);
            }
        }
        0
    }
}

fn bucket(value: u64) -> usize {
    if value < EXACT {
        return usize::try_from(value).unwrap_or(0);
    }
    let shift = value.ilog2() - PRECISION_BITS;
    // The top PRECISION_BITS + 1 bits, from PER_OCTAVE to 2 * PER_OCTAVE - 1.
    let head = usize::try_from(value >> shift).unwrap_or(0);
    shift as usize * PER_OCTAVE + head
}

/// The largest value of a bucket.
fn top(index: usize) -> u64 {
    if index < PER_OCTAVE * 2 {
        return index as u64;
    }
    let shift = index / PER_OCTAVE - 1;
    let head = (index - shift * PER_OCTAVE) as u64;
    (head << shift) | ((1 << shift) - 1)
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
        fn percentiles_are_within_one_part_in_32(mut times in prop::collection::vec(any::<u64>(), 1..200)) {
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
                prop_assert!(found >= exact && found - exact <= exact / 32, "{found} for {exact}");
            }
        }
    }
}
