//! How many of each level there are, and who belongs to whom.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::CpuSet;
use crate::limits::MAX_CPUS;

/// A machine's shape: every LLC has the same number of cores, every core the same number of threads,
/// every NUMA node the same number of LLCs. What memory the nodes have, and nodes without CPUs, are in
/// [`NumaMemory`](crate::NumaMemory).
///
/// CPUs are numbered in the order in which the guest kernel finds them: the threads of a core next to
/// each other, then the cores of an LLC, then the LLCs of a node, then the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Counts", into = "Counts")]
pub struct Topology {
    numa_nodes: u32,
    llcs: u32,
    cores: u32,
    threads: u32,
}

/// The unchecked form that travels: deserialising goes through [`Topology::new`].
#[derive(Serialize, Deserialize)]
struct Counts {
    numa_nodes: u32,
    llcs: u32,
    cores: u32,
    threads: u32,
}

/// One of the four numbers that a shape is declared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// NUMA nodes with CPUs.
    NumaNodes,
    /// Last-level caches in the machine.
    Llcs,
    /// Cores in each LLC.
    Cores,
    /// Hardware threads on each core.
    Threads,
}

impl Count {
    /// All, in the order in which they are declared.
    pub const ALL: [Self; 4] = [Self::NumaNodes, Self::Llcs, Self::Cores, Self::Threads];

    /// The attribute that declares it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NumaNodes => "numa_nodes",
            Self::Llcs => "llcs",
            Self::Cores => "cores",
            Self::Threads => "threads",
        }
    }
}

/// Why a shape can't be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// A level has no members.
    #[error("`{}` is 0: a machine needs at least one of each level", .count.name())]
    Zero {
        /// The level.
        count: Count,
    },
    /// The LLCs can't be shared out evenly.
    #[error(
        "{llcs} LLCs can't be shared evenly among {numa_nodes} NUMA nodes: `llcs` is the total of the \
         machine and must be a multiple of `numa_nodes`"
    )]
    UnevenLlcs {
        /// LLCs in the machine.
        llcs: u32,
        /// NUMA nodes in the machine.
        numa_nodes: u32,
    },
    /// More threads on a core than x86 hardware has.
    #[error("{threads} threads per core: x86 cores have 1 or 2")]
    Threads {
        /// Threads declared per core.
        threads: u32,
    },
    /// More CPUs than any kernel is built for.
    #[error("the shape has more than {MAX_CPUS} CPUs, which no kernel is built for")]
    TooManyCpus,
    /// The text is not four numbers.
    #[error(
        "a topology is four numbers `NODES,LLCS,CORES,THREADS`, such as `1,2,4,1` (two LLCs of four cores)"
    )]
    Syntax,
}

impl TopologyError {
    /// The count that is at fault, if it is one of them and not what they make together.
    pub const fn count(&self) -> Option<Count> {
        match self {
            Self::Zero { count } => Some(*count),
            Self::UnevenLlcs { .. } => Some(Count::Llcs),
            Self::Threads { .. } => Some(Count::Threads),
            Self::TooManyCpus | Self::Syntax => None,
        }
    }
}

impl Topology {
    /// One CPU.
    pub const SINGLE: Self = Self {
        numa_nodes: 1,
        llcs: 1,
        cores: 1,
        threads: 1,
    };

    /// A machine of `numa_nodes` nodes and `llcs` last-level caches *in total*, with `cores` cores an LLC
    /// and `threads` threads a core.
    pub const fn new(
        numa_nodes: u32,
        llcs: u32,
        cores: u32,
        threads: u32,
    ) -> Result<Self, TopologyError> {
        let zero = match (numa_nodes, llcs, cores, threads) {
            (0, ..) => Some(Count::NumaNodes),
            (_, 0, ..) => Some(Count::Llcs),
            (_, _, 0, _) => Some(Count::Cores),
            (.., 0) => Some(Count::Threads),
            _ => None,
        };
        if let Some(count) = zero {
            return Err(TopologyError::Zero { count });
        }
        if threads > 2 {
            return Err(TopologyError::Threads { threads });
        }
        if !llcs.is_multiple_of(numa_nodes) {
            return Err(TopologyError::UnevenLlcs { llcs, numa_nodes });
        }
        match llcs.checked_mul(cores) {
            Some(all) if all <= MAX_CPUS / threads => Ok(Self {
                numa_nodes,
                llcs,
                cores,
                threads,
            }),
            _ => Err(TopologyError::TooManyCpus),
        }
    }

