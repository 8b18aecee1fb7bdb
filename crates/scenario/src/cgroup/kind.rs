//! The two kinds of cgroups.

use std::fmt;

/// What a cgroup can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupKind {
    /// Whole processes.
    Domain,
    /// Threads of the harness. Has the cpu, cpuset and pids controllers only.
    Threaded,
}

impl fmt::Display for CgroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Domain => "domain",
            Self::Threaded => "threaded",
        })
    }
}
