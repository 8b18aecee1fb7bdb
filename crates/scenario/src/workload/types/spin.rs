//! Work that never sleeps.

use std::hint::black_box;
use std::thread;

use ktstr_report::CpuDemand;

use super::facts::Facts;
use crate::workload::WorkerControl;

/// Turns of the spin loop in an iteration: microseconds of work, also without optimisation or in
/// emulation.
const SPIN_TURNS: u64 = 1024;

pub(super) const SPIN_WAIT: Facts = Facts::alone("SpinWait", CpuDemand::Constant);
pub(super) const YIELD_HEAVY: Facts = Facts::alone("YieldHeavy", CpuDemand::Yielding);
pub(super) const MIXED: Facts = Facts::alone("Mixed", CpuDemand::Yielding);

/// Burns CPU time; the turns done. No PAUSE in it: hypervisors and emulators deschedule a CPU for that.
pub(super) fn burn() -> u64 {
    for turn in 0..SPIN_TURNS {
        black_box(turn);
    }
    SPIN_TURNS
}

pub(super) fn spin_wait(control: &mut WorkerControl<'_>) {
    while control.iteration(burn()) {}
}

pub(super) fn yield_heavy(control: &mut WorkerControl<'_>) {
    loop {
        thread::yield_now();
        if !control.iteration(1) {
            return;
        }
    }
}

pub(super) fn mixed(control: &mut WorkerControl<'_>) {
    loop {
        let units = burn();
        thread::yield_now();
        if !control.iteration(units) {
            return;
        }
    }
}
