//! Ending the machine.

use std::process::abort;

use nix::sys::reboot::{RebootMode, reboot};

use crate::crash;

/// Turns the machine off. Needs no cooperation of anything that may be wedged: no sync, no unmounting.
pub(crate) fn power_off() -> ! {
    let refused = match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never {},
        Err(errno) => errno,
    };
    // A kernel without a way to power off halts or returns; a panic of PID 1 then ends the machine.
    crash::report(&format!("the kernel refused to power off: {refused}"));
    abort()
}
