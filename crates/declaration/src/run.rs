//! How a test runs, and what the host does beside it.

use std::time::Duration;

use crate::attribute::{Attribute, Fills, Needs, Takes};

/// The run of the body: for the guest, and for the host's watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How long a scenario holds its load.
    pub duration_ms: u64,
    /// How long the guest may take from its first message to its last.
    pub timeout_ms: Option<u64>,
    /// The cgroup below which the test makes its own. It is made before the scheduler starts.
    pub workload_root_cgroup: Option<&'static str>,
}

impl Run {
    /// A test that says nothing about it.
    pub const DEFAULT: Self = Self {
        duration_ms: 2_000,
        timeout_ms: None,
        workload_root_cgroup: None,
    };

    /// How long a scenario holds its load.
    pub const fn duration(&self) -> Duration {
        Duration::from_millis(self.duration_ms)
    }

    /// How long the guest may take, if the test says.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout_ms.map(Duration::from_millis)
    }
}

pub(crate) const RUN: &[Attribute] = &[
    Attribute {
        name: "duration_s",
        takes: Takes::Seconds,
        fills: Fills::Field("duration_ms"),
        needs: Needs::Nothing,
        default: "2",
        text: "how long a scenario holds its load",
    },
    Attribute {
        name: "timeout_s",
        takes: Takes::Seconds,
        fills: Fills::Optional("timeout_ms"),
        needs: Needs::Nothing,
        default: "30 + 2 × `duration_s` + 1 per CPU; 240 more under a scheduler",
        text: "how long the guest may take from its first message to its last",
    },
    Attribute {
        name: "workload_root_cgroup",
        takes: Takes::Text("\"/test.slice\""),
        fills: Fills::Optional("workload_root_cgroup"),
        needs: Needs::Machine,
        default: "`/ktstr`",
        text: "the cgroup below which the test makes its own; a declared one is made, with its controllers enabled, before \
               the scheduler starts",
    },
];

/// What the host captures while the test runs: for its observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Snapshots of the kernel's state, evenly over the load.
    pub num_snapshots: u32,
}

impl Watch {
    /// A test that says nothing about it.
    pub const DEFAULT: Self = Self { num_snapshots: 0 };
}

pub(crate) const WATCH: &[Attribute] = &[
    Attribute {
        name: "num_snapshots",
        takes: Takes::Whole(0..=1000),
        fills: Fills::Field("num_snapshots"),
        needs: Needs::Machine,
        default: "0",
        text: "snapshots that the host takes of the kernel's state, evenly over the load",
    },
    Attribute {
        name: "post_vm",
        takes: Takes::Form("function"),
        fills: Fills::Section,
        needs: Needs::Machine,
        default: "none",
        text: "a function `fn(&VmResult) -> Result<()>`, or `-> Result<AssertResult>`, that the host calls when the \
               machine has ended",
    },
];

pub(crate) const TEST: &[Attribute] = &[
    Attribute {
        name: "host_only",
        takes: Takes::Flag,
        fills: Fills::Section,
        needs: Needs::Nothing,
        default: "`false`",
        text: "the body runs on the host, without a machine; on the `nested` engine in the emulated machine, whose KVM \
               it can use",
    },
    Attribute {
        name: "sustained_samples",
        takes: Takes::Whole(1..=1000),
        fills: Fills::Section,
        needs: Needs::Machine,
        default: "5",
        text: "samples of the monitor in a row that break one of its bounds",
    },
];
