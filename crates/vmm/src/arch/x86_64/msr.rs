//! Model-specific registers that firmware would have set before the kernel starts.

use kvm_bindings::kvm_msr_entry;

const MSR_IA32_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1 << 0;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLE: u64 = 1 << 11;
const MTRR_WRITE_BACK: u64 = 6;

/// All memory is write-back, and string instructions are fast.
pub(crate) fn boot_msrs() -> [kvm_msr_entry; 2] {
    [
        (MSR_MTRR_DEF_TYPE, MTRR_ENABLE | MTRR_WRITE_BACK),
        (MSR_IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRING),
    ]
    .map(|(index, data)| kvm_msr_entry {
        index,
        data,
        ..kvm_msr_entry::default()
    })
}
