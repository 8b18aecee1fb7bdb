//! The virtual machine in KVM, before it has memory and vCPUs. The probe makes its own by the same function, so it
//! exercises exactly what a microVM needs.

use std::sync::Arc;

use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_X2APIC_API, KVM_CAP_X86_DISABLE_EXITS, KVM_IRQ_ROUTING_MSI,
    KVM_PIT_SPEAKER_DUMMY, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK, KVM_X2APIC_API_USE_32BIT_IDS,
    KVM_X86_DISABLE_EXITS_HLT, KVM_X86_DISABLE_EXITS_PAUSE, KvmIrqRouting, kvm_enable_cap,
    kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_msi, kvm_msi,
    kvm_pit_config,
};
use kvm_ioctls::{Kvm, VmFd};
use vmm_sys_util::eventfd::EventFd;

use super::io_apic::{self, Lines, Message};
use super::layout;
use crate::interrupt::MsiSink;
use crate::kvm_error::{Refused, refused};

/// Which interrupt controllers a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupts {
    /// All of KVM's, with its timer. They reach APIC ids of 8 bits.
    InKernel,
    /// KVM's local APICs, for ids of any width; the I/O APIC is ours. There is no interval timer then, which a kernel
    /// that needs such ids does without.
    WideIds,
}

/// A virtual machine with interrupt controllers.
pub(crate) fn create(kvm: &Kvm, interrupts: Interrupts) -> Result<VmFd, Refused> {
    let vm = kvm
        .create_vm()
        .map_err(refused("create a virtual machine"))?;
    vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
        .map_err(refused("place its identity map"))?;
    // A 32-bit host could not hold the address; there is no such host.
    let tss = usize::try_from(layout::KVM_TSS).unwrap_or_default();
    vm.set_tss_address(tss)
        .map_err(refused("place its task state segment"))?;
    match interrupts {
        Interrupts::InKernel => add_all_controllers(&vm)?,
        Interrupts::WideIds => add_wide_local_apics(&vm)?,
    }
    Ok(vm)
}

fn add_all_controllers(vm: &VmFd) -> Result<(), Refused> {
    vm.create_irq_chip()
        .map_err(refused("create the interrupt controllers"))?;
    // For kernels without kvmclock, which calibrate by it. The dummy answers at the speaker's port.
    let pit = kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..kvm_pit_config::default()
    };
    vm.create_pit2(pit)
        .map_err(refused("create the interval timer"))
}

fn add_wide_local_apics(vm: &VmFd) -> Result<(), Refused> {
    let enable = |cap, arg| {
        let mut cap = kvm_enable_cap {
            cap,
            ..kvm_enable_cap::default()
        };
        cap.args[0] = u64::from(arg);
        vm.enable_cap(&cap)
    };
    enable(KVM_CAP_SPLIT_IRQCHIP, io_apic::PINS)
        .map_err(refused("leave the I/O APIC to the microVM"))?;
    let api = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
    enable(KVM_CAP_X2APIC_API, api).map_err(refused("take APIC ids of 32 bits"))
}

/// What a guest with CPUs of its own does without leaving it.
const WITHOUT_EXIT: u32 = KVM_X86_DISABLE_EXITS_HLT | KVM_X86_DISABLE_EXITS_PAUSE;

/// Whether this host's KVM lets a guest halt and pause a CPU of its own without leaving it, which
/// [`VmConfig::dedicated`](crate::VmConfig::dedicated) needs.
pub fn can_dedicate() -> bool {
    let can = |kvm: Kvm| {
        let exits = kvm.check_extension_raw(u64::from(KVM_CAP_X86_DISABLE_EXITS));
        u32::try_from(exits).is_ok_and(|exits| exits & WITHOUT_EXIT == WITHOUT_EXIT)
    };
    Kvm::new().is_ok_and(can)
}

/// Lets the guest of CPUs of its own halt without leaving it.
pub(crate) fn halt_without_exit(vm: &VmFd) -> Result<(), Refused> {
    let mut cap = kvm_enable_cap {
        cap: KVM_CAP_X86_DISABLE_EXITS,
        ..kvm_enable_cap::default()
    };
    cap.args[0] = u64::from(WITHOUT_EXIT);
    vm.enable_cap(&cap)
        .map_err(refused("let the guest halt without leaving it"))
}

/// Has `event` raise the interrupt line `irq`.
pub(crate) fn connect_line(vm: &VmFd, event: &EventFd, irq: u32) -> Result<(), Refused> {
    vm.register_irqfd(event, irq)
        .map_err(refused("connect an interrupt line"))
}

/// Message-signalled interrupts go straight to KVM's local APICs.
#[derive(Debug)]
pub(crate) struct KvmMsi {
    pub(crate) vm: Arc<VmFd>,
    pub(crate) interrupts: Interrupts,
}

impl MsiSink for KvmMsi {
    fn send(&self, address: u64, data: u32) {
        let (address_lo, address_hi) = self.interrupts.address_halves(address);
        let msi = kvm_msi {
            address_lo,
            address_hi,
            data,
            ..kvm_msi::default()
        };
        // Fails for an address that no CPU has: such a message is lost.
        let _ = self.vm.signal_msi(msi);
    }
}

/// The lines of an I/O APIC of ours: KVM sends the message of a line when its event is written to.
#[derive(Debug)]
pub(crate) struct KvmLines(pub(crate) Arc<VmFd>);

impl Lines for KvmLines {
    fn connect(&self, messages: &[(u32, Message)]) {
        let entries: Vec<_> = messages
            .iter()
            .map(|&(gsi, Message { address, data })| {
                let (address_lo, address_hi) = Interrupts::WideIds.address_halves(address);
                let msi = kvm_irq_routing_msi {
                    address_lo,
                    address_hi,
                    data,
                    ..kvm_irq_routing_msi::default()
                };
                kvm_irq_routing_entry {
                    gsi,
                    type_: KVM_IRQ_ROUTING_MSI,
                    u: kvm_irq_routing_entry__bindgen_ty_1 { msi },
                    ..kvm_irq_routing_entry::default()
                }
            })
            .collect();
        // There are far fewer than KVM takes. It refuses a message to no CPU, for which the guest has asked itself.
        if let Ok(routing) = KvmIrqRouting::from_entries(&entries) {
            let _ = self.0.set_gsi_routing(&routing);
        }
    }
}

impl Interrupts {
    /// A message's address as KVM takes it. Of a wide id, the guest puts bits 14:8 in bits 11:5
    /// (`KVM_FEATURE_MSI_EXT_DEST_ID`), and KVM has all above bit 7 in the upper half (`KVM_CAP_X2APIC_API`).
    fn address_halves(self, address: u64) -> (u32, u32) {
        const HIGH_ID: u32 = 0x7f << 5;
        let halves = ((address & 0xffff_ffff) as u32, (address >> 32) as u32);
        match self {
            Self::InKernel => halves,
            Self::WideIds => (halves.0 & !HIGH_ID, (halves.0 & HIGH_ID) << 3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_bits_of_a_wide_id_are_in_the_upper_half() {
        // The CPU with id 0x234.
        let address = 0xfee3_4040;
        let wide = Interrupts::WideIds.address_halves(address);
        assert_eq!(wide, (0xfee3_4000, 0x200));
        let highest = Interrupts::WideIds.address_halves(0xfeef_ffec);
        assert_eq!(highest, (0xfeef_f00c, 0x7f00));
        let narrow = Interrupts::InKernel.address_halves(address);
        assert_eq!(narrow, (0xfee3_4040, 0));
    }
}
