//! The memory of NUMA nodes: how much each has, how far they are from each other, and how fast they are.

use serde::{Deserialize, Serialize};

use crate::limits::MAX_PERFORMANCE;
use crate::{NumaError, Topology};

/// SLIT distance of a NUMA node to itself (ACPI 6.5, section 5.2.17).
pub const LOCAL_DISTANCE: u8 = 10;

/// SLIT distance between two different NUMA nodes, unless a test declares another.
pub const REMOTE_DISTANCE: u8 = 20;

/// Time to read or write memory of a node that has CPUs, from those, in nanoseconds.
pub const CPU_NODE_LATENCY_NS: u32 = 100;

/// Bandwidth of the memory of a node that has CPUs, from those, in MB/s: about two channels of DDR4.
pub const CPU_NODE_BANDWIDTH_MB_S: u32 = 51_200;

/// Time to read or write memory of a node without CPUs, as behind a CXL link, in nanoseconds.
pub const MEMORY_ONLY_LATENCY_NS: u32 = 300;

/// Bandwidth of the memory of a node without CPUs, in MB/s.
pub const MEMORY_ONLY_BANDWIDTH_MB_S: u32 = 20_480;

/// What a machine declares of the memory of its NUMA nodes. What is left empty has its default.
///
/// Nodes with CPUs come first, as [`Topology`] numbers them; nodes that have memory only come after them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumaSpec {
    /// Memory of each node with CPUs, in MiB. By default they share the machine's memory evenly.
    pub node_memory_mib: Vec<u64>,
    /// Memory of each node without CPUs, in MiB, on top of that of the others.
    pub memory_only_node_mib: Vec<u64>,
    /// SLIT distances: a row for each node, from it to every node. By default [`LOCAL_DISTANCE`] to itself
    /// and [`REMOTE_DISTANCE`] to the others.
    pub node_distances: Vec<Vec<u8>>,
    /// For each node, the time of an access from its nearest CPUs, in nanoseconds. By default
    /// [`CPU_NODE_LATENCY_NS`] and [`MEMORY_ONLY_LATENCY_NS`].
    pub node_latency_ns: Vec<u32>,
    /// For each node, the bandwidth from its nearest CPUs, in MB/s. By default
    /// [`CPU_NODE_BANDWIDTH_MB_S`] and [`MEMORY_ONLY_BANDWIDTH_MB_S`].
    pub node_bandwidth_mb_s: Vec<u32>,
}

impl NumaSpec {
    /// The memory of a machine of shape `topology`. `memory_mib` is what nodes with CPUs share where
    /// [`NumaSpec::node_memory_mib`] is empty.
    pub fn resolve(&self, topology: &Topology, memory_mib: u64) -> Result<NumaMemory, NumaError> {
        let cpu_nodes = topology.numa_nodes() as usize;
        let mut memory = match self.node_memory_mib.as_slice() {
            [] => shared_evenly(cpu_nodes, memory_mib),
            declared => {
                one_each("node_memory_mib", declared, cpu_nodes)?;
                declared.to_vec()
            }
        };
        memory.extend(&self.memory_only_node_mib);
        let count = memory.len();
        let performance = |attribute, declared: &[u32], cpu, memory_only| match declared {
            [] => Ok((0..count)
                .map(|node| if node < cpu_nodes { cpu } else { memory_only })
                .collect()),
            declared => one_each(attribute, declared, count).map(|()| declared.to_vec()),
        };
        let latencies: Vec<u32> = performance(
            "node_latency_ns",
            &self.node_latency_ns,
            CPU_NODE_LATENCY_NS,
            MEMORY_ONLY_LATENCY_NS,
        )?;
        let bandwidths: Vec<u32> = performance(
            "node_bandwidth_mb_s",
            &self.node_bandwidth_mb_s,
            CPU_NODE_BANDWIDTH_MB_S,
            MEMORY_ONLY_BANDWIDTH_MB_S,
        )?;
        let nodes = memory
            .into_iter()
            .zip(latencies.into_iter().zip(bandwidths))
            .map(|(memory_mib, (latency_ns, bandwidth_mb_s))| MemoryNode {
                memory_mib,
                latency_ns,
                bandwidth_mb_s,
            })
            .collect();
        let distances = match self.node_distances.as_slice() {
            [] => uniform_distances(count),
            declared => declared.to_vec(),
        };
        let performance_declared =
            !self.node_latency_ns.is_empty() || !self.node_bandwidth_mb_s.is_empty();
        NumaMemory {
            cpu_nodes: topology.numa_nodes(),
            nodes,
            distances,
            performance_declared,
        }
        .checked()
    }
}

