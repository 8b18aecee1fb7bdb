//! The virtual machine in KVM, before it has memory and vCPUs: the same for a microVM and for the probe, so
//! that what the one needs the other has seen to work.

use std::sync::Arc;

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_msi, kvm_pit_config};
use kvm_ioctls::{Kvm, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::arch::x86_64::layout;
use crate::devices::virtio::msix::MsiSink;

/// KVM refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    /// What was tried.
    pub(crate) action: &'static str,
    /// Its answer.
    pub(crate) source: kvm_ioctls::Error,
}

pub(crate) fn refused(action: &'static str) -> impl Fn(kvm_ioctls::Error) -> Refused {
    move |source| Refused { action, source }
}

/// A virtual machine with interrupt controllers and timer.
pub(crate) fn create(kvm: &Kvm) -> Result<VmFd, Refused> {
    let vm = kvm
        .create_vm()
        .map_err(refused("create a virtual machine"))?;
    vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
        .map_err(refused("place its identity map"))?;
    // A 32-bit host could not hold the address; there is no such host.
    let tss = usize::try_from(layout::KVM_TSS).unwrap_or_default();
    vm.set_tss_address(tss)
        .map_err(refused("place its task state segment"))?;
    vm.create_irq_chip()
        .map_err(refused("create the interrupt controllers"))?;
    // For kernels without kvmclock, which calibrate by it. The dummy answers at the speaker's port.
    let pit = kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..kvm_pit_config::default()
    };
    vm.create_pit2(pit)
        .map_err(refused("create the interval timer"))?;
    Ok(vm)
}

/// Has `event` raise the interrupt line `irq`.
pub(crate) fn connect_line(vm: &VmFd, event: &EventFd, irq: u32) -> Result<(), Refused> {
    vm.register_irqfd(event, irq)
        .map_err(refused("connect an interrupt line"))
}

/// Message-signalled interrupts go straight to KVM's local APICs.
#[derive(Debug)]
pub(crate) struct KvmMsi(pub(crate) Arc<VmFd>);

impl MsiSink for KvmMsi {
    fn send(&self, address: u64, data: u32) {
        let msi = kvm_msi {
            address_lo: (address & 0xffff_ffff) as u32,
            address_hi: (address >> 32) as u32,
            data,
            ..kvm_msi::default()
        };
        // Fails for an address that is no CPU's; then the guest has asked for nothing.
        let _ = self.0.signal_msi(msi);
    }
}
