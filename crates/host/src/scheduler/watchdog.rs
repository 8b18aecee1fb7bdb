//! The limit of the kernel's watchdog, as a test sets it.

use ktstr_introspect::KernelImage;
use ktstr_introspect::btf::LayoutError;
use ktstr_wire::{OpsField, WatchdogJob};

use crate::causes::chain;
use crate::observe::LazyImage;

/// What the guest is told of a limit.
pub(crate) fn job(timeout_ms: u64, image: &LazyImage) -> WatchdogJob {
    let field = image
        .get()
        .and_then(|image| timeout_field(&image).map_err(|error| chain(&error)));
    WatchdogJob { timeout_ms, field }
}

/// The value of a map of ops is the ops behind a head that the kernel fills in.
fn timeout_field(image: &KernelImage) -> Result<OpsField, LayoutError> {
    let value = image.btf.structure("bpf_struct_ops_sched_ext_ops")?;
    Ok(OpsField {
        offset_bytes: value.offset("data.timeout_ms")?,
        value_bytes: value.size()?,
    })
}