/// One value for each of `nodes` nodes.
fn one_each<T>(attribute: &'static str, values: &[T], nodes: usize) -> Result<(), NumaError> {
    match values.len() {
        given if given == nodes => Ok(()),
        given => Err(NumaError::Count {
            attribute,
            given,
            nodes,
        }),
    }
}

/// In whole MiB; the first nodes get the rest.
fn shared_evenly(nodes: usize, memory_mib: u64) -> Vec<u64> {
    let (share, rest) = (memory_mib / nodes as u64, memory_mib % nodes as u64);
    (0..nodes as u64)
        .map(|node| share + u64::from(node < rest))
        .collect()
}

fn uniform_distances(nodes: usize) -> Vec<Vec<u8>> {
    let distance = |from, to| {
        if from == to {
            LOCAL_DISTANCE
        } else {
            REMOTE_DISTANCE
        }
    };
    (0..nodes)
        .map(|from| (0..nodes).map(|to| distance(from, to)).collect())
        .collect()
}

/// The memory of one NUMA node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryNode {
    /// How much, in MiB.
    pub memory_mib: u64,
    /// Time of an access from its nearest CPUs, in nanoseconds.
    pub latency_ns: u32,
    /// Bandwidth from its nearest CPUs, in MB/s.
    pub bandwidth_mb_s: u32,
}

/// The memory of all NUMA nodes of a machine, known to be possible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
pub struct NumaMemory {
    cpu_nodes: u32,
    nodes: Vec<MemoryNode>,
    distances: Vec<Vec<u8>>,
    performance_declared: bool,
}

/// The form that travels: deserialising goes through [`NumaMemory::checked`].
#[derive(Serialize, Deserialize)]
struct Unchecked {
    cpu_nodes: u32,
    nodes: Vec<MemoryNode>,
    distances: Vec<Vec<u8>>,
    performance_declared: bool,
}

impl NumaMemory {
    /// `memory_mib` shared evenly by the nodes of `topology`, in whole MiB, all equally far from each other.
    pub fn uniform(topology: &Topology, memory_mib: u64) -> Self {
        let count = topology.numa_nodes() as usize;
        let node = |memory_mib| MemoryNode {
            memory_mib,
            latency_ns: CPU_NODE_LATENCY_NS,
            bandwidth_mb_s: CPU_NODE_BANDWIDTH_MB_S,
        };
        Self {
            cpu_nodes: topology.numa_nodes(),
            nodes: shared_evenly(count, memory_mib)
                .into_iter()
                .map(node)
                .collect(),
            distances: uniform_distances(count),
            performance_declared: false,
        }
    }

    /// All nodes, in the order of their numbers.
    pub fn nodes(&self) -> &[MemoryNode] {
        &self.nodes
    }

    /// How many nodes have CPUs: those with the lowest numbers.
    pub fn cpu_nodes(&self) -> u32 {
        self.cpu_nodes
    }

    /// Memory of the whole machine, in MiB.
    pub fn total_mib(&self) -> u64 {
        self.nodes
            .iter()
            .fold(0, |sum, node| sum.saturating_add(node.memory_mib))
    }

    /// SLIT distances from each node to every node.
    pub fn distances(&self) -> &[Vec<u8>] {
        &self.distances
    }

    /// Whether the machine tells its kernel how fast its memory is (in an HMAT): if it has nodes without
    /// CPUs, or latency or bandwidth were declared.
    pub fn tells_performance(&self) -> bool {
        self.performance_declared || self.nodes.len() > self.cpu_nodes as usize
    }

