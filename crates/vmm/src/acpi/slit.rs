//! SLIT: distances between NUMA nodes (ACPI 6.5, section 5.2.17).

use ktstr_topology::NumaMemory;

use super::table;

pub(super) fn build(numa: &NumaMemory) -> Vec<u8> {
    let rows = numa.distances();
    let mut body = (rows.len() as u64).to_le_bytes().to_vec();
    body.extend(rows.iter().flatten());
    table(*b"SLIT", 1, &body)
}
