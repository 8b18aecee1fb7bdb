//! What no machine exceeds.

/// Most CPUs that a machine may declare. Linux on x86-64 is built for at most 8192 (`NR_CPUS` under
/// `MAXSMP`, arch/x86/Kconfig); emulators and KVM stop far below, so an engine has its own, lower limit.
pub const MAX_CPUS: u32 = 8192;

/// The largest latency in nanoseconds and bandwidth in MB/s: an HMAT holds 16 bits of each, and the last
/// value means that there is no path (ACPI 6.5, section 5.2.28.4).
pub const MAX_PERFORMANCE: u32 = 65_534;
