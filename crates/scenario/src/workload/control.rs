//! What a kind of work is given to do its work with.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::link::Link;
use super::shared::{GroupCell, Slot};
use super::syscalls::futex_wait;
use super::telemetry::{Telemetry, now_ns};

/// Longest that a worker sleeps before it looks whether it is to stop.
pub(super) const STOP_SLICE_NS: u64 = 50_000_000;

/// A worker's connection to the harness: it tells when to stop, and takes its telemetry.
#[derive(Debug)]
pub struct WorkerControl<'a> {
    pub(super) stop: &'a AtomicU32,
    pub(super) slot: &'a Slot,
    /// Memory that its group shares.
    pub(super) cells: &'a [GroupCell],
    /// Its place in the group, from 0.
    pub(super) member: u32,
    pub(super) link: Link,
    pub(super) telemetry: Telemetry,
}

impl WorkerControl<'_> {
    /// Whether the worker is to stop.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed) != 0
    }

    /// Ends an iteration that did `units` of work: takes the telemetry, and says whether to go on. To be
    /// called every few microseconds to milliseconds of work; the time between two calls is what
    /// `max_gap_ms` judges.
    pub fn iteration(&mut self, units: u64) -> bool {
        self.telemetry.iteration(units, &self.slot.mask_epoch);
        self.telemetry.publish(&self.slot.published);
        !self.stopping()
    }

    /// Sleeps for `time`, or until it is time to stop. How much later than due it runs again is its wake
    /// latency; the sleep itself is no gap. Says whether to go on.
    pub fn sleep(&mut self, time: Duration) -> bool {
        let due_ns = now_ns().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let busy_since = &self.slot.published.busy_since_ns;
        busy_since.store(due_ns, Ordering::Relaxed);
        while !self.stopping() && now_ns() < due_ns {
            futex_wait(self.stop, 0, due_ns);
        }
        let now_ns = now_ns();
        if !self.stopping() {
            self.record_wake(now_ns.saturating_sub(due_ns));
        }
        self.telemetry.resume_at(due_ns.min(now_ns));
        !self.stopping()
    }

    /// Records that the worker was woken: `stamp_ns` is when it was due, by [`WorkerControl::now_ns`].
    pub fn woken(&mut self, stamp_ns: u64) {
        self.record_wake(now_ns().saturating_sub(stamp_ns));
    }

    fn record_wake(&mut self, latency_ns: u64) {
        self.telemetry.wake(latency_ns);
        let published = &self.slot.published;
        published.wakes.fetch_add(1, Ordering::Relaxed);
        published
            .max_wake_ns
            .fetch_max(latency_ns, Ordering::Relaxed);
    }

    /// CLOCK_MONOTONIC, in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        now_ns()
    }

    /// Does nothing more until it is time to stop: for one whose partner is gone.
    pub(super) fn park(&self) {
        while !self.stopping() {
            futex_wait(self.stop, 0, now_ns() + STOP_SLICE_NS);
        }
    }
}
