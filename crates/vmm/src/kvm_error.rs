//! What KVM refused.

/// KVM refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    pub(crate) action: &'static str,
    pub(crate) source: kvm_ioctls::Error,
}

pub(crate) fn refused(action: &'static str) -> impl Fn(kvm_ioctls::Error) -> Refused {
    move |source| Refused { action, source }
}

/// Why a vCPU could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("KVM refused to {action} of vCPU {vcpu}")]
pub struct VcpuError {
    /// The CPU, in the order of the topology.
    pub vcpu: u32,
    pub action: &'static str,
    #[source]
    pub source: kvm_ioctls::Error,
}
