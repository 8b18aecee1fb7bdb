//! What was declared of cgroups: recorded where it is set.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ktstr_report::Quota;
use ktstr_topology::CpuSet;

use super::entry::{Entry, with_cause};
use super::{CpuMax, Knob};

/// Most changes that are remembered. A test that makes more has its limits not judged.
const MAX_CHANGES: usize = 10_000;

/// Settings of one cgroup that the checks ask for, as they were last declared.
#[derive(Clone, Debug, Default)]
pub(super) struct Declared {
    pub(super) cpu_max: Option<CpuMax>,
    pub(super) cpu_weight: Option<u32>,
    pub(super) cpuset_mems: Option<CpuSet>,
    pub(super) frozen: bool,
}

/// One write to a control file that the checks ask for.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) at: Instant,
    pub(super) cgroup: String,
    pub(super) file: &'static str,
    pub(super) quota: Option<Quota>,
    pub(super) froze: bool,
    /// CPU time of the cgroup right after the write.
    pub(super) cpu_time_ns: Option<u64>,
}

/// All that was declared so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    declared: BTreeMap<String, Declared>,
    changes: Vec<Change>,
    overflowed: bool,
}

impl Ledger {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn declared(&self, cgroup: &str) -> Declared {
        self.inner()
            .declared
            .get(cgroup)
            .cloned()
            .unwrap_or_default()
    }

    /// How many changes there were so far.
    pub(super) fn change_count(&self) -> usize {
        self.inner().changes.len()
    }

    /// The changes of one cgroup, but for the first `passed` of all; `None` if there were too many to remember.
    pub(super) fn changes_after(&self, passed: usize, cgroup: &str) -> Option<Vec<Change>> {
        let inner = self.inner();
        let changes = inner.changes.iter().skip(passed);
        let of_cgroup = changes.filter(|change| change.cgroup == cgroup).cloned();
        (!inner.overflowed).then(|| of_cgroup.collect())
    }

    /// Forgets a cgroup that is gone. What was changed stays known.
    pub(super) fn forget(&self, cgroup: &str) {
        self.inner().declared.remove(cgroup);
    }

    /// Records a write that the kernel took.
    pub(super) fn record(&self, cgroup: &str, entry: &Entry, knob: &Knob) {
        let mut inner = self.inner();
        let declared = inner.declared.entry(cgroup.to_owned()).or_default();
        let mut cpu_time_ns = None;
        match knob {
            Knob::CpuMax(max) => {
                declared.cpu_max = Some(*max);
                cpu_time_ns = read_cpu_time(entry).ok();
            }
            Knob::CpuWeight(weight) => declared.cpu_weight = Some(*weight),
            Knob::Mems(nodes) => {
                declared.cpuset_mems = Some(nodes.clone()).filter(|n| !n.is_empty());
            }
            Knob::Freeze(on) => declared.frozen = *on,
            Knob::Cpus(_) => {}
            _ => return,
        }
        if inner.changes.len() >= MAX_CHANGES {
            inner.overflowed = true;
            return;
        }
        inner.changes.push(Change {
            at: Instant::now(),
            cgroup: cgroup.to_owned(),
            file: knob.file(),
            quota: match knob {
                Knob::CpuMax(max) => max.quota(),
                _ => None,
            },
            froze: *knob == Knob::Freeze(true),
            cpu_time_ns,
        });
    }
}

impl CpuMax {
    /// The limit, if it is one.
    pub(super) fn quota(self) -> Option<Quota> {
        const PERIOD_NS: u64 = 100_000_000;
        let ns = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        match self {
            Self::Max => None,
            Self::Pct(pct) => Some(Quota {
                quota_ns: u64::from(pct) * PERIOD_NS / 100,
                period_ns: PERIOD_NS,
            }),
            Self::Quota { quota, period } => Some(Quota {
                quota_ns: ns(quota),
                period_ns: ns(period).max(1),
            }),
        }
    }
}

/// `usage_usec` of `cpu.stat`, which the kernel keeps for every cgroup, whatever controllers it has
/// (kernel/cgroup/rstat.c), and for tasks of all classes.
pub(super) fn read_cpu_time(entry: &Entry) -> Result<u64, String> {
    const FILE: &str = "cpu.stat";
    let text = entry.read(FILE).map_err(|error| with_cause(&error))?;
    let usage_us = text
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "))
        .and_then(|number| number.trim().parse::<u64>().ok());
    usage_us
        .map(|us| us.saturating_mul(1000))
        .ok_or_else(|| format!("{} has no usage_usec", entry.path(FILE).display()))
}
