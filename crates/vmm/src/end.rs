//! How a machine ends.

use std::fmt;

/// Why a machine runs no more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The guest switched itself off, by ACPI.
    PoweredOff,
    /// The guest reset itself.
    Reset,
    /// A CPU faulted three times over: the guest has lost its own exception handling.
    TripleFault {
        /// The CPU, in the order of the topology.
        vcpu: u32,
        /// Where it was; `None` if KVM does not say. On AMD-V it never does: the state of a CPU that shut
        /// down is undefined there, so KVM resets it (`shutdown_interception` in arch/x86/kvm/svm/svm.c).
        rip: Option<u64>,
    },
    /// [`MicroVm::kill`](crate::MicroVm::kill), or the machine was dropped.
    Stopped,
    /// KVM gave up on a CPU, or we don't know what it wants of us.
    Broken {
        /// The CPU, in the order of the topology.
        vcpu: u32,
        /// Where it was; `None` if KVM does not say.
        rip: Option<u64>,
        reason: String,
    },
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoweredOff => f.write_str("the guest powered off"),
            Self::Reset => f.write_str("the guest reset itself"),
            Self::TripleFault { vcpu, rip } => {
                write!(f, "triple fault on vCPU {vcpu}")?;
                match rip {
                    Some(rip) => write!(f, " at RIP {rip:#x}")?,
                    None => f.write_str(" (its RIP is lost: KVM has reset it)")?,
                }
                f.write_str(": it could not deliver an exception, nor the double fault after it")
            }
            Self::Stopped => f.write_str("the machine was stopped"),
            Self::Broken { vcpu, rip, reason } => {
                write!(f, "vCPU {vcpu} broke down")?;
                if let Some(rip) = rip {
                    write!(f, " at RIP {rip:#x}")?;
                }
                write!(f, ": {reason}")
            }
        }
    }
}
