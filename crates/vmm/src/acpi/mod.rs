//! ACPI tables: how the kernel learns of CPUs, NUMA nodes, interrupts, the PCI host bridge and the way to
//! switch the machine off. One file a table.

#[cfg(test)]
mod dsdt;
#[cfg(test)]
mod fadt;
mod fixed;
mod hmat;
mod madt;
#[cfg(test)]
mod mcfg;
#[cfg(test)]
mod rsdp;
mod slit;
mod srat;
mod xsdt;

use ktstr_topology::NumaMemory;

use crate::arch::cpu_ids::CpuIds;
use crate::arch::layout::{ACPI, ACPI_BYTES};
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

/// Tables start at multiples of this.
const ALIGN_BYTES: usize = 16;

/// The common header (ACPI 6.5, section 5.2.6).
const HEADER_BYTES: usize = 36;
const CHECKSUM_AT: usize = 9;

/// A table of `signature` with `body` behind the common header.
fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    const CREATOR: [u8; 4] = *b"KTST";
    const CREATOR_REVISION: u32 = 1;
    let len = HEADER_BYTES + body.len();
    let mut table = Vec::with_capacity(len);
    table.extend_from_slice(&signature);
    // What doesn't fit is refused as a whole.
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    table.extend_from_slice(&len.to_le_bytes());
    table.extend_from_slice(&[revision, 0]);
    table.extend_from_slice(&OEM_ID);
    table.extend_from_slice(&OEM_TABLE_ID);
    table.extend_from_slice(&OEM_REVISION.to_le_bytes());
    table.extend_from_slice(&CREATOR);
    table.extend_from_slice(&CREATOR_REVISION.to_le_bytes());
    table.extend_from_slice(body);
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    table[CHECKSUM_AT] = sum.wrapping_neg();
    table
}

/// All tables, to be written to [`ACPI`].
pub(crate) fn build(
    ids: &CpuIds,
    numa: &NumaMemory,
    regions: &[RamRegion],
) -> Result<Vec<u8>, AcpiTooLarge> {
    let mut image = fixed::IMAGE.to_vec();
    let mut put = |table: &[u8]| {
        image.resize(image.len().next_multiple_of(ALIGN_BYTES), 0);
        let at = ACPI + image.len() as u64;
        image.extend_from_slice(table);
        at
    };
    let mut tables = vec![fixed::FADT, put(&madt::build(ids)), fixed::MCFG];
    if numa.nodes().len() > 1 || numa.tells_performance() {
        tables.push(put(&srat::build(ids, regions)));
        tables.push(put(&slit::build(numa)));
    }
    if numa.tells_performance() {
        tables.push(put(&hmat::build(numa)));
    }
    let xsdt = xsdt::build(&tables);
    image[fixed::XSDT_AT..][..xsdt.len()].copy_from_slice(&xsdt);
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
