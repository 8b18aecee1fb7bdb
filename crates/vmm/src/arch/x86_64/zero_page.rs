//! `struct boot_params`: what the boot loader tells the kernel.

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};

use super::layout::{
    ACPI, ACPI_BYTES, CMDLINE, CMDLINE_MAX_BYTES, HIGH_RAM_START, LOW_RAM_END, PCI_ECAM,
    PCI_ECAM_BYTES, SYSTEM_ROM,
};
use crate::memory::RamRegion;

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
const E820_ACPI: u32 = 3;

/// `HdrS`, and the values of a kernel of boot protocol 2.15 that starts without its own setup code.
const MAGIC: u32 = 0x5372_6448;
const BOOT_FLAG: u16 = 0xaa55;
const PROTOCOL: u16 = 0x020f;
/// A boot loader without a number of its own (Documentation/arch/x86/boot.rst).
const LOADER_UNDEFINED: u8 = 0xff;

/// Where an initramfs lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) gpa: u32,
    pub(crate) len_bytes: u32,
}

/// Fills the page. `header` is that of a bzImage; a vmlinux has none.
pub(crate) fn build(
    header: Option<setup_header>,
    regions: &[RamRegion],
    initrd: Placed,
) -> boot_params {
    let mut hdr = header.unwrap_or_else(|| setup_header {
        boot_flag: BOOT_FLAG,
        header: MAGIC,
        version: PROTOCOL,
        ..setup_header::default()
    });
    hdr.type_of_loader = LOADER_UNDEFINED;
    // Both constants are below 1 MiB and 1 page.
    #[expect(clippy::cast_possible_truncation, reason = "constants far below 2^32")]
    {
        hdr.cmd_line_ptr = CMDLINE as u32;
        hdr.cmdline_size = (CMDLINE_MAX_BYTES - 1) as u32;
    }
    hdr.ramdisk_image = initrd.gpa;
    hdr.ramdisk_size = initrd.len_bytes;
    let mut params = boot_params {
        hdr,
        acpi_rsdp_addr: ACPI,
        ..boot_params::default()
    };
    let map = e820(regions);
    let mut count = 0;
    for (slot, entry) in params.e820_table.iter_mut().zip(map) {
        *slot = entry;
        count += 1;
    }
    params.e820_entries = count;
    params
}

/// The memory map. RAM of adjoining nodes is one entry: which node it belongs to is told by the SRAT.
fn e820(regions: &[RamRegion]) -> Vec<boot_e820_entry> {
    let entry = |addr, end: u64, r#type| boot_e820_entry {
        addr,
        size: end - addr,
        r#type,
    };
    let mut map = vec![
        entry(0, LOW_RAM_END, E820_RAM),
        entry(LOW_RAM_END, ACPI, E820_RESERVED),
        entry(ACPI, ACPI + ACPI_BYTES, E820_ACPI),
        entry(SYSTEM_ROM, HIGH_RAM_START, E820_RESERVED),
    ];
    let mut ram: Vec<(u64, u64)> = Vec::new();
    for region in regions {
        let (start, end) = (
            region.gpa.max(HIGH_RAM_START),
            region.gpa + region.len_bytes,
        );
        match ram.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ if start < end => ram.push((start, end)),
            _ => {}
        }
    }
    map.push(entry(PCI_ECAM, PCI_ECAM + PCI_ECAM_BYTES, E820_RESERVED));
    map.extend(
        ram.into_iter()
            .map(|(start, end)| entry(start, end, E820_RAM)),
    );
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::ram::place;

    #[test]
    fn the_memory_map_has_the_gap_and_no_node_borders() {
        let gib = 1 << 30;
        let regions = place(&[2 * gib, 3 * gib]).unwrap();
        let map: Vec<_> = e820(&regions)
            .iter()
            .map(|e| (e.addr, e.addr + e.size, e.r#type))
            .collect();
        assert_eq!(
            map,
            [
                (0, 0x9_fc00, 1),
                (0x9_fc00, 0xe_0000, 2),
                (0xe_0000, 0xf_0000, 3),
                (0xf_0000, 0x10_0000, 2),
                (0xe000_0000, 0xe010_0000, 2),
                (0x10_0000, 0xc000_0000, 1),
                (0x1_0000_0000, 0x1_8000_0000, 1),
            ]
        );
    }
}
