//! HMAT: how fast the memory of each NUMA node is for each node with CPUs (ACPI 6.5, section 5.2.28).

use ktstr_topology::NumaMemory;

use super::table;

/// Types of the structures.
const PROXIMITY_DOMAIN_ATTRIBUTES: u16 = 0;
const LATENCY_AND_BANDWIDTH: u16 = 1;

/// The field with the node whose CPUs the memory is attached to is valid.
const INITIATOR_VALID: u16 = 1;

/// Data types: reads and writes alike.
const ACCESS_LATENCY: u8 = 0;
const ACCESS_BANDWIDTH: u8 = 3;

/// The entries' units: of latencies in picoseconds, of bandwidths in MB/s.
const LATENCY_UNIT_PS: u64 = 1000;
const BANDWIDTH_UNIT_MB_S: u64 = 1;

pub(super) fn build(numa: &NumaMemory) -> Vec<u8> {
    let mut body = vec![0; 4];
    for (node, nearest) in (0_u32..).zip(numa.nearest_cpu_nodes()) {
        structure(&mut body, PROXIMITY_DOMAIN_ATTRIBUTES, |out| {
            out.extend(INITIATOR_VALID.to_le_bytes());
            out.extend([0; 2]);
            out.extend(nearest.to_le_bytes());
            out.extend(node.to_le_bytes());
            out.extend([0; 20]);
        });
    }
    let latency = |(latency_ns, _)| latency_ns;
    let bandwidth = |(_, bandwidth_mb_s)| bandwidth_mb_s;
    matrix(&mut body, numa, ACCESS_LATENCY, LATENCY_UNIT_PS, latency);
    matrix(
        &mut body,
        numa,
        ACCESS_BANDWIDTH,
        BANDWIDTH_UNIT_MB_S,
        bandwidth,
    );
    // Revision 2: units as above.
    table(*b"HMAT", 2, &body)
}

/// One value for each node with CPUs, which accesses, and each node, which has the memory.
fn matrix(
    body: &mut Vec<u8>,
    numa: &NumaMemory,
    data_type: u8,
    unit: u64,
    value: impl Fn((u32, u32)) -> u32,
) {
    let nodes = u32::try_from(numa.nodes().len()).unwrap_or(u32::MAX);
    structure(body, LATENCY_AND_BANDWIDTH, |out| {
        // Flags 0: the memory itself, not a cache of it. Then the type, no least transfer size, reserved.
        out.extend([0, data_type, 0, 0]);
        out.extend(numa.cpu_nodes().to_le_bytes());
        out.extend(nodes.to_le_bytes());
        out.extend([0; 4]);
        out.extend(unit.to_le_bytes());
        (0..numa.cpu_nodes()).for_each(|from: u32| out.extend(from.to_le_bytes()));
        (0..nodes).for_each(|to: u32| out.extend(to.to_le_bytes()));
        for from in 0..numa.cpu_nodes() {
            for performance in numa.performance_from(from) {
                let entry = u16::try_from(value(performance)).unwrap_or(u16::MAX - 1);
                out.extend(entry.to_le_bytes());
            }
        }
        // The next structure begins at a multiple of 4.
        out.resize(out.len().next_multiple_of(4), 0);
    });
}

/// Appends a structure: its type, 2 reserved bytes, its whole length, and what `content` writes.
fn structure(body: &mut Vec<u8>, kind: u16, content: impl FnOnce(&mut Vec<u8>)) {
    let start = body.len();
    body.extend(kind.to_le_bytes());
    body.extend([0; 6]);
    content(body);
    let len = u32::try_from(body.len() - start).unwrap_or(u32::MAX);
    body[start + 4..start + 8].copy_from_slice(&len.to_le_bytes());
}
