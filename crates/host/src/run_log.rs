//! What happens in a run, as lines of the harness's own log.

use tracing::{debug, info};

use crate::events::{RunEvent, RunObserver};

/// Logs the events of one test's run.
#[derive(Debug)]
pub struct RunLog {
    test: String,
}

impl RunLog {
    /// For the test of this name.
    pub fn new(test: &str) -> Self {
        Self {
            test: test.to_owned(),
        }
    }
}

impl RunObserver for RunLog {
    fn event(&mut self, event: &RunEvent<'_>) {
        let test = self.test.as_str();
        match event {
            RunEvent::Prepared { memory } => {
                debug!(test, memory_mib = memory.total_mib(), "prepared");
            }
            RunEvent::Queued(waiting) => info!(test, "{waiting}"),
            RunEvent::Booting { attempt, queued } => info!(test, attempt, ?queued, "booting"),
            RunEvent::Terminal(_) => debug!(test, "terminal"),
            RunEvent::Booted { release } => info!(test, release, "booted"),
            RunEvent::Stage(stage) => info!(test, ?stage, "stage"),
            RunEvent::Attached { ops } => info!(test, ops, "attached"),
            RunEvent::Output { stream, bytes, .. } => {
                debug!(test, ?stream, bytes = bytes.len(), "output");
            }
            RunEvent::Snapshot { label } => info!(test, label, "snapshot"),
            RunEvent::Retry(attempt) => info!(test, fault = attempt.fault, "retry"),
            RunEvent::Fallback { engine, remark } => {
                info!(test, engine = engine.name, remark, "fallback");
            }
            RunEvent::Remark(remark) => info!(test, remark, "remark"),
            RunEvent::Ended(end) => info!(test, %end, "ended"),
        }
    }
}
