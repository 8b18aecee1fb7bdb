//! Every address and port of the machine. Nothing else writes a literal one.
//!
//! ```text
//! 0x0000_0000    RAM: GDT, zero page, page tables, command line
//! 0x0009_fc00    kept from the kernel: ACPI tables at 0xe_0000
//! 0x0010_0000    RAM: kernel, initramfs at the end
//! 0xc000_0000    gap: PCI memory, then the interrupt controllers
//! 0x1_0000_0000  the rest of RAM
//! ```

pub(crate) use crate::memory::PAGE_BYTES;

/// Descriptors for the boot CPU's 64-bit segments: 4 of 8 bytes.
pub(crate) const GDT: u64 = 0x500;

/// `struct boot_params`, one page (Documentation/arch/x86/zero-page.rst).
pub(crate) const ZERO_PAGE: u64 = 0x7000;

/// Page tables of the boot CPU: PML4 and PDPT of one page each, then four page directories that map the
/// first 4 GiB in pages of 2 MiB.
pub(crate) const PML4: u64 = 0x9000;
/// See [`PML4`].
pub(crate) const PDPT: u64 = PML4 + PAGE_BYTES;
/// See [`PML4`].
pub(crate) const PAGE_DIRECTORIES: u64 = PDPT + PAGE_BYTES;
/// How many page directories there are, each for 1 GiB.
pub(crate) const PAGE_DIRECTORY_COUNT: u64 = 4;

/// The kernel command line, NUL-terminated.
pub(crate) const CMDLINE: u64 = 0x2_0000;
/// Room for it, `COMMAND_LINE_SIZE` of arch/x86/include/asm/setup.h, NUL included.
pub(crate) const CMDLINE_MAX_BYTES: usize = 2048;

/// End of the RAM that a PC has below 1 MiB (the extended BIOS data area starts here).
pub(crate) const LOW_RAM_END: u64 = 0x9_fc00;

/// ACPI tables, the RSDP first: in the BIOS area, where a kernel that isn't told looks for it as well
/// (ACPI 6.5, section 5.2.5.1).
pub(crate) const ACPI: u64 = 0xe_0000;
/// Room for them, up to where a kernel takes the system's ROM to be: a CPU takes 24 to 40 bytes in MADT and
/// SRAT together.
pub(crate) const ACPI_BYTES: u64 = SYSTEM_ROM - ACPI;

/// The system's ROM (`system_rom_resource` of arch/x86/kernel/probe_roms.c). Only the reset vector is used.
pub(crate) const SYSTEM_ROM: u64 = 0xf_0000;

/// Where a kernel jumps in real mode to have the BIOS reset the machine, 16 bytes.
pub(crate) const RESET_VECTOR: u64 = 0xf_fff0;

/// Where RAM goes on above the PC's first MiB.
pub(crate) const HIGH_RAM_START: u64 = 0x10_0000;

/// Start of the gap that all 32-bit addresses of devices lie in.
pub(crate) const GAP_START: u64 = 0xc000_0000;
/// End of the gap: RAM that didn't fit below continues here.
pub(crate) const GAP_END: u64 = 1 << 32;

/// Memory window of the PCI host bridge.
pub(crate) const PCI_WINDOW: u64 = GAP_START;
/// Its size, up to where the interrupt controllers begin.
pub(crate) const PCI_WINDOW_BYTES: u64 = 0x2000_0000;

/// Configuration space of bus 0 in memory (PCI Express 6.0, section 7.2.2): 4 KiB for each function.
pub(crate) const PCI_ECAM: u64 = PCI_WINDOW + PCI_WINDOW_BYTES;
/// Its size: 32 devices of 8 functions.
pub(crate) const PCI_ECAM_BYTES: u64 = 32 * 8 * PAGE_BYTES;

/// The I/O APIC, the one in KVM or ours (`IOAPIC_DEFAULT_BASE_ADDRESS` of arch/x86/kvm/ioapic.h).
pub(crate) const IO_APIC: u32 = 0xfec0_0000;
/// The in-kernel local APICs (`APIC_DEFAULT_PHYS_BASE`).
pub(crate) const LOCAL_APIC: u32 = 0xfee0_0000;
/// Size of each of the two.
pub(crate) const APIC_BYTES: u64 = PAGE_BYTES;

/// One page for KVM's identity map, needed by Intel CPUs without unrestricted guest mode.
pub(crate) const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages for KVM's task state segment, for the same.
pub(crate) const KVM_TSS: u64 = KVM_IDENTITY_MAP + PAGE_BYTES;

