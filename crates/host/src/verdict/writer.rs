//! The sidecar as it grows with the events of a run.

use std::time::Instant;

use ktstr_report::Sidecar;

use crate::events::{RunEvent, RunObserver};
use crate::millis::millis;

/// Keeps in a sidecar what events say of its test, and passes them on.
pub(crate) struct SidecarWriter<'a> {
    sidecar: &'a mut Sidecar,
    started: Instant,
    next: &'a mut dyn RunObserver,
}

impl<'a> SidecarWriter<'a> {
    /// For a test that began at `started`.
    pub(crate) fn new(
        sidecar: &'a mut Sidecar,
        started: Instant,
        next: &'a mut dyn RunObserver,
    ) -> Self {
        Self {
            sidecar,
            started,
            next,
        }
    }
}

impl RunObserver for SidecarWriter<'_> {
    fn event(&mut self, event: &RunEvent<'_>) {
        let sidecar = &mut *self.sidecar;
        match event {
            RunEvent::Prepared { memory } => {
                sidecar.memory_mib = memory.total_mib();
                sidecar.numa = sidecar.numa.take().map(|_| (*memory).clone());
                sidecar.timings.prepare_ms = millis(self.started.elapsed());
            }
            RunEvent::Booting { queued, .. } => sidecar.timings.queued_ms = millis(*queued),
            RunEvent::Retry(attempt) => sidecar.boot_retries.push((*attempt).clone()),
            RunEvent::Fallback { engine, remark } => {
                sidecar.engine = Some((*engine).clone());
                sidecar.remarks.push((*remark).to_owned());
            }
            // A machine that is tried on another engine is made twice.
            RunEvent::Remark(remark) if !sidecar.remarks.iter().any(|known| known == remark) => {
                sidecar.remarks.push((*remark).to_owned());
            }
            _ => {}
        }
        self.next.event(event);
    }
}
