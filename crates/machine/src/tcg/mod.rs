//! The `tcg` engine: QEMU as a child process, emulating the CPU in software.
//!
//! Everything between us and QEMU is an inherited fd without a name (guest RAM, initramfs, console
//! streams, control), so that nothing is left behind however either side ends.

mod args;
mod control;
mod end;
mod engine;
mod machine;
mod pause_pipe;
mod process;
pub(crate) mod qmp;
pub(crate) mod registers;
mod shared;
mod streams;
mod supervisor;
mod topology;
mod tsc;
mod vcpu_threads;
mod version;

use std::time::Duration;

pub(crate) use engine::TcgEngine;

/// With one emulation thread QEMU lets the next vCPU run at the latest after this
/// (`TCG_KICK_PERIOD`, accel/tcg/tcg-accel-ops-rr.c).
const KICK_PERIOD_MS: u64 = 100;

const KICK_PERIOD: Duration = Duration::from_millis(KICK_PERIOD_MS);
