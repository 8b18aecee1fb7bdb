//! What the kernel says of sched_ext now (`scx_attr_*` in kernel/sched/ext.c).

use std::fs;
use std::path::Path;

const FOLDER: &str = "/sys/kernel/sched_ext";

/// Whether the kernel was built with sched_ext.
pub fn is_there() -> bool {
    Path::new(FOLDER).exists()
}

/// `disabled`, `enabling`, `enabled`, `disabling`, `bypass`; empty if the kernel was built without sched_ext.
pub fn state() -> String {
    read("state").unwrap_or_default()
}

/// Whether the scheduler takes all tasks but real-time and deadline ones (`1`), or those that ask for it (`0`).
pub fn switch_all() -> Option<String> {
    read("switch_all")
}

/// Whether no scheduler is there, and none on its way in or out.
pub fn is_disabled() -> bool {
    state() == "disabled"
}

/// Name of the scheduler that is attached now.
pub fn attached() -> Option<String> {
    (state() == "enabled").then(|| read("root/ops")).flatten()
}

/// How often a scheduler was enabled since boot. The kernel counts once the state is `enabled`, so that a look between
/// the two is one short.
pub fn enable_seq() -> Option<u64> {
    read("enable_seq")?.parse().ok()
}

/// How often the kernel has enabled a scheduler since its count was `before`.
pub fn enables_since(before: Option<u64>) -> Option<u64> {
    Some(enable_seq()?.saturating_sub(before?))
}

fn read(file: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new(FOLDER).join(file)).ok()?;
    Some(text.trim_end().to_owned())
}
