//! What a test asks of the scheduler as the monitor sees it.

use crate::Bound;

/// Bounds of the monitor's checks. One that is set is enforced.
///
/// Every name but that of `sustained_samples` is a check's name in the report.
///
/// [`Thresholds::DEFAULT`] has on what no scheduler should do under any load. How uneven the CPUs may be,
/// and how often a task may be kept running for want of another, depends on the load and on the slices:
/// only the test knows, so these two have no bound until it sets one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Most runnable tasks on the busiest CPU, as a multiple of those on the least busy (at least 1).
    pub max_imbalance_ratio: Option<f64>,
    /// Most tasks on one CPU's local DSQ.
    pub max_local_dsq_depth: Bound<u64>,
    /// Whether the runqueue clock of a busy CPU must move.
    pub fail_on_rq_clock_stuck: Bound<()>,
    /// Most times that `ops.select_cpu` named a CPU that the task may not use
    /// (`SCX_EV_SELECT_CPU_FALLBACK`), per second of CPU time given to all vCPUs together.
    pub max_fallback_rate: Bound<f64>,
    /// Most times that a task ran on because there was no other (`SCX_EV_DISPATCH_KEEP_LAST`), per second
    /// of CPU time given to all vCPUs together.
    pub max_keep_last_rate: Option<f64>,
    /// Samples in a row that must be beyond a bound.
    pub sustained_samples: u32,
}

impl Thresholds {
    /// A bound for `max_imbalance_ratio` that suits load which may run anywhere.
    pub const MAX_IMBALANCE_RATIO: f64 = 4.0;
    /// Bound of `max_local_dsq_depth` unless the test sets another.
    pub const MAX_LOCAL_DSQ_DEPTH: u64 = 50;
    /// Bound of `max_fallback_rate` unless the test sets another.
    pub const MAX_FALLBACK_RATE: f64 = 200.0;
    /// A bound for `max_keep_last_rate` that suits slices of 20 ms, `SCX_SLICE_DFL`.
    pub const MAX_KEEP_LAST_RATE: f64 = 100.0;
    /// Samples in a row that must be beyond a bound unless the test says otherwise.
    pub const SUSTAINED_SAMPLES: u32 = 5;

    /// The bounds of a test that says nothing about them.
    pub const DEFAULT: Self = Self {
        max_imbalance_ratio: None,
        max_local_dsq_depth: Bound::Default(Self::MAX_LOCAL_DSQ_DEPTH),
        fail_on_rq_clock_stuck: Bound::Default(()),
        max_fallback_rate: Bound::Default(Self::MAX_FALLBACK_RATE),
        max_keep_last_rate: None,
        sustained_samples: Self::SUSTAINED_SAMPLES,
    };

    /// All bounds, at their customary values.
    pub const ALL: Self = Self {
        max_imbalance_ratio: Some(Self::MAX_IMBALANCE_RATIO),
        max_local_dsq_depth: Bound::Set(Self::MAX_LOCAL_DSQ_DEPTH),
        fail_on_rq_clock_stuck: Bound::Set(()),
        max_fallback_rate: Bound::Set(Self::MAX_FALLBACK_RATE),
        max_keep_last_rate: Some(Self::MAX_KEEP_LAST_RATE),
        sustained_samples: Self::SUSTAINED_SAMPLES,
    };
}

impl Default for Thresholds {
    fn default() -> Self {
        Self::DEFAULT
    }
}
