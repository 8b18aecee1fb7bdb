//! MCFG: where PCI configuration space is in memory (PCI Firmware 3.3, section 4.1.2).

use super::table;
use crate::arch::layout::PCI_ECAM;

pub(super) fn build() -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend(PCI_ECAM.to_le_bytes());
    // Segment 0, from bus 0 to bus 0, 4 bytes reserved.
    body.extend([0; 8]);
    table(*b"MCFG", 1, &body)
}
