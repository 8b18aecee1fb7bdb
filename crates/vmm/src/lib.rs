//! A KVM microVM: the machine that a test's guest runs in.
//!
//! A [`Builder`] takes a [`Topology`](ktstr_topology::Topology), memory for each NUMA node and a kernel, and
//! starts a [`MicroVm`]: vCPUs in threads of this process, guest RAM in shared mappings, and byte streams
//! for the two serial ports and the ports of a virtio console. It knows nothing of tests or schedulers.

mod acpi;
mod arch;
mod builder;
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
mod lock;
mod machine;
mod memory;
mod probe;
mod realtime;
mod setup_times;
mod sync;
mod vcpu;

pub use acpi::AcpiTooLarge;
pub use arch::boot::{BootError, ElfFault, InitrdPart};
pub use arch::probe_guest::ProbeStage;
pub use arch::ram::place;
pub use arch::registers::VcpuRegisters;
pub use arch::vm::can_dedicate;
pub use builder::{Builder, MAX_APIC_ID, OnEnd, StartError};
pub use devices::virtio::console::{MAX_PORTS, PortKind};
pub use end::End;
pub use guest_ram::{GuestRam, NotRam, NotStored};
pub use kvm_error::VcpuError;
pub use machine::{ControlError, Killer, MicroVm, Stream};
pub use memory::{MemoryError, NodeMemory, RAM_NAME, RamRegion};
pub use probe::{Unusable, Usable, probe};
pub use realtime::{ServicePriority, VcpuPlacement};
pub use setup_times::{FirstRun, SetupTimes, StepTime};

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
