//! What a test says of its scheduler.

use crate::attribute::{Attribute, Fills, Needs, Takes};

/// How a test uses its scheduler, beyond what the scheduler's declaration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerOptions {
    /// Arguments of its program, after those of its declaration.
    pub extra_args: &'static [&'static str],
    /// How long a runnable task may wait until the kernel's watchdog disables it.
    pub watchdog_timeout_ms: Option<u64>,
    /// What the host writes into global variables of its BPF programs, before the body.
    pub bpf_map_write: &'static [(&'static str, i128)],
}

impl SchedulerOptions {
    /// A test that says nothing about it.
    pub const DEFAULT: Self = Self {
        extra_args: &[],
        watchdog_timeout_ms: None,
        bpf_map_write: &[],
    };
}

pub(crate) const SCHEDULER: &[Attribute] = &[
    Attribute {
        name: "scheduler",
        takes: Takes::Form("MINE"),
        fills: Fills::Section,
        needs: Needs::Machine,
        default: "the kernel's own",
        text: "the scheduler to run under, see `declare_scheduler!`; the test has its shape where it declares none",
    },
    Attribute {
        name: "extra_sched_args",
        takes: Takes::Texts("[\"--verbose\"]"),
        fills: Fills::Field("extra_args"),
        needs: Needs::Scheduler,
        default: "none",
        text: "arguments of its program, after those of its declaration",
    },
    Attribute {
        name: "bpf_map_write",
        takes: Takes::Form("(\"path\" = 3)"),
        fills: Fills::Section,
        needs: Needs::Scheduler,
        default: "none",
        text: "numbers that the host writes into global variables of its BPF programs, once it is attached; see \
               `Ctx::bpf_map_write`",
    },
    Attribute {
        name: "watchdog_timeout_s",
        takes: Takes::Seconds,
        fills: Fills::Optional("watchdog_timeout_ms"),
        needs: Needs::Scheduler,
        default: "the scheduler's own",
        text: "how long a runnable task may wait until the kernel disables the scheduler, at most 30; if it can't be set, \
               the check `watchdog_timeout` is inconclusive",
    },
    Attribute {
        name: "expect_err",
        takes: Takes::Form("(stall)"),
        fills: Fills::Section,
        needs: Needs::Machine,
        default: "nothing",
        text: "what is to go wrong, see below",
    },
];