    /// The machine of `declared` counts, in the order of [`Count::ALL`]. Those that are left out are `inherited`;
    /// without that they are 1, but for LLCs: as many as nodes, the least that a machine of several nodes can have.
    pub const fn declared(
        declared: [Option<u32>; 4],
        inherited: Option<Self>,
    ) -> Result<Self, TopologyError> {
        const fn or(declared: Option<u32>, otherwise: u32) -> u32 {
            match declared {
                Some(count) => count,
                None => otherwise,
            }
        }
        let [numa_nodes, llcs, cores, threads] = declared;
        let (nodes, llcs, cores, threads) = match inherited {
            Some(all) => (
                or(numa_nodes, all.numa_nodes),
                or(llcs, all.llcs),
                or(cores, all.cores),
                or(threads, all.threads),
            ),
            None => {
                let nodes = or(numa_nodes, 1);
                (nodes, or(llcs, nodes), or(cores, 1), or(threads, 1))
            }
        };
        Self::new(nodes, llcs, cores, threads)
    }

    /// NUMA nodes with CPUs.
    pub const fn numa_nodes(&self) -> u32 {
        self.numa_nodes
    }

    /// Last-level caches in the machine.
    pub const fn llcs(&self) -> u32 {
        self.llcs
    }

    /// Cores in each LLC.
    pub const fn cores_per_llc(&self) -> u32 {
        self.cores
    }

    /// Hardware threads on each core.
    pub const fn threads_per_core(&self) -> u32 {
        self.threads
    }

    /// LLCs in each NUMA node.
    pub const fn llcs_per_node(&self) -> u32 {
        self.llcs / self.numa_nodes
    }

    /// CPUs (hardware threads) that share an LLC.
    pub const fn cpus_per_llc(&self) -> u32 {
        self.cores * self.threads
    }

    /// CPUs in the machine.
    pub const fn cpu_count(&self) -> u32 {
        self.llcs * self.cpus_per_llc()
    }

    /// All CPUs of the machine.
    pub fn cpus(&self) -> CpuSet {
        CpuSet::from_range(0..self.cpu_count())
    }

    /// The LLC that `cpu` belongs to; `None` if the machine has no such CPU.
    pub fn llc_of(&self, cpu: u32) -> Option<u32> {
        (cpu < self.cpu_count()).then(|| cpu / self.cpus_per_llc())
    }

    /// The NUMA node that `cpu` belongs to; `None` if the machine has no such CPU.
    pub fn node_of(&self, cpu: u32) -> Option<u32> {
        self.llc_of(cpu).map(|llc| llc / self.llcs_per_node())
    }

    /// CPUs under LLC `llc`, empty if the machine has no such LLC.
    pub fn llc_cpus(&self, llc: u32) -> CpuSet {
        self.group(llc, self.llcs, self.cpus_per_llc())
    }

    /// CPUs of NUMA node `node`, empty if the machine has no such node.
    pub fn node_cpus(&self, node: u32) -> CpuSet {
        let size = self.llcs_per_node() * self.cpus_per_llc();
        self.group(node, self.numa_nodes, size)
    }

    /// CPUs on the same core as `cpu`, itself included; empty if the machine has no such CPU.
    pub fn thread_siblings(&self, cpu: u32) -> CpuSet {
        self.group(cpu / self.threads, self.llcs * self.cores, self.threads)
    }

    fn group(&self, index: u32, count: u32, size: u32) -> CpuSet {
        if index >= count {
            return CpuSet::new();
        }
        CpuSet::from_range(index * size..(index + 1) * size)
    }
}

impl TryFrom<Counts> for Topology {
    type Error = TopologyError;

    fn try_from(counts: Counts) -> Result<Self, TopologyError> {
        Self::new(counts.numa_nodes, counts.llcs, counts.cores, counts.threads)
    }
}

impl From<Topology> for Counts {
    fn from(topology: Topology) -> Self {
        Self {
            numa_nodes: topology.numa_nodes,
            llcs: topology.llcs,
            cores: topology.cores,
            threads: topology.threads,
        }
    }
}

/// `1 node, 2 LLCs, 4 cores, 8 CPUs`: the totals, as a person counts them.
impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: u32| if count == 1 { "" } else { "s" };
        let cores = self.llcs * self.cores;
        let cpus = self.cpu_count();
        write!(
            f,
            "{} node{}, {} LLC{}, {cores} core{}, {cpus} CPU{}",
            self.numa_nodes,
            plural(self.numa_nodes),
            self.llcs,
            plural(self.llcs),
            plural(cores),
            plural(cpus),
        )
    }
}

/// Reads `NODES,LLCS,CORES,THREADS`: LLCs in total, cores per LLC, threads per core.
impl FromStr for Topology {
    type Err = TopologyError;

    fn from_str(text: &str) -> Result<Self, TopologyError> {
        let mut counts = text.split(',').map(|part| part.trim().parse::<u32>());
        let mut next = || counts.next()?.ok();
        match (next(), next(), next(), next(), next().is_some()) {
            (Some(nodes), Some(llcs), Some(cores), Some(threads), false)
                if text.split(',').count() == 4 =>
            {
                Self::new(nodes, llcs, cores, threads)
            }
            _ => Err(TopologyError::Syntax),
        }
    }
}
