//! What a machine asks of the host.

use std::time::{SystemTime, UNIX_EPOCH};

use ktstr_machine::HUGE_PAGE_MIB;
use serde::{Deserialize, Serialize};

use crate::millis::millis;

/// What a process says about itself and of its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The process.
    pub pid: u32,
    /// The test, or what else the machine is for.
    pub test: String,
    /// The engine's name.
    pub engine: String,
    /// Guest RAM in plain pages, in MiB.
    #[serde(default)]
    pub memory_mib: u64,
    /// Guest RAM in huge pages of 2 MiB, their number.
    #[serde(default)]
    pub huge_pages: u64,
    /// Host CPUs that the machine keeps busy.
    pub host_cpus: u32,
    /// Which ones, where it has them for itself.
    #[serde(default)]
    pub own_cpus: Vec<u32>,
    /// Since when it runs or waits, in milliseconds since 1970-01-01 UTC.
    pub since_unix_ms: u64,
}

impl Claim {
    /// A claim of this process, without memory.
    pub fn new(test: &str, engine: &str, host_cpus: u32) -> Self {
        Self {
            pid: std::process::id(),
            test: test.to_owned(),
            engine: engine.to_owned(),
            memory_mib: 0,
            huge_pages: 0,
            host_cpus,
            own_cpus: Vec::new(),
            since_unix_ms: 0,
        }
    }

    /// A claim to guest RAM of `mib` as well, in huge pages or not.
    #[must_use]
    pub fn with_memory(mut self, mib: u64, huge: bool) -> Self {
        (self.memory_mib, self.huge_pages) = if huge {
            (0, mib.div_ceil(HUGE_PAGE_MIB))
        } else {
            (mib, 0)
        };
        self
    }

    /// Guest RAM of either kind, in MiB.
    pub fn all_memory_mib(&self) -> u64 {
        let huge_mib = self.huge_pages.saturating_mul(HUGE_PAGE_MIB);
        self.memory_mib.saturating_add(huge_mib)
    }

    pub(super) fn starting_now(&self) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            since_unix_ms: millis(since_epoch.unwrap_or_default()),
            ..self.clone()
        }
    }
}
