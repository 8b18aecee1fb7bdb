//! The shape of a test machine, as pure data.
//!
//! A [`Topology`] says how many NUMA nodes, last-level caches, cores and threads a machine has, and
//! answers which CPU belongs to which of them. [`NumaMemory`] is the memory of the nodes: how much, how far
//! from each other, how fast. A [`CpuSet`] is a set of CPUs in the kernel's own list
//! notation (`0-3,8`). Both sides of a test use this crate: the host to build the machine, the guest to
//! place work on it.

mod cpuset;
mod limits;
mod numa;
mod numa_error;
mod shape;

pub use cpuset::{CpuSet, CpuSetParseError};
pub use limits::{MAX_CPUS, MAX_PERFORMANCE};
pub use numa::{
    CPU_NODE_BANDWIDTH_MB_S, CPU_NODE_LATENCY_NS, LOCAL_DISTANCE, MEMORY_ONLY_BANDWIDTH_MB_S,
    MEMORY_ONLY_LATENCY_NS, MemoryNode, NumaMemory, NumaSpec, REMOTE_DISTANCE,
};
pub use numa_error::NumaError;
pub use shape::{Count, Topology, TopologyError};
