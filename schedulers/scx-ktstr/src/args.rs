//! The command line.

use clap::{Parser, ValueEnum};

/// A plain sched_ext scheduler, with faults that can be switched on to test a harness with.
#[derive(Debug, Parser)]
#[command(name = "scx_ktstr", version)]
pub(crate) struct Args {
    /// How long a task may run before others get their turn, in µs
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    pub(crate) slice_us: u64,
    /// How long a task may wait until the kernel's watchdog disables the scheduler, in ms; the kernel's
    /// own limit (30 s) if unset
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub(crate) timeout_ms: Option<u32>,
    /// Load the scheduler again when the kernel ended it and asks for that, as when a CPU went on- or offline
    #[arg(long)]
    pub(crate) restart: bool,
    /// A fault. All but `never-load` begin when the first worker is there: a task in any cgroup but the root
    #[arg(long)]
    pub(crate) fault: Option<Fault>,
    /// CPU of `strand-cpu`; the last one if unset
    #[arg(long)]
    pub(crate) fault_cpu: Option<u32>,
    /// Cgroup of `starve-cgroup`: the last part of its path
    #[arg(long, default_value = "starved")]
    pub(crate) cgroup: String,
    /// How often one task of the starved cgroup may run, in ms
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub(crate) starve_ms: u64,
}

/// Ways to be a bad scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// One worker is put where nobody takes it from
    StallOne,
    /// Nobody takes from the queue of one CPU
    StrandCpu,
    /// The workers of one cgroup hardly ever run
    StarveCgroup,
    /// Workers are sent to CPUs that they are not allowed on
    IgnoreAffinity,
    /// scx_bpf_error() in ops.dispatch
    Error,
    /// Workers with an odd pid get a fraction of what is theirs
    UnfairSlices,
    /// All workers pile up in the local queue of one CPU
    LeakDsq,
    /// Workers get the same, whatever their niceness
    FlatWeights,
    /// This process crashes
    Crash,
    /// The scheduler is detached, and this process stays
    Detach,
    /// The verifier refuses a program
    NeverLoad,
}

impl Fault {
    /// The number in src/bpf/settings.h; 0 for what the BPF part has no share in.
    pub(crate) fn in_bpf(self) -> u32 {
        match self {
            Self::StallOne => 1,
            Self::StrandCpu => 2,
            Self::StarveCgroup => 3,
            Self::IgnoreAffinity => 4,
            Self::Error => 5,
            Self::UnfairSlices => 6,
            Self::LeakDsq => 7,
            Self::FlatWeights => 8,
            Self::Crash | Self::Detach | Self::NeverLoad => 0,
        }
    }
}
