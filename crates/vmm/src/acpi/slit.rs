//! SLIT: distances between NUMA nodes (ACPI 6.5, section 5.2.17).

use ktstr_topology::Topology;

use super::table;

pub(super) fn build(topology: &Topology) -> Vec<u8> {
    let nodes = topology.numa_nodes();
    let mut body = u64::from(nodes).to_le_bytes().to_vec();
    for from in 0..nodes {
        body.extend((0..nodes).map(|to| topology.distance(from, to)));
    }
    table(*b"SLIT", 1, &body)
}
