//! What KVM says about an exit beyond its kind.
#![expect(
    unsafe_code,
    reason = "the details of an exit are in a union, of which the exit's kind tells the valid member"
)]

use kvm_bindings::KVM_EXIT_INTERNAL_ERROR;
use kvm_ioctls::VcpuFd;

/// Why KVM reported an internal error; `None` if the last exit was none.
pub(crate) fn internal_error(vcpu: &mut VcpuFd) -> Option<String> {
    let run = vcpu.get_kvm_run();
    if run.exit_reason != KVM_EXIT_INTERNAL_ERROR {
        return None;
    }
    // SAFETY: KVM fills this member for this exit reason; it consists of integers alone.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    let kind = match internal.suberror {
        1 => "KVM could not emulate an instruction",
        2 => "an exception came while another one was being handled",
        3 => "an exit came while an event was being delivered",
        4 => "an exit of unknown kind",
        _ => "an internal error of unknown kind",
    };
    let count = usize::try_from(internal.ndata).unwrap_or(0);
    let data: Vec<_> = internal
        .data
        .iter()
        .take(count)
        .map(|word| format!("{word:#x}"))
        .collect();
    Some(format!(
        "{kind} (KVM internal error {}, data: {})",
        internal.suberror,
        data.join(" ")
    ))
}
