//! The phases of a body: which one is next, and what happened in each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ktstr_report::{Phase, PhaseReport};

use crate::Host;
use crate::sched_ext;
use crate::workload::monotonic_ns;

/// Counts the phases of a body. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Phases {
    began_ns: u64,
    scheduler: Option<String>,
    steps: Arc<AtomicU32>,
}

/// A phase that has begun.
#[derive(Debug)]
pub(crate) struct OpenPhase {
    phase: Phase,
    from_ns: u64,
    scheduler_from: Option<String>,
}

impl Phases {
    /// The body begins now.
    pub(crate) fn begin() -> Self {
        Self {
            began_ns: monotonic_ns(),
            scheduler: sched_ext::attached(),
            steps: Arc::default(),
        }
    }

    /// Begins the next step. Before the first, the baseline ends, which is added to `reports`.
    pub(crate) fn next_step(
        &self,
        host: Option<&dyn Host>,
        reports: &mut Vec<PhaseReport>,
    ) -> OpenPhase {
        let step = self.steps.fetch_add(1, Ordering::Relaxed);
        let opened = OpenPhase {
            phase: Phase::step(step),
            from_ns: monotonic_ns(),
            scheduler_from: sched_ext::attached(),
        };
        if step == 0 {
            reports.push(PhaseReport {
                phase: Phase::BASELINE,
                from_ns: self.began_ns,
                to_ns: opened.from_ns,
                cgroups: Vec::new(),
                scheduler_from: self.scheduler.clone(),
                scheduler_to: opened.scheduler_from.clone(),
            });
        }
        tell(host, opened.phase, true);
        opened
    }
}

impl OpenPhase {
    /// Ends the phase. Its figures are for the caller to add.
    pub(crate) fn end(self, host: Option<&dyn Host>) -> PhaseReport {
        tell(host, self.phase, false);
        PhaseReport {
            phase: self.phase,
            from_ns: self.from_ns,
            to_ns: monotonic_ns(),
            cgroups: Vec::new(),
            scheduler_from: self.scheduler_from,
            scheduler_to: sched_ext::attached(),
        }
    }
}

fn tell(host: Option<&dyn Host>, phase: Phase, begins: bool) {
    if let Some(host) = host {
        // A link that broke ends the machine elsewhere.
        let _ = host.phase(phase, begins);
    }
}
