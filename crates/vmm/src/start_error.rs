//! Why a machine did not start.

use std::io;

use ktstr_topology::Topology;

use crate::acpi::AcpiTooLarge;
use crate::arch::boot::BootError;
use crate::arch::cpu_ids::MAX_APIC_ID;
use crate::kvm_error::{Refused, VcpuError};
use crate::memory::MemoryError;

/// Why a machine did not start. Nothing of it is left then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No memory for a node, or memory for none.
    #[error("memory for {given} NUMA nodes is given, but the machine has {declared}")]
    NodeCount { given: usize, declared: usize },
    /// A description of nodes that is that of another shape.
    #[error("{described} NUMA nodes with CPUs are described, but the topology has {declared}")]
    CpuNodeCount {
        /// Nodes with CPUs in the description.
        described: u32,
        /// Nodes of the topology.
        declared: u32,
    },
    /// More CPUs, or a sparser shape, than interrupts can be sent to.
    #[error(
        "{topology} need APIC ids up to {highest}, but the highest possible is {MAX_APIC_ID}: declare fewer \
         CPUs"
    )]
    TooManyCpus {
        topology: Topology,
        /// The highest id it needs.
        highest: u32,
    },
    /// Not one host CPU for each vCPU.
    #[error("{given} host CPUs for {vcpus} vCPUs: a machine with CPUs of its own needs as many")]
    HostCpus {
        /// Host CPUs.
        given: usize,
        vcpus: u32,
    },
    /// More CPUs than this KVM allows.
    #[error("{cpus} CPUs declared, but this host's KVM runs at most {max}")]
    KvmCpus { cpus: u32, max: usize },
    /// KVM refused.
    #[error(
        "KVM refused to {action}; `cargo ktstr doctor` tells whether this host's KVM is usable"
    )]
    Kvm {
        action: &'static str,
        #[source]
        source: kvm_ioctls::Error,
    },
    /// Guest RAM can't be made.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The kernel can't be entered.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Too many CPUs for the tables.
    #[error(transparent)]
    Acpi(#[from] AcpiTooLarge),
    /// A vCPU can't be set up.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// The host refused.
    #[error("can't {action}")]
    Host {
        action: &'static str,
        #[source]
        source: io::Error,
    },
}

impl From<Refused> for StartError {
    fn from(Refused { action, source }: Refused) -> Self {
        Self::Kvm { action, source }
    }
}

/// An error of the host, in `action`.
pub(crate) fn host(action: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Host { action, source }
}
