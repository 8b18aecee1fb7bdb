//! Watching a running scheduler from outside.
//!
//! A [`Sampler`] takes a [`Sample`] of the guest on a thread of its own, from a [`Source`] that only reads, into a
//! bounded [`Recording`]: every 100 ms, or when the guest has paused its machine, as its [`Clock`] says. [`judge`] holds
//! a recording against the checks of a test ([`Assert`](ktstr_report::Assert)) and
//! gives the same checks as everything else that is judged; it is a pure function, so that a recording can
//! be judged again anywhere. A [`Series`] is one value over time, with what can be asserted of it.
//!
//! What could not be read says why ([`Missing`]), and is never taken for a value that holds.

#![warn(missing_docs)]

mod clock;
mod delivered;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod kernel_source;
mod recording;
mod sample;
mod sampler;
mod series;
mod starved;
pub mod state;
mod verdict;

use std::time::Duration;

pub use clock::Clock;
pub use kernel_source::{KernelSource, VcpuTimes};
pub use ktstr_introspect::bpf::Value;
pub use recording::{Cost, Recording};
pub use sample::{
    CpuSample, Missing, Reading, RqSample, Sample, SchedExtSample, SchedExtState, SchedStats,
    ScxRqSample, VcpuTime,
};
pub use sampler::{Look, Sampler, Settings, Source};
pub use series::{Point, Series};
pub use starved::{MIN_VCPU_SHARE_PCT, STALL_SPAN, vcpu_share_pct_before};
pub use verdict::{PhaseSpan, Span, judge, judge_phases, without_samples};

/// Time between two samples unless set otherwise.
pub const DEFAULT_INTERVAL: Duration = Duration::from_millis(100);
