//! How a kernel says that it can't go on.

/// What every kernel panic's line has, before the reason: `panic()` in kernel/panic.c.
pub const KERNEL_PANIC: &str = "Kernel panic - not syncing";
