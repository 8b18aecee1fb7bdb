//! XSDT: where the other tables are (ACPI 6.5, section 5.2.8).

use object::pod::bytes_of_slice;

use super::table;

pub(super) fn build(tables: &[u64]) -> Vec<u8> {
    // Little-endian, as this host is.
    table(*b"XSDT", 1, bytes_of_slice(tables))
}
