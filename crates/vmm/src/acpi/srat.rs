//! SRAT: which NUMA node each CPU and each piece of RAM belongs to (ACPI 6.5, section 5.2.16).

use super::madt::FIRST_X2APIC_ID;
use super::table;
use crate::arch::cpu_ids::CpuIds;
use crate::memory::RamRegion;

/// Types and lengths of the structures.
const LOCAL_APIC: [u8; 2] = [0, 16];
const MEMORY: [u8; 2] = [1, 40];
const LOCAL_X2APIC: [u8; 2] = [2, 24];

const ENABLED: u32 = 1;

pub(super) fn build(ids: &CpuIds, regions: &[RamRegion]) -> Vec<u8> {
    let topology = ids.topology();
    let mut body = Vec::new();
    // Reserved: 1, then 8 bytes.
    body.extend(1_u32.to_le_bytes());
    body.extend([0; 8]);
    for cpu in 0..topology.cpu_count() {
        let id = ids.id(cpu);
        let node = topology.node_of(cpu).unwrap_or_default().to_le_bytes();
        match u8::try_from(id) {
            Ok(short) if id < FIRST_X2APIC_ID => {
                body.extend(LOCAL_APIC);
                body.extend([node[0], short]);
                body.extend(ENABLED.to_le_bytes());
                body.extend([0, node[1], node[2], node[3]]);
                body.extend([0; 4]);
            }
            _ => {
                body.extend(LOCAL_X2APIC);
                body.extend([0; 2]);
                body.extend(node);
                body.extend(id.to_le_bytes());
                body.extend(ENABLED.to_le_bytes());
                body.extend([0; 8]);
            }
        }
    }
    for region in regions {
        body.extend(MEMORY);
        body.extend(region.node.to_le_bytes());
        body.extend([0; 2]);
        body.extend(region.gpa.to_le_bytes());
        body.extend(region.len_bytes.to_le_bytes());
        body.extend([0; 4]);
        body.extend(ENABLED.to_le_bytes());
        body.extend([0; 8]);
    }
    table(*b"SRAT", 3, &body)
}
