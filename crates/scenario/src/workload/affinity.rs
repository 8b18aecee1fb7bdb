//! Which CPUs each worker of a cgroup is bound to.

use ktstr_topology::{CpuSet, Topology};

/// How the workers of one cgroup are bound to CPUs, within the CPUs that the cgroup has.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum AffinityIntent {
    /// Not bound beyond their cgroup.
    #[default]
    Inherit,
    /// Each to one CPU: the cgroup's CPUs in turn.
    SingleCpu,
    /// Each to the cgroup's CPUs of one LLC: the LLCs in turn.
    LlcAligned,
    /// Each two to the two threads of one core: the cores in turn. Needs a machine with two threads a core.
    SmtSiblingPair,
    /// All to exactly these.
    Exact(CpuSet),
}

/// Why workers can't be bound as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AffinityError {
    /// CPUs outside the cgroup.
    #[error(
        "CPUs {outside} are not among the cgroup's CPUs {allowed}: widen its cpuset or bind to fewer"
    )]
    Outside {
        /// CPUs asked for in vain.
        outside: CpuSet,
        /// CPUs that the cgroup has.
        allowed: CpuSet,
    },
    /// No CPU at all.
    #[error("binding to no CPU: name at least one")]
    Empty,
    /// No siblings.
    #[error(
        "no core of the cgroup's CPUs {allowed} has both its threads there: declare `threads = 2` and leave \
         cores whole"
    )]
    NoSiblings {
        /// CPUs that the cgroup has.
        allowed: CpuSet,
    },
}

impl AffinityIntent {
    /// The CPUs of each of `workers` workers in a cgroup that has `allowed`; `None` for one that is not
    /// bound.
    pub fn resolve(
        &self,
        topology: &Topology,
        allowed: &CpuSet,
        workers: usize,
    ) -> Result<Vec<Option<CpuSet>>, AffinityError> {
        let in_turn = |sets: &[CpuSet]| {
            let sets = sets.iter().cycle().take(workers);
            sets.cloned().map(Some).collect()
        };
        if *self != Self::Inherit && allowed.is_empty() {
            return Err(AffinityError::Empty);
        }
        match self {
            Self::Inherit => Ok(vec![None; workers]),
            Self::SingleCpu => {
                let singles: Vec<CpuSet> = allowed
                    .iter()
                    .map(|cpu| CpuSet::from_range(cpu..cpu + 1))
                    .collect();
                Ok(in_turn(&singles))
            }
            Self::LlcAligned => {
                let llcs: Vec<CpuSet> = (0..topology.llcs())
                    .map(|llc| topology.llc_cpus(llc).intersection(allowed))
                    .filter(|cpus| !cpus.is_empty())
                    .collect();
                Ok(in_turn(&llcs))
            }
            Self::SmtSiblingPair => {
                let pairs = sibling_pairs(topology, allowed);
                if pairs.is_empty() {
                    let allowed = allowed.clone();
                    return Err(AffinityError::NoSiblings { allowed });
                }
                let each_twice: Vec<CpuSet> =
                    pairs.into_iter().flat_map(|p| [p.clone(), p]).collect();
                Ok(in_turn(&each_twice))
            }
            Self::Exact(cpus) => {
                let outside = cpus.difference(allowed);
                if !outside.is_empty() {
                    let allowed = allowed.clone();
                    return Err(AffinityError::Outside { outside, allowed });
                }
                if cpus.is_empty() {
                    return Err(AffinityError::Empty);
                }
                Ok(vec![Some(cpus.clone()); workers])
            }
        }
    }
}

fn sibling_pairs(topology: &Topology, allowed: &CpuSet) -> Vec<CpuSet> {
    let threads = topology.threads_per_core();
    if threads < 2 {
        return Vec::new();
    }
    (0..topology.cpu_count())
        .step_by(threads as usize)
        .map(|first| topology.thread_siblings(first))
        .filter(|siblings| siblings.is_subset(allowed))
        .collect()
}
