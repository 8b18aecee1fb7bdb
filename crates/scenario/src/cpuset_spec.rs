//! Which CPUs a cgroup gets, said in terms of the machine's shape.

use ktstr_topology::{CpuSet, Topology};

/// CPUs of a cgroup, resolved against the machine's [`Topology`]. All CPUs of the machine count; none is
/// held back.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum CpusetSpec {
    /// The CPUs under LLC number `.0`.
    Llc(u32),
    /// The CPUs of NUMA node number `.0`.
    Numa(u32),
    /// From fraction `.0` to fraction `.1` of all CPUs, each from 0.0 to 1.0, rounded to whole CPUs.
    Range(f64, f64),
    /// Part `i` of `n` equal parts that share no CPU. CPUs that can't be shared out evenly go one each to
    /// the first parts.
    Disjoint {
        /// Which part, from 0.
        i: u32,
        /// How many parts.
        n: u32,
    },
    /// Part `i` of `n` as in [`CpusetSpec::Disjoint`], widened on both sides by `frac` of its own size
    /// (rounded up), as far as the machine goes.
    Overlap {
        /// Which part, from 0.
        i: u32,
        /// How many parts.
        n: u32,
        /// How much wider, from 0.0 to 1.0.
        frac: f64,
    },
    /// Exactly these CPUs.
    Exact(CpuSet),
}

/// Why a [`CpusetSpec`] names no CPUs on this machine.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CpusetSpecError {
    /// No such LLC or node.
    #[error("there is no {level} {index}: the machine has {count} ({topology})")]
    NoSuch {
        /// `LLC` or `NUMA node`.
        level: &'static str,
        /// The number asked for.
        index: u32,
        /// How many there are; they are numbered from 0.
        count: u32,
        /// The machine.
        topology: Topology,
    },
    /// A fraction outside 0.0 to 1.0, or a range that runs backwards.
    #[error("the range {start} to {end} is not a rising pair of fractions between 0.0 and 1.0")]
    BadRange {
        /// Start of the range.
        start: f64,
        /// End of the range.
        end: f64,
    },
    /// A part that isn't one of the parts.
    #[error("there is no part {i} of {n}: parts are numbered from 0 to n - 1")]
    NoSuchPart {
        /// The part asked for.
        i: u32,
        /// Parts in all.
        n: u32,
    },
    /// The overlap isn't a fraction.
    #[error("an overlap of {frac} is not a fraction between 0.0 and 1.0")]
    BadOverlap {
        /// The overlap asked for.
        frac: f64,
    },
    /// The machine is too small for what is asked.
    #[error(
        "{spec} holds no CPU on this machine ({topology}): declare a larger one or ask for less"
    )]
    Empty {
        /// What was asked for.
        spec: String,
        /// The machine.
        topology: Topology,
    },
    /// CPUs that the machine lacks.
    #[error("CPUs {missing} are not on this machine, which has CPUs {have}")]
    NotThere {
        /// CPUs asked for that aren't there.
        missing: CpuSet,
        /// CPUs that are.
        have: CpuSet,
    },
}

impl CpusetSpec {
    /// [`CpusetSpec::Llc`].
    pub const fn llc(index: u32) -> Self {
        Self::Llc(index)
    }

    /// [`CpusetSpec::Numa`].
    pub const fn numa(index: u32) -> Self {
        Self::Numa(index)
    }

    /// [`CpusetSpec::Range`].
    pub const fn range(start: f64, end: f64) -> Self {
        Self::Range(start, end)
    }

    /// [`CpusetSpec::Disjoint`].
    pub const fn disjoint(i: u32, n: u32) -> Self {
        Self::Disjoint { i, n }
    }

    /// [`CpusetSpec::Overlap`].
    pub const fn overlap(i: u32, n: u32, frac: f64) -> Self {
        Self::Overlap { i, n, frac }
    }

    /// [`CpusetSpec::Exact`].
    pub const fn exact(cpus: CpuSet) -> Self {
        Self::Exact(cpus)
    }

    /// The CPUs on a machine of this shape; never empty.
    pub fn resolve(&self, topology: &Topology) -> Result<CpuSet, CpusetSpecError> {
        let cpus = match self {
            Self::Llc(index) => {
                check_index("LLC", *index, topology.llcs(), topology)?;
                topology.llc_cpus(*index)
            }
            Self::Numa(index) => {
                check_index("NUMA node", *index, topology.numa_nodes(), topology)?;
                topology.node_cpus(*index)
            }
            Self::Range(start, end) => fraction_range(*start, *end, topology.cpu_count())?,
            Self::Disjoint { i, n } => part(*i, *n, 0.0, topology.cpu_count())?,
            Self::Overlap { i, n, frac } => part(*i, *n, *frac, topology.cpu_count())?,
            Self::Exact(cpus) => {
                let missing = cpus.difference(&topology.cpus());
                if !missing.is_empty() {
                    let have = topology.cpus();
                    return Err(CpusetSpecError::NotThere { missing, have });
                }
                cpus.clone()
            }
        };
        if cpus.is_empty() {
            return Err(CpusetSpecError::Empty {
                spec: format!("{self:?}"),
                topology: *topology,
            });
        }
        Ok(cpus)
    }
}

fn check_index(
    level: &'static str,
    index: u32,
    count: u32,
    topology: &Topology,
) -> Result<(), CpusetSpecError> {
    if index < count {
        return Ok(());
    }
    Err(CpusetSpecError::NoSuch {
        level,
        index,
        count,
        topology: *topology,
    })
}

fn fraction_range(start: f64, end: f64, cpus: u32) -> Result<CpuSet, CpusetSpecError> {
    // Written so that a NaN is refused as well.
    if !(0.0 <= start && start <= end && end <= 1.0) {
        return Err(CpusetSpecError::BadRange { start, end });
    }
    let first = share(start, cpus, f64::round);
    let last = share(end, cpus, f64::round);
    Ok(CpuSet::from_range(first..last))
}

fn part(i: u32, n: u32, frac: f64, cpus: u32) -> Result<CpuSet, CpusetSpecError> {
    if i >= n {
        return Err(CpusetSpecError::NoSuchPart { i, n });
    }
    if !(0.0..=1.0).contains(&frac) {
        return Err(CpusetSpecError::BadOverlap { frac });
    }
    let (size, extra) = (cpus / n, cpus % n);
    let first = i * size + i.min(extra);
    let last = first + size + u32::from(i < extra);
    if first == last {
        return Ok(CpuSet::new());
    }
    let wider = share(frac, last - first, f64::ceil);
    Ok(CpuSet::from_range(
        first.saturating_sub(wider)..(last + wider).min(cpus),
    ))
}

/// `frac` (0.0 to 1.0) of `count`, in whole numbers.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a fraction of a u32 is a u32"
)]
pub(crate) fn share(frac: f64, count: u32, round: fn(f64) -> f64) -> u32 {
    round(frac * f64::from(count)) as u32
}
