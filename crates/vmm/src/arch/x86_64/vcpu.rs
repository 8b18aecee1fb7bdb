//! Making vCPUs: their identity, and where the boot CPU starts.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_cpuid_entry2};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use super::cpu_ids::CpuIds;
use super::{cpuid, layout, msr, regs};
use crate::kvm_error::{Refused, VcpuError, refused};

/// All vCPUs with their identity; the first is the boot CPU. They wait: the boot CPU for [`set_entry`], the others
/// for the guest to start them. `dedicated` is what the guest is told of its CPUs.
pub(crate) fn create_all<E: From<Refused> + From<VcpuError>>(
    kvm: &Kvm,
    vm: &VmFd,
    ids: &CpuIds,
    dedicated: bool,
) -> Result<Vec<VcpuFd>, E> {
    let supported = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(refused("tell the CPUID leaves that it supports"))?;
    let mut vcpus = Vec::new();
    for cpu in 0..ids.topology().cpu_count() {
        // KVM takes the vCPU's id as its APIC id.
        let fd = vm
            .create_vcpu(u64::from(ids.id(cpu)))
            .map_err(refused("create a vCPU"))?;
        let leaves = cpuid::build(supported.as_slice(), ids, cpu, dedicated);
        set_identity(&fd, cpu, &leaves)?;
        if ids.are_wide() {
            enter_x2apic_mode(&fd, cpu)?;
        }
        vcpus.push(fd);
    }
    Ok(vcpus)
}

fn set_identity(fd: &VcpuFd, vcpu: u32, cpuid: &[kvm_cpuid_entry2]) -> Result<(), VcpuError> {
    let too_many = |_| kvm_ioctls::Error::new(nix::libc::E2BIG);
    let leaves = CpuId::from_entries(cpuid).map_err(too_many);
    leaves
        .and_then(|leaves| fd.set_cpuid2(&leaves))
        .map_err(failed(vcpu, "set the CPUID"))?;
    let msrs = Msrs::from_entries(&msr::boot_msrs()).map_err(too_many);
    msrs.and_then(|msrs| fd.set_msrs(&msrs))
        .map_err(failed(vcpu, "set the model-specific registers"))?;
    fd.set_fpu(&regs::fpu())
        .map_err(failed(vcpu, "set the FPU state"))
}

/// As firmware leaves a CPU of a machine whose ids xAPIC mode can't express: a kernel that finds its boot CPU in
/// that mode passes over the others.
fn enter_x2apic_mode(fd: &VcpuFd, vcpu: u32) -> Result<(), VcpuError> {
    let entered = fd.get_sregs().and_then(|mut sregs| {
        sregs.apic_base |= regs::APIC_BASE_X2APIC;
        fd.set_sregs(&sregs)
    });
    entered.map_err(failed(vcpu, "set the APIC's mode"))
}

/// Has the boot CPU start at `entry`, as the kernel's boot protocol says.
pub(crate) fn set_entry(boot_cpu: &VcpuFd, entry: u64) -> Result<(), VcpuError> {
    let sregs = boot_cpu.get_sregs().and_then(|mut sregs| {
        regs::long_mode(&mut sregs);
        boot_cpu.set_sregs(&sregs)
    });
    sregs.map_err(failed(0, "set the system registers"))?;
    let regs = regs::entry(entry, layout::ZERO_PAGE);
    boot_cpu
        .set_regs(&regs)
        .map_err(failed(0, "set the registers"))
}

fn failed(vcpu: u32, action: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> VcpuError {
    move |source| VcpuError {
        vcpu,
        action,
        source,
    }
}

/// Where a vCPU is.
pub(crate) fn program_counter(fd: &VcpuFd) -> Option<u64> {
    fd.get_regs().ok().map(|regs| regs.rip)
}

/// Where a vCPU that shut down was, unless KVM has reset it since.
pub(crate) fn program_counter_unless_reset(fd: &VcpuFd) -> Option<u64> {
    let rip = fd.get_regs().ok()?.rip;
    let sregs = fd.get_sregs().ok()?;
    let is_reset = sregs.cr0 & regs::CR0_PE == 0 && rip == regs::RESET_RIP;
    (!is_reset).then_some(rip)
}
