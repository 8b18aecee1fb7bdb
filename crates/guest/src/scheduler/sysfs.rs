//! What the kernel says of sched_ext now (`scx_attr_*` in kernel/sched/ext.c).

use std::fs;
use std::path::Path;
use std::time::Duration;

const FOLDER: &str = "/sys/kernel/sched_ext";

/// How often sched_ext and a scheduler's process are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Whether the kernel was built with sched_ext.
pub(super) fn is_there() -> bool {
    Path::new(FOLDER).exists()
}

/// `disabled`, `enabling`, `enabled`, `disabling`, `bypass`.
pub(super) fn state() -> String {
    read("state").unwrap_or_default()
}

/// Whether no scheduler is there, and none on its way in or out.
pub(super) fn is_disabled() -> bool {
    state() == "disabled"
}

/// Name of the scheduler that is attached now.
pub(super) fn attached() -> Option<String> {
    (state() == "enabled").then(|| read("root/ops")).flatten()
}

/// How often a scheduler was enabled since boot. The kernel counts once the state is `enabled`, so that a look between
/// the two is one short.
pub(super) fn enable_seq() -> Option<u64> {
    read("enable_seq")?.parse().ok()
}

/// How often the kernel has enabled a scheduler since its count was `before`.
pub(super) fn enables_since(before: Option<u64>) -> Option<u64> {
    Some(enable_seq()?.saturating_sub(before?))
}

fn read(file: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new(FOLDER).join(file)).ok()?;
    Some(text.trim_end().to_owned())
}
