//! One worker that wakes several at once through a futex, and is woken by the last of them.

use std::sync::atomic::Ordering;

use ktstr_report::CpuDemand;

use super::facts::Facts;
use crate::workload::WorkerControl;
use crate::workload::control::STOP_SLICE_NS;
use crate::workload::syscalls::{futex_wait, futex_wake_all};

/// Workers that one wakes, unless the test says otherwise.
pub(super) const FAN_OUT: usize = 4;

pub(super) const fn facts(fan_out: usize) -> Facts {
    Facts {
        group_size: fan_out.saturating_add(1),
        group_cells: 2,
        ..Facts::alone("FutexFanOut", CpuDemand::Sleeping)
    }
}

pub(super) fn futex_fan_out(control: &mut WorkerControl<'_>, fan_out: usize) {
    let fan_out = u32::try_from(fan_out).unwrap_or(u32::MAX);
    match control.member {
        0 => wake(control, fan_out),
        _ => wait(control, fan_out),
    }
}

/// Begins a round, which wakes all others, and sleeps until each of them has answered.
fn wake(control: &mut WorkerControl<'_>, fan_out: u32) {
    // The number of the round and when it began; how many have answered and when the last one did.
    let [round, answers] = control.cells else {
        return;
    };
    loop {
        answers.futex.store(0, Ordering::Relaxed);
        round.word.store(control.now_ns(), Ordering::Relaxed);
        round.futex.fetch_add(1, Ordering::Release);
        futex_wake_all(&round.futex);
        let mut slept = false;
        loop {
            let seen = answers.futex.load(Ordering::Acquire);
            if seen == fan_out {
                break;
            }
            // One that was killed never answers: the bounded sleep ends with the stop flag.
            if control.stopping() {
                return;
            }
            slept |= futex_wait(&answers.futex, seen, control.now_ns() + STOP_SLICE_NS);
        }
        if slept {
            control.woken(answers.word.load(Ordering::Relaxed));
        }
        if !control.iteration(1) {
            return;
        }
    }
}

/// Sleeps until a round begins, and answers.
fn wait(control: &mut WorkerControl<'_>, fan_out: u32) {
    let [round, answers] = control.cells else {
        return;
    };
    let mut last = 0;
    loop {
        let mut slept = false;
        while round.futex.load(Ordering::Acquire) == last {
            if control.stopping() {
                return;
            }
            slept |= futex_wait(&round.futex, last, control.now_ns() + STOP_SLICE_NS);
        }
        last = round.futex.load(Ordering::Acquire);
        if slept {
            control.woken(round.word.load(Ordering::Relaxed));
        }
        if !control.iteration(1) {
            return;
        }
        answers.word.store(control.now_ns(), Ordering::Relaxed);
        answers.futex.fetch_add(1, Ordering::AcqRel);
        if answers.futex.load(Ordering::Acquire) == fan_out {
            futex_wake_all(&answers.futex);
        }
    }
}
