//! ACPI tables: how the kernel learns of CPUs, NUMA nodes, interrupts, the PCI host bridge and the way to
//! switch the machine off. One file a table.

mod dsdt;
mod fadt;
mod hmat;
mod madt;
mod mcfg;
mod rsdp;
mod slit;
mod srat;
mod xsdt;

use acpi_tables::sdt::Sdt;
use ktstr_topology::NumaMemory;

use crate::arch::x86_64::apic_id::ApicIds;
use crate::arch::x86_64::layout::{ACPI, ACPI_BYTES};
use crate::memory::RamRegion;

const OEM_ID: [u8; 6] = *b"KTSTR ";
const OEM_TABLE_ID: [u8; 8] = *b"KTSTRVM ";
const OEM_REVISION: u32 = 1;

/// The tables don't fit where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the ACPI tables of {cpus} CPUs have {len_bytes} bytes and don't fit into {ACPI_BYTES}: declare fewer \
     CPUs or NUMA nodes"
)]
pub struct AcpiTooLarge {
    /// CPUs of the machine.
    pub cpus: u32,
    /// Bytes of all tables.
    pub len_bytes: u64,
}

/// A table of `signature` with `body` behind the common header.
fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    const HEADER_BYTES: u32 = 36;
    let mut sdt = Sdt::new(
        signature,
        HEADER_BYTES,
        revision,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    sdt.append_slice(body);
    sdt.as_slice().to_vec()
}

/// All tables, to be written to [`ACPI`].
pub(crate) fn build(
    ids: &ApicIds,
    numa: &NumaMemory,
    regions: &[RamRegion],
) -> Result<Vec<u8>, AcpiTooLarge> {
    const ALIGN: usize = 16;
    let mut image = vec![0; rsdp::LEN_BYTES];
    let mut put = |table: &[u8]| {
        image.resize(image.len().next_multiple_of(ALIGN), 0);
        let at = ACPI + image.len() as u64;
        image.extend_from_slice(table);
        at
    };
    let dsdt = put(&dsdt::build());
    let mut tables = vec![
        put(&fadt::build(dsdt)),
        put(&madt::build(ids)),
        put(&mcfg::build()),
    ];
    if numa.nodes().len() > 1 || numa.tells_performance() {
        tables.push(put(&srat::build(ids, regions)));
        tables.push(put(&slit::build(numa)));
    }
    if numa.tells_performance() {
        tables.push(put(&hmat::build(numa)));
    }
    let xsdt = put(&xsdt::build(&tables));
    image[..rsdp::LEN_BYTES].copy_from_slice(&rsdp::build(xsdt));
    let len_bytes = image.len() as u64;
    if len_bytes > ACPI_BYTES {
        return Err(AcpiTooLarge {
            cpus: ids.topology().cpu_count(),
            len_bytes,
        });
    }
    Ok(image)
}

#[cfg(test)]
mod tests;
