//! A KVM microVM: the machine that a test's guest runs in.
//!
//! It starts in three steps, each with a type of its own: a [`VmConfig`] is *created* (KVM, RAM, devices, vCPUs), what
//! comes of it is *loaded* with a [`BootSource`], and the [`LoadedVm`] is *run*. A [`MicroVm`] has its vCPUs in
//! threads of this process, guest RAM in shared mappings, and byte streams for the two serial ports and the ports of
//! a virtio console. It knows nothing of tests or schedulers.

mod acpi;
mod arch;
mod config;
mod control_error;
mod create;
mod devices;
mod end;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod gate;
mod guest_ram;
mod interrupt;
mod kick;
mod kvm_error;
mod kvm_run;
mod load;
mod lock;
mod machine;
mod memory;
mod pause_port;
mod probe;
mod realtime;
mod run;
mod setup_times;
mod start_error;
mod sync;
mod vcpu;

pub use acpi::AcpiTooLarge;
pub use arch::boot::{BootError, ElfFault, InitrdPart};
pub use arch::cpu_ids::MAX_APIC_ID;
pub use arch::probe_guest::ProbeStage;
pub use arch::ram::place;
pub use arch::registers::VcpuRegisters;
pub use arch::vm::can_dedicate;
pub use config::VmConfig;
pub use control_error::ControlError;
pub use create::CreatedVm;
pub use devices::virtio::chain::Chain;
pub use devices::virtio::console::{MAX_PORTS, PortKind};
pub use devices::virtio::device::{VirtioDevice, Wait};
pub use devices::virtio::queue::{BadQueue, GuestQueue};
pub use end::End;
pub use guest_ram::{GuestRam, NotRam, NotStored};
pub use kvm_error::VcpuError;
pub use load::{BootSource, LoadedVm};
pub use machine::{Killer, MicroVm, Stream};
pub use memory::{MemoryError, NodeMemory, RAM_NAME, RamRegion};
pub use pause_port::OnPause;
pub use probe::{Unusable, Usable, probe};
pub use realtime::{ServicePriority, VcpuPlacement};
pub use run::OnEnd;
pub use setup_times::{FirstRun, SetupTimes, StepTime};
pub use start_error::StartError;

#[cfg(test)]
mod test_topology {
    use ktstr_topology::Topology;
    use proptest::prelude::*;

    /// Shapes of up to 240 CPUs.
    pub(crate) fn any_topology() -> impl Strategy<Value = Topology> {
        (1_u32..5, 1_u32..5, 1_u32..8, 1_u32..3).prop_map(|(nodes, llcs, cores, threads)| {
            Topology::new(nodes, nodes * llcs, cores, threads).unwrap()
        })
    }
}
