//! Two workers that hand a turn to each other through a futex.

use std::sync::atomic::Ordering;

use super::WorkerControl;
use super::control::STOP_SLICE_NS;
use super::link::LinkKind;
use super::syscalls::{futex_wait, futex_wake_all};
use super::work_type::Facts;

pub(super) const FUTEX_PING_PONG: Facts = Facts {
    name: "FutexPingPong",
    group_size: 2,
    sleeps: true,
    link: LinkKind::None,
};

pub(super) fn futex_ping_pong(control: &mut WorkerControl<'_>) {
    let (mine, theirs) = (control.member, 1 - control.member);
    let lead = control.lead;
    loop {
        let mut slept = false;
        // A partner that was killed never hands over: the bounded sleep ends with the stop flag.
        while lead.turn.load(Ordering::Acquire) != mine {
            if control.stopping() {
                return;
            }
            slept |= futex_wait(&lead.turn, theirs, control.now_ns() + STOP_SLICE_NS);
        }
        if slept {
            control.woken(lead.handed_ns.load(Ordering::Relaxed));
        }
        if !control.iteration(1) {
            return;
        }
        lead.handed_ns.store(control.now_ns(), Ordering::Relaxed);
        lead.turn.store(theirs, Ordering::Release);
        futex_wake_all(&lead.turn);
    }
}
