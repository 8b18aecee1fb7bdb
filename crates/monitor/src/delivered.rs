//! CPU time that the host gave to vCPUs between two samples.

use crate::sample::{Sample, VcpuTime};

/// CPU time that one vCPU may have had, and how much of it others may have had instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// CPU time of the thread that runs the vCPU.
    pub(crate) thread_ns: u64,
    /// Longest that other vCPUs on the same thread keep it from its turn.
    pub(crate) others_ns: u64,
}

impl Delivered {
    /// Whether the vCPU surely ran for `needed_ns`.
    pub(crate) fn surely(self, needed_ns: u64) -> bool {
        self.thread_ns >= self.others_ns.saturating_add(needed_ns)
    }
}

/// What `cpu` was given between two samples; `None` if the host can't tell.
pub(crate) fn to_cpu(before: &Sample, after: &Sample, cpu: usize) -> Option<Delivered> {
    match (before.vcpu_time.as_ref(), after.vcpu_time.as_ref()) {
        (Ok(VcpuTime::Own(before)), Ok(VcpuTime::Own(after))) => Some(Delivered {
            thread_ns: after.get(cpu)?.checked_sub(*before.get(cpu)?)?,
            others_ns: 0,
        }),
        (Ok(VcpuTime::Shared { .. }), Ok(VcpuTime::Shared { .. })) => on_shared(before, after),
        _ => None,
    }
}

/// What every vCPU was given between two samples on an engine where they share one thread; `None` on
/// others.
pub(crate) fn on_shared(before: &Sample, after: &Sample) -> Option<Delivered> {
    let (
        Ok(VcpuTime::Shared {
            thread_ns: earlier, ..
        }),
        Ok(VcpuTime::Shared { thread_ns, turn_ns }),
    ) = (before.vcpu_time.as_ref(), after.vcpu_time.as_ref())
    else {
        return None;
    };
    let others = u64::try_from(after.cpus.len().saturating_sub(1)).unwrap_or(u64::MAX);
    Some(Delivered {
        thread_ns: thread_ns.checked_sub(*earlier)?,
        others_ns: others.saturating_mul(*turn_ns),
    })
}

/// What all vCPUs together were given between two samples. Known only if it is known for each.
pub(crate) fn to_all(before: &Sample, after: &Sample) -> Option<u64> {
    match (before.vcpu_time.as_ref(), after.vcpu_time.as_ref()) {
        (Ok(VcpuTime::Own(before)), Ok(VcpuTime::Own(after))) => {
            if before.len() != after.len() || after.is_empty() {
                return None;
            }
            let mut pairs = before.iter().zip(after);
            pairs.try_fold(0_u64, |sum, (before, after)| {
                Some(sum.saturating_add(after.checked_sub(*before)?))
            })
        }
        _ => on_shared(before, after).map(|shared| shared.thread_ns),
    }
}
