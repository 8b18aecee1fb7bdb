//! The boot CPU's registers at a kernel's 64-bit entry.

use kvm_bindings::{kvm_fpu, kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::layout::{GDT, PML4};

/// Where a CPU starts after a reset, within its code segment (AMD APM volume 2, section 14.1.3).
pub(crate) const RESET_RIP: u64 = 0xfff0;

/// `IA32_APIC_BASE`: x2APIC mode (Intel SDM volume 3, 11.12.1).
pub(crate) const APIC_BASE_X2APIC: u64 = 1 << 10;
/// Protected mode: off after a reset.
pub(crate) const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 of RFLAGS is always set.
const RFLAGS_RESERVED: u64 = 1 << 1;

/// Selectors that the boot protocol asks for: `__BOOT_CS` and `__BOOT_DS` of
/// arch/x86/include/asm/segment.h.
pub(crate) const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;

/// Null, unused, 64-bit code, data: flat, ring 0.
const DESCRIPTORS: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// Writes the descriptors that [`long_mode`] refers to.
pub(crate) fn write_gdt(memory: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    memory.write_obj(DESCRIPTORS, GuestAddress(GDT))
}

/// Puts `sregs` into long mode, ring 0, on the page tables at [`PML4`], with interrupts without a table.
pub(crate) fn long_mode(sregs: &mut kvm_sregs) {
    let code = kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: BOOT_CS,
        type_: 0b1011,
        present: 1,
        s: 1,
        l: 1,
        g: 1,
        ..kvm_segment::default()
    };
    let data = kvm_segment {
        selector: BOOT_DS,
        type_: 0b0011,
        l: 0,
        db: 1,
        ..code
    };
    sregs.cs = code;
    sregs.ds = data;
    sregs.es = data;
    sregs.fs = data;
    sregs.gs = data;
    sregs.ss = data;
    sregs.gdt.base = GDT;
    // Ends with the last byte of the table.
    sregs.gdt.limit = 4 * 8 - 1;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
    sregs.cr3 = PML4;
    sregs.cr4 = CR4_PAE;
    sregs.efer |= EFER_LME | EFER_LMA;
}

/// Starts at `entry` with `boot_params` in RSI, as the boot protocol has it; interrupts are off.
pub(crate) fn entry(entry: u64, boot_params: u64) -> kvm_regs {
    kvm_regs {
        rip: entry,
        rsi: boot_params,
        rflags: RFLAGS_RESERVED,
        ..kvm_regs::default()
    }
}

/// The floating-point unit after `fninit` (Intel SDM volume 1, section 8.1.5) and with all SSE exceptions
/// masked.
pub(crate) fn fpu() -> kvm_fpu {
    kvm_fpu {
        fcw: 0x37f,
        mxcsr: 0x1f80,
        ..kvm_fpu::default()
    }
}