    /// The node with CPUs that is nearest to each node, the lowest number of several: a node with CPUs
    /// itself.
    pub fn nearest_cpu_nodes(&self) -> Vec<u32> {
        let nearest = |(node, distances): (u32, &Vec<u8>)| {
            let nearest = (0..self.cpu_nodes)
                .zip(distances)
                .min_by_key(|(_, distance)| **distance);
            nearest.map_or(node, |(cpu_node, _)| cpu_node)
        };
        (0..).zip(&self.distances).map(nearest).collect()
    }

    /// What CPUs of node `from` get of each node's memory: latency in nanoseconds and bandwidth in MB/s.
    /// From further away than a node's nearest CPUs both are worse in the proportion of the distances.
    /// Empty if there is no such node.
    pub fn performance_from(&self, from: u32) -> Vec<(u32, u32)> {
        let Some(row) = self.distances.get(from as usize) else {
            return Vec::new();
        };
        let scaled = |value: u32, by: u8, to: u8| {
            let value = u64::from(value) * u64::from(by) / u64::from(to);
            u32::try_from(value).map_or(MAX_PERFORMANCE, |value| value.clamp(1, MAX_PERFORMANCE))
        };
        let nearest = self.nearest_cpu_nodes();
        self.nodes
            .iter()
            .zip(row)
            .zip(self.distances.iter().zip(nearest))
            .map(|((node, &here), (distances, nearest))| {
                let there = distances
                    .get(nearest as usize)
                    .copied()
                    .unwrap_or(LOCAL_DISTANCE);
                (
                    scaled(node.latency_ns, here, there),
                    scaled(node.bandwidth_mb_s, there, here),
                )
            })
            .collect()
    }

    fn checked(self) -> Result<Self, NumaError> {
        let count = self.nodes.len();
        if self.cpu_nodes == 0 || count < self.cpu_nodes as usize {
            return Err(NumaError::NoCpus);
        }
        for (node, memory) in self.nodes.iter().enumerate() {
            for (attribute, value) in [
                ("node_latency_ns", memory.latency_ns),
                ("node_bandwidth_mb_s", memory.bandwidth_mb_s),
            ] {
                if !(1..=MAX_PERFORMANCE).contains(&value) {
                    return Err(NumaError::Performance {
                        attribute,
                        node,
                        value,
                    });
                }
            }
        }
        one_each("node_distances", &self.distances, count)?;
        for (from, row) in self.distances.iter().enumerate() {
            if row.len() != count {
                return Err(NumaError::DistanceRow {
                    from,
                    given: row.len(),
                    nodes: count,
                });
            }
        }
        self.check_distances()?;
        Ok(self)
    }

    fn check_distances(&self) -> Result<(), NumaError> {
        for (from, row) in self.distances.iter().enumerate() {
            for (to, &distance) in row.iter().enumerate() {
                if from == to && distance != LOCAL_DISTANCE {
                    return Err(NumaError::LocalDistance {
                        node: from,
                        distance,
                    });
                }
                if from != to && !(LOCAL_DISTANCE + 1..u8::MAX).contains(&distance) {
                    return Err(NumaError::RemoteDistance { from, to, distance });
                }
                let back = self.distances[to][from];
                if back != distance {
                    return Err(NumaError::Asymmetric {
                        from,
                        to,
                        there: distance,
                        back,
                    });
                }
            }
        }
        Ok(())
    }
}

impl TryFrom<Unchecked> for NumaMemory {
    type Error = NumaError;

    fn try_from(numa: Unchecked) -> Result<Self, NumaError> {
        Self {
            cpu_nodes: numa.cpu_nodes,
            nodes: numa.nodes,
            distances: numa.distances,
            performance_declared: numa.performance_declared,
        }
        .checked()
    }
}

impl From<NumaMemory> for Unchecked {
    fn from(numa: NumaMemory) -> Self {
        Self {
            cpu_nodes: numa.cpu_nodes,
            nodes: numa.nodes,
            distances: numa.distances,
            performance_declared: numa.performance_declared,
        }
    }
}
