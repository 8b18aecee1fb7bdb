//! What depends on the architecture of the CPUs, under names that don't. Only this file names an architecture:
//! another one is a folder beside `x86_64` with the same names, and a line here.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(all(target_arch = "x86_64", any(test, feature = "fuzzing")))]
pub(crate) use x86_64::cpuid;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{
    boot, cpu_ids, io_apic, layout, power, probe_guest, ram, registers, vcpu, vm,
};

#[cfg(not(target_arch = "x86_64"))]
compile_error!(
    "the microVM has no CPUs of this architecture: write crates/vmm/src/arch/ARCHITECTURE"
);
