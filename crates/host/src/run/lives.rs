//! What became of the scheduler under test, each time that it was attached.

use ktstr_machine::BoundedText;
use ktstr_report::{SchedulerEnd, SchedulerReport};
use ktstr_wire::MAX_SCHEDULER_LIVES;

/// Kept of what a process of the guest prints: the beginning and the end.
const MAX_PRINTED_BYTES: usize = 512 << 10;

/// The lives of a scheduler, as a guest tells of them. Of more than a guest of ours has, the rest is dropped.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    over: Vec<Life>,
    current: Life,
}

/// One life.
#[derive(Debug)]
pub(crate) struct Life {
    /// Name that the kernel had for it, once it was attached.
    pub(crate) attached: Option<String>,
    /// What became of it.
    pub(crate) report: Option<SchedulerReport>,
    /// What it printed.
    pub(crate) log: BoundedText,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            attached: None,
            report: None,
            log: printed(),
        }
    }
}

impl Life {
    fn is_known(&self) -> bool {
        self.attached.is_some() || self.report.is_some()
    }
}

impl Lives {
    /// The kernel has attached it. The first name stands.
    pub(crate) fn attached(&mut self, ops: String) {
        self.current.attached.get_or_insert(ops);
    }

    pub(crate) fn printed(&mut self, bytes: &[u8]) {
        self.current.log.push(bytes);
    }

    /// The life is over before the body is.
    pub(crate) fn detached(&mut self, report: SchedulerReport) {
        self.ended(report);
        let over = std::mem::take(&mut self.current);
        if self.over.len() < MAX_SCHEDULER_LIVES as usize {
            self.over.push(over);
        }
    }

    /// The life is over with the test. The first report stands.
    pub(crate) fn ended(&mut self, report: SchedulerReport) {
        self.current.report.get_or_insert(report);
    }

    /// All of which something is known, in order, and how each ends if all is well.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Life, SchedulerEnd)> {
        let over = self.over.iter().map(|life| (life, SchedulerEnd::Detached));
        let current = Some(&self.current).filter(|life| life.is_known());
        over.chain(current.map(|life| (life, SchedulerEnd::Attached)))
    }

    /// A report of each, at least one; `blank` is that of a life of which the guest did not report.
    pub(crate) fn reports(self, blank: &SchedulerReport) -> Vec<SchedulerReport> {
        let Self { mut over, current } = self;
        if over.is_empty() || current.is_known() {
            over.push(current);
        }
        let lives = over.into_iter().zip(1..);
        let report = |(life, number): (Life, u32)| SchedulerReport {
            log: life.log.text(),
            ..life.report.unwrap_or(SchedulerReport {
                ops: life.attached,
                life: number,
                ..blank.clone()
            })
        };
        lives.map(report).collect()
    }
}

/// Room for what a process of the guest prints, which it may do without end.
pub(super) const fn printed() -> BoundedText {
    BoundedText::new(MAX_PRINTED_BYTES / 2, MAX_PRINTED_BYTES / 2)
}
