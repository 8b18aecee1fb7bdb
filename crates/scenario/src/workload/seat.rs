//! What one worker is given by the harness, and what it leaves there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use ktstr_report::WorkerReport;

use super::gate::Gate;
use super::link::Link;
use super::shared::{GroupCell, Shared, Slot};
use super::syscalls::{futex_wait, futex_wake_all};
use super::telemetry::now_ns;
use super::types::{Facts, WorkType};

/// Stages of a worker, in order; a slot begins with 0.
pub(super) const WAITING: u32 = 1;
pub(super) const RUNNING: u32 = 2;
pub(super) const DONE: u32 = 3;

/// Longest sleep before looking again for workers that died without a word.
const LOOK_SLICE_NS: u64 = 20_000_000;

/// Memory shared by one workload's workers and the harness.
#[derive(Clone, Debug)]
pub(super) struct Board {
    pub(super) slots: Arc<Shared<Slot>>,
    flags: Arc<Shared<AtomicU32>>,
    cells: Arc<Shared<GroupCell>>,
    facts: Facts,
}

impl Board {
    pub(super) fn new(workers: usize, facts: Facts) -> nix::Result<Self> {
        let cells = workers / facts.group_size * facts.group_cells;
        Ok(Self {
            slots: Arc::new(Shared::new(workers)?),
            flags: Arc::new(Shared::new(2)?),
            cells: Arc::new(Shared::new(cells)?),
            facts,
        })
    }

    /// Place of a worker in its group.
    pub(super) fn member(&self, index: usize) -> usize {
        index % self.facts.group_size
    }

    /// What the workers of its group share.
    pub(super) fn cells(&self, index: usize) -> &[GroupCell] {
        let first = index / self.facts.group_size * self.facts.group_cells;
        &self.cells[first..first + self.facts.group_cells]
    }

    /// Not 0: the workers are to stop.
    pub(super) fn stop(&self) -> &AtomicU32 {
        &self.flags[0]
    }

    /// Counts changes of stage, so that the harness can sleep on it.
    fn changes(&self) -> &AtomicU32 {
        &self.flags[1]
    }

    pub(super) fn request_stop(&self) {
        self.stop().store(1, Ordering::Release);
        futex_wake_all(self.stop());
    }

    pub(super) fn stage(&self, index: usize) -> u32 {
        self.slots[index].stage.load(Ordering::Acquire)
    }

    pub(super) fn set_stage(&self, index: usize, stage: u32) {
        self.slots[index].stage.store(stage, Ordering::Release);
        self.changes().fetch_add(1, Ordering::AcqRel);
        futex_wake_all(self.changes());
    }

    pub(super) fn wait_until(&self, deadline: Instant, mut met: impl FnMut() -> bool) {
        while !met() && Instant::now() < deadline {
            self.sleep_on_change();
        }
    }

    /// Sleeps until a worker comes to another stage, but not long.
    pub(super) fn sleep_on_change(&self) {
        let seen = self.changes().load(Ordering::Acquire);
        futex_wait(self.changes(), seen, now_ns() + LOOK_SLICE_NS);
    }

    /// Leaves a report for the harness.
    pub(super) fn put_report(&self, index: usize, report: &WorkerReport) {
        let slot = &self.slots[index];
        let Ok(bytes) = postcard::to_stdvec(report) else {
            return;
        };
        let Ok(len) = u32::try_from(bytes.len()) else {
            return;
        };
        if bytes.len() > slot.report.len() {
            return;
        }
        for (to, from) in slot.report.iter().zip(&bytes) {
            to.store(*from, Ordering::Relaxed);
        }
        slot.report_len.store(len, Ordering::Release);
    }

    /// The report that a worker left; the reason if there is none that can be read. A worker that was
    /// killed half-way, or whose work wrote where it should not, leaves none.
    pub(super) fn report(&self, index: usize) -> Result<WorkerReport, String> {
        let slot = &self.slots[index];
        let len = slot.report_len.load(Ordering::Acquire) as usize;
        if len == 0 {
            return Err("it left no report".to_owned());
        }
        let stored = slot
            .report
            .get(..len)
            .ok_or("its report has a wrong length")?;
        let bytes: Vec<u8> = stored
            .iter()
            .map(|byte| byte.load(Ordering::Relaxed))
            .collect();
        postcard::from_bytes(&bytes).map_err(|error| format!("its report can't be read: {error}"))
    }
}

/// Everything that a worker needs.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) index: usize,
    pub(super) board: Board,
    pub(super) gate: Gate,
    pub(super) link: Link,
    pub(super) work_type: WorkType,
    pub(super) comm: String,
    /// Whether it is to allocate memory and tell where that is.
    pub(super) tell_memory: bool,
}
