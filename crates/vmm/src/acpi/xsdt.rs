//! XSDT: where the other tables are (ACPI 6.5, section 5.2.8).

use super::table;

pub(super) fn build(tables: &[u64]) -> Vec<u8> {
    let body: Vec<u8> = tables.iter().flat_map(|at| at.to_le_bytes()).collect();
    table(*b"XSDT", 1, &body)
}