/// First port of each serial port, 8 ports long.
pub(crate) const COM1_PORT: u16 = 0x3f8;
/// See [`COM1_PORT`].
pub(crate) const COM2_PORT: u16 = 0x2f8;
/// Ports of a 16550.
pub(crate) const COM_PORTS: u16 = 8;
/// Interrupt line of COM1, as on every PC.
pub(crate) const COM1_IRQ: u32 = 4;
/// Interrupt line of COM2.
pub(crate) const COM2_IRQ: u32 = 3;

/// PCI configuration address (PCI Local Bus 3.0, section 3.2.2.3.2).
pub(crate) const PCI_CONFIG_ADDRESS: u16 = 0xcf8;
/// PCI configuration data, 4 ports.
pub(crate) const PCI_CONFIG_DATA: u16 = 0xcfc;

/// ACPI reset register, the port that PIIX and ICH chips use.
pub(crate) const RESET_PORT: u16 = 0xcf9;
/// Command port of the keyboard controller, by which older kernels reset a PC.
pub(crate) const I8042_COMMAND_PORT: u16 = 0x64;

/// Sleep control register of hardware-reduced ACPI (ACPI 6.5, section 4.8.3.7).
pub(crate) const SLEEP_CONTROL_PORT: u16 = 0x600;
/// Sleep status register (the same section).
pub(crate) const SLEEP_STATUS_PORT: u16 = 0x601;

/// The memory of the guest that probes KVM. It shares [`GDT`] and the page tables with other machines;
/// the rest is its own.
pub(crate) mod probe {
    use super::PAGE_BYTES;

    /// Its interrupt descriptor table.
    pub(crate) const IDT: u64 = 0x5000;
    /// What it tells the host while it runs.
    pub(crate) const MAILBOX: u64 = 0x6000;
    /// Where its second CPU starts: a start-up message names a page below 1 MiB.
    pub(crate) const SECOND_CPU: u64 = 0x8000;
    /// That page, as the message has it. The code of the first CPU holds the same number.
    pub(crate) const SECOND_CPU_VECTOR: u8 = 0x08;
    /// Its code.
    pub(crate) const CODE: u64 = 0x1_0000;
    /// The end of its stack.
    pub(crate) const STACK_END: u64 = 0x1_f000;
    /// All of its memory.
    pub(crate) const RAM_BYTES: u64 = 0x2_0000;

    const _: () = assert!(SECOND_CPU_VECTOR as u64 * PAGE_BYTES == SECOND_CPU);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overlaps() {
        let mut ranges = [
            ("gdt", GDT, 32),
            ("zero page", ZERO_PAGE, PAGE_BYTES),
            ("page tables", PML4, (2 + PAGE_DIRECTORY_COUNT) * PAGE_BYTES),
            ("command line", CMDLINE, CMDLINE_MAX_BYTES as u64),
            ("end of low RAM", LOW_RAM_END, 0),
            ("acpi", ACPI, ACPI_BYTES),
            ("reset vector", RESET_VECTOR, 16),
            ("high RAM", HIGH_RAM_START, GAP_START - HIGH_RAM_START),
            ("pci window", PCI_WINDOW, PCI_WINDOW_BYTES),
            ("pci ecam", PCI_ECAM, PCI_ECAM_BYTES),
            ("io apic", u64::from(IO_APIC), APIC_BYTES),
            ("local apic", u64::from(LOCAL_APIC), APIC_BYTES),
            ("kvm identity map", KVM_IDENTITY_MAP, PAGE_BYTES),
            ("kvm tss", KVM_TSS, 3 * PAGE_BYTES),
            ("end of the gap", GAP_END, 0),
        ];
        ranges.sort_by_key(|&(_, start, _)| start);
        for pair in ranges.windows(2) {
            let ((below, start, len), (above, next, _)) = (pair[0], pair[1]);
            assert!(start + len <= next, "{below} runs into {above}");
        }
    }

    #[test]
    fn ports_do_not_overlap() {
        let mut ports = [
            COM1_PORT..COM1_PORT + COM_PORTS,
            COM2_PORT..COM2_PORT + COM_PORTS,
            PCI_CONFIG_ADDRESS..PCI_CONFIG_ADDRESS + 1,
            RESET_PORT..RESET_PORT + 1,
            PCI_CONFIG_DATA..PCI_CONFIG_DATA + 4,
            I8042_COMMAND_PORT..I8042_COMMAND_PORT + 1,
            SLEEP_CONTROL_PORT..SLEEP_STATUS_PORT + 1,
        ];
        ports.sort_by_key(|range| range.start);
        assert!(ports.windows(2).all(|pair| pair[0].end <= pair[1].start));
    }
}
