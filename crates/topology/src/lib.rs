//! The shape of a test machine, as pure data.
//!
//! A [`Topology`] says how many NUMA nodes, last-level caches, cores and threads a machine has, and
//! answers which CPU belongs to which of them. A [`CpuSet`] is a set of CPUs in the kernel's own list
//! notation (`0-3,8`). Both sides of a test use this crate: the host to build the machine, the guest to
//! place work on it.

mod cpuset;
mod shape;

pub use cpuset::{CpuSet, CpuSetParseError};
pub use shape::{LOCAL_DISTANCE, MAX_CPUS, REMOTE_DISTANCE, Topology, TopologyError};
