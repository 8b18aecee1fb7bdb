//! MADT: the CPUs' local APICs and the I/O APIC (ACPI 6.5, section 5.2.12).

use super::table;
use crate::arch::cpu_ids::CpuIds;
use crate::arch::layout::{IO_APIC, LOCAL_APIC};

/// Types and lengths of the structures.
const LOCAL: [u8; 2] = [0, 8];
const IO: [u8; 2] = [1, 12];
const LOCAL_NMI: [u8; 2] = [4, 6];
const LOCAL_X2: [u8; 2] = [9, 16];
const LOCAL_X2_NMI: [u8; 2] = [10, 12];

/// APIC ids from here on need the x2APIC form: 255 is the broadcast id of the old one.
pub(super) const FIRST_X2APIC_ID: u32 = 255;

const ENABLED: u32 = 1;
/// All processors have their NMI on this pin.
const NMI_PIN: u8 = 1;

pub(super) fn build(ids: &CpuIds) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(LOCAL_APIC.to_le_bytes());
    // No flags: there is no pair of 8259s to use.
    body.extend(0_u32.to_le_bytes());
    for cpu in 0..ids.topology().cpu_count() {
        let id = ids.id(cpu);
        match (u8::try_from(cpu), u8::try_from(id)) {
            (Ok(uid), Ok(id)) if u32::from(id) < FIRST_X2APIC_ID => {
                body.extend(LOCAL);
                body.extend([uid, id]);
                body.extend(ENABLED.to_le_bytes());
            }
            _ => {
                body.extend(LOCAL_X2);
                body.extend([0; 2]);
                body.extend(id.to_le_bytes());
                body.extend(ENABLED.to_le_bytes());
                body.extend(cpu.to_le_bytes());
            }
        }
    }
    body.extend(IO);
    body.extend([0, 0]);
    body.extend(IO_APIC.to_le_bytes());
    body.extend(0_u32.to_le_bytes());
    body.extend(LOCAL_NMI);
    body.extend([0xff, 0, 0, NMI_PIN]);
    if ids.highest() >= FIRST_X2APIC_ID {
        body.extend(LOCAL_X2_NMI);
        body.extend([0; 2]);
        body.extend(u32::MAX.to_le_bytes());
        body.extend([NMI_PIN, 0, 0, 0]);
    }
    table(*b"APIC", 5, &body)
}
