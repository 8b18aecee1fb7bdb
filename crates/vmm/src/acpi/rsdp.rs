//! RSDP: where the XSDT is (ACPI 6.5, section 5.2.5.3).

use acpi_tables::Aml;
use acpi_tables::rsdp::Rsdp;

use super::OEM_ID;

pub(super) fn build(xsdt: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    Rsdp::new(OEM_ID, xsdt).to_aml_bytes(&mut bytes);
    bytes
}
