//! DSDT: the devices that can't be discovered otherwise (ACPI 6.5, section 5.2.11.1), and the word for
//! "off".

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Name,
    Package, Path, ResourceTemplate,
};

use super::table;
use crate::arch::layout::{
    COM_PORTS, COM1_IRQ, COM1_PORT, COM2_IRQ, COM2_PORT, PCI_CONFIG_ADDRESS, PCI_CONFIG_DATA,
    PCI_ECAM, PCI_ECAM_BYTES, PCI_WINDOW, PCI_WINDOW_BYTES,
};
use crate::arch::power::SLEEP_TYPE_OFF;

pub(super) fn build() -> Vec<u8> {
    let mut aml = Vec::new();
    // Second element unused; the kernel writes the first to the sleep control register.
    Name::new(
        Path::new("_S5_"),
        &Package::new(vec![&SLEEP_TYPE_OFF, &0_u8]),
    )
    .to_aml_bytes(&mut aml);
    serial(&mut aml, "_SB_.COM1", 1, COM1_PORT, COM1_IRQ);
    serial(&mut aml, "_SB_.COM2", 2, COM2_PORT, COM2_IRQ);
    pci(&mut aml);
    ecam(&mut aml);
    table(*b"DSDT", 2, &aml)
}

/// A 16550 (PNP0501).
fn serial(aml: &mut Vec<u8>, path: &str, uid: u8, port: u16, irq: u32) {
    // Consumer, edge-triggered, active high, not shared.
    let irq = Interrupt::new(true, true, false, false, irq);
    #[expect(clippy::cast_possible_truncation, reason = "8 ports")]
    let io = IO::new(port, port, 1, COM_PORTS as u8);
    Device::new(
        Path::new(path),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0501")),
            &Name::new(Path::new("_UID"), &uid),
            &Name::new(Path::new("_CRS"), &ResourceTemplate::new(vec![&io, &irq])),
        ],
    )
    .to_aml_bytes(aml);
}

/// The PCI host bridge (PNP0A03) with one bus. No interrupt routing: devices have MSI-X.
fn pci(aml: &mut Vec<u8>) {
    let below = AddressSpace::new_io(0_u16, PCI_CONFIG_ADDRESS - 1, None);
    let above = AddressSpace::new_io(PCI_CONFIG_DATA + 4, u16::MAX, None);
    let config = IO::new(PCI_CONFIG_ADDRESS, PCI_CONFIG_ADDRESS, 1, 8);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the window lies below 4 GiB"
    )]
    let (start, last) = (
        PCI_WINDOW as u32,
        (PCI_WINDOW + PCI_WINDOW_BYTES - 1) as u32,
    );
    let memory =
        AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, start, last, None);
    let bus = AddressSpace::new_bus_number(0_u16, 0_u16);
    Device::new(
        Path::new("_SB_.PCI0"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0A03")),
            &Name::new(Path::new("_UID"), &0_u8),
            // Devices belong to the first NUMA node, as interrupts do.
            &Name::new(Path::new("_PXM"), &0_u8),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![&bus, &config, &below, &above, &memory]),
            ),
        ],
    )
    .to_aml_bytes(aml);
}

/// Keeps the kernel from giving the memory of configuration space to a device (PNP0C02; PCI Firmware 3.3,
/// section 4.1.2).
fn ecam(aml: &mut Vec<u8>) {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it lies below 4 GiB and has 1 MiB"
    )]
    let memory = Memory32Fixed::new(true, PCI_ECAM as u32, PCI_ECAM_BYTES as u32);
    Device::new(
        Path::new("_SB_.ECAM"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0C02")),
            &Name::new(Path::new("_UID"), &0_u8),
            &Name::new(Path::new("_CRS"), &ResourceTemplate::new(vec![&memory])),
        ],
    )
    .to_aml_bytes(aml);
}
