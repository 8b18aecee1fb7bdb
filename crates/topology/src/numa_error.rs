//! Why NUMA nodes can't be as declared.

use crate::limits::MAX_PERFORMANCE;

/// Why the memory of NUMA nodes can't be as declared. Nodes are numbered from 0, those with CPUs first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NumaError {
    /// A list that is too short or too long.
    #[error("`{attribute}` has {given} entries, but {nodes} are needed: one for each NUMA node")]
    Count {
        /// The attribute.
        attribute: &'static str,
        /// Its length.
        given: usize,
        /// Nodes that it is about.
        nodes: usize,
    },
    /// A row of distances that is too short or too long.
    #[error(
        "row {from} of `node_distances` has {given} entries, but {nodes} are needed: from NUMA node {from} \
         to each node"
    )]
    DistanceRow {
        /// The row.
        from: usize,
        /// Its length.
        given: usize,
        /// Nodes of the machine.
        nodes: usize,
    },
    /// A node that is not where it is.
    #[error(
        "`node_distances` from NUMA node {node} to itself is {distance}: it is 10 by definition"
    )]
    LocalDistance {
        /// The node.
        node: usize,
        /// What was declared.
        distance: u8,
    },
    /// A distance that no other node can have.
    #[error(
        "`node_distances` from NUMA node {from} to node {to} is {distance}: another node is at 11 to 254, \
         where 10 is the node itself"
    )]
    RemoteDistance {
        /// The row.
        from: usize,
        /// The column.
        to: usize,
        /// What was declared.
        distance: u8,
    },
    /// There is not as far as back.
    #[error(
        "`node_distances` is asymmetric: {there} from NUMA node {from} to node {to}, but {back} from node \
         {to} to node {from}; declare the same for both"
    )]
    Asymmetric {
        /// The row.
        from: usize,
        /// The column.
        to: usize,
        /// In row `from`, column `to`.
        there: u8,
        /// In row `to`, column `from`.
        back: u8,
    },
    /// A latency or bandwidth that can't be told to a kernel.
    #[error(
        "`{attribute}` of NUMA node {node} is {value}: 1 to {MAX_PERFORMANCE} can be told to a kernel"
    )]
    Performance {
        /// The attribute.
        attribute: &'static str,
        /// The node.
        node: usize,
        /// What was declared.
        value: u32,
    },
    /// Only memory.
    #[error("no NUMA node has CPUs")]
    NoCpus,
}
