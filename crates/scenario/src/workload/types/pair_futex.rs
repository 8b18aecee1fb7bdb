//! Two workers that hand a turn to each other through a futex.

use std::sync::atomic::Ordering;

use ktstr_report::CpuDemand;

use super::facts::Facts;
use crate::workload::WorkerControl;
use crate::workload::control::STOP_SLICE_NS;
use crate::workload::syscalls::{futex_wait, futex_wake_all};

pub(super) const FUTEX_PING_PONG: Facts = Facts {
    group_size: 2,
    group_cells: 1,
    ..Facts::alone("FutexPingPong", CpuDemand::Sleeping)
};

pub(super) fn futex_ping_pong(control: &mut WorkerControl<'_>) {
    let (mine, theirs) = (control.member, 1 - control.member);
    // Whose turn it is, and when it was handed over.
    let [turn] = control.cells else { return };
    loop {
        let mut slept = false;
        // A partner that was killed never hands over: the bounded sleep ends with the stop flag.
        while turn.futex.load(Ordering::Acquire) != mine {
            if control.stopping() {
                return;
            }
            slept |= futex_wait(&turn.futex, theirs, control.now_ns() + STOP_SLICE_NS);
        }
        if slept {
            control.woken(turn.word.load(Ordering::Relaxed));
        }
        if !control.iteration(1) {
            return;
        }
        turn.word.store(control.now_ns(), Ordering::Relaxed);
        turn.futex.store(theirs, Ordering::Release);
        futex_wake_all(&turn.futex);
    }
}
