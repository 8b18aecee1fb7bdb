//! The tables that are the same for every machine: RSDP, DSDT, FADT and MCFG, with room for the XSDT. A start
//! copies them; this crate's tests make them and compare.

use super::{ALIGN_BYTES, HEADER_BYTES};
use crate::arch::layout::ACPI;

/// What stands at [`ACPI`], but for the XSDT.
pub(super) const IMAGE: &[u8] = include_bytes!("fixed.bin");

/// Length of the RSDP (ACPI 6.5, section 5.2.5.3).
const RSDP_BYTES: usize = 36;

/// Where in the image the XSDT goes, and how many tables it may name.
pub(super) const XSDT_AT: usize = RSDP_BYTES.next_multiple_of(ALIGN_BYTES);
const XSDT_ENTRIES: usize = 6;

const DSDT_AT: usize =
    (XSDT_AT + HEADER_BYTES + XSDT_ENTRIES * size_of::<u64>()).next_multiple_of(ALIGN_BYTES);
const FADT_AT: usize = behind(DSDT_AT);
const MCFG_AT: usize = behind(FADT_AT);

/// Guest addresses.
pub(super) const FADT: u64 = ACPI + FADT_AT as u64;
/// See [`FADT`].
pub(super) const MCFG: u64 = ACPI + MCFG_AT as u64;

/// Where the table behind the one at `at` starts.
const fn behind(at: usize) -> usize {
    let len = [IMAGE[at + 4], IMAGE[at + 5], IMAGE[at + 6], IMAGE[at + 7]];
    (at + u32::from_le_bytes(len) as usize).next_multiple_of(ALIGN_BYTES)
}

#[cfg(test)]
mod tests {
    use super::super::{dsdt, fadt, mcfg, rsdp};
    use super::*;

    /// Writes the file.
    const RENEW: &str = "KTSTR_RENEW_ACPI";

    #[test]
    fn the_file_holds_the_tables_as_they_are_made() {
        let mut made = rsdp::build(ACPI + XSDT_AT as u64);
        assert_eq!(made.len(), RSDP_BYTES);
        made.resize(DSDT_AT, 0);
        made.extend(dsdt::build());
        for table in [fadt::build(ACPI + DSDT_AT as u64), mcfg::build()] {
            made.resize(made.len().next_multiple_of(ALIGN_BYTES), 0);
            made.extend(table);
        }
        if std::env::var_os(RENEW).is_some() {
            let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/acpi/fixed.bin");
            std::fs::write(file, &made).unwrap();
        }
        assert!(
            made == IMAGE,
            "fixed.bin is not what is made now: run this test with {RENEW}=1, then once more"
        );
    }
}
