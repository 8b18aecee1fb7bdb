//! Scheduling policies.

use std::fmt;
use std::time::Duration;

use ktstr_report::PolicyKind;

use super::WorkloadError;
use super::syscalls::{SchedAttr, sched_setattr};

/// include/uapi/linux/sched.h; not in the libc crate.
const SCHED_EXT: u32 = 7;

/// The policy under which a worker runs (sched(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchedPolicy {
    /// SCHED_OTHER: the kernel's fair scheduler, or the sched_ext scheduler when it took over all tasks.
    #[default]
    Normal,
    /// SCHED_BATCH.
    Batch,
    /// SCHED_IDLE.
    Idle,
    /// SCHED_FIFO with a priority from 1 to 99.
    Fifo(u8),
    /// SCHED_RR with a priority from 1 to 99.
    RoundRobin(u8),
    /// SCHED_DEADLINE. The kernel demands runtime <= deadline <= period, and that the worker may use every
    /// CPU of its root domain.
    Deadline {
        /// CPU time in each period.
        runtime: Duration,
        /// By when in each period.
        deadline: Duration,
        /// The period.
        period: Duration,
    },
    /// SCHED_EXT: the sched_ext scheduler, also when it takes only tasks that ask for it. Without one it
    /// is SCHED_OTHER.
    Ext,
}

impl SchedPolicy {
    pub(super) fn check(self) -> Result<(), WorkloadError> {
        match self {
            Self::Fifo(priority) | Self::RoundRobin(priority) => {
                check_range("the real-time priority", i64::from(priority), 1, 99)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn apply(self, tid: i32, nice: i32) -> Result<(), WorkloadError> {
        sched_setattr(tid, self.attr(nice)).map_err(|source| WorkloadError::Policy {
            tid,
            policy: format!("{self} with nice {nice}"),
            source,
        })
    }

    /// The policy that the kernel says a task has, with its niceness if it has one; as an error the number of
    /// one that isn't known here.
    pub(super) fn of_attr(attr: SchedAttr) -> Result<(Self, i32), u32> {
        let priority = u8::try_from(attr.priority).unwrap_or(u8::MAX);
        let policy = match i32::try_from(attr.policy).unwrap_or(i32::MAX) {
            libc::SCHED_OTHER => Self::Normal,
            libc::SCHED_BATCH => Self::Batch,
            libc::SCHED_IDLE => Self::Idle,
            libc::SCHED_FIFO => Self::Fifo(priority),
            libc::SCHED_RR => Self::RoundRobin(priority),
            libc::SCHED_DEADLINE => Self::Deadline {
                runtime: Duration::from_nanos(attr.runtime_ns),
                deadline: Duration::from_nanos(attr.deadline_ns),
                period: Duration::from_nanos(attr.period_ns),
            },
            _ if attr.policy == SCHED_EXT => Self::Ext,
            _ => return Err(attr.policy),
        };
        Ok((policy, attr.nice))
    }

    /// What it shares CPU time by.
    pub(super) const fn kind(self) -> PolicyKind {
        match self {
            Self::Normal | Self::Batch | Self::Ext => PolicyKind::Weighted,
            Self::Idle => PolicyKind::Idle,
            Self::Fifo(_) | Self::RoundRobin(_) => PolicyKind::RealTime,
            Self::Deadline { .. } => PolicyKind::Deadline,
        }
    }

    /// Policy and parameters: `SCHED_FIFO 50`, `SCHED_OTHER, nice 5`. sched_setattr(2) takes no niceness for
    /// the others, SCHED_IDLE included (`fair_policy()` in kernel/sched/sched.h).
    pub(super) fn describe(self, nice: i32) -> String {
        match self.kind() {
            PolicyKind::Weighted => format!("{self}, nice {nice}"),
            PolicyKind::Idle | PolicyKind::RealTime | PolicyKind::Deadline => self.to_string(),
        }
    }

    fn attr(self, nice: i32) -> SchedAttr {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let fair = |policy: i32| SchedAttr {
            policy: policy.unsigned_abs(),
            nice,
            ..SchedAttr::default()
        };
        let real_time = |policy: i32, priority: u8| SchedAttr {
            policy: policy.unsigned_abs(),
            priority: u32::from(priority),
            ..SchedAttr::default()
        };
        match self {
            Self::Normal => fair(libc::SCHED_OTHER),
            Self::Batch => fair(libc::SCHED_BATCH),
            Self::Idle => fair(libc::SCHED_IDLE),
            Self::Fifo(priority) => real_time(libc::SCHED_FIFO, priority),
            Self::RoundRobin(priority) => real_time(libc::SCHED_RR, priority),
            Self::Deadline {
                runtime,
                deadline,
                period,
            } => SchedAttr {
                policy: libc::SCHED_DEADLINE.unsigned_abs(),
                runtime_ns: ns(runtime),
                deadline_ns: ns(deadline),
                period_ns: ns(period),
                ..SchedAttr::default()
            },
            Self::Ext => SchedAttr {
                policy: SCHED_EXT,
                nice,
                ..SchedAttr::default()
            },
        }
    }
}

impl fmt::Display for SchedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.write_str("SCHED_OTHER"),
            Self::Batch => f.write_str("SCHED_BATCH"),
            Self::Idle => f.write_str("SCHED_IDLE"),
            Self::Fifo(priority) => write!(f, "SCHED_FIFO {priority}"),
            Self::RoundRobin(priority) => write!(f, "SCHED_RR {priority}"),
            Self::Deadline {
                runtime,
                deadline,
                period,
            } => write!(f, "SCHED_DEADLINE {runtime:?}/{deadline:?}/{period:?}"),
            Self::Ext => f.write_str("SCHED_EXT"),
        }
    }
}

pub(super) fn check_range(
    what: &'static str,
    value: i64,
    min: i64,
    max: i64,
) -> Result<(), WorkloadError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(WorkloadError::OutOfRange {
        what,
        value,
        min,
        max,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells_reads_as_what_was_declared() {
        let ms = Duration::from_millis;
        for policy in [
            SchedPolicy::Normal,
            SchedPolicy::Batch,
            SchedPolicy::Idle,
            SchedPolicy::Fifo(50),
            SchedPolicy::RoundRobin(1),
            SchedPolicy::Deadline {
                runtime: ms(1),
                deadline: ms(5),
                period: ms(10),
            },
            SchedPolicy::Ext,
        ] {
            let told = SchedPolicy::of_attr(policy.attr(3)).map(|(told, _)| told.describe(3));
            assert_eq!(told, Ok(policy.describe(3)));
        }
        assert_eq!(SchedPolicy::Normal.describe(3), "SCHED_OTHER, nice 3");
        // The kernel leaves its niceness as it was.
        assert_eq!(SchedPolicy::Idle.describe(3), "SCHED_IDLE");
    }
}
