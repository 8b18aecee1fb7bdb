//! Work that never sleeps.

use std::hint::black_box;
use std::thread;

use super::WorkerControl;
use super::link::LinkKind;
use super::work_type::Facts;

/// Turns of the spin loop in an iteration: microseconds of work, also without optimisation or in
/// emulation.
const SPIN_TURNS: u64 = 1024;

const fn facts(name: &'static str) -> Facts {
    Facts {
        name,
        group_size: 1,
        sleeps: false,
        link: LinkKind::None,
    }
}

pub(super) const SPIN_WAIT: Facts = facts("SpinWait");
pub(super) const YIELD_HEAVY: Facts = facts("YieldHeavy");
pub(super) const MIXED: Facts = facts("Mixed");

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
